"""Frozen values that come out of a backtest. Times are nanoseconds since 1970 UTC, money is in account currency.

Series are numpy columns rather than lists of objects: they cross process borders, are digested, measured and
stored a hundred times more often than a person looks at a single point.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ntrader.data.bars import Bars

Times = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class EquityCurve:
    """Account equity marked to market at the close of each bar. `times` are strictly increasing."""

    times: Times
    equity: Floats

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. `quantity` > 0; `side` is "buy" or "sell"; `fee` >= 0 in account currency."""

    time: int
    side: str
    quantity: float
    price: float
    fee: float
    order_type: str


@dataclass(frozen=True, slots=True)
class Trade:
    """A closed round trip: from flat to flat. `pnl` is realised, after fees; `quantity` is the largest held."""

    side: str
    quantity: float
    entry_time: int
    entry_price: float
    exit_time: int
    exit_price: float
    fees: float
    pnl: float


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """What one simulation produced. `open_quantity` is the signed position still held at the end.

    `notes` are for people: orders that came to nothing, with the reason. They are not part of the result digest.
    """

    initial_capital: float
    equity_curve: EquityCurve
    fills: tuple[Fill, ...]
    trades: tuple[Trade, ...]
    open_quantity: float
    bars: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers derived from a finished run; `None` where a number is not defined. Fractions, not percent."""

    total_return: float | None = None
    final_balance: float | None = None
    cagr: float | None = None
    sharpe_ratio: float | None = None
    sortino_ratio: float | None = None
    max_drawdown: float | None = None
    max_drawdown_date: int | None = None
    calmar_ratio: float | None = None
    volatility: float | None = None
    total_trades: int = 0
    winning_trades: int = 0
    losing_trades: int = 0
    win_rate: float | None = None
    profit_factor: float | None = None
    expectancy: float | None = None
    avg_win: float | None = None
    avg_loss: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    return_observations: int = 0


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """sha256 hex digests of the five inputs of a run, and the run key over them."""

    config: str
    data: str
    code: str
    engine: str
    environment: str
    run_key: str


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What the fingerprints stand for, to be kept: source text by module, the canonical JSON whose sha256 are the
    fingerprints of `code`, `engine` and `environment`, and the bars."""

    sources: dict[str, str]
    documents: dict[str, str]
    bars: Bars


@dataclass(frozen=True, slots=True, eq=False)
class Execution:
    """A carried-out run: its result, what went in (fingerprints) and what came out (result digest).

    `inputs` is None where nobody wants to keep them.
    """

    result: RunResult
    fingerprints: Fingerprints
    result_digest: str
    first_bar: int
    last_bar: int
    notes: tuple[str, ...] = field(default=())
    inputs: Inputs | None = None
