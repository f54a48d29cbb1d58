"""simulate(config, bars) -> RunResult: the only place that builds a Nautilus BacktestEngine.

Time inside one bar, with `fill_timing: next_open` (the default):

    close of bar i          the strategy sees bar i and sends an order; it needs one nanosecond to arrive
    open of bar i+1, +2 ns  a trade tick at the open price: the order fills here
    open of bar i+1, +4 ns  the same tick again: a protective stop sent on that fill is at work from here on
    close of bar i+1        the bar itself: its high and low can trigger stops and limits, then the strategy sees it

With `fill_timing: close` orders arrive at once and fill at the close of the bar that the strategy just saw.
"""

from __future__ import annotations

import importlib.metadata
import random
import re
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import pandas as pd
from nautilus_trader.analysis.analyzer import PortfolioAnalyzer
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import FeeModel, FillModel, LatencyModel
from nautilus_trader.common.component import is_backtest_force_stop
from nautilus_trader.config import LoggingConfig, MessageBusConfig
from nautilus_trader.core.nautilus_pyo3 import HIGH_PRECISION
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import Bar, BarType, BookOrder, TradeTick
from nautilus_trader.model.enums import (
    AccountType,
    BookType,
    LiquiditySide,
    OmsType,
    OrderSide,
    OrderStatus,
    OrderType,
    TimeInForce,
)
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import InstrumentId, TraderId, Venue
from nautilus_trader.model.objects import Currency, Money, Price
from nautilus_trader.portfolio import portfolio

from ntrader.background import every
from ntrader.config import FeesConfig, RunConfig
from ntrader.data.bars import Bars
from ntrader.errors import BadDataError, EngineStoppedError, NtraderError, StrategyError
from ntrader.feed import Events, Feed, QuietFeed, quiet_bars
from ntrader.instruments import build_instrument
from ntrader.results import EquityCurve, Fill, RunResult
from ntrader.strategies.loader import build_strategy, sees_only_bars, sends_only_market_orders
from ntrader.trades import round_trips

Progress = Callable[[int, int], None]

_TRIGGERED = (OrderType.STOP_MARKET, OrderType.TRAILING_STOP_MARKET, OrderType.MARKET_IF_TOUCHED)
_PROGRESS_SECONDS = 0.2
# Tick sizes and simulated books carry this many units, so that an order always fills whole: bars say nothing
# about depth, and a partial fill would stop the engine half-way through the period.
_PLENTY = 1_000_000_000


def simulate(config: RunConfig, bars: Bars, progress: Progress | None = None) -> RunResult:
    """Run the config's strategy over the bars.

    `progress(done, total)` is called about five times a second with the number of bars, from another thread.
    Raises StrategyError when the strategy raises, EngineStoppedError when the engine ended before the last bar.
    """
    return simulate_events(config, build_events(config, bars), progress)


def simulate_events(config: RunConfig, events: Events, progress: Progress | None = None) -> RunResult:
    """The same over events that were built before: what a sweep calls for each of its trials."""
    random.seed(config.seed)
    np.random.seed(config.seed)
    engine = _Engine(config=_engine_config())
    fills: list[Fill] = []
    try:
        feed = Feed(engine, events) if events.quiet is None else QuietFeed(engine, events)
        _add_venue(engine, config, events, feed)
        engine.add_instrument(events.instrument)
        feed.begin()
        engine.add_strategy(build_strategy(config, events.bars))
        engine.kernel.msgbus.subscribe("events.fills.*", lambda event: fills.append(_fill(event)))
        with _sampled(feed, len(events.bars), progress):
            _run(engine, events)
        _refuse_early_stop(engine, feed.bars, events.bars, config)
        feed.require_kept_promises()
        notes = _order_notes(engine, events)
    finally:
        engine.dispose()
    return _result(config, events.bars, fills, notes)


