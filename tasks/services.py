"""The services that ntrader starts by itself, seen together: what runs where, and stopping just that."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ntrader.settings import Settings, mask_url
from storage import local
from tasks import pool, server


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service. `where` is a URL or folder with secrets masked; `memory_bytes` is None where not known."""

    name: str
    state: str
    where: str
    pid: int | None
    memory_bytes: int | None
    log: str | None

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def row(self) -> list[str]:
        memory = "-" if self.memory_bytes is None else f"{self.memory_bytes / 1e6:,.0f} MB"
        return [self.name, self.state, self.where, str(self.pid or "-"), memory, self.log or "-"]


def service_states(settings: Settings) -> list[ServiceState]:
    """Starts nothing."""
    states = [_database(settings), _prefect(settings), _worker(settings)]
    if settings.database_url and local.status(settings.home).running:
        # Prefect's tables are there, wherever the runs are.
        states.append(_embedded(settings))
    return states


def stop_services(settings: Settings) -> list[str]:
    """Stop the worker, then the local Prefect server, then the embedded PostgreSQL; the names of what was stopped."""
    stopped = []
    if pool.stop_worker(settings.home):
        stopped.append("Prefect worker")
    if server.stop_server(settings.home):
        stopped.append("Prefect server")
    if local.stop(settings.home):
        stopped.append("embedded PostgreSQL")
    return stopped


def _database(settings: Settings) -> ServiceState:
    if settings.database_url:
        return ServiceState("PostgreSQL", "yours", settings.masked_database_url, None, None, None)
    return _embedded(settings)


def _embedded(settings: Settings) -> ServiceState:
    found = local.status(settings.home)
    name = f"embedded PostgreSQL {found.version}".rstrip()
    state = "running" if found.running else "stopped"
    return ServiceState(name, state, str(found.data_directory), found.pid, found.memory_bytes, str(found.log_file))


def _prefect(settings: Settings) -> ServiceState:
    if settings.prefect_api_url:
        return ServiceState("Prefect server", "yours", mask_url(settings.prefect_api_url), None, None, None)
    found = server.running_server(settings.home)
    log = str(server.log_file(settings.home))
    if found is None:
        return ServiceState("Prefect server", "stopped", "-", None, None, log)
    return ServiceState("Prefect server", "running", found.ui_url, found.pid, _resident(found.pid), log)


def _worker(settings: Settings) -> ServiceState:
    found = pool.running_worker(settings.home)
    log = str(pool.log_file(settings.home))
    if found is None:
        return ServiceState("Prefect worker", "stopped", "-", None, None, log)
    where = f"work pool {pool.POOL}"
    return ServiceState("Prefect worker", "running", where, found.pid, _resident(found.pid), log)


def _resident(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return int(kilobytes) * 1024 if kilobytes else None
