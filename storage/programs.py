"""The client programs of PostgreSQL: which to use, and how to tell them the way to the database."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import conninfo as libpq

from ntrader.errors import ServiceError
from ntrader.settings import Settings
from storage import local
from storage.database import CONNECT_TIMEOUT, conninfo

_NEEDED = ("pg_dump", "pg_restore", "psql")
# Where packages put the programs of each version; the plain names in PATH may be those of an older one.
_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Library/PostgreSQL/*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True, slots=True)
class Programs:
    """pg_dump, pg_restore and psql of one version, in one folder; `libraries` is what they need beside them."""

    folder: Path
    major: int
    libraries: Path | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        return [str(self.folder / program), *arguments]

    def environment(self, extra: dict[str, str] | None = None, *, ours: bool = True) -> dict[str, str]:
        """English messages and UTF-8. With `ours` no PG* variable of the caller leads the program elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not (ours and name.startswith("PG"))}
        if self.libraries is not None:
            inherited = kept.get("LD_LIBRARY_PATH")
            kept["LD_LIBRARY_PATH"] = f"{self.libraries}" + (f":{inherited}" if inherited else "")
        return {**kept, "LC_ALL": "C", "PGCLIENTENCODING": "UTF8", **(extra or {})}

    def run(
        self, program: str, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one to its end, however long that takes; it does not outlive an interruption of ours."""
        return subprocess.run(
            self.command(program, *arguments),
            env=environment or self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )


def newest(settings: Settings, at_least: int = 0) -> Programs:
    """The newest programs on this machine: an older pg_dump refuses a newer server, and only the newest pg_restore
    reads every file.

    Raises ServiceError when there are none, or none of the major version `at_least`.
    """
    found = sorted(_found(settings), key=lambda programs: programs.major, reverse=True)
    if found and found[0].major >= at_least:
        return found[0]
    there = f"the newest here are of {found[0].major}, in {found[0].folder}" if found else "there are none here"
    raise ServiceError(
        f"the server is PostgreSQL {at_least}, and needs the client programs of {at_least} or later; {there}"
        if at_least
        else "there are no client programs of PostgreSQL (pg_dump, pg_restore, psql) here",
        hint=f"Install the package postgresql-client-{at_least or 18}, or put its programs into PATH.",
    )


@contextmanager
def way_to(
    settings: Settings, programs: Programs, connection: psycopg.Connection[object] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """A connection string without secrets for the command line, and an environment that holds them.

    Of several hosts only the one that `connection` found is left: what follows concerns that server.
    """
    given = {name: str(value) for name, value in libpq.conninfo_to_dict(conninfo(settings)).items()}
    secrets = {name: given.pop(name) for name in _secret() if name in given}
    password = secrets.pop("password", None)
    extra = {} if password is None else {"PGPASSWORD": password}
    if connection is not None:
        given |= _pinned(given, connection)
    given = {"application_name": "ntrader", "connect_timeout": str(CONNECT_TIMEOUT), **given}
    with tempfile.TemporaryDirectory(prefix="ntrader-") as folder:
        if secrets:
            # No variable exists for these: a service file that we alone may read.
            given["service"] = "ntrader"
            extra["PGSERVICEFILE"] = _service_file(Path(folder), secrets)
        yield libpq.make_conninfo("", **given), programs.environment(extra, ours=settings.embedded)


def _secret() -> list[str]:
    options = psycopg.pq.Conninfo.get_defaults()
    names = [option.keyword.decode() for option in options if option.dispchar == b"*"]
    return [*names, "scram_client_key", "scram_server_key"]


def _pinned(given: dict[str, str], connection: psycopg.Connection[object]) -> dict[str, str]:
    several = "," in given.get("host", "") + given.get("hostaddr", "")
    if not several:
        return {}
    place = {"host": connection.info.host, "port": str(connection.info.port)}
    return place | ({"hostaddr": connection.info.hostaddr} if "hostaddr" in given else {})


def _service_file(folder: Path, values: dict[str, str]) -> str:
    path = folder / "service.conf"
    path.touch(mode=0o600)
    path.write_text("[ntrader]\n" + "".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    return str(path)


def _found(settings: Settings) -> Iterator[Programs]:
    with suppress(ServiceError):
        folder = local.find_client(settings.home, _NEEDED[0]).parent
        yield from _of_version(Programs(folder, 0, folder.parent / "lib"))
    folders = [folder for pattern in _FOLDERS for folder in Path("/").glob(pattern.lstrip("/"))]
    on_path = shutil.which(_NEEDED[0])
    for folder in [*folders, *([Path(on_path).parent] if on_path else [])]:
        yield from _of_version(Programs(folder, 0))


def _of_version(programs: Programs) -> Iterator[Programs]:
    """The same with its version; nothing where one of them is missing or does not run here."""
    if not all((programs.folder / name).is_file() for name in _NEEDED):
        return
    with suppress(OSError):
        said = programs.run(_NEEDED[0], "--version").stdout
        if match := re.search(r"\(PostgreSQL\) (\d+)", said):
            yield Programs(programs.folder, int(match[1]), programs.libraries)
