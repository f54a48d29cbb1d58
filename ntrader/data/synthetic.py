"""Seeded bars of a geometric random walk: nothing to download, and the same numbers on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntrader.config import SyntheticConfig
from ntrader.data.bars import Bars, Timeframe
from ntrader.errors import ConfigError, DataNotFoundError

VENUE = "SYNTH"
DECIMALS = 4
_MOST_BARS = 5_000_000
_DAY = 86_400 * 1_000_000_000
_TRADING_DAYS = 252
_YEAR = 365.25 * _DAY
_SMALLEST_PRICE = 10.0**-DECIMALS
_TYPICAL_VOLUME = 1_000_000
# Of a bar's variance, this much happens between the close before it and its open.
_GAP_SHARE = 0.1


def generate(walk: SyntheticConfig, *, symbol: str, venue: str, timeframe: Timeframe, start: int, end: int) -> Bars:
    """Bars that close after `start` and until `end`, nanoseconds since 1970 UTC.

    Daily bars are those of weekdays, shorter ones run day and night. A later end only adds bars. Raises
    ConfigError for more than five million bars, DataNotFoundError for none.
    """
    times = _closes(timeframe, start, end)
    if not times.size:
        raise DataNotFoundError(f"no {timeframe} bar of synthetic data closes in the period asked for")
    opens, highs, lows, closes, volumes = _walk(walk, len(times), _years(timeframe))
    return Bars(
        symbol=symbol,
        venue=venue,
        timeframe=timeframe,
        times=times,
        open=opens,
        high=highs,
        low=lows,
        close=closes,
        volume=volumes,
        origin=f"synthetic (seed {walk.seed})",
    )


def _closes(timeframe: Timeframe, start: int, end: int) -> NDArray[np.int64]:
    first, last = start // timeframe.nanoseconds, end // timeframe.nanoseconds
    if last - first > _MOST_BARS:
        raise ConfigError(
            f"{last - first:,} synthetic {timeframe} bars are too many; {_MOST_BARS:,} can be made",
            hint="Ask for a shorter period or a longer timeframe.",
        )
    steps = np.arange(first, last + 1, dtype=np.int64)
    if timeframe.daily:
        weekdays = steps[np.is_busday(steps.astype("datetime64[D]"))]
        times = (weekdays + 1) * _DAY - 1_000
    else:
        times = steps * timeframe.nanoseconds
    # A bar that closes at the very start opened before it.
    return times[(times > start) & (times <= end)]


def _years(timeframe: Timeframe) -> float:
    """The share of a year that a bar stands for: 252 daily bars, or round the clock."""
    return 1 / _TRADING_DAYS if timeframe.daily else timeframe.nanoseconds / _YEAR


def _walk(walk: SyntheticConfig, count: int, years: float) -> tuple[NDArray[np.float64], ...]:
    """Open, high, low, close and volume. One row of draws a bar: a longer walk begins like a shorter one."""
    draws = np.random.Generator(np.random.PCG64(walk.seed)).standard_normal((count, 5))
    deviation = walk.volatility * np.sqrt(years)
    drift = (walk.drift - walk.volatility**2 / 2) * years
    gaps = deviation * np.sqrt(_GAP_SHARE) * draws[:, 0]
    moves = drift + deviation * np.sqrt(1 - _GAP_SHARE) * draws[:, 1]
    closes = np.log(walk.start_price) + np.cumsum(gaps + moves)
    opens = closes - moves
    reach = deviation / 2 * np.abs(draws[:, 2:4])
    highs = np.maximum(opens, closes) + reach[:, 0]
    lows = np.minimum(opens, closes) - reach[:, 1]
    volumes = np.rint(_TYPICAL_VOLUME * np.exp(0.3 * draws[:, 4]))
    return *(_prices(logarithms) for logarithms in (opens, highs, lows, closes)), volumes


def _prices(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
    # Beyond exp(700) lies infinity, which the checks refuse; it needs no warning here.
    with np.errstate(over="ignore"):
        return np.maximum(np.round(np.exp(logarithms), DECIMALS), _SMALLEST_PRICE)
