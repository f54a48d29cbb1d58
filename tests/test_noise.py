"""The best of many trials that are all worth nothing, against what it really is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from ntrader.noise import expected_best_of_unequal, expected_best_sharpe, noise_density


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


# Trials with different numbers of returns


def test_of_equal_trials_it_is_the_same() -> None:
    assert expected_best_of_unequal({500: 40}, 252) == expected_best_sharpe(40, 500, 252)
    assert expected_best_of_unequal({500: 1}, 252) == 0
    assert expected_best_of_unequal({}, 252) is None
    assert expected_best_of_unequal({0: 5, 1: 7}, 252) is None
    assert expected_best_of_unequal({1: 7, 500: 40}, 252) == expected_best_sharpe(40, 500, 252)


@pytest.mark.parametrize(
    "trials", [{252: 50, 2521: 50}, {64: 5, 1000: 300}, {100: 2, 101: 998}, {50: 10, 500: 10, 5000: 10}]
)
def test_of_unequal_ones_it_is_near_the_exact_expectation(trials: dict[int, int]) -> None:
    """The integral over the tail of the largest of so many independent normal values of different widths."""
    errors = {math.sqrt(252 / (count - 1)): number for count, number in trials.items()}

    def largest_below(x: float) -> float:
        return math.exp(sum(number * norm.logcdf(x / error) for error, number in errors.items()))

    high = 12 * max(errors)
    upper = quad(lambda x: 1 - largest_below(x), 0, high, limit=500)[0]
    lower = quad(largest_below, -high, 0, limit=500)[0]
    assert expected_best_of_unequal(trials, 252) == pytest.approx(upper - lower, rel=0.04)


@pytest.mark.parametrize("sharpe", [-1.0, 0.0, 0.3, 2.5])
def test_the_density_is_that_of_scipy(sharpe: float) -> None:
    widths = {count: math.sqrt(365 / (count - 1)) for count in (253, 1000)}
    assert noise_density(sharpe, {253: 7}, 365) == pytest.approx(norm.pdf(sharpe, scale=widths[253]), rel=1e-12)
    mixed = 0.25 * norm.pdf(sharpe, scale=widths[253]) + 0.75 * norm.pdf(sharpe, scale=widths[1000])
    assert noise_density(sharpe, {253: 10, 1000: 30, 1: 5}, 365) == pytest.approx(mixed, rel=1e-12)
