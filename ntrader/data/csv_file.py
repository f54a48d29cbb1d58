"""Bars from one CSV file, plain or gzipped, as vendors and people write them.

The first line names the columns, in any case and order: a time (`date`, `datetime`, `timestamp`, `time`,
`Date Time`, `Gmt time`, `open time`, or `date` and `time` apart), `open`, `high`, `low`, `close` and, if
there is one, `volume`; `o`, `h`, `l`, `c`, `v`, `vol` and MetaTrader's `<OPEN>` will do. Others are ignored,
`adj close` among them: adjusted closes beside unadjusted opens are not one series. Where a column `symbol` or
`ticker` has several symbols, only the rows of the one asked for are read.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntrader.data.bars import Bars, Timeframe
from ntrader.data.checks import and_more, check, check_spacing
from ntrader.data.dates import DateProblem, Moments, parse_moments
from ntrader.errors import BadDataError, DataNotFoundError

Stamp = Literal["open", "close"]

# The spellings of each column, best first: a file with several has the first one read.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "moment": ("datetime", "date time", "timestamp", "gmt time", "utc time", "open time", "local time"),
    "date": ("date", "day"),
    "time": ("time",),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c", "close/last", "last"),
    "volume": ("volume", "vol", "v", "tickvol", "tick volume"),
    "symbol": ("symbol", "ticker"),
}
_PRICES = ("open", "high", "low", "close")
_SEPARATORS = ",;\t"
_DAY = 86_400_000_000
_EXAMPLE = "The first line must name the columns, such as: date,open,high,low,close,volume"


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows of a file as columns of text, with the 1-based line of the file each row ends on."""

    origin: str
    columns: dict[str, Sequence[str]]
    lines: NDArray[np.int64]


def read_csv(
    path: Path,
    *,
    symbol: str,
    venue: str,
    timeframe: Timeframe,
    stamp: Stamp = "open",
    origin: str | None = None,
) -> Bars:
    """Read and check the file; `origin` is what messages call it, its path unless given.

    Times without a zone are UTC. Rows of daily bars are stamped at the last microsecond of the day *as
    written*, in UTC, whatever time of day or zone stands beside it. Times of shorter bars are when a bar
    opens (`stamp="open"`, as most vendors write it; the timeframe is added) or when it closes. Without a
    volume column volume is 0.

    Raises DataNotFoundError if the file or the symbol in it is not there, BadDataError with file and line
    otherwise.
    """
    name = origin or str(path)
    table = _of_symbol(_parse(_text(path, name), name), symbol)
    moments = _moments(table)
    if moments.date_only and not timeframe.daily:
        raise BadDataError(f"{name}: its rows have a date and no time, but {timeframe} bars were asked for")
    check_spacing(moments.utc * 1_000, timeframe, name)
    columns = _numbers(table)
    bars = Bars(
        symbol=symbol,
        venue=venue,
        timeframe=timeframe,
        times=_closes(moments, timeframe, stamp),
        **{column: columns[column] for column in _PRICES},
        volume=columns.get("volume", np.zeros(len(table.lines))),
        origin=name,
        notes=(*_other_name(table, symbol), *_no_volume(columns, name)),
    )
    check(bars, lines=table.lines)
    return bars


def _text(path: Path, name: str) -> str:
    try:
        raw = path.read_bytes()
        # By content, not by name: what a browser downloads as .csv may be gzipped, and the reverse.
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except FileNotFoundError:
        raise DataNotFoundError(f"data file {name} does not exist", hint=_similar(path)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadDataError(f"{name}: the gzip file is damaged: {error}") from None
    except OSError as error:
        raise DataNotFoundError(f"data file {name} cannot be read: {error.strerror or error}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadDataError(
            f"{name}, line {line}: not UTF-8 text (byte 0x{raw[error.start]:02x})",
            hint="Save it as CSV in UTF-8; spreadsheets and zip archives cannot be read.",
        ) from None


def _similar(path: Path) -> str | None:
    try:
        near = difflib.get_close_matches(path.name, [item.name for item in path.parent.iterdir()], n=1)
    except OSError:
        return None
    return f"Did you mean {path.parent / near[0]}?" if near else None


def _parse(text: str, name: str) -> _Table:
    first = next((line for line in io.StringIO(text) if line.strip()), None)
    if first is None:
        raise BadDataError(f"{name}: the file is empty", hint=_EXAMPLE)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(first), skipinitialspace=True)
    rows, numbers = [], []
    try:
        for row in reader:
            if any(row):
                rows.append(row)
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise BadDataError(f"{name}, line {reader.line_num}: not CSV: {error}") from None
    header = rows.pop(0)
    places = _places(header, name)
    del numbers[0]
    if not rows:
        raise BadDataError(f"{name}: there are no rows below the column names")
    columns = _transposed(rows, numbers, len(header), name)
    return _Table(name, {column: columns[place] for column, place in places.items()}, np.array(numbers, np.int64))


def _separator(first: str) -> str:
    """The separator that makes the most known column names of the first line."""
    return max(_SEPARATORS, key=lambda separator: len(_known(next(csv.reader([first], delimiter=separator)))))


