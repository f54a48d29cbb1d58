"""The local Prefect server: started once in the background, reused by every command, stopped by `ntrader down`.

Prefect's built-in ephemeral server is never used: it takes half a minute a process and loses rows at exit. This one
keeps its tables in the embedded PostgreSQL, in a database of its own, and listens on the loopback address only.
Importing this module does not import Prefect.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

from ntrader import progress
from ntrader.errors import ServiceError
from ntrader.settings import Settings, mask_url
from storage import local
from tasks import processes
from tasks.prefect_api import LoginWantedError
from tasks.processes import Remembered, alone

HOST = "127.0.0.1"
PORT = 4200
DATABASE = "prefect"
START_SECONDS = 180

# Prefect's own settings where ours differ from its defaults; what the environment says wins.
_DEFAULTS = {
    # Task runs are written in batches: three times less work for the server than one by one.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # A worker that is busy starting another flow run takes a while: only after that is one late.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "60",
    # Whoever is to be told of a crash is told within seconds, also where the server was restarted in between.
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "tasks.event_order",
    # Ours keep everything. Flow runs go after thirty days, and with them their task runs, logs and artifacts.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 24 * 3600),
}
# What a server answers who does not like the login.
NO_ENTRY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_IPV6 = 6
_HEALTH_TIMEOUT = 3.0
_FOREIGN_TIMEOUT = 10.0
_LEAST_SPACE = 10_000_000
# uvicorn's own.
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class ServerState:
    """The server as its state file remembers it."""

    process: Remembered

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def started_at(self) -> str:
        return self.process.started_at

    @property
    def api_url(self) -> str:
        return str(self.process.facts["api_url"])

    @property
    def port(self) -> int:
        return urlsplit(self.api_url).port or PORT

    @property
    def ui_url(self) -> str:
        return self.api_url.removesuffix("/api")

    @property
    def host(self) -> str:
        """The address it listens on."""
        return str(self.process.facts.get("host", HOST))

    @property
    def is_loopback(self) -> bool:
        """Whether it listens to this machine alone."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ensure_server(settings: Settings, host: str | None = None) -> str:
    """The API URL to use: PREFECT_API_URL, or that of the local server, which is started if it does not answer.

    With `host` it listens on that address, and one that listens on another is started anew; without, on that it
    listened on before it died, and on the loopback address where it was stopped. Raises ServiceError when it does not
    answer or come up; two commands at once start one server.
    """
    if settings.prefect_api_url:
        require_answer(settings.prefect_api_url)
        return settings.prefect_api_url
    if host is not None:
        _listening(host, ()).close()  # a wrong one is refused before anything is stopped or started
    database = local.ensure_running(settings.home, database=DATABASE)
    state = _fitting_server(settings.home, host)
    if state is not None:
        processes.rotate(log_file(settings.home))
    else:
        with alone(_lock_file(settings.home)):
            state = _fitting_server(settings.home, host)
            if state is None:
                progress.report("Starting the Prefect server, once: this takes about 15 seconds")
                state = _start(settings.home, database, host)
    return state.api_url


def require_server(settings: Settings) -> str:
    """The API URL to use. Raises ServiceError where no server answers; none is started, because one that has just
    started has no deployments."""
    if settings.prefect_api_url:
        require_answer(settings.prefect_api_url)
        return settings.prefect_api_url
    state = running_server(settings.home)
    if state is None:
        raise ServiceError("no Prefect server is running", hint="`ntrader up` starts one, and a worker that obeys it.")
    return state.api_url


def _fitting_server(home: Path, host: str | None) -> ServerState | None:
    state = running_server(home)
    return state if state is not None and host in (None, state.host) else None


def running_server(home: Path) -> ServerState | None:
    """The local server if its process lives and it answers."""
    state = _remembered(home)
    if state is None or not state.process.lives or not _healthy(state.api_url):
        return None
    return state


def is_for_here(settings: Settings) -> bool:
    """Whether nobody but this machine can have a part in it."""
    state = None if settings.prefect_api_url else running_server(settings.home)
    return state is not None and state.is_loopback


def hung_server(home: Path) -> int | None:
    """The pid of a local server that lives but does not answer."""
    state = _remembered(home)
    return None if state is None or not state.process.lives or _healthy(state.api_url) else state.pid


def stop_server(home: Path) -> bool:
    """Stop the local server; False if there was none."""
    with alone(_lock_file(home)):
        state = _remembered(home)
        _state_file(home).unlink(missing_ok=True)
        if state is None or not state.process.lives:
            return False
        processes.terminate(state.process)
        return True


def prepare_client(settings: Settings) -> None:
    """Set what Prefect's client in this process must find in its environment before it is imported.

    Raises ServiceError when its folder cannot be made.
    """
    environment = {
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        # A failing flow would print 77 lines to stderr; our own message says what happened, the server keeps the log.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        # Nor is every event wanted that could not be sent, with all its fields, when a server has gone.
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    }
    if not settings.prefect_api_url:
        environment["PREFECT_HOME"] = str(_folder(settings.home))
        # A local server that does not answer is gone: five tries with growing pauses would take minutes.
        environment["PREFECT_CLIENT_MAX_RETRIES"] = "2"
        environment["PREFECT_API_REQUEST_TIMEOUT"] = "20"
    os.environ.update(environment)


def log_file(home: Path) -> Path:
    return home / "logs" / "prefect-server.log"


