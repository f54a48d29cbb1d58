"""A chunk of trials in the process that has the engine: reserve, run, save. Reaches no Prefect: it runs in a worker."""

from __future__ import annotations

import itertools
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from ntrader.config import RunConfig
from ntrader.engine import simulate_events
from ntrader.errors import BadDataError, DataError, NtraderError, RunError
from ntrader.feed import Events
from ntrader.metrics import measure
from ntrader.results import Execution, Fingerprints, Inputs, Metrics, RunResult
from ntrader.settings import Settings
from ntrader.sweeps.points import Point
from ntrader.sweeps.trials import Trials, peak_memory, trials_of
from ntrader.worker import note
from storage import trials as stored
from storage.database import writing
from storage.leases import owner
from storage.patience import patiently
from storage.rows import Failure, NewRun
from storage.trials import Finished, Reserved
from tasks.sitting import (
    COME_BACK,
    LOADING,
    PREPARING,
    PROVING,
    SAVING,
    VERSIONS,
    WAITING,
    ChunkReport,
    Share,
    Sitting,
    Tell,
    require_same_versions,
)


@dataclass(slots=True)
class _Chunk:
    """What a chunk has so far."""

    finished: list[Finished] = field(default_factory=list)
    inputs: dict[str, Inputs] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A trial that can be run."""

    number: int
    config: RunConfig
    prints: Fingerprints


@dataclass(frozen=True, slots=True)
class _Failed:
    """A trial without a result, with the reason in one word."""

    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Ran:
    """A trial that was run: what came out."""

    trial: _Ready
    started: datetime
    finished: datetime
    seconds: float
    result: RunResult | _Failed


# Few enough that the bars of all of them are still there when they are run.
_BATCH = 64

_called_back = threading.Event()

# Data of a session that this process has seen kept: to look once is enough.
_kept: set[tuple[str, str]] = set()


def run_chunk(settings: Settings, sitting: Sitting, chunk_id: UUID, share: Share, progress: Tell) -> ChunkReport:
    """Take some trials and run them. `note` says what it is at, and `progress(number, done)` where somebody has to hear
    of it: before the first trial, and when it is at something else.

    Raises ConfigError or BadDataError where code, engine or data are not those that the sweep was planned with, and
    DatabaseError where nothing can be saved; the trials then wait again when their lease has run out, or when the
    caller gives them back.
    """
    _called_back.clear()
    signal.signal(COME_BACK, lambda *_: _called_back.set())
    note(LOADING)
    progress(LOADING, 0)

    def wait() -> None:
        progress(WAITING, 0)

    def take() -> list[Reserved]:
        # What the chunk took before: where only the answer was lost, or where Dask gives it to another worker.
        held = stored.reserved_by(settings, chunk_id)
        return held or stored.reserve(settings, sitting.sweep_id, chunk_id, owner(), share.portion)

    reserved = patiently(take, wait)
    if not reserved:
        return ChunkReport(memory=peak_memory())
    chunk = _run(settings.home, sitting, reserved, share.seconds, progress)
    note(SAVING)
    progress(SAVING, len(chunk.finished))
    saved = patiently(
        lambda: stored.save(settings, chunk_id, chunk.finished, [*chunk.inputs.items()], keep_data=sitting.keep_data),
        wait,
    )
    if saved:
        _kept.update((sitting.session, data) for data in chunk.inputs)
    return _report(sitting, [trial for trial in chunk.finished if trial.run.trial_number in saved])


def get_ready(settings: Settings, sitting: Sitting, point: Point) -> None:
    """Load and build what most trials need, before there are any to take."""
    trials = trials_of(sitting.session, sitting.sweep, settings.home)
    trials.build(trials.config(point))
    with writing(settings):
        pass


def record_failure(settings: Settings, sitting: Sitting, chunk_id: UUID, number: int, reason: str, text: str) -> None:
    """A trial that took its process with it, or had to be stopped: its run has failed. The chunk's others wait."""
    held = [trial for trial in stored.reserved_by(settings, chunk_id) if trial.number == number]
    trials = trials_of(sitting.session, sitting.sweep, settings.home)
    finished, inputs = [], {}
    for trial in held:
        config = trials.config(trial.point)
        prints = trials.fingerprints(config)
        failure = Failure("failed", _KINDS[reason], text, None, prints)
        now = datetime.now(UTC)
        finished.append(Finished(_new_run(sitting, config, number), now, now, 0.0, failure=failure, reason=reason))
        inputs[prints.data] = trials.inputs(config)
    stored.save(settings, chunk_id, finished, [*inputs.items()], keep_data=sitting.keep_data)


_KINDS = {"timeout": "TrialTimeout", "memory": "OutOfMemory", "killed": "EngineKilledError"}


