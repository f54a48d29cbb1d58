"""Bars as chunks: nothing is lost, equal stretches are equal, damage is noticed."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ntrader.config import SyntheticConfig
from ntrader.data import sample, synthetic
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.chunks import TAG, content_digest, join, split
from ntrader.errors import BadDataError
from tests import factories

COLUMNS = ("times", "open", "high", "low", "close", "volume")
PRICES = COLUMNS[1:5]
SECOND = 10**9
DAY = 86_400 * SECOND
TIMEFRAMES = ["1s", "15s", "1m", "5m", "30m", "1h", "4h", "1d"]
BARS = factories.bars([(10, 11, 9, 10.5), (10.5, 12, 10, 11)])


def joined(bars: Bars, *contents: bytes) -> Bars:
    return join(bars.symbol, bars.venue, bars.timeframe, contents, "kept")


def again(bars: Bars) -> Bars:
    return joined(bars, *(chunk.content for chunk in split(bars)))


def raw(bars: Bars) -> list[bytes]:
    return [getattr(bars, name).tobytes() for name in COLUMNS]


def at(timeframe: str, *moments: str) -> Bars:
    """Flat bars that close at these moments."""
    times = np.array(moments, dtype="datetime64[ns]").astype(np.int64)
    ones = [np.ones(len(times)) for _ in range(5)]
    return Bars("TEST", "SIM", parse_timeframe(timeframe), times, *ones, "test")


def minutes(days: int) -> Bars:
    config, frame, start = SyntheticConfig(seed=3), parse_timeframe("1m"), 1_577_836_800 * SECOND
    return synthetic.generate(config, symbol="X", venue="V", timeframe=frame, start=start, end=start + days * DAY)


@st.composite
def any_bars(draw: st.DrawFn) -> Bars:
    """Strictly increasing times over a few stretches, and any 64 bits as a number."""
    frame = parse_timeframe(draw(st.sampled_from(TIMEFRAMES)))
    steps = draw(st.lists(st.integers(1, 3 * frame.nanoseconds * draw(st.sampled_from([1, 500]))), max_size=30))
    times = draw(st.integers(-(2**61), 2**61)) + np.cumsum(np.array(steps, dtype=np.int64), dtype=np.int64)
    decimals = draw(st.sampled_from([None, 0, 2, 8]))
    numbers = arrays.arrays(np.int64, len(steps), elements=st.integers(-(2**63), 2**63 - 1))
    small = arrays.arrays(np.int64, len(steps), elements=st.integers(-(10**12), 10**12))
    odd = arrays.arrays(np.float64, len(steps), elements=st.floats())
    kinds = [small.map(lambda found: found / 10.0**decimals)] if decimals is not None else []
    column = st.one_of(*kinds, numbers.map(lambda found: found.view(np.float64)), odd)
    return Bars("TEST", "SIM", frame, times, *(draw(column) for _ in range(5)), "test")


@settings(max_examples=300)
@given(any_bars())
def test_nothing_is_lost(bars: Bars) -> None:
    found = again(bars)
    assert raw(found) == raw(bars)
    assert (found.symbol, found.venue, found.timeframe, found.origin) == ("TEST", "SIM", bars.timeframe, "kept")
    assert all(getattr(found, name).flags.writeable for name in COLUMNS)
    assert [content_digest(chunk.content, "kept") for chunk in split(bars)] == [chunk.digest for chunk in split(bars)]


@example(1e300, 2)
@given(st.floats() | st.sampled_from([-0.0, 5e-324, 1e300, 2.0**53, 0.1 + 0.2, -np.inf, np.nan]), st.integers(0, 4))
def test_one_odd_number_among_plain_ones(value: float, place: int) -> None:
    columns = {name: np.round(np.arange(1, 201) / 100, 2) for name in (*PRICES, "volume")}
    columns[("open", "high", "low", "close", "volume")[place]][137] = value
    times = factories.START + 60 * SECOND * np.arange(200, dtype=np.int64)
    bars = Bars("TEST", "SIM", parse_timeframe("1m"), times, **columns, origin="test")
    assert raw(again(bars)) == raw(bars)


@pytest.mark.parametrize("symbol", sorted(sample.VENUES))
def test_the_sample(symbol: str) -> None:
    bars = sample.read(symbol)
    assert raw(again(bars)) == raw(bars)
    assert [chunk.label for chunk in split(bars)] == [str(year) for year in range(2005, 2014)]
    assert sum(len(chunk.content) for chunk in split(bars)) < 13.5 * len(bars)


def test_no_bars_make_no_chunks() -> None:
    none = at("1d")
    assert split(none) == ()
    assert len(joined(none)) == 0
    assert [getattr(joined(none), name).dtype for name in COLUMNS] == [np.int64, *[np.float64] * 5]


# Stretches


@pytest.mark.parametrize(
    ("timeframe", "moments", "labels"),
    [
        ("1d", ["2019-12-31T23:59:59.999999", "2020-01-01T23:59:59.999999"], ["2019", "2020"]),
        ("1d", ["2019-12-31", "2020-01-01", "2020-01-02"], ["2019", "2020"]),
        ("4h", ["2019-12-31T20", "2020-01-01T00", "2020-01-01T04"], ["2019", "2020"]),
        ("1m", ["2020-01-31T23:59", "2020-02-01T00:00", "2020-02-01T00:01"], ["2020-01", "2020-02"]),
        ("5m", ["2020-01-31T23:55", "2021-01-31T23:55"], ["2020-01", "2021-01"]),
        ("1s", ["2020-02-28T23:59:59", "2020-02-29T00:00:00", "2020-02-29T00:00:01"], ["2020-02-28", "2020-02-29"]),
        ("1d", ["1969-12-31T23:59:59.999999", "1970-01-01T23:59:59.999999"], ["1969", "1970"]),
    ],
)
def test_a_bar_belongs_to_the_stretch_it_ends(timeframe: str, moments: list[str], labels: list[str]) -> None:
    assert [chunk.label for chunk in split(at(timeframe, *moments))] == labels


def test_equal_stretches_are_equal_chunks_whatever_lies_around_them() -> None:
    whole = minutes(70)
    part = dataclasses.replace(whole, **{name: getattr(whole, name)[20_000:] for name in COLUMNS})
    assert [chunk.label for chunk in split(whole)] == ["2020-01", "2020-02", "2020-03"]
    assert split(part)[1:] == split(whole)[1:]
    assert split(part)[0].digest != split(whole)[0].digest


def test_where_the_bars_lie_in_memory_and_come_from_does_not_count() -> None:
    table = np.stack([BARS.open, BARS.high, BARS.low, BARS.close, BARS.volume], axis=1)
    strided = dict(zip((*PRICES, "volume"), table.T, strict=True))
    other = dataclasses.replace(BARS, symbol="OTHER", origin="elsewhere", notes=("a note",), **strided)
    other.open.flags.writeable = False
    assert split(other) == split(BARS)


def test_the_digest_is_the_documented_one() -> None:
    """Written out by hand: if this fails, kept chunks no longer mean what they say; make a new tag."""
    times = struct.pack("<2q", 1577923199999999000, 1578009599999999000)
    columns = struct.pack("<10d", 10, 10.5, 11, 12, 9, 10, 10.5, 11, 1e6, 1e6)
    (chunk,) = split(BARS)
    assert chunk.digest == hashlib.sha256(b"ntrader-chunk-1\n" + times + columns).hexdigest()


def test_the_content_is_the_documented_one() -> None:
    header = struct.pack("<qqqbb6B", 2, 1577923199999999000, DAY, 1, 0, *(1, 1, 1, 1, 1, 3))
    # Signs are in the lowest bit: 2 x n, or -2 x n - 1. Prices are in tenths.
    steps, opens, highs = bytes([0, 2]), bytes([200, 0]), bytes([10, 20])
    lows, closes = bytes([20, 10]), bytes([10, 10])
    volumes = (2_000_000).to_bytes(3, "little")
    planes = b"".join(bytes([byte, 0]) for byte in volumes)
    (chunk,) = split(BARS)
    body = zlib.decompress(chunk.content[len(TAG) :])
    assert chunk.content.startswith(b"ntrader-chunk-1\n")
    assert body == header + steps + opens + highs + lows + closes + planes


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("row", [0, 1])
def test_the_last_bit_of_any_number_counts(name: str, row: int) -> None:
    column = getattr(BARS, name).copy()
    column[row] = column[row] + 1 if name == "times" else np.nextafter(column[row], np.inf)
    changed: dict[str, Any] = {name: column}
    assert split(dataclasses.replace(BARS, **changed))[0].digest != split(BARS)[0].digest


# Damage


def test_every_shortened_chunk_is_refused() -> None:
    (chunk,) = split(BARS)
    for length in range(len(chunk.content)):
        with pytest.raises(BadDataError, match="kept"):
            joined(BARS, chunk.content[:length])


def test_every_changed_byte_is_noticed() -> None:
    """A bit of zlib's own framing may change without harm; then the bars are the same."""
    (chunk,) = split(BARS)
    for place in range(len(chunk.content)):
        for bit in range(8):
            damaged = bytearray(chunk.content)
            damaged[place] ^= 1 << bit
            try:
                found = joined(BARS, bytes(damaged))
            except BadDataError:
                continue
            assert raw(found) == raw(BARS)


