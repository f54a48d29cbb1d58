"""Loops over parameters as somebody would write them without ntrader's sweeps: at their best, and at their plainest.

Each runs in two forkserver processes that have the engine and the bars before the clock starts, take one pair of
periods after another from a shared counter, and keep what comes out in memory, with the Sharpe ratio to rank it by.

    direct   a BacktestEngine script with every saving that was known when sweeps were designed: a fresh engine a trial,
             no analysis, no logging, Rust indicators, events built once and out of the garbage collector's sight; fills
             and equity curve are all that is made of a run
    engine   the same around ntrader.engine.simulate_events, which also makes round trips and looks after its orders; it
             lets quiet bars go past the venue (ntrader/feed.py) and spares messages a look through all types
    stock    as the Nautilus tutorials write it: default configuration but for logging, a pandas frame through the bar
             wrangler, analysis and reports, everything anew for each trial; orders fill at the signal bar's close
    stock-open   the same with trade ticks at each bar's open, so that orders fill where the others' do
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ntrader.config import RunConfig
from ntrader.data.bars import Bars

PROCESSES = 2
# Nothing is kept under it: the bars are made up.
NOWHERE = Path("/nonexistent")

Pair = tuple[int, int]


@dataclass(frozen=True)
class Loop:
    """A loop to be run: which one, over which bars (those of the config), with which fast and slow periods."""

    kind: str
    config: RunConfig
    pairs: tuple[Pair, ...]
    processes: int = PROCESSES


@dataclass(frozen=True)
class Lap:
    """One run of a loop: wall seconds from the first trial's start to the last one's end, CPU seconds of its
    processes, the seconds each process took to build its bars before that, and each trial's final equity."""

    seconds: float
    cpu: float
    building: float
    equity: dict[Pair, float]


def run(loop: Loop) -> Lap:
    """Start the processes, let them warm up, and time them."""
    with _processes(loop) as pipes:
        building = max(pipe.recv() for pipe in pipes)
        began = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        answers = [pipe.recv() for pipe in pipes]
        seconds = time.perf_counter() - began
    equity = {pair: final for finals, _ in answers for pair, final in finals.items()}
    return Lap(seconds, sum(cpu for _, cpu in answers), building, equity)


@contextmanager
def _processes(loop: Loop) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("forkserver")
    counter = context.Value(ctypes.c_long, 0)
    pipes, started = [], []
    for _ in range(loop.processes):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, loop, counter), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        started.append(process)
    try:
        yield pipes
    finally:
        for process in started:
            process.kill()
            process.join()


def _serve(pipe: Connection, loop: Loop, counter: Any) -> None:
    warnings.simplefilter("ignore")  # Nautilus 1.231 calls what pandas 3 deprecates
    trial, building = _prepared(loop)
    trial(loop.pairs[0])
    pipe.send(building)
    pipe.recv()
    before, results = _cpu(), {}
    while True:
        with counter.get_lock():
            number = counter.value
            counter.value += 1
        if number >= len(loop.pairs):
            break
        fills, equity = trial(loop.pairs[number])
        results[loop.pairs[number]] = fills, equity, _sharpe(equity)
    finals = {pair: float(equity[-1]) for pair, (_, equity, _) in results.items()}
    pipe.send((finals, _cpu() - before))
    pipe.recv()  # killed here: the results stay in memory as long as somebody may want them


def _prepared(loop: Loop) -> tuple[Callable[[Pair], tuple[Any, Any]], float]:
    """What runs a trial and returns its fills and equity; what all trials share is built here, once."""
    from ntrader.data.load import load_bars

    bars = load_bars(loop.config.data, NOWHERE)
    began = time.perf_counter()
    trial = _KINDS[loop.kind](loop.config, bars)
    building = time.perf_counter() - began
    gc.collect()
    gc.freeze()
    return trial, building


def _sharpe(equity: Any) -> float:
    """As a hand-written loop has it: of bars, without a thought for those that share a day."""
    returns = np.asarray(equity)[1:] / np.asarray(equity)[:-1] - 1
    deviation = returns.std() if len(returns) else 0.0
    return float(returns.mean() / deviation) if deviation else 0.0


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# The hand-written loop around our engine


def _engine(config: RunConfig, bars: Bars) -> Callable[[Pair], tuple[Any, Any]]:
    from ntrader.engine import build_events, simulate_events

    events = build_events(config, bars)

    def trial(pair: Pair) -> tuple[Any, Any]:
        result = simulate_events(with_periods(config, pair), events)
        return result.fills, result.equity_curve.equity

    return trial


