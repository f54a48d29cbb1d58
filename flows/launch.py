"""Run a flow here and now: the engine warming up, the services there, Prefect pointed at them.

Importing this module imports neither Prefect nor the flow: both take their time, and have to find their environment
set first.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from ntrader import progress
from ntrader.config import RunRequest, build_config, read_request
from ntrader.errors import NtraderError, RunError, ServiceError
from ntrader.settings import Settings
from ntrader.signals import interruptible
from ntrader.strategies.registry import strategy_path
from ntrader.worker import default_worker, preload
from storage import migrations
from storage.runs import StoredRun, find_by_run_key, get_runs
from storage.sweeps import get_sweep
from tasks import pool, reaper, server
from tasks.reaper import Mended

if TYPE_CHECKING:
    from flows.backtest import BacktestOutcome
    from flows.canary import CanaryReport
    from flows.reproduce import Reproduction
    from flows.sweep import SweepOutcome
    from flows.verify import Checked
    from ntrader.sweeps.config import SweepConfig
    from ntrader.sweeps.request import SearchRequest
    from ntrader.sweeps.runner import RunnerConfig
    from ntrader.sweeps.standing import Estimate

# Events are worth a moment, not a wait: a server that is gone would be tried for more than a minute.
FINISH_SECONDS = 5


def launch_backtest(
    settings: Settings, request: RunRequest, run_id: UUID, *, save: bool, keep_data: bool = True
) -> BacktestOutcome:
    """Check the request, start what is missing, run the flow.

    A bad request is refused before any service is started; a database that cannot be had, before the run is.
    """
    with interruptible():
        begin_checking(settings, request)
        from flows.backtest import backtest

        progress.report("Checking the request")
        default_worker().call("ntrader.resolve:resolve", request, settings.home)
        if save:
            progress.report("Opening the database")
            migrations.prepare(settings)
        with connected(settings):
            return backtest(request, save, keep_data, run_id)


def begin_checking(settings: Settings, request: RunRequest) -> None:
    """What needs no engine to be seen is seen at once, and the engine begins to load. Raises ConfigError."""
    strategy_path(build_config(read_request(request), origin=request.config_path or "the request").strategy.path)
    default_worker().start()
    server.prepare_client(settings)


def launch_reproduction(
    settings: Settings, run: str, run_id: UUID, *, save: bool, original_data: bool, original_code: bool
) -> Reproduction:
    """Run a stored config again. Bars and code are those there are now, or those that were kept.

    Raises NotFoundError where they were not, and what makes the strategy impossible to run, before it is run.
    """
    with interruptible():
        default_worker().start()
        server.prepare_client(settings)
        from flows.reproduce import reproduce

        with connected(settings):
            return reproduce(run, original_data, original_code, save, run_id)


def launch_verification(settings: Settings, runs: list[str]) -> list[Checked]:
    """Run stored runs again, one after another, saving nothing."""
    with interruptible():
        default_worker().start()
        server.prepare_client(settings)
        from flows.verify import verify

        with connected(settings):
            return verify(runs)


def launch_canary(settings: Settings, nautilus: str, runs: list[str], *, recreate: bool) -> CanaryReport:
    """Run stored runs again with that version of Nautilus, saving nothing.

    Its environment is made before Prefect is started: most of what can go wrong goes wrong there.
    """
    from ntrader.environments import environment

    with interruptible():
        wanted = [str(run.run_id) for run in get_runs(settings, runs)]
        with environment(settings.home, nautilus, recreate=recreate):
            pass
        server.prepare_client(settings)
        from flows.canary import canary

        with connected(settings):
            return canary(nautilus, wanted)


def launch_sweep(
    settings: Settings, request: RunRequest, search: SearchRequest, *, workers: int | None, rerun: bool,
    keep_data: bool, verify_best: bool, runner: RunnerConfig | None = None,
) -> SweepOutcome:  # fmt: skip
    """Check the search, start what is missing, run the flow. What cannot be searched is refused before any service is
    started."""
    with interruptible():
        checked_sweep(settings, request, search)
        progress.report("Opening the database")
        migrations.prepare(settings)
        from flows.sweep import sweep, with_workers

        with connected(settings):
            chosen = with_workers(sweep, workers)
            return chosen(request, search, workers, rerun, keep_data, verify_best, runner)  # type: ignore[no-any-return]


def launch_resumption(
    settings: Settings, reference: str, *, workers: int | None, keep_data: bool, verify_best: bool,
    runner: RunnerConfig | None = None,
) -> SweepOutcome:  # fmt: skip
    """Go on with a recorded sweep."""
    with interruptible():
        _begin_loading()
        number = str(get_sweep(settings, reference).id)
        server.prepare_client(settings)
        from flows.sweep import resume_sweep, with_workers

        with connected(settings):
            chosen = with_workers(resume_sweep, workers)
            return chosen(number, workers, keep_data, verify_best, runner)  # type: ignore[no-any-return]


def foresee_sweep(settings: Settings, request: RunRequest, search: SearchRequest, *, workers: int | None) -> Estimate:
    """What to expect of a sweep. Nothing is run but a probe, and nothing written."""
    with interruptible():
        sweep = checked_sweep(settings, request, search)
        migrations.prepare(settings)
        from tasks.open_sweep import foresee
        from tasks.run_trials import default_workers

        progress.report("Looking for trials that there are")
        return foresee(settings, sweep, workers or default_workers())


def checked_sweep(settings: Settings, request: RunRequest, search: SearchRequest) -> SweepConfig:
    """The sweep that is asked for, complete. Raises ConfigError for what cannot be searched."""
    _begin_loading()
    server.prepare_client(settings)
    from tasks.open_sweep import read

    progress.report("Checking the sweep")
    return read(settings, request, search.overrides())


def _begin_loading() -> None:
    """The engine, and what the workers of a sweep need besides."""
    preload("tasks.trials")
    default_worker().start()


@contextmanager
def connected(settings: Settings) -> Iterator[None]:
    """Prefect's server is there, started if need be, and the flows inside talk to it."""
    progress.report("Connecting to Prefect")
    with prefect_at(server.ensure_server(settings)), _prefect_explained(settings):
        yield


