"""Round trips out of fills: from flat to flat, one instrument, netting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ntrader.results import Fill, Trade


@dataclass(slots=True)
class _Position:
    """What is open while the fills are walked through; sums are of the current round trip only."""

    side: str
    opened: int
    quantity: float = 0.0
    peak: float = 0.0
    entered: float = 0.0
    entry_value: float = 0.0
    exited: float = 0.0
    exit_value: float = 0.0
    fees: float = 0.0


def round_trips(fills: Sequence[Fill]) -> tuple[tuple[Trade, ...], float]:
    """The closed trades in the order they closed, and the signed quantity still open.

    A fill that crosses zero closes one trade and opens the next; its fee is shared by quantity.
    """
    trades: list[Trade] = []
    position: _Position | None = None
    for fill in fills:
        rest: Fill | None = fill
        while rest is not None:
            position = position or _Position("long" if rest.side == "buy" else "short", rest.time)
            part, rest = _up_to_flat(position, rest)
            _apply(position, part)
            if position.quantity == 0:
                trades.append(_closed(position, part))
                position = None
    if position is None:
        return tuple(trades), 0.0
    return tuple(trades), position.quantity if position.side == "long" else -position.quantity


def _enters(position: _Position, fill: Fill) -> bool:
    return (fill.side == "buy") == (position.side == "long")


def _up_to_flat(position: _Position, fill: Fill) -> tuple[Fill, Fill | None]:
    if _enters(position, fill) or fill.quantity <= position.quantity:
        return fill, None
    fee = fill.fee * position.quantity / fill.quantity
    closing = replace(fill, quantity=position.quantity, fee=fee)
    return closing, replace(fill, quantity=fill.quantity - position.quantity, fee=fill.fee - fee)


def _apply(position: _Position, fill: Fill) -> None:
    position.fees += fill.fee
    if _enters(position, fill):
        position.quantity += fill.quantity
        position.entered += fill.quantity
        position.entry_value += fill.quantity * fill.price
        position.peak = max(position.peak, position.quantity)
    else:
        position.quantity -= fill.quantity
        position.exited += fill.quantity
        position.exit_value += fill.quantity * fill.price


def _closed(position: _Position, last: Fill) -> Trade:
    gross = position.exit_value - position.entry_value
    pnl = (gross if position.side == "long" else -gross) - position.fees
    return Trade(
        side=position.side,
        quantity=position.peak,
        entry_time=position.opened,
        entry_price=position.entry_value / position.entered,
        exit_time=last.time,
        exit_price=position.exit_value / position.exited,
        fees=position.fees,
        # Prices have at most nine decimals and fees fewer: what is below is binary noise, not money.
        pnl=round(pnl, 9),
    )
