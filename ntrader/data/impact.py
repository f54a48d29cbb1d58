"""Which recorded runs would see other bars today: what they were fed against what their source has now."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ntrader import progress
from ntrader.config import DataConfig, canonical_json, describe
from ntrader.data.bars import Bars
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.load import load_series, of_period, resolve_source
from ntrader.data.uses import DataUse
from ntrader.errors import ConfigError, DataNotFoundError, NtraderError

State = Literal["changed", "gone", "unreadable"]
_ENDS = ("start", "end")


@dataclass(frozen=True, slots=True, eq=False)
class Impact:
    """Runs whose bars are not to be had from their source any more, as they were.

    `changed`: it has other bars. `gone`: it has none, for the reason in `message`. `unreadable`: it has none that an
    engine should be fed, or this version does not understand the config.
    """

    use: DataUse
    state: State
    message: str | None = None


def find_impacts(uses: Collection[DataUse], home: Path) -> tuple[Impact, ...]:
    """Those whose bars are not what they were, by symbol, source and period.

    Data that cannot be had are a finding and raise nothing. Each series is read once, whatever periods of it were
    asked for, and one is in memory at a time.
    """

    @lru_cache(maxsize=1)
    def series_of(key: str) -> Bars | NtraderError:
        return _load(json.loads(key), home)

    impacts, done, total = [], 0, sum(use.runs for use in uses)
    for key, use in sorted(((_series_key(use), use) for use in uses), key=lambda pair: pair[0]):
        progress.report("Comparing bars", done, total)
        impacts.append(_impact(use, series_of(key)))
        done += use.runs
    return tuple(sorted((impact for impact in impacts if impact), key=_place))


def _series_key(use: DataUse) -> str:
    """One text for all that come from the same bars. Synthetic ones are drawn anew for each period."""
    kept = use.data if use.source == "synthetic" else {k: v for k, v in use.data.items() if k not in _ENDS}
    return canonical_json(kept)


def _load(data: dict[str, Any], home: Path) -> Bars | NtraderError:
    try:
        return load_series(resolve_source(_config(data), home), home)
    except NtraderError as error:
        return error


def _impact(use: DataUse, series: Bars | NtraderError) -> Impact | None:
    if isinstance(series, NtraderError):
        return _absent(use, series)
    try:
        now = data_fingerprint(of_period(series, _config(use.data)))
    except NtraderError as error:
        return _absent(use, error)
    return None if now == use.fingerprint else Impact(use, "changed")


def _absent(use: DataUse, error: NtraderError) -> Impact:
    return Impact(use, "gone" if isinstance(error, DataNotFoundError) else "unreadable", error.message)


def _config(data: dict[str, Any]) -> DataConfig:
    try:
        return DataConfig.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{where or 'data'}: {message}" for where, message in describe(error))
        raise ConfigError(f"its config does not fit this version of ntrader: {problems}") from None


def _place(impact: Impact) -> tuple[str, str, str, str, str]:
    use = impact.use
    return use.symbol, use.source, str(use.data.get("timeframe")), str(use.start), str(use.end)