def _run(home: Path, sitting: Sitting, reserved: list[Reserved], seconds: float, progress: Tell) -> _Chunk:
    """Trial by trial runs the engine alone: what comes before and after is done for many at once, which costs half of
    what it does between two runs of the engine, that leave nothing of it in the processor's caches."""
    trials = trials_of(sitting.session, sitting.sweep, home)
    chunk = _Chunk()
    deadline = time.monotonic() + seconds
    for batch in itertools.batched(reserved, _BATCH):
        ready = [_ready(trials, sitting, trial) for trial in batch]
        ran = list(_simulated(trials, ready, deadline, progress, len(chunk.finished)))
        note(PROVING)
        chunk.finished += [_finished(trials, sitting, one) for one in ran]
        for config, prints in ((one.config, one.prints) for one in ready[: len(ran)]):
            if (sitting.session, prints.data) not in _kept and prints.data not in chunk.inputs:
                chunk.inputs[prints.data] = trials.inputs(config)
        if len(ran) < len(batch):
            break
    return chunk


def _ready(trials: Trials, sitting: Sitting, trial: Reserved) -> _Ready:
    config = trials.config(trial.point)
    try:
        prints = trials.fingerprints(config)
    except DataError as error:
        raise BadDataError(f"trial {trial.number} cannot be run here: {error.message}", hint=error.hint) from error
    _require_as_planned(sitting, trial, prints, config)
    return _Ready(trial.number, config, prints)


def _simulated(
    trials: Trials, ready: Sequence[_Ready], deadline: float, progress: Tell, done_before: int
) -> Iterator[_Ran]:
    """Until there is no time left, or somebody calls back; at least one of all."""
    for done, trial in enumerate(ready, start=done_before):
        if _called_back.is_set() or (done and time.monotonic() > deadline):
            return
        events = trials.events(trial.config)
        if events is None:
            note(PREPARING)
            progress(PREPARING, done)
            events = trials.build(trial.config)
        if not done:
            progress(trial.number, done)
        note(trial.number)
        yield _simulate(trial, events)


def _simulate(trial: _Ready, events: Events) -> _Ran:
    started, clock = datetime.now(UTC), time.perf_counter()
    result = _attempt(partial(simulate_events, trial.config, events), trial.prints)
    return _Ran(trial, started, datetime.now(UTC), time.perf_counter() - clock, result)


def _attempt[T](action: Callable[[], T], prints: Fingerprints) -> T | _Failed:
    """Whatever the strategy does, the trial has an outcome; what an error holds on to is let go of at once."""
    try:
        return action()
    except BaseException as error:  # a strategy may well call sys.exit()
        return _Failed(_failure(error, prints), "memory" if _out_of_memory(error) else "exception")


def _require_as_planned(sitting: Sitting, trial: Reserved, prints: Fingerprints, config: RunConfig) -> None:
    """A result under another run key than was promised would be somebody else's result."""
    if prints.run_key == trial.run_key:
        return
    planned_with = {name: getattr(sitting, name) for name in VERSIONS}
    require_same_versions(sitting.sweep_id, {name: getattr(prints, name) for name in VERSIONS}, planned_with)
    raise BadDataError(
        f"the bars of {config.data.symbol} ({config.data.source}) are not those that sweep {sitting.sweep_id}"
        " was planned with",
        hint=f"Give every machine the same data; if they were revised, `ntrader sweep resume {sitting.sweep_id}`.",
    )


def _finished(trials: Trials, sitting: Sitting, ran: _Ran) -> Finished:
    trial, result = ran.trial, ran.result
    run = _new_run(sitting, trial.config, trial.number)
    times = ran.started, ran.finished, ran.seconds
    if not isinstance(result, _Failed):
        proven = _attempt(partial(_proven, trials, trial, result), trial.prints)
        if not isinstance(proven, _Failed):
            return Finished(run, *times, *proven)
        result = proven
    return Finished(run, *times, failure=result.failure, reason=result.reason)


def _proven(trials: Trials, trial: _Ready, result: RunResult) -> tuple[Execution, Metrics]:
    return trials.prove(result, trial.config, trial.prints), measure(result, trial.config.annualization)


def _new_run(sitting: Sitting, config: RunConfig, number: int) -> NewRun:
    return NewRun(
        uuid4(), config, sitting.strategy_name, sitting.strategy_type, sitting.config_path, sitting.flow_run_id,
        sweep_id=sitting.sweep_id, trial_number=number,
    )  # fmt: skip


def _failure(error: BaseException, prints: Fingerprints) -> Failure:
    trace = getattr(error, "traceback_text", None) or "".join(traceback.format_exception(error))
    message = error.message if isinstance(error, NtraderError) else f"{type(error).__name__}: {error}"
    kind = "OutOfMemory" if _out_of_memory(error) else type(error).__name__
    known = error.fingerprints if isinstance(error, RunError) and error.fingerprints else prints
    return Failure("failed", kind, message or kind, trace, known)


def _out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _report(sitting: Sitting, finished: list[Finished]) -> ChunkReport:
    sign = 1 if sitting.sweep.direction == "maximize" else -1
    values = [
        (value, int(trial.run.trial_number or 0))
        for trial in finished
        if trial.metrics and (value := getattr(trial.metrics, sitting.sweep.objective)) is not None
    ]
    return ChunkReport(
        saved=len(finished),
        failed=sum(trial.failure is not None for trial in finished),
        busy=sum(trial.seconds for trial in finished),
        best=max(values, key=lambda pair: (sign * pair[0], -pair[1])) if values else None,
        memory=peak_memory(),
    )
