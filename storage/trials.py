"""Trials while they are worked on: reserved by one process at a time, saved with what they produced in one transaction.

Who may write what is decided by `chunk_id`: a trial belongs to the chunk that reserved it for as long as that is in
its row, and whoever comes with another one changes nothing. So a worker that was given up for dead and is not, a lost
answer to a commit, or two processes that resume the same sweep double nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from ntrader.config import sha256
from ntrader.results import Execution, Inputs, Metrics
from ntrader.settings import Settings
from ntrader.sweeps.points import Point, read_point
from storage import rows
from storage.database import reading, writing
from storage.kept import keep_inputs
from storage.leases import LEASE_SECONDS, is_dead
from storage.rows import Failure, NewRun

Connection = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Reserved:
    """A trial that is ours to run. `crashes` are the processes that were killed while they ran it."""

    number: int
    run_key: str
    point: Point
    crashes: int


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A trial that was run: either `execution` with `metrics`, or `failure` with the reason in one word."""

    run: NewRun
    started_at: datetime
    finished_at: datetime
    seconds: float
    execution: Execution | None = None
    metrics: Metrics | None = None
    failure: Failure | None = None
    reason: str | None = None


# What its column can count to.
_MOST_CRASHES: Final = 1000
# The first condition is that of the index.
_FREE: Final = "state IN ('waiting', 'running') AND (state = 'waiting' OR lease_expires_at < now())"


@dataclass(frozen=True, slots=True)
class Portion:
    """How many trials to take: at most `limit`, and of those that are free one of `shares` equal shares, but not fewer
    than `least`. So the last portions of a sweep are small, and no worker is left with a large one at its end."""

    limit: int
    shares: int = 1
    least: int = 1