def build_events(config: RunConfig, bars: Bars) -> Events:
    """The bars, and before each of them the ticks at its open that `next_open` needs."""
    if not len(bars):
        raise BadDataError(f"{bars.origin}: there are no bars to run on")
    instrument = build_instrument(config, bars)
    precision = instrument.price_precision
    times, volume = bars.times.astype(np.uint64), np.rint(bars.volume)
    stream: list[Any] = Bar.from_raw_arrays_to_list(
        bar_type(bars), precision, 0, bars.open, bars.high, bars.low, bars.close, volume, times, times
    )
    bar_execution = not sends_only_market_orders(config)
    per_bar = 1
    if config.venue.fill_timing == "next_open":
        ticks = 2 if bar_execution else 1
        columns = [_open_ticks(bars, precision, offset=2 * (n + 1)) for n in range(ticks)]
        stream = [event for group in zip(*columns, stream, strict=True) for event in group]
        per_bar = ticks + 1
    elif not bar_execution:
        closes = _ticks(bars, precision, bars.close, times)
        stream = [event for pair in zip(closes, stream, strict=True) for event in pair]
        per_bar = 2
    quiet = quiet_bars(bars, precision, stream, per_bar) if _may_be_quiet(config) else None
    return Events(bars, instrument, stream, per_bar, bar_execution, quiet)


def kind_of_events(config: RunConfig) -> tuple[bool, bool]:
    """Configs with the same bars and the same kind share their events."""
    return sends_only_market_orders(config), _may_be_quiet(config)


def _may_be_quiet(config: RunConfig) -> bool:
    """Where orders fill at the close of the bar just seen, each is played out before the strategy sees it."""
    return config.venue.fill_timing == "next_open" and sees_only_bars(config)


def identity() -> list[object]:
    """The version of Nautilus, and whether its prices have 16 decimals or 9."""
    return [importlib.metadata.version("nautilus-trader"), bool(HIGH_PRECISION)]


def bar_type(bars: Bars) -> BarType:
    return BarType.from_str(f"{bars.symbol}.{bars.venue}-{bars.timeframe}-LAST-EXTERNAL")


class _Analyzer(PortfolioAnalyzer):
    """Keeps nothing, for its statistics are computed elsewhere: the original makes six empty pandas series a run, and
    concatenates one per closed trade."""

    _NOTHING = pd.Series(dtype=np.float64)

    def _empty_returns(self) -> pd.Series:
        return self._NOTHING

    def record_trade(self, *_: object, **__: object) -> None: ...


class _Engine(BacktestEngine):
    """Without the statistics it logs before and after each run: a third of a short run's time, and never seen."""

    def __init__(self, config: BacktestEngineConfig) -> None:
        # The portfolio, which makes one, takes no other.
        portfolio.PortfolioAnalyzer = _Analyzer
        try:
            super().__init__(config)
        finally:
            portfolio.PortfolioAnalyzer = PortfolioAnalyzer

    def _log_pre_run(self) -> None: ...

    def _log_run(self, start: object, end: object) -> None: ...

    def _log_post_run(self) -> None: ...


class _EveryType:
    """Equal to each of them: as a filter it holds all back."""

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def _engine_config() -> BacktestEngineConfig:
    """A new one for each engine, which empties the filter.

    Nothing is published to other processes; without the filter each message is compared with all types that could be.
    """
    return BacktestEngineConfig(
        trader_id=TraderId("NTRADER-001"),
        logging=LoggingConfig(bypass_logging=True),
        message_bus=MessageBusConfig(types_filter=[_EveryType()]),  # type: ignore[list-item]
        run_analysis=False,
    )


def _add_venue(engine: BacktestEngine, config: RunConfig, events: Events, feed: Feed) -> None:
    venue, currency = config.venue, Currency.from_str(config.venue.currency)
    engine.add_venue(
        venue=Venue(events.bars.venue),
        oms_type=OmsType.NETTING,
        account_type=AccountType[venue.account_type],
        base_currency=currency,
        starting_balances=[Money(config.initial_capital, currency)],
        default_leverage=Decimal(str(venue.leverage)),
        fill_model=_Fills(config, events.bars, engine.kernel.clock),
        fee_model=_Fees(venue.fees, currency),
        latency_model=LatencyModel(base_latency_nanos=1) if venue.fill_timing == "next_open" else None,
        bar_execution=events.bar_execution,
        trade_execution=True,
        modules=[*feed.modules],
    )


def _run(engine: BacktestEngine, events: Events) -> None:
    try:
        engine.run(start=_moment(events.data[0]), end=_moment(events.data[-1]))
    except NtraderError:
        raise
    except Exception as error:
        raise StrategyError(
            f"the strategy raised {type(error).__name__}: {error}", traceback_text=traceback.format_exc()
        ) from error


