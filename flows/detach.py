"""Ask a deployment to do what would be done here: checked as far as that goes without running it, then submitted.

What is submitted can be carried out on another machine: the content of a config file travels, paths are whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from flows import launch
from ntrader import progress
from ntrader.config import RunConfig, RunRequest, portable, written_out
from ntrader.errors import DataError
from ntrader.settings import Settings
from ntrader.signals import interruptible
from ntrader.strategies.registry import identity, strategy_path
from ntrader.summary import run_tags, title
from ntrader.sweeps.config import SweepConfig
from ntrader.worker import default_worker
from storage.sweeps import get_sweep
from tasks import server

if TYPE_CHECKING:
    from ntrader.sweeps.request import SearchRequest
    from ntrader.sweeps.runner import RunnerConfig
    from tasks.deployments import FlowRunSeen

BACKTEST: Final = "backtest/backtest"
SWEEP: Final = "sweep/sweep"
RESUME: Final = "resume-sweep/resume-sweep"
REPRODUCE: Final = "reproduce/reproduce"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A flow run that waits for a worker. `run_id` is that of the run it will make, where it makes one; `obstacles` say
    why it may wait for long."""

    deployment: str
    flow_run: FlowRunSeen
    run_id: UUID | None
    obstacles: tuple[str, ...]


def detach_backtest(settings: Settings, request: RunRequest, run_id: UUID, *, keep_data: bool) -> Submitted:
    """Raises ConfigError for a request that cannot be run, before anything is submitted."""
    with interruptible():
        config = checked_backtest(settings, request)
        name, _ = identity(config.strategy.path)
        parameters = {"request": written_out(portable(request)), "keep_data": keep_data, "run_id": str(run_id)}
        tags = run_tags(run_id, name, config)
        return _submit(settings, BACKTEST, parameters, title(run_id, name, config), tags, run_id)


def detach_reproduction(
    settings: Settings, run: str, run_id: UUID, *, original_data: bool, original_code: bool
) -> Submitted:
    """Raises what makes the run impossible to reproduce, as far as that shows without running it."""
    with interruptible():
        default_worker().start()
        server.prepare_client(settings)
        from flows.reproduce import prepared
        from tasks.load_config import load_stored_config

        stored, _, config, _ = prepared(settings, run, load_stored_config.fn, data=original_data, code=original_code)
        name, _ = identity(stored.strategy_path)
        parameters = {
            "run": str(stored.run_id),
            "with_original_data": original_data,
            "with_original_code": original_code,
            "run_id": str(run_id),
        }
        tags = [f"original:{stored.run_id}", *run_tags(run_id, name, config)]
        return _submit(settings, REPRODUCE, parameters, f"Reproduce {title(stored.run_id, name, config)}", tags, run_id)


def detach_sweep(
    settings: Settings, request: RunRequest, search: SearchRequest, *, workers: int | None, rerun: bool,
    keep_data: bool, verify_best: bool, runner: RunnerConfig | None,
) -> Submitted:  # fmt: skip
    """Raises ConfigError for what cannot be searched. The sweep gets its number when a worker opens it; without
    `runner` the worker's settings say where its trials run."""
    with interruptible():
        name, tags = checked_sweep(settings, request, search)
        parameters = {
            **sweep_parameters(request, search),
            "workers": workers,
            "rerun": rerun,
            "keep_data": keep_data,
            "verify_best": verify_best,
            "runner": runner and runner.model_dump(mode="json", exclude_none=True),
        }
        return _submit(settings, SWEEP, parameters, name, tags)


def detach_resumption(
    settings: Settings, reference: str, *, workers: int | None, keep_data: bool, verify_best: bool,
    runner: RunnerConfig | None,
) -> Submitted:  # fmt: skip
    """Raises NotFoundError where there is no such sweep."""
    with interruptible():
        found = get_sweep(settings, reference)
        what = f"{found.strategy_name} {found.name or ''}".strip()
        parameters = {
            "sweep": str(found.id),
            "workers": workers,
            "keep_data": keep_data,
            "verify_best": verify_best,
            "runner": runner and runner.model_dump(mode="json", exclude_none=True),
        }
        return _submit(settings, RESUME, parameters, f"Sweep {found.id}: {what}", [f"sweep:{found.id}"])


def checked_backtest(settings: Settings, request: RunRequest) -> RunConfig:
    """What is asked for, complete. Raises ConfigError, UnknownStrategyError or AmbiguousError."""
    launch.begin_checking(settings, request)
    import tasks.deployments  # noqa: F401 - Prefect loads while the engine does

    progress.report("Checking the request")
    config: RunConfig = default_worker().call("ntrader.resolve:resolve", request, settings.home)
    return config


def checked_sweep(settings: Settings, request: RunRequest, search: SearchRequest) -> tuple[str, list[str]]:
    """A name and tags for its flow run. Raises ConfigError for what cannot be searched.

    Bars that are not here may be where it is run.
    """
    from ntrader.sweeps.config import build_sweep, read_sweep

    sweep: SweepConfig = build_sweep(
        read_sweep(request, search.overrides()), origin=request.config_path or "the request"
    )
    with suppress(DataError):
        launch.checked_sweep(settings, request, search)
    strategy, _ = identity(strategy_path(sweep.base.strategy.path))
    return f"Sweep {strategy} {sweep.name or sweep.base.data.symbol}", [f"strategy:{strategy}"]


def sweep_parameters(request: RunRequest, search: SearchRequest) -> dict[str, Any]:
    """Of the flow `sweep`; periods of the form `last` stay so."""
    return {"request": written_out(portable(request)), "search": search.overrides()}


def _submit(
    settings: Settings, deployment: str, parameters: Mapping[str, Any], name: str, tags: list[str],
    run_id: UUID | None = None,
) -> Submitted:  # fmt: skip
    with launch.reached(settings):
        from tasks.deployments import obstacles, submit

        progress.report("Submitting")
        found = submit(deployment, parameters, name=name, tags=tags, key=str(run_id or uuid4()))
        return Submitted(deployment, found, run_id, tuple(obstacles(deployment)))
