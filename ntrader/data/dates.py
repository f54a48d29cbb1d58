"""Dates and times as files write them. A column is read as a whole: one row alone often leaves open what it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            ("jan", "january"),
            ("feb", "february"),
            ("mar", "march"),
            ("apr", "april"),
            ("may",),
            ("jun", "june"),
            ("jul", "july"),
            ("aug", "august"),
            ("sep", "sept", "september"),
            ("oct", "october"),
            ("nov", "november"),
            ("dec", "december"),
        ),
        start=1,
    )
    for name in names
}
# A number is read as seconds, ms, us or ns by its size; these are the bounds and what a unit has of
# microseconds.
_EPOCH_UNITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
# Numbers below would lie before March 1973, where files have no prices; spreadsheet serial dates do (40304).
_SMALLEST_EPOCH = 10**8
_EARLIEST, _LATEST = 1900, 2199
_ISO_HINT = "Write the dates as 2010-05-06, or 2010-05-06T09:31:00Z with a time."

_TIME = r"""
    (?:(?:[ ]+|T)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?
       (?:[ ]?(?P<half>[ap])\.?m\.?)?)?
    [ ]?(?P<zone>(?:Z|UTC|GMT)?(?:[+-]\d{2}:?\d{2})?)"""
_SHAPES = tuple(
    re.compile(date + _TIME, re.VERBOSE | re.IGNORECASE)
    for date in (
        r"(?P<year>\d{4})(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})",
        r"(?P<one>\d{1,2})(?P<sep>[-/.])(?P<two>\d{1,2})(?P=sep)(?P<year>\d{4})",
        r"(?P<day>\d{1,2})[-/. ]+(?P<name>[a-z]{3,9})[-/., ]+(?P<year>\d{4}|\d{2})",
        r"(?P<name>[a-z]{3,9})[-/. ]+(?P<day>\d{1,2})(?:,[ ]*|[-/. ]+)(?P<year>\d{4})",
    )
)


class DateProblem(ValueError):
    """A text that is not a date, or a column that has two readings. `index` is the row it shows in."""

    def __init__(self, index: int, reason: str, hint: str | None = _ISO_HINT) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Points in time, in microseconds since 1970.

    `local` is what the clock of the file showed, `utc` the same moment in UTC; they differ only where the
    text says how far that clock is ahead. `date_only` means that no row has a time of day.
    """

    local: NDArray[np.int64]
    utc: NDArray[np.int64]
    date_only: bool