def _moment(event: Any) -> pd.Timestamp:
    return pd.Timestamp(event.ts_init, tz="UTC")


def _refuse_early_stop(engine: BacktestEngine, fed: int, bars: Bars, config: RunConfig) -> None:
    if fed == len(bars) and not is_backtest_force_stop():
        return
    bar = min(fed, len(bars) - 1)
    moment = np.datetime64(int(bars.times[bar]), "ns").astype("datetime64[s]")
    raise EngineStoppedError(
        f"the engine stopped at bar {bar + 1:,} of {len(bars):,} ({moment} UTC){_last_fill(engine, config)}",
        hint="Usually an order cost more than the CASH account held: trade a smaller size, or use MARGIN.",
    )


def _last_fill(engine: BacktestEngine, config: RunConfig) -> str:
    """The fill that the account could not bear was never published: it is in its order alone."""
    events = [event for order in engine.cache.orders() for event in order.events if isinstance(event, OrderFilled)]
    if not events:
        return ""
    last = _fill(max(events, key=lambda event: event.ts_event))
    cash = float(config.initial_capital) + sum(_cash_flow(_fill(event)) for event in events)
    return f", after a {last.side} of {last.quantity:g} at {last.price:g} that left {cash:,.2f} in cash"


def _order_notes(engine: BacktestEngine, events: Events) -> tuple[str, ...]:
    """Orders that came to nothing, by reason. Raises StrategyError for an order the fast mode cannot play out."""
    reasons: Counter[str] = Counter()
    for order in engine.cache.orders():
        immediate = order.order_type == OrderType.MARKET or order.time_in_force == TimeInForce.IOC
        if not (events.bar_execution or immediate):
            raise StrategyError(
                f"the strategy promised market orders only and sent a {OrderType(order.order_type).name}",
                hint="Return False from its sends_only_market_orders.",
            )
        if order.is_reduce_only:
            continue  # an exit that found its position stopped out at the same open has lost nothing
        if order.status in (OrderStatus.DENIED, OrderStatus.REJECTED):
            reasons[f"{OrderStatus(order.status).name.lower()}: {_short(order.last_event.reason)}"] += 1
        elif order.status == OrderStatus.CANCELED and order.time_in_force == TimeInForce.IOC:
            reasons["cancelled: the price at the fill was beyond what the account could pay"] += 1
    return tuple(f"{count} order{'s' if count > 1 else ''} {reason}" for reason, count in sorted(reasons.items()))


def _short(reason: str) -> str:
    """Nautilus' reason without the order and position it quotes in full."""
    return re.split(r":| with (?:position|order) ", reason, maxsplit=1)[0]


def _open_ticks(bars: Bars, precision: int, offset: int) -> list[TradeTick]:
    opened = bars.opened
    previous = np.concatenate(([opened[0]], bars.times[:-1]))
    times = (np.maximum(opened, previous) + offset).astype(np.uint64)
    return _ticks(bars, precision, bars.open, times)


def _ticks(bars: Bars, precision: int, prices: Any, times: Any) -> list[TradeTick]:
    count = len(bars)
    ids = [str(number) for number in range(count)]
    sizes = np.full(count, _PLENTY, dtype=np.float64)
    sides = np.zeros(count, dtype=np.uint8)
    instrument_id = InstrumentId.from_str(f"{bars.symbol}.{bars.venue}")
    ticks: list[TradeTick] = TradeTick.from_raw_arrays_to_list(
        instrument_id, precision, 0, prices, sizes, sides, ids, times, times
    )
    return ticks


class _Fees(FeeModel):
    """Commission of one fill, rounded once: Nautilus' own per-contract model rounds the rate itself to cents."""

    def __init__(self, fees: FeesConfig, currency: Currency) -> None:
        self._model = fees.model
        self._rate = Decimal(str(fees.rate))
        self._minimum = Decimal(str(fees.minimum))
        self._currency = currency
        self._unit = Decimal(1).scaleb(-currency.precision)

    def get_commission(self, order: Any, fill_qty: Any, fill_px: Any, instrument: Any) -> Money:
        if self._model == "none":
            return Money(0, self._currency)
        base = {
            "per_share": fill_qty.as_decimal(),
            "proportional": fill_qty.as_decimal() * fill_px.as_decimal(),
            "fixed": Decimal(1),
        }[self._model]
        fee = max(base * self._rate, self._minimum)
        return Money(fee.quantize(self._unit, ROUND_HALF_UP), self._currency)


