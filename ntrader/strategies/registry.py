"""The strategies known by a short key. Light on purpose: listing them must not load the engine."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ntrader.errors import UnknownStrategyError


@dataclass(frozen=True, slots=True)
class StrategyEntry:
    """A strategy that can be named by `key` or `name` instead of its import path."""

    key: str
    name: str
    strategy_type: str
    path: str
    summary: str


STRATEGIES = (
    StrategyEntry(
        "sma_crossover",
        "SMA Crossover",
        "trend_following",
        "ntrader.strategies.sma_crossover:SMACrossover",
        "Long while the fast moving average is above the slow one",
    ),
    StrategyEntry(
        "mean_reversion",
        "RSI Mean Reversion",
        "mean_reversion",
        "ntrader.strategies.mean_reversion:RSIMeanReversion",
        "Buys when the RSI is oversold, sells when it has come back",
    ),
    StrategyEntry(
        "momentum",
        "Momentum",
        "momentum",
        "ntrader.strategies.momentum:Momentum",
        "Long while the return over the lookback is above a threshold",
    ),
)


def find_entry(text: str) -> StrategyEntry | None:
    """The entry whose key, name or path is `text`, in any case."""
    wanted = text.strip().lower()
    for entry in STRATEGIES:
        if wanted in (entry.key, entry.name.lower(), entry.path.lower(), entry.key.replace("_", "-")):
            return entry
    return None


def strategy_path(text: str) -> str:
    """The import path for a key, a name or an import path. Raises UnknownStrategyError with the nearest name."""
    entry = find_entry(text)
    if entry:
        return entry.path
    if ":" in text:
        return text.strip()
    keys = {word.lower(): entry.key for entry in STRATEGIES for word in (entry.key, entry.name)}
    near = difflib.get_close_matches(text.strip().lower(), keys, n=1, cutoff=0.5)
    hint = f"Did you mean {keys[near[0]]!r}?" if near else f"Known: {', '.join(entry.key for entry in STRATEGIES)}."
    raise UnknownStrategyError(
        f"there is no strategy {text!r}", hint=f"{hint} Your own: --strategy my_package.mine:MyStrategy."
    )


def identity(path: str) -> tuple[str, str]:
    """The name and type to record for a strategy's import path; a strategy of one's own is named by its class."""
    entry = find_entry(path)
    return (entry.name, entry.strategy_type) if entry else (path.partition(":")[2], "custom")


def recorded_name(text: str) -> str:
    """The name under which a strategy's runs are recorded, from its key, name or import path."""
    return identity(text)[0] if ":" in text or find_entry(text) else text.strip()
