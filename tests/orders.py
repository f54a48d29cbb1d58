"""A strategy that sends orders of every kind at given bars, and writes down all that becomes of them.

`{"2": ["buy"], "5": ["stop", "cancel"]}`: bars count from 1; what is done is a method of the same name.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pandas as pd
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide, OrderStatus, OrderType, TimeInForce, TrailingOffsetType
from nautilus_trader.model.events import OrderEvent
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

ACTIONS = (
    "buy", "sell", "immediate", "limit_below", "limit_above", "stop_below", "stop_above", "touch", "stop_limit",
    "trail", "for_three_days", "bracket", "move", "cancel",
)  # fmt: skip

# Of the run before, as (bar, moment, event, number of the order).
heard: list[tuple[int, int, str, str]] = []


class OrdersConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    bar_type: BarType
    script: dict[str, list[str]] = {}
    on_fill: list[str] = []
    market_only: bool = False
    breaks: str = ""


class PlayedOut(Strategy):
    """Every bar is played out for it."""

    def __init__(self, config: OrdersConfig) -> None:
        super().__init__(config)
        self.bar = 0
        self.close = 100.0

    @staticmethod
    def sends_only_market_orders(parameters: dict[str, Any]) -> bool:
        return bool(parameters["market_only"])

    def on_start(self) -> None:
        heard.clear()
        self.instrument = self.cache.instrument(self.config.instrument_id)
        self.subscribe_bars(self.config.bar_type)
        self.do("0")
        if self.config.breaks == "ticks":
            self.subscribe_trade_ticks(self.config.instrument_id)
        if self.config.breaks == "bars":
            self.subscribe_bars(BarType.from_str(f"{self.config.instrument_id}-2-TICK-LAST-INTERNAL"))

    def on_bar(self, bar: Bar) -> None:
        if bar.bar_type != self.config.bar_type:
            return
        self.bar += 1
        self.close = bar.close.as_double()
        assert self.clock.timestamp_ns() == bar.ts_init
        assert self.cache.bar(self.config.bar_type) == bar
        self.do(str(self.bar))
        if self.config.breaks == "alarm" and self.bar == 1:
            self.clock.set_time_alert("noon", self.clock.utc_now() + pd.Timedelta(hours=60), lambda _: self.buy())

    def on_stop(self) -> None:
        self.do("stop")

    def on_order_event(self, event: OrderEvent) -> None:
        heard.append((self.bar, event.ts_event, type(event).__name__, event.client_order_id.value.rpartition("-")[2]))

    def on_order_filled(self, event: OrderEvent) -> None:
        if event.client_order_id.value.endswith("-1"):
            for action in self.config.on_fill:
                getattr(self, action)()

    def do(self, bar: str) -> None:
        for action in self.config.script.get(bar, []):
            getattr(self, action)()

    def price(self, factor: float) -> Any:
        return self.instrument.make_price(self.close * factor)

    def send(self, kind: str, side: OrderSide, *details: Any, **more: Any) -> None:
        factory = getattr(self.order_factory, kind)
        self.submit_order(factory(self.config.instrument_id, side, self.instrument.make_qty(10), *details, **more))

    def buy(self) -> None:
        self.send("market", OrderSide.BUY)

    def sell(self) -> None:
        self.send("market", OrderSide.SELL)

    def immediate(self) -> None:
        self.send("limit", OrderSide.BUY, self.price(1.005), time_in_force=TimeInForce.IOC)

    def limit_below(self) -> None:
        self.send("limit", OrderSide.BUY, self.price(0.98))

    def limit_above(self) -> None:
        self.send("limit", OrderSide.SELL, self.price(1.02))

    def stop_below(self) -> None:
        self.send("stop_market", OrderSide.SELL, self.price(0.97))

    def stop_above(self) -> None:
        self.send("stop_market", OrderSide.BUY, self.price(1.03))

    def touch(self) -> None:
        self.send("market_if_touched", OrderSide.BUY, self.price(0.99))

    def stop_limit(self) -> None:
        self.send("stop_limit", OrderSide.BUY, self.price(1.03), self.price(1.02))

    def trail(self) -> None:
        self.send(
            "trailing_stop_market", OrderSide.SELL, Decimal(2), trigger_price=self.price(0.98),
            trailing_offset_type=TrailingOffsetType.PRICE,
        )  # fmt: skip

    def for_three_days(self) -> None:
        end = self.clock.utc_now() + pd.Timedelta(days=3)
        self.send("limit", OrderSide.BUY, self.price(0.95), time_in_force=TimeInForce.GTD, expire_time=end)

    def bracket(self) -> None:
        self.submit_order_list(
            self.order_factory.bracket(
                instrument_id=self.config.instrument_id,
                order_side=OrderSide.BUY,
                quantity=self.instrument.make_qty(10),
                sl_trigger_price=self.price(0.97),
                tp_price=self.price(1.03),
            )
        )

    def move(self) -> None:
        for order in self.cache.orders_open():
            if order.status == OrderStatus.ACCEPTED and order.has_price:
                self.modify_order(order, price=self.price(0.97 if order.side == OrderSide.BUY else 1.03))
            elif order.status == OrderStatus.ACCEPTED and order.order_type == OrderType.STOP_MARKET:
                self.modify_order(order, trigger_price=self.price(1.02 if order.side == OrderSide.BUY else 0.98))

    def cancel(self) -> None:
        self.cancel_all_orders(self.config.instrument_id)


class OnlyBars(PlayedOut):
    """The same, with the promise."""

    sees_only_bars = True


class Heir(OnlyBars):
    """One that does not say so itself."""