def reserve(settings: Settings, sweep_id: int, chunk_id: UUID, owner: str, portion: Portion) -> list[Reserved]:
    """Take trials in the order of their numbers. One that killed its process before comes alone."""
    with writing(settings) as connection:
        free = _free(connection, sweep_id, portion.limit * portion.shares)
        wanted = min(portion.limit, max(portion.least, -(-free // portion.shares)))
        # In two statements: in one, PostgreSQL compares every trial taken with every trial of the sweep, as long as its
        # statistics do not know that the sweep has more than one.
        taken = connection.execute(
            f"SELECT trial_number, crashes FROM trials WHERE sweep_id = %s AND {_FREE}"
            " ORDER BY crashes > 0 DESC, trial_number LIMIT %s FOR UPDATE SKIP LOCKED",
            [sweep_id, wanted],
        ).fetchall()
        crashed = [row["trial_number"] for row in taken if row["crashes"]]
        found = connection.execute(
            "UPDATE trials SET state = 'running', chunk_id = %s, lease_owner = %s,"
            f" lease_expires_at = now() + interval '{LEASE_SECONDS} seconds'"
            " WHERE sweep_id = %s AND trial_number = ANY(%s) RETURNING trial_number, run_key, point, crashes",
            [chunk_id, owner, sweep_id, crashed[:1] or [row["trial_number"] for row in taken]],
        ).fetchall()
    trials = [Reserved(row["trial_number"], row["run_key"], read_point(row["point"]), row["crashes"]) for row in found]
    return sorted(trials, key=lambda trial: trial.number)


def reserved_by(settings: Settings, chunk_id: UUID) -> list[Reserved]:
    """What the chunk still holds."""
    with reading(settings) as connection:
        found = connection.execute(
            "SELECT trial_number, run_key, point, crashes FROM trials WHERE chunk_id = %s ORDER BY trial_number",
            [chunk_id],
        ).fetchall()
    return [Reserved(row["trial_number"], row["run_key"], read_point(row["point"]), row["crashes"]) for row in found]


def save(
    settings: Settings,
    chunk_id: UUID,
    finished: Sequence[Finished],
    inputs: Sequence[tuple[str, Inputs]] = (),
    *,
    keep_data: bool = True,
    give_back: bool = True,
) -> set[int]:
    """Runs, metrics, curves, fills, trades and the state of the trials, all or nothing; with `give_back` the chunk's
    other trials wait again.

    Returns the numbers of the trials that are saved: all of them, unless some have been taken over by somebody else.
    A repeated call finds its own and changes nothing.
    """
    with writing(settings) as connection:
        ours = _held(connection, chunk_id)
        mine = [trial for trial in finished if trial.run.trial_number in ours]
        saved = {int(trial.run.trial_number or 0) for trial in mine} or _saved_before(connection, finished)
        if mine:
            _save(connection, mine)
            with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
                for fingerprint, consumed in inputs:
                    keep_inputs(cursor, fingerprint, consumed, data=keep_data)
        if give_back:
            _give_back(connection, chunk_id)
    return saved


def give_back(settings: Settings, chunk_id: UUID) -> None:
    """The chunk's trials wait again."""
    with writing(settings) as connection:
        _give_back(connection, chunk_id)


def note_crash(settings: Settings, chunk_id: UUID, trial_number: int, crashes: int) -> None:
    """The process was killed while it ran this trial, for the `crashes`-th time; all others of the chunk wait again.

    The number is the caller's, so that a repeated call counts nothing twice.
    """
    with writing(settings) as connection:
        connection.execute(
            "UPDATE trials SET crashes = %s WHERE chunk_id = %s AND trial_number = %s",
            [min(crashes, _MOST_CRASHES), chunk_id, trial_number],
        )
        connection.execute(
            "UPDATE trials SET state = 'waiting', chunk_id = NULL, lease_owner = NULL, lease_expires_at = NULL"
            " WHERE chunk_id = %s AND trial_number <> %s",
            [chunk_id, trial_number],
        )


def renew(settings: Settings, chunk_ids: Sequence[UUID]) -> None:
    """Say that these chunks are still being worked on."""
    with writing(settings) as connection:
        connection.execute(
            f"UPDATE trials SET lease_expires_at = now() + interval '{LEASE_SECONDS} seconds' WHERE chunk_id = ANY(%s)",
            [list(chunk_ids)],
        )


def reclaim(settings: Settings, sweep_id: int) -> int:
    """Trials whose lease has run out wait again, and those of processes of this machine that are no more without
    waiting for that. How many."""
    with writing(settings) as connection:
        owners = connection.execute(
            "SELECT DISTINCT lease_owner FROM trials WHERE sweep_id = %s AND state = 'running'", [sweep_id]
        ).fetchall()
        dead = [row["lease_owner"] for row in owners if row["lease_owner"] and is_dead(row["lease_owner"])]
        found = connection.execute(
            "UPDATE trials SET state = 'waiting', chunk_id = NULL, lease_owner = NULL, lease_expires_at = NULL"
            " WHERE sweep_id = %s AND state = 'running' AND (lease_owner = ANY(%s) OR lease_expires_at < now())",
            [sweep_id, dead],
        )
        return found.rowcount


def _free(connection: Connection, sweep_id: int, at_most: int) -> int:
    row = connection.execute(
        f"SELECT count(*) AS n FROM (SELECT FROM trials WHERE sweep_id = %s AND {_FREE} LIMIT %s) free",
        [sweep_id, at_most],
    ).fetchone()
    return row["n"] if row else 0


def _held(connection: Connection, chunk_id: UUID) -> set[int]:
    found = connection.execute("SELECT trial_number FROM trials WHERE chunk_id = %s FOR UPDATE", [chunk_id])
    return {row["trial_number"] for row in found.fetchall()}


def _saved_before(connection: Connection, finished: Sequence[Finished]) -> set[int]:
    """The answer to a commit was lost: what it saved is there."""
    found = connection.execute(
        "SELECT t.trial_number FROM trials t JOIN backtest_runs r ON r.id = t.run_id WHERE r.run_id = ANY(%s)",
        [[trial.run.run_id for trial in finished]],
    )
    return {row["trial_number"] for row in found.fetchall()}


def _save(connection: Connection, finished: Sequence[Finished]) -> None:
    found = connection.execute(
        "SELECT nextval(pg_get_serial_sequence('backtest_runs', 'id')) AS id FROM generate_series(1, %s)",
        [len(finished)],
    )
    numbered = list(zip((row["id"] for row in found.fetchall()), finished, strict=True))
    done = [(row_id, trial.execution, trial.metrics) for row_id, trial in numbered if trial.execution]
    with connection.cursor() as cursor:
        _insert(
            cursor, "backtest_runs", [{"id": row_id, **_run(trial)} for row_id, trial in numbered if trial.execution]
        )
        _insert(cursor, "backtest_runs", [{"id": row_id, **_run(trial)} for row_id, trial in numbered if trial.failure])
        if done:
            measured = [{"backtest_run_id": row_id, **rows.measured(metrics)} for row_id, _, metrics in done if metrics]
            _insert(cursor, "performance_metrics", measured)
            rows.add_series(cursor, [(row_id, execution.result) for row_id, execution, _ in done])
    connection.execute(
        "UPDATE trials t SET state = CASE WHEN f.reason IS NULL THEN 'success' ELSE 'failed' END, reason = f.reason,"
        " run_id = f.id, chunk_id = NULL, lease_owner = NULL, lease_expires_at = NULL"
        " FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::text[]) AS f (sweep_id, number, id, reason)"
        " WHERE t.sweep_id = f.sweep_id AND t.trial_number = f.number",
        [
            [trial.run.sweep_id for trial in finished],
            [trial.run.trial_number for trial in finished],
            [row_id for row_id, _ in numbered],
            [trial.reason for trial in finished],
        ],
    )


def _insert(cursor: psycopg.Cursor[Any], table: str, values: Sequence[dict[str, Any]]) -> None:
    """All of these rows have the same columns."""
    if not values:
        return
    columns = sql.SQL(", ").join(map(sql.Identifier, values[0]))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    wrapped = ([Jsonb(each) if name in rows.JSON else each for name, each in row.items()] for row in values)
    rows.copy_rows(cursor, statement, wrapped)


def _run(trial: Finished) -> dict[str, Any]:
    values = rows.described(trial.run)
    values |= {
        "created_at": trial.started_at,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
        "execution_duration_seconds": trial.seconds,
    }
    if trial.execution is None:
        assert trial.failure is not None
        prints = {"config_fingerprint": sha256(trial.run.config.canonical_json())}
        nothing = dict.fromkeys(("run_key", "data_fingerprint", "code_fingerprint", "engine_fingerprint",
                                 "environment_fingerprint"))  # fmt: skip
        return values | nothing | prints | rows.failed(trial.failure)
    assert trial.metrics is not None
    values["start_date"] = values["start_date"] or rows.moment(trial.execution.first_bar)
    values["end_date"] = values["end_date"] or rows.moment(trial.execution.last_bar)
    return values | rows.succeeded(trial.execution, trial.metrics)


def _give_back(connection: Connection, chunk_id: UUID) -> None:
    connection.execute(
        "UPDATE trials SET state = 'waiting', chunk_id = NULL, lease_owner = NULL, lease_expires_at = NULL"
        " WHERE chunk_id = %s",
        [chunk_id],
    )
