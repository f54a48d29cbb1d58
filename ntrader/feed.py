"""What the engine is fed, and when.

Played out in full a bar is two ticks at its open and four prices, and each goes through the whole engine; yet for most
bars no order is there that could fill. A strategy that promises to see only bars (`sees_only_bars`) is spared that: a
bar at which nothing can happen, a quiet one, goes to the cache, the portfolio and the strategy, and past the venue.
Bars at which something can are played out as ever:

- the one after an order was sent, changed or cancelled, until the venue has answered;
- one whose high or low reaches the price of an order that rests;
- all of them while an order rests that follows the market, or ends by the clock.

Orders, their fills and their prices are the same either way, and so are the moments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nautilus_trader.backtest.config import SimulationModuleConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.core.data import Data
from nautilus_trader.model.data import Bar, CustomData, DataType
from nautilus_trader.model.enums import OrderSide, OrderType, TriggerType
from nautilus_trader.model.events import OrderInitialized
from nautilus_trader.model.instruments import Equity

from ntrader.data.bars import Bars
from ntrader.errors import StrategyError

# Those that fill at their price and nowhere else; of others it is not said which bars can matter to them.
_FIXED: Final = (OrderType.LIMIT, OrderType.STOP_MARKET, OrderType.MARKET_IF_TOUCHED)
# To what a low has to fall, or a high to rise.
_NEVER: Final = (-math.inf, math.inf)
_ALWAYS: Final = (math.inf, -math.inf)
# Before the handlers of the strategy, which may send another order.
_EARLY: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Quiet:
    """Bars as they go past the venue, with their lows and highs; after the last there is one that reaches nothing."""

    bars: list[CustomData]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Bars as the engine takes them, built once and fed to any number of runs of the same shape.

    `data` are those of each bar, `per_bar` of them, the bar itself the last. `quiet` are the bars once more; None where
    each is played out.
    """

    bars: Bars
    instrument: Equity
    data: list[Any]
    per_bar: int
    bar_execution: bool
    quiet: Quiet | None = None

    def ticks(self, number: int) -> list[Any]:
        """Those at the open of a bar."""
        return self.data[number * self.per_bar : (number + 1) * self.per_bar - 1]


class Feed:
    """All events, one after another."""

    # For the venue.
    modules: Sequence[SimulationModule] = ()

    def __init__(self, engine: BacktestEngine, events: Events) -> None:
        self._engine = engine
        self._events = events

    def begin(self) -> None:
        """Once the venue is there, and before the strategy is.

        As a stream: `add_data` spells out, for each event anew, the name of what it belongs to. The first bar's events
        make these names known; then they are taken out again, for the stream has them too.
        """
        self._engine.add_data(self._events.data[: self._events.per_bar], sort=False)
        self._engine.clear_data()
        self._engine.add_data_iterator("bars", iter([self._stream()]))

    @property
    def bars(self) -> int:
        """How many have been fed."""
        return int(self._engine.iteration) // self._events.per_bar

    def require_kept_promises(self) -> None:
        """Raises StrategyError."""

    def _stream(self) -> list[Any]:
        return self._events.data


