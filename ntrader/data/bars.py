"""Bars as columns, and the timeframes they come in."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntrader.errors import ConfigError

_UNITS = {
    "s": "SECOND", "sec": "SECOND", "second": "SECOND",
    "m": "MINUTE", "min": "MINUTE", "minute": "MINUTE",
    "h": "HOUR", "hour": "HOUR",
    "d": "DAY", "day": "DAY",
}  # fmt: skip
_SECONDS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}
# Nautilus refuses 60-MINUTE and 1440-MINUTE: a step must be below the next unit and divide it.
_STEPS = {"SECOND": 60, "MINUTE": 60, "HOUR": 24, "DAY": 2}
_SPELLING = re.compile(r"^\s*(\d+)?[\s-]*([a-zA-Z]+?)s?\s*$")


@dataclass(frozen=True, slots=True)
class Timeframe:
    """The length of a bar, written as Nautilus writes it: `1-DAY`, `5-MINUTE`, `1-HOUR`."""

    step: int
    unit: str

    def __str__(self) -> str:
        return f"{self.step}-{self.unit}"

    @property
    def nanoseconds(self) -> int:
        return self.step * _SECONDS[self.unit] * 1_000_000_000

    @property
    def daily(self) -> bool:
        return self.unit == "DAY"


def parse_timeframe(text: str) -> Timeframe:
    """`1-DAY`, `1d`, `daily`, `5m`, `60min`, `1-HOUR`... in its one canonical form (60 minutes are 1-HOUR).

    Raises ConfigError for a length the engine cannot run on.
    """
    words = {"daily": "1d", "hourly": "1h", "minutely": "1m"}
    match = _SPELLING.match(words.get(text.strip().lower(), text))
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"timeframe {text!r} is not known", hint="Write it like 1-DAY, 1-HOUR or 5-MINUTE.")
    step = int(match.group(1) or 1)
    seconds = step * _SECONDS[unit]
    for name, size in reversed(_SECONDS.items()):
        if seconds and seconds % size == 0:
            step, unit = seconds // size, name
            break
    if step < 1 or step >= _STEPS[unit] or _STEPS[unit] % step:
        raise ConfigError(
            f"timeframe {text!r} is not one the engine can run on",
            hint="Use steps that divide the next unit: 1, 5, 15, 30-MINUTE; 1, 4, 12-HOUR; 1-DAY.",
        )
    return Timeframe(step, unit)


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """The bars of one instrument, oldest first.

    `times` are the *close* of each bar, nanoseconds since 1970 UTC, strictly increasing; the other columns
    are float64 of the same length. `origin` is where a person finds them (a file, "sample", a catalog);
    `notes` are what that person should know about them, such as a period only partly covered.
    """

    symbol: str
    venue: str
    timeframe: Timeframe
    times: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    origin: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def opened(self) -> NDArray[np.int64]:
        """When each bar opened; a daily bar at the midnight before its close, whichever way that is stamped."""
        if self.timeframe.daily:
            return (self.times - 1) // self.timeframe.nanoseconds * self.timeframe.nanoseconds
        return self.times - self.timeframe.nanoseconds
