"""Writing runs: a row before anything is loaded, and the outcome in one transaction. Every call may be repeated."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Update, bindparam, func, insert, select, text, update
from sqlalchemy.engine import Connection

from ntrader.background import every
from ntrader.config import sha256
from ntrader.errors import DatabaseError, NtraderError
from ntrader.results import Execution, Metrics
from ntrader.settings import Settings
from storage import rows
from storage.database import transaction
from storage.kept import keep_inputs
from storage.leases import LEASE_SECONDS, RENEW_SECONDS, owner
from storage.models import BacktestRun, PerformanceMetrics
from storage.rows import Failure, NewRun
from storage.runs import StoredMetrics, StoredRun

_runs = BacktestRun.__table__  # type: ignore[attr-defined]
_now = func.statement_timestamp()
_lease_end = func.now() + text(f"interval '{LEASE_SECONDS} seconds'")
# By hand: SQLAlchemy compiles an INSERT ... ON CONFLICT anew each time.
_START = sql.SQL(
    "INSERT INTO backtest_runs ({names}, reproduced_from_run_id, lease_expires_at) VALUES ({values},"
    " (SELECT id FROM backtest_runs WHERE run_id = %(reproduced_from)s), now() + interval {lease})"
    " ON CONFLICT (run_id) DO NOTHING"
)

# Built once: to build a statement takes SQLAlchemy longer than PostgreSQL takes to run it.
_FINISH = (
    update(_runs)
    .where(_runs.c.run_id == bindparam("the_run"), _runs.c.execution_status == "running")
    .values(
        finished_at=_now,
        execution_duration_seconds=func.extract("epoch", _now - _runs.c.started_at),
        lease_owner=None,
        lease_expires_at=None,
    )
    .returning(_runs.c.id)
)
_SUCCEED = _FINISH.values(
    start_date=func.coalesce(_runs.c.start_date, bindparam("first_bar")),
    end_date=func.coalesce(_runs.c.end_date, bindparam("last_bar")),
)
_ADD_METRICS = insert(PerformanceMetrics)


def start_run(settings: Settings, run: NewRun) -> None:
    """Write the row with status `running` and a lease for this process. A second call with the run_id adds nothing."""
    values = rows.described(run) | {
        "execution_status": "running",
        "config_fingerprint": sha256(run.config.canonical_json()),
        "lease_owner": owner(),
    }
    statement = _START.format(
        names=sql.SQL(", ").join(map(sql.Identifier, values)),
        values=sql.SQL(", ").join(map(sql.Placeholder, values)),
        lease=sql.Literal(f"{LEASE_SECONDS} seconds"),
    )
    with transaction(settings) as connection, _cursor(connection) as cursor:
        stored = {name: Jsonb(value) if name in rows.JSON else value for name, value in values.items()}
        cursor.execute(statement, stored | {"reproduced_from": run.reproduced_from})


def renew_lease(settings: Settings, run_id: UUID) -> None:
    """Say that the run is still being worked on."""
    with transaction(settings) as connection:
        connection.execute(
            update(_runs)
            .where(_runs.c.run_id == run_id, _runs.c.execution_status == "running")
            .values(lease_expires_at=_lease_end)
        )


def lease_kept(settings: Settings, run_id: UUID) -> AbstractContextManager[None]:
    """Renew the run's lease in the background for as long as the block lasts."""

    def renew() -> None:
        # A lease lasts for many renewals: one that fails is made up for by the next.
        with suppress(NtraderError):
            renew_lease(settings, run_id)

    return every(RENEW_SECONDS, renew)


def save_success(
    settings: Settings, run_id: UUID, execution: Execution, metrics: Metrics, *, keep_data: bool = True
) -> None:
    """Metrics, equity curve, fills, trades, what the run consumed and its final state, all or nothing.

    A repeated call finds its own result and changes nothing. Raises DatabaseError when the run has meanwhile been
    finished by somebody else.
    """
    bars = {"first_bar": rows.moment(execution.first_bar), "last_bar": rows.moment(execution.last_bar)}
    final = rows.succeeded(execution, metrics) | bars
    with transaction(settings) as connection:
        row_id = _finish(connection, run_id, final, execution.result_digest)
        if row_id is not None:
            _add_result(connection, row_id, execution, metrics)
            if execution.inputs is not None:
                with _cursor(connection) as cursor:
                    keep_inputs(cursor, execution.fingerprints.data, execution.inputs, data=keep_data)


def save_failure(settings: Settings, run_id: UUID, failure: Failure, *, keep_data: bool = True) -> None:
    """The final state of a run without a result; a run that is finished already stays as it is."""
    prints = failure.fingerprints
    with transaction(settings) as connection:
        row_id = _update(connection, _FINISH, run_id, rows.failed(failure))
        if row_id is not None and prints and failure.inputs:
            with _cursor(connection) as cursor:
                keep_inputs(cursor, prints.data, failure.inputs, data=keep_data)


def unsaved_run(run: NewRun, execution: Execution, metrics: Metrics, seconds: float) -> StoredRun:
    """A successful run as it would be read back, for one that was deliberately not saved."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {field.name: None for field in fields(StoredRun)}
    values |= rows.described(run) | rows.succeeded(execution, metrics)
    values["start_date"] = values["start_date"] or rows.moment(execution.first_bar)
    values["end_date"] = values["end_date"] or rows.moment(execution.last_bar)
    values["execution_duration_seconds"] = seconds
    values |= {"created_at": now, "started_at": now - timedelta(seconds=seconds), "finished_at": now}
    values |= {"archived": False, "metrics": StoredMetrics(**rows.measured(metrics))}
    return StoredRun(**{field.name: values[field.name] for field in fields(StoredRun)})


def _finish(connection: Connection, run_id: UUID, final: dict[str, Any], digest: str) -> int | None:
    row_id = _update(connection, _SUCCEED, run_id, final)
    if row_id is not None:
        return row_id
    found = connection.execute(
        select(_runs.c.execution_status, _runs.c.result_digest).where(_runs.c.run_id == run_id)
    ).first()
    if found is not None and found.execution_status == "success" and found.result_digest == digest:
        return None
    state = f"is {found.execution_status} already" if found else "has no row"
    raise DatabaseError(f"run {run_id} {state}: its result was not saved", hint="Run the backtest again.")


def _update(connection: Connection, statement: Update, run_id: UUID, final: dict[str, Any]) -> int | None:
    row_id: int | None = connection.execute(statement, {"the_run": run_id, **final}).scalar()
    return row_id


def _add_result(connection: Connection, row_id: int, execution: Execution, metrics: Metrics) -> None:
    connection.execute(_ADD_METRICS, {"backtest_run_id": row_id, **rows.measured(metrics)})
    with _cursor(connection) as cursor:
        rows.add_series(cursor, [(row_id, execution.result)])


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """The driver's own, in the same transaction."""
    driver: Any = connection.connection.driver_connection
    cursor: psycopg.Cursor[Any] = driver.cursor()
    return cursor
