"""sha256 over bars: equal digests mean that the engine is fed the same numbers, to the bit.

The encoding, which must never change under its tag: one line of canonical JSON `["ntrader-bars-1", symbol,
venue, timeframe, number of bars]`, a line feed, then the columns times, open, high, low, close and volume one
after the other, each little-endian with 8 bytes a value. Where the bars came from is left out: the same bars
from a CSV file and from the catalog are the same data.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise

import numpy as np

from ntrader.data.bars import Bars

FORMAT = "ntrader-bars-1"
_DAY = 86_400 * 1_000_000_000


def data_fingerprint(bars: Bars) -> str:
    """The hex digest of all the bars."""
    return _digest(bars, 0, len(bars))


def daily_fingerprints(bars: Bars) -> dict[str, str]:
    """A hex digest for the bars that close on each UTC day, by ISO date: they show *where* data differ."""
    days = bars.times // _DAY
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    labels = np.datetime_as_string(days[starts].astype("datetime64[D]")).tolist()
    spans = pairwise([*starts.tolist(), len(bars)])
    return {label: _digest(bars, start, stop) for label, (start, stop) in zip(labels, spans, strict=True)}


def _digest(bars: Bars, start: int, stop: int) -> str:
    header = [FORMAT, bars.symbol, bars.venue, str(bars.timeframe), stop - start]
    digest = hashlib.sha256(json.dumps(header, separators=(",", ":")).encode() + b"\n")
    digest.update(bars.times[start:stop].astype("<i8").tobytes())
    for column in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        # Adding zero turns -0.0 into 0.0: equal numbers must have equal bytes.
        digest.update((column[start:stop] + 0.0).astype("<f8").tobytes())
    return digest.hexdigest()
