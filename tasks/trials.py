"""A chunk of trials in the process that has the engine: reserve, run, save. Reaches no Prefect: it runs in a worker."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from ntrader.config import RunConfig
from ntrader.errors import BadDataError, DataError, NtraderError, RunError
from ntrader.metrics import measure
from ntrader.results import Fingerprints, Inputs
from ntrader.settings import Settings
from ntrader.sweeps.trials import Trials, peak_memory, trials_of
from storage import trials as stored
from storage.leases import owner
from storage.patience import patiently
from storage.rows import Failure, NewRun
from storage.trials import Finished, Reserved
from tasks.sitting import (
    COME_BACK,
    LOADING,
    PREPARING,
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


_called_back = threading.Event()

# Data of a session that this process has seen kept: to look once is enough.
_kept: set[tuple[str, str]] = set()


def run_chunk(settings: Settings, sitting: Sitting, chunk_id: UUID, share: Share, progress: Tell) -> ChunkReport:
    """Take some trials and run them; `progress(number, done)` before each, and what else it is at.

    Raises ConfigError or BadDataError where code, engine or data are not those that the sweep was planned with, and
    DatabaseError where nothing can be saved; the trials then wait again when their lease has run out, or when the
    caller gives them back.
    """
    _called_back.clear()
    signal.signal(COME_BACK, lambda *_: _called_back.set())
    progress(LOADING, 0)

    def wait() -> None:
        progress(WAITING, 0)

    def take() -> list[Reserved]:
        # A repeated call has what it took before, if only the answer was lost.
        held = stored.reserved_by(settings, chunk_id)
        return held or stored.reserve(settings, sitting.sweep_id, chunk_id, owner(), share.portion)

    reserved = patiently(take, wait)
    if not reserved:
        return ChunkReport(memory=peak_memory())
    chunk = _run(settings.home, sitting, reserved, share.seconds, progress)
    progress(SAVING, len(chunk.finished))
    saved = patiently(
        lambda: stored.save(settings, chunk_id, chunk.finished, [*chunk.inputs.items()], keep_data=sitting.keep_data),
        wait,
    )
    if saved:
        _kept.update((sitting.session, data) for data in chunk.inputs)
    return _report(sitting, [trial for trial in chunk.finished if trial.run.trial_number in saved])


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
    trials = trials_of(sitting.session, sitting.sweep, home)
    chunk = _Chunk()
    deadline = time.monotonic() + seconds
    for done, trial in enumerate(reserved):
        if _called_back.is_set() or (done and time.monotonic() > deadline):
            break
        config = trials.config(trial.point)
        if not trials.is_warm(config):
            progress(PREPARING, done)
        try:
            prints = trials.fingerprints(config)
        except DataError as error:
            raise BadDataError(f"trial {trial.number} cannot be run here: {error.message}", hint=error.hint) from error
        _require_as_planned(sitting, trial, prints, config)
        trials.warm(config)
        progress(trial.number, done)
        chunk.finished.append(_finish(trials, sitting, trial.number, config, prints))
        if (sitting.session, prints.data) not in _kept:
            chunk.inputs.setdefault(prints.data, trials.inputs(config))
    return chunk


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


def _finish(trials: Trials, sitting: Sitting, number: int, config: RunConfig, prints: Fingerprints) -> Finished:
    """Whatever the strategy does, the trial has an outcome."""
    run, started, clock = _new_run(sitting, config, number), datetime.now(UTC), time.perf_counter()
    execution, metrics, failure, reason = None, None, None, None
    try:
        execution = trials.run(config, prints)
        metrics = measure(execution.result, config.annualization)
    except BaseException as error:  # a strategy may well call sys.exit()
        failure = _failure(error, prints)
        reason = "memory" if _out_of_memory(error) else "exception"
        execution = None
    seconds = time.perf_counter() - clock
    return Finished(run, started, datetime.now(UTC), seconds, execution, metrics, failure, reason)


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
