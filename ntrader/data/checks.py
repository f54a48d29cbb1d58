"""Bars that no engine should be fed are refused here; what is merely missing is told by `gaps`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ntrader.data.bars import Bars, Timeframe, parse_timeframe
from ntrader.data.entries import time_label
from ntrader.errors import BadDataError, ConfigError

_DAY = 86_400 * 1_000_000_000
# Friday to Tuesday: a long weekend is no gap.
_LONG_WEEKEND = 4
_ENOUGH_STEPS = 3

Mask = NDArray[np.bool_]


class Gap(NamedTuple):
    """Bars missing between two that are there: their closes, in nanoseconds since 1970 UTC, and how many."""

    start: int
    end: int
    missing: int


def check(bars: Bars, *, lines: NDArray[np.int64] | None = None) -> None:
    """Refuse bars that are empty, unsorted, doubled, not finite, not positive, or at odds with themselves.

    `lines` are the 1-based lines of the file the bars were read from; without them bars are counted from 1.
    Raises BadDataError with the first problem, where it is, and how many more bars are bad.
    """
    if not len(bars):
        raise BadDataError(f"{bars.origin}: there are no bars in it")
    problems = list(_problems(bars))
    bad = np.logical_or.reduce([mask for mask, _ in problems])
    if not bad.any():
        return
    row = int(bad.argmax())
    reason = next(text for mask, text in problems if mask[row])
    raise BadDataError(
        f"{_place(bars, row, lines)}: {_describe(bars, row, reason)}{and_more(int(bad.sum()) - 1)}",
        hint=_hint(bars, reason),
    )


def check_since_1970(bars: Bars) -> None:
    """Raise BadDataError for bars the engine has no time for: it counts nanoseconds from 1970 upwards."""
    early = int((bars.times < 0).sum())
    if early:
        raise BadDataError(
            f"{bars.origin}: {early:,} bars are from before 1970, which the engine cannot run on",
            hint="Begin in 1970 or later, with --start-date 1970-01-01.",
        )


def check_spacing(times: NDArray[np.int64], timeframe: Timeframe, origin: str) -> None:
    """Raise BadDataError where the typical distance of `times` (nanoseconds) cannot be that of the timeframe.

    Rows too close together are always wrong. Rows too far apart may be missing bars, so those are only wrong
    when no two of at least four rows are as close as they should be.
    """
    steps = np.diff(times)
    steps = steps[steps > 0]
    if not steps.size:
        return
    typical = int(np.median(steps))
    narrowest = timeframe.nanoseconds // 2 if timeframe.daily else timeframe.nanoseconds
    widest = typical > _LONG_WEEKEND * _DAY if timeframe.daily else int(steps.min()) > timeframe.nanoseconds
    if typical < narrowest or (widest and steps.size >= _ENOUGH_STEPS):
        raise BadDataError(
            f"{origin}: its rows are mostly {_duration(typical)} apart, and {timeframe} bars were asked for",
            hint=f"Ask for the timeframe {_as_timeframe(typical)}." if _as_timeframe(typical) else None,
        )


def gaps(bars: Bars) -> list[Gap]:
    """Where bars are missing, as information: a holiday is a gap too.

    Daily bars: more than four calendar days from one to the next, counting the weekdays between; where weekends
    have bars throughout, any missing day. Shorter bars: those missing between two bars of one UTC day.
    """
    missing = _missing_days(bars) if bars.timeframe.daily else _missing_within_days(bars)
    return [
        Gap(int(bars.times[row]), int(bars.times[row + 1]), int(missing[row])) for row in np.flatnonzero(missing > 0)
    ]


def and_more(count: int) -> str:
    """The end of a message about the first of several bad rows: ` (and 3 more bad rows)`, or nothing."""
    return f" (and {count:,} more bad row{'s' if count > 1 else ''})" if count else ""


def _problems(bars: Bars) -> Iterator[tuple[Mask, str]]:
    """Each rule as a mask of the bars that break it and a text with `{}` fields for their values."""
    prices = {"open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close}
    for name, column in {**prices, "volume": bars.volume}.items():
        yield ~np.isfinite(column), f"{name} is not a finite number, {{{name}}}"
    for name, column in prices.items():
        yield column <= 0, f"{name} {{{name}}} is not above zero"
    yield bars.volume < 0, "volume {volume} is negative"
    yield bars.high < bars.low, "high {high} is below low {low}"
    for name in ("open", "close"):
        outside = (prices[name] < bars.low) | (prices[name] > bars.high)
        yield outside, f"{name} {{{name}}} is outside low {{low}} to high {{high}}"
    steps = np.diff(bars.times, prepend=bars.times[:1] - 1)
    yield steps == 0, "has the same time as the bar before it"
    yield steps < 0, "is older than the bar before it: the bars are not sorted by time"


def _place(bars: Bars, row: int, lines: NDArray[np.int64] | None) -> str:
    label = time_label(int(bars.times[row]), bars.timeframe)
    where = f"line {lines[row]}" if lines is not None else f"bar {row + 1}"
    return f"{bars.origin}, {where} ({label})"


def _describe(bars: Bars, row: int, reason: str) -> str:
    names = ("open", "high", "low", "close", "volume")
    return reason.format(**{name: f"{float(getattr(bars, name)[row]):.15g}" for name in names})


def _hint(bars: Bars, reason: str) -> str | None:
    if "sorted" not in reason:
        return None
    newest_first = bool((np.diff(bars.times) < 0).all())
    return "It runs from new to old: turn the rows around." if newest_first else "Sort the rows by time, oldest first."


def _missing_days(bars: Bars) -> NDArray[np.int64]:
    days = bars.times // _DAY
    apart = np.diff(days)
    if np.mean(~np.is_busday(_dates(days))) > 0.1:
        return apart - 1
    weekdays = np.busday_count(_dates(days[:-1] + 1), _dates(days[1:]))
    return np.where(apart > _LONG_WEEKEND, weekdays, 0).astype(np.int64)


def _dates(days: NDArray[np.int64]) -> NDArray[np.datetime64]:
    return days.astype("datetime64[D]")


def _missing_within_days(bars: Bars) -> NDArray[np.int64]:
    # A bar belongs to the day it opens in: the one that closes at midnight is the last of its day.
    days = (bars.times - bars.timeframe.nanoseconds) // _DAY
    missing = np.diff(bars.times) // bars.timeframe.nanoseconds - 1
    return np.where(np.diff(days) == 0, missing, 0).astype(np.int64)


def _duration(nanoseconds: int) -> str:
    for name, size in (
        ("day", _DAY),
        ("hour", _DAY // 24),
        ("minute", _DAY // 1440),
        ("second", _DAY // 86_400),
    ):
        if nanoseconds >= size:
            count = f"{nanoseconds / size:.3g}"
            return f"{count} {name}" if count == "1" else f"{count} {name}s"
    return "less than a second"


def _as_timeframe(nanoseconds: int) -> Timeframe | None:
    """The timeframe of that length, if there is one."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return None if rest else parse_timeframe(f"{seconds}s")
    except ConfigError:
        return None
