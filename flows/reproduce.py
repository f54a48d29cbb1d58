"""A stored run again: its config, the four tasks of every backtest, a verdict, and the cause where results differ."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows.backtest import free_run_id, recorded
from flows.ready import ready
from ntrader import progress
from ntrader.config import RunConfig
from ntrader.data.bars import Bars
from ntrader.data.fingerprint import daily_fingerprints
from ntrader.diagnosis import Cause, conclude, plan
from ntrader.differences import BarsDifference, SourcesDifference, diff_bars, diff_environment, diff_sources
from ntrader.errors import BadDataError, ConfigError, DataError, NotFoundError, NtraderError
from ntrader.forms import NewRunId
from ntrader.results import Execution, Inputs, Metrics
from ntrader.settings import Settings
from ntrader.strategies.registry import identity
from ntrader.summary import reproduction_summary, run_tags, title
from ntrader.verdict import Original, Verdict, judge
from storage import kept
from storage.originals import read_original
from storage.rows import NewRun
from storage.runs import StoredRun, get_run
from tasks.compute_metrics import compute_metrics
from tasks.label import flow_run_id, label_flow_run
from tasks.load_config import load_stored_config
from tasks.persist import save_success, start_run
from tasks.publish import publish_summary
from tasks.run_backtest import run_backtest

# The environment lists the libraries that compute; the engine is one of them.
_ENGINE_IN_ENVIRONMENT = "libraries.nautilus-trader"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What moved in each input, as far as both sides are known, and which of it changed the result.

    `days` are those with other bars, where the bars themselves were not kept. `engine` is [version, high precision],
    before and after. `damaged` says what was kept and is not any more what it was.
    """

    cause: Cause
    data: BarsDifference | None
    days: tuple[str, ...]
    code: SourcesDifference | None
    engine: tuple[Any, Any] | None
    environment: dict[str, tuple[Any, Any]]
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reproduction:
    """The new run beside the original. `explanation` is None where they are identical; `seconds` is what the run itself
    took, without the replays."""

    original: StoredRun
    run: NewRun
    execution: Execution
    metrics: Metrics
    verdict: Verdict
    explanation: Explanation | None
    seconds: float
    saved: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What a run is made of besides its config; None is what there is now."""

    bars: Bars | None = None
    sources: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Before:
    """What is still there of the original's inputs; see `Explanation` for `damaged`."""

    parts: _Parts
    documents: dict[str, Any]
    days: dict[str, bytes]
    damaged: tuple[str, ...]


@flow(name="reproduce", validate_parameters=True)
def reproduce(
    run: str,
    with_original_data: bool = False,
    with_original_code: bool = False,
    save: bool = True,
    run_id: NewRunId = None,
) -> Reproduction:
    """Run a stored run again from its stored config, and say whether the result is the same to the bit.

    Args:
        run: The run to reproduce: its Run ID, the beginning of it, @last, or its name.
        with_original_data: Whether to use the bars that were kept instead of those there are now.
        with_original_code: Whether to use the source text that was kept instead of what there is now.
        save: Whether to record the new run, linked to the original.
        run_id: The Run ID of the new run.
    """
    settings = ready()
    run_id = free_run_id(settings, run_id, save=save)
    stored, original, config, parts = prepared(
        settings, run, load_stored_config, data=with_original_data, code=with_original_code
    )
    name, _ = identity(stored.strategy_path)
    label_flow_run(
        f"Reproduce {title(stored.run_id, name, config)}",
        [f"original:{stored.run_id}", *run_tags(run_id, name, config)],
    )
    new = NewRun(
        run_id, config, stored.strategy_name, stored.strategy_type, stored.config_path, flow_run_id(), stored.run_id
    )
    if save:
        start_run(settings, new)
    began = time.monotonic()
    with recorded(settings, run_id, save=save), _kept_data_offered(settings, original, used=with_original_data):
        execution = run_backtest(config, settings.home, parts.bars, parts.sources)
        metrics = compute_metrics(execution.result, config.annualization)
        if save:
            progress.report("Saving")
            save_success(settings, run_id, execution, metrics)
    seconds = time.monotonic() - began
    verdict = judge(original, execution)
    explanation = None if verdict.identical else explain(settings, original, config, execution, verdict, parts)
    found = Reproduction(stored, new, execution, metrics, verdict, explanation, seconds, save)
    publish_summary(
        reproduction_summary(stored.run_id, run_id, verdict, explanation.cause.sentence if explanation else None),
        f"Run {stored.run_id} reproduced",
        "reproduction",
        return_state=True,
    )
    return found


def prepared(
    settings: Settings, run: str, load: Callable[..., RunConfig], *, data: bool, code: bool
) -> tuple[StoredRun, Original, RunConfig, _Parts]:
    """The run, its result, its config as `load` returns it, and what was kept of it where that is asked for. Raises
    what makes it impossible to run again."""
    stored = get_run(settings, run)
    original = read_original(settings, stored)
    parts = _Parts(
        _kept_bars(settings, original) if data else None, _kept_sources(settings, original) if code else None
    )
    with _kept_code_offered(settings, original, used=code):
        config = load(original.config_snapshot, with_kept_code=parts.sources is not None)
    return stored, original, config, parts


