"""Reading runs: psycopg rows in, frozen values out. Nothing here loads an ORM, numpy or the engine."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import psycopg
from psycopg import sql

from ntrader.errors import AmbiguousError, DatabaseError, NotFoundError
from ntrader.settings import Settings
from storage.database import connect, reading
from storage.leases import is_alive

MIN_PREFIX = 4

_LAST = re.compile(r"^@last(?:~(\d{1,9}))?$")
_PREFIX = re.compile(r"^[0-9a-f]{1,32}$")


@dataclass(frozen=True, slots=True)
class StoredMetrics:
    """A row of `performance_metrics`: fractions, not percent; None where a number is not defined."""

    total_return: float | None
    final_balance: float | None
    cagr: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    max_drawdown: float | None
    max_drawdown_date: datetime | None
    calmar_ratio: float | None
    volatility: float | None
    total_trades: int
    winning_trades: int
    losing_trades: int
    win_rate: float | None
    profit_factor: float | None
    expectancy: float | None
    avg_win: float | None
    avg_loss: float | None
    skewness: float | None
    kurtosis: float | None
    return_observations: int


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A row of `backtest_runs` with its metrics, which only a successful run has."""

    run_id: UUID
    execution_status: str
    strategy_name: str
    strategy_type: str
    strategy_path: str
    config_path: str | None
    instrument_symbol: str
    data_source: str
    start_date: datetime | None
    end_date: datetime | None
    initial_capital: Decimal
    execution_duration_seconds: float | None
    error_type: str | None
    error_message: str | None
    error_traceback: str | None
    config_snapshot: dict[str, Any]
    config_fingerprint: str | None
    data_fingerprint: str | None
    code_fingerprint: str | None
    engine_fingerprint: str | None
    environment_fingerprint: str | None
    run_key: str | None
    result_digest: str | None
    reproduced_from_run_id: int | None
    sweep_id: int | None
    trial_number: int | None
    flow_run_id: UUID | None
    tags: dict[str, str]
    notes: str | None
    warnings: list[str]
    lease_owner: str | None
    lease_expires_at: datetime | None
    total_return: float | None
    final_balance: float | None
    cagr: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    max_drawdown: float | None
    calmar_ratio: float | None
    volatility: float | None
    win_rate: float | None
    profit_factor: float | None
    total_trades: int | None
    created_at: datetime
    started_at: datetime
    finished_at: datetime | None
    metrics: StoredMetrics | None


_RUN = [field.name for field in fields(StoredRun) if field.name != "metrics"]
_METRICS = [field.name for field in fields(StoredMetrics)]
_SELECT = sql.SQL("SELECT {} FROM backtest_runs r LEFT JOIN performance_metrics m ON m.backtest_run_id = r.id").format(
    sql.SQL(", ").join(
        [
            *(sql.Identifier("r", name) for name in _RUN),
            *(
                sql.SQL("{} AS {}").format(sql.Identifier("m", name), sql.Identifier(f"m_{name}"))
                for name in ["backtest_run_id", *_METRICS]
            ),
        ]
    )
)


def list_runs(settings: Settings, limit: int) -> list[StoredRun]:
    """The newest runs, newest first. Runs whose process has died are marked on the way."""
    with reading(settings) as connection:
        mark_dead_runs(connection)
        rows = connection.execute(
            sql.SQL("{} ORDER BY r.created_at DESC, r.id DESC LIMIT %s").format(_SELECT), [limit]
        ).fetchall()
    return [_run(row) for row in rows]


def get_run(settings: Settings, reference: str) -> StoredRun:
    """The run named by uuid, unique prefix, `@last` or `@last~N`.

    Raises NotFoundError, or AmbiguousError listing the candidates.
    """
    with reading(settings) as connection:
        mark_dead_runs(connection)
        run_id = _find(connection, reference.strip())
        row = connection.execute(sql.SQL("{} WHERE r.run_id = %s").format(_SELECT), [run_id]).fetchone()
    if row is None:
        raise NotFoundError(f"run {reference!r} is gone")
    return _run(row)