def packed(count: int = 1, unit: int = 1, decimals: int = 0, planes: int = 0, rest: bytes = b"") -> bytes:
    return TAG + zlib.compress(struct.pack("<qqqbb6B", count, 0, unit, decimals, 0, planes, 0, 0, 0, 0, 0) + rest)


@pytest.mark.parametrize(
    "content",
    [b"", b"ntrader-chunk-2\n", TAG, TAG + b"no zlib", TAG + zlib.compress(b""), TAG + zlib.compress(b"x" * 33),
     packed(count=0), packed(count=-1, planes=1), packed(rest=b"x"), packed(planes=1), packed(planes=9, rest=b"x" * 9),
     packed(decimals=11), packed(decimals=-2), packed() + b"more", split(BARS)[0].content * 2],
)  # fmt: skip
def test_what_is_no_chunk_is_refused(content: bytes) -> None:
    with pytest.raises(BadDataError, match=r"^kept: a chunk of kept bars"):
        joined(BARS, content)


def test_chunks_must_follow_each_other() -> None:
    first, second = (chunk.content for chunk in split(at("1d", "2019-06-01", "2020-06-01")))
    assert len(joined(BARS, first, second)) == 2
    for order in ((second, first), (first, first)):
        with pytest.raises(BadDataError, match="do not follow"):
            joined(BARS, *order)


# Speed and size: generous, for a busy machine; the figures are in docs/decisions/007-kept-data.md


def test_a_hundred_thousand_minutes() -> None:
    bars = minutes(70)
    begun = time.process_time()
    chunks = split(bars)
    divided = time.process_time()
    assert raw(joined(bars, *(chunk.content for chunk in chunks))) == raw(bars)
    assert (divided - begun < 0.5, time.process_time() - divided < 0.25) == (True, True)
    assert sum(len(chunk.content) for chunk in chunks) < 8 * len(bars)
