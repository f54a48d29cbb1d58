"""The instrument a run trades, built from its config and bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import Equity
from nautilus_trader.model.objects import Currency, Price, Quantity

if TYPE_CHECKING:
    from ntrader.config import RunConfig
    from ntrader.data.bars import Bars


def build_instrument(config: RunConfig, bars: Bars) -> Equity:
    """A share of stock: whole units, prices to the config's precision."""
    precision = config.instrument.price_precision
    return Equity(
        instrument_id=InstrumentId.from_str(f"{bars.symbol}.{bars.venue}"),
        raw_symbol=Symbol(bars.symbol),
        currency=Currency.from_str(config.venue.currency),
        price_precision=precision,
        price_increment=Price(10**-precision, precision),
        lot_size=Quantity.from_int(1),
        ts_event=0,
        ts_init=0,
    )
