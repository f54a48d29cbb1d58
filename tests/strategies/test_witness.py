"""The three strategies against outside witnesses, on the real prices that come with ntrader.

With a fixed size, backtesting.py (another library, another engine) must have the same trades and the same equity at
every bar. With risk sizing and protective stops, a plain loop written from the rules alone must have the same fills.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ntrader.config import RunConfig
from ntrader.data import sample
from ntrader.data.bars import Bars
from ntrader.engine import simulate
from ntrader.strategies.loader import complete_parameters, load_strategy
from ntrader.strategies.registry import strategy_path
from tests import factories

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from backtesting import Backtest, Strategy

CAPITAL = 100_000
# For each bar the position wanted from now on: 1, 0, -1, or None to leave things as they are.
Signals = list[int | None]
Decide = Callable[[int, int], int | None]


def config(key: str, *, venue: dict[str, Any] | None = None, **parameters: Any) -> RunConfig:
    path = strategy_path(key)
    complete = complete_parameters(load_strategy(path), parameters)
    return factories.run_config(strategy={"path": path, "parameters": complete}, venue=venue or {})


def sma_decider(closes: pd.Series, fast: int, slow: int) -> Decide:
    above = (closes.rolling(fast).mean() > closes.rolling(slow).mean()).tolist()

    def decide(bar: int, _held: int) -> int | None:
        if bar < slow or above[bar] == above[bar - 1]:
            return None
        return 1 if above[bar] else -1

    return decide


def rsi_decider(closes: pd.Series, period: int, oversold: float, overbought: float, exit_level: float) -> Decide:
    change = closes.diff().fillna(0.0)
    gain = change.clip(lower=0).ewm(alpha=1 / period, adjust=False).mean()
    loss = (-change.clip(upper=0)).ewm(alpha=1 / period, adjust=False).mean()
    rsi = (100 - 100 / (1 + gain / loss)).tolist()

    def decide(bar: int, held: int) -> int | None:
        if bar < period - 1:
            return None
        if rsi[bar] < oversold:
            return 1
        if rsi[bar] > overbought:
            return -1
        back = rsi[bar] >= exit_level if held > 0 else rsi[bar] <= exit_level
        return 0 if held and back else None

    return decide


def momentum_decider(closes: pd.Series, lookback: int, threshold: float) -> Decide:
    change = (closes / closes.shift(lookback) - 1).tolist()

    def decide(bar: int, held: int) -> int | None:
        if bar < lookback:
            return None
        if abs(change[bar]) > threshold:
            return 1 if change[bar] > 0 else -1
        faded = change[bar] <= 0 if held > 0 else change[bar] >= 0
        return 0 if held and faded else None

    return decide


def frame(bars: Bars) -> pd.DataFrame:
    columns = {"Open": bars.open, "High": bars.high, "Low": bars.low, "Close": bars.close, "Volume": bars.volume}
    return pd.DataFrame(columns, index=pd.to_datetime(bars.times))


def backtesting_py(bars: Bars, decide: Decide, size: int, *, short: bool) -> Any:
    class Witness(Strategy):  # type: ignore[misc]
        def init(self) -> None: ...

        def next(self) -> None:
            held = int(np.sign(self.position.size))
            wanted = decide(len(self.data) - 1, held)
            if wanted is None or (target := wanted if short else max(wanted, 0)) == held:
                return
            if held:
                self.position.close()
            if target:
                (self.buy if target > 0 else self.sell)(size=size)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Backtest(frame(bars), Witness, cash=CAPITAL, finalize_trades=False).run()


DECIDERS: dict[str, tuple[dict[str, Any], Callable[[pd.Series], Decide]]] = {
    "sma_crossover": ({"fast_period": 10, "slow_period": 50}, lambda closes: sma_decider(closes, 10, 50)),
    "mean_reversion": (
        {"rsi_period": 14, "oversold": 30, "overbought": 70, "exit_level": 50},
        lambda closes: rsi_decider(closes, 14, 30, 70, 50),
    ),
    "momentum": ({"lookback": 20, "threshold": 0.02}, lambda closes: momentum_decider(closes, 20, 0.02)),
}


@pytest.mark.parametrize("short", [False, True], ids=["long", "long and short"])
@pytest.mark.parametrize("symbol", ["AAPL", "IBM"])
@pytest.mark.parametrize("key", DECIDERS)
def test_backtesting_py_has_the_same_trades_and_equity(key: str, symbol: str, short: bool) -> None:
    parameters, decider = DECIDERS[key]
    bars = sample.read(symbol)
    venue = {"account_type": "MARGIN"} if short else {}

    ours = simulate(config(key, venue=venue, trade_size=100, allow_short=short, **parameters), bars)
    theirs = backtesting_py(bars, decider(pd.Series(bars.close)), 100, short=short)

    trades = theirs["_trades"].sort_values("ExitTime")
    assert len(ours.trades) == len(trades) > 5
    assert [trade.pnl for trade in ours.trades] == pytest.approx(trades["PnL"].tolist(), abs=1e-6)
    assert [trade.entry_price for trade in ours.trades] == pytest.approx(trades["EntryPrice"].tolist())
    assert ours.equity_curve.equity == pytest.approx(theirs["_equity_curve"]["Equity"].to_numpy(), abs=1e-6)


def loop_with_stops(bars: Bars, decide: Decide, *, risk: float, atr_period: int, multiple: float) -> list[Any]:
    """Long only, CASH, from the rules: the fills as (bar, side, quantity, price)."""
    true_range = np.maximum(bars.high, np.roll(bars.close, 1)) - np.minimum(bars.low, np.roll(bars.close, 1))
    true_range[0] = bars.high[0] - bars.low[0]
    atr = pd.Series(true_range).rolling(atr_period).mean().tolist()
    fills: list[Any] = []
    cash, held, stop = float(CAPITAL), 0, 0.0
    order: tuple[str, int, float] | None = None
    for bar in range(len(bars)):
        opened, low, close = bars.open[bar], bars.low[bar], bars.close[bar]
        if held and (opened <= stop or (order and order[0] == "sell")):
            # Whether jumped over or sold by signal, it is the open either way.
            fills.append((bar, "sell", held, opened))
            cash, held, order = cash + held * opened, 0, None
        if order and order[0] == "buy" and opened <= order[2]:
            held, cash, stop = order[1], cash - order[1] * opened, round(opened - multiple * atr[bar - 1], 4)
            fills.append((bar, "buy", held, opened))
        order = None
        if held and low <= stop:
            fills.append((bar, "sell", held, stop))
            cash, held = cash + held * stop, 0
        wanted = decide(bar, int(held > 0))
        if wanted == 1 and not held:
            size = math.floor(min(cash * risk / 100 / (multiple * atr[bar]), cash * 0.95 / close))
            order = ("buy", size, math.floor(cash * 0.995 / size / 1e-4) * 1e-4)
        elif wanted in (0, -1) and held:
            order = ("sell", held, 0.0)
    return fills


@pytest.mark.parametrize("symbol", ["AAPL", "GOOG", "IBM", "MSFT"])
@pytest.mark.parametrize("key", DECIDERS)
def test_a_plain_loop_has_the_same_fills_with_protective_stops(key: str, symbol: str) -> None:
    parameters, decider = DECIDERS[key]
    bars = sample.read(symbol)

    ours = simulate(config(key, risk_percent=2.0, atr_period=14, atr_multiple=2.0, **parameters), bars)
    theirs = loop_with_stops(bars, decider(pd.Series(bars.close)), risk=2.0, atr_period=14, multiple=2.0)

    found = [(int(np.searchsorted(bars.times, fill.time)), fill.side, fill.quantity) for fill in ours.fills]
    assert found == [(bar, side, quantity) for bar, side, quantity, _ in theirs]
    assert [fill.price for fill in ours.fills] == pytest.approx([price for *_, price in theirs], abs=1e-9)
    assert any(fill.order_type == "STOP_MARKET" for fill in ours.fills)
