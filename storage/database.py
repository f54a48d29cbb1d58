"""One way to the database: URLs of every spelling, connections, transactions, and errors in our own words.

Reading uses psycopg alone, because a list command must not pay for an ORM; writing uses a SQLAlchemy engine.
"""

from __future__ import annotations

import atexit
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

import psycopg
from psycopg import conninfo as libpq
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from ntrader.errors import (
    ConfigError,
    DatabaseError,
    DatabaseUnavailableError,
    SchemaError,
    TransientDatabaseError,
)
from ntrader.settings import Settings, mask_url
from storage import local

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Connection

HEAD = "005_sweeps"
CONNECT_TIMEOUT = 10
# Lists are read from memory, a page at a time: fetching a row is cheap, looking at many index entries is what costs.
# PostgreSQL's own figures are for disks; with them it reads 25,000 entries of an index to be spared 50 rows.
PLANNER = {
    "random_page_cost": "0.3",
    "seq_page_cost": "0.3",
    "cpu_operator_cost": "0.005",
    "cpu_index_tuple_cost": "0.01",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

_SCHEMES = {"postgres", "postgresql"}
_EXAMPLE = "Write it like postgresql://user:password@host:5432/database."
# asyncpg's and SQLAlchemy's own parameters, which libpq refuses, as libpq writes them; None drops one.
_TRANSLATED: dict[str, str | None] = {
    "ssl": "sslmode",
    "timeout": "connect_timeout",
    **dict.fromkeys(("server_settings", "command_timeout", "statement_cache_size", "prepared_statement_cache_size",
                     "prepared_statement_name_func", "max_cached_statement_lifetime", "max_cacheable_statement_size",
                     "direct_tls", "async_fallback", "min_size", "max_size")),
}  # fmt: skip
_SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}

_TRANSIENT = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "25P03", "53300",
              "08000", "08001", "08003", "08004", "08006"}  # fmt: skip
_DISK_FULL = "No space left on device"
_STARTING = ("starting up", "shutting down", "in recovery mode", "not yet accepting connections", "Connection refused",
             "server closed the connection", "could not receive data", "could not send data", "Connection reset",
             "Broken pipe", "SSL connection has been closed", "EOF detected", "terminating connection",
             "the connection is lost", "the connection is closed", "timeout expired", "Connection timed out",
             "No route to host", "Network is unreachable", "Temporary failure in name resolution",
             "No such file or directory")  # fmt: skip
# At which door a connection is turned away: the doctor asks too.
BAD_LOGIN = re.compile(
    r'password authentication failed|no password supplied|role "[^"]*" does not exist|no pg_hba.conf entry'
    r"|pg_hba.conf rejects connection|permission denied for database"
)
NO_DATABASE = re.compile(r'database "[^"]*" does not exist')
NO_CONNECTION_LEFT = re.compile(r"too many (clients|connections)|connection slots are reserved")
_UNKNOWN_HOST = ("failed to resolve host", "could not translate host name", "Name or service not known")


def conninfo(settings: Settings) -> str:
    """A libpq connection string; without DATABASE_URL the embedded PostgreSQL is started for it.

    Raises ConfigError for a URL that is not PostgreSQL's, ServiceError when the embedded one cannot start.
    """
    if settings.database_url is None:
        return local.ensure_running(settings.home)
    return parse_url(settings.database_url)


def parse_url(url: str) -> str:
    """Any spelling of a PostgreSQL URL as a libpq connection string.

    Drivers in the scheme (`+psycopg`, `+asyncpg`, `+psycopg2`), asyncpg's parameters, passwords with unescaped
    `@`, `:`, `/`, `?` or `#`, several hosts and unix sockets are understood, and libpq's own `host=... dbname=...`.
    Raises ConfigError, whose message holds no part of a password.
    """
    url = url.strip()
    if "=" in url.partition("://")[0]:
        return _validated(url)
    parts = _split(url)
    if parts.scheme.partition("+")[0].lower() not in _SCHEMES:
        # Without an @ there is no telling what of it is a password.
        shown = mask_url(url) if parts.at else parts.scheme if "://" in url else "***"
        raise ConfigError(f"DATABASE_URL {shown!r} is not a PostgreSQL URL", hint=_EXAMPLE)
    login = f"{_escape(parts.user)}{parts.colon}{_escape(parts.password)}{parts.at}"
    return _validated(f"postgresql://{login}{parts.location}{_libpq_query(parts.query)}")


