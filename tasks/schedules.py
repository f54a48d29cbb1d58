"""Schedules: what Prefect starts by itself. Each is a deployment of its own, made after the deployment of its flow.

A deployment of its own gives a schedule its own parameters, its own history and its own limit: of two runs of one
schedule the later is cancelled while the earlier is at work. All of it needs Prefect's client to point at a server
already.
"""

from __future__ import annotations

import asyncio
import difflib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.server.schemas import schedules as served
from pydantic import TypeAdapter, ValidationError

from ntrader.errors import AmbiguousError, ConfigError, NotFoundError
from tasks.deployments import FlowRunSeen, newest_flow_run, read_deployment

TAG: Final = "schedule"
_OURS: Final = "ntrader"
_FIELDS: Final = 5
_PAGE: Final = 200
_ANY: Final[TypeAdapter[Any]] = TypeAdapter(served.SCHEDULE_TYPES)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule. `when` is its cron line, or what else Prefect's pages made of it; `next` are the times (UTC) at which
    it is due, none while it is paused; `last` is the latest flow run that was due. `added` says that it was added by
    `ntrader schedule add` and not by prefect.yaml."""

    name: str
    flow: str
    when: str
    timezone: str
    active: bool
    next: tuple[datetime, ...]
    last: FlowRunSeen | None
    added: bool
    description: str | None


def check_cron(cron: str, timezone: str) -> None:
    """Raises ConfigError for what is no cron line, never comes, or is in no time zone there is."""
    _require_timezone(timezone)
    if len(cron.split()) > _FIELDS:
        raise ConfigError(f"--cron {cron!r} has seconds, or too much", hint=_HOW)
    try:
        if not _due(CronSchedule(cron=cron, timezone=timezone), 1):
            raise ValueError("it never comes")
    except ValidationError:
        raise ConfigError(f"--cron {cron!r} is not a cron line", hint=_HOW) from None
    except ValueError:  # such as the 30th of February
        raise ConfigError(f"--cron {cron!r} never comes", hint=_HOW) from None


def check_name(name: str) -> None:
    """Raises ConfigError for one that Prefect does not take."""
    if not name.strip() or _NOT_IN_NAMES & set(name):
        raise ConfigError(f"{name!r} is no name for a schedule", hint="Use letters, digits, spaces and dashes.")


# In a name they would be taken for parts of a URL.
_NOT_IN_NAMES: Final = frozenset("/%&><")
_HOW: Final = "Minute, hour, day of the month, month, day of the week: '30 2 * * 1-5' is 2:30 from Monday to Friday."


def add(
    name: str, flow: str, parameters: Mapping[str, Any], *, cron: str, timezone: str, description: str, replace: bool
) -> Scheduled:
    """After the deployment FLOW/FLOW, whose form, work pool and settings it takes over.

    Raises ConfigError for a name that is taken, unless it is a schedule of this kind and is to be replaced, and
    ServiceError where that deployment is not there.
    """
    with get_client(sync_client=True) as client:
        base = read_deployment(client, f"{flow}/{flow}")
        _require_free(client, name, flow, replace=replace)
        made = client.create_deployment(
            flow_id=base.flow_id,
            name=name,
            version=base.version,
            schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone=timezone))],
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            parameters=dict(parameters),
            description=description,
            work_queue_name=base.work_queue_name,
            work_pool_name=base.work_pool_name,
            tags=[_OURS, TAG],
            path=base.path,
            entrypoint=base.entrypoint,
            parameter_openapi_schema=base.parameter_openapi_schema,
            pull_steps=base.pull_steps,
            enforce_parameter_schema=base.enforce_parameter_schema,
            job_variables=base.job_variables,
        )
        return _read(client, client.read_deployment(made))[0]


def list_all() -> list[Scheduled]:
    """Those that were added and those of prefect.yaml, by name."""
    with get_client(sync_client=True) as client:
        found = [entry for deployment in _deployments(client) for entry in _read(client, deployment)]
    return sorted(found, key=lambda entry: entry.name)


def set_active(name: str, *, active: bool) -> Scheduled:
    """Pause it, or let it go on. Raises NotFoundError."""
    with get_client(sync_client=True) as client:
        deployment = _named(client, name)
        for schedule in deployment.schedules:
            client.update_deployment_schedule(deployment.id, schedule.id, active=active)
        return _read(client, client.read_deployment(deployment.id))[0]


def remove(name: str) -> None:
    """What it has run stays. Raises NotFoundError, and ConfigError for one of prefect.yaml."""
    with get_client(sync_client=True) as client:
        deployment = _named(client, name)
        if TAG not in deployment.tags:
            raise ConfigError(
                f"{name} is not one that was added: it comes from prefect.yaml, and would come back",
                hint=f"`ntrader schedule pause {name}` keeps it from running.",
            )
        client.delete_deployment(deployment.id)


def bring_up_to_date() -> None:
    """Schedules that were added take over what their flow's deployment is now."""
    with get_client(sync_client=True) as client:
        for deployment in _deployments(client):
            if TAG in deployment.tags:
                flow = client.read_flow(deployment.flow_id).name
                base = read_deployment(client, f"{flow}/{flow}")
                client.update_deployment(
                    deployment.id,
                    DeploymentUpdate(
                        version=base.version,
                        entrypoint=base.entrypoint,
                        parameter_openapi_schema=base.parameter_openapi_schema,
                        pull_steps=base.pull_steps,
                        job_variables=base.job_variables,
                    ),
                )


