"""What of a run goes into which column: the rows of every table that a run has, for one run or for a thousand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from psycopg.abc import Query
from psycopg.types.numeric import Int4, Int8

from ntrader.config import RunConfig, first_moment, last_moment
from ntrader.results import Execution, Fill, Fingerprints, Inputs, Metrics, RunResult
from storage.arrays import Column, Texts, register, steps
from storage.fields import METRICS

JSON = frozenset({"config_snapshot", "tags"})
_PRINTS = ("config", "data", "code", "engine", "environment")
_FILL_NUMBERS = ("quantity", "price", "fee")
_CURVES = "COPY equity_curves (backtest_run_id, points, steps, equity) FROM STDIN BINARY"
_FILLS = "COPY fills (backtest_run_id, fills, steps, quantities, prices, fees, sides, order_types) FROM STDIN BINARY"
_TRADES = (
    "COPY trades (backtest_run_id, trade_number, side, quantity, entry_time, entry_price, exit_time, exit_price,"
    " fees, pnl) FROM STDIN"
)


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
    sweep_id: int | None = None
    trial_number: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run has no result. `status` is "failed" or "interrupted"; what went in, where that is known."""

    status: str
    error_type: str
    message: str
    traceback: str | None
    fingerprints: Fingerprints | None = None
    inputs: Inputs | None = None


def described(run: NewRun) -> dict[str, Any]:
    config = run.config
    return {
        "run_id": run.run_id,
        "strategy_name": run.strategy_name,
        "strategy_type": run.strategy_type,
        "strategy_path": config.strategy.path,
        "config_path": storable(run.config_path) if run.config_path else None,
        "instrument_symbol": config.data.symbol,
        "data_source": config.data.source,
        "start_date": first_moment(config.data.start) if config.data.start else None,
        "end_date": last_moment(config.data.end) if config.data.end else None,
        "initial_capital": config.initial_capital,
        "config_snapshot": config.snapshot(),
        "sweep_id": run.sweep_id,
        "trial_number": run.trial_number,
        "flow_run_id": run.flow_run_id,
        "tags": {},
        "warnings": [],
    }


def succeeded(execution: Execution, metrics: Metrics) -> dict[str, Any]:
    return {
        "execution_status": "success",
        "result_digest": execution.result_digest,
        **printed(execution.fingerprints),
        **measured(metrics),
        "warnings": [storable(note) for note in execution.notes],
    }


def printed(prints: Fingerprints) -> dict[str, str]:
    return {"run_key": prints.run_key} | {f"{name}_fingerprint": getattr(prints, name) for name in _PRINTS}


def failed(failure: Failure) -> dict[str, Any]:
    return {
        "execution_status": failure.status,
        "error_type": storable(failure.error_type),
        "error_message": storable(failure.message),
        "error_traceback": storable(failure.traceback) if failure.traceback else None,
        **(printed(failure.fingerprints) if failure.fingerprints else {}),
    }


def add_series(cursor: psycopg.Cursor[Any], results: Sequence[tuple[int, RunResult]]) -> None:
    """Equity curves, fills and trades of these runs by the ids of their rows, a round trip a table."""
    register(cursor)
    copy_rows(cursor, _CURVES, _curves(results))
    copy_rows(cursor, _FILLS, (_fills(row_id, result.fills) for row_id, result in results))
    if any(result.trades for _, result in results):
        copy_rows(cursor, _TRADES, _trades(results))


def copy_rows(cursor: psycopg.Cursor[Any], statement: Query, values: Iterable[Sequence[Any]]) -> None:
    """By COPY, which costs the server half of as many INSERTs. A binary one takes numbers that say their size."""
    with cursor.copy(statement) as copy:
        for row in values:
            copy.write_row(row)


def _curves(results: Iterable[tuple[int, RunResult]]) -> Iterator[tuple[Any, ...]]:
    times, column = None, None
    for row_id, result in results:
        curve = result.equity_curve
        if curve.times is not times:  # those of runs over the same bars are the same array
            times, column = curve.times, Column(steps(curve.times))
        yield Int8(row_id), Int4(len(curve)), column, Column(np.asarray(curve.equity, dtype=np.float64))


def _fills(row_id: int, fills: Sequence[Fill]) -> tuple[Any, ...]:
    numbers = [Column(np.array([getattr(fill, name) for fill in fills], dtype=np.float64)) for name in _FILL_NUMBERS]
    times = Column(steps(np.array([fill.time for fill in fills], dtype=np.int64)))
    sides, order_types = (Texts([getattr(fill, name) for fill in fills]) for name in ("side", "order_type"))
    return (Int8(row_id), Int4(len(fills)), times, *numbers, sides, order_types)


def _trades(results: Iterable[tuple[int, RunResult]]) -> Iterator[tuple[Any, ...]]:
    for row_id, result in results:
        for number, trade in enumerate(result.trades, start=1):
            entry, exit_ = moment(trade.entry_time), moment(trade.exit_time)
            yield (row_id, number, trade.side, trade.quantity, entry, trade.entry_price, exit_, trade.exit_price,
                   trade.fees, trade.pnl)  # fmt: skip


def measured(metrics: Metrics) -> dict[str, Any]:
    values = {name: getattr(metrics, name) for name in METRICS}
    return values | {"max_drawdown_date": moment(metrics.max_drawdown_date)}


def storable(text: str) -> str:
    """PostgreSQL takes neither NUL nor lone surrogates (bytes of a file name that are no UTF-8): written as escapes."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def moment(nanoseconds: int | None) -> datetime | None:
    """PostgreSQL keeps microseconds: what is below is cut off."""
    if nanoseconds is None:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
