"""Where two results part: the first event in time that differs, and how far the daily returns are apart."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntrader.metrics import NANOSECONDS_PER_DAY, daily_equity, daily_returns
from ntrader.results import EquityCurve, Fill, Floats, RunResult, Times

Kind = Literal["capital", "fill", "equity"]
# At the same time a fill comes before the equity that it made.
_RANK: dict[Kind, int] = {"capital": 0, "fill": 1, "equity": 2}
_NUMBERS = struct.Struct("<q3d")


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first event that differs: the `number`th of its kind, counted from 1, at `time` in ns since 1970 UTC.

    `original` and `new` are what there was: a fill, an equity or an initial capital in account currency; None where
    one side has no such event at that time. Where the `number`th fills are of different times, `time` is the earlier.
    """

    kind: Kind
    number: int
    time: int
    original: Fill | float | None
    new: Fill | float | None


@dataclass(frozen=True, slots=True)
class ReturnDifference:
    """New daily returns less the original ones, fractions, over the `days` UTC days that have both.

    `largest` is the largest absolute difference and `largest_day` the midnight its day begins with, ns since 1970
    UTC; None where nothing differs. `mean` keeps its sign.
    """

    days: int
    differing: int
    largest: float
    largest_day: int | None
    mean: float


def first_divergence(original: RunResult, new: RunResult) -> Divergence | None:
    """None exactly if the two have equal result digests, given that trades follow from fills.

    Numbers are compared bit by bit, as they are digested: 0.0 is not -0.0. Another initial capital comes before
    everything; its time is that of the first event of either, 0 where there is none.
    """
    found = (_capital(original, new), _fills(original.fills, new.fills), _equity(original, new))
    return min((event for event in found if event), key=_order, default=None)


def return_difference(original: RunResult, new: RunResult) -> ReturnDifference | None:
    """None where the two have no day in common, or one of them has no returns (equity was zero or less)."""
    (days, returns), (other_days, other_returns) = _returns(original), _returns(new)
    common, here, there = np.intersect1d(days, other_days, assume_unique=True, return_indices=True)
    if not len(common):
        return None
    differences = other_returns[there] - returns[here]
    differing = int(np.count_nonzero(differences))
    row = int(np.argmax(np.abs(differences)))
    return ReturnDifference(
        days=len(common),
        differing=differing,
        largest=float(abs(differences[row])),
        largest_day=int(common[row]) * NANOSECONDS_PER_DAY if differing else None,
        mean=float(np.mean(differences)),
    )


def _order(event: Divergence) -> tuple[bool, int, int]:
    return event.kind != "capital", event.time, _RANK[event.kind]


def _capital(original: RunResult, new: RunResult) -> Divergence | None:
    capital, other = original.initial_capital, new.initial_capital
    if struct.pack("<d", capital) == struct.pack("<d", other):
        return None
    times = [fill.time for result in (original, new) for fill in result.fills[:1]]
    times += [int(time) for result in (original, new) for time in result.equity_curve.times[:1]]
    return Divergence("capital", 1, min(times, default=0), capital, other)


def _fills(original: Sequence[Fill], new: Sequence[Fill]) -> Divergence | None:
    for number, (fill, other) in enumerate(zip_longest(original, new), start=1):
        # Identical objects need no comparison, and equality is no proof: 0.0 == -0.0.
        if fill is not other and _bits(fill) != _bits(other):
            time = min(side.time for side in (fill, other) if side)
            return Divergence("fill", number, time, fill, other)
    return None


def _bits(fill: Fill | None) -> tuple[bytes, str, str] | None:
    if fill is None:
        return None
    return _NUMBERS.pack(fill.time, fill.quantity, fill.price, fill.fee), fill.side, fill.order_type


def _equity(original: RunResult, new: RunResult) -> Divergence | None:
    curve, other = original.equity_curve, new.equity_curve
    shared = min(len(curve), len(other))
    same = (curve.times[:shared] == other.times[:shared]) & _same_bits(curve.equity[:shared], other.equity[:shared])
    row = shared if same.all() else int(np.argmin(same))
    if row == len(curve) == len(other):
        return None
    time = min(int(side.times[row]) for side in (curve, other) if row < len(side))
    return Divergence("equity", row + 1, time, _point(curve, row, time), _point(other, row, time))


def _same_bits(one: Floats, other: Floats) -> NDArray[np.bool_]:
    bits, other_bits = (np.ascontiguousarray(values, dtype=np.float64).view(np.int64) for values in (one, other))
    return np.equal(bits, other_bits)


def _point(curve: EquityCurve, row: int, time: int) -> float | None:
    there = row < len(curve) and int(curve.times[row]) == time
    return float(curve.equity[row]) if there else None


def _returns(result: RunResult) -> tuple[Times, Floats]:
    """UTC days since 1970 and the return of each; a bar that closes at midnight is the last of the day it ends."""
    returns = daily_returns(result.initial_capital, result.equity_curve)
    days = (daily_equity(result.equity_curve).times - 1) // NANOSECONDS_PER_DAY
    return (days if len(returns) else days[:0]), returns