def _known(header: Iterable[str]) -> dict[str, list[int]]:
    """The places in the header of every column we know, by our name, best spelling first."""
    names = [re.sub(r"[\s_]+", " ", name.strip().strip("<>")).lower() for name in header]
    found = {
        column: [place for spelling in spellings for place, name in enumerate(names) if name == spelling]
        for column, spellings in _SPELLINGS.items()
    }
    return {column: places for column, places in found.items() if places}


def _places(header: list[str], name: str) -> dict[str, int]:
    known = _known(header)
    missing = [column for column in _PRICES if column not in known]
    if not {"moment", "date", "time"} & known.keys():
        missing.insert(0, "date or time")
    if missing:
        found = ", ".join(column.strip() or "(no name)" for column in header)
        raise BadDataError(f"{name}: no column for {', '.join(missing)}; found: {found}", hint=_EXAMPLE)
    for places in known.values():
        spelled = [header[place].strip().lower() for place in places]
        if spelled.count(spelled[0]) > 1:
            raise BadDataError(f"{name}: there are {spelled.count(spelled[0])} columns called {spelled[0]!r}")
    return {column: places[0] for column, places in known.items()}


def _transposed(rows: list[list[str]], numbers: list[int], width: int, name: str) -> list[tuple[str, ...]]:
    """The rows as columns. A row may end in more separators than the header, but not in more values."""
    odd = (index for index, row in enumerate(rows) if len(row) != width)
    uneven = [index for index in odd if len(rows[index]) < width or any(rows[index][width:])]
    if uneven:
        count, first = len(rows[uneven[0]]), numbers[uneven[0]]
        raise BadDataError(
            f"{name}, line {first}: {count} values where {width} columns are named{and_more(len(uneven) - 1)}"
        )
    return list(zip(*rows, strict=False))


def _of_symbol(table: _Table, symbol: str) -> _Table:
    """The rows of the symbol. A file of one symbol is taken for the one asked for, whatever it calls it."""
    symbols = table.columns.get("symbol", ())
    names = sorted(set(symbols))
    if len(names) < 2:
        return table
    if symbol not in names:
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")
        raise DataNotFoundError(f"{table.origin} has no rows of {symbol!r}; it has {shown}")
    keep = [index for index, name in enumerate(symbols) if name == symbol]
    columns: dict[str, Sequence[str]] = {
        name: [values[index] for index in keep] for name, values in table.columns.items()
    }
    return _Table(table.origin, columns, table.lines[keep])


def _other_name(table: _Table, symbol: str) -> list[str]:
    names = sorted(set(table.columns.get("symbol", ())) - {symbol})
    return [f"{table.origin} calls its symbol {names[0]!r}; it was taken for {symbol!r}"] if names else []


def _no_volume(columns: Mapping[str, object], name: str) -> list[str]:
    return [] if "volume" in columns else [f"{name} has no volume column: volume is 0"]


def _moments(table: _Table) -> Moments:
    texts = [text.strip() for text in _time_texts(table.columns)]
    try:
        return parse_moments(texts)
    except DateProblem as problem:
        place = f"{table.origin}, line {table.lines[problem.index]}"
        raise BadDataError(f"{place}: {problem.reason}", hint=problem.hint) from None


def _time_texts(columns: dict[str, Sequence[str]]) -> Sequence[str]:
    if "moment" in columns:
        return columns["moment"]
    if "date" in columns and "time" in columns:
        return [f"{day} {_padded(time)}" for day, time in zip(columns["date"], columns["time"], strict=True)]
    return columns.get("date") or columns["time"]


def _padded(time: str) -> str:
    """`93100` and `931` are what a spreadsheet leaves of 093100 and 0931."""
    return time.zfill(4 if len(time) <= 4 else 6) if time.isdecimal() else time


def _numbers(table: _Table) -> dict[str, NDArray[np.float64]]:
    problems: list[tuple[int, str]] = []
    columns = {
        column: _column(column, table.columns[column], problems)
        for column in (*_PRICES, "volume")
        if column in table.columns
    }
    if problems:
        row, reason = min(problems)
        bad_rows = len({index for index, _ in problems})
        raise BadDataError(
            f"{table.origin}, line {table.lines[row]}: {reason}{and_more(bad_rows - 1)}",
            hint="Numbers have a decimal point and nothing else: 1234.5, not 1,234.50 or 1.2K.",
        )
    return columns


def _column(name: str, texts: Sequence[str], problems: list[tuple[int, str]]) -> NDArray[np.float64]:
    try:
        # float() takes 1_000 for a number; no file means that.
        if "_" not in "".join(texts):
            return np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
    except ValueError:
        pass
    for index, text in enumerate(texts):
        if not _is_float(text):
            problems.append((index, f"{name} is {text!r}, not a number" if text.strip() else f"{name} is empty"))
    return np.zeros(len(texts))


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _closes(moments: Moments, timeframe: Timeframe, stamp: Stamp) -> NDArray[np.int64]:
    """When each bar closes, in nanoseconds since 1970 UTC."""
    if not timeframe.daily:
        return moments.utc * 1_000 + (timeframe.nanoseconds if stamp == "open" else 0)
    # A close at midnight ends the day before.
    inside = moments.local - 1 if stamp == "close" and not moments.date_only else moments.local
    return ((inside // _DAY + 1) * _DAY - 1) * 1_000
