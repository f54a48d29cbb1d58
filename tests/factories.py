"""Values for tests, each with sensible defaults and every field open to change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np

from ntrader.config import RunConfig, build_config
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.metrics import measure
from ntrader.results import EquityCurve, Execution, Fingerprints, Metrics, RunResult, Trade
from storage.rows import NewRun

DAY = 86_400_000_000_000
START = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000


def bars(
    rows: list[tuple[float, float, float, float]], *, timeframe: str = "1-DAY", volume: float = 1_000_000.0
) -> Bars:
    """Bars from (open, high, low, close) rows, one a step from 2020-01-01, stamped at their close."""
    frame = parse_timeframe(timeframe)
    columns = [np.ascontiguousarray(column, dtype=np.float64) for column in np.array(rows, dtype=float).T]
    times = START + frame.nanoseconds * np.arange(1, len(rows) + 1, dtype=np.int64) - 1000
    return Bars("TEST", "SIM", frame, times, *columns, np.full(len(rows), float(volume)), "test")


def flat_bars(closes: list[float]) -> Bars:
    """Bars that open, trade and close at one price."""
    return bars([(close, close, close, close) for close in closes])


def run_config(**changes: Any) -> RunConfig:
    raw: dict[str, Any] = {
        "strategy": {"path": "ntrader.strategies.sma_crossover:SMACrossover", "parameters": {}},
        "data": {"symbol": "TEST", "venue": "SIM"},
    }
    return build_config(raw | changes)


def new_run(**changes: Any) -> NewRun:
    values = {
        "run_id": uuid4(),
        "config": run_config(),
        "strategy_name": "SMA Crossover",
        "strategy_type": "trend_following",
    }
    return NewRun(**(values | changes))


def trade(**changes: Any) -> Trade:
    values: dict[str, Any] = {
        "side": "long",
        "quantity": 10.0,
        "entry_time": START + DAY,
        "entry_price": 100.0,
        "exit_time": START + 2 * DAY,
        "exit_price": 110.0,
        "fees": 1.0,
        "pnl": 99.0,
    }
    return Trade(**(values | changes))


def run_result(equity: list[float] | None = None, trades: tuple[Trade, ...] = ()) -> RunResult:
    values = np.array(equity or [100_000.0, 101_000.0, 99_500.0, 102_000.0])
    times = START + DAY * np.arange(1, len(values) + 1, dtype=np.int64) - 1000
    return RunResult(100_000.0, EquityCurve(times, values), (), trades, 0.0, len(values))


def execution(result: RunResult | None = None, **changes: Any) -> Execution:
    result = result or run_result(trades=(trade(),))
    prints = Fingerprints(*(letter * 64 for letter in "abcdef"))
    values: dict[str, Any] = {
        "result": result,
        "fingerprints": prints,
        "result_digest": "0" * 64,
        "first_bar": int(result.equity_curve.times[0]),
        "last_bar": int(result.equity_curve.times[-1]),
    }
    return Execution(**(values | changes))


def metrics_of(execution: Execution) -> Metrics:
    return measure(execution.result, 252)
