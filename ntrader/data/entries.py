"""What bars there are: one entry for each series, cheap to make and to list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ntrader.data.bars import Timeframe


@dataclass(frozen=True, slots=True)
class DataEntry:
    """One series of bars; `first` and `last` are closes, nanoseconds since 1970 UTC."""

    source: Literal["sample", "catalog"]
    symbol: str
    venue: str
    timeframe: Timeframe
    rows: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe} on {self.venue} ({self.source}), {self.period}"

    @property
    def period(self) -> str:
        return f"{time_label(self.first, self.timeframe)} to {time_label(self.last, self.timeframe)}"


def time_label(time: int, timeframe: Timeframe) -> str:
    """A close for people: the day of a daily bar, otherwise the UTC second, `2010-05-06T09:31:00Z`."""
    if timeframe.daily:
        return str(np.datetime64(time, "ns").astype("datetime64[D]"))
    return f"{np.datetime64(time, 'ns').astype('datetime64[s]')}Z"
