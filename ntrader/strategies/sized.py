"""What the three strategies share: how large a position is, how it is entered, protected and left."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Annotated, Any

from msgspec import Meta
from nautilus_trader.config import StrategyConfig
from nautilus_trader.core.nautilus_pyo3 import AverageTrueRange
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide, TimeInForce
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.orders import Order
from nautilus_trader.trading.strategy import Strategy

# Part of the buying power that an order may use: the rest is kept for fees and the gap to the next open.
_USABLE = 0.95
# An order in a CASH account is cancelled rather than filled above the price at which it would use more than this.
_AFFORDABLE = 0.995


class Target(IntEnum):
    """The position a signal asks for."""

    SHORT = -1
    FLAT = 0
    LONG = 1


class SizedConfig(StrategyConfig, frozen=True, kw_only=True):
    """Sizing: by risk with a protective stop, or a fixed quantity without one when `trade_size` is given."""

    instrument_id: InstrumentId
    bar_type: BarType
    risk_percent: Annotated[
        float, Meta(gt=0, le=100, description="Percent of equity lost if the protective stop is hit")
    ] = 2.0
    atr_period: Annotated[int, Meta(ge=1, le=1024, description="Bars of the average true range")] = 14
    atr_multiple: Annotated[
        float, Meta(gt=0, le=100, description="Distance of the protective stop in average true ranges")
    ] = 2.0
    trade_size: (
        Annotated[int, Meta(ge=1, description="Fixed quantity instead of risk sizing; no stop is placed")] | None
    ) = None
    allow_short: Annotated[bool, Meta(description="Sell short too; needs a MARGIN account")] = False


class SizedStrategy(Strategy):
    """A strategy that only says which position it wants; `decide` is called with each close."""

    config: Any

    def __init__(self, config: SizedConfig) -> None:
        super().__init__(config)
        self._sized_by_risk = config.trade_size is None
        self._atr = AverageTrueRange(config.atr_period)
        self._cash = 0.0
        self._held = 0.0
        self._leverage = 1.0
        self._cash_account = True
        self._stop_distance = 0.0
        self._protection: Order | None = None
        self._instrument: Any = None

    @staticmethod
    def sends_only_market_orders(parameters: dict[str, Any]) -> bool:
        """With a fixed size there is no stop, so nothing ever rests in the book."""
        return parameters.get("trade_size") is not None

    def decide(self, close: float) -> Target | None:
        """The position wanted after a bar that closed there, or None to leave things as they are."""
        raise NotImplementedError

    def on_start(self) -> None:
        self._instrument = self.cache.instrument(self.config.instrument_id)
        account = self.portfolio.account(self.config.instrument_id.venue)
        self._cash = account.balance_total(self._instrument.quote_currency).as_double()
        self._cash_account = account.is_cash_account
        self._leverage = 1.0 if account.is_cash_account else float(account.default_leverage)
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: Bar) -> None:
        close = bar.close.as_double()
        if self._sized_by_risk:
            self._atr.update_raw(bar.high.as_double(), bar.low.as_double(), close)
        target = self.decide(close)
        if target is not None:
            self._move_to(target, close)

    def on_order_filled(self, event: OrderFilled) -> None:
        signed = event.last_qty.as_double() * (1 if event.order_side == OrderSide.BUY else -1)
        self._cash -= signed * event.last_px.as_double() + event.commission.as_double()
        opens = self._held == 0 or (self._held > 0) == (signed > 0)
        self._held += signed
        if opens and self._sized_by_risk:
            self._protect(event.last_px.as_double())
        elif self._held == 0:
            self._cancel_stop()

    @property
    def target(self) -> Target:
        """The position held now."""
        return Target((self._held > 0) - (self._held < 0))

    def _move_to(self, target: Target, close: float) -> None:
        if target is Target.SHORT and not self.config.allow_short:
            target = Target.FLAT
        if target == self.target:
            return
        if self._held:
            self._leave()
        if target is not Target.FLAT:
            self._enter(target, close)

    def _leave(self) -> None:
        self._cancel_stop()
        side = OrderSide.SELL if self._held > 0 else OrderSide.BUY
        quantity = self._instrument.make_qty(abs(self._held))
        self.submit_order(self.order_factory.market(self.config.instrument_id, side, quantity, reduce_only=True))

    def _enter(self, target: Target, close: float) -> None:
        equity = self._cash + self._held * close
        size = self._size(equity, close)
        if size < 1:
            return
        self._stop_distance = self.config.atr_multiple * self._atr.value
        quantity = self._instrument.make_qty(size)
        side = OrderSide.BUY if target is Target.LONG else OrderSide.SELL
        if side == OrderSide.BUY and self._cash_account:
            self.submit_order(self._affordable(quantity, equity, close))
        else:
            self.submit_order(self.order_factory.market(self.config.instrument_id, side, quantity))

    def _size(self, equity: float, close: float) -> int:
        if self.config.trade_size is not None:
            return int(self.config.trade_size)
        risk = self.config.atr_multiple * self._atr.value
        if not self._atr.initialized or risk <= 0 or equity <= 0:
            return 0
        by_risk = equity * self.config.risk_percent / 100 / risk
        by_power = equity * self._leverage * _USABLE / close
        size: int = math.floor(min(by_risk, by_power))
        return size

    def _affordable(self, quantity: Any, cash: float, close: float) -> Order:
        """A market order in effect, cancelled if the price has jumped beyond what the account can pay."""
        tick = self._instrument.price_increment.as_double()
        limit = math.floor(cash * _AFFORDABLE / quantity.as_double() / tick) * tick
        if limit < close:
            # It cannot be paid even now: let the engine's own risk check deny it, with its reason.
            return self.order_factory.market(self.config.instrument_id, OrderSide.BUY, quantity)
        return self.order_factory.limit(
            self.config.instrument_id,
            OrderSide.BUY,
            quantity,
            self._instrument.make_price(limit),
            time_in_force=TimeInForce.IOC,
        )

    def _protect(self, entry: float) -> None:
        long = self._held > 0
        trigger = entry - self._stop_distance if long else entry + self._stop_distance
        if trigger <= 0:
            return
        self._cancel_stop()
        self._protection = self.order_factory.stop_market(
            self.config.instrument_id,
            OrderSide.SELL if long else OrderSide.BUY,
            self._instrument.make_qty(abs(self._held)),
            self._instrument.make_price(trigger),
            reduce_only=True,
        )
        self.submit_order(self._protection)

    def _cancel_stop(self) -> None:
        if self._protection is not None and not self._protection.is_closed:
            self.cancel_order(self._protection)
        self._protection = None