def with_periods(config: RunConfig, pair: Pair) -> RunConfig:
    """The config of one trial."""
    parameters = {**config.strategy.parameters, "fast_period": pair[0], "slow_period": pair[1]}
    return config.model_copy(update={"strategy": config.strategy.model_copy(update={"parameters": parameters})})


# The hand-written loop on Nautilus alone


def _direct(config: RunConfig, bars: Bars) -> Callable[[Pair], tuple[Any, Any]]:
    import pandas as pd
    from nautilus_trader.backtest.config import BacktestEngineConfig
    from nautilus_trader.backtest.engine import BacktestEngine
    from nautilus_trader.config import LoggingConfig

    class Quiet(BacktestEngine):
        def _log_pre_run(self) -> None: ...

        def _log_run(self, start: object, end: object) -> None: ...

        def _log_post_run(self) -> None: ...

    setup = BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False)
    fixed = config.strategy.parameters.get("trade_size") is not None
    built, ticks = _built(bars), _opens(bars, 1 if fixed else 2)
    events = [event for group in zip(*ticks, built, strict=True) for event in group]
    first, last = (pd.Timestamp(event.ts_init, tz="UTC") for event in (events[0], events[-1]))
    names = _names(bars)
    capital = float(config.initial_capital)

    def trial(pair: Pair) -> tuple[Any, Any]:
        engine = Quiet(setup)
        _add_venue(engine, config, names, bar_execution=not fixed, delay=True)
        engine.kernel.portfolio.analyzer.record_trade = lambda *_: None
        # `add_data` writes out a name for every event: as a stream they are only sorted.
        engine.add_data(events[: len(ticks) + 1], sort=False)
        engine.clear_data()
        engine.add_data_iterator("bars", iter([events]))
        engine.add_strategy(_strategy(config, names, pair))
        fills: list[tuple[int, float, float, float]] = []
        engine.kernel.msgbus.subscribe("events.fills.*", lambda event: fills.append(_fill(event)))
        engine.run(start=first, end=last)
        assert engine.iteration == len(events)
        engine.dispose()
        return fills, _equity(bars, fills, capital)

    return trial


def _fill(event: Any) -> tuple[int, float, float, float]:
    quantity = event.last_qty.as_double()
    return (
        event.ts_event, quantity if event.is_buy else -quantity, event.last_px.as_double(),
        event.commission.as_double(),
    )  # fmt: skip


def _equity(bars: Bars, fills: list[tuple[int, float, float, float]], capital: float) -> Any:
    times, quantities, prices, fees = np.array(fills, dtype=np.float64).reshape(-1, 4).T
    cash = np.cumsum(np.concatenate(([capital], -quantities * prices - fees)))
    held = np.cumsum(np.concatenate(([0.0], quantities)))
    known = np.searchsorted(times, bars.times, side="right")
    return cash[known] + held[known] * bars.close


def _strategy(config: RunConfig, names: tuple[Any, Any], pair: Pair) -> Any:
    from ntrader.strategies.sma_crossover import SMACrossover, SMACrossoverConfig

    kind, instrument = names
    given = {**config.strategy.parameters, "fast_period": pair[0], "slow_period": pair[1]}
    return SMACrossover(SMACrossoverConfig(instrument_id=instrument.id, bar_type=kind, **given))


def _names(bars: Bars) -> tuple[Any, Any]:
    """The type of the bars and their instrument."""
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.data import BarType
    from nautilus_trader.model.identifiers import InstrumentId, Symbol
    from nautilus_trader.model.instruments import Equity
    from nautilus_trader.model.objects import Price, Quantity

    name = InstrumentId.from_str(f"{bars.symbol}.{bars.venue}")
    equity = Equity(name, Symbol(bars.symbol), USD, 4, Price.from_str("0.0001"), Quantity.from_int(1), 0, 0)
    return BarType.from_str(f"{name}-{bars.timeframe}-LAST-EXTERNAL"), equity


def _add_venue(engine: Any, config: RunConfig, names: tuple[Any, Any], *, bar_execution: bool, delay: bool) -> None:
    from nautilus_trader.backtest.models import LatencyModel
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.enums import AccountType, OmsType
    from nautilus_trader.model.objects import Money

    instrument = names[1]
    engine.add_venue(
        instrument.id.venue, OmsType.NETTING, AccountType.CASH, [Money(config.initial_capital, USD)], base_currency=USD,
        default_leverage=Decimal(1), latency_model=LatencyModel(base_latency_nanos=1) if delay else None,
        bar_execution=bar_execution,
    )  # fmt: skip
    engine.add_instrument(instrument)


