"""Daily series of runs by the day, so that two runs can be taken over the days both have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntrader.metrics import NANOSECONDS_PER_DAY, daily_equity, daily_points, drawdowns, point_returns
from ntrader.results import EquityCurve, Floats, Times


@dataclass(frozen=True, slots=True, eq=False)
class DailySeries:
    """A run a day. `days` are those since 1970 UTC on which a bar ends, one for each return.

    `growth` is equity over the initial capital and `falls` the drawdown (a fraction <= 0): both have the initial
    capital's own point first, one more than there are days. `returns` (fractions) are empty where returns mean
    nothing, as `ntrader.metrics.point_returns` has it.
    """

    days: Times
    growth: Floats
    falls: Floats
    returns: Floats


def daily_series(initial_capital: float, curve: EquityCurve) -> DailySeries:
    """From a curve with any number of points a day."""
    daily = daily_equity(curve)
    points = daily_points(initial_capital, daily)
    # As in `ntrader.metrics`: a bar that closes at midnight belongs to the day it ends.
    days = (daily.times - 1) // NANOSECONDS_PER_DAY
    return DailySeries(days, points / points[0], drawdowns(points), point_returns(points))


def common_days(one: DailySeries, other: DailySeries) -> tuple[Times, Floats, Floats]:
    """The days for which both have a return, and the two returns of each."""
    none = np.empty(0, dtype=np.int64)
    left, right = (series.days if len(series.returns) else none for series in (one, other))
    days, first, second = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    return days, one.returns[first], other.returns[second]
