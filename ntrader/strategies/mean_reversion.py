"""RSI Mean Reversion: buy weakness, sell when it has come back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from nautilus_trader.core.nautilus_pyo3 import MovingAverageType, RelativeStrengthIndex

from ntrader.strategies.sized import SizedConfig, SizedStrategy, Target


class RSIMeanReversionConfig(SizedConfig, frozen=True, kw_only=True):
    """RSI levels from 0 to 100."""

    rsi_period: Annotated[int, Meta(ge=2, le=1024, description="Bars of the relative strength index")] = 14
    oversold: Annotated[float, Meta(ge=0, le=100, description="Buy below this RSI")] = 30.0
    overbought: Annotated[float, Meta(ge=0, le=100, description="Sell short above this RSI")] = 70.0
    exit_level: Annotated[float, Meta(ge=0, le=100, description="Leave when the RSI has come back to this")] = 50.0

    def __post_init__(self) -> None:
        if not self.oversold < self.exit_level < self.overbought:
            raise ValueError(
                f"levels must rise: oversold {self.oversold:g}, exit_level {self.exit_level:g},"
                f" overbought {self.overbought:g}"
            )


class RSIMeanReversion(SizedStrategy):
    """Long below `oversold`, short above `overbought` where configured, flat again at `exit_level`."""

    sees_only_bars = True

    def __init__(self, config: RSIMeanReversionConfig) -> None:
        super().__init__(config)
        # Wilder's own smoothing, which is what the field means by RSI; Nautilus would take an exponential one.
        self._rsi = RelativeStrengthIndex(config.rsi_period, MovingAverageType.Wilder)  # type: ignore[attr-defined]

    def decide(self, close: float) -> Target | None:
        self._rsi.update_raw(close)
        if not self._rsi.initialized:
            return None
        rsi = self._rsi.value * 100
        if rsi < self.config.oversold:
            return Target.LONG
        if rsi > self.config.overbought:
            return Target.SHORT
        came_back = rsi >= self.config.exit_level if self.target is Target.LONG else rsi <= self.config.exit_level
        return Target.FLAT if self.target and came_back else None