@contextmanager
def reached(settings: Settings) -> Iterator[None]:
    """Prefect's server is there, and what is asked inside goes to it. Raises ServiceError where none runs."""
    progress.report("Connecting to Prefect")
    server.prepare_client(settings)
    with prefect_at(server.require_server(settings)), _prefect_explained(settings):
        yield


@dataclass(frozen=True, slots=True)
class BroughtUp:
    """The full names of the deployments, and what had been left behind."""

    deployments: list[str]
    mended: Mended


def bring_up(settings: Settings, host: str | None = None) -> BroughtUp:
    """The database, Prefect's server, the deployments and a worker: all that is missing is started. What was left
    behind by processes that have ended is put in order first. `host`: as for `tasks.server.ensure_server`."""
    with interruptible():
        progress.report("Opening the database")
        migrations.prepare(settings)
        server.prepare_client(settings)
        progress.report("Connecting to Prefect")
        api_url = server.ensure_server(settings, host)
        with prefect_at(api_url), _prefect_explained(settings):
            from flows.deploy import deploy_all

            progress.report("Bringing the deployments up to date")
            names = deploy_all(sys.executable if server.is_for_here(settings) else None)
        mended = reaper.mend(settings)
        pool.ensure_worker(settings, api_url)
    return BroughtUp(names, mended)


def find_existing(settings: Settings, request: RunRequest) -> StoredRun | None:
    """The newest success with the same run key, if any. Nothing is run and nothing written.

    A request whose bars cannot be had has none: to run it says why, and records it.
    """
    with interruptible():
        strategy_path(build_config(read_request(request), origin=request.config_path or "the request").strategy.path)
        progress.report("Looking for an identical run")
        default_worker().start()
        migrations.prepare(settings)
        try:
            key: str = default_worker().call("ntrader.execution:run_key", request, settings.home)
        except RunError:
            return None
        return find_by_run_key(settings, key)


def finish() -> None:
    """Send what Prefect still holds, and end the worker. Nothing may be run after this."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    logging.raiseExceptions = False
    EventsWorker.drain_all(timeout=FINISH_SECONDS)
    APILogWorker.drain_all(timeout=FINISH_SECONDS)
    default_worker().kill()


@contextmanager
def prefect_at(api_url: str) -> Iterator[None]:
    """Prefect's client in this process talks to that server, without a heartbeat of its own."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # The heartbeat thread costs a synchronous flow one second at its end; our own lease does its work here.
    with temporary_settings({PREFECT_API_URL: api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@contextmanager
def _prefect_explained(settings: Settings) -> Iterator[None]:
    """What Prefect's client raises is its server's trouble, not a fault in the run."""
    from httpx import HTTPError, HTTPStatusError

    before = logging.raiseExceptions
    logging.raiseExceptions = False  # what could not be logged there is said by us, once
    try:
        yield
    except HTTPError as error:
        if (first := _ours_before(error)) is not None:
            raise first from error
        if isinstance(error, HTTPStatusError) and error.response.status_code in server.NO_ENTRY:
            raise server.login_wanted(settings.prefect_api_url or str(error.request.url)) from error
        server.require_space(settings)
        where = settings.prefect_api_url or f"its log is {server.log_file(settings.home)}"
        raise ServiceError(f"the Prefect server failed: {error}", hint=f"Look there first: {where}.") from error
    finally:
        logging.raiseExceptions = before


def _ours_before(error: BaseException) -> NtraderError | None:
    """What went wrong before the server did not want to hear of it: a full disk is full for both."""
    before = error.__context__
    while before is not None and not isinstance(before, NtraderError):
        before = before.__context__
    return before
