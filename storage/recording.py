"""Writing runs: a row before anything is loaded, and the outcome in one transaction. Every call may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Update, bindparam, func, insert, select, text, update
from sqlalchemy.engine import Connection

from ntrader.background import every
from ntrader.config import RunConfig, first_moment, last_moment, sha256
from ntrader.errors import DatabaseError, NtraderError
from ntrader.results import Execution, Fill, Fingerprints, Inputs, Metrics, Trade
from ntrader.settings import Settings
from storage.arrays import Column, register, steps
from storage.database import transaction
from storage.kept import keep_inputs
from storage.leases import LEASE_SECONDS, RENEW_SECONDS, owner
from storage.models import BacktestRun, PerformanceMetrics
from storage.runs import StoredMetrics, StoredRun

_runs = BacktestRun.__table__  # type: ignore[attr-defined]
_JSON = frozenset({"config_snapshot", "tags"})
_FILL_NUMBERS = ("quantity", "price", "fee")
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


@dataclass(frozen=True, slots=True)
class NewRun:
    """What is known of a run before it has begun."""

    run_id: UUID
    config: RunConfig
    strategy_name: str
    strategy_type: str
    config_path: str | None = None
    flow_run_id: UUID | None = None
    reproduced_from: UUID | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no result. `status` is "failed" or "interrupted"; what went in, where that is known."""

    status: str
    error_type: str
    message: str
    traceback: str | None
    fingerprints: Fingerprints | None = None
    inputs: Inputs | None = None


def start_run(settings: Settings, run: NewRun) -> None:
    """Write the row with status `running` and a lease for this process. A second call with the run_id adds nothing."""
    values = _described(run) | {
        "execution_status": "running",
        "config_path": _storable(run.config_path) if run.config_path else None,
        "config_fingerprint": sha256(run.config.canonical_json()),
        "lease_owner": owner(),
    }
    statement = _START.format(
        names=sql.SQL(", ").join(map(sql.Identifier, values)),
        values=sql.SQL(", ").join(map(sql.Placeholder, values)),
        lease=sql.Literal(f"{LEASE_SECONDS} seconds"),
    )
    with transaction(settings) as connection, _cursor(connection) as cursor:
        stored = {name: Jsonb(value) if name in _JSON else value for name, value in values.items()}
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
    bars = {"first_bar": moment(execution.first_bar), "last_bar": moment(execution.last_bar)}
    final = _outcome(execution, metrics) | bars
    with transaction(settings) as connection:
        row_id = _finish(connection, run_id, final, execution.result_digest)
        if row_id is not None:
            _add_result(connection, row_id, execution, metrics)
            if execution.inputs is not None:
                with _cursor(connection) as cursor:
                    keep_inputs(cursor, execution.fingerprints.data, execution.inputs, data=keep_data)


def save_failure(settings: Settings, run_id: UUID, failure: Failure, *, keep_data: bool = True) -> None:
    """The final state of a run without a result; a run that is finished already stays as it is."""
    final = {
        "execution_status": failure.status,
        "error_type": _storable(failure.error_type),
        "error_message": _storable(failure.message),
        "error_traceback": _storable(failure.traceback) if failure.traceback else None,
    }
    prints = failure.fingerprints
    with transaction(settings) as connection:
        row_id = _update(connection, _FINISH, run_id, final | (_printed(prints) if prints else {}))
        if row_id is not None and prints and failure.inputs:
            with _cursor(connection) as cursor:
                keep_inputs(cursor, prints.data, failure.inputs, data=keep_data)


