"""The embedded PostgreSQL: a real server in every test, killed at every moment we could think of."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from ntrader.errors import ServiceError
from storage import local

PROJECT = Path(__file__).resolve().parents[2]
ROOT = os.geteuid() == 0
PROC = Path("/proc/self/status").exists()
FIRST_USE = """
import sys
from pathlib import Path
from storage import local
print(local.ensure_running(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def programs() -> Iterator[Path]:
    """PostgreSQL unpacked once, in a folder that every user may pass; the homes of the tests link to it."""
    # Not tmp_path: its names are too long for a socket, and root's is closed to the user of the server.
    folder = Path(tempfile.mkdtemp(prefix="ntrader-pg-"))
    folder.chmod(0o755)
    yield local.find_client(folder, "postgres").parent.parent
    shutil.rmtree(folder)


@pytest.fixture
def new_home(programs: Path) -> Iterator[Callable[..., Path]]:
    """Make homes below a folder of their own, and stop whatever runs in them at the end."""
    folder = Path(tempfile.mkdtemp(prefix="nt-")).resolve()
    homes = []

    def make(name: str = "home", *, unpacked: bool = True) -> Path:
        home = folder / name
        if unpacked:
            (home / "postgresql").mkdir(parents=True)
            (home / "postgresql" / programs.name).symlink_to(programs)
        homes.append(home)
        return home

    yield make
    for home in homes:
        with contextlib.suppress(ServiceError):
            local.stop(home)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def running(programs: Path) -> Iterator[Path]:
    """One server for the tests that only look at it."""
    folder = Path(tempfile.mkdtemp(prefix="nt-")).resolve()
    (folder / "postgresql").mkdir()
    (folder / "postgresql" / programs.name).symlink_to(programs)
    local.ensure_running(folder)
    yield folder
    local.stop(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def worn(programs: Path) -> Iterator[Path]:
    """A data directory that goes from test to test and from crash to crash: initdb takes a second."""
    folder = Path(tempfile.mkdtemp(prefix="nt-")).resolve()
    (folder / "postgresql").mkdir()
    (folder / "postgresql" / programs.name).symlink_to(programs)
    local.ensure_running(folder)
    local.stop(folder)
    yield folder / "postgresql" / "data"
    shutil.rmtree(folder)


@pytest.fixture
def home(new_home: Callable[..., Path], worn: Path) -> Iterator[Path]:
    """A home that has been used before; its server is stopped."""
    home = new_home()
    worn.rename(home / "postgresql" / "data")
    yield home
    local.stop(home)
    (home / "postgresql" / "data").rename(worn)


def ask(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def tell(conninfo: str, command: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(command)


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command, cwd=PROJECT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def pid_of(home: Path) -> int:
    pid = local.status(home).pid
    assert pid is not None
    return pid


def kill(home: Path) -> int:
    """kill -9 the postmaster; it is gone, or a zombie of ours, on return."""
    pid = pid_of(home)
    os.kill(pid, signal.SIGKILL)
    while local.status(home).running:
        time.sleep(0.005)
    return pid


# -- the life of a server ------------------------------------------------------------------------------------


def test_first_use_creates_everything_and_stop_ends_it(new_home: Callable[..., Path]) -> None:
    home = new_home(unpacked=False)
    before = local.status(home)
    assert (before.running, before.pid, before.version, before.memory_bytes) == (False, None, "", None)
    assert not home.exists()
    assert not local.stop(home)
    assert not home.exists()

    conninfo = local.ensure_running(home)

    assert conninfo == local.conninfo(home)
    assert ask(conninfo, "SELECT current_database()") == "ntrader"
    now = local.status(home)
    assert now.running
    assert now.version.split(".")[0] == (now.data_directory / "PG_VERSION").read_text().strip()
    assert now.started_at is not None
    assert abs((datetime.now(UTC) - now.started_at).total_seconds()) < 60
    assert not PROC or (now.memory_bytes or 0) > 5_000_000
    assert now.socket_directory.stat().st_mode & 0o777 == 0o700
    assert now.log_file.is_file()
    assert sorted(path.name for path in (home / "postgresql").iterdir() if "-" in path.name) == []

    assert local.stop(home)
    assert not local.stop(home)
    after = local.status(home)
    assert (after.running, after.pid, after.started_at, after.version) == (False, None, None, now.version)


@pytest.mark.parametrize(
    "name",
    [
        "mit Leerzeichen und Umläuten äöüß",
        'it\'s "quoted", with a comma\\',
        "a/" + "very-long-name/" * 12 + "home",
    ],
    ids=["umlauts", "quotes", "long"],
)
def test_odd_paths(new_home: Callable[..., Path], name: str) -> None:
    home = new_home(name)
    conninfo = local.ensure_running(home)
    assert ask(conninfo, "SELECT 1") == 1
    assert len(os.fsencode(local.status(home).socket_directory)) < 85
    tell(conninfo, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer")
    assert local.stop(home)
    assert ask(local.ensure_running(home), "SELECT answer FROM kept") == 42


def test_two_spellings_of_a_home_are_one_server(running: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(running)
    assert local.conninfo(link) == local.conninfo(running)
    assert pid_of(link) == pid_of(running)


def test_four_first_uses_at_once_give_one_server(new_home: Callable[..., Path]) -> None:
    home = new_home(unpacked=False)
    clients = [python(FIRST_USE, home) for _ in range(4)]
    results = [client.communicate(timeout=60) for client in clients]
    assert [client.returncode for client in clients] == [0] * 4, results
    assert {out.strip() for out, _ in results} == {local.conninfo(home)}
    assert (home / "logs" / "postgresql.log").read_text().count("starting PostgreSQL") == 1
    assert ask(local.conninfo(home), "SELECT 1") == 1


def test_stop_ends_open_sessions(home: Path) -> None:
    with psycopg.connect(local.ensure_running(home)) as connection:
        connection.execute("SELECT 1")
        assert local.stop(home)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_who_wants_the_server_while_all_is_stopped_waits_and_has_a_new_one(home: Path) -> None:
    local.ensure_running(home)
    before = pid_of(home)
    with ThreadPoolExecutor() as pool:
        with local.closing(home):
            wanted = pool.submit(local.ensure_running, home)
            assert local.stop(home)
            with pytest.raises(TimeoutError):
                wanted.result(timeout=0.5)
            assert local.status(home).pid is None
        conninfo = wanted.result(timeout=60)

    assert ask(conninfo, "SELECT 1") == 1
    assert pid_of(home) != before


def test_a_home_that_was_moved_while_the_server_ran_is_still_found(new_home: Callable[..., Path]) -> None:
    old, new = new_home("old"), new_home("new", unpacked=False)
    local.ensure_running(old)
    pid = pid_of(old)
    old.rename(new)
    assert pid_of(new) == pid
    assert ask(local.ensure_running(new), "SELECT 1") == 1
    assert local.stop(new)


# -- what it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("jit", "off"),
        ("wal_compression", "lz4"),
        ("data_checksums", "on"),
        ("unix_socket_permissions", "0700"),
    ],
)
def test_settings(running: Path, name: str, value: str) -> None:
    assert ask(local.conninfo(running), f"SELECT current_setting('{name}')") == value


def test_text_sorts_by_code_point_and_letters_beyond_ascii_have_cases(running: Path) -> None:
    query = "SELECT string_agg(x, '' ORDER BY x) FROM unnest(array['ä', 'a', 'Z', 'b', 'É']) x"
    assert ask(local.conninfo(running), query) == "ZabÉä"
    assert ask(local.conninfo(running), "SELECT upper('ä')") == "Ä"


def test_contrib_is_there(running: Path) -> None:
    tell(local.conninfo(running), "CREATE EXTENSION IF NOT EXISTS pg_trgm")


def test_variables_of_libpq_do_not_mislead_a_start(
    new_home: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = new_home()
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGUSER": "x", "PGDATABASE": "y"}.items():
        monkeypatch.setenv(name, value)
    assert ask(local.ensure_running(home), "SELECT current_user") == "ntrader"


def test_client_programs_work_as_they_are(running: Path) -> None:
    pg_dump = local.find_client(running, "pg_dump")
    done = subprocess.run([pg_dump, "-d", local.conninfo(running)], capture_output=True, text=True)
    assert "PostgreSQL database dump complete" in done.stdout, done.stderr
    with pytest.raises(ServiceError, match="pg_nothing"):
        local.find_client(running, "pg_nothing")


# -- databases and the warm path -----------------------------------------------------------------------------


def test_databases_are_made_on_demand_and_again_when_dropped(running: Path) -> None:
    conninfo = local.ensure_running(running, database="another-One")
    assert ask(conninfo, "SELECT current_database()") == "another-One"
    tell(local.conninfo(running), 'DROP DATABASE "another-One"')
    assert ask(local.ensure_running(running, database="another-One"), "SELECT 1") == 1


@pytest.mark.parametrize("name", ["", "a'b", "a/b", "ü", "x" * 64, "a b"])
def test_a_database_name_that_would_be_trouble_is_refused(running: Path, name: str) -> None:
    with pytest.raises(ServiceError, match="database name"):
        local.ensure_running(running, database=name)


def test_the_warm_path_starts_nothing_and_imports_nothing_heavy(running: Path) -> None:
    code = """
import sys, time
from pathlib import Path
events = []
sys.addaudithook(lambda event, _: events.append(event))
from storage import local
local.ensure_running(Path(sys.argv[1]))
spawned = {"subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn", "os.system"} & set(events)
heavy = {"psycopg", "subprocess", "tempfile", "hashlib", "sqlalchemy", "pg0"} & set(sys.modules)
assert not spawned and not heavy, (spawned, heavy)
assert events.count("socket.connect") == 1
"""
    client = python(code, running)
    assert (client.communicate(timeout=30)[1], client.returncode) == ("", 0)


# -- killed at the wrong moment ------------------------------------------------------------------------------


@pytest.mark.parametrize("signalled", ["client", "group"])
def test_kill_during_initdb(new_home: Callable[..., Path], signalled: str) -> None:
    home = new_home()
    client = python(FIRST_USE, home, start_new_session=True)
    while not list(home.glob("postgresql/data.new-*/base")):
        assert client.poll() is None, client.communicate()
        time.sleep(0.005)
    os.kill(client.pid, signal.SIGKILL) if signalled == "client" else os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    assert not (home / "postgresql" / "data").exists()
    assert ask(local.ensure_running(home), "SELECT 1") == 1


def test_kill_while_unpacking(new_home: Callable[..., Path]) -> None:
    home = new_home(unpacked=False)
    client = python(FIRST_USE, home, start_new_session=True)
    while not list(home.glob("postgresql/unpack-*/.pg0/installation/*")):
        assert client.poll() is None, client.communicate()
        time.sleep(0.001)
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    assert local.find_client(home, "psql").is_file()
    assert not list(home.glob("postgresql/unpack-*"))


def test_kill_of_the_postmaster_loses_nothing(home: Path) -> None:
    conninfo = local.ensure_running(home)
    tell(conninfo, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer")
    with psycopg.connect(conninfo) as idle:
        killed = kill(home)
        assert ask(local.ensure_running(home), "SELECT answer FROM kept") == 42
        assert pid_of(home) != killed
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")


def test_kill_of_the_client_that_started_it_leaves_the_server(home: Path) -> None:
    code = f"{FIRST_USE}\nimport psycopg, time\nc = psycopg.connect(local.conninfo(Path(sys.argv[1])))\n"
    client = python(
        code + "c.execute('SELECT 1'); print('up', flush=True); time.sleep(60)", home, start_new_session=True
    )
    assert client.stdout is not None
    assert [client.stdout.readline().strip() for _ in range(2)][1] == "up"
    pid = pid_of(home)
    os.killpg(client.pid, signal.SIGINT)  # Ctrl-C goes to the whole group; then the worst
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    assert pid_of(home) == pid
    assert ask(local.ensure_running(home), "SELECT 1") == 1


def test_kill_of_a_client_while_it_starts_the_server(home: Path) -> None:
    log = home / "logs" / "postgresql.log"
    client = python(FIRST_USE, home, start_new_session=True)
    while not (log.is_file() and "starting PostgreSQL" in log.read_text()):
        assert client.poll() is None, client.communicate()
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    assert ask(local.ensure_running(home), "SELECT 1") == 1


@pytest.mark.parametrize("content", ["unrelated", "empty"])
def test_a_stale_pid_file(home: Path, content: str) -> None:
    tell(local.ensure_running(home), "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer")
    data, sockets = local.status(home).data_directory, local.status(home).socket_directory
    killed, owner = kill(home), data.stat()
    identity = {"user": owner.st_uid, "group": owner.st_gid} if ROOT else {}
    other = subprocess.Popen(["sleep", "60"], **identity)  # type: ignore[call-overload]
    for path in (data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        text = path.read_text().replace(str(killed), str(other.pid), 1)
        path.write_text(text if content == "unrelated" else "")
    try:
        assert not local.status(home).running
        assert not local.stop(home)
        assert ask(local.ensure_running(home), "SELECT answer FROM kept") == 42
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_lost_its_socket_is_started_anew(home: Path) -> None:
    local.ensure_running(home)
    pid = pid_of(home)
    shutil.rmtree(local.status(home).socket_directory)
    assert ask(local.ensure_running(home), "SELECT 1") == 1
    assert pid_of(home) != pid


def test_a_socket_folder_that_was_opened_to_others_is_closed_again(home: Path) -> None:
    local.ensure_running(home)
    pid, folder = pid_of(home), local.status(home).socket_directory
    folder.chmod(0o755)
    local.ensure_running(home)
    assert pid_of(home) == pid
    assert folder.stat().st_mode & 0o777 == 0o700


# -- what cannot work says so --------------------------------------------------------------------------------


def test_a_failed_start_shows_the_end_of_the_log(home: Path) -> None:
    settings = local.status(home).data_directory / "postgresql.auto.conf"
    settings.write_text("work_mem = 'plenty'\n")
    try:
        with pytest.raises(ServiceError, match="plenty") as caught:
            local.ensure_running(home)
    finally:
        settings.write_text("")
    assert str(local.status(home).log_file) in (caught.value.hint or "")


def test_data_of_another_major_version(new_home: Callable[..., Path]) -> None:
    home = new_home()
    data = home / "postgresql" / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(ServiceError, match=r"PostgreSQL 15, which PostgreSQL 1\d\.\d") as caught:
        local.ensure_running(home)
    assert "pg_upgrade" in (caught.value.hint or "")


def test_a_data_folder_with_something_else_in_it(new_home: Callable[..., Path]) -> None:
    home = new_home()
    (home / "postgresql" / "data").mkdir()
    (home / "postgresql" / "data" / "thesis.txt").touch()
    with pytest.raises(ServiceError, match="neither empty nor a PostgreSQL data directory"):
        local.ensure_running(home)


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServiceError, match="file") as caught:
        local.ensure_running(tmp_path / "file" / "home")
    assert "NTRADER_HOME" in (caught.value.hint or "")


def test_no_binaries() -> None:
    # -S: without site-packages, and so without the wheels.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from storage import local; from ntrader.errors import ServiceError\n"
        "try: local.ensure_running(Path(sys.argv[2]))\n"
        "except ServiceError as error: print(error, '|', error.hint)"
    )
    with tempfile.TemporaryDirectory(prefix="nt-") as folder:
        command = [sys.executable, "-S", "-c", code, str(PROJECT), f"{folder}/home"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert "no PostgreSQL found" in done.stdout, done.stderr
    assert "DATABASE_URL" in done.stdout


def test_a_large_log_is_set_aside(home: Path) -> None:
    log = home / "logs" / "postgresql.log"
    log.parent.mkdir()
    log.touch()
    os.truncate(log, 11 * 1024 * 1024)
    local.ensure_running(home)
    assert log.stat().st_size < 10_000
    assert log.with_name("postgresql.log.1").stat().st_size > 10_000_000


# -- root ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT and PROC), reason="needs root and /proc")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["open", "closed"])
def test_root_runs_it_as_somebody_else(new_home: Callable[..., Path], mode: int) -> None:
    home = new_home()
    home.parent.chmod(mode)
    assert ask(local.ensure_running(home), "SELECT 1") == 1
    lines = Path(f"/proc/{pid_of(home)}/status").read_text().splitlines()
    facts = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert pwd.getpwuid(int(facts["Uid"][0])).pw_name in ("postgres", "nobody")
    assert facts["Groups"] in ([], facts["Gid"][:1])
    # One right at most is kept, and only where the folder is closed: 0x2 is CAP_DAC_OVERRIDE.
    expected = 0 if mode == 0o755 else 2
    assert [int(facts[name][0], 16) for name in ("CapEff", "CapPrm", "CapAmb")] == [expected] * 3
    assert home.parent.stat().st_mode & 0o777 == mode
    assert home.parent.stat().st_uid == 0


@pytest.mark.skipif(not ROOT, reason="needs root")
def test_a_socket_folder_made_by_somebody_else_is_not_trusted(new_home: Callable[..., Path]) -> None:
    home = new_home("long-" * 20)
    folder = local.status(home).socket_directory
    assert folder.parent == Path("/tmp")
    folder.mkdir(mode=0o700)
    try:
        os.chown(folder, 12345, 12345)
        with pytest.raises(ServiceError, match="belongs to another user"):
            local.ensure_running(home)
    finally:
        folder.rmdir()
