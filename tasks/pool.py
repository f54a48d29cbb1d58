"""The local Prefect worker: a process in the background that carries out what deployments are asked for.

Importing this module does not import Prefect.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Final

from ntrader import progress
from ntrader.errors import ServiceError
from ntrader.settings import Settings
from tasks import processes
from tasks.processes import Remembered, alone

POOL: Final = "ntrader"
START_SECONDS: Final = 60
# What a flow run's process gets before it is killed: to write down that it was interrupted.
STOP_SECONDS: Final = 30


def ensure_worker(settings: Settings, api_url: str) -> Remembered:
    """Start it if it does not run. Raises ServiceError where it ends at once; two at once start one."""
    found = running_worker(settings.home)
    if found is not None and found.facts.get("api_url") == api_url:
        processes.rotate(log_file(settings.home))
        return found
    with alone(_state_file(settings.home).with_suffix(".lock")):
        found = running_worker(settings.home)
        if found is not None and found.facts.get("api_url") == api_url:
            return found
        if found is not None:  # of a server that has moved
            processes.terminate(found, STOP_SECONDS)
        progress.report("Starting the worker")
        return _start(settings, api_url)


def running_worker(home: Path) -> Remembered | None:
    state = processes.remembered(_state_file(home))
    return state if state is not None and state.lives else None


def stop_worker(home: Path) -> bool:
    """Stop it, and with it what it runs; False if there was none."""
    file = _state_file(home)
    if not file.exists():
        return False
    with alone(file.with_suffix(".lock")):
        state = running_worker(home)
        file.unlink(missing_ok=True)
        if state is None:
            return False
        processes.terminate(state, STOP_SECONDS)
        return True


def log_file(home: Path) -> Path:
    return home / "logs" / "prefect-worker.log"


def _start(settings: Settings, api_url: str) -> Remembered:
    home = settings.home
    log = log_file(home)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    # A name that no other worker has had: what a dead one has left behind is known by it.
    name = f"ntrader-{platform.node()}-{os.getpid()}-{int(time.time())}"
    options = ["--name", name, "--install-policy", "never"]
    size = log.stat().st_size if log.exists() else 0
    process = processes.start([*command, *options], log=log, folder=home, environment=_environment(settings, api_url))
    with processes.ended_with_us(process):
        # At once: should this process be killed, the next one finds what it has begun.
        state = processes.remember(_state_file(home), process.pid, api_url=api_url, name=name)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServiceError(
                    f"the Prefect worker ended while starting (exit code {process.returncode})",
                    hint=f"Its log is {log}.",
                )
            if "started!" in _written(log, size):
                return state
            time.sleep(0.1)
        raise ServiceError(
            f"the Prefect worker did not start within {START_SECONDS} seconds", hint=f"Its log is {log}."
        )


def _environment(settings: Settings, api_url: str) -> dict[str, str]:
    """What it hands on to each flow run: where runs are stored and where Prefect is.

    What `server.prepare_client` has set for a person at a terminal is not for it: it has a log to write, and a server
    that is restarted is waited for.
    """
    database = {"DATABASE_URL": settings.database_url} if settings.database_url else {}
    return {
        **database,
        "NTRADER_HOME": str(settings.home),
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
        # What a flow run says is read in Prefect's pages, not in a terminal.
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        # Somebody waits: it asks for work every 2 seconds, not 10.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # Output to a file is held back otherwise, and the log would lag behind.
        "PYTHONUNBUFFERED": "1",
        # Prefect runs a script of its own that lies beside a module named `storage`, which would be taken for ours.
        "PYTHONSAFEPATH": "1",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR",
        # With a pause of 2 seconds that doubles: some eight minutes.
        "PREFECT_CLIENT_MAX_RETRIES": "8",
    }


def _written(log: Path, since: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _state_file(home: Path) -> Path:
    return home / "prefect" / "worker.json"
