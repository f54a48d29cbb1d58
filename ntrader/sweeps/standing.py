"""How far a sweep is, and what to expect of one: values for whoever wants to show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ntrader.noise import expected_best_sharpe


@dataclass(frozen=True, slots=True)
class Standing:
    """A sweep that is being worked on. Trials: `total`, `done` (of them `linked` to runs that there were and `failed`),
    `rate` a second in this sitting and `eta` seconds to go, None where there is no telling yet; `best` of the
    objective, and its trial. `waiting_for_database` says why nothing moves."""

    total: int
    done: int
    linked: int
    failed: int
    rate: float | None
    eta: float | None
    best: float | None
    best_trial: int | None
    waiting_for_database: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to expect of a sweep. `stored` of the `trials` have succeeded already; `seconds` of wall time and bytes of
    `memory` with so many `workers`; `noise` is the best annualised Sharpe ratio that as many trials of
    pure noise would show. None where there is no telling."""

    trials: int
    stored: int
    workers: int
    seconds: float | None
    seconds_per_trial: float | None
    recorded: bool
    memory: int
    noise: float | None


def estimate(
    trials: int, stored: int, workers: int, per_trial: float | None, *, recorded: bool, memory: int,
    observations: int, annualization: int,
) -> Estimate:  # fmt: skip
    """`per_trial` are the seconds that one takes, `memory` the bytes of one worker, `observations` the returns of one
    trial."""
    seconds = per_trial * (trials - stored) / workers if per_trial is not None else None
    noise = expected_best_sharpe(trials, observations, annualization)
    return Estimate(trials, stored, workers, seconds, per_trial, recorded, memory * workers, noise)


Listener = Callable[[Standing], None]
Foreseen = Callable[[int, Estimate], None]

_listener: Listener | None = None
_foreseen: Foreseen | None = None


def listen(listener: Listener | None, foreseen: Foreseen | None = None) -> None:
    """`foreseen(number of the sweep, estimate)` is called from now on before the first trial, and `listener(standing)`
    whenever something has moved."""
    global _listener, _foreseen
    _listener, _foreseen = listener, foreseen


def tell(standing: Standing) -> None:
    if _listener is not None:
        _listener(standing)


def tell_estimate(sweep_id: int, foreseen: Estimate) -> None:
    if _foreseen is not None:
        _foreseen(sweep_id, foreseen)
