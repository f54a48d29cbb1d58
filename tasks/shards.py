"""Shards: flow runs of a deployment that all work on one recorded sweep, on whatever machines a Prefect work pool has.

What they have done is read from the table of trials; Prefect only says which of them have ended, and how.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from httpx import HTTPError
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling

from ntrader import errors
from ntrader.errors import NtraderError, RunError, ServiceError
from ntrader.settings import Settings
from ntrader.sweeps.runner import RunnerConfig
from storage import sweeps as stored
from storage.sweeps import Counts
from tasks.deployments import DEPLOY_HINT, read_deployment
from tasks.sitting import ChunkReport, Share

if TYPE_CHECKING:
    from tasks.open_sweep import Opening
    from tasks.sitting import Sitting

_LOOK_SECONDS: Final = 2.0
# Nobody holds a trial for so long: shards that say they run do not.
_STALLED_SECONDS: Final = 120.0
# Shards wait, and no worker is there to take them.
_NO_WORKERS_SECONDS: Final = 120.0
_SERVER_SECONDS: Final = 60.0
_STARTED: Final = frozenset({StateType.RUNNING, StateType.CANCELLING})


@dataclass(frozen=True, slots=True)
class Expected:
    """What a shard must find on its machine: this very sweep, and the fingerprints that it was planned with."""

    created_at: str
    code: str
    engine: str
    environment: str


@dataclass(frozen=True, slots=True)
class _Pool:
    """The work pool of a deployment. `online` workers; None where it is one that has none."""

    name: str
    online: int | None


class ShardRunner:
    """A deployment that can be run, and a pool whose workers take its runs."""

    def __init__(self, settings: Settings, config: RunnerConfig, workers: int | None, cores: int) -> None:
        """`cores` are those of a machine, for what is expected. Raises ServiceError where there is no such deployment,
        or nobody who would run it."""
        self._settings = settings
        self._deployment = config.deployment
        self._workers = workers
        self._pool_name = _pool_of(config.deployment)
        pool = _pool(self._pool_name)
        if pool.online == 0:
            raise _without_workers(pool)
        self.width = config.shards or pool.online or 1
        self.processes = self.width * (workers or cores)
        self._out: dict[UUID, str] = {}
        self._dropped: set[UUID] = set()
        self._over: deque[ChunkReport] = deque()
        self._looked = 0.0

    def get_ready(self, sitting: Sitting) -> None:
        """Its processes are there, or start by themselves."""

    def begin(self, opening: Opening, tell: Callable[[int, int], None]) -> None:
        found = stored.get_sweep(self._settings, str(opening.sweep_id))
        sitting = opening.sitting
        self._sweep = found
        self._counts = found.counts
        wall = sitting.sweep.budget.wall
        self._until = None if wall is None else time.monotonic() + wall
        expected = Expected(found.created_at.isoformat(), sitting.code, sitting.engine, sitting.environment)
        self._parameters: dict[str, Any] = {
            "sweep": str(found.id),
            "workers": self._workers,
            "keep_data": sitting.keep_data,
            "expected": asdict(expected),
        }
        self._alive = self._answered = self._manned = time.monotonic()

    def submit(self, share: Share) -> None:
        """A shard takes what it can get: it has no share."""
        seconds = None if self._until is None else max(0.0, self._until - time.monotonic())
        try:
            found: Any = run_deployment(
                self._deployment, parameters=self._parameters | {"seconds": seconds}, as_subflow=True, timeout=0
            )
        except PrefectHTTPStatusError as error:
            text = f"{self._deployment} was not started: {error}"
            raise ServiceError(text, hint=f"Is it of another version of ntrader? {DEPLOY_HINT}") from error
        self._out[found.id] = found.name
        self._alive = time.monotonic()

    def next(self, seconds: float) -> ChunkReport | None:
        until = time.monotonic() + seconds
        while not self._over and time.monotonic() < until:
            if time.monotonic() - self._looked < _LOOK_SECONDS:
                time.sleep(min(seconds, 0.1))
                continue
            self._looked = time.monotonic()
            self._look()
            news = self._news()
            if news is not None:
                return news
        return self._over.popleft() if self._over else None

    def stop(self) -> None:
        """Their workers end them, and what they hold is given back."""
        for shard in self._out:
            self._cancel(shard)
        self._out.clear()

    def _look(self) -> None:
        """Which shards have ended, and whether somebody is there to run the others."""
        shards = self._read()
        for shard in shards:
            if shard.state and shard.state.is_final():
                self._end(shard, shard.state)
        begun = [shard for shard in shards if shard.state_type in _STARTED]
        waiting = [shard for shard in shards if shard.id in self._out and shard not in begun]
        if waiting and self._until is not None and time.monotonic() > self._until:
            self._drop([shard.id for shard in waiting])
        elif waiting and not begun:
            self._require_workers()
        if begun and time.monotonic() - self._alive > _STALLED_SECONDS:
            self._lose([shard.id for shard in begun])

    def _read(self) -> list[FlowRun]:
        try:
            with get_client(sync_client=True) as client:
                found = client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[*self._out])), limit=len(self._out) or 1
                )
        except HTTPError:
            if time.monotonic() - self._answered > _SERVER_SECONDS:
                raise
            return []
        self._answered = time.monotonic()
        return found

    def _end(self, shard: FlowRun, state: State) -> None:
        name = self._out.pop(shard.id, None)
        if name is None or shard.id in self._dropped or state.is_completed():
            self._over.append(ChunkReport())
        elif state.is_crashed():
            # No trial is to be blamed; where others get on, their news say so.
            self._over.append(ChunkReport(crashed=True, stillborn=True))
        elif state.is_cancelled():
            raise RunError(f"shard {name} was cancelled")
        else:
            raise failure_of(name, state)

    def _news(self) -> ChunkReport | None:
        """What has been done since the last time, by whomever."""
        with suppress(NtraderError):
            before, self._counts = self._counts, stored.count_trials(self._settings, self._sweep.id)
            if self._counts.working:
                self._alive = time.monotonic()
            if self._counts.done != before.done:
                self._alive = time.monotonic()
                return self._difference(before)
        return None

    def _difference(self, before: Counts) -> ChunkReport:
        sweep = self._sweep
        first = stored.ranking(self._settings, sweep.id, sweep.objective, sweep.direction, 1)
        return ChunkReport(
            saved=self._counts.done - before.done,
            failed=self._counts.failed - before.failed,
            best=(first[0].metrics[sweep.objective], first[0].trial_number) if first else None,
            over=False,
        )

    def _require_workers(self) -> None:
        with suppress(HTTPError):
            pool = _pool(self._pool_name)
            if pool.online != 0:
                self._manned = time.monotonic()
            elif time.monotonic() - self._manned > _NO_WORKERS_SECONDS:
                raise _without_workers(pool)

    def _drop(self, shards: list[UUID]) -> None:
        """There is no time left for them."""
        self._dropped.update(shards)
        for shard in shards:
            self._cancel(shard)

    def _lose(self, shards: list[UUID]) -> None:
        """Their machines are gone: Prefect takes them for running for ever."""
        left = self._counts.waiting + self._counts.running > 0
        for shard in shards:
            self._cancel(shard)
            del self._out[shard]
            self._over.append(ChunkReport(crashed=left, stillborn=left))
        self._alive = time.monotonic()

    def _cancel(self, shard: UUID) -> None:
        with suppress(HTTPError, ObjectNotFound), get_client(sync_client=True) as client:
            client.set_flow_run_state(shard, Cancelling())


def _pool_of(deployment: str) -> str:
    with get_client(sync_client=True) as client:
        found = read_deployment(client, deployment)
    if not found.work_pool_name:
        raise ServiceError(f"deployment {deployment} belongs to no work pool", hint=DEPLOY_HINT)
    return found.work_pool_name


def _pool(name: str) -> _Pool:
    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(name)
        if pool.is_push_pool or pool.is_managed_pool:
            return _Pool(name, None)
        workers = client.read_workers_for_work_pool(name)
    return _Pool(name, sum(worker.status is WorkerStatus.ONLINE for worker in workers))


def _without_workers(pool: _Pool) -> ServiceError:
    return ServiceError(
        f"no worker of the work pool {pool.name} is online",
        hint=f"Start one on each machine: `prefect worker start --pool {pool.name}`, or `ntrader up` for one here.",
    )


def failure_of(name: str, state: State) -> NtraderError:
    """What the shard raised, as far as Prefect tells: the class and what it said."""
    text = state.message or "Prefect does not say why"
    found = re.search(r"(?s)\b(\w+Error): (.*)", text)
    kind: type[NtraderError] | None = vars(errors).get(found[1]) if found else None
    return kind(f"shard {name}: {found[2]}") if kind and found else RunError(f"shard {name} failed: {text}")
