"""Sweeps and finished trials for tests of their storage, made of nothing but values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from ntrader.config import sha256
from ntrader.results import Fingerprints
from ntrader.settings import Settings
from ntrader.sweeps.points import Planned, Point
from storage import sweeps
from storage.database import reading
from storage.rows import Failure
from storage.sweeps import NewSweep
from storage.trials import Finished
from tests import factories

MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def prints(salt: object) -> Fingerprints:
    config = sha256(f"config {salt}")
    return Fingerprints(config, *(letter * 64 for letter in "bcde"), run_key=sha256(f"key {config}"))


def planned(number: int, salt: object = "") -> Planned:
    return Planned(Point(number, {"fast_period": number}), prints(f"{number}{salt}").run_key)


def new_sweep(trials: int, **changes: Any) -> NewSweep:
    values: dict[str, Any] = {
        "fingerprint": sha256(f"sweep of {trials}"),
        "strategy_name": "SMA Crossover",
        "config_snapshot": {"sweep": {}},
        "objective": "sharpe_ratio",
        "direction": "maximize",
        "sampler": "grid",
        "trials": trials,
    }
    return NewSweep(**(values | changes))


def written(settings: Settings, trials: int, salt: object = None, **changes: Any) -> int:
    """A sweep whose trials wait; no other has their run keys unless it says so."""
    salt = uuid4() if salt is None else salt
    plan = [planned(number, salt) for number in range(trials)]
    return sweeps.create_sweep(settings, new_sweep(trials, **changes), [plan])


def succeeded(sweep_id: int, number: int, salt: object = "", sharpe: float | None = 1.0, **changes: Any) -> Finished:
    execution = factories.execution(fingerprints=prints(f"{number}{salt}"), result_digest=sha256(f"result {number}"))
    metrics = factories.metrics_of(execution)
    changed = {"sharpe_ratio": sharpe, **changes}
    metrics = type(metrics)(**{name: changed.get(name, getattr(metrics, name)) for name in metrics.__slots__})
    run = factories.new_run(sweep_id=sweep_id, trial_number=number)
    return Finished(run, MOMENT, MOMENT, 0.25, execution, metrics)


def failed(sweep_id: int, number: int, reason: str = "exception") -> Finished:
    run = factories.new_run(sweep_id=sweep_id, trial_number=number)
    failure = Failure("failed", "StrategyError", f"trial {number} went wrong", "Traceback ...")
    return Finished(run, MOMENT, MOMENT, 0.25, failure=failure, reason=reason)


def states(settings: Settings, sweep_id: int) -> list[str]:
    """Of each trial, by number."""
    return [row["state"] for row in table(settings, sweep_id)]


def table(settings: Settings, sweep_id: int) -> list[dict[str, Any]]:
    with reading(settings) as connection:
        return connection.execute(
            "SELECT * FROM trials WHERE sweep_id = %s ORDER BY trial_number", [sweep_id]
        ).fetchall()


def runs(settings: Settings, sweep_id: int) -> list[dict[str, Any]]:
    """Those that a sweep has made, with how many rows each has in the tables beside."""
    with reading(settings) as connection:
        return connection.execute(
            "SELECT r.*, (SELECT count(*) FROM performance_metrics m WHERE m.backtest_run_id = r.id) AS metrics,"
            " (SELECT count(*) FROM equity_curves c WHERE c.backtest_run_id = r.id) AS curves,"
            " (SELECT count(*) FROM fills f WHERE f.backtest_run_id = r.id) AS fills,"
            " (SELECT count(*) FROM trades t WHERE t.backtest_run_id = r.id) AS trades"
            " FROM backtest_runs r WHERE sweep_id = %s ORDER BY trial_number, id",
            [sweep_id],
        ).fetchall()


def numbers(trials: Iterable[Any]) -> list[int]:
    return [trial.number for trial in trials]


def expire(settings: Settings, chunk_id: UUID) -> None:
    """As if nobody had renewed its lease for a long time."""
    change(settings, "UPDATE trials SET lease_expires_at = now() - interval '1 s' WHERE chunk_id = %s", [chunk_id])


def change(settings: Settings, statement: str, values: list[Any]) -> None:
    with reading(settings) as connection:
        connection.execute(statement, values)
