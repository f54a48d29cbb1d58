"""The bootstrap on series whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest

from ntrader.paired import DailySeries
from ntrader.results import Floats
from ntrader.significance import FEWEST_DAYS, Interval, significance


def series(returns: Floats, first_day: int = 0) -> DailySeries:
    growth = np.cumprod(np.concatenate(([1.0], 1 + returns)))
    return DailySeries(np.arange(first_day, first_day + len(returns)), growth, growth, returns)


def noise(seed: int, days: int = 500) -> Floats:
    values: Floats = np.random.default_rng(seed).normal(0.0005, 0.01, days)
    return values


def test_the_same_returns_are_exactly_the_same() -> None:
    found = significance(series(noise(1)), series(noise(1)), 252, resamples=200)

    assert found.days == 500
    assert found.mean_return == found.sharpe_ratio == Interval(0.0, 0.0, 0.0)
    assert not found.mean_return.distinguishable


def test_rounding_is_no_difference() -> None:
    returns = noise(1)

    found = significance(series(returns), series(returns * (1 + 2e-16) + 1e-18), 252, resamples=200)

    assert found.mean_return == Interval(0.0, 0.0, 0.0)


def test_a_constant_shift_is_found_to_the_digit() -> None:
    """0.1 % a day is 25.2 % a year in every resample; the Sharpe ratio rises by shift / deviation each time."""
    returns = noise(2)

    found = significance(series(returns), series(returns + 0.001), 252, resamples=500)

    assert found.mean_return is not None
    assert found.sharpe_ratio is not None
    np.testing.assert_allclose(
        [found.mean_return.low, found.mean_return.estimate, found.mean_return.high], 0.252, rtol=1e-12
    )
    assert found.mean_return.distinguishable
    rise = 0.001 / np.std(returns, ddof=1) * np.sqrt(252)
    assert found.sharpe_ratio.low < rise < found.sharpe_ratio.high
    assert found.sharpe_ratio.estimate == pytest.approx(rise)
    assert found.sharpe_ratio.distinguishable


def test_it_repeats_and_is_paired() -> None:
    one, two = series(noise(3)), series(noise(3) + noise(4) / 100)

    found = significance(one, two, 252, resamples=300)

    assert found == significance(one, two, 252, resamples=300)
    assert found.mean_return is not None
    # As wide as the difference is uncertain, a hundredth of what either series is: 1.96 sd / sqrt(n) * 252 a side.
    expected = 2 * 1.96 * 0.0001 / np.sqrt(500) * 252
    assert found.mean_return.high - found.mean_return.low == pytest.approx(expected, rel=0.3)


def test_unrelated_noise_is_not_told_apart() -> None:
    found = significance(series(noise(5)), series(noise(6)), 252, resamples=500)

    assert found.mean_return is not None
    assert found.mean_return.low < 0 < found.mean_return.high
    assert not found.mean_return.distinguishable


def test_too_few_common_days_are_refused() -> None:
    long, late = series(noise(7, 100)), series(noise(8, 100), first_day=100 - FEWEST_DAYS + 1)

    assert significance(long, late, 252).days == FEWEST_DAYS - 1
    assert significance(long, late, 252).block is None
    assert significance(long, series(noise(8, 100), first_day=100 - FEWEST_DAYS), 252, resamples=50).block is not None


def test_where_there_is_no_sharpe_ratio_there_is_no_interval_of_it() -> None:
    once = np.zeros(60)
    once[30] = 0.01

    for other in (np.zeros(60), once):
        found = significance(series(noise(9, 60)), series(other), 252, resamples=200)
        assert found.mean_return is not None
        assert found.sharpe_ratio is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """100 pairs with a true difference in mean of 0.0005 a day, from an autoregression with coefficient 0.2."""
    random, hits = np.random.default_rng(11), 0
    for _ in range(100):
        shocks, drift = random.normal(0, 0.01, 301), np.full(300, 0.0005)
        difference = shocks[1:] + 0.2 * shocks[:-1] + drift
        base = random.normal(0, 0.01, 300)
        interval = significance(series(base), series(base + difference), 252, resamples=200).mean_return
        assert interval is not None
        hits += interval.low <= 0.0005 * 252 <= interval.high

    assert 85 <= hits <= 100
