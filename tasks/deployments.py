"""Deployments as they are asked to run: a flow run submitted, found again, and how far it is.

All of it needs Prefect's client to point at a server already (`flows.launch.reached`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from httpx import HTTPStatusError
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterName,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Scheduled
from prefect.utilities.urls import url_for

from ntrader.errors import AmbiguousError, NotFoundError, ServiceError
from tasks.flow_runs import LAST
from tasks.pool import POOL

# So many flow runs, the newest first, are looked through for the beginning of an id.
_LOOKED_THROUGH: Final = 200
_MIN_PREFIX: Final = 4
# Clocks of two machines differ.
_SOON: Final = timedelta(seconds=5)
DEPLOY_HINT: Final = "`ntrader up` makes it known there; with a server of your own, `prefect deploy --all`."


@dataclass(frozen=True, slots=True)
class FlowRunSeen:
    """A flow run at one moment. `state` is the name that Prefect's pages show (Late, Running, Cancelled ...), `waits`
    that it has not begun, `ended` and `succeeded` what it comes to; `url` is its page."""

    id: UUID
    name: str
    state: str
    message: str | None
    waits: bool
    ended: bool
    succeeded: bool
    tags: tuple[str, ...]
    url: str
    expected: datetime | None
    pool: str | None

    @property
    def run_id(self) -> UUID | None:
        """Of the run that it makes, as far as it is known; the latest where it was tried again."""
        return _whole_id(self._tagged("run") or "")

    @property
    def sweep_id(self) -> int | None:
        found = self._tagged("sweep")
        return int(found) if found and found.isdecimal() else None

    def _tagged(self, kind: str) -> str | None:
        return next((tag.partition(":")[2] for tag in reversed(self.tags) if tag.startswith(f"{kind}:")), None)


def submit(deployment: str, parameters: Mapping[str, Any], *, name: str, tags: Iterable[str], key: str) -> FlowRunSeen:
    """Ask a deployment, by its full name, to run now. Of two calls with the same `key` one makes a flow run.

    Raises ServiceError where the server does not know it, or it does not take such parameters.
    """
    with get_client(sync_client=True) as client:
        found = read_deployment(client, deployment)
        try:
            made = client.create_flow_run_from_deployment(
                found.id, parameters=dict(parameters), state=Scheduled(), name=name, tags=tags, idempotency_key=key
            )
        except HTTPStatusError as error:
            raise _not_taken(deployment, error) from error
    return _seen(made)


def read_deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    """By its full name. Raises ServiceError where the server does not know it."""
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        raise ServiceError(
            f"the Prefect server at {client.api_url} has no deployment {name}", hint=DEPLOY_HINT
        ) from None


def obstacles(deployment: str) -> list[str]:
    """Why a flow run of it would wait: nobody works, or somebody has paused something."""
    with get_client(sync_client=True) as client:
        found = read_deployment(client, deployment)
        return _obstacles(client, found.work_pool_name) + (
            [f"The deployment {deployment} is paused."] if found.paused else []
        )


def flow_run_obstacles(flow_run: FlowRunSeen) -> list[str]:
    """The same of one that has not begun; nothing where it has."""
    if not flow_run.waits:
        return []
    with get_client(sync_client=True) as client:
        return _obstacles(client, flow_run.pool)


def read_flow_run(flow_run_id: UUID) -> FlowRunSeen | None:
    with get_client(sync_client=True) as client:
        try:
            return _seen(client.read_flow_run(flow_run_id))
        except ObjectNotFound:
            return None


def find_flow_run(reference: str) -> FlowRunSeen:
    """By its id, its name, or the Run ID that it was given, or by the beginning of either id.

    Raises NotFoundError, or AmbiguousError listing the candidates.
    """
    with get_client(sync_client=True) as client:
        found = {run.id: run for run in _candidates(client, reference.strip())}
    if not found:
        raise NotFoundError(
            f"there is no run and no flow run {reference!r}",
            hint="`ntrader history list` and Prefect's pages (`ntrader status`) show what there is.",
        )
    if len(found) > 1:
        lines = "".join(f"\n  {run.id}  {run.state_name}  {run.name}" for run in list(found.values())[:5])
        raise AmbiguousError(f"{reference!r} fits more than one flow run:{lines}", hint="Give its whole id.")
    return _seen(next(iter(found.values())))


def newest_flow_run(deployment_id: UUID, before: datetime) -> FlowRunSeen | None:
    """Of a deployment, the latest that was due by then."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment_id]),
                expected_start_time={"before_": before},
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=1,
        )
    return _seen(runs[0]) if runs else None


def _candidates(client: SyncPrefectClient, reference: str) -> list[FlowRun]:
    if reference == LAST:
        return _latest(client)
    whole = _whole_id(reference)
    if whole is not None:
        try:
            return [client.read_flow_run(whole)]
        except ObjectNotFound:
            return _newest(client, FlowRunFilter(tags=FlowRunFilterTags(all_=[f"run:{whole}"])), 1)
    if reference.startswith(("sweep:", "run:")):
        return _newest(client, FlowRunFilter(tags=FlowRunFilterTags(all_=[reference])), 1)
    named = _newest(client, FlowRunFilter(name=FlowRunFilterName(any_=[reference])), 2)
    if named or len(reference) < _MIN_PREFIX:
        return named
    digits = reference.lower()
    return [run for run in _newest(client, None, _LOOKED_THROUGH) if _begins(run, digits)]


def _latest(client: SyncPrefectClient) -> list[FlowRun]:
    """Of ours, the one that was due last; those that schedules have planned for later are not."""
    due = FlowRunFilter(expected_start_time={"before_": datetime.now(UTC) + _SOON})
    found = _newest(client, due, _LOOKED_THROUGH)
    return [run for run in found if run.work_pool_name == POOL or any(":" in tag for tag in run.tags)][:1]


def _begins(run: FlowRun, digits: str) -> bool:
    return str(run.id).startswith(digits) or any(tag.startswith(f"run:{digits}") for tag in run.tags)


def _newest(client: SyncPrefectClient, wanted: FlowRunFilter | None, limit: int) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=limit)


def _whole_id(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None


def _obstacles(client: SyncPrefectClient, pool: str | None) -> list[str]:
    if pool is None:
        return ["It belongs to no work pool, so no worker will take it up."]
    try:
        paused = client.read_work_pool(pool).is_paused
        workers = client.read_workers_for_work_pool(pool)
    except ObjectNotFound:
        return [f"There is no work pool {pool}. {DEPLOY_HINT}"]
    online = any(worker.status is WorkerStatus.ONLINE for worker in workers)
    none = f"No worker polls the work pool {pool}: it waits until one is started, by `ntrader up` for one here."
    return [*([] if online else [none]), *([f"The work pool {pool} is paused."] if paused else [])]


def _not_taken(deployment: str, error: HTTPStatusError) -> ServiceError:
    try:
        reason = error.response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        reason = str(error)
    return ServiceError(
        f"{deployment} was not started: {reason}",
        hint=f"Is the deployment of another version of ntrader? {DEPLOY_HINT}",
    )


def _seen(run: FlowRun) -> FlowRunSeen:
    state = run.state
    return FlowRunSeen(
        id=run.id,
        name=run.name,
        state=state.name or state.type.value.capitalize() if state else "Unknown",
        message=state.message or None if state else None,
        waits=state.is_scheduled() if state else True,
        ended=state.is_final() if state else False,
        succeeded=state.is_completed() if state else False,
        tags=tuple(run.tags),
        url=url_for("flow-run", obj_id=run.id) or "",
        expected=run.expected_start_time,
        pool=run.work_pool_name,
    )