def unsaved_run(run: NewRun, execution: Execution, metrics: Metrics, seconds: float) -> StoredRun:
    """A successful run as it would be read back, for one that was deliberately not saved."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {field.name: None for field in fields(StoredRun)}
    values |= _described(run) | _outcome(execution, metrics)
    values["start_date"] = values["start_date"] or moment(execution.first_bar)
    values["end_date"] = values["end_date"] or moment(execution.last_bar)
    values["execution_duration_seconds"] = seconds
    values |= {"created_at": now, "started_at": now - timedelta(seconds=seconds), "finished_at": now}
    values |= {"archived": False, "metrics": StoredMetrics(**_measured(metrics))}
    return StoredRun(**{field.name: values[field.name] for field in fields(StoredRun)})


def _described(run: NewRun) -> dict[str, Any]:
    config = run.config
    return {
        "run_id": run.run_id,
        "strategy_name": run.strategy_name,
        "strategy_type": run.strategy_type,
        "strategy_path": config.strategy.path,
        "config_path": run.config_path,
        "instrument_symbol": config.data.symbol,
        "data_source": config.data.source,
        "start_date": first_moment(config.data.start) if config.data.start else None,
        "end_date": last_moment(config.data.end) if config.data.end else None,
        "initial_capital": config.initial_capital,
        "config_snapshot": config.snapshot(),
        "flow_run_id": run.flow_run_id,
        "tags": {},
        "warnings": [],
    }


def _outcome(execution: Execution, metrics: Metrics) -> dict[str, Any]:
    return {
        "execution_status": "success",
        "result_digest": execution.result_digest,
        **_printed(execution.fingerprints),
        **_measured(metrics),
        "warnings": [_storable(note) for note in execution.notes],
    }


def _printed(prints: Fingerprints) -> dict[str, str]:
    values = asdict(prints)
    return {"run_key": values.pop("run_key")} | {f"{name}_fingerprint": value for name, value in values.items()}


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
    connection.execute(_ADD_METRICS, {"backtest_run_id": row_id, **_measured(metrics)})
    with _cursor(connection) as cursor:
        curve = execution.result.equity_curve
        register(cursor)
        cursor.execute(
            "INSERT INTO equity_curves (backtest_run_id, points, steps, equity) VALUES (%s, %s, %s, %s)",
            [row_id, len(curve), Column(steps(curve.times)), Column(curve.equity)],
        )
        _add_fills(cursor, row_id, execution.result.fills)
        if execution.result.trades:
            _copy(cursor, row_id, execution.result.trades)


def _add_fills(cursor: psycopg.Cursor[Any], row_id: int, fills: Sequence[Fill]) -> None:
    columns = [np.array([getattr(fill, name) for fill in fills], dtype=np.float64) for name in _FILL_NUMBERS]
    cursor.execute(
        "INSERT INTO fills (backtest_run_id, fills, steps, quantities, prices, fees, sides, order_types)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(row_id, len(fills), Column(steps(np.array([fill.time for fill in fills], dtype=np.int64)))),
            *map(Column, columns),
            [fill.side for fill in fills],
            [fill.order_type for fill in fills],
        ],
    )


def _copy(cursor: psycopg.Cursor[Any], row_id: int, trades: Sequence[Trade]) -> None:
    columns = "backtest_run_id, trade_number, side, quantity, entry_time, entry_price, exit_time, exit_price, fees, pnl"
    with cursor.copy(f"COPY trades ({columns}) FROM STDIN") as copy:
        for number, trade in enumerate(trades, start=1):
            entry, exit_ = moment(trade.entry_time), moment(trade.exit_time)
            copy.write_row(
                (row_id, number, trade.side, trade.quantity, entry, trade.entry_price, exit_, trade.exit_price,
                 trade.fees, trade.pnl)
            )  # fmt: skip


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """The driver's own, in the same transaction."""
    driver: Any = connection.connection.driver_connection
    cursor: psycopg.Cursor[Any] = driver.cursor()
    return cursor


def _measured(metrics: Metrics) -> dict[str, Any]:
    return asdict(metrics) | {"max_drawdown_date": moment(metrics.max_drawdown_date)}


def _storable(text: str) -> str:
    """PostgreSQL takes neither NUL nor lone surrogates (bytes of a file name that are no UTF-8): written as escapes."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def moment(nanoseconds: int | None) -> datetime | None:
    """PostgreSQL keeps microseconds: what is below is cut off."""
    if nanoseconds is None:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