def _require_timezone(timezone: str) -> None:
    known = zoneinfo.available_timezones()
    if timezone not in known:
        near = difflib.get_close_matches(timezone, known, n=1) or [
            zone for zone in sorted(known) if zone.lower().endswith(f"/{timezone.lower()}")
        ]
        hint = f"Did you mean {near[0]}?" if near else "Write it like Europe/London, or UTC."
        raise ConfigError(f"there is no time zone {timezone!r}", hint=hint)


def _require_free(client: SyncPrefectClient, name: str, flow: str, *, replace: bool) -> None:
    same = [entry for entry in _deployments(client) if entry.name == name]
    ours = [entry for entry in same if TAG in entry.tags]
    if len(ours) < len(same):
        raise ConfigError(f"there is a deployment {name} already, in prefect.yaml", hint="Choose another --name.")
    if ours and not replace:
        raise ConfigError(
            f"there is a schedule {name} already", hint="Add --replace to put this one in its place, or give a --name."
        )
    for entry in ours:
        if client.read_flow(entry.flow_id).name != flow:
            client.delete_deployment(entry.id)


def _named(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    scheduled = [entry for entry in _deployments(client) if entry.schedules]
    found = [entry for entry in scheduled if entry.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousError(f"{name!r} fits more than one schedule", hint="Prefect's pages tell them apart.")
    near = difflib.get_close_matches(name, [entry.name for entry in scheduled], n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "`ntrader schedule list` shows what there is."
    raise NotFoundError(f"there is no schedule {name!r}", hint=hint)


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[_OURS]))
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=ours, limit=_PAGE, offset=len(found)):
        found += page
    return found


def _read(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[Scheduled]:
    flow = client.read_flow(deployment.flow_id).name
    last = newest_flow_run(deployment.id, datetime.now(UTC)) if deployment.schedules else None
    return [
        Scheduled(
            name=deployment.name,
            flow=flow,
            when=_when(entry),
            timezone=getattr(entry.schedule, "timezone", None) or "UTC",
            active=entry.active and not deployment.paused,
            next=_due(entry.schedule, 3) if entry.active and not deployment.paused else (),
            last=last,
            added=TAG in deployment.tags,
            description=deployment.description,
        )
        for entry in deployment.schedules
    ]


def _when(entry: DeploymentSchedule) -> str:
    schedule = entry.schedule
    if isinstance(schedule, CronSchedule):
        return schedule.cron
    interval = getattr(schedule, "interval", None)
    return f"every {interval}" if interval else str(getattr(schedule, "rrule", schedule))


def _due(schedule: Any, count: int) -> tuple[datetime, ...]:
    """As the server reckons it, clock changes included."""
    same = _ANY.validate_python(schedule.model_dump())
    return tuple(moment.astimezone(UTC) for moment in asyncio.run(same.get_dates(count)))