class QuietFeed(Feed):
    """Bars by themselves; what else belongs to one is added when something can happen there."""

    def __init__(self, engine: BacktestEngine, events: Events) -> None:
        super().__init__(engine, events)
        assert events.quiet is not None
        self._quiet, self._low, self._high = events.quiet.bars, events.quiet.low, events.quiet.high
        self._tick = events.instrument.price_increment.as_double()
        self._cache = engine.cache
        self._publish: Callable[[str, Bar], None] = engine.kernel.msgbus.publish
        self._topic = f"data.bars.{events.data[-1].bar_type}"
        self._venue = _Venue(SimulationModuleConfig())
        self.modules = (self._venue,)
        # The bar that is next, or at hand, and the latest of those that are played out.
        self._number = 0
        self._played_out = 0
        # The ticks of bars before that one.
        self._ticks_before = 0
        # Commands of the strategy by now, and how far the market has to come for an order to fill.
        self._execution = engine.kernel.exec_engine
        self._sent = 0
        self._falls_to, self._rises_to = _NEVER

    def begin(self) -> None:
        """The first bar is played out: with it the venue has a market."""
        super().begin()
        self._exchange = self._venue.take_exchange()
        self._play_out(0)
        bus = self._engine.kernel.msgbus
        bus.subscribe(f"data.{_QUIET.topic}", self._on_bar)
        bus.subscribe("events.order.*", self._on_order, priority=_EARLY)

    @property
    def bars(self) -> int:
        # What the engine does after a bar may end it, and then its event is not counted.
        return min(self._number, int(self._engine.iteration) - self._ticks_before)

    def require_kept_promises(self) -> None:
        data = self._engine.kernel.data_engine
        if any(bar_type.is_internally_aggregated() for bar_type in data.subscribed_bars()):
            raise _broken_promise("subscribed to bars that the engine makes")
        if data.subscribed_trade_ticks() or data.subscribed_quote_ticks():
            raise _broken_promise("subscribed to ticks")

    def _stream(self) -> list[Any]:
        return self._quiet

    def _on_bar(self, bar: Bar) -> None:
        """As the engine does with a bar, but for the venue."""
        played_out = self._number == self._played_out
        if played_out:
            self.require_kept_promises()
            self._exchange.process_bar(bar)
            self._ticks_before += self._events.per_bar - 1
        self._cache.add_bar(bar)
        self._publish(self._topic, bar)
        if played_out:
            self._look()
        number = self._number = self._number + 1
        sent = self._execution.command_count
        if sent != self._sent or self._low[number] <= self._falls_to or self._high[number] >= self._rises_to:
            self._sent = sent
            self._play_out(number)

    def _play_out(self, number: int) -> None:
        if number < len(self._events.bars):
            self._engine.add_data_iterator("ticks", iter([self._events.ticks(number)]))
            self._played_out = number

    def _look(self) -> None:
        """At the orders there are: which bars can matter to one of them."""
        resting = self._cache.orders_open()
        if not all(map(_is_fixed, resting)):
            self._falls_to, self._rises_to = _ALWAYS
            return
        self._falls_to, self._rises_to = _NEVER
        for order in resting:
            price = (order.trigger_price if order.has_trigger_price else order.price).as_double()
            if _is_reached_from_above(order):
                self._falls_to = max(self._falls_to, price + self._tick)
            else:
                self._rises_to = min(self._rises_to, price - self._tick)

    def _on_order(self, event: Any) -> None:
        """Before it is sent its risk is checked, by the last tick that the cache has."""
        if not isinstance(event, OrderInitialized) or self._number == self._played_out:
            return
        number = min(self._number, len(self._events.bars) - 1)
        if event.ts_init != self._events.bars.times[number]:
            raise _broken_promise("sent an order between two of them")
        self._cache.add_trade_tick(self._events.ticks(number)[-1])


class QuietBar(Data):  # type: ignore[misc]
    """The type of an event that the venue does not know; its content is a bar."""


_QUIET: Final = DataType(QuietBar)


def quiet_bars(bars: Bars, precision: int, data: list[Any], per_bar: int) -> Quiet:
    """The bars among the events, whose prices have so many decimals."""
    return Quiet(
        [CustomData(_QUIET, bar) for bar in data[per_bar - 1 :: per_bar]],
        [*bars.low.round(precision).tolist(), math.inf],
        [*bars.high.round(precision).tolist(), -math.inf],
    )


class _Venue(SimulationModule):  # type: ignore[misc]
    """Handed the simulated exchange, which is not to be had in another way, and gone from there before the run."""

    def take_exchange(self) -> Any:
        self.exchange.modules.clear()
        return self.exchange


def _is_fixed(order: Any) -> bool:
    return (
        order.order_type in _FIXED
        and order.emulation_trigger == TriggerType.NO_TRIGGER
        and not getattr(order, "expire_time_ns", 0)
    )


def _is_reached_from_above(order: Any) -> bool:
    """Whether a falling market fills it."""
    return bool((order.side == OrderSide.SELL) == (order.order_type == OrderType.STOP_MARKET))


def _broken_promise(what: str) -> StrategyError:
    return StrategyError(
        f"the strategy promised to see only bars and {what}",
        hint="Set its `sees_only_bars` to False, or leave it away.",
    )