class _Fills(FillModel):
    """Orders fill whole at one price: bars say nothing about depth, and Nautilus would split an order by the volume
    of the bar and give the rest a tick worse. Takers lose a fraction of the price (slippage); a limit that waited in
    the book gets its price. The seed is set even when nothing is drawn from it.
    """

    def __init__(self, config: RunConfig, bars: Bars, clock: Any) -> None:
        super().__init__(prob_slippage=0.0, random_seed=config.seed)
        self._slippage = config.venue.slippage
        self._bars = bars
        self._clock = clock

    def get_orderbook_for_fill_simulation(
        self, instrument: Any, order: Any, best_bid: Any, best_ask: Any
    ) -> OrderBook | None:
        bid, ask = best_bid.as_double(), best_ask.as_double()
        if order.liquidity_side != LiquiditySide.TAKER:
            bid = ask = order.price.as_double() if order.has_price else bid
            return _one_level_book(instrument, bid, ask)
        if order.order_type in _TRIGGERED:
            bid = ask = self._trigger_price(order)
        return _one_level_book(instrument, bid * (1 - self._slippage), ask * (1 + self._slippage))

    def _trigger_price(self, order: Any) -> float:
        """The order's own price, or the open of the bar where the market jumped over it."""
        bar = min(int(np.searchsorted(self._bars.times, self._clock.timestamp_ns())), len(self._bars) - 1)
        opened, trigger = float(self._bars.open[bar]), float(order.trigger_price.as_double())
        touched_from_above = (order.side == OrderSide.SELL) == (order.order_type != OrderType.MARKET_IF_TOUCHED)
        jumped = opened <= trigger if touched_from_above else opened >= trigger
        return opened if jumped else trigger


def _one_level_book(instrument: Any, bid: float, ask: float) -> OrderBook:
    book = OrderBook(instrument.id, BookType.L2_MBP)
    size = instrument.make_qty(_PLENTY)
    for number, (side, price) in enumerate(((OrderSide.BUY, bid), (OrderSide.SELL, ask)), start=1):
        level = BookOrder(side, Price(price, instrument.price_precision), size, number)
        book.add(level, 0, 0)
    return book


def _sampled(feed: Feed, bars: int, progress: Progress | None) -> AbstractContextManager[None]:
    """Report progress from a thread that reads a counter: the bars themselves pay nothing for it."""
    if progress is None:
        return nullcontext()
    return every(_PROGRESS_SECONDS, lambda: progress(feed.bars, bars))


def _fill(event: OrderFilled) -> Fill:
    return Fill(
        time=event.ts_event,
        side="buy" if event.order_side == OrderSide.BUY else "sell",
        quantity=event.last_qty.as_double(),
        price=event.last_px.as_double(),
        fee=event.commission.as_double(),
        order_type=OrderType(event.order_type).name,
    )


def _result(config: RunConfig, bars: Bars, fills: list[Fill], notes: tuple[str, ...]) -> RunResult:
    trades, open_quantity = round_trips(fills)
    return RunResult(
        initial_capital=float(config.initial_capital),
        equity_curve=_mark_to_market(config, bars, fills),
        fills=tuple(fills),
        trades=trades,
        open_quantity=open_quantity,
        bars=len(bars),
        notes=notes,
    )


def _mark_to_market(config: RunConfig, bars: Bars, fills: list[Fill]) -> EquityCurve:
    """Cash plus position times close at each bar, from the fills: exact for one instrument, and free."""
    times = np.array([fill.time for fill in fills], dtype=np.int64)
    cash = np.cumsum([float(config.initial_capital), *(_cash_flow(fill) for fill in fills)])
    held = np.cumsum([0.0, *(_signed(fill) for fill in fills)])
    known = np.searchsorted(times, bars.times, side="right")
    close = np.round(bars.close, config.instrument.price_precision)
    return EquityCurve(times=bars.times, equity=cash[known] + held[known] * close)


def _signed(fill: Fill) -> float:
    return fill.quantity if fill.side == "buy" else -fill.quantity


def _cash_flow(fill: Fill) -> float:
    return -_signed(fill) * fill.price - fill.fee
