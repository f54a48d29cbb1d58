"""SMA Crossover: follow the trend while the fast moving average is above the slow one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from nautilus_trader.core.nautilus_pyo3 import SimpleMovingAverage

from ntrader.strategies.sized import SizedConfig, SizedStrategy, Target


class SMACrossoverConfig(SizedConfig, frozen=True, kw_only=True):
    """Periods in bars."""

    fast_period: Annotated[int, Meta(ge=1, le=1023, description="Bars of the fast moving average")] = 10
    slow_period: Annotated[int, Meta(ge=2, le=1024, description="Bars of the slow moving average")] = 50

    def __post_init__(self) -> None:
        if self.fast_period >= self.slow_period:
            raise ValueError(f"fast_period {self.fast_period} must be below slow_period {self.slow_period}")


class SMACrossover(SizedStrategy):
    """Long on a cross above, flat (or short, where configured) on a cross below."""

    sees_only_bars = True

    def __init__(self, config: SMACrossoverConfig) -> None:
        super().__init__(config)
        self._fast = SimpleMovingAverage(config.fast_period)
        self._slow = SimpleMovingAverage(config.slow_period)
        self._above: bool | None = None

    def decide(self, close: float) -> Target | None:
        self._fast.update_raw(close)
        self._slow.update_raw(close)
        if not self._slow.initialized:
            return None
        above = self._fast.value > self._slow.value
        crossed = self._above is not None and above != self._above
        self._above = above
        if not crossed:
            return None
        return Target.LONG if above else Target.SHORT
