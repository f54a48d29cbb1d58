"""open-sweep: from what was asked for to trials that wait in the database; an unfinished sweep of the kind goes on."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import batched, chain, islice
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from prefect import task
from prefect.cache_policies import NO_CACHE
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from ntrader import progress
from ntrader.config import RunRequest
from ntrader.errors import EngineKilledError
from ntrader.settings import Settings
from ntrader.strategies.registry import identity
from ntrader.sweeps.config import SweepConfig, grid_size, read_sweep
from ntrader.sweeps.points import Planned, Point, points
from ntrader.sweeps.standing import Estimate, estimate
from ntrader.sweeps.tpe import TpeSampler
from ntrader.worker import default_worker
from storage import sweeps as stored
from storage import trials
from storage.sweeps import NewSweep, StoredSweep
from tasks.sitting import VERSIONS, Sitting, require_same_sweep, require_same_versions

if TYPE_CHECKING:
    from ntrader.sweeps.trials import Outlook

# So many points are planned at once: what passes between the processes stays small, however many trials there are. The
# first ones tell whether anything has to be run at all.
_SLICE = 1_000
_FIRST_SLICE = 100
_TRIES = 3
# Seconds after which it is better to begin than to know.
_LONGEST_PROBE = 10.0


GetReady = Callable[[Sitting], None]


@dataclass(frozen=True, slots=True)
class Opening:
    """A sweep that is ready to be worked on. `resumed` says that it was there before; `link` that runs of the past
    count."""

    sitting: Sitting
    sweep_id: int
    resumed: bool
    link: bool
    estimate: Estimate


def read(settings: Settings, request: RunRequest, search: Mapping[str, Any]) -> SweepConfig:
    """The sweep that is asked for, complete and checked. Raises ConfigError for what cannot be searched."""
    raw = read_sweep(request, search)
    origin = request.config_path or "the request"
    sweep: SweepConfig = default_worker().call("ntrader.sweeps.trials:prepare", raw, settings.home, origin)
    return sweep


@task(name="open-sweep", cache_policy=NO_CACHE)
def open_sweep(
    settings: Settings, sweep: SweepConfig, workers: int, *, config_path: str | None, rerun: bool, keep_data: bool,
    flow_run_id: UUID | None, get_ready: GetReady | None = None,
) -> Opening:  # fmt: skip
    """Write down the sweep and its trials, all or nothing; or take up the one that was left unfinished. `get_ready` is
    called as soon as it is known that something is to be run."""
    found = stored.find_unfinished(settings, sweep.fingerprint, rerun=rerun)
    sitting = _sit_down(settings, sweep, config_path=config_path, keep_data=keep_data, flow_run_id=flow_run_id)
    if found is None:
        progress.report("Planning the trials")
        sweep_id = _create(settings, sitting, rerun, get_ready)
    else:
        sweep_id = found.id
        take_up(settings, replace(sitting, sweep_id=sweep_id), get_ready, link=not rerun)
    sitting = replace(sitting, sweep_id=sweep_id)
    stored.begin_sitting(settings, sweep_id, flow_run_id)
    return Opening(sitting, sweep_id, found is not None, not rerun, _estimate(settings, sitting, workers))


@task(name="reopen-sweep", cache_policy=NO_CACHE)
def reopen_sweep(
    settings: Settings, found: StoredSweep, workers: int, *, keep_data: bool, flow_run_id: UUID | None,
    get_ready: GetReady | None = None,
) -> Opening:  # fmt: skip
    """The same for a sweep that is in the database."""
    sweep: SweepConfig = default_worker().call(
        "ntrader.sweeps.trials:prepare", found.config_snapshot, settings.home, f"sweep {found.id}"
    )
    sitting = _sit_down(settings, sweep, config_path=found.config_path, keep_data=keep_data, flow_run_id=flow_run_id)
    sitting = replace(sitting, sweep_id=found.id)
    take_up(settings, sitting, get_ready, link=not found.rerun)
    stored.begin_sitting(settings, found.id, flow_run_id)
    return Opening(sitting, found.id, True, not found.rerun, _estimate(settings, sitting, workers))


@task(name="join-sweep", cache_policy=NO_CACHE)
def join_sweep(
    settings: Settings, reference: str, workers: int, *, keep_data: bool, expected: Mapping[str, str] | None,
    flow_run_id: UUID | None,
) -> Opening:  # fmt: skip
    """The same beside others who are at work on it: nothing is planned anew, for they have planned it.

    Raises ConfigError where this is not the sweep, or code, engine or environment are not those, that are `expected`.
    """
    if expected:
        require_same_sweep(settings, int(reference), datetime.fromisoformat(expected["created_at"]))
    found = stored.get_sweep(settings, reference)
    sweep: SweepConfig = default_worker().call(
        "ntrader.sweeps.trials:prepare", found.config_snapshot, settings.home, f"sweep {found.id}"
    )
    sitting = _sit_down(settings, sweep, config_path=found.config_path, keep_data=keep_data, flow_run_id=flow_run_id)
    sitting = replace(sitting, sweep_id=found.id)
    if expected:
        require_same_versions(found.id, {name: getattr(sitting, name) for name in VERSIONS}, expected)
    trials.reclaim(settings, found.id)
    return Opening(sitting, found.id, True, not found.rerun, _estimate(settings, sitting, workers))


def take_up(settings: Settings, sitting: Sitting, get_ready: GetReady | None, *, link: bool) -> None:
    """Trials of dead processes wait again, and waiting ones are planned anew: code or data may have changed."""
    progress.report("Looking at what is left")
    trials.reclaim(settings, sitting.sweep_id)
    last = -1
    while waiting := stored.waiting_points(settings, sitting.sweep_id, last, _SLICE):
        if get_ready and last < 0:
            get_ready(sitting)
        stored.plan_again(settings, sitting.sweep_id, plan(settings, sitting, waiting), link=link)
        last = waiting[-1].number


def plan(settings: Settings, sitting: Sitting, some: Iterable[Point]) -> list[Planned]:
    """Their run keys, worked out where the engine is loaded; once more where that process is killed."""
    again = Retrying(retry=retry_if_exception_type(EngineKilledError), stop=stop_after_attempt(_TRIES), reraise=True)
    wanted = list(some)
    keys: list[str] = again(
        default_worker().call, "ntrader.sweeps.trials:plan", sitting.session, sitting.sweep, settings.home, wanted
    )
    return [Planned(point, key) for point, key in zip(wanted, keys, strict=True)]


def foresee(settings: Settings, sweep: SweepConfig, workers: int) -> Estimate:
    """What to expect of a sweep, without writing anything down."""
    sitting = _sit_down(settings, sweep, config_path=None, keep_data=False, flow_run_id=None)
    known, total = 0, 0
    if sweep.sampler != "tpe":
        for some in batched(points(sweep), _SLICE):
            planned = plan(settings, sitting, some)
            known += stored.count_known(settings, [each.run_key for each in planned])
            total += len(planned)
    return _foreseen(settings, sitting, workers, total or _most_trials(sweep), known)


def sampler_version(sweep: SweepConfig) -> str | None:
    """Of the library that draws the points, where one does."""
    return f"optuna {importlib.metadata.version('optuna')}" if sweep.sampler == "tpe" else None


def _sit_down(
    settings: Settings, sweep: SweepConfig, *, config_path: str | None, keep_data: bool, flow_run_id: UUID | None
) -> Sitting:
    session = uuid4().hex
    prints: dict[str, str] = default_worker().call("ntrader.sweeps.trials:planned_with", session, sweep, settings.home)
    name, kind = identity(sweep.base.strategy.path)
    return Sitting(session, 0, sweep, name, kind, **prints, config_path=config_path, flow_run_id=flow_run_id,
                   keep_data=keep_data)  # fmt: skip


def _create(settings: Settings, sitting: Sitting, rerun: bool, get_ready: GetReady | None) -> int:
    sweep = sitting.sweep
    new = NewSweep(
        fingerprint=sweep.fingerprint,
        strategy_name=sitting.strategy_name,
        config_snapshot=sweep.snapshot(),
        objective=sweep.objective,
        direction=sweep.direction,
        sampler=sweep.sampler,
        trials=_most_trials(sweep) if sweep.sampler == "tpe" else sum(1 for _ in points(sweep)),
        rerun=rerun,
        name=sweep.name,
        config_path=sitting.config_path,
        sampler_version=sampler_version(sweep),
        flow_run_id=sitting.flow_run_id,
    )
    plans = _plans(settings, sitting)
    first = next(plans, [])
    if get_ready and first and (rerun or stored.count_known(settings, [each.run_key for each in first]) < len(first)):
        get_ready(sitting)
    return stored.create_sweep(settings, new, chain([first], plans))


def _plans(settings: Settings, sitting: Sitting) -> Iterator[list[Planned]]:
    sweep = sitting.sweep
    wanted = iter(TpeSampler(sweep).ask() if sweep.sampler == "tpe" else points(sweep))
    yield plan(settings, sitting, list(islice(wanted, _FIRST_SLICE)))
    for some in batched(wanted, _SLICE):
        yield plan(settings, sitting, some)


def _most_trials(sweep: SweepConfig) -> int:
    sizes = [size for size in (sweep.budget.trials, grid_size(sweep)) if size is not None]
    return min(sizes) if sizes else 1


def _estimate(settings: Settings, sitting: Sitting, workers: int) -> Estimate:
    counts = stored.count_trials(settings, sitting.sweep_id)
    there = counts.waiting + counts.running + counts.done
    total = max(there, _most_trials(sitting.sweep)) if sitting.sweep.sampler == "tpe" else there
    return _foreseen(settings, sitting, workers, total, counts.done)


def _foreseen(settings: Settings, sitting: Sitting, workers: int, total: int, known: int) -> Estimate:
    sweep = sitting.sweep
    first = next(points(sweep))
    ahead = _look_ahead(settings, sitting, first, probe=False)
    symbol = first.symbol or sweep.base.data.symbol
    recorded = stored.recorded_seconds(settings, sweep.base.strategy.path, symbol, ahead.bars)
    per_trial = _probed(settings, sitting, first) if recorded is None and known < total else recorded
    return estimate(
        total, known, workers, per_trial, recorded=recorded is not None, memory=ahead.memory,
        observations=ahead.days, annualization=ahead.annualization,
    )  # fmt: skip


def _probed(settings: Settings, sitting: Sitting, first: Point) -> float | None:
    """The seconds of a trial by a probe; None where it does not come to an end, or ends its process."""
    limit = threading.Timer(_LONGEST_PROBE, default_worker().kill)
    limit.start()
    try:
        return _look_ahead(settings, sitting, first, probe=True).seconds
    except EngineKilledError:
        return None
    finally:
        limit.cancel()


def _look_ahead(settings: Settings, sitting: Sitting, first: Point, *, probe: bool) -> Outlook:
    outlook: Outlook = default_worker().call(
        "ntrader.sweeps.trials:look_ahead", sitting.session, sitting.sweep, settings.home, first, probe
    )
    return outlook