def find_run(settings: Settings, run_id: UUID) -> StoredRun | None:
    """The run with that id; None where there is none, or no database to look in."""
    try:
        return get_run(settings, str(run_id))
    except (NotFoundError, DatabaseError):
        return None


def mark_dead_runs(connection: psycopg.Connection[dict[str, Any]]) -> int:
    """Turn runs that nobody is running any more into `interrupted`; the number of them.

    A role that may only read leaves them as they are.
    """
    running = connection.execute(
        "SELECT coalesce(lease_owner, '') AS owner, bool_or(lease_expires_at < now()) AS expired FROM backtest_runs"
        " WHERE execution_status = 'running' GROUP BY 1"
    ).fetchall()
    alive = {row["owner"]: is_alive(row["owner"]) for row in running}
    dead = [owner for owner, living in alive.items() if living is False]
    # The lease decides only where nobody can look: it also runs out while a laptop sleeps.
    unseen = [row["owner"] for row in running if row["expired"] and alive[row["owner"]] is None]
    if not dead and not unseen:
        return 0
    try:
        with connection.transaction():
            marked = connection.execute(
                "UPDATE backtest_runs SET execution_status = 'interrupted', finished_at = now(),"
                " error_type = 'Interrupted', error_message = 'the process that ran it ended without a word'"
                " WHERE execution_status = 'running' AND (lease_owner = ANY(%s)"
                " OR coalesce(lease_owner, '') = ANY(%s) AND lease_expires_at < now())",
                [dead, unseen],
            )
            return marked.rowcount
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        return 0


def sweep_dead_runs(settings: Settings) -> int:
    """`mark_dead_runs` on a connection of its own."""
    with connect(settings) as connection:
        return mark_dead_runs(connection)


def _find(connection: psycopg.Connection[dict[str, Any]], reference: str) -> UUID:
    last = _LAST.match(reference)
    if last:
        return _nth_newest(connection, int(last.group(1) or 0), reference)
    digits = reference.lower().replace("-", "")
    if not _PREFIX.match(digits):
        raise NotFoundError(
            f"{reference!r} names no run", hint="Use a Run ID, its first 4 or more characters, or @last."
        )
    if len(digits) < MIN_PREFIX:
        raise NotFoundError(f"{reference!r} is too short", hint=f"Give at least {MIN_PREFIX} characters of the Run ID.")
    return _by_prefix(connection, digits, reference)


def _nth_newest(connection: psycopg.Connection[dict[str, Any]], back: int, reference: str) -> UUID:
    row = connection.execute(
        "SELECT run_id FROM backtest_runs ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET %s", [back]
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no run {reference}", hint="`ntrader history list` shows what there is.")
    return cast("UUID", row["run_id"])


def _by_prefix(connection: psycopg.Connection[dict[str, Any]], digits: str, reference: str) -> UUID:
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    rows = connection.execute(
        "SELECT run_id, strategy_name, instrument_symbol, created_at FROM backtest_runs"
        " WHERE run_id BETWEEN %s AND %s ORDER BY run_id LIMIT 3",
        [first, last],
    ).fetchall()
    if not rows:
        raise NotFoundError(f"there is no run {reference}", hint="`ntrader history list` shows what there is.")
    if len(rows) > 1:
        lines = "".join(
            f"\n  {row['run_id']}  {row['created_at'].astimezone(UTC):%Y-%m-%d %H:%M}"
            f"  {row['strategy_name']} {row['instrument_symbol']}"
            for row in rows
        )
        raise AmbiguousError(f"{reference!r} fits more than one run:{lines}", hint="Give more characters.")
    return cast("UUID", rows[0]["run_id"])


def _run(row: dict[str, Any]) -> StoredRun:
    metrics = None
    if row["m_backtest_run_id"] is not None:
        metrics = StoredMetrics(**{name: row[f"m_{name}"] for name in _METRICS})
    return StoredRun(**{name: row[name] for name in _RUN}, metrics=metrics)
