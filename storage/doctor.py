"""What is wrong with the database, and how to mend it. Looks only: every query runs in a read-only transaction.

The one thing that may be started is the embedded PostgreSQL, because a server that is down cannot be asked.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

from ntrader.errors import ConfigError, NtraderError
from ntrader.settings import Settings
from storage import local
from storage.database import (
    BAD_LOGIN,
    HEAD,
    NO_CONNECTION_LEFT,
    NO_DATABASE,
    connect,
    parse_url,
    schema_error,
    schema_version,
    translate,
)
from storage.leases import is_alive

if TYPE_CHECKING:
    from sqlalchemy import Table

OLDEST_VERSION = 16
LONG_QUERY_SECONDS = 60
CLOCK_SECONDS = 5
LITTLE_SPACE, NO_SPACE = 1_000_000_000, 100_000_000
LITTLE_MEMORY = 200_000_000
MANY_ROWS = 10_000
DEAD_SHARE = 0.2
NEARLY_FULL = 0.9
SHORT_TIMEOUT = 1_000

# What guards finished runs and remembers deleted ones, table by table (alembic/versions).
TRIGGERS = {
    "backtest_runs": ("finished_runs_are_immutable", "deleted_runs_are_remembered", "backtest_runs_stay_whole"),
    "deleted_runs": ("deleted_runs_are_immutable", "deleted_runs_stay", "deleted_runs_stay_whole"),
    **{
        table: (f"{table}_are_immutable", f"{table}_stay", f"{table}_stay_whole")
        for table in ("performance_metrics", "equity_curves", "trades", "fills")
    },
    **{table: (f"{table}_are_immutable", f"{table}_stay_whole") for table in ("sweeps", "trials")},
}


class State(StrEnum):
    """How a check went; `skipped` is one that an earlier trouble makes impossible."""

    ok = "ok"
    warning = "warning"
    wrong = "wrong"
    skipped = "skipped"


class Verdict(NamedTuple):
    """What a check found, with the value, and the next step where there is one."""

    state: State
    found: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the doctor's table."""

    name: str
    state: State
    found: str
    fix: str

    @classmethod
    def of(cls, name: str, verdict: Verdict) -> Finding:
        # Some messages carry the end of a log: a table has one line for each.
        return cls(name, verdict.state, " ".join(verdict.found.split()), " ".join(verdict.fix.split()))

    def document(self) -> dict[str, str]:
        return asdict(self)


class Session(NamedTuple):
    """What a check may look at."""

    connection: psycopg.Connection[dict[str, Any]]
    settings: Settings

    def rows(self, query: str, **values: object) -> list[dict[str, Any]]:
        return self.connection.execute(query, values or None).fetchall()

    def row(self, query: str, **values: object) -> dict[str, Any]:
        return self.rows(query, **values)[0]


def ok(found: str) -> Verdict:
    return Verdict(State.ok, found)


def warning(found: str, fix: str) -> Verdict:
    return Verdict(State.warning, found, fix)


def wrong(found: str, fix: str) -> Verdict:
    return Verdict(State.wrong, found, fix)


