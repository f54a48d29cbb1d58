"""One way to the database: URLs of every spelling, connections, transactions, and errors in our own words.

Reading uses psycopg alone, because a list command must not pay for an ORM; writing uses a SQLAlchemy engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import psycopg
from psycopg import conninfo as libpq
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

HEAD = "001_create_backtest_tables"
CONNECT_TIMEOUT = 10

_SCHEMES = {"postgres", "postgresql"}
# asyncpg's and SQLAlchemy's own parameters, which libpq refuses, as libpq writes them; None drops one.
_TRANSLATED = {"ssl": "sslmode", "timeout": "connect_timeout", "server_settings": None, "command_timeout": None,
               "statement_cache_size": None, "prepared_statement_cache_size": None, "async_fallback": None,
               "prepared_statement_name_func": None, "min_size": None, "max_size": None}  # fmt: skip
_SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}

_TRANSIENT = {
    "40001",
    "40P01",
    "55P03",
    "57P01",
    "57P02",
    "57P03",
    "53300",
    "08000",
    "08003",
    "08006",
    "08001",
    "08004",
}
_STARTING = ("starting up", "shutting down", "in recovery mode", "Connection refused", "server closed the connection",
             "could not receive data", "Connection reset", "terminating connection",
             "the connection is lost", "the connection is closed", "No such file or directory")  # fmt: skip


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
    `@` or `/`, several hosts and unix sockets are understood.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.partition("+")[0].lower() not in _SCHEMES:
        if not separator and "=" in url:
            return _validated(url, url)
        raise ConfigError(
            f"DATABASE_URL {mask_url(url)!r} is not a PostgreSQL URL",
            hint="Write it like postgresql://user:password@host:5432/database.",
        )
    rest, _, query = rest.partition("?") if "@" not in rest.partition("?")[2] else _late_query(rest)
    authority, at, location = rest.rpartition("@")
    user, colon, password = authority.partition(":")
    login = f"{_escape(user)}{colon}{_escape(password)}{at}" if at else ""
    text = f"postgresql://{login}{location}{_libpq_query(query)}"
    return _validated(text, url)


def connect(settings: Settings, *, autocommit: bool = True) -> psycopg.Connection[dict[str, Any]]:
    """A connection for reading, rows as dicts, times in UTC. Raises our own errors, each with the next step."""
    info = conninfo(settings)
    options = {
        "application_name": "ntrader",
        "connect_timeout": CONNECT_TIMEOUT,
        "options": session_options(settings, reading=True),
    }
    given = libpq.conninfo_to_dict(info)
    merged = {**options, **given}
    if "options" in given:
        merged["options"] = f"{options['options']} {given['options']}"
    try:
        return psycopg.connect(libpq.make_conninfo(**merged), autocommit=autocommit, row_factory=dict_row)
    except psycopg.Error as error:
        raise translate(error, settings) from error


def session_options(settings: Settings, *, reading: bool = False) -> str:
    """Reading forces custom plans: a generic one took 845 ms where the right index takes 0.2."""
    wanted = {"timezone": "UTC", "statement_timeout": str(settings.db_statement_timeout)}
    if reading:
        wanted |= {"plan_cache_mode": "force_custom_plan", "random_page_cost": "1.1"}
    return " ".join(f"-c {name}={value}" for name, value in wanted.items())


@contextmanager
def reading(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection whose schema is current; errors inside come out as ours."""
    with connect(settings) as connection:
        try:
            require_schema(connection)
            yield connection
        except psycopg.Error as error:
            raise translate(error, settings) from error


def require_schema(connection: psycopg.Connection[dict[str, Any]]) -> None:
    """Raises SchemaError when the tables are missing, older or newer than this code."""
    found = schema_version(connection)
    if found == HEAD:
        return
    if found is None:
        raise SchemaError("the database has no ntrader tables yet", hint="Run `ntrader db upgrade`.")
    raise SchemaError(
        f"the database schema is at {found}, this ntrader needs {HEAD}",
        hint="Run `ntrader db upgrade`; if the schema is the newer one, upgrade ntrader instead.",
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

    info = conninfo(settings)
    given = libpq.conninfo_to_dict(info)
    options = f"{session_options(settings)} {given.get('options') or ''}".strip()
    parameters = {"application_name": "ntrader", "connect_timeout": CONNECT_TIMEOUT, **given, "options": options}
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(libpq.make_conninfo(**parameters)),
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        pool_recycle=settings.db_pool_recycle,
        pool_pre_ping=settings.db_pool_pre_ping,
        query_cache_size=settings.db_query_cache_size,
        echo=settings.db_echo,
        hide_parameters=True,
    )


