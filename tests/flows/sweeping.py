"""Sweeps as a test starts them, and everything that is stored of a trial, to be compared."""

from __future__ import annotations

from typing import Any

import psycopg

from flows.sweep import SweepOutcome, resume_sweep, sweep, with_workers
from ntrader.config import RunRequest
from ntrader.settings import Settings
from storage.database import connect
from storage.trials import Portion
from tasks.chunk import Watched
from tasks.open_sweep import Opening, open_sweep, read
from tasks.sitting import Share

# What differs between two executions of the same thing.
_OWN = {"id", "run_id", "backtest_run_id", "created_at", "started_at", "finished_at", "execution_duration_seconds",
        "flow_run_id", "config_path", "sweep_id", "trial_number"}  # fmt: skip
_BESIDE = ("performance_metrics", "equity_curves", "fills", "trades")


def request(**changes: Any) -> RunRequest:
    values = {"strategy": "sma_crossover", "symbol": "AAPL", "start": "2008-01-01", "end": "2008-12-31"}
    return RunRequest(**(values | changes))


def scripted(**changes: Any) -> RunRequest:
    return request(strategy="tests.scripted:Scripted", end="2008-02-28", **changes)


def run(search: dict[str, Any], base: RunRequest | None = None, workers: int = 2, **options: Any) -> SweepOutcome:
    chosen = with_workers(sweep, workers)
    outcome: SweepOutcome = chosen(base or request(), search, workers, **{"verify_best": False, **options})
    return outcome


def resume(reference: object, workers: int = 2, **options: Any) -> SweepOutcome:
    chosen = with_workers(resume_sweep, workers)
    outcome: SweepOutcome = chosen(str(reference), workers, **{"verify_best": False, **options})
    return outcome


def opened(
    settings: Settings, search: dict[str, Any], base: RunRequest | None = None, *, rerun: bool = False
) -> Opening:
    """A sweep whose trials all wait."""
    config = read(settings, base or request(), search)
    return open_sweep.fn(settings, config, 1, config_path=None, rerun=rerun, keep_data=True, flow_run_id=None)


def begin(
    settings: Settings, search: dict[str, Any], base: RunRequest | None = None, *, trials: int, rerun: bool = False
) -> int:
    """A sweep of which so many trials have been run when its process ended. Its number."""
    opening = opened(settings, search, base, rerun=rerun)
    watched = Watched()
    watched.run(settings, opening.sitting, Share(Portion(trials), 60), lambda *_: None)
    watched.stop()
    return opening.sweep_id


def everything(settings: Settings, row_id: int) -> dict[str, Any]:
    """All that is stored of a run, but for who made it and when."""
    with connect(settings) as connection:
        found = connection.execute("SELECT * FROM backtest_runs WHERE id = %s", [row_id]).fetchall()
        rows = {"run": found}
        for table in _BESIDE:
            query = psycopg.sql.SQL("SELECT * FROM {} t WHERE backtest_run_id = %s ORDER BY t::text").format(
                psycopg.sql.Identifier(table)
            )
            rows[table] = connection.execute(query, [row_id]).fetchall()
    return {
        table: [{name: value for name, value in row.items() if name not in _OWN} for row in some]
        for table, some in rows.items()
    }


def row_ids(settings: Settings, sweep_id: int) -> list[int | None]:
    """The rows of the runs that the trials are, by their numbers."""
    with connect(settings) as connection:
        found = connection.execute(
            "SELECT run_id FROM trials WHERE sweep_id = %s ORDER BY trial_number", [sweep_id]
        ).fetchall()
    return [row["run_id"] for row in found]


def made(settings: Settings) -> int:
    """How many runs there are."""
    with connect(settings) as connection:
        row = connection.execute("SELECT count(*) AS n FROM backtest_runs").fetchone()
    assert row is not None
    number: int = row["n"]
    return number