def skipped(found: str) -> Verdict:
    return Verdict(State.skipped, found)


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which to mend things. Never raises what it was asked to find."""
    here = [Finding.of("Disk", _disk(settings.home)), Finding.of("Recording", _recording(settings))]
    try:
        url = _url(settings)
        running = settings.embedded and local.status(settings.home).running
        connection = connect(settings)
    except ConfigError as error:
        return [*_stopped_at("DATABASE_URL", error), *here]
    except NtraderError as error:
        return [Finding.of("DATABASE_URL", url), *_stopped_at(_door(error), error)[1:], *here]
    with closing(connection):
        session = Session(connection, settings)
        return [
            Finding.of("DATABASE_URL", url),
            Finding.of("Server", _server(session, running=running)),
            Finding.of("Login", ok(f"as {connection.info.user}")),
            Finding.of("Database", ok(connection.info.dbname)),
            *_asked(session),
            *here,
        ]


# -- getting in ----------------------------------------------------------------------------------------------


def _url(settings: Settings) -> Verdict:
    if settings.database_url is None:
        return ok("not set: the embedded PostgreSQL is used")
    parse_url(settings.database_url)
    return ok(settings.masked_database_url)


def _server(session: Session, *, running: bool) -> Verdict:
    settings, info = session.settings, session.connection.info
    if settings.embedded:
        return ok(f"embedded, in {settings.home}, {'running' if running else 'started just now'}")
    return ok(f"{info.host or 'socket'}, port {info.port}")


def _door(error: NtraderError) -> str:
    """The check at which the connection was turned away: a server lets in step by step."""
    text = str(error.__cause__)
    doors = {"Login": BAD_LOGIN, "Database": NO_DATABASE, "Connections": NO_CONNECTION_LEFT}
    return next((door for door, sign in doors.items() if sign.search(text)), "Server")


def _stopped_at(door: str, error: NtraderError) -> list[Finding]:
    """What comes before the trouble is in order; what comes after cannot be asked."""
    passed = [] if door == "DATABASE_URL" else ["DATABASE_URL", *_PASSED[door]]
    verdicts = {name: ok("answers" if name == "Server" else "accepted") for name in passed}
    verdicts[door] = wrong(error.message, error.hint or "")
    rest = skipped(f"needs {door}")
    names = [*_DOORS, *(check.name for check in _CHECKS)]
    return [Finding.of(name, verdicts.get(name, rest)) for name in names]


_DOORS = ("DATABASE_URL", "Server", "Login", "Database")
# A server that is full says so before it looks at the password.
_PASSED = {"Server": [], "Connections": ["Server"], "Login": ["Server"], "Database": ["Server", "Login"]}


# -- asking --------------------------------------------------------------------------------------------------


def _asked(session: Session) -> Iterator[Finding]:
    try:
        ours = _transaction(session, lambda each: schema_version(each.connection)) == HEAD
    except psycopg.Error:
        ours = False
    for check in _CHECKS:
        if check.needs_tables and not ours:
            yield Finding.of(check.name, skipped("needs Schema"))
        else:
            yield Finding.of(check.name, _carried_out(check, session))


def _carried_out(check: _Check, session: Session) -> Verdict:
    try:
        return _transaction(session, check.examine)
    except psycopg.Error as error:
        trouble = translate(error, session.settings)
        return wrong(trouble.message, trouble.hint or "")


def _transaction[T](session: Session, action: Callable[[Session], T]) -> T:
    with session.connection.transaction():
        # Said for each, because a pooler between us may hand every transaction to another session.
        session.connection.execute("SET TRANSACTION READ ONLY")
        session.connection.execute("SET LOCAL statement_timeout = '10s'")
        return action(session)


def _version(session: Session) -> Verdict:
    name = session.row("SHOW server_version")["server_version"].partition(" ")[0]
    return _version_verdict(name, session.connection.info.server_version // 10_000)


def _version_verdict(name: str, major: int) -> Verdict:
    if major < OLDEST_VERSION:
        return wrong(f"PostgreSQL {name}", f"Upgrade the server to PostgreSQL {OLDEST_VERSION} or later.")
    return ok(f"PostgreSQL {name}")


def _clock(session: Session) -> Verdict:
    before = time.time()
    server = float(session.row("SELECT extract(epoch FROM clock_timestamp()) AS now")["now"])
    ahead = server - (before + time.time()) / 2
    if abs(ahead) < CLOCK_SECONDS:
        return ok("server and this machine agree")
    way = "ahead of" if ahead > 0 else "behind"
    return warning(
        f"the server is {abs(ahead):,.0f} s {way} this machine", "Set both by NTP: times of runs are the server's."
    )


def _schema(session: Session) -> Verdict:
    found = schema_version(session.connection)
    if found == HEAD:
        return ok(found)
    if session.settings.embedded and (found or "") < HEAD:
        return ok(f"{found or 'no tables yet'}; the next command that needs the tables brings them to {HEAD}")
    error = schema_error(found)
    return wrong(error.message, error.hint or "")


def _leftovers(session: Session) -> Verdict:
    if schema_version(session.connection) is not None:
        return ok("none")
    there = [name for name in _tables() if _exists(session, name)]
    if not there:
        return ok("none")
    return wrong(
        f"{', '.join(there)} exist already, but no migration on record made them",
        "Use an empty database, or rename what is in the way, then run `ntrader db upgrade`.",
    )


def _columns(session: Session) -> Verdict:
    missing = [problem for table in _tables().values() for problem in _missing(session, table)]
    if missing:
        return wrong(f"missing: {', '.join(missing)}", "Restore a backup, or begin anew in an empty database.")
    return ok(f"{len(_tables())} tables, every column there")


def _missing(session: Session, table: Table) -> list[str]:
    if not _exists(session, table.name):
        return [table.name]
    rows = session.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped",
        table=table.name,
    )
    there = {row["attname"] for row in rows}
    return [f"{table.name}.{column.name}" for column in table.columns if column.name not in there]


def _indexes(session: Session) -> Verdict:
    rows = session.rows(
        "SELECT indexrelid::regclass::text AS name, indisvalid AND indisready AS valid FROM pg_index"
        " WHERE indrelid = ANY(SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) name)",
        tables=list(_tables()),
    )
    valid = {row["name"].rpartition(".")[2].strip('"'): row["valid"] for row in rows}
    broken = [name for name, good in valid.items() if not good]
    if broken:
        return wrong(f"not valid: {', '.join(broken)}", " ".join(f"REINDEX INDEX {name};" for name in broken))
    wanted = {str(index.name): index for table in _tables().values() for index in table.indexes}
    gone = [name for name in wanted if name not in valid]
    if gone:
        return wrong(f"missing: {', '.join(gone)}", " ".join(_create(wanted[name]) for name in gone))
    return ok(f"{len(valid)}, all valid")


def _triggers(session: Session) -> Verdict:
    rows = session.rows(
        "SELECT tgrelid::regclass::text AS name, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"
        " AND tgrelid = ANY(SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) name)",
        tables=list(TRIGGERS),
    )
    enabled = {row["tgname"] for row in rows if row["tgenabled"] in {"O", "A"}}
    off = {row["tgname"] for row in rows} - enabled
    if off:
        which = [f"ALTER TABLE {row['name']} ENABLE TRIGGER {row['tgname']};" for row in rows if row["tgname"] in off]
        return wrong(f"disabled: {', '.join(sorted(off))}", " ".join(which))
    gone = [name for names in TRIGGERS.values() for name in names if name not in enabled]
    if gone:
        return wrong(f"missing: {', '.join(gone)}", "Restore a backup: finished runs are not guarded against change.")
    return ok(f"{len(enabled)}, all enabled")


def _connections(session: Session) -> Verdict:
    row = session.row(
        "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,"
        " current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - coalesce(current_setting('reserved_connections', true), '0')::int AS most"
    )
    used, most, pool = row["used"], row["most"], session.settings.db_pool_size + session.settings.db_max_overflow
    found = f"{used} of {most} in use"
    if used > NEARLY_FULL * most:
        return warning(found, "End programs that hold connections, or raise max_connections.")
    if session.settings.db_max_overflow >= 0 and pool > most:
        return warning(
            f"{found}; one process of ntrader may take {pool}",
            "Lower DB_POOL_SIZE and DB_MAX_OVERFLOW, or raise max_connections.",
        )
    return ok(found)


def _memory(session: Session) -> Verdict:
    row = session.row("SELECT current_setting('shared_buffers') AS buffers, current_setting('work_mem') AS work")
    found = f"shared_buffers {row['buffers']}, work_mem {row['work']}"
    free = _available_memory() if _is_here(session) else None
    if free is None:
        return ok(found)
    found = f"{found}, {_size(free)} free on this machine"
    if free < LITTLE_MEMORY:
        return warning(found, "End other programs, or lower work_mem: the system kills what takes the last of it.")
    return ok(found)


def _data_directory(session: Session) -> Verdict:
    if not _is_here(session):
        return skipped("the server is on another machine")
    rows = session.rows("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
    if not rows:
        return skipped("the server does not tell this user where it is")
    try:
        return _space(Path(rows[0]["setting"]))
    except OSError:
        return skipped(f"{rows[0]['setting']} cannot be seen from here")


def _timeout(session: Session) -> Verdict:
    # `reset_val` is what sessions begin with; the value itself is that of this transaction.
    row = session.row("SELECT reset_val::int AS ms FROM pg_settings WHERE name = 'statement_timeout'")
    if row["ms"] == 0:
        return warning("no limit: a slow query runs for ever", "Set DB_STATEMENT_TIMEOUT, for example to 30000.")
    found = f"a query is stopped after {row['ms']:,} ms"
    if row["ms"] < SHORT_TIMEOUT:
        return warning(found, "Raise DB_STATEMENT_TIMEOUT, for example to 30000.")
    return ok(found)


def _long_queries(session: Session) -> Verdict:
    rows = session.rows(
        "SELECT pid, state, coalesce(nullif(application_name, ''), usename) AS who,"
        " extract(epoch FROM clock_timestamp() - CASE state WHEN 'active' THEN query_start ELSE xact_start END)::int"
        " AS seconds FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        " AND pid <> pg_backend_pid() AND state <> 'idle' ORDER BY 4 DESC"
    )
    long = [row for row in rows if row["seconds"] is not None and row["seconds"] > LONG_QUERY_SECONDS]
    if not long:
        return ok(f"none longer than {LONG_QUERY_SECONDS} s")
    first = long[0]
    more = f", and {len(long) - 1} more" if len(long) > 1 else ""
    return warning(
        f"process {first['pid']} ({first['who']}) is {first['state']} for {first['seconds']:,} s{more}",
        f"If it is not wanted: SELECT pg_terminate_backend({first['pid']});",
    )


def _statistics(session: Session) -> Verdict:
    never = [row["relname"] for row in _activity(session) if row["live"] >= MANY_ROWS and not row["analysed"]]
    if never:
        return warning(
            f"never analysed: {', '.join(never)}; queries may be slow", " ".join(f"ANALYZE {name};" for name in never)
        )
    return ok("every large table is analysed")


def _dead_rows(session: Session) -> Verdict:
    worst = [
        (row["relname"], row["dead"] / (row["live"] + row["dead"]))
        for row in _activity(session)
        if row["dead"] >= MANY_ROWS and row["dead"] > DEAD_SHARE * (row["live"] + row["dead"])
    ]
    if worst:
        return warning(
            ", ".join(f"{name}: {share:.0%} of the rows are dead" for name, share in worst),
            " ".join(f"VACUUM (ANALYZE) {name};" for name, _ in worst),
        )
    return ok("few")


def _rights(session: Session) -> Verdict:
    user, tables = session.connection.info.user, [name for name in _tables() if _exists(session, name)]
    rows = session.rows(
        "SELECT name, privilege FROM unnest(%(tables)s::text[]) name, unnest(%(wanted)s::text[]) privilege"
        " WHERE NOT has_table_privilege(to_regclass(name), privilege)"
        # Results are never changed; runs are when they finish, sweeps and trials as they go on.
        " AND (privilege <> 'UPDATE' OR name IN ('backtest_runs', 'sweeps', 'trials'))"
        " UNION ALL SELECT sequence.relname, 'USAGE' FROM pg_class sequence JOIN pg_depend ON objid = sequence.oid"
        " WHERE CASE relkind WHEN 'S' THEN NOT has_sequence_privilege(sequence.oid, 'USAGE') END"
        " AND refobjid = ANY(SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) name)"
        " ORDER BY 1, 2",
        tables=tables,
        wanted=["SELECT", "INSERT", "UPDATE"],
    )
    if not rows:
        return ok(f"{user} may write every table")
    lacking = ", ".join(sorted({row["privilege"] for row in rows}))
    where = ", ".join(dict.fromkeys(row["name"] for row in rows))
    return wrong(f"{user} may not {lacking} in {where}: runs are not saved", _grants(user, tables))


def _grants(user: str, tables: list[str]) -> str:
    name = sql.Identifier(user).as_string()
    return (
        f"GRANT SELECT, INSERT, UPDATE ON {', '.join(tables)} TO {name};"
        f" GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name};"
    )


def _writable(session: Session) -> Verdict:
    row = session.row(
        "SELECT pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS read_only"
    )
    if row["standby"]:
        return wrong("the server is a standby: runs are not saved", "Point DATABASE_URL at the primary.")
    if row["read_only"] == "on":
        return wrong(
            "default_transaction_read_only is on: runs are not saved",
            "Turn it off for the server, database, user, or in DATABASE_URL.",
        )
    return ok("the server takes writes")


def _runs(session: Session) -> Verdict:
    rows = session.rows(
        "SELECT coalesce(lease_owner, '') AS owner, lease_expires_at < now() AS expired FROM backtest_runs"
        " WHERE execution_status = 'running'"
    )
    alive = {row["owner"]: is_alive(row["owner"]) for row in rows}
    # The lease decides only where nobody can look: it also runs out while a laptop sleeps.
    dead = [row for row in rows if alive[row["owner"]] is False or (alive[row["owner"]] is None and row["expired"])]
    if dead:
        return warning(
            f"{len(dead)} marked running, though what ran {'it' if len(dead) == 1 else 'them'} is gone",
            "`ntrader doctor --mend` marks them interrupted; run them again.",
        )
    return ok(f"{len(rows)} running" if rows else "none left behind")


def _sweeps(session: Session) -> Verdict:
    rows = session.rows(
        "SELECT sweep_id, coalesce(lease_owner, '') AS owner, bool_and(lease_expires_at < now()) AS expired,"
        " count(*) AS trials FROM trials WHERE state = 'running' GROUP BY 1, 2 ORDER BY 1"
    )
    alive = {row["owner"]: is_alive(row["owner"]) for row in rows}
    dead = [row for row in rows if alive[row["owner"]] is False or (alive[row["owner"]] is None and row["expired"])]
    if dead:
        sweeps = list(dict.fromkeys(row["sweep_id"] for row in dead))
        return warning(
            f"{sum(row['trials'] for row in dead):,} trials of sweep {', '.join(map(str, sweeps))} marked running,"
            " though what ran them is gone",
            " ".join(f"`ntrader sweep resume {number}`" for number in sweeps) + " runs them again.",
        )
    running = {row["sweep_id"] for row in rows}
    return ok(f"{len(running)} running" if running else "none left behind")


class _Check(NamedTuple):
    name: str
    examine: Callable[[Session], Verdict]
    needs_tables: bool = False


_CHECKS = (
    _Check("Connections", _connections),
    _Check("Version", _version),
    _Check("Clock", _clock),
    _Check("Schema", _schema),
    _Check("Leftover tables", _leftovers),
    _Check("Tables", _columns, needs_tables=True),
    _Check("Indexes", _indexes, needs_tables=True),
    _Check("Triggers", _triggers, needs_tables=True),
    _Check("Writing", _writable),
    _Check("Rights", _rights, needs_tables=True),
    _Check("Runs", _runs, needs_tables=True),
    _Check("Sweeps", _sweeps, needs_tables=True),
    _Check("Statement timeout", _timeout),
    _Check("Long queries", _long_queries),
    _Check("Statistics", _statistics, needs_tables=True),
    _Check("Dead rows", _dead_rows, needs_tables=True),
    _Check("Memory", _memory),
    _Check("Data directory", _data_directory),
)


# -- what is here --------------------------------------------------------------------------------------------


def _disk(folder: Path) -> Verdict:
    try:
        return _space(next(parent for parent in (folder, *folder.parents) if parent.exists()))
    except OSError as error:
        return wrong(f"{folder}: {error.strerror}", "Choose another folder with NTRADER_HOME.")


def _space(folder: Path) -> Verdict:
    free = shutil.disk_usage(folder).free
    found = f"{_size(free)} free in {folder}"
    if free >= LITTLE_SPACE:
        return ok(found)
    return (wrong if free < NO_SPACE else warning)(found, "Make room there, or move it to a larger disk.")


def _recording(settings: Settings) -> Verdict:
    if settings.persistence:
        return ok("runs are saved")
    return warning("ENABLE_BACKTEST_PERSISTENCE is false: runs are not saved", "Unset ENABLE_BACKTEST_PERSISTENCE.")


def _available_memory() -> int | None:
    """Bytes; None where the system has no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(kilobytes) * 1024 if kilobytes else None


def _is_here(session: Session) -> bool:
    """Whether the server is on this machine: a unix socket leads nowhere else."""
    return session.connection.info.host.startswith("/")


# -- the tables as they should be ----------------------------------------------------------------------------


def _tables() -> dict[str, Table]:
    from sqlmodel import SQLModel

    from storage import models  # noqa: F401 - it is what defines them

    return {table.name: table for table in SQLModel.metadata.sorted_tables}


def _exists(session: Session, table: str) -> bool:
    return bool(session.row("SELECT to_regclass(%(table)s) IS NOT NULL AS there", table=table)["there"])


def _create(index: Any) -> str:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex

    return " ".join(f"{CreateIndex(index).compile(dialect=postgresql.dialect())};".split())  # type: ignore[no-untyped-call]


def _activity(session: Session) -> list[dict[str, Any]]:
    return session.rows(
        "SELECT relname, n_live_tup AS live, n_dead_tup AS dead,"
        " last_analyze IS NOT NULL OR last_autoanalyze IS NOT NULL AS analysed FROM pg_stat_user_tables"
        " WHERE relid = ANY(SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) name) ORDER BY relname",
        tables=list(_tables()),
    )


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"
