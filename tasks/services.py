"""The services that ntrader starts by itself, seen together: what runs where, and stopping just that.

Importing this module does not import Prefect.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from ntrader.errors import ServiceError
from ntrader.settings import Settings, mask_url
from storage import local
from storage.database import server_release
from storage.leases import describe, is_alive
from tasks import flow_runs, pool, reaper, server
from tasks.flow_runs import FlowRun
from tasks.prefect_api import PrefectApi

# A server that hangs must not make `ntrader status` hang.
_TIMEOUT: Final = 3.0


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service. `where` is a URL or folder with secrets masked; `memory_bytes`, `uptime_seconds` and `version` are
    None where not known."""

    name: str
    state: str
    where: str
    version: str | None = None
    pid: int | None = None
    memory_bytes: int | None = None
    uptime_seconds: float | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """What runs where. `flow_runs` are those that are not over, `late` how many wait though their time has come;
    `trouble` is why the Prefect server could not be asked."""

    services: list[ServiceState]
    flow_runs: list[FlowRun]
    late: int = 0
    ui_url: str | None = None
    trouble: str | None = None


def overview(settings: Settings) -> Overview:
    """Starts nothing, and answers at once."""
    services = service_states(settings)
    found = reaper.reachable(settings)
    if found is None:
        return Overview(services, [])
    api = PrefectApi(found.url, _TIMEOUT)
    ui_url = _shown(found.url).rstrip("/").removesuffix("/api")
    try:
        return Overview(services, flow_runs.unfinished(api), flow_runs.late(api), ui_url)
    except ServiceError as error:
        return Overview(services, [], ui_url=ui_url, trouble=error.message)


def service_states(settings: Settings) -> list[ServiceState]:
    """Starts nothing."""
    states = [_database(settings), _prefect(settings), _worker(settings)]
    if settings.database_url and local.status(settings.home).running:
        # Prefect's tables are there, wherever the runs are.
        states.append(_embedded(settings))
    return states


def going_on(settings: Settings) -> list[str]:
    """What `stop_services` would interrupt, by name: flow runs of the local server, and those that the local worker
    carries out for another. What is over though it seems to go on does not count."""
    state, worker = server.running_server(settings.home), pool.running_worker(settings.home)
    found = _living(state.api_url) if state else []
    if worker is not None and not (state and worker.facts["api_url"] == state.api_url):
        found += [run for run in _living(worker.facts["api_url"]) if run.worker == worker.facts.get("name")]
    return [run.name for run in found]


def left_waiting(settings: Settings) -> int:
    """How many flow runs of the local server wait for a worker: without one they go on waiting."""
    state = server.running_server(settings.home)
    try:
        return flow_runs.waiting(PrefectApi(state.api_url, _TIMEOUT)) if state else 0
    except ServiceError:
        return 0


def _living(api_url: str) -> list[FlowRun]:
    try:
        found = flow_runs.unfinished(PrefectApi(api_url, _TIMEOUT))
    except ServiceError:  # who does not answer cannot be asked
        return []
    return [run for run in found if is_alive(run.process or "") is not False]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The services that were, and the flow runs that were interrupted, by name."""

    services: list[str]
    interrupted: list[str]


def stop_services(settings: Settings) -> Stopped:
    """Stop the worker and what it runs, then what else runs here for the local Prefect server, then that, then the
    embedded PostgreSQL. What DATABASE_URL and PREFECT_API_URL name is not ours to stop."""
    stopped, interrupted = [], going_on(settings)
    if pool.stop_worker(settings.home):
        stopped.append("Prefect worker")
    while more := _interrupt(settings):  # one may have begun in the meantime
        interrupted += [name for name in more if name not in interrupted]
    with local.closing(settings.home):
        if server.stop_server(settings.home):
            stopped.append("Prefect server")
        if local.stop(settings.home):
            stopped.append("embedded PostgreSQL")
    return Stopped(stopped, interrupted)


def _interrupt(settings: Settings) -> list[str]:
    """What no worker of ours runs: flow runs that have outlived theirs, and commands in other terminals. They get the
    time to write it down that a worker's have; the server and the database are still there."""
    state = server.running_server(settings.home)
    here = [run for run in _living(state.api_url) if is_alive(run.process or "")] if state else []
    for run in here:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(describe(run.process or "")[1]), signal.SIGTERM)
    deadline = time.monotonic() + pool.STOP_SECONDS
    while any(is_alive(run.process or "") for run in here):
        if time.monotonic() > deadline:  # whatever keeps them, what they need will be gone
            return []
        time.sleep(0.05)
    return [run.name for run in here]


def _database(settings: Settings) -> ServiceState:
    if settings.database_url:
        release = server_release(settings.database_url, int(_TIMEOUT))
        return ServiceState(
            "PostgreSQL", "yours" if release else "not answering", settings.masked_database_url, release
        )
    return _embedded(settings)


def _embedded(settings: Settings) -> ServiceState:
    found = local.status(settings.home)
    return ServiceState(
        "embedded PostgreSQL",
        "running" if found.running else "stopped",
        str(found.data_directory),
        found.version or None,
        found.pid,
        found.memory_bytes,
        _uptime(found.pid),
        str(found.log_file),
    )


def _prefect(settings: Settings) -> ServiceState:
    if settings.prefect_api_url:
        url = settings.prefect_api_url
        return ServiceState(
            "Prefect server", "yours", mask_url(url) if "@" in url else url, PrefectApi(url, _TIMEOUT).release()
        )
    log = str(server.log_file(settings.home))
    found = server.running_server(settings.home)
    if found is None:
        hung = server.hung_server(settings.home)
        state = "stopped" if hung is None else "not answering"
        return ServiceState("Prefect server", state, "-", None, hung, _resident(hung), _uptime(hung), log)
    where = found.ui_url if found.is_loopback else f"{found.ui_url}, open to {found.host}"
    release = PrefectApi(found.api_url, _TIMEOUT).release()
    return ServiceState(
        "Prefect server", "running", where, release, found.pid, _resident(found.pid), _uptime(found.pid), log
    )


def _worker(settings: Settings) -> ServiceState:
    log = str(pool.log_file(settings.home))
    found = pool.running_worker(settings.home)
    if found is None:
        return ServiceState("Prefect worker", "stopped", "-", log=log)
    where = f"work pool {pool.POOL} of {_shown(found.facts['api_url'])}"
    return ServiceState(
        "Prefect worker", "running", where, _installed(), found.pid, _resident(found.pid), _uptime(found.pid), log
    )


def _installed() -> str | None:
    try:
        return version("prefect")
    except PackageNotFoundError:
        return None


def _shown(url: str) -> str:
    return mask_url(url) if "@" in url else url


def _resident(pid: int | None) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return int(kilobytes) * 1024 if kilobytes else None


def _uptime(pid: int | None) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return None