@contextmanager
def transaction(settings: Settings) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises; errors come out as ours."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        with writing_engine(settings).begin() as connection:
            yield connection
    except DBAPIError as error:
        raise translate(error.orig, settings) from error
    except psycopg.Error as error:
        raise translate(error, settings) from error
    except SQLAlchemyError as error:
        raise DatabaseError(f"the database refused: {error}") from error


def translate(error: BaseException | None, settings: Settings) -> DatabaseError:
    """A driver's error in our words, with the next step. A failed connect carries no SQLSTATE: its text decides."""
    text = " ".join(str(error).split())
    where = _where(settings)
    code = getattr(error, "sqlstate", None)
    if code is None and isinstance(error, psycopg.OperationalError):
        return _connect_error(text, where, settings)
    if code == "42P01":
        return SchemaError(f"a table is missing: {text}", hint="Run `ntrader db upgrade`.")
    if code == "53100" or "No space left on device" in text:
        return DatabaseError(
            f"the disk of the database {where} is full: {text}", hint="Make room there, then run the command again."
        )
    if code == "57014":
        return DatabaseError(
            f"the database stopped a query after {settings.db_statement_timeout} ms",
            hint="Narrow it with a filter, or raise DB_STATEMENT_TIMEOUT.",
        )
    if code in {"42501", "25006"}:
        return DatabaseError(f"the database user may not do that: {text}", hint="Use a role that may write.")
    if code in _TRANSIENT:
        return TransientDatabaseError(f"the database {where} broke off: {text}", hint="Try again in a moment.")
    return DatabaseError(f"the database {where} refused: {text}")


def _connect_error(text: str, where: str, settings: Settings) -> DatabaseError:
    if "password authentication failed" in text or "no password supplied" in text:
        return DatabaseUnavailableError(
            f"the database {where} refused the password", hint="Check user and password in DATABASE_URL."
        )
    if re.search(r'database "[^"]*" does not exist', text):
        return DatabaseUnavailableError(
            f"the database {where} does not exist", hint="Create it with `createdb`, or correct DATABASE_URL."
        )
    if re.search(r'role "[^"]*" does not exist', text):
        return DatabaseUnavailableError(f"the database {where} does not know that user", hint="Check DATABASE_URL.")
    if "too many" in text and ("clients" in text or "connections" in text):
        return TransientDatabaseError(
            f"the database {where} has no connection left", hint="Lower DB_POOL_SIZE, or raise max_connections."
        )
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


def _reason(text: str) -> str:
    for sign in (*_STARTING, "timeout", "could not translate host name", "Name or service not known"):
        if sign in text:
            return {"could not translate host name": "the host name is unknown"}.get(sign, sign)
    return text


def _where(settings: Settings) -> str:
    return mask_url(settings.database_url) if settings.database_url else "(embedded PostgreSQL)"


def _escape(part: str) -> str:
    return quote(unquote(part), safe="")


def _late_query(rest: str) -> tuple[str, str, str]:
    """A `?` inside an unescaped password: the query starts at the first `?` after the last `@`."""
    head, at, tail = rest.rpartition("@")
    location, mark, query = tail.partition("?")
    return f"{head}{at}{location}", mark, query


def _libpq_query(query: str) -> str:
    pairs = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        name = _TRANSLATED.get(name, name)  # type: ignore[assignment]
        if name is None:
            continue
        pairs.append((name, _SSL_WORDS.get(value.lower(), value) if name == "sslmode" else value))
    return f"?{urlencode(pairs, quote_via=quote)}" if pairs else ""


def _validated(text: str, url: str) -> str:
    try:
        return libpq.make_conninfo(text)
    except psycopg.ProgrammingError as error:
        reason = re.sub(r"://\S+", "://...", str(error)).strip()
        raise ConfigError(f"DATABASE_URL {mask_url(url)!r} cannot be read: {reason}") from None
