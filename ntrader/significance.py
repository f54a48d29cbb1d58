"""Whether two runs can be told apart by their daily returns: bootstrap confidence intervals of the differences.

The days both runs have are drawn in blocks, the two returns of a day together: stationary bootstrap (Politis and
Romano, "The Stationary Bootstrap", JASA 89, 1994), as `arch` has it. The mean length of a block is the longest of the
optimal lengths (Politis and White 2004, corrected by Patton, Politis and White 2009) for either series and for their
difference. The intervals are those of the percentiles. Of several runs each is compared with the baseline alone:
nothing is corrected for how many there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ntrader.metrics import NOISE, sharpe_ratio
from ntrader.paired import DailySeries, common_days
from ntrader.results import Floats

CONFIDENCE = 0.95
FEWEST_DAYS = 30
RESAMPLES = 5_000
_SEED = 20_040_101


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference, other minus baseline, with its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Significance:
    """Other minus baseline over their common days. `mean_return` is a fraction a year, `block` a number of days.

    Both intervals are None where there are too few days; `sharpe_ratio` also where one has no Sharpe ratio, in these
    days or in any resample of them.
    """

    days: int
    block: int | None = None
    mean_return: Interval | None = None
    sharpe_ratio: Interval | None = None


def significance(
    baseline: DailySeries, other: DailySeries, annualization: int, resamples: int = RESAMPLES
) -> Significance:
    """Seeded: the same two series always give the same intervals. `annualization` is the number of returns a year."""
    days, before, after = common_days(baseline, other)
    if len(days) < FEWEST_DAYS:
        return Significance(len(days))
    # What is but rounding is no difference, and would else be a very significant one.
    after = np.where(np.abs(after - before) <= NOISE * (1 + np.abs(before)), before, after)
    block = _block_length(before, after, after - before)
    mean, sharpe = _intervals(before, after, annualization, block, resamples)
    return Significance(len(days), block, mean, sharpe)


def _intervals(
    before: Floats, after: Floats, annualization: int, block: int, resamples: int
) -> tuple[Interval | None, Interval | None]:
    from arch.bootstrap import StationaryBootstrap

    def differences(one: Floats, two: Floats) -> Floats:
        sharpes = sharpe_ratio(one, annualization), sharpe_ratio(two, annualization)
        sharpe = math.nan if sharpes[0] is None or sharpes[1] is None else sharpes[1] - sharpes[0]
        return np.array([float(np.mean(two - one)) * annualization, sharpe])

    bootstrap = StationaryBootstrap(block, before, after, seed=_SEED)
    low, high = bootstrap.conf_int(differences, reps=resamples, method="percentile", size=CONFIDENCE)
    mean, sharpe = zip(differences(before, after), low, high, strict=True)
    return _interval(*mean), _interval(*sharpe)


def _interval(estimate: float, low: float, high: float) -> Interval | None:
    if not all(map(math.isfinite, (estimate, low, high))):
        return None
    return Interval(float(estimate), float(low), float(high))


def _block_length(*series: Floats) -> int:
    """Whole days, at least 1. A constant series has no length of its own."""
    from arch.bootstrap import optimal_block_length

    varying = [values for values in series if np.ptp(values) > NOISE * (1 + float(np.max(np.abs(values))))]
    lengths = [float(optimal_block_length(values)["stationary"].iloc[0]) for values in varying]
    return max([1, *(math.ceil(length) for length in lengths if math.isfinite(length))])