def _start(home: Path, database: str, host: str | None) -> ServerState:
    """At the address and port of the former one, if there was any: workers and flows that wait for it find it there."""
    former = _remembered(home)
    if former is not None and former.process.lives:
        processes.terminate(former.process)
    host = host or (former.host if former else HOST)
    with _listening(host, [former.port, PORT] if former else [PORT]) as door:
        api_url = f"http://{_reached_at(host)}:{door.getsockname()[1]}/api"
        process = _spawn(home, host, door, api_url, database)
    with processes.ended_with_us(process):
        # At once: should this process be killed, the next one finds what it has begun.
        state = _remember(home, process.pid, api_url, host)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise _did_not_start(home, process.returncode)
            if _healthy(api_url):
                return state
            time.sleep(0.1)
        raise ServiceError(
            f"the Prefect server did not answer within {START_SECONDS} seconds", hint=f"Its log is {log_file(home)}."
        )


def _reached_at(host: str) -> str:
    """How this machine reaches what listens there."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return HOST
    return f"[{address}]" if address.version == _IPV6 else str(address)


def _did_not_start(home: Path, code: int) -> ServiceError:
    if _is_disk_full(home):
        return ServiceError(f"the disk of {home} is full: the Prefect server did not start", hint="Make room there.")
    return ServiceError(
        f"the Prefect server ended while starting (exit code {code}):{_log_tail(home)}",
        hint=f"Its log is {log_file(home)}.",
    )


def _spawn(home: Path, host: str, door: socket.socket, api_url: str, database: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tasks.serve", str(door.fileno())]
    environment = _server_environment(home, api_url, database)
    if not is_loopback(host):  # a browser elsewhere asks where it has the page from
        environment["PREFECT_SERVER_UI_API_URL"] = "/api"
    return processes.start(command, log=log_file(home), folder=home, environment=environment, files=[door.fileno()])


def _server_environment(home: Path, api_url: str, database: str) -> dict[str, str]:
    # Without the extension Prefect's tables cannot be made; on SQLite it is slower, but it works.
    on_postgresql = {"PREFECT_API_DATABASE_CONNECTION_URL": _asyncpg_url(database)} if _has_trigrams(database) else {}
    return {
        **on_postgresql,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        **{name: os.environ.get(name, value) for name, value in _DEFAULTS.items()},
    }


def _has_trigrams(conninfo: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(conninfo) as connection:
            found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'").fetchone()
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"the embedded PostgreSQL went away: {str(error).strip()}", hint="Somebody may have stopped it. Try again."
        ) from error
    return found is not None


def _asyncpg_url(conninfo: str) -> str:
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(conninfo)
    host = quote(str(parts["host"]), safe="")
    return f"postgresql+asyncpg://{quote(str(parts['user']))}@/{quote(str(parts['dbname']))}?host={host}"


def _listening(host: str, wanted: Sequence[int]) -> socket.socket:
    """At the first port of those wanted, or at any other where they are taken. From here on nobody else can have it:
    what answers there is ours, once it does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServiceError(f"{host} is no address: {error.strerror}", hint="Give one of this machine.") from error
    reason = None
    for port in (*wanted, 0):
        door = socket.socket(family, kind, protocol)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((address[0], port))
            door.listen(_BACKLOG)
        except OSError as error:
            door.close()
            reason = error.strerror
        else:
            return door
    raise ServiceError(f"nothing can listen on {host}: {reason}", hint="Give an address of this machine.")


def _healthy(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=_HEALTH_TIMEOUT) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def require_answer(api_url: str) -> None:
    """Somebody else's server may want a login: whatever it answers, it is there. Raises ServiceError if it does not."""
    shown = mask_url(api_url) if "@" in api_url else api_url
    try:
        with urllib.request.urlopen(f"{api_url.rstrip('/')}/health", timeout=_FOREIGN_TIMEOUT) as answer:
            if answer.read(100).strip() == b"true":
                return
    except urllib.error.HTTPError as error:
        if error.code in NO_ENTRY:
            return
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"no Prefect server answers at PREFECT_API_URL {shown}: {getattr(error, 'reason', error)}",
            hint="Start it, correct PREFECT_API_URL, or unset it to use a local one.",
        ) from error
    raise ServiceError(
        f"what answers at PREFECT_API_URL {shown} is not Prefect's API", hint="Its URL usually ends in /api."
    )


def require_space(settings: Settings) -> None:
    """Raises ServiceError where a local server has no room to write."""
    if not settings.prefect_api_url and _is_disk_full(settings.home):
        raise ServiceError(f"the disk of {settings.home} is full: the Prefect server failed", hint="Make room there.")


def _is_disk_full(home: Path) -> bool:
    return shutil.disk_usage(home).free < _LEAST_SPACE


def login_wanted(api_url: str) -> ServiceError:
    return LoginWantedError(mask_url(api_url))


def _remember(home: Path, pid: int, api_url: str, host: str = HOST) -> ServerState:
    return ServerState(processes.remember(_state_file(home), pid, api_url=api_url, host=host))


def _remembered(home: Path) -> ServerState | None:
    state = processes.remembered(_state_file(home))
    return ServerState(state) if state and "api_url" in state.facts else None


def _folder(home: Path) -> Path:
    folder = home / "prefect"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(
            f"the folder {folder} cannot be made: {error.strerror}", hint="Set NTRADER_HOME to one that can."
        ) from error
    return folder


def _state_file(home: Path) -> Path:
    return home / "prefect" / "server.json"


def _log_tail(home: Path) -> str:
    try:
        lines = log_file(home).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "".join(f"\n  {line}" for line in lines[-5:])


def _lock_file(home: Path) -> Path:
    return _folder(home) / ".lock"
