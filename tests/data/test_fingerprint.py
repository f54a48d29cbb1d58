"""The data fingerprint covers every number and name, and is the same everywhere."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.data import sample
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.fingerprint import daily_fingerprints, data_fingerprint
from tests import factories

BARS = factories.bars([(10, 11, 9, 10.5), (10.5, 12, 10, 11)])


def test_the_encoding_is_the_documented_one() -> None:
    """Written out by hand: if this fails, stored fingerprints no longer mean what they say; make a new tag."""
    text = b'["ntrader-bars-1","TEST","SIM","1-DAY",2]\n'
    times = struct.pack("<2q", 1577923199999999000, 1578009599999999000)
    columns = struct.pack("<10d", 10, 10.5, 11, 12, 9, 10, 10.5, 11, 1e6, 1e6)
    assert data_fingerprint(BARS) == hashlib.sha256(text + times + columns).hexdigest()


def test_the_sample_has_the_fingerprint_it_always_had() -> None:
    expected = "e17d4bda0de623ba19cc02d87332178f6783c947d268ad47e417c5fc6ad1669a"
    assert data_fingerprint(sample.read("AAPL")) == expected


@pytest.mark.parametrize("name", ["times", "open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("row", [0, 1])
def test_the_last_bit_of_any_number_counts(name: str, row: int) -> None:
    column = getattr(BARS, name).copy()
    column[row] = column[row] + 1 if name == "times" else np.nextafter(column[row], np.inf)
    changed: dict[str, Any] = {name: column}
    assert data_fingerprint(dataclasses.replace(BARS, **changed)) != data_fingerprint(BARS)


@pytest.mark.parametrize(
    "change", [{"symbol": "TEST2"}, {"venue": "SIN"}, {"timeframe": parse_timeframe("12h")}], ids=str
)
def test_names_count(change: dict[str, Any]) -> None:
    assert data_fingerprint(dataclasses.replace(BARS, **change)) != data_fingerprint(BARS)


def test_symbol_and_venue_do_not_run_together() -> None:
    one = dataclasses.replace(BARS, symbol='A","B', venue="C")
    other = dataclasses.replace(BARS, symbol="A", venue='B","C')
    assert data_fingerprint(one) != data_fingerprint(other)


def test_where_bars_come_from_and_how_they_lie_in_memory_do_not_count() -> None:
    same = dataclasses.replace(
        BARS,
        origin="elsewhere",
        notes=("a note",),
        open=np.repeat(BARS.open, 2)[::2],
        close=BARS.close.astype(">f8"),
        times=BARS.times.astype(">i8"),
    )
    assert data_fingerprint(same) == data_fingerprint(BARS)


def test_minus_zero_is_zero() -> None:
    positive = dataclasses.replace(BARS, volume=np.array([0.0, 1.0]))
    negative = dataclasses.replace(BARS, volume=np.array([-0.0, 1.0]))
    assert data_fingerprint(positive) == data_fingerprint(negative)


def day_of(bars: Bars, day: str) -> Bars:
    inside = bars.times.astype("datetime64[ns]").astype("datetime64[D]").astype(str) == day
    names = ("times", "open", "high", "low", "close", "volume")
    columns: dict[str, Any] = {name: getattr(bars, name)[inside] for name in names}
    return dataclasses.replace(bars, **columns)


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=40, unique=True))
def test_a_day_has_the_fingerprint_of_its_bars(minutes: list[int]) -> None:
    rows = [(10.0 + minute, 11.0 + minute, 9.0 + minute, 10.5 + minute) for minute in sorted(minutes)]
    bars = dataclasses.replace(factories.bars(rows, timeframe="1-MINUTE"), times=np.array(sorted(minutes)) * 60 * 10**9)
    days = daily_fingerprints(bars)
    assert list(days) == sorted({str(np.datetime64(minute, "m").astype("datetime64[D]")) for minute in minutes})
    for day, fingerprint in days.items():
        assert fingerprint == data_fingerprint(day_of(bars, day))


def test_daily_fingerprints_show_the_day_that_differs() -> None:
    bars = sample.read("MSFT")
    revised = bars.close.copy()
    revised[1000] += 0.01
    before, after = daily_fingerprints(bars), daily_fingerprints(dataclasses.replace(bars, close=revised))
    assert [day for day in before if before[day] != after[day]] == ["2009-02-19"]


def test_no_bars_have_no_days() -> None:
    empty = day_of(BARS, "1999-01-01")
    assert daily_fingerprints(empty) == {}
    assert data_fingerprint(empty) != data_fingerprint(BARS)