def connect(
    settings: Settings, *, autocommit: bool = True, user: str | None = None, reading: bool = True
) -> psycopg.Connection[dict[str, Any]]:
    """A connection that plans as suits reading or writing; rows as dicts, times in UTC. `user` replaces the one of the
    settings.

    Raises our own errors, each with the next step.
    """
    parameters = _parameters(settings, reading=reading) | ({"user": user} if user else {})
    try:
        return psycopg.connect(libpq.make_conninfo(**parameters), autocommit=autocommit, row_factory=dict_row)
    except psycopg.Error as error:
        raise translate(error, settings) from error


def server_release(url: str, seconds: int) -> str | None:
    """PostgreSQL's own, such as 18.1; None where it cannot be asked within that time."""
    try:
        with psycopg.connect(libpq.make_conninfo(parse_url(url), connect_timeout=seconds)) as connection:
            return f"{connection.info.server_version // 10_000}.{connection.info.server_version % 10_000}"
    except (psycopg.Error, ConfigError):
        return None


def _parameters(settings: Settings, *, reading: bool) -> dict[str, Any]:
    """libpq's parameters: the URL's win over ours, and its `options` come after ours and so win too."""
    given = libpq.conninfo_to_dict(conninfo(settings))
    options = f"{session_options(settings, reading=reading)} {given.get('options') or ''}".strip()
    return {"application_name": "ntrader", "connect_timeout": CONNECT_TIMEOUT, **given, "options": options}


def session_options(settings: Settings, *, reading: bool = False) -> str:
    """Reading forces custom plans: a generic one took 845 ms where the right index takes 0.2. Writing must not: the
    check of each row that refers to a run would be planned anew, 0.2 ms where runs have so many indexes."""
    wanted = {"timezone": "UTC", "statement_timeout": str(settings.db_statement_timeout)}
    if reading:
        wanted |= {"plan_cache_mode": "force_custom_plan"} | PLANNER
    return " ".join(f"-c {name}={value}" for name, value in wanted.items())


Idle = dict[Settings, list[psycopg.Connection[dict[str, Any]]]]

_readers: Idle = {}


