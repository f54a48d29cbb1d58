"""Daily series by the day."""

from __future__ import annotations

import numpy as np

from ntrader.paired import common_days, daily_series
from ntrader.results import EquityCurve
from tests.factories import DAY, START


def curve(days: list[float], equity: list[float]) -> EquityCurve:
    return EquityCurve(np.array([START + round(day * DAY) for day in days], dtype=np.int64), np.array(equity))


def test_a_series_by_hand() -> None:
    """Two bars on the first day; the second day's bar closes at midnight and belongs to it still."""
    series = daily_series(100.0, curve([0.25, 0.5, 2.0], [90.0, 110.0, 99.0]))

    assert (series.days - START // DAY).tolist() == [0, 1]
    assert series.growth.tolist() == [1.0, 1.1, 0.99]
    np.testing.assert_allclose(series.falls, [0, 0, -0.1], rtol=1e-15)
    np.testing.assert_allclose(series.returns, [0.1, -0.1], rtol=1e-14)


def test_only_days_that_both_have_are_paired() -> None:
    one = daily_series(100.0, curve([1, 2, 3], [110.0, 110.0, 121.0]))
    two = daily_series(100.0, curve([2, 3, 4], [50.0, 100.0, 100.0]))

    days, first, second = common_days(one, two)

    assert (days - START // DAY).tolist() == [1, 2]
    np.testing.assert_allclose(first, [0, 0.1], atol=1e-15)
    np.testing.assert_allclose(second, [-0.5, 1.0], atol=1e-15)


def test_where_returns_mean_nothing_there_are_no_days() -> None:
    ruined = daily_series(100.0, curve([1, 2], [-5.0, 100.0]))
    fine = daily_series(100.0, curve([1, 2], [100.0, 100.0]))

    assert [len(part) for part in common_days(fine, ruined)] == [0, 0, 0]
    assert ruined.falls.min() == -1.05
