"""What `simulate` costs beside the engine itself: 100,000 one-minute bars, alternating, in one process.

    uv run python -m benchmarks.engine [--bars 100000] [--repeats 5]

Three ways to run the same strategy (ntrader's SMA Crossover, fixed size) with the same next-open fills:

    tuned    a hand-written BacktestEngine script with every saving there is (docs/decisions/004-engine.md)
    ours     ntrader.engine.simulate, from arrays to result: events built, fills, trades, equity curve
    stock    the script as the Nautilus tutorials write it: default configuration, pandas bars, its reports

The first two must agree on the final equity to the cent, or the comparison means nothing. Stock may differ by a few
ticks: it splits an order that is larger than a quarter of a bar's volume and gives the rest one tick worse.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USD
from nautilus_trader.model.data import Bar, BarType, TradeTick
from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId, Venue
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

from ntrader.config import SyntheticConfig, build_config
from ntrader.data import synthetic
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.engine import simulate
from ntrader.strategies.sma_crossover import SMACrossover, SMACrossoverConfig

CAPITAL = 1_000_000
PARAMETERS = {"fast_period": 10, "slow_period": 50, "trade_size": 100}
INSTRUMENT_ID = InstrumentId.from_str("TEST.SYNTH")
BAR_TYPE = BarType.from_str(f"{INSTRUMENT_ID}-1-MINUTE-LAST-EXTERNAL")
INSTRUMENT = Equity(INSTRUMENT_ID, Symbol("TEST"), USD, 4, Price.from_str("0.0001"), Quantity.from_int(1), 0, 0)


class QuietEngine(BacktestEngine):
    def _log_pre_run(self) -> None: ...

    def _log_run(self, start: object, end: object) -> None: ...

    def _log_post_run(self) -> None: ...


def strategy() -> SMACrossover:
    return SMACrossover(SMACrossoverConfig(instrument_id=INSTRUMENT_ID, bar_type=BAR_TYPE, **PARAMETERS))


def tuned(bars: Bars) -> float:
    engine = QuietEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    add_venue(engine, bar_execution=False)
    engine.kernel.portfolio.analyzer.record_trade = lambda *_: None
    engine.add_instrument(INSTRUMENT)
    times = bars.times.astype(np.uint64)
    columns = bars.open, bars.high, bars.low, bars.close, bars.volume
    built = Bar.from_raw_arrays_to_list(BAR_TYPE, 4, 0, *columns, times, times)
    opened = (bars.times - 60_000_000_000 + 2).astype(np.uint64)
    sizes, sides = np.full(len(bars), 1e9), np.zeros(len(bars), dtype=np.uint8)
    ids = [str(number) for number in range(len(bars))]
    ticks = TradeTick.from_raw_arrays_to_list(INSTRUMENT_ID, 4, 0, bars.open, sizes, sides, ids, opened, opened)
    engine.add_data([event for pair in zip(ticks, built, strict=True) for event in pair], sort=False)
    engine.sort_data()
    return finish(engine, strategy())


def stock(bars: Bars) -> float:
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    add_venue(engine, bar_execution=True)
    engine.add_instrument(INSTRUMENT)
    frame = pd.DataFrame(
        {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")},
        index=pd.to_datetime(bars.times, utc=True),
    )
    engine.add_data(stock_bars(frame))
    engine.add_data(stock_ticks(bars))
    final = finish(engine, strategy(), dispose=False)
    engine.get_result()
    engine.trader.generate_order_fills_report()
    engine.trader.generate_positions_report()
    engine.trader.generate_account_report(Venue("SYNTH"))
    engine.dispose()
    return final


def stock_bars(frame: pd.DataFrame) -> list[Bar]:
    try:
        return BarDataWrangler(BAR_TYPE, INSTRUMENT).process(frame)
    except ValueError:
        # With pandas 3 the wrangler meets read-only buffers; bar by bar is what remains to a stock script.
        return [
            Bar(BAR_TYPE, *(Price(value, 4) for value in row[1:5]), Quantity(row[5], 0), row[0].value, row[0].value)
            for row in frame.itertuples()
        ]


def stock_ticks(bars: Bars) -> list[TradeTick]:
    side, size = AggressorSide.NO_AGGRESSOR, Quantity(1e9, 0)
    times = (bars.times - 60_000_000_000 + 2).tolist()
    return [
        TradeTick(INSTRUMENT_ID, Price(price, 4), size, side, TradeId(str(number)), time, time)
        for number, (price, time) in enumerate(zip(bars.open, times, strict=True))
    ]


def add_venue(engine: BacktestEngine, *, bar_execution: bool) -> None:
    engine.add_venue(
        Venue("SYNTH"),
        OmsType.NETTING,
        AccountType.CASH,
        [Money(CAPITAL, USD)],
        base_currency=USD,
        default_leverage=Decimal(1),
        latency_model=LatencyModel(base_latency_nanos=1),
        bar_execution=bar_execution,
    )


def finish(engine: BacktestEngine, strategy: Strategy, *, dispose: bool = True) -> float:
    engine.add_strategy(strategy)
    engine.run()
    assert engine.iteration == len(engine.data)
    account = engine.kernel.portfolio.account(Venue("SYNTH"))
    held = float(engine.kernel.portfolio.net_position(INSTRUMENT_ID))
    final: float = account.balance_total(USD).as_double() + held * LAST_CLOSE[0]
    if dispose:
        engine.dispose()
    return final


LAST_CLOSE = [0.0]


def ours(bars: Bars) -> float:
    config = build_config(
        {
            "strategy": {"path": "ntrader.strategies.sma_crossover:SMACrossover", "parameters": PARAMETERS},
            "data": {"symbol": "TEST", "timeframe": "1-MINUTE"},
            "initial_capital": CAPITAL,
        }
    )
    return float(simulate(config, bars).equity_curve.equity[-1])


def make_bars(count: int) -> Bars:
    start = 1_577_836_800_000_000_000
    bars = synthetic.generate(
        SyntheticConfig(seed=7),
        symbol="TEST",
        venue="SYNTH",
        timeframe=parse_timeframe("1-MINUTE"),
        start=start,
        end=start + (count + 1) * 60_000_000_000,
    )
    names = ("times", "open", "high", "low", "close", "volume")
    return Bars(bars.symbol, bars.venue, bars.timeframe, *(getattr(bars, name)[:count] for name in names), "synthetic")


def timed(function: Callable[[Bars], float], bars: Bars) -> tuple[float, float]:
    began = time.perf_counter()
    final = function(bars)
    return time.perf_counter() - began, final


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Nautilus 1.231 calls what pandas 3 deprecates
    bars = make_bars(arguments.bars)
    LAST_CLOSE[0] = float(bars.close[-1])
    ways: dict[str, Callable[[Bars], float]] = {"tuned": tuned, "ours": ours, "stock": stock}
    for function in ways.values():
        timed(function, make_bars(2_000))
    times: dict[str, list[float]] = {name: [] for name in ways}
    finals: dict[str, float] = {}
    for round_number in range(arguments.repeats):
        # The order alternates, so that a slow moment of the machine meets each of them.
        names = list(ways) if round_number % 2 == 0 else list(reversed(ways))
        for name in names:
            if name == "stock" and round_number >= 2:
                continue
            seconds, finals[name] = timed(ways[name], bars)
            times[name].append(seconds)
            print(f"  {name:<6}{seconds:8.2f} s", file=sys.stderr)
    report(times, finals, len(bars))


def report(times: dict[str, list[float]], finals: dict[str, float], count: int) -> None:
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{count:,} one-minute bars, median (best) of alternating runs")
    for name, values in times.items():
        print(f"  {name:<6}{medians[name]:8.2f} s  ({min(values):.2f})   final equity {finals[name]:,.2f}")
    pairs = [mine / floor for mine, floor in zip(times["ours"], times["tuned"], strict=True)]
    print(
        f"ours / tuned   {medians['ours'] / medians['tuned']:.3f}   (pairwise {', '.join(f'{p:.3f}' for p in pairs)})"
    )
    print(f"stock / tuned  {medians['stock'] / medians['tuned']:.2f}")
    if round(finals["tuned"], 2) != round(finals["ours"], 2):
        raise SystemExit("tuned and ours do not agree on the final equity")


if __name__ == "__main__":
    main()
