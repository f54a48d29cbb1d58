"""Bars as content-addressed chunks: what a run consumed can be had again, and equal stretches are kept once.

A chunk is the bars of one calendar stretch, UTC: a year of daily or hourly bars, a month of minutes, a day of seconds.
A bar belongs to the day it ends: the one that closes at midnight is the last of its day.

The digest is taken over the columns themselves and not over `content`, because two builds of zlib may compress the
same bytes differently: equal bars always have equal digests. Symbol, venue and timeframe are left out.

`content`, which must never change its meaning under its tag: the tag, then a zlib stream of a header (`_HEADER`:
number of bars, first time, unit of the time steps, decimals of prices and of volumes, then how many byte planes each
column has) and of the byte planes of six columns of unsigned integers, the lowest byte first. Numbers that are exactly
a decimal number of few digits are integers in that unit, others the 8 bytes of the float. Each column holds what its
neighbours do not tell (`_residuals`). See docs/decisions/007-kept-data.md for the figures.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ntrader.data.bars import Bars, Timeframe
from ntrader.errors import BadDataError

TAG = b"ntrader-chunk-1\n"
_COLUMNS = ("open", "high", "low", "close", "volume")
_DAY = 86_400 * 1_000_000_000
_STRETCH = {"DAY": "Y", "HOUR": "Y", "MINUTE": "M", "SECOND": "D"}
# number of bars, first time, unit of the steps, decimals of prices, decimals of volumes, byte planes of six columns
_HEADER = struct.Struct("<qqqbb6B")
_MOST_DECIMALS = 10
_AS_BITS = -1
# Rows that are looked at before a whole column is tried with so many decimals.
_PROBES = 64
# Level 6 takes twice as long for 1 % less, level 9 fifteen times as long for 2 %.
_LEVEL = 4

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The bars of one stretch. `label` is `2020`, `2020-01` or `2020-01-31`, `digest` sha256 in hex."""

    label: str
    digest: str
    content: bytes


