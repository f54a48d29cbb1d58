"""A stored run again: its config, the four tasks of every backtest, a verdict, and the cause where results differ."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from prefect import flow

from flows.backtest import recorded
from ntrader import progress
from ntrader.config import RunConfig
from ntrader.data.bars import Bars
from ntrader.data.fingerprint import daily_fingerprints
from ntrader.diagnosis import Cause, conclude, plan
from ntrader.differences import BarsDifference, SourcesDifference, diff_bars, diff_environment, diff_sources
from ntrader.errors import ConfigError, DataError, NotFoundError, NtraderError
from ntrader.results import Execution, Inputs, Metrics
from ntrader.settings import Settings, load_settings
from ntrader.strategies.registry import identity
from ntrader.summary import reproduction_summary, title
from ntrader.verdict import Original, Verdict, judge
from storage import kept
from storage.originals import read_original
from storage.recording import NewRun
from storage.runs import StoredRun, get_run
from tasks.compute_metrics import compute_metrics
from tasks.label import flow_run_id, label_flow_run, publish_summary
from tasks.load_config import load_stored_config
from tasks.persist import save_success, start_run
from tasks.run_backtest import run_backtest


@dataclass(frozen=True, slots=True)
class Explanation:
    """What moved in each input, as far as both sides are known, and which of it changed the result.

    `days` are those with other bars, where the bars themselves were not kept. `engine` is [version, high precision],
    before and after.
    """

    cause: Cause
    data: BarsDifference | None
    days: tuple[str, ...]
    code: SourcesDifference | None
    engine: tuple[Any, Any] | None
    environment: dict[str, tuple[Any, Any]]


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


@flow(name="reproduce", validate_parameters=True)
def reproduce(
    run: str,
    run_id: UUID | None = None,
    save: bool = True,
    with_original_data: bool = False,
    with_original_code: bool = False,
) -> Reproduction:
    """Run a stored run again from its stored config, and say whether the result is the same to the bit.

    Args:
        run: The run to reproduce: its Run ID, the beginning of it, @last, or its name.
        run_id: The Run ID of the new run; a new one by default.
        save: Whether to record the new run, linked to the original.
        with_original_data: Whether to use the bars that were kept instead of those there are now.
        with_original_code: Whether to use the source text that was kept instead of what there is now.
    """
    settings, run_id = load_settings(), run_id or uuid4()
    stored = get_run(settings, run)
    original = read_original(settings, stored)
    parts = _kept_parts(settings, original, data=with_original_data, code=with_original_code)
    name, _ = identity(stored.strategy_path)
    with _kept_code_offered(settings, original):
        config = load_stored_config(original.config_snapshot, with_kept_code=parts.sources is not None)
    label_flow_run(
        f"Reproduce {title(stored.run_id, name, config)}",
        [f"run:{run_id}", f"original:{stored.run_id}", f"strategy:{name}", f"symbol:{config.data.symbol}"],
    )
    new = NewRun(
        run_id, config, stored.strategy_name, stored.strategy_type, stored.config_path, flow_run_id(), stored.run_id
    )
    if save:
        start_run(settings, new)
    began = time.monotonic()
    with recorded(settings, run_id, save=save), _kept_data_offered(settings, original):
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


@contextmanager
def _kept_code_offered(settings: Settings, original: Original) -> Iterator[None]:
    """A strategy that is gone, or no longer takes its parameters, can be had again where its text was kept."""
    try:
        yield
    except ConfigError as error:
        if kept.read_sources(settings, original.fingerprints.code) is not None:
            run = str(original.run_id)[:8]
            error.message = f"the strategy of run {original.run_id} cannot be run any more: {error.message}"
            error.hint = (
                f"Its code was kept: add --with-original-code, or look at it: `ntrader history show {run} --code`."
            )
        raise


@contextmanager
def _kept_data_offered(settings: Settings, original: Original) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if kept.read_bars(settings, original.fingerprints.data) is not None:
            error.hint = "The bars of the original were kept: add --with-original-data."
        raise


def explain(
    settings: Settings, original: Original, config: RunConfig, execution: Execution, verdict: Verdict, parts: _Parts
) -> Explanation:
    """Put the original inputs back, one at a time, and see which of them brings the original result back."""
    progress.report("Looking for the cause")
    before = _kept_parts(settings, original, data=None, code=None)
    there = {name: part for name, part in (("data", before.bars), ("code", before.sources)) if part is not None}
    digests = {
        chosen: _digest(
            config,
            settings.home,
            replace(
                parts if "code" not in chosen else replace(parts, sources=before.sources),
                bars=before.bars if "data" in chosen else _bars_of(execution),
            ),
        )
        for chosen in plan(verdict.moved, there)
    }
    cause = conclude(verdict.moved, there, original.result_digest, execution.result_digest, digests)
    return _explanation(settings, original, execution, verdict, before, cause)


def _bars_of(execution: Execution) -> Bars | None:
    return execution.inputs.bars if execution.inputs else None


def _digest(config: RunConfig, home: Path, parts: _Parts) -> str | None:
    try:
        return run_backtest(config, home, parts.bars, parts.sources).result_digest
    except NtraderError:
        return None


def _kept_parts(settings: Settings, original: Original, *, data: bool | None, code: bool | None) -> _Parts:
    """What was kept of the original; None means if it was. Raises NotFoundError where it has to be there and is not."""
    prints = original.fingerprints
    bars = kept.read_bars(settings, prints.data) if data is not False else None
    sources = kept.read_sources(settings, prints.code) if code is not False else None
    for wanted, part, what, why in (
        (data, bars, "bars", "it was run with --no-keep-data, or before ntrader kept them"),
        (code, sources, "code", "it was run before ntrader kept it"),
    ):
        if wanted and part is None:
            raise NotFoundError(f"the {what} of run {original.run_id} were not kept: {why}")
    return _Parts(bars, sources)


def _explanation(
    settings: Settings, original: Original, execution: Execution, verdict: Verdict, before: _Parts, cause: Cause
) -> Explanation:
    inputs = execution.inputs
    old, new = _documents(settings, original), _loaded(inputs.documents if inputs else {})
    moved = [name for name in ("engine", "environment") if name in verdict.moved and name in old]
    return Explanation(
        cause=cause,
        data=diff_bars(before.bars, inputs.bars) if "data" in verdict.moved and before.bars and inputs else None,
        days=_days(settings, original, inputs) if "data" in verdict.moved and not before.bars and inputs else (),
        code=diff_sources(before.sources, inputs.sources)
        if "code" in verdict.moved and before.sources and inputs
        else None,
        engine=(old["engine"], new["engine"]) if "engine" in moved else None,
        environment=diff_environment(old["environment"], new["environment"]) if "environment" in moved else {},
    )


def _documents(settings: Settings, original: Original) -> dict[str, Any]:
    prints = {name: getattr(original.fingerprints, name) for name in ("engine", "environment")}
    found = kept.read_documents(settings, prints.values())
    return {name: found[digest] for name, digest in prints.items() if digest in found}


def _loaded(documents: dict[str, str]) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in documents.items()}


def _days(settings: Settings, original: Original, inputs: Inputs) -> tuple[str, ...]:
    """Where the bars themselves were not kept: the days whose fingerprints differ."""
    before = kept.read_days(settings, original.fingerprints.data) or {}
    now = {day: bytes.fromhex(digest)[: kept.DIGEST_BYTES] for day, digest in daily_fingerprints(inputs.bars).items()}
    return tuple(sorted(day for day in before.keys() | now.keys() if before.get(day) != now.get(day)) if before else ())