@contextmanager
def _kept_code_offered(settings: Settings, original: Original, *, used: bool) -> Iterator[None]:
    """A strategy that is gone, or no longer takes its parameters, can be had again where its text was kept."""
    try:
        yield
    except ConfigError as error:
        run = str(original.run_id)[:8]
        error.message = f"the strategy of run {original.run_id} cannot be run any more: {error.message}"
        if not used and _tried(kept.read_sources, settings, original.fingerprints.code) is not None:
            error.hint = (
                f"Its code was kept: add --with-original-code, or look at it: `ntrader history show {run} --code`."
            )
        raise


@contextmanager
def _kept_data_offered(settings: Settings, original: Original, *, used: bool) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if not used and _tried(kept.read_bars, settings, original.fingerprints.data) is not None:
            error.hint = "The bars of the original were kept: add --with-original-data."
        raise


def _kept_bars(settings: Settings, original: Original) -> Bars:
    bars = kept.read_bars(settings, original.fingerprints.data)
    if bars is None:
        raise NotFoundError(
            f"the bars of run {original.run_id} were not kept:"
            " it was run with --no-keep-data, or before ntrader kept them",
            hint="Without --with-original-data it runs over the bars there are now.",
        )
    return bars


def _kept_sources(settings: Settings, original: Original) -> dict[str, str]:
    sources = kept.read_sources(settings, original.fingerprints.code)
    if sources is None:
        raise NotFoundError(
            f"the code of run {original.run_id} was not kept: it was run before ntrader kept it",
            hint="Without --with-original-code it runs with the code there is now.",
        )
    return sources


def explain(
    settings: Settings, original: Original, config: RunConfig, execution: Execution, verdict: Verdict, parts: _Parts
) -> Explanation:
    """Put the original inputs back, one at a time, and see which of them brings the original result back."""
    progress.report("Looking for the cause")
    before = _before(settings, original, verdict)
    inputs = execution.inputs
    environment = _environment(before, inputs) if "environment" in verdict.moved else {}
    moved = _counted(verdict.moved, environment)
    there = {"data": before.parts.bars, "code": before.parts.sources}
    known = [name for name, part in there.items() if part is not None]
    digests = {}
    for chosen in plan(moved, known):
        bars = before.parts.bars if "data" in chosen else inputs.bars if inputs else None
        sources = before.parts.sources if "code" in chosen else parts.sources
        digests[chosen] = _digest(config, settings.home, _Parts(bars, sources))
    return Explanation(
        cause=conclude(moved, known, original.result_digest, execution.result_digest, digests),
        data=diff_bars(before.parts.bars, inputs.bars) if before.parts.bars and inputs else None,
        days=_days(before, inputs) if inputs else (),
        code=diff_sources(before.parts.sources, inputs.sources) if before.parts.sources and inputs else None,
        engine=_engine(before, inputs) if "engine" in verdict.moved else None,
        environment=environment,
        damaged=before.damaged,
    )


def _digest(config: RunConfig, home: Path, parts: _Parts) -> str | None:
    try:
        return run_backtest(config, home, parts.bars, parts.sources).result_digest
    except NtraderError:
        return None


def _before(settings: Settings, original: Original, verdict: Verdict) -> _Before:
    """Only what has moved is read. What is damaged is as good as lost, and said."""
    prints, moved, damaged = original.fingerprints, verdict.moved, list[str]()
    bars = _tried(kept.read_bars, settings, prints.data, damaged) if "data" in moved else None
    sources = _tried(kept.read_sources, settings, prints.code, damaged) if "code" in moved else None
    documents: dict[str, Any] = {
        name: document
        for name in ("engine", "environment")
        if name in moved and (document := _tried(_read_document, settings, getattr(prints, name), damaged)) is not None
    }
    days = kept.read_days(settings, prints.data) if "data" in moved and bars is None else None
    return _Before(_Parts(bars, sources), documents, days or {}, tuple(damaged))


def _tried[T](
    read: Callable[[Settings, str], T | None], settings: Settings, fingerprint: str, damaged: list[str] | None = None
) -> T | None:
    try:
        return read(settings, fingerprint)
    except BadDataError as error:
        if damaged is not None:
            damaged.append(error.message)
        return None


def _read_document(settings: Settings, fingerprint: str) -> Any:
    return kept.read_documents(settings, [fingerprint]).get(fingerprint)


def _counted(moved: tuple[str, ...], environment: dict[str, tuple[Any, Any]]) -> tuple[str, ...]:
    """Another version of the engine is no change of the environment besides."""
    if "engine" in moved and environment.keys() == {_ENGINE_IN_ENVIRONMENT}:
        return tuple(factor for factor in moved if factor != "environment")
    return moved


def _environment(before: _Before, inputs: Inputs | None) -> dict[str, tuple[Any, Any]]:
    if "environment" not in before.documents or inputs is None:
        return {}
    return diff_environment(before.documents["environment"], json.loads(inputs.documents["environment"]))


def _engine(before: _Before, inputs: Inputs | None) -> tuple[Any, Any] | None:
    if "engine" not in before.documents or inputs is None:
        return None
    return before.documents["engine"], json.loads(inputs.documents["engine"])


def _days(before: _Before, inputs: Inputs) -> tuple[str, ...]:
    """Where the bars themselves were not kept: the days whose fingerprints differ."""
    if not before.days:
        return ()
    then = before.days
    now = {day: bytes.fromhex(digest)[: kept.DIGEST_BYTES] for day, digest in daily_fingerprints(inputs.bars).items()}
    return tuple(sorted(day for day in then.keys() | now.keys() if then.get(day) != now.get(day)))
