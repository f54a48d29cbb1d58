"""Round trips out of fills: from flat to flat, one instrument, netting.

Sums are exact: quantities, prices and fees are decimal numbers that floats only approximate, and with them 0.1 + 0.2
sold as 0.3 would never be flat again, nor a break-even trade come out as exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

from ntrader.results import Fill, Trade

_EXACT = Context(prec=60)
_ZERO = Decimal(0)


@dataclass(slots=True)
class _Part:
    """A fill, or what of it belongs to one position."""

    buys: bool
    quantity: Decimal
    price: Decimal
    fee: Decimal


@dataclass(slots=True)
class _Position:
    """What is open while the fills are walked through; sums are of the current round trip only."""

    long: bool
    opened: int
    quantity: Decimal = _ZERO
    peak: Decimal = _ZERO
    entered: Decimal = _ZERO
    entry_value: Decimal = _ZERO
    exit_value: Decimal = _ZERO
    fees: Decimal = _ZERO


def round_trips(fills: Sequence[Fill]) -> tuple[tuple[Trade, ...], float]:
    """The closed trades in the order they closed, and the signed quantity still open.

    A fill that crosses zero closes one trade and opens the next; its fee is shared by quantity.
    """
    with localcontext(_EXACT):
        return _walk(fills)


def _walk(fills: Sequence[Fill]) -> tuple[tuple[Trade, ...], float]:
    trades: list[Trade] = []
    position: _Position | None = None
    for fill in fills:
        rest: _Part | None = _part(fill)
        while rest is not None:
            position = position or _Position(rest.buys, fill.time)
            part, rest = _up_to_flat(position, rest)
            _apply(position, part)
            if not position.quantity:
                trades.append(_closed(position, fill.time))
                position = None
    if position is None:
        return tuple(trades), 0.0
    return tuple(trades), float(position.quantity if position.long else -position.quantity)


def _part(fill: Fill) -> _Part:
    return _Part(fill.side == "buy", Decimal(str(fill.quantity)), Decimal(str(fill.price)), Decimal(str(fill.fee)))


def _up_to_flat(position: _Position, part: _Part) -> tuple[_Part, _Part | None]:
    if part.buys == position.long or part.quantity <= position.quantity:
        return part, None
    fee = part.fee * position.quantity / part.quantity
    closing = _Part(part.buys, position.quantity, part.price, fee)
    return closing, _Part(part.buys, part.quantity - position.quantity, part.price, part.fee - fee)


def _apply(position: _Position, part: _Part) -> None:
    position.fees += part.fee
    value = part.quantity * part.price
    if part.buys == position.long:
        position.quantity += part.quantity
        position.entered += part.quantity
        position.entry_value += value
        position.peak = max(position.peak, position.quantity)
    else:
        position.quantity -= part.quantity
        position.exit_value += value


def _closed(position: _Position, time: int) -> Trade:
    gain = position.exit_value - position.entry_value
    return Trade(
        side="long" if position.long else "short",
        quantity=float(position.peak),
        entry_time=position.opened,
        entry_price=float(position.entry_value / position.entered),
        exit_time=time,
        # What went in has come out: the position is flat.
        exit_price=float(position.exit_value / position.entered),
        fees=float(position.fees),
        pnl=float((gain if position.long else -gain) - position.fees),
    )
