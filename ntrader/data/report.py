"""What is to be said about the quality of bars: bad rows raise, gaps are listed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ntrader.data import catalog, sample
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.checks import check, gaps
from ntrader.data.csv_file import read_csv
from ntrader.data.entries import DataEntry, time_label
from ntrader.data.load import CSV_VENUE, available
from ntrader.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class DataReport:
    """One series that has no bad row; `gaps` are sentences, oldest first."""

    name: str
    rows: int
    gaps: tuple[str, ...]


def report_stored(home: Path, symbol: str | None) -> list[DataReport]:
    """A report for every series, or for those of one symbol.

    Raises BadDataError for the first bad row, NotFoundError when there is no such symbol.
    """
    entries = [entry for entry in available(home) if symbol in (None, entry.symbol)]
    if not entries:
        raise NotFoundError(
            f"{symbol!r} is neither in the sample nor in the catalog",
            hint="`ntrader data list` shows what there is.",
        )
    return [_report(str(entry), _read(home, entry)) for entry in entries]


def report_csv(path: Path, symbol: str, timeframe: str) -> DataReport:
    bars = read_csv(path, symbol=symbol, venue=CSV_VENUE, timeframe=parse_timeframe(timeframe))
    return _report(str(path), bars)


def _read(home: Path, entry: DataEntry) -> Bars:
    return sample.read(entry.symbol) if entry.source == "sample" else catalog.read(home, entry)


def _report(name: str, bars: Bars) -> DataReport:
    check(bars)
    sentences = (
        f"{gap.missing:,} missing between {time_label(gap.start, bars.timeframe)}"
        f" and {time_label(gap.end, bars.timeframe)}"
        for gap in gaps(bars)
    )
    return DataReport(name, len(bars), tuple(sentences))
