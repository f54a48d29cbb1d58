"""Trials in the process that has the engine loaded: the config and fingerprints of each, and its run over bars that are
loaded and built once for all of them.

A trial is the run that `ntrader.execution.execute` would make of its config: the same functions, the same digest.
"""

from __future__ import annotations

import dataclasses
import gc
import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import Any

from ntrader.config import DataConfig, RunConfig, canonical_json, sha256
from ntrader.data.bars import Bars
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.load import load_bars
from ntrader.engine import build_events, identity, kind_of_events, simulate_events
from ntrader.errors import RefusedParametersError
from ntrader.execution import prove
from ntrader.feed import Events
from ntrader.fingerprints import code, combined, documents
from ntrader.resolve import complete_around, complete_data, require_account
from ntrader.results import Execution, Fingerprints, Inputs, RunResult
from ntrader.sources import reload_changed
from ntrader.strategies.loader import (
    StrategyClass,
    complete_parameters,
    load_strategy,
    parameters_of,
)
from ntrader.strategies.registry import strategy_path
from ntrader.sweeps.axes import Axis, Choices
from ntrader.sweeps.config import SweepConfig, build_sweep
from ntrader.sweeps.points import Point, check_sweep, trial_config

# So many bars stay built: of a sweep over many symbols not those of all.
_BARS_KEPT = 300_000
# A probe is a short run: its time is proportional to its bars, and all but its start.
_PROBE_BARS = 2_000
_MOST_CORNERS = 64


def prepare(raw: dict[str, Any], home: Path, origin: str = "the request") -> SweepConfig:
    """The sweep with its base run completed, as far as that does not vary. Nothing has been loaded but the strategy.

    Raises ConfigError and what `ntrader.resolve.resolve` raises where it cannot be searched.
    """
    sweep = build_sweep(raw, origin=origin)
    path = strategy_path(sweep.base.strategy.path)
    reload_changed(path.partition(":")[0])
    strategy = load_strategy(path)
    known = [parameter.name for parameter in parameters_of(strategy)]
    given = {name: value for name, value in sweep.base.strategy.parameters.items() if name not in sweep.params}
    axes = {name: axis for name, axis in sweep.params.items() if name in known}
    completed = _completed(strategy, given, axes)
    parameters = {name: value for name, value in completed.items() if name not in sweep.params}
    data = sweep.base.data
    if not (sweep.symbols or sweep.timeframes):
        data = complete_data(data, home)
    elif data.path:
        data = data.model_copy(update={"path": str(Path(data.path).expanduser().absolute())})
    chosen = sweep.base.strategy.model_copy(update={"path": path, "parameters": parameters})
    sweep = sweep.model_copy(update={"base": sweep.base.model_copy(update={"strategy": chosen, "data": data})})
    sweep = _with_both_ends(sweep, home)
    check_sweep(sweep, known)
    return sweep


