"""The shipped prices, against the package they were cut from."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bokeh_sampledata import stocks

from ntrader.data import checks, sample
from ntrader.data.entries import DataEntry

FOLDER = Path(sample.__file__).parent / "sample"


@pytest.mark.parametrize("symbol", sample.VENUES)
def test_the_sample_is_what_its_source_says(symbol: str) -> None:
    bars = sample.read(symbol)
    source = pd.DataFrame(getattr(stocks, symbol)).set_index("date")["2005-03-01":"2013-03-01"]
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(bars, name).tolist() == source[name].astype(float).tolist()
    closes = pd.DatetimeIndex(source.index).as_unit("ns") + pd.Timedelta(days=1) - pd.Timedelta(microseconds=1)
    assert bars.times.tolist() == closes.asi8.tolist()
    checks.check(bars)


@pytest.mark.parametrize("symbol", sample.VENUES)
def test_there_is_no_split_inside(symbol: str) -> None:
    source = pd.DataFrame(getattr(stocks, symbol)).set_index("date")["2005-03-01":"2013-03-01"]
    factor = source["close"] / source["adj_close"]
    assert factor.pct_change().abs().max() < 0.01
    before = pd.DataFrame(stocks.AAPL).set_index("date")["2005-02-25":"2005-02-28"]
    assert (before["close"] / before["adj_close"]).pct_change().abs().max() > 0.4


@pytest.mark.parametrize("entry", sample.entries(), ids=lambda entry: entry.symbol)
def test_entries_are_what_is_in_the_file(entry: DataEntry) -> None:
    bars = sample.read(entry.symbol)
    assert (entry.rows, entry.first, entry.last) == (len(bars), bars.times[0], bars.times[-1])
    assert (entry.venue, entry.timeframe, entry.source) == (bars.venue, bars.timeframe, "sample")
    assert entry.period == "2005-03-01 to 2013-03-01"
    assert str(entry) == f"{entry.symbol} 1-DAY on {entry.venue} (sample), 2005-03-01 to 2013-03-01"


def test_the_file_is_the_one_its_source_note_describes() -> None:
    note = (FOLDER / "SOURCE.md").read_text(encoding="utf-8")
    packed = (FOLDER / "stocks.csv.gz").read_bytes()
    text = gzip.decompress(packed)
    assert hashlib.sha256(text).hexdigest() in re.findall(r"[0-9a-f]{64}", note)
    assert packed[4:8] == bytes(4), "the gzip header holds no time"
    assert text.count(b"\n") == 1 + 8060


def test_bars_read_twice_do_not_share_memory() -> None:
    first, second = sample.read("AAPL"), sample.read("AAPL")
    assert not np.shares_memory(first.close, second.close)
