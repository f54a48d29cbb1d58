"""What pure noise would give: the best Sharpe ratio to be expected of many trials none of which is any good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

_EULER: Final = 0.5772156649015329


def expected_best_sharpe(trials: int, observations: int, annualization: int) -> float | None:
    """The expected largest of so many independent estimates of a Sharpe ratio whose true value is 0, annualised.

    `trials` is their number N, `observations` the number T of returns behind each, `annualization` the number A of
    returns a year. None without a trial or with fewer than two returns; of one trial it is 0.

    Bailey and Lopez de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40 (2014):
    sigma * ((1 - g) * z(1 - 1/N) + g * z(1 - 1/(N * e))), with g = Euler's constant, z the normal quantile, and
    sigma = sqrt(A / (T - 1)), the standard error of an annualised Sharpe ratio of 0.

    An approximation. Held against the exact expectation it is too low by 7.9 % for N = 2 and too high for all others:
    by 0.8 % for 3, 2.5 % for 5, 2.3 % for 10, 0.9 % for 100, 0.4 % for 1,000 and 0.2 % for 10,000. The trials of a
    sweep are alike, so that fewer of them are independent than there are, and chance alone gives rather less than this.
    """
    if trials < 1 or observations < 2:
        return None
    if trials == 1:
        return 0.0
    error = standard_error(observations, annualization)
    return error * ((1 - _EULER) * _upper(1 / trials) + _EULER * _upper(1 / (trials * math.e)))


def expected_best_of_unequal(trials: Mapping[int, int], annualization: int) -> float | None:
    """The same where trials have different numbers of returns behind them: `trials` says how many have how many.

    The formula with the quantiles of the mixture of their normal distributions in place of one's; trials with fewer
    than two returns do not count. Where all are equal it is `expected_best_sharpe`.
    """
    known = {count: number for count, number in trials.items() if count >= 2 and number > 0}
    total = sum(known.values())
    if len(known) <= 1:
        return expected_best_sharpe(total, next(iter(known), 0), annualization)
    errors = {standard_error(count, annualization): number / total for count, number in known.items()}
    return (1 - _EULER) * _mixed_upper(1 / total, errors) + _EULER * _mixed_upper(1 / (total * math.e), errors)


def noise_density(sharpe: float, trials: Mapping[int, int], annualization: int) -> float:
    """Of the annualised Sharpe ratio that a trial of pure noise shows: normal around 0, mixed as the trials are."""
    known = {count: number for count, number in trials.items() if count >= 2}
    total = sum(known.values())
    return sum(
        number / total * NormalDist(0, standard_error(count, annualization)).pdf(sharpe)
        for count, number in known.items()
    )


def standard_error(observations: int, annualization: int) -> float:
    """Of an annualised Sharpe ratio whose true value is 0, estimated from at least two returns."""
    return math.sqrt(annualization / (observations - 1))


def _upper(tail: float) -> float:
    """What a normal value exceeds with this probability. Of the tail itself, for 1 - tail loses its digits."""
    return -NormalDist().inv_cdf(tail)


def _mixed_upper(tail: float, errors: Mapping[float, float]) -> float:
    """What a value of the mixture exceeds with this probability; `errors` are standard deviations with their shares."""
    low, high = (error * _upper(tail) for error in (min(errors), max(errors)))
    for _ in range(100):
        middle = (low + high) / 2
        exceeds = sum(share * math.erfc(middle / (error * math.sqrt(2))) / 2 for error, share in errors.items())
        low, high = (middle, high) if exceeds > tail else (low, middle)
    return (low + high) / 2
