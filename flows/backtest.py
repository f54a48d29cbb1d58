"""One backtest: load-config, run-backtest, compute-metrics, persist."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

from prefect import flow

from flows.ready import ready
from ntrader import progress
from ntrader.config import RunRequest
from ntrader.errors import DatabaseError, NtraderError, RunError
from ntrader.forms import NewRunId
from ntrader.results import Execution, Metrics
from ntrader.settings import Settings
from ntrader.signals import undisturbed
from ntrader.strategies.registry import identity
from ntrader.summary import run_tags, title
from storage import recording
from storage.recording import lease_kept
from storage.rows import Failure, NewRun
from storage.runs import find_run
from tasks.compute_metrics import compute_metrics
from tasks.label import flow_run_id, label_flow_run
from tasks.load_config import load_config
from tasks.persist import save_failure, save_success, start_run
from tasks.publish import publish_backtest
from tasks.run_backtest import run_backtest


@dataclass(frozen=True, slots=True, eq=False)
class BacktestOutcome:
    """A successful run; `saved` says whether it is in the database. `seconds` is what simulating it took."""

    run: NewRun
    execution: Execution
    metrics: Metrics
    seconds: float
    saved: bool


@flow(name="backtest", validate_parameters=True)
def backtest(
    request: RunRequest, save: bool = True, keep_data: bool = True, run_id: NewRunId = None
) -> BacktestOutcome:
    """Run one backtest and record it, whatever becomes of it.

    Args:
        request: What to run: a config file, single settings, or both.
        save: Whether to record it in the database.
        keep_data: Whether to keep the bars, so that the run can be had again when they have been revised.
        run_id: The Run ID to record it under.
    """
    settings = ready(database=save)
    run_id = free_run_id(settings, run_id, save=save)
    config = load_config(request, settings.home)
    name, kind = identity(config.strategy.path)
    label_flow_run(title(run_id, name, config), run_tags(run_id, name, config))
    run = NewRun(run_id, config, name, kind, request.config_path, flow_run_id())
    if save:
        start_run(settings, run)
    began = time.monotonic()
    with recorded(settings, run_id, save=save, keep_data=keep_data):
        execution = run_backtest(config, settings.home)
        metrics = compute_metrics(execution.result, config.annualization)
        if save:
            progress.report("Saving")
            save_success(settings, run_id, execution, metrics, keep_data=keep_data)
    # The run is over and recorded: a page that cannot be made must not say otherwise.
    publish_backtest(run, execution, metrics, saved=save, return_state=True)
    return BacktestOutcome(run, execution, metrics, time.monotonic() - began, saved=save)


def free_run_id(settings: Settings, wanted: UUID | None, *, save: bool) -> UUID:
    """`wanted`, unless a run has it already: a flow run that is copied, or tried again, in Prefect's pages brings the
    parameters of the first along, and makes a run of its own."""
    if wanted is None or (save and find_run(settings, wanted) is not None):
        return uuid4()
    return wanted


@contextmanager
def recorded(settings: Settings, run_id: UUID, *, save: bool, keep_data: bool = True) -> Iterator[None]:
    """Whatever happens inside is written down: an error as failed, an interruption as interrupted."""
    if not save:
        yield
        return
    try:
        with lease_kept(settings, run_id):
            yield
    except DatabaseError as error:
        # Every retry has been used up: one plain attempt, then the truth.
        with suppress(NtraderError):
            recording.save_failure(settings, run_id, failure_of(error))
        error.message = f"the result of run {run_id} was not saved: {error.message}"
        raise
    except Exception as error:
        save_failure(settings, run_id, failure_of(error), keep_data=keep_data)
        raise
    except BaseException as interruption:
        # Prefect is being torn down: no task can be started any more. A second Ctrl-C must not stop the record.
        with undisturbed():
            recording.save_failure(settings, run_id, failure_of(interruption))
        raise


def failure_of(error: BaseException) -> Failure:
    """An error as it is stored; what is no Exception (Ctrl-C, SIGTERM) interrupted the run."""
    trace = getattr(error, "traceback_text", None) or "".join(traceback.format_exception(error))
    if isinstance(error, Exception):
        known = (error.fingerprints, error.inputs) if isinstance(error, RunError) else (None, None)
        return Failure("failed", type(error).__name__, str(error) or type(error).__name__, trace, *known)
    # Our Interruption has the signal's number as `number`, Prefect's own as `signal`.
    number = getattr(error, "number", None) or getattr(error, "signal", None)
    cause = signal.Signals(number).name if number else type(error).__name__
    return Failure("interrupted", "Interrupted", f"interrupted by {cause}", trace)