def parse_moments(texts: Sequence[str]) -> Moments:
    """Read a column of dates or times; those without a zone are UTC, finer fractions are cut to microseconds.

    ISO 8601 (basic or extended), year/month/day, day.month.year, day/month/year or month/day/year where the
    column can be read in one way only, `06-May-2010`, `May 6, 2010`, and numbers since 1970 in s, ms, us or
    ns. Raises DateProblem.
    """
    if all(map(_is_number, texts)):
        return _from_numbers(texts)
    try:
        moments = list(map(datetime.fromisoformat, texts))
    except ValueError:
        return _from_shapes(texts)
    return _from_datetimes(moments, date_only=max(map(len, texts)) <= 10)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def _from_numbers(texts: Sequence[str]) -> Moments:
    if all(len(text) in (8, 12, 14) and text.startswith(("19", "20")) and text.isdecimal() for text in texts):
        written = [f"{text[:8]}T{text[8:]}" if len(text) > 8 else text for text in texts]
        moments = [_iso(text, index) for index, text in enumerate(written)]
        return _from_datetimes(moments, date_only=max(map(len, texts)) == 8)
    seconds = np.array(list(map(float, texts)))
    largest = float(np.abs(seconds).max())
    fractional = any("." in text for text in texts)
    if not _SMALLEST_EPOCH <= largest < (10**11 if fractional else 2**63):
        raise DateProblem(0, f"{texts[0]!r} is neither a date nor a time since 1970 in s, ms, us or ns")
    if fractional:
        return _utc(np.round(seconds * 1e6).astype(np.int64))
    values = np.array(list(map(int, texts)), dtype=np.int64)
    unit = next((size for bound, size in _EPOCH_UNITS if largest < bound), None)
    return _utc(values * unit if unit else values // 1_000)


def _utc(microseconds: NDArray[np.int64]) -> Moments:
    return _plausible(Moments(local=microseconds, utc=microseconds, date_only=False))


def _iso(text: str, index: int) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DateProblem(index, f"{text!r} is not a date that can be read") from None


def _from_shapes(texts: Sequence[str]) -> Moments:
    shape = next((shape for shape in _SHAPES if shape.fullmatch(texts[0])), None)
    if shape is None:
        raise _first_unlike_the_first(texts)
    fields = []
    for index, text in enumerate(texts):
        match = shape.fullmatch(text)
        if match is None:
            raise DateProblem(index, f"{text!r} is not a date written like the first one, {texts[0]!r}")
        fields.append(match.groupdict())
    if "one" in shape.groupindex:
        _name_day_and_month(texts, fields)
    moments = [
        _datetime(text, index, field) for index, (text, field) in enumerate(zip(texts, fields, strict=True))
    ]
    return _from_datetimes(moments, all(field["hour"] is None for field in fields))


def _first_unlike_the_first(texts: Sequence[str]) -> DateProblem:
    readable = _is_number if _is_number(texts[0]) else _is_iso
    index = next((index for index, text in enumerate(texts) if not readable(text)), 0)
    return DateProblem(index, f"{texts[index]!r} is not a date that can be read")


def _is_iso(text: str) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def _name_day_and_month(texts: Sequence[str], fields: list[dict[str, str | None]]) -> None:
    """Decide for the whole column which of the two leading numbers is the day; with dots it is the first."""
    first = [int(field["one"] or 0) for field in fields]
    second = [int(field["two"] or 0) for field in fields]
    day_first = fields[0]["sep"] == "." or max(first) > 12
    month_first = max(second) > 12
    if day_first and month_first:
        index = next(
            i for i, pair in enumerate(zip(first, second, strict=True)) if (pair[0] > 12) != (first[0] > 12)
        )
        raise DateProblem(index, f"{texts[index]!r} cannot be read in the same order as the rows before it")
    if not day_first and not month_first:
        raise DateProblem(
            0, f"{texts[0]!r} may be day/month or month/day, and no row of the file decides which", _ISO_HINT
        )
    for field in fields:
        field["day"], field["month"] = (
            (field["one"], field["two"]) if day_first else (field["two"], field["one"])
        )


def _datetime(text: str, index: int, field: dict[str, str | None]) -> datetime:
    try:
        naive = datetime(_year(field), _month(field), int(field["day"] or 0), *_clock(field))
        zone = (field["zone"] or "").upper().removeprefix("UTC").removeprefix("GMT").removeprefix("Z")
        return datetime.fromisoformat(f"{naive.isoformat()}{zone}") if zone else naive
    except (ValueError, KeyError) as error:
        reason = f"no month is called {error}" if isinstance(error, KeyError) else str(error)
        raise DateProblem(index, f"{text!r} is not a date: {reason}") from None


def _year(field: dict[str, str | None]) -> int:
    year = int(field["year"] or 0)
    if len(field["year"] or "") == 2:
        return year + (1900 if year >= 69 else 2000)  # as POSIX has it
    return year


def _month(field: dict[str, str | None]) -> int:
    name = field.get("name")
    return _MONTHS[name.lower()] if name else int(field["month"] or 0)


def _clock(field: dict[str, str | None]) -> tuple[int, int, int, int]:
    hour, minute, second = (int(field[name] or 0) for name in ("hour", "minute", "second"))
    if field["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"{hour} is no hour of a 12-hour clock")
        hour = hour % 12 + (12 if field["half"].lower() == "p" else 0)
    return hour, minute, second, int((field["fraction"] or "").ljust(6, "0")[:6])


def _from_datetimes(moments: list[datetime], date_only: bool) -> Moments:
    local = _microseconds([moment.replace(tzinfo=None) - _EPOCH for moment in moments])
    ahead = [moment.utcoffset() for moment in moments]
    utc = local - _microseconds([lead or timedelta() for lead in ahead]) if any(ahead) else local
    return _plausible(Moments(local=local, utc=utc, date_only=date_only))


def _microseconds(durations: list[timedelta]) -> NDArray[np.int64]:
    return np.array([duration // _MICROSECOND for duration in durations], dtype=np.int64)


def _plausible(moments: Moments) -> Moments:
    """Refuse years that no price has: nanoseconds in 64 bits end in 2262, and the year 0210 is a slip."""
    years = moments.local.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    wrong = (years < _EARLIEST) | (years > _LATEST)
    if wrong.any():
        index = int(wrong.argmax())
        raise DateProblem(index, f"the year {years[index]} cannot be right")
    return moments