def _completed(strategy: StrategyClass, given: dict[str, Any], axes: dict[str, Axis]) -> dict[str, Any]:
    """All parameters, somewhere on the axes: a required one may have its only values there. Raises as
    `complete_parameters` does, where the strategy refuses all corners of the space that are looked at."""
    corners = product(*([_first(axis), _last(axis)] for axis in axes.values()))
    refused = None
    for corner in islice(corners, _MOST_CORNERS):
        try:
            return complete_parameters(strategy, given | dict(zip(axes, corner, strict=True)))
        except RefusedParametersError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _with_both_ends(sweep: SweepConfig, home: Path) -> SweepConfig:
    """Periods of the form `last` end with the newest bar of any of the sweep's series."""
    if not any(period.last for period in sweep.periods):
        return sweep
    everything = {"start": None, "end": None}
    newest = max(
        int(load_bars(sweep.base.data.model_copy(update={**everything, "symbol": symbol, "timeframe": timeframe}), home)
            .times[-1])
        for symbol in sweep.symbols or (sweep.base.data.symbol,)
        for timeframe in sweep.timeframes or (sweep.base.data.timeframe,)
    )  # fmt: skip
    # Midnight, the close of a bar, still belongs to the day it ends.
    day = datetime.fromtimestamp((newest - 1) // 1_000_000_000, UTC).date()
    return sweep.model_copy(update={"periods": tuple(period.ending(day) for period in sweep.periods)})


@dataclass(frozen=True, slots=True, eq=False)
class _Material:
    """The bars that some trials share, and what is built of them: `events` by whether highs and lows are played out."""

    bars: Bars
    fingerprint: str
    events: dict[tuple[bool, bool], Events] = field(default_factory=dict)


class Trials:
    """The trials of one sweep in this process: what they share is made once and kept."""

    def __init__(self, sweep: SweepConfig, home: Path) -> None:
        self._sweep = sweep
        self._home = home
        reload_changed(sweep.base.strategy.path.partition(":")[0])
        self._strategy = load_strategy(sweep.base.strategy.path)
        self._sources = code(sweep.base.strategy.path)
        self.documents = documents(self._sources, identity())
        self._prints = {name: sha256(text) for name, text in self.documents.items()}
        self._configs: dict[tuple[object, ...], RunConfig] = {}
        self._materials: OrderedDict[str, _Material] = OrderedDict()

    def config(self, point: Point) -> RunConfig:
        """What `ntrader.resolve.complete` makes of the point laid over the base run, without doing all of it anew.

        Parameters that the strategy refuses together stay as they are: the trial fails, and says why. Raises
        ConfigError where a value does not fit.
        """
        series = point.symbol, point.timeframe, point.period
        if series not in self._configs:
            self._configs[series] = complete_around(trial_config(self._sweep.base, point), self._home)
        shared = self._configs[series]
        parameters = self._sweep.base.strategy.parameters | point.values
        with suppress(RefusedParametersError):
            parameters = complete_parameters(self._strategy, parameters)
        config = shared.model_copy(update={"strategy": shared.strategy.model_copy(update={"parameters": parameters})})
        require_account(config)
        return config

    def fingerprints(self, config: RunConfig) -> Fingerprints:
        """Of a trial's run; loads its bars. Raises as `load_bars` does."""
        return combined(config, self._material(config).fingerprint, self._prints)

    def events(self, config: RunConfig) -> Events | None:
        """The bars as the trial's run takes them; None where they have not been built yet."""
        place = _place(config.data)
        if place not in self._materials:
            return None
        self._materials.move_to_end(place)
        return self._materials[place].events.get(kind_of_events(config))

    def build(self, config: RunConfig) -> Events:
        """The same, built where they are not there yet: no part of the trial's own time."""
        material = self._material(config)
        kind = kind_of_events(config)
        if kind not in material.events:
            material.events[kind] = build_events(config, material.bars)
            # They stay: no reason for the garbage collector to walk through hundreds of thousands of them again.
            gc.collect()
            gc.freeze()
        return material.events[kind]

    def prove(self, result: RunResult, config: RunConfig, prints: Fingerprints) -> Execution:
        """What `execute` makes of it."""
        return prove(result, self._material(config).bars, prints)

    def inputs(self, config: RunConfig) -> Inputs:
        """What its run consumes, to be kept."""
        return Inputs(self._sources, self.documents, self._material(config).bars)

    def probe(self, config: RunConfig) -> float | None:
        """About how many seconds a run takes once everything is warm: of its first bars, in proportion. None where it
        fails, whatever the strategy does."""
        bars = self._material(config).bars
        count = min(len(bars), _PROBE_BARS)
        columns = {name: getattr(bars, name)[:count] for name in ("times", "open", "high", "low", "close", "volume")}
        events = build_events(config, dataclasses.replace(bars, **columns))
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            try:
                simulate_events(config, events)
            except BaseException:  # the trial will say so itself
                return None
            seconds.append(time.perf_counter() - began)
        return min(seconds) * len(bars) / count

    def _material(self, config: RunConfig) -> _Material:
        place = _place(config.data)
        found = self._materials.get(place)
        if found is None:
            bars = load_bars(config.data, self._home)
            found = self._materials[place] = _Material(bars, data_fingerprint(bars))
            self._forget_some()
        self._materials.move_to_end(place)
        return found

    def _forget_some(self) -> None:
        while len(self._materials) > 1 and sum(len(it.bars) for it in self._materials.values()) > _BARS_KEPT:
            self._materials.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What to expect of a sweep's trials, from its first: bars behind it, return observations at most, the seconds of
    a probe (None where none was wanted, or it failed) and the memory in bytes of a process that has the bars built."""

    bars: int
    days: int
    annualization: int
    seconds: float | None
    memory: int


_sessions: OrderedDict[str, Trials] = OrderedDict()


def trials_of(session: str, sweep: SweepConfig, home: Path) -> Trials:
    """Those of this process. `session` names one opening of the sweep: data may have changed before the next."""
    if session not in _sessions:
        _sessions.clear()
        _sessions[session] = Trials(sweep, home)
    return _sessions[session]


def plan(session: str, sweep: SweepConfig, home: Path, points: Iterable[Point]) -> list[str]:
    """The run key of each point. Raises ConfigError or DataError for one that cannot be run."""
    trials = trials_of(session, sweep, home)
    return [trials.fingerprints(trials.config(point)).run_key for point in points]


def planned_with(session: str, sweep: SweepConfig, home: Path) -> dict[str, str]:
    """The fingerprints of code, engine and environment that the trials have in this process."""
    return {name: sha256(text) for name, text in trials_of(session, sweep, home).documents.items()}


def look_ahead(session: str, sweep: SweepConfig, home: Path, point: Point, probe: bool) -> Outlook:
    trials = trials_of(session, sweep, home)
    config = trials.config(point)
    trials.build(config)
    times = trials.inputs(config).bars.times
    days = len(set(((times - 1) // 86_400_000_000_000).tolist()))
    seconds = trials.probe(config) if probe else None
    return Outlook(len(times), days, config.annualization, seconds, peak_memory())


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@lru_cache(maxsize=4096)
def _place(data: DataConfig) -> str:
    """What trials that share their bars have in common."""
    return canonical_json(data.model_dump(mode="json"))


def _first(axis: Axis) -> Any:
    return axis.values[0] if isinstance(axis, Choices) else axis.low


def _last(axis: Axis) -> Any:
    return axis.values[-1] if isinstance(axis, Choices) else axis.high
