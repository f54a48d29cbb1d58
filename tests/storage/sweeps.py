"""Sweeps in the database without an engine: written down, reserved and saved by the real functions, made-up results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from ntrader.config import sha256
from ntrader.results import Fingerprints
from ntrader.settings import Settings
from ntrader.sweeps.config import build_sweep
from ntrader.sweeps.points import Planned, Point, trial_config
from storage import leases, sweeps, trials
from storage.rows import Failure
from storage.trials import Finished, Portion
from tests import factories

# A total return: the trial succeeded with it. A text: it failed for this reason. None: it has not been run.
Outcome = float | str | None


def written(settings: Settings, count: int, *, keys: Sequence[str] = (), link: bool = True, **search: Any) -> int:
    """A sweep over fast_period with so many trials, none of them run; its number. Trials with the key of a success are
    linked to it."""
    axis = {"range": [5, 5 * count, 5]} if count > 1 else [5]
    config = build_sweep(
        {
            "strategy": {"path": "ntrader.strategies.sma_crossover:SMACrossover", "parameters": {"slow_period": 500}},
            "data": {"symbol": "TEST", "venue": "SIM", "start": "2020-01-01", "end": "2020-01-04"},
            "sweep": {"params": {"fast_period": axis}, "objective": "total_return"} | search,
        }
    )
    new = sweeps.NewSweep(
        fingerprint=config.fingerprint, strategy_name="SMA Crossover", config_snapshot=config.snapshot(),
        objective=config.objective, direction=config.direction, sampler=config.sampler, trials=count, name=config.name,
        rerun=not link,
    )  # fmt: skip
    named = [*keys, *(uuid4().hex for _ in range(count - len(keys)))]
    plan = [
        Planned(Point(number, {"fast_period": 5 * (number + 1)}), prints(key).run_key)
        for number, key in enumerate(named)
    ]
    return sweeps.create_sweep(settings, new, [plan])


def carried_out(settings: Settings, sweep_id: int, outcomes: Sequence[Outcome], *, keys: Sequence[str] = ()) -> None:
    """Run the trials that wait, in order: as many as there are outcomes."""
    chunk = uuid4()
    reserved = trials.reserve(settings, sweep_id, chunk, leases.owner(), Portion(len(outcomes)))
    found = sweeps.get_sweep(settings, str(sweep_id))
    config = build_sweep(found.config_snapshot)
    finished = []
    for trial, outcome in zip(reserved, outcomes, strict=True):
        key = keys[trial.number] if trial.number < len(keys) else uuid4().hex
        run = factories.new_run(
            config=trial_config(config.base, trial.point), sweep_id=sweep_id, trial_number=trial.number
        )
        now = datetime.now(UTC)
        if isinstance(outcome, str):
            failure = Failure("failed", "StrategyError", f"it broke: {outcome}\nand so on", "Traceback: x", prints(key))
            finished.append(Finished(run, now, now, 0.5, failure=failure, reason=outcome))
        elif outcome is not None:
            result = factories.run_result([100_000.0, 101_000.0, 99_500.0, 100_000.0 * (1 + outcome)])
            done = factories.execution(result, fingerprints=prints(key))
            finished.append(Finished(run, now, now, 0.5, done, factories.metrics_of(done)))
    trials.save(settings, chunk, finished)


def stored(settings: Settings, outcomes: Sequence[Outcome], *, keys: Sequence[str] = (), **search: Any) -> int:
    """A sweep with these outcomes, finished where none is None; its number."""
    sweep_id = written(settings, len(outcomes), keys=keys, **search)
    run = [outcome for outcome in outcomes if outcome is not None]
    if run:
        carried_out(settings, sweep_id, run, keys=keys)
    if len(run) == len(outcomes):
        finish(settings, sweep_id)
    return sweep_id


def finish(settings: Settings, sweep_id: int) -> None:
    found = sweeps.get_sweep(settings, str(sweep_id))
    best = sweeps.ranking(settings, sweep_id, found.objective, found.direction, 1)
    sweeps.finish_sweep(settings, sweep_id, best[0].trial_number if best else None)


def run_ids(settings: Settings, sweep_id: int) -> list[str]:
    """Of the trials in the order of their numbers; empty where there is none."""
    return [str(trial.run_id or "") for trial in sweeps.all_trials(settings, sweep_id)]


def prints(key: str) -> Fingerprints:
    return Fingerprints(sha256(key), *(letter * 64 for letter in "bcde"), run_key=sha256(f"run {key}"))
