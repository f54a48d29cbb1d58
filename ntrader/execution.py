"""execute(config) -> Execution: load the bars, simulate, and prove what went in and what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ntrader.config import RunConfig, RunRequest
from ntrader.data.bars import Bars
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.load import load_bars
from ntrader.digest import result_digest
from ntrader.engine import Progress, build_events, identity, simulate_events
from ntrader.errors import RunError
from ntrader.feed import Events
from ntrader.fingerprints import code, documents, fingerprints
from ntrader.resolve import resolve
from ntrader.results import Execution, Fingerprints, Inputs, RunResult


def run_key(request: RunRequest, home: Path) -> str:
    """The run key that `request` would have now, without simulating it. Raises as `resolve` and `load_bars` do."""
    config = resolve(request, home)
    data = data_fingerprint(load_bars(config.data, home))
    return fingerprints(config, data, documents(code(config.strategy.path), identity())).run_key


def execute(
    config: RunConfig,
    home: Path,
    bars: Bars | None = None,
    sources: dict[str, str] | None = None,
    progress: Progress | None = None,
) -> Execution:
    """Over `bars`, or over those that the config asks for. `sources` is the text of the code that is importable, where
    that is not what the files say (see `ntrader.replay`).

    Raises DataError where bars are missing or bad, StrategyError and EngineStoppedError from the engine; these say what
    went in.
    """
    bars = load_bars(config.data, home) if bars is None else bars
    events = build_events(config, bars)  # imports the strategy
    sources = code(config.strategy.path) if sources is None else sources
    inputs = Inputs(sources, documents(sources, identity()), bars)
    prints = fingerprints(config, data_fingerprint(bars), inputs.documents)
    try:
        return replace(carry_out(config, events, prints, progress), inputs=inputs)
    except RunError as error:
        error.inputs = inputs
        raise


def carry_out(config: RunConfig, events: Events, prints: Fingerprints, progress: Progress | None = None) -> Execution:
    """Over events that were built before, with the fingerprints of what goes in. Raises as `simulate_events` does, the
    errors with these fingerprints."""
    try:
        return prove(simulate_events(config, events, progress), events.bars, prints)
    except RunError as error:
        error.fingerprints = prints
        raise


def prove(result: RunResult, bars: Bars, prints: Fingerprints) -> Execution:
    """What came out over these bars, with its digest, and the fingerprints of what went in."""
    return Execution(
        result=result,
        fingerprints=prints,
        result_digest=result_digest(result),
        first_bar=int(bars.times[0]),
        last_bar=int(bars.times[-1]),
        notes=(*bars.notes, *result.notes),
    )