def split(bars: Bars) -> tuple[Chunk, ...]:
    """One chunk a stretch that has bars, oldest first; `origin` and `notes` are not kept.

    Every float comes back with all its bits, -0.0 and NaN included. `times` must be strictly increasing.
    """
    days = ((bars.times - 1) // _DAY).astype("datetime64[D]")
    stretches = days.astype(f"datetime64[{_STRETCH[bars.timeframe.unit]}]")
    starts = np.flatnonzero(np.concatenate((np.ones(min(len(bars), 1), np.bool_), stretches[1:] != stretches[:-1])))
    columns = [np.ascontiguousarray(getattr(bars, name), dtype=np.float64) for name in _COLUMNS]
    times = np.ascontiguousarray(bars.times, dtype=np.int64)
    return tuple(
        _chunk(str(stretches[start]), times[start:stop], [column[start:stop] for column in columns])
        for start, stop in pairwise([*starts.tolist(), len(bars)])
    )


def join(symbol: str, venue: str, timeframe: Timeframe, chunks: Iterable[bytes], origin: str) -> Bars:
    """The bars of the contents of chunks, oldest first; none make bars of length 0.

    Raises BadDataError for a chunk that is damaged, and for chunks that do not follow each other in time.
    """
    parts = [_decode(content, origin) for content in chunks]
    times = np.concatenate([part[0] for part in parts] or [np.empty(0, np.int64)])
    opens, highs, lows, closes, volumes = (
        np.concatenate([part[1][k] for part in parts] or [np.empty(0)]) for k in range(len(_COLUMNS))
    )
    if (times[1:] <= times[:-1]).any():
        raise BadDataError(f"{origin}: the kept bars do not follow each other in time")
    return Bars(symbol, venue, timeframe, times, opens, highs, lows, closes, volumes, origin)


def content_digest(content: bytes, origin: str) -> str:
    """The digest that the chunk with this content must have. Raises BadDataError for a damaged one."""
    return _digest(*_decode(content, origin))


def _chunk(label: str, times: Integers, columns: Sequence[Floats]) -> Chunk:
    return Chunk(label, _digest(times, columns), _encode(times, columns))


def _digest(times: Integers, columns: Sequence[Floats]) -> str:
    digest = hashlib.sha256(TAG)
    digest.update(times.astype("<i8", copy=False))
    for column in columns:
        digest.update(column.astype("<f8", copy=False))
    return digest.hexdigest()


def _encode(times: Integers, columns: Sequence[Floats]) -> bytes:
    prices, price_decimals = _integers(np.stack(columns[:4]))
    volume, volume_decimals = _integers(columns[4])
    steps = np.diff(times, prepend=times[:1])
    unit = int(np.gcd.reduce(steps)) or 1
    planes = [_planes(column) for column in (steps // unit, *_residuals(prices), _changes(volume))]
    widths = (len(plane) // len(times) for plane in planes)
    header = _HEADER.pack(len(times), times[0], unit, price_decimals, volume_decimals, *widths)
    return TAG + zlib.compress(b"".join((header, *planes)), _LEVEL)


def _decode(content: bytes, origin: str) -> tuple[Integers, list[Floats]]:
    body = _inflate(content, origin)
    count, first, unit, *decimals, planes = _header(body, origin)
    columns, place = [], _HEADER.size
    for width in planes:
        columns.append(_from_planes(body[place : place + width * count], width, count))
        place += width * count
    times = first + np.cumsum(columns[0] * unit, dtype=np.int64)
    prices = [_numbers(column, decimals[0]) for column in _from_residuals(columns[1:5])]
    return times, [*prices, _numbers(np.cumsum(columns[5], dtype=np.int64), decimals[1])]


def _inflate(content: bytes, origin: str) -> bytes:
    if not content.startswith(TAG):
        raise BadDataError(f"{origin}: a chunk of kept bars does not begin with {TAG.decode().strip()!r}")
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(content[len(TAG) :])
    except zlib.error as error:
        raise BadDataError(f"{origin}: a chunk of kept bars is damaged: {error}") from None
    if not stream.eof or stream.unused_data:
        raise BadDataError(f"{origin}: a chunk of kept bars is damaged: it is too {'long' if stream.eof else 'short'}")
    return body


def _header(body: bytes, origin: str) -> tuple[int, int, int, int, int, tuple[int, ...]]:
    """Number of bars, first time, unit, both decimals, and the planes of each column; all of them possible."""
    if len(body) >= _HEADER.size:
        count, first, unit, *decimals, a, b, c, d, e, f = _HEADER.unpack_from(body)
        planes = (a, b, c, d, e, f)
        expected = _HEADER.size + count * sum(planes)
        known = all(_AS_BITS <= number <= _MOST_DECIMALS for number in decimals) and max(planes) <= 8
        if count > 0 and known and len(body) == expected:
            return count, first, unit, decimals[0], decimals[1], planes
    raise BadDataError(f"{origin}: a chunk of kept bars is damaged: its {len(body)} bytes are not what it says")


# Floats as integers and back


def _integers(values: Floats) -> tuple[Integers, int]:
    """The values in units of their last decimal, and how many decimals that is; or their bits and _AS_BITS."""
    probes = values[..., :: max(1, values.shape[-1] // _PROBES)]
    for decimals in range(_MOST_DECIMALS + 1):
        if _scaled(probes, decimals) is not None:
            scaled = _scaled(values, decimals)
            if scaled is not None:
                return scaled, decimals
    return values.view(np.int64), _AS_BITS


def _scaled(values: Floats, decimals: int) -> Integers | None:
    """The values times 10 ** decimals, if dividing gives every one of them back to the bit."""
    with np.errstate(all="ignore"):
        scaled = np.rint(values * 10.0**decimals)
        same = (scaled / 10.0**decimals).view(np.int64) == values.view(np.int64)
    # Beyond 2 ** 53 an integer is no float of its own, and -0.0 is no integer at all.
    exact = bool((np.abs(scaled) < 2.0**53).all() and same.all() and not (np.signbit(values) & (values == 0)).any())
    return scaled.astype(np.int64) if exact else None


def _numbers(integers: Integers, decimals: int) -> Floats:
    return integers.view(np.float64) if decimals == _AS_BITS else integers / 10.0**decimals


# What the neighbours of a number do not tell. Integers wrap around, on the way back as well.


def _residuals(prices: Integers) -> tuple[Integers, ...]:
    """The open from the close before, the close from the open, high and low from the body between them."""
    opens, highs, lows, closes = prices
    before = np.concatenate((np.zeros(1, np.int64), closes[:-1]))
    body = np.maximum(opens, closes), np.minimum(opens, closes)
    return opens - before, highs - body[0], body[1] - lows, closes - opens


def _from_residuals(columns: Sequence[Integers]) -> tuple[Integers, ...]:
    gaps, above, below, moves = columns
    closes = np.cumsum(gaps + moves, dtype=np.int64)
    opens = closes - moves
    return opens, np.maximum(opens, closes) + above, np.minimum(opens, closes) - below, closes


def _changes(column: Integers) -> Integers:
    return np.diff(column, prepend=np.int64(0))


def _planes(column: Integers) -> bytes:
    """All lowest bytes, then all second ones, as far as there is anything in them; the sign goes to the lowest bit."""
    unsigned = ((column << 1) ^ (column >> 63)).view(np.uint64)
    width = (int(unsigned.max()).bit_length() + 7) // 8
    return np.ascontiguousarray(unsigned.astype("<u8").view(np.uint8).reshape(-1, 8).T[:width]).tobytes()


def _from_planes(planes: bytes, width: int, count: int) -> Integers:
    cells = np.zeros((count, 8), np.uint8)
    cells[:, :width] = np.frombuffer(planes, np.uint8).reshape(width, count).T
    unsigned = cells.view("<u8").ravel().astype(np.uint64)
    return (unsigned >> 1).view(np.int64) ^ -(unsigned & 1).view(np.int64)
