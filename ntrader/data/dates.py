"""Dates and times as files write them. A column is read as a whole: one row may leave open what it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
# A number is read as seconds, ms, us or ns by its size: the upper bounds, and the microseconds of one unit.
_EPOCH_UNITS = ((10**11, 1_000_000), (10**14, 1_000), (10**17, 1))
# Numbers below would lie before March 1973, where files have no prices; spreadsheet serial dates do (40304).
_SMALLEST_EPOCH = 10**8
_EARLIEST, _LATEST = 1900, 2199
_ISO_HINT = "Write the dates as 2010-05-06, or 2010-05-06T09:31:00Z with a time."

_SHAPES = tuple(
    re.compile(shape, re.IGNORECASE)
    for shape in (
        r"(?P<year>\d{4})(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})",
        r"(?P<one>\d{1,2})(?P<sep>[-/.])(?P<two>\d{1,2})(?P=sep)(?P<year>\d{4})",
        r"(?P<day>\d{1,2})[-/. ]+(?P<name>[a-z]{3,9})[-/., ]+(?P<year>\d{4}|\d{2})",
        r"(?P<name>[a-z]{3,9})[-/. ]+(?P<day>\d{1,2})(?:,[ ]*|[-/. ]+)(?P<year>\d{4})",
    )
)
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?: ?(?P<half>[ap])\.?m\.?)?"
    r" ?(?:Z|UTC|GMT)?(?:(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2}))?",
    re.IGNORECASE,
)

Field = dict[str, str | None]


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

    ISO 8601 (basic or extended), year/month/day, day.month.year, day/month/year or month/day/year where the column
    can be read in one way only, `06-May-2010`, `May 6, 2010`, and numbers since 1970 in s, ms, us or ns.
    Raises DateProblem.
    """
    if all(map(_is_number, texts)):
        return _from_numbers(texts)
    try:
        moments = list(map(datetime.fromisoformat, texts))
    except ValueError:
        return _from_written(texts)
    return _from_datetimes(moments, date_only=max(map(len, texts)) <= 10)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def _from_numbers(texts: Sequence[str]) -> Moments:
    if all(len(text) in (8, 12, 14) and text.startswith(("19", "20", "21")) and text.isdecimal() for text in texts):
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


def _from_written(texts: Sequence[str]) -> Moments:
    """Dates and clock times that are not ISO 8601. Both repeat, so each different text is read only once."""
    dates, clocks = zip(*map(_split, texts), strict=True)
    days = _days(dates, texts)
    times = {text: _time_of_day(text, clocks) for text in dict.fromkeys(clocks)}
    local = np.array([days[day] + times[clock][0] for day, clock in zip(dates, clocks, strict=True)], np.int64)
    ahead = np.array([times[clock][1] for clock in clocks], np.int64)
    return _plausible(Moments(local=local, utc=local - ahead, date_only=times.keys() == {""}))


def _split(text: str) -> tuple[str, str]:
    """The date, and what begins with the hour before the first colon."""
    colon = text.find(":")
    if colon < 0:
        return text, ""
    start = max(text.rfind(" ", 0, colon), text.rfind("T", 0, colon)) + 1
    return text[: max(start - 1, 0)].rstrip(), text[start:]


def _days(dates: Sequence[str], texts: Sequence[str]) -> dict[str, int]:
    """The midnight of each different date, in microseconds since 1970."""
    shape = next((shape for shape in _SHAPES if shape.fullmatch(dates[0])), None)
    if shape is None:
        raise _first_unlike_the_first(texts)
    fields: dict[str, Field] = {}
    for text in dict.fromkeys(dates):
        match = shape.fullmatch(text)
        if match is None:
            reason = f"{text!r} is not a date written like the first one, {dates[0]!r}"
            raise DateProblem(dates.index(text), reason)
        fields[text] = match.groupdict()
    if "one" in shape.groupindex:
        _name_day_and_month(dates, fields)
    return {text: _midnight(text, dates, field) for text, field in fields.items()}


def _first_unlike_the_first(texts: Sequence[str]) -> DateProblem:
    readable = _is_number if _is_number(texts[0]) else _is_iso
    index = next((index for index, text in enumerate(texts) if not readable(text)), 0)
    return DateProblem(index, f"{texts[index]!r} is not a date that can be read")


def _is_iso(text: str) -> bool:
    try:
        return bool(datetime.fromisoformat(text))
    except ValueError:
        return False


def _name_day_and_month(dates: Sequence[str], fields: dict[str, Field]) -> None:
    """Decide for the whole column which of the leading numbers is the day; with dots it is the first."""
    over = {text: (int(field["one"] or 0) > 12, int(field["two"] or 0) > 12) for text, field in fields.items()}
    dotted = dates[0] if fields[dates[0]]["sep"] == "." else None
    day_first = next((text for text, (one, _) in over.items() if one), dotted)
    month_first = next((text for text, (_, two) in over.items() if two), None)
    if day_first is None and month_first is None:
        raise DateProblem(0, f"{dates[0]!r} may be day/month or month/day, and no row of the file decides which")
    if day_first is not None and month_first is not None:
        index = max(dates.index(day_first), dates.index(month_first))
        raise DateProblem(index, f"{dates[index]!r} cannot be read in the order of the rows before it")
    day, month = ("one", "two") if month_first is None else ("two", "one")
    for field in fields.values():
        field["day"], field["month"] = field[day], field[month]


def _midnight(text: str, dates: Sequence[str], field: Field) -> int:
    try:
        return (datetime(_year(field), _month(field), int(field["day"] or 0)) - _EPOCH) // _MICROSECOND
    except ValueError as error:
        raise DateProblem(dates.index(text), f"{text!r} is not a date: {error}") from None


def _year(field: Field) -> int:
    year = int(field["year"] or 0)
    if len(field["year"] or "") == 2:
        return year + (1900 if year >= 69 else 2000)  # as POSIX has it
    return year


def _month(field: Field) -> int:
    name = field.get("name")
    if not name:
        return int(field["month"] or 0)
    for number, month in enumerate(_MONTHS, start=1):
        if month.startswith(name.lower()):
            return number
    raise ValueError(f"no month is called {name!r}")


def _time_of_day(text: str, clocks: Sequence[str]) -> tuple[int, int]:
    """Microseconds since midnight, and by how many that clock is ahead of UTC; nothing is midnight UTC."""
    if not text:
        return 0, 0
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise DateProblem(clocks.index(text), f"{text!r} is not a time that can be read")
    hour, minute, second = _hour(match), int(match["minute"]), int(match["second"] or 0)
    if hour > 23 or minute > 59 or second > 59:
        raise DateProblem(clocks.index(text), f"{text!r} is not a time of day")
    microseconds = (hour * 3600 + minute * 60 + second) * 1_000_000 + _digits(match["fraction"])
    lead = int(match["hours"] or 0) * 3600 + int(match["minutes"] or 0) * 60
    return microseconds, lead * (-1_000_000 if match["sign"] == "-" else 1_000_000)


def _hour(match: re.Match[str]) -> int:
    """The hour of 24; 12 am is midnight, 12 pm is noon, and 13 pm is 99, which is none."""
    hour, half = int(match["hour"]), match["half"]
    if not half:
        return hour
    return hour % 12 + (12 if half.lower() == "p" else 0) if 1 <= hour <= 12 else 99


def _digits(fraction: str | None) -> int:
    """Microseconds of the decimals of a second."""
    return int((fraction or "").ljust(6, "0")[:6])


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
