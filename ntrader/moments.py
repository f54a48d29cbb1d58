"""Moments as people write them: a day, a time, or how long ago. Light: lists must not wait for pandas or pydantic."""

from __future__ import annotations

import re
import reprlib
from datetime import UTC, datetime, timedelta

from ntrader.errors import ConfigError

_BARE_DAY = re.compile(r"[0-9W-]{7,10}")
_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str, *, now: datetime | None = None) -> datetime:
    """`2024-01-31` (its midnight), `2024-01-31T14:00`, `7d`, `2w`, `12h` or `30m` ago; UTC unless it says otherwise.

    Raises ConfigError.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago:
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text.strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{reprlib.repr(text)} is not a date",
            hint="Write it like 2024-01-31, 2024-01-31T14:00, or 7d, 2w, 12h ago.",
        ) from None


def parse_end(text: str) -> datetime:
    """The same as the end of a period: a bare day is included whole. Raises ConfigError."""
    moment = parse_moment(text)
    return end_of_day(moment) if _BARE_DAY.fullmatch(text.strip()) else moment


def end_of_day(midnight: datetime) -> datetime:
    """The last microsecond of the day that begins then."""
    return midnight + timedelta(days=1, microseconds=-1)
