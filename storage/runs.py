"""Reading runs: psycopg rows in, frozen values out. Nothing here loads an ORM, numpy or the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from ntrader.errors import DatabaseError, NotFoundError
from ntrader.settings import Settings
from storage.columns import ORIGINAL, pick
from storage.conditions import Filters
from storage.database import connect, reading
from storage.leases import is_alive
from storage.references import find_run_ids
from storage.search import Order, Page, count, find_page, settle, stream


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
    name: str | None
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
    # The Run ID of the original; the column holds its row's id.
    reproduced_from_run_id: UUID | None
    sweep_id: int | None
    trial_number: int | None
    flow_run_id: UUID | None
    tags: dict[str, str]
    notes: str | None
    archived: bool
    warnings: list[str]
    lease_owner: str | None
    lease_expires_at: datetime | None
    created_at: datetime
    started_at: datetime
    finished_at: datetime | None
    metrics: StoredMetrics | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of a list. `total` is how many runs there are on all pages, to the digit where `total_is_exact`."""

    runs: list[StoredRun]
    next_page_token: str | None
    total: int
    total_is_exact: bool


@dataclass(frozen=True, slots=True)
class RunTable:
    """The same with columns of one's choice, a tuple a run."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    next_page_token: str | None
    total: int
    total_is_exact: bool


@dataclass(frozen=True, slots=True)
class StoredTrade:
    """A row of `trades`."""

    trade_number: int
    side: str
    quantity: float
    entry_time: datetime
    entry_price: float
    exit_time: datetime
    exit_price: float
    fees: float
    pnl: float


@dataclass(frozen=True, slots=True)
class EquityPoint:
    """Account equity at the close of a bar; `time` to the microsecond, as PostgreSQL has it."""

    time: datetime
    equity: float


EVERYTHING, NEWEST = Filters(), Order()

_RUN = [field.name for field in fields(StoredRun) if field.name not in {"metrics", "reproduced_from_run_id"}]
_METRICS = [field.name for field in fields(StoredMetrics)]
# The metrics are read from the run's own copies: one table, one row.
_WHOLE = sql.SQL("{}, {} AS reproduced_from_run_id").format(
    sql.SQL(", ").join(sql.Identifier("r", name) for name in (*_RUN, *_METRICS)), sql.SQL(ORIGINAL)
)
# Put together once: composing some sixty names costs more than finding a run.
_BY_RUN_IDS = sql.SQL("SELECT {} FROM backtest_runs r WHERE r.run_id = ANY(%s)").format(_WHOLE).as_bytes(None)


def list_runs(
    settings: Settings, limit: int, filters: Filters = EVERYTHING, order: Order = NEWEST, token: str | None = None
) -> RunPage:
    """A page of whole runs. Runs whose process has died are marked on the way. Raises ConfigError for bad filters."""
    with reading(settings) as connection:
        mark_dead_runs(connection)
        filters = settle(connection, filters)
        page = find_page(connection, _WHOLE, filters, order, limit, token)
        total, exact = _total(connection, filters, page, token)
    return RunPage([_run(row) for row in page.rows], page.token, total, exact)


def tabulate_runs(
    settings: Settings, columns: Sequence[str], filters: Filters, order: Order, limit: int, token: str | None = None
) -> RunTable:
    """A page of the columns named (see `storage.columns.pick`). Raises ConfigError for what is no column."""
    picked = pick(columns)
    with reading(settings) as connection:
        mark_dead_runs(connection)
        filters = settle(connection, filters)
        page = find_page(connection, picked.statement, filters, order, limit, token)
        total, exact = _total(connection, filters, page, token)
    return RunTable(picked.names, [picked.values(row) for row in page.rows], page.token, total, exact)


@contextmanager
def streamed_runs(
    settings: Settings, columns: Sequence[str], filters: Filters, order: Order, limit: int | None
) -> Iterator[tuple[list[str], Iterator[tuple[Any, ...]]]]:
    """Names and rows of any number of runs as they are in one moment, a thousand in memory at a time."""
    picked = pick(columns)
    with reading(settings) as connection:
        mark_dead_runs(connection)
        connection.execute("SET statement_timeout = 0")
        filters = settle(connection, filters)
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield picked.names, stream(connection, picked.statement, filters, order, limit)


def get_run(settings: Settings, reference: str) -> StoredRun:
    """The run named by uuid, unique prefix, `@last`, `@last~N`, `@best:SWEEP` or name.

    Raises NotFoundError, or AmbiguousError listing the candidates.
    """
    (run,) = get_runs(settings, [reference])
    return run


def get_runs(settings: Settings, references: Sequence[str]) -> list[StoredRun]:
    """The runs in the order they were named; raises as `get_run` does."""
    with reading(settings) as connection:
        mark_dead_runs(connection)
        return read_runs(connection, references)


def read_runs(connection: psycopg.Connection[dict[str, Any]], references: Sequence[str]) -> list[StoredRun]:
    """`get_runs` on a connection one has."""
    wanted = find_run_ids(connection, references)
    rows = connection.execute(_BY_RUN_IDS, [wanted], binary=True).fetchall()
    found = {row["run_id"]: _run(row) for row in rows}
    gone = [reference for reference, run_id in zip(references, wanted, strict=True) if run_id not in found]
    if gone:
        raise NotFoundError(f"there is no run {gone[0]}", hint="`ntrader history list` shows what there is.")
    return [found[run_id] for run_id in wanted]


def find_run(settings: Settings, run_id: UUID) -> StoredRun | None:
    """The run with that id; None where there is none, or no database to look in."""
    try:
        return get_run(settings, str(run_id))
    except (NotFoundError, DatabaseError):
        return None


def find_by_run_key(settings: Settings, run_key: str, *, other_than: UUID | None = None) -> StoredRun | None:
    """The newest success with the run key: the same inputs, and so the same result."""
    with reading(settings) as connection:
        row = connection.execute(
            sql.SQL(
                "SELECT {} FROM backtest_runs r WHERE r.run_key = %s AND r.execution_status = 'success'"
                " AND r.run_id IS DISTINCT FROM %s ORDER BY r.created_at DESC, r.id DESC LIMIT 1"
            ).format(_WHOLE),
            [run_key, other_than],
        ).fetchone()
    return _run(row) if row else None


def get_trades(settings: Settings, run_id: UUID) -> list[StoredTrade]:
    """The closed trades of a run, in the order they closed."""
    with reading(settings) as connection:
        rows = connection.execute(
            sql.SQL(
                "SELECT {} FROM trades t JOIN backtest_runs r ON r.id = t.backtest_run_id"
                " WHERE r.run_id = %s ORDER BY t.trade_number"
            ).format(sql.SQL(", ").join(sql.Identifier("t", field.name) for field in fields(StoredTrade))),
            [run_id],
        ).fetchall()
    return [StoredTrade(**row) for row in rows]


def get_equity(settings: Settings, run_id: UUID) -> list[EquityPoint]:
    """The equity curve of a run; empty where it has none."""
    with reading(settings) as connection:
        row = connection.execute(
            "SELECT c.steps, c.equity FROM equity_curves c JOIN backtest_runs r ON r.id = c.backtest_run_id"
            " WHERE r.run_id = %s",
            [run_id],
        ).fetchone()
    if row is None:
        return []
    began = datetime(1970, 1, 1, tzinfo=UTC)
    times = (began + timedelta(microseconds=time // 1000) for time in accumulate(row["steps"]))
    return [EquityPoint(time, equity) for time, equity in zip(times, row["equity"], strict=True)]


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


def _total(
    connection: psycopg.Connection[dict[str, Any]], filters: Filters, page: Page, token: str | None
) -> tuple[int, bool]:
    """A first page with room left says it all; otherwise somebody has to count."""
    if page.token is None and token is None:
        return len(page.rows), True
    total, exact = count(connection, filters)
    return max(total, len(page.rows)), exact


def _run(row: dict[str, Any]) -> StoredRun:
    metrics = None
    if row["execution_status"] == "success":
        metrics = StoredMetrics(**{name: row[name] for name in _METRICS})
    return StoredRun(**{name: row[name] for name in (*_RUN, "reproduced_from_run_id")}, metrics=metrics)
