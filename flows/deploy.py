"""Deployments: what is in prefect.yaml, made known to a Prefect server."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from shlex import quote
from typing import Any, Final

import yaml
from prefect import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron, Schedule
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from tasks import schedules
from tasks.pool import POOL

_ENGINE: Final = " -m prefect.engine"


def deploy_all(python: str | None = None) -> list[str]:
    """Make the work pool if it is not there, and bring every deployment up to date. Returns their full names.

    A schedule that somebody has changed or paused stays as it is. With `python`, for workers of this machine only, flow
    runs are started by that interpreter at once.
    """
    _ensure_pool(python)
    names = [_deploy(entry) for entry in yaml.safe_load(_file().read_text())["deployments"]]
    schedules.bring_up_to_date()
    return names


def _file() -> Path:
    """Beside the packages in a checkout, inside this one in an installed wheel."""
    installed = Path(__file__).parent / "prefect.yaml"
    return installed if installed.is_file() else Path(__file__).parent.parent / "prefect.yaml"


def _ensure_pool(python: str | None) -> None:
    with get_client(sync_client=True) as client:
        try:
            template = client.read_work_pool(POOL).base_job_template
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            with suppress(ObjectAlreadyExists):  # another was quicker
                client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        wanted = _with_command(template, python)
        if wanted != template:
            client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=wanted))


def _with_command(template: dict[str, Any], python: str | None) -> dict[str, Any]:
    """The template of a work pool with the command that starts a flow run, unless somebody has chosen another.

    Without one Prefect puts a supervisor and a look at the workspace before each flow run, of which a module needs
    nothing: a few seconds at the start, and ten more until a flow run that was cancelled has ended.
    """
    changed = deepcopy(template)
    command = changed["variables"]["properties"].setdefault("command", {})
    if command.get("default") is None or command["default"].endswith(_ENGINE):
        command["default"] = f"{quote(python)}{_ENGINE}" if python else None
    return changed


def _deploy(entry: dict[str, Any]) -> str:
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    deployment = RunnerDeployment.from_flow(
        flow,
        name=entry["name"],
        description=entry.get("description"),
        tags=entry.get("tags"),
        parameters=entry.get("parameters"),
        schedules=_schedules(flow.name, entry),
        concurrency_limit=_limit(entry),
        job_variables=entry["work_pool"].get("job_variables"),
        work_pool_name=POOL,
        # Not where the file lies: the module is there on every machine that has ntrader.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.apply(work_pool_name=POOL)
    return f"{flow.name}/{entry['name']}"


def _limit(entry: dict[str, Any]) -> ConcurrencyLimitConfig | None:
    limit = entry.get("concurrency_limit")
    return ConcurrencyLimitConfig(**limit) if limit else None


def _schedules(flow: str, entry: dict[str, Any]) -> Sequence[DeploymentScheduleCreate | Schedule]:
    """Those that the server has, where it knows the deployment: what is not sent along is forgotten there."""
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        known = client.read_deployment_by_name(f"{flow}/{entry['name']}").schedules
        return [
            DeploymentScheduleCreate(
                schedule=each.schedule, active=each.active, parameters=each.parameters, slug=each.slug
            )
            for each in known
        ]
    return [
        Cron(each["cron"], timezone=each["timezone"], active=each.get("active", True))
        for each in entry.get("schedules", [])
    ]


if __name__ == "__main__":
    print(*deploy_all(), sep="\n")