def _built(bars: Bars) -> list[Any]:
    from nautilus_trader.model.data import Bar

    times = bars.times.astype(np.uint64)
    columns = bars.open, bars.high, bars.low, bars.close, bars.volume
    built: list[Any] = Bar.from_raw_arrays_to_list(_names(bars)[0], 4, 0, *columns, times, times)
    return built


def _opens(bars: Bars, count: int) -> list[list[Any]]:
    """So many trade ticks at each bar's open: where orders fill, and from where on a stop is at work."""
    from nautilus_trader.model.data import TradeTick

    sizes, sides = np.full(len(bars), 1e9), np.zeros(len(bars), dtype=np.uint8)
    ids = [str(number) for number in range(len(bars))]
    name = _names(bars)[1].id
    moments = [(_opened(bars) + 2 * number).astype(np.uint64) for number in range(1, count + 1)]
    return [
        TradeTick.from_raw_arrays_to_list(name, 4, 0, bars.open, sizes, sides, ids, moment, moment)
        for moment in moments
    ]


def _opened(bars: Bars) -> Any:
    """A bar may open before the one before it has closed: Friday's close and Monday's open are days apart."""
    return np.maximum(bars.opened, np.concatenate(([bars.opened[0]], bars.times[:-1])))


# The plain loop


def _stock(config: RunConfig, bars: Bars) -> Callable[[Pair], tuple[Any, Any]]:
    return lambda pair: _tutorial(config, bars, pair, ticks=False)


def _stock_open(config: RunConfig, bars: Bars) -> Callable[[Pair], tuple[Any, Any]]:
    return lambda pair: _tutorial(config, bars, pair, ticks=True)


def _tutorial(config: RunConfig, bars: Bars, pair: Pair, *, ticks: bool) -> tuple[Any, Any]:
    from nautilus_trader.backtest.config import BacktestEngineConfig
    from nautilus_trader.backtest.engine import BacktestEngine
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import USD
    from nautilus_trader.model.identifiers import Venue

    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    names = _names(bars)
    _add_venue(engine, config, names, bar_execution=True, delay=ticks)
    engine.add_data(_wrangled(bars))
    if ticks:
        engine.add_data(_ticks_by_hand(bars))
    engine.add_strategy(_strategy(config, names, pair))
    engine.run()
    engine.get_result()
    fills = engine.trader.generate_order_fills_report()
    engine.trader.generate_positions_report()
    engine.trader.generate_account_report(Venue(bars.venue))
    account = engine.kernel.portfolio.account(Venue(bars.venue))
    held = float(engine.kernel.portfolio.net_position(names[1].id))
    final = account.balance_total(USD).as_double() + held * float(bars.close[-1])
    engine.dispose()
    return fills, [final]


def _wrangled(bars: Bars) -> list[Any]:
    """Through a frame and the wrangler; with pandas 3 that meets read-only buffers, and bar by bar is what remains."""
    import pandas as pd
    from nautilus_trader.model.data import Bar
    from nautilus_trader.model.objects import Price, Quantity
    from nautilus_trader.persistence.wranglers import BarDataWrangler

    kind, instrument = _names(bars)
    columns = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    frame = pd.DataFrame(columns, index=pd.to_datetime(bars.times, utc=True))
    try:
        wrangled: list[Any] = BarDataWrangler(kind, instrument).process(frame)
    except ValueError:
        return [
            Bar(kind, *(Price(value, 4) for value in row[1:5]), Quantity(row[5], 0), row[0].value, row[0].value)
            for row in frame.itertuples()
        ]
    return wrangled


def _ticks_by_hand(bars: Bars) -> list[Any]:
    from nautilus_trader.model.data import TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import TradeId
    from nautilus_trader.model.objects import Price, Quantity

    side, size, name = AggressorSide.NO_AGGRESSOR, Quantity(1e9, 0), _names(bars)[1].id
    times = (_opened(bars) + 2).tolist()
    return [
        TradeTick(name, Price(price, 4), size, side, TradeId(str(number)), moment, moment)
        for number, (price, moment) in enumerate(zip(bars.open, times, strict=True))
    ]


_KINDS: dict[str, Callable[[RunConfig, Bars], Callable[[Pair], tuple[Any, Any]]]] = {
    "engine": _engine,
    "direct": _direct,
    "stock": _stock,
    "stock-open": _stock_open,
}
