"""The prices that come with ntrader: real daily bars of four US equities (see `sample/SOURCE.md`)."""

from __future__ import annotations

from pathlib import Path

from ntrader.data.bars import Bars, Timeframe
from ntrader.data.csv_file import read_csv
from ntrader.data.entries import DataEntry

TIMEFRAME = Timeframe(1, "DAY")
VENUES = {"AAPL": "XNAS", "GOOG": "XNAS", "IBM": "XNYS", "MSFT": "XNAS"}
_FILE = Path(__file__).parent / "sample" / "stocks.csv.gz"
# Written down so that listing needs no file; every symbol has the same days, 2005-03-01 to 2013-03-01.
_ROWS, _FIRST, _LAST = 2015, 1_109_721_599_999_999_000, 1_362_182_399_999_999_000


def entries() -> tuple[DataEntry, ...]:
    return tuple(
        DataEntry("sample", symbol, venue, TIMEFRAME, _ROWS, _FIRST, _LAST) for symbol, venue in VENUES.items()
    )


def read(symbol: str) -> Bars:
    """All bars of one of the symbols in VENUES."""
    return read_csv(_FILE, symbol=symbol, venue=VENUES[symbol], timeframe=TIMEFRAME, origin="sample")
