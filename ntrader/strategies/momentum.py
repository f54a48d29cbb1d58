"""Momentum: hold what has risen over the lookback, leave when it no longer has."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from nautilus_trader.core.nautilus_pyo3 import RateOfChange

from ntrader.strategies.sized import SizedConfig, SizedStrategy, Target


class MomentumConfig(SizedConfig, frozen=True, kw_only=True):
    """The threshold is a fraction: 0.02 is a rise of two percent over the lookback."""

    lookback: Annotated[int, Meta(ge=2, le=1023, description="Bars over which the return is taken")] = 20
    threshold: Annotated[float, Meta(ge=0, lt=1, description="Return, as a fraction, that opens a position")] = 0.02


class Momentum(SizedStrategy):
    """Long above `threshold`, flat once the return is no longer positive; the mirror image for shorts."""

    sees_only_bars = True

    def __init__(self, config: MomentumConfig) -> None:
        super().__init__(config)
        # The window holds both ends: a return over n bars needs n + 1 prices.
        self._return = RateOfChange(config.lookback + 1, use_log=False)

    def decide(self, close: float) -> Target | None:
        self._return.update_raw(close)
        if not self._return.initialized:
            return None
        change = self._return.value
        if change > self.config.threshold:
            return Target.LONG
        if change < -self.config.threshold:
            return Target.SHORT
        faded = change <= 0 if self.target is Target.LONG else change >= 0
        return Target.FLAT if self.target and faded else None
