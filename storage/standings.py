"""Sweeps as people look at them: lists with the best of each, who works on what, and the trials that a run is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from ntrader.settings import Settings
from storage.database import reading
from storage.leases import describe, is_alive
from storage.sweeps import StoredSweep, read_sweep, read_sweeps

Connection = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has reserved `trials` of a sweep. `alive` is None where it cannot be seen from here, `expired`
    says that its lease has run out."""

    machine: str
    pid: str
    trials: int
    alive: bool | None
    expired: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """A sweep with the best of its objective so far and the trial that has it, None where there is none, and who is at
    it."""

    sweep: StoredSweep
    best_value: float | None
    best_trial: int | None
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A trial that a run is: its own, or, where `linked`, one of a later sweep that did not run it again."""

    sweep_id: int
    sweep_name: str | None
    trial_number: int
    linked: bool


def sweeps_page(settings: Settings, limit: int) -> tuple[list[Listed], int]:
    """The newest sweeps, and how many there are in all."""
    with reading(settings) as connection:
        found = [_listed(connection, sweep) for sweep in read_sweeps(connection, limit)]
        if len(found) < limit:
            return found, len(found)
        (row,) = connection.execute("SELECT count(*) AS n FROM sweeps").fetchall()
    return found, row["n"]


def look_at(settings: Settings, reference: str) -> Listed:
    """One sweep. Raises as `get_sweep` does."""
    with reading(settings) as connection:
        return _listed(connection, read_sweep(connection, reference))


def unfinished_sweeps(settings: Settings) -> list[Listed]:
    """All that are neither finished nor out of time, the newest first."""
    with reading(settings) as connection:
        return [_listed(connection, sweep) for sweep in read_sweeps(connection, None, unfinished=True)]


def trials_with_runs(settings: Settings, sweep_id: int) -> dict[int, UUID]:
    """The Run ID of every trial that has succeeded and whose run is still there, by its number."""
    with reading(settings) as connection:
        rows = connection.execute(
            "SELECT t.trial_number, r.run_id FROM trials t JOIN backtest_runs r ON r.id = t.run_id"
            " WHERE t.sweep_id = %s AND t.state = 'success' ORDER BY t.trial_number",
            [sweep_id],
        ).fetchall()
    return {row["trial_number"]: row["run_id"] for row in rows}


def places(settings: Settings, run_id: UUID) -> list[Place]:
    """The trials that are this run, its own first."""
    with reading(settings) as connection:
        rows = connection.execute(
            "SELECT t.sweep_id, s.name AS sweep_name, t.trial_number, t.linked FROM trials t"
            " JOIN sweeps s ON s.id = t.sweep_id WHERE t.run_id = (SELECT id FROM backtest_runs WHERE run_id = %s)"
            " ORDER BY t.linked, t.sweep_id, t.trial_number",
            [run_id],
        ).fetchall()
    return [Place(**row) for row in rows]


def _listed(connection: Connection, sweep: StoredSweep) -> Listed:
    best = _best(connection, sweep, sweep.best_trial)
    if best is None and sweep.best_trial is not None:  # its run has been deleted since
        best = _best(connection, sweep, None)
    value, trial = best or (None, None)
    return Listed(sweep, value, trial, _holders(connection, sweep.id))


def _best(connection: Connection, sweep: StoredSweep, trial: int | None) -> tuple[float, int] | None:
    """Of this trial, or of all."""
    statement = sql.SQL(
        "SELECT r.{0} AS value, t.trial_number FROM trials t JOIN backtest_runs r ON r.id = t.run_id"
        " WHERE t.sweep_id = %(sweep)s AND (%(trial)s::int IS NULL OR t.trial_number = %(trial)s)"
        " AND t.state = 'success' AND r.{0} IS NOT NULL ORDER BY r.{0} {1}, t.trial_number LIMIT 1"
    ).format(sql.Identifier(sweep.objective), sql.SQL("DESC" if sweep.direction == "maximize" else "ASC"))
    row = connection.execute(statement, {"sweep": sweep.id, "trial": trial}).fetchone()
    return (row["value"], row["trial_number"]) if row else None


def _holders(connection: Connection, sweep_id: int) -> tuple[Holder, ...]:
    rows = connection.execute(
        "SELECT coalesce(lease_owner, '') AS owner, count(*) AS n, bool_and(lease_expires_at < now()) AS expired"
        " FROM trials WHERE sweep_id = %s AND state = 'running' GROUP BY 1 ORDER BY 1",
        [sweep_id],
    ).fetchall()
    return tuple(Holder(*describe(row["owner"]), row["n"], is_alive(row["owner"]), row["expired"]) for row in rows)
