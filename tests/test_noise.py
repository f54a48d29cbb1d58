"""The best of many trials that are all worth nothing, against what it really is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ntrader.noise import expected_best_sharpe


def exact(trials: int) -> float:
    """The expected largest of so many standard normal values: the integral of x over the density of the largest."""

    def weighted(x: float) -> float:
        return float(x * trials * norm.pdf(x) * math.exp((trials - 1) * norm.logcdf(x)))

    return float(quad(weighted, -12, 12, points=[0, 2, 4], limit=500)[0])


# What the docstring says.
@pytest.mark.parametrize(
    ("trials", "percent"), [(2, -7.9), (3, 0.8), (5, 2.5), (10, 2.3), (100, 0.9), (1_000, 0.4), (10_000, 0.2)]
)
def test_it_is_off_by_what_is_said(trials: int, percent: float) -> None:
    approximation = expected_best_sharpe(trials, 2, 1)
    assert approximation is not None
    assert round((approximation / exact(trials) - 1) * 100, 1) == percent


@pytest.mark.parametrize("trials", [4, 7, 20, 50, 300, 100_000])
def test_it_is_never_off_by_more_than_three_percent(trials: int) -> None:
    assert expected_best_sharpe(trials, 2, 1) == pytest.approx(exact(trials), rel=0.03)


@pytest.mark.parametrize(("trials", "days", "year"), [(10, 250, 252), (100, 500, 252), (50, 1000, 365)])
def test_random_walks_give_it(trials: int, days: int, year: int) -> None:
    draws = np.random.default_rng(20140714)
    best = []
    for _ in range(300):
        returns = draws.normal(0, 0.01, (trials, days))
        best.append((returns.mean(axis=1) / returns.std(axis=1, ddof=1)).max() * math.sqrt(year))
    uncertain = 4 * np.std(best) / math.sqrt(len(best))
    assert expected_best_sharpe(trials, days, year) == pytest.approx(
        np.mean(best), abs=uncertain + 0.03 * np.mean(best)
    )


def test_of_one_trial_nothing_is_to_be_expected() -> None:
    assert expected_best_sharpe(1, 1000, 252) == 0


@pytest.mark.parametrize(("trials", "observations"), [(0, 100), (-1, 100), (10, 1), (10, 0)])
def test_it_is_not_defined_without_trials_or_returns(trials: int, observations: int) -> None:
    assert expected_best_sharpe(trials, observations, 252) is None


def test_it_grows_with_the_trials_and_falls_with_the_observations() -> None:
    by_trials = [expected_best_sharpe(trials, 1000, 252) or 0 for trials in (1, 2, 3, 10, 1000, 10**9, 10**15)]
    by_days = [expected_best_sharpe(100, days, 252) or 0 for days in (2, 10, 250, 5000)]
    assert by_trials == sorted(by_trials)
    assert by_days == sorted(by_days, reverse=True)


def test_the_example_of_the_paper() -> None:
    """With N = 100 trials of variance 1/2 over 1,250 days the expected maximum is 0.1132 a day (section "a numerical
    example": annualised variance 1/2, 250 days a year)."""
    unit = expected_best_sharpe(100, 2, 1)
    assert unit is not None
    assert math.sqrt(1 / (2 * 250)) * unit == pytest.approx(0.1132, abs=5e-5)