@contextmanager
def reading(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection whose schema is current, kept for the next time: what is set in its session stays set. Errors inside
    come out as ours."""
    with _reader(settings) as connection, _current(settings, connection):
        yield connection


@contextmanager
def reading_apart(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The same, for this once: its session may be changed as one likes."""
    with connect(settings) as connection, _current(settings, connection):
        yield connection


@contextmanager
def _current(settings: Settings, connection: psycopg.Connection[dict[str, Any]]) -> Iterator[None]:
    try:
        if settings.embedded and schema_version(connection) != HEAD:
            # Ours to migrate at first use, by whichever command comes first.
            from storage.migrations import prepare

            prepare(settings)
        require_schema(connection)
        yield
    except psycopg.Error as error:
        raise translate(error, settings) from error


@contextmanager
def _reader(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    connection = _kept_reader(settings) or connect(settings)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
    if connection.info.transaction_status == TransactionStatus.IDLE:
        _readers.setdefault(settings, []).append(connection)
    else:
        connection.close()


def _kept_reader(settings: Settings) -> psycopg.Connection[dict[str, Any]] | None:
    """One that is still alive: its server may have been restarted meanwhile."""
    while (kept := _taken(_readers, settings)) is not None:
        with suppress(psycopg.Error):
            kept.execute("SELECT")
            return kept
        kept.close()
    return None


@contextmanager
def only_looking(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The same, migrating nothing."""
    with connect(settings) as connection:
        try:
            require_schema(connection)
            yield connection
        except psycopg.Error as error:
            raise translate(error, settings) from error


def require_schema(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Raises SchemaError when the tables are missing, older or newer than this code."""
    found = schema_version(connection)
    if found != HEAD:
        raise schema_error(found)


def schema_error(found: str | None) -> SchemaError:
    """What to say of a database that is at another revision than this code."""
    if found is None:
        return SchemaError("the database has no ntrader tables yet", hint="Run `ntrader db upgrade`.")
    if not re.match(r"\d{3}_", found):
        return SchemaError(
            f"the tables of the database are another program's (alembic_version {found})",
            hint="Give ntrader a database of its own.",
        )
    return SchemaError(
        f"the database schema is at {found}, this ntrader needs {HEAD}",
        hint="Upgrade ntrader: the database is newer." if found > HEAD else "Run `ntrader db upgrade`.",
    )


def schema_version(connection: psycopg.Connection[dict[str, Any]]) -> str | None:
    """The Alembic revision of the database; None where there is none."""
    known = connection.execute("SELECT to_regclass('alembic_version') IS NOT NULL AS known").fetchone()
    if not known or not known["known"]:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row["version_num"] if row else None


_engines: dict[Settings, Engine] = {}


def writing_engine(settings: Settings) -> Engine:
    """The SQLAlchemy engine for these settings; one a process, with the pool the DB_* settings describe."""
    if settings not in _engines:
        _engines[settings] = _build_engine(settings)
    return _engines[settings]


def _build_engine(settings: Settings) -> Engine:
    from sqlalchemy import create_engine

    if settings.db_echo:
        _echo_to_stderr()

    return create_engine(
        "postgresql+psycopg://",
        # Asked anew for each connection: an embedded PostgreSQL that was stopped meanwhile is started again.
        creator=lambda: psycopg.connect(libpq.make_conninfo(**_parameters(settings, reading=False))),
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        pool_recycle=settings.db_pool_recycle,
        pool_pre_ping=settings.db_pool_pre_ping,
        query_cache_size=settings.db_query_cache_size,
        echo=settings.db_echo,
        hide_parameters=True,
    )


def _echo_to_stderr() -> None:
    """SQLAlchemy would bring a handler for stdout, which is for data, unless it finds one."""
    logging.getLogger("sqlalchemy.engine.Engine").handlers = [logging.StreamHandler()]


@contextmanager
def transaction(settings: Settings) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises; errors come out as ours."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    try:
        with writing_engine(settings).begin() as connection:
            yield connection
    except DBAPIError as error:
        raise translate(error.orig, settings, writing=True) from error
    except psycopg.Error as error:
        raise translate(error, settings, writing=True) from error
    except PoolTimeout as error:
        raise _pool_empty(settings) from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"the database refused: {error}") from error


_writers: Idle = {}


@contextmanager
def writing(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """The same by psycopg alone, for processes that need not wait for SQLAlchemy to be imported: one transaction, on a
    connection that is kept for the next."""
    connection, block = _begun(settings)
    try:
        with block:
            yield connection
    except psycopg.Error as error:
        connection.close()
        raise translate(error, settings, writing=True) from error
    except BaseException:
        connection.close()
        raise
    _writers.setdefault(settings, []).append(connection)


def _begun(settings: Settings) -> tuple[psycopg.Connection[dict[str, Any]], ExitStack]:
    """A connection in a transaction, and what ends it. One that was kept may have died: its server has restarted."""
    while (kept := _taken(_writers, settings)) is not None:
        with suppress(psycopg.Error):
            return kept, _transaction(kept)
        kept.close()
    connection = connect(settings, autocommit=False, reading=False)
    try:
        return connection, _transaction(connection)
    except psycopg.Error as error:
        connection.close()
        raise translate(error, settings, writing=True) from error


@atexit.register
def close_idle() -> None:
    """Close what is kept for the next time."""
    for idle in (_readers, _writers):
        for connection in chain.from_iterable(idle.values()):
            connection.close()
        idle.clear()


def _taken(idle: Idle, settings: Settings) -> psycopg.Connection[dict[str, Any]] | None:
    try:
        return idle.setdefault(settings, []).pop()
    except IndexError:  # there is none, or another thread was faster
        return None


def _transaction(connection: psycopg.Connection[dict[str, Any]]) -> ExitStack:
    with ExitStack() as stack:
        stack.enter_context(connection.transaction())
        return stack.pop_all()


def translate(error: BaseException | None, settings: Settings, *, writing: bool = False) -> DatabaseError:
    """A driver's error in our words, with the next step. A failed connect carries no SQLSTATE: its text decides."""
    text = " ".join(str(error).split())
    where = _where(settings)
    code = getattr(error, "sqlstate", None)
    if code is None and isinstance(error, psycopg.OperationalError) and _DISK_FULL not in text:
        return _connect_error(text, where, settings)
    if code == "57014" and "user request" not in text:
        return _stopped(settings, writing=writing)
    return _refusal(code, text, where, settings)


def _stopped(settings: Settings, *, writing: bool) -> DatabaseError:
    """A statement may be slow because of its own size, and a write because of somebody's lock."""
    narrow = "Narrow it with a filter (--strategy, --symbol, --after or --limit), or raise DB_STATEMENT_TIMEOUT."
    wait = "`ntrader doctor` shows what holds it up; or raise DB_STATEMENT_TIMEOUT."
    return DatabaseError(
        f"the database stopped a query after {settings.db_statement_timeout} ms",
        hint=wait if writing else narrow,
    )


def _refusal(code: str | None, text: str, where: str, settings: Settings) -> DatabaseError:
    if code == "42P01":
        return SchemaError(f"a table is missing: {text}", hint="Run `ntrader db upgrade`.")
    if code == "42P07":
        return _exists_already(text)
    if code == "53200":
        return _out_of_memory(text, where)
    if code == "53300":
        return _no_connection_left(where, settings)
    if code == "53100" or _DISK_FULL in text:
        return DatabaseError(
            f"the disk of the database {where} is full: {text}", hint="Make room there, then run the command again."
        )
    if code in {"42501", "25006"}:
        return _not_allowed(code, text, where)
    if code in _TRANSIENT:
        return TransientDatabaseError(f"the database {where} broke off: {text}", hint="Try again in a moment.")
    return DatabaseError(f"the database {where} refused: {text}")


def _exists_already(text: str) -> SchemaError:
    found = re.search(r'relation "([^"]*)" already exists', text)
    name = f'the table or index "{found[1]}"' if found else "a table or index"
    return SchemaError(
        f"{name} is there already, but no migration on record made it",
        hint="Use an empty database, or rename what is in the way, then run `ntrader db upgrade`.",
    )


def _out_of_memory(text: str, where: str) -> DatabaseError:
    locks = "out of shared memory" in text
    return DatabaseError(
        f"the database {where} ran out of memory: {text.partition(' HINT: ')[0]}",
        hint="Raise its max_locks_per_transaction, or work on less at once."
        if locks
        else "Ask for less at once (--limit), lower work_mem, or give the server more memory.",
    )


def _not_allowed(code: str, text: str, where: str) -> DatabaseError:
    if code == "25006":
        return DatabaseError(
            f"the database {where} only reads: {text}",
            hint="Point DATABASE_URL at the primary, or turn default_transaction_read_only off.",
        )
    return DatabaseError(
        f"the database user may not do that: {text}", hint="Use a role that may read and write the tables."
    )


def _no_connection_left(where: str, settings: Settings) -> TransientDatabaseError:
    return TransientDatabaseError(
        f"the database {where} has no connection left",
        hint="End programs that hold connections, lower DB_POOL_SIZE and DB_MAX_OVERFLOW"
        f" (now {settings.db_pool_size} and {settings.db_max_overflow}), or raise max_connections.",
    )


def _pool_empty(settings: Settings) -> TransientDatabaseError:
    return TransientDatabaseError(
        f"all {settings.db_pool_size + settings.db_max_overflow} connections that this process may have were in use",
        hint="Raise DB_POOL_SIZE or DB_MAX_OVERFLOW.",
    )


def _connect_error(text: str, where: str, settings: Settings) -> DatabaseError:
    if BAD_LOGIN.search(text):
        return _turned_away(text, where)
    if NO_DATABASE.search(text):
        return DatabaseUnavailableError(
            f"the database {where} does not exist", hint="Create it with `createdb`, or correct DATABASE_URL."
        )
    if NO_CONNECTION_LEFT.search(text):
        return _no_connection_left(where, settings)
    if any(sign in text for sign in _STARTING):
        start = "Is it running? " if settings.database_url else "Run `ntrader status`; "
        return TransientDatabaseError(
            f"no connection to the database {where}: {_reason(text)}",
            hint=f"{start}Check DATABASE_URL, or unset it to use the embedded PostgreSQL."
            if settings.database_url
            else f"{start}the log is under {settings.home}/logs.",
        )
    return DatabaseUnavailableError(
        f"no connection to the database {where}: {_reason(text)}", hint="Check DATABASE_URL."
    )


def _turned_away(text: str, where: str) -> DatabaseUnavailableError:
    if "password authentication failed" in text or "no password supplied" in text:
        return DatabaseUnavailableError(
            f"the database {where} refused the password", hint="Check user and password in DATABASE_URL."
        )
    if "does not exist" in text:
        return DatabaseUnavailableError(f"the database {where} does not know that user", hint="Check DATABASE_URL.")
    return DatabaseUnavailableError(
        f"the database {where} does not let this user in: {text.rpartition('FATAL: ')[2].strip()}",
        hint="Add a line to its pg_hba.conf and GRANT CONNECT, or use another user.",
    )


def _reason(text: str) -> str:
    if any(sign in text for sign in _UNKNOWN_HOST):
        return "the host name is unknown"
    return next((sign for sign in _STARTING if sign in text), text)


def _where(settings: Settings) -> str:
    if settings.database_url is None:
        return "(embedded PostgreSQL)"
    if "://" in settings.database_url:
        return mask_url(settings.database_url)
    given = libpq.conninfo_to_dict(settings.database_url)
    return " ".join(f"{name}={given[name]}" for name in ("host", "port", "user", "dbname") if name in given)


class _Parts(NamedTuple):
    """A URL cut up, nothing unescaped. `colon` and `at` are empty where they are missing."""

    scheme: str
    user: str
    colon: str
    password: str
    at: str
    location: str
    query: str


def _split(url: str) -> _Parts:
    """The last `@` before the query ends the login.

    The query begins at the first `?` followed by a parameter that libpq or we know; if there is no such `?`, at the
    first one after the last `@`, so that one in an unescaped password begins none.
    """
    scheme, _, rest = url.partition("://")
    marks = [position for position, letter in enumerate(rest) if letter == "?"]
    known = (mark for mark in marks if re.split("[=&]", rest[mark + 1 :], maxsplit=1)[0] in _known())
    mark = next(known, rest.find("?", rest.rfind("@") + 1))
    head, query = (rest[:mark], rest[mark + 1 :]) if mark >= 0 else (rest, "")
    login, at, location = head.rpartition("@")
    user, colon, password = login.partition(":")
    return _Parts(scheme, user, colon, password, at, location, query)


@cache
def _known() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()) | _TRANSLATED.keys()


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(unquote(name), value) for name, _, value in pairs]


def _libpq_query(query: str) -> str:
    pairs = []
    for given, value in _pairs(query):
        if given not in _known():
            raise ConfigError(f"DATABASE_URL has a parameter that PostgreSQL does not know: {given}", hint=_EXAMPLE)
        name = _TRANSLATED.get(given, given)
        if name is not None:
            pairs.append((name, _SSL_WORDS.get(value.lower(), value) if name == "sslmode" else value))
    text = "&".join(f"{name}={_escape(value)}" for name, value in _joined_hosts(pairs))
    return f"?{text}" if text else ""


def _joined_hosts(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """SQLAlchemy's `host=one:5432&host=two:5433` as libpq writes it: `host=one,two&port=5432,5433`."""
    hosts = [value.rpartition(":") if ":" in value else (value, "", "") for name, value in pairs if name == "host"]
    if len(hosts) < 2:
        return pairs
    joined = [("host", ",".join(host for host, _, _ in hosts)), ("port", ",".join(port for _, _, port in hosts))]
    return [pair for pair in pairs if pair[0] not in {"host", "port"}] + joined


def _escape(part: str) -> str:
    """Percent-encoded, whether or not it was already: what is no escape, such as the % of `100%`, stays itself."""
    return quote(unquote_to_bytes(part), safe="")


def _validated(text: str) -> str:
    try:
        port = str(libpq.conninfo_to_dict(text).get("port") or "")
    except psycopg.ProgrammingError as error:
        # libpq quotes what it stumbled over, which may be a part of the password.
        problem = "cannot be read: " + re.sub(r'".*"', "...", str(error).strip(), flags=re.DOTALL)
    except UnicodeDecodeError:
        problem = "cannot be read: a % in it stands for a byte that is no text; a % itself is written %25"
    else:
        if all(number.isdecimal() and 0 < int(number) < 65536 for number in port.split(",") if number):
            return text
        problem = "has a port that is no number from 1 to 65535"
    # Raised out here, so that it does not carry libpq's error along as its context.
    raise ConfigError(f"DATABASE_URL {problem}", hint=_EXAMPLE)
