"""How the database is reached: every spelling of a URL, every way it can fail, and nothing that shows a password."""

from __future__ import annotations

import logging
import shutil
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from ntrader.errors import (
    ConfigError,
    DatabaseError,
    DatabaseUnavailableError,
    NtraderError,
    SchemaError,
    TransientDatabaseError,
)
from ntrader.settings import Settings
from storage import database, local
from tests.conftest import administer, dispose_engines
from tests.storage.conftest import OWNER, PASSWORD, Server, free_port, take_memory_from

USUAL = {"user": "u", "password": "p", "host": "h", "port": "5433", "dbname": "d"}
WITHOUT_PORT = {name: value for name, value in USUAL.items() if name != "port"}


@pytest.fixture(autouse=True)
def _no_engine_left() -> Iterator[None]:
    yield
    dispose_engines()


@pytest.fixture
def settings(shared: Settings) -> Settings:
    """One database for all tests here: they care for the way to it, not for what is in it."""
    return shared


@pytest.fixture
def at16(postgres16: Server, tmp_path: Path) -> Settings:
    """Settings for PostgreSQL 16 by TCP and password; the URL is there to be replaced."""
    return Settings(home=tmp_path, database_url=postgres16.url())


def parsed(url: str) -> dict[str, Any]:
    return dict(conninfo_to_dict(database.parse_url(url)))


# -- spellings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2",
                                    "postgresql+asyncpg", "postgres+asyncpg", "POSTGRESQL"])  # fmt: skip
def test_every_scheme_means_the_same(scheme: str) -> None:
    assert parsed(f"{scheme}://u:p@h:5433/d") == USUAL


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ssl=require", {"sslmode": "require"}),
        ("ssl=true", {"sslmode": "require"}),
        ("ssl=False", {"sslmode": "disable"}),
        ("ssl=verify-full", {"sslmode": "verify-full"}),
        ("sslmode=require", {"sslmode": "require"}),
        ("timeout=5", {"connect_timeout": "5"}),
        ("prepared_statement_cache_size=0&statement_cache_size=0&command_timeout=60", {}),
        ("server_settings=jit:off&ssl=prefer&max_cached_statement_lifetime=0", {"sslmode": "prefer"}),
        ("application_name=mine&connect_timeout=3", {"application_name": "mine", "connect_timeout": "3"}),
        ("application_name=a+b%20c", {"application_name": "a+b c"}),
        ("application_name=a@b:c/d?e", {"application_name": "a@b:c/d?e"}),
        ("application_name=100%", {"application_name": "100%"}),
        ("application_name=", {"application_name": ""}),
        ("options=-c%20search_path%3Dmine%2Cpublic", {"options": "-c search_path=mine,public"}),
        ("", {}),
    ],
)
def test_parameters_are_written_as_libpq_wants_them(query: str, expected: dict[str, str]) -> None:
    assert parsed(f"postgresql+asyncpg://u:p@h:5433/d?{query}") == USUAL | expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql:///d?host=/var/run/postgresql", {"host": "/var/run/postgresql", "dbname": "d"}),
        ("postgresql://@/d?host=/var/run/postgresql", {"host": "/var/run/postgresql", "dbname": "d"}),
        ("postgresql://u@/d?host=/a b&port=5433", {"user": "u", "host": "/a b", "port": "5433", "dbname": "d"}),
        ("postgresql://u@%2Fvar%2Frun/d", {"user": "u", "host": "/var/run", "dbname": "d"}),
        ("postgres://u:p@%2Fvar%2Frun:5433/d", USUAL | {"host": "/var/run"}),
        ("postgresql://u:p@[::1]:5433/d", USUAL | {"host": "::1"}),
        ("postgresql://u:p@a:5432,b,c:5434/d", USUAL | {"host": "a,b,c", "port": "5432,,5434"}),
        ("postgresql://u:p@/d?host=a:5432&host=b&host=c:5434", USUAL | {"host": "a,b,c", "port": "5432,,5434"}),
        ("postgresql://u:p@/d?host=a,b&port=5433", USUAL | {"host": "a,b"}),
        ("postgresql://u:p@a,b/d?target_session_attrs=read-write",
         USUAL | {"host": "a,b", "port": ",", "target_session_attrs": "read-write"}),
        ("postgresql://h/d?user=u&password=p+%2B@?/", WITHOUT_PORT | {"password": "p++@?/"}),
        ("postgresql://h:5433/d?user=u&password=p@x", USUAL | {"password": "p@x"}),
        ("postgresql://u:@h/d", {"user": "u", "host": "h", "dbname": "d"}),
        ("postgresql://u%40home:p@h:5433/d", USUAL | {"user": "u@home"}),
        ("postgresql://u:p@h:5433/d%20e", USUAL | {"dbname": "d e"}),
        ("  postgresql://u:p@h:5433/d\n", USUAL),
        ("host=h port=5433 dbname=d user=u password='p q'", USUAL | {"password": "p q"}),
        ("dbname=d", {"dbname": "d"}),
    ],
)  # fmt: skip
def test_places_are_understood(url: str, expected: dict[str, str]) -> None:
    assert parsed(url) == expected


@pytest.mark.parametrize("password", ["p@ss", "p:ss", "p/ss", "p?ss", "p#ss", "100%", "50%x", "a&b=c", "?", "@", "//",
                                      "a?b@c/d:e#f%g", "ü", "a b", "p@h/d?x=1"])  # fmt: skip
def test_a_password_needs_no_escapes_and_may_have_them(password: str) -> None:
    expected = USUAL | {"password": password, "sslmode": "require"}
    assert parsed(f"postgresql://u:{password}@h:5433/d?sslmode=require") == expected
    assert parsed(f"postgresql://u:{quote(password, safe='')}@h:5433/d?sslmode=require") == expected


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_any_escaped_password_arrives(password: str) -> None:
    assert parsed(f"postgresql+asyncpg://u:{quote(password, safe='')}@h:5433/d") == USUAL | {"password": password}


SPECIAL = "aF4@:/?#&=[]!$ '\"\\+,.ü"


@given(st.text(SPECIAL, min_size=1))  # without %: %41 is an A, here as everywhere
def test_any_unescaped_password_arrives(password: str) -> None:
    expected = USUAL | {"password": password, "sslmode": "require"}
    assert parsed(f"postgresql://u:{password}@h:5433/d?sslmode=require") == expected


# -- URLs that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mysql://u:S3cret@h/d", "sqlite:///S3cret", "S3cret", "u:S3cret@h/d", "",
                                 "postgresql:/u:S3cret@h/d", "nothing", "jdbc:postgresql://u:S3cret@h/d",
                                 "mysql+pymysql://u:S3cret", "://S3cret"])  # fmt: skip
def test_what_is_no_postgresql_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"DATABASE_URL .* is not a PostgreSQL URL") as caught:
        database.parse_url(url)
    assert caught.value.hint is not None
    assert "postgresql://user:password@host:5432/database" in caught.value.hint
    assert "S3cret" not in everything_said(caught.value)


def test_the_refused_url_is_shown_with_its_password_masked() -> None:
    with pytest.raises(ConfigError, match=r"'mysql://u:\*\*\*@h:3306/d'"):
        database.parse_url("mysql://u:p@ss/w@h:3306/d")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:S3cret@h/d?sslmod=require", "does not know: sslmod$"),
        ("postgresql://u:S3cret@h:S3cret/d", "a port that is no number"),
        ("postgresql://u:S3cret@h:70000/d", "a port that is no number"),
        ("postgresql://u:S3cret", "a port that is no number"),
        ("postgresql://u:S3cret@[::1/d", "cannot be read: end of string reached"),
        ("host=h password=a S3cret dbname=d", "cannot be read: missing"),
        ("host=h password='S3cret", "cannot be read: unterminated quoted string"),
        ("hst=S3cret", "cannot be read: invalid connection option"),
        ("password=S3cret host=h port=x", "a port that is no number"),
        ("host=h user=u port=x password=S3://cret", "a port that is no number"),
        ("postgresql://u:S3cret%F4@h/d", "a % itself is written %25"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        database.parse_url(url)
    assert "S3cret" not in everything_said(caught.value)


FORMS = ["postgresql://u:{}@h/d", "mysql://u:{}@h/d", "postgresql://u:{}@h:x/d", "postgresql://u:{}@[::1/d",
         "postgresql://u:{}@h/d?nonsense=1", "postgresql://u:{}@h/d?sslmode=require&application_name=a@b"]  # fmt: skip


@given(st.sampled_from(FORMS), st.text(SPECIAL + "%"), st.text(SPECIAL + "%"))
def test_a_url_that_cannot_be_read_shows_no_password(form: str, before: str, after: str) -> None:
    try:
        database.parse_url(form.format(f"{before}S3cret{after}"))
    except ConfigError as error:
        assert "S3cret" not in everything_said(error)


@given(st.text(SPECIAL + "%"), st.text(SPECIAL + "%"))
def test_a_failed_connection_shows_no_password(before: str, after: str) -> None:
    settings = Settings(home=Path("/h"), database_url=f"postgresql://u:{before}S3cret{after}@h/d?sslmode=require")
    assert "S3cret" not in everything_said(database.translate(psycopg.OperationalError("refused"), settings))


def test_a_failed_connection_by_keywords_says_where(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url="host=h port=5433 user=u password='S3cret x' dbname=d")
    message = database.translate(psycopg.OperationalError("Connection refused"), settings).message
    assert message == "no connection to the database host=h port=5433 user=u dbname=d: Connection refused"


def test_settings_do_not_show_the_password() -> None:
    settings = Settings(home=Path("/h"), database_url="postgresql://u:p@S3cret/x@h/d")
    assert "S3cret" not in f"{settings!r} {settings} {settings.masked_database_url}"


def everything_said(error: BaseException) -> str:
    """What any handler could print of it: message, hint, causes, representations."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    parts = [f"{link!r} {link} {link.args} {getattr(link, 'hint', '')}" for link in chain]
    return "\n".join(parts + [line for link in chain for line in traceback.format_exception_only(link)])


# -- real connections ----------------------------------------------------------------------------------------


SPELLINGS = [
    "postgresql://{user}:{escaped}@{address}/postgres",
    "postgres://{user}:{password}@{address}/postgres",
    "postgresql+psycopg://{user}:{escaped}@{address}/postgres?connect_timeout=5",
    "postgresql+psycopg2://{user}:{password}@{address}/postgres?sslmode=disable",
    "postgresql+asyncpg://{user}:{escaped}@{address}/postgres?ssl=disable&prepared_statement_cache_size=0",
    "postgresql://{address}/postgres?user={user}&password={escaped}",
    "postgresql://{user}:{escaped}@127.0.0.1:{closed},{address}/postgres",
    "postgresql://{user}:{escaped}@/postgres?host=127.0.0.1:{closed}&host={address}",
    "postgresql:///postgres?host={sockets}&port={port}&user={user}",
    "postgresql://@/postgres?host={sockets}&port={port}&user={user}",
    "postgresql+asyncpg://{user}@/postgres?host={sockets}&port={port}",
    "postgresql://{user}@{sockets_escaped}:{port}/postgres",
    "host=127.0.0.1 port={port} user={user} password='{password}' dbname=postgres",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_connects_for_reading_and_for_writing(spelling: str, postgres16: Server, at16: Settings) -> None:
    settings = replace(at16, database_url=spelling.format(
        user=OWNER, password=PASSWORD, escaped=quote(PASSWORD, safe=""), address=postgres16.address,
        closed=free_port(), port=postgres16.port, sockets=postgres16.sockets,
        sockets_escaped=quote(str(postgres16.sockets), safe=""),
    ))  # fmt: skip
    with database.connect(settings) as connection:
        assert connection.execute("SELECT current_user AS name").fetchone() == {"name": OWNER}
    with database.transaction(settings) as writing:
        assert writing.execute(text("SELECT current_user")).scalar() == OWNER


def test_without_a_url_the_embedded_postgresql_is_started(embedded: Settings) -> None:
    with database.connect(embedded) as connection:
        assert connection.info.dbname == "ntrader"


def test_an_embedded_postgresql_that_was_stopped_is_started_again_to_write(embedded: Settings) -> None:
    with database.transaction(embedded) as connection:
        connection.execute(text("SELECT 1"))
    assert local.stop(embedded.home)
    with database.transaction(embedded) as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


# -- what goes wrong while connecting ------------------------------------------------------------------------


@contextmanager
def refused(kind: type[DatabaseError], message: str, *, transient: bool, hint: str) -> Iterator[None]:
    """The block raises exactly this class, and nothing that it says holds the password."""
    with pytest.raises(NtraderError, match=message) as caught:
        yield
    assert type(caught.value) is kind
    assert caught.value.transient is transient
    assert hint in (caught.value.hint or "")
    said = everything_said(caught.value)
    assert PASSWORD not in said
    assert quote(PASSWORD, safe="") not in said
    assert "S3cret" not in said


WAYS = pytest.mark.parametrize("way", ["reading", "writing"])


def reach(settings: Settings, way: str) -> None:
    if way == "reading":
        database.connect(settings).close()
    else:
        with database.transaction(settings):
            pass


@WAYS
def test_a_wrong_password(way: str, postgres16: Server, at16: Settings) -> None:
    settings = replace(at16, database_url=postgres16.url(password="wrong S3cret"))
    with refused(DatabaseUnavailableError, "refused the password", transient=False, hint="user and password"):
        reach(settings, way)


@WAYS
def test_no_password(way: str, postgres16: Server, at16: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    settings = replace(at16, database_url=f"postgresql://{OWNER}@{postgres16.address}/postgres")
    with refused(DatabaseUnavailableError, "refused the password", transient=False, hint="user and password"):
        reach(settings, way)


@WAYS
def test_a_missing_database(way: str, postgres16: Server, at16: Settings) -> None:
    settings = replace(at16, database_url=postgres16.url("nowhere"))
    with refused(DatabaseUnavailableError, "/nowhere does not exist", transient=False, hint="createdb"):
        reach(settings, way)


@WAYS
def test_a_missing_role(way: str, postgres16: Server, at16: Settings) -> None:
    settings = replace(at16, database_url=postgres16.socket_url(user="nobody-here"))
    with refused(DatabaseUnavailableError, "does not know that user", transient=False, hint="DATABASE_URL"):
        reach(settings, way)


@WAYS
def test_a_closed_port(way: str, at16: Settings) -> None:
    settings = replace(at16, database_url=f"postgresql://u:S3cret@127.0.0.1:{free_port()}/d")
    with refused(TransientDatabaseError, "Connection refused", transient=True, hint="Is it running?"):
        reach(settings, way)


@WAYS
def test_several_closed_ports(way: str, at16: Settings) -> None:
    hosts = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    with refused(TransientDatabaseError, f"@{hosts}/d: Connection refused$", transient=True, hint="Is it running?"):
        reach(replace(at16, database_url=f"postgresql://u:S3cret@{hosts}/d"), way)


@WAYS
def test_a_missing_socket(way: str, at16: Settings, tmp_path: Path) -> None:
    settings = replace(at16, database_url=f"postgresql://u:S3cret@/d?host={tmp_path}")
    with refused(TransientDatabaseError, f"host={tmp_path}: No such file", transient=True, hint="Is it running?"):
        reach(settings, way)


@WAYS
def test_an_unknown_host(way: str, at16: Settings) -> None:
    settings = replace(at16, database_url="postgresql://u:S3cret@ntrader.invalid/d")
    with refused(DatabaseUnavailableError, "@ntrader.invalid/d: the host name is unknown$", transient=False,
                 hint="DATABASE_URL"):  # fmt: skip
        reach(settings, way)


@pytest.mark.parametrize(
    ("parameter", "kind", "message"),
    [
        ("sslmode=nonsense", DatabaseUnavailableError, "invalid sslmode value"),
        ("sslmode=require", DatabaseUnavailableError, "server does not support SSL"),
        ("connect_timeout=soon", DatabaseError, "bad value for connect_timeout"),
        ("options=-c%20nonsense%3D1", DatabaseUnavailableError, 'unrecognized configuration parameter "nonsense"'),
    ],
)
def test_a_bad_parameter(
    parameter: str, kind: type[DatabaseError], message: str, postgres16: Server, at16: Settings
) -> None:
    with refused(kind, message, transient=False, hint=""):
        database.connect(replace(at16, database_url=f"{postgres16.url()}?{parameter}"))


def test_no_connection_left(postgres16: Server, at16: Settings) -> None:
    with database.connect(at16) as connection:
        connection.execute("DROP ROLE IF EXISTS crowd")
        connection.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 1")
    settings = replace(at16, database_url=postgres16.socket_url(user="crowd"))
    with (
        closing(database.connect(settings)),
        refused(TransientDatabaseError, "has no connection left", transient=True, hint="DB_POOL_SIZE"),
    ):
        database.connect(settings)


def test_a_pool_without_a_free_connection(settings: Settings) -> None:
    small = replace(settings, db_pool_size=1, db_max_overflow=0)
    pool: Any = database.writing_engine(small).pool
    pool._timeout = 0.05
    with (
        database.transaction(small),
        refused(TransientDatabaseError, "^all 1 connections .* in use$", transient=True, hint="DB_MAX_OVERFLOW"),
        database.transaction(small),
    ):
        pass


def test_a_user_who_may_not_enter_the_database(postgres16: Server, at16: Settings) -> None:
    with database.connect(at16) as connection:
        connection.execute("DROP DATABASE IF EXISTS closed")
        connection.execute("CREATE DATABASE closed")
        connection.execute("REVOKE CONNECT ON DATABASE closed FROM public")
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger LOGIN")
    settings = replace(at16, database_url=postgres16.socket_url("closed", user="stranger"))
    with refused(DatabaseUnavailableError, "does not let this user in: permission denied for database", transient=False,
                 hint="GRANT CONNECT"):  # fmt: skip
        database.connect(settings)


@pytest.mark.parametrize(
    "said",
    [
        "FATAL:  the database system is starting up",
        "FATAL:  the database system is shutting down",
        "FATAL:  the database system is not yet accepting connections",
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "FATAL:  sorry, too many clients already",
        "connection timeout expired",
        "SSL connection has been closed unexpectedly",
        "SSL SYSCALL error: EOF detected",
        "could not receive data from server: Connection reset by peer",
        "could not send data to server: Broken pipe",
    ],
)
def test_what_passes_is_transient(said: str, at16: Settings) -> None:
    assert database.translate(psycopg.OperationalError(f"connection failed: {said}"), at16).transient


def test_the_embedded_postgresql_is_named_and_its_log_too(tmp_path: Path) -> None:
    error = database.translate(psycopg.OperationalError("Connection refused"), Settings(home=tmp_path))
    assert "(embedded PostgreSQL)" in error.message
    assert f"{tmp_path}/logs" in (error.hint or "")


# -- what goes wrong on the way ------------------------------------------------------------------------------


@pytest.fixture
def table(settings: Settings) -> Settings:
    """A table `t` of two rows, in which deadlocks are found after 50 ms."""
    assert settings.database_url
    with database.transaction(settings) as connection:
        connection.execute(text("DROP TABLE IF EXISTS t"))
        connection.execute(text("CREATE TABLE t (id int PRIMARY KEY, n int)"))
        connection.execute(text("INSERT INTO t VALUES (1, 0), (2, 0)"))
    return replace(settings, database_url=f"{settings.database_url}&options=-c%20deadlock_timeout%3D50ms")


def test_a_query_that_takes_too_long_is_stopped(settings: Settings) -> None:
    hasty = replace(settings, db_statement_timeout=50)
    with (
        refused(DatabaseError, "stopped a query after 50 ms", transient=False, hint="ntrader doctor` shows"),
        database.transaction(hasty) as connection,
    ):
        connection.execute(text("SELECT pg_sleep(10)"))


def test_so_is_one_that_reads(settings: Settings) -> None:
    hasty = replace(settings, db_statement_timeout=50)
    with (
        refused(DatabaseError, "stopped a query after 50 ms", transient=False, hint="--strategy, --symbol, --after"),
        database.reading(hasty) as connection,
    ):
        connection.execute("SELECT pg_sleep(10)")


@pytest.mark.parametrize("pre_ping", [True, False])
def test_a_connection_that_is_lost_in_a_transaction_is_transient_and_replaced(
    pre_ping: bool, table: Settings, home: Path
) -> None:
    settings = replace(table, db_pool_pre_ping=pre_ping)
    with (
        refused(TransientDatabaseError, "broke off|no connection", transient=True, hint=""),
        database.transaction(settings) as connection,
    ):
        connection.execute(text("UPDATE t SET n = 1"))
        terminate(home, connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        connection.execute(text("SELECT 1"))
    with database.transaction(settings) as connection:
        assert connection.execute(text("SELECT max(n) FROM t")).scalar() == 0


def test_one_lost_in_a_copy_too(table: Settings, home: Path) -> None:
    settings = replace(table, db_pool_pre_ping=False)
    with (
        refused(TransientDatabaseError, "broke off|no connection", transient=True, hint=""),
        database.transaction(settings) as connection,
    ):
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            terminate(home, driver.info.backend_pid)
            copy.write_row([3, 3])
    with database.transaction(settings) as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 2


def test_one_lost_while_idle_is_replaced_before_use(table: Settings, home: Path) -> None:
    with database.transaction(table) as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    terminate(home, pid)
    with database.transaction(table) as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


def test_one_kept_for_reading_is_used_again(settings: Settings) -> None:
    assert reading_pid(settings) == reading_pid(settings)


def test_one_kept_for_reading_that_was_lost_is_replaced_before_use(settings: Settings, home: Path) -> None:
    before = reading_pid(settings)
    terminate(home, before)
    assert reading_pid(settings) != before


def test_one_that_is_being_read_from_is_nobody_elses(settings: Settings) -> None:
    with database.reading(settings) as outer:
        assert reading_pid(settings) != outer.info.backend_pid


def test_one_that_failed_is_not_kept(settings: Settings) -> None:
    with pytest.raises(DatabaseError, match="division"), database.reading(settings) as connection:
        failed = connection.info.backend_pid
        connection.execute("SELECT 1 / 0")
    assert reading_pid(settings) != failed


def reading_pid(settings: Settings) -> int:
    with database.reading(settings) as connection:
        return connection.info.backend_pid


def test_one_lost_while_reading_is_transient(settings: Settings, home: Path) -> None:
    with (
        refused(TransientDatabaseError, "broke off|no connection", transient=True, hint=""),
        database.reading(settings) as connection,
    ):
        terminate(home, connection.info.backend_pid)
        connection.execute("SELECT 1")


def test_a_deadlock_is_transient(table: Settings) -> None:
    both_hold = threading.Barrier(2)
    errors: list[DatabaseError] = []

    def update(first: int, second: int) -> None:
        try:
            with database.transaction(table) as connection:
                connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": first})
                both_hold.wait(timeout=10)
                connection.execute(text("UPDATE t SET n = n + 1 WHERE id = :id"), {"id": second})
        except DatabaseError as error:
            errors.append(error)

    threads = [threading.Thread(target=update, args=order) for order in [(1, 2), (2, 1)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [type(error) for error in errors] == [TransientDatabaseError]
    assert "deadlock detected" in errors[0].message


def test_a_serialization_failure_is_transient(table: Settings) -> None:
    with (
        refused(TransientDatabaseError, "could not serialize access", transient=True, hint="Try again"),
        database.transaction(table) as connection,
    ):
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        connection.execute(text("SELECT * FROM t"))
        with database.transaction(table) as other:
            other.execute(text("UPDATE t SET n = 1"))
        connection.execute(text("UPDATE t SET n = 2"))


def test_a_lock_that_is_not_to_be_had_is_transient(table: Settings) -> None:
    with database.transaction(table) as holder:
        holder.execute(text("UPDATE t SET n = 1"))
        with (
            refused(TransientDatabaseError, "could not obtain lock", transient=True, hint="Try again"),
            database.transaction(table) as connection,
        ):
            connection.execute(text("SELECT * FROM t FOR UPDATE NOWAIT"))


def test_a_query_that_somebody_cancels_says_so(settings: Settings) -> None:
    with (
        refused(DatabaseError, "due to user request", transient=False, hint=""),
        database.transaction(settings) as connection,
    ):
        connection.execute(text("SELECT pg_cancel_backend(pg_backend_pid())"))


def test_a_missing_table_is_a_matter_of_the_schema(settings: Settings) -> None:
    with (
        refused(SchemaError, 'relation "nothing" does not exist', transient=False, hint="ntrader db upgrade"),
        database.transaction(settings) as connection,
    ):
        connection.execute(text("SELECT * FROM nothing"))


def test_a_user_who_may_only_read_cannot_write(settings: Settings, reader: Settings) -> None:
    with (
        refused(DatabaseError, "may not do that: permission denied", transient=False, hint="Use a role"),
        database.transaction(reader) as connection,
    ):
        connection.execute(text("DELETE FROM backtest_runs"))


@pytest.fixture
def reader(settings: Settings, home: Path) -> Iterator[Settings]:
    """A role that may read the tables and nothing else."""
    assert settings.database_url
    role = f"reader_{uuid4().hex[:8]}"
    with database.transaction(settings) as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
    yield replace(settings, database_url=settings.database_url.replace("ntrader@", f"{role}@"))
    with database.transaction(settings) as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def test_a_server_that_only_reads_refuses_writes(settings: Settings) -> None:
    with (
        refused(DatabaseError, "only reads: .*read-only transaction", transient=False, hint="primary"),
        database.transaction(settings) as connection,
    ):
        connection.execute(text("SET TRANSACTION READ ONLY"))
        connection.execute(text("DELETE FROM backtest_runs"))


def test_a_server_out_of_locks_says_what_to_raise(settings: Settings) -> None:
    with (
        refused(DatabaseError, "ran out of memory: out of shared memory", transient=False, hint="max_locks_per_trans"),
        database.transaction(settings) as connection,
    ):
        connection.execute(text("SELECT count(pg_advisory_xact_lock(n)) FROM generate_series(1, 1000000) n"))


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="only Linux can take memory from a living process")
def test_a_server_out_of_memory_says_so(settings: Settings) -> None:
    with (
        refused(DatabaseError, "ran out of memory: out of memory", transient=False, hint="work_mem"),
        database.reading(settings) as connection,
    ):
        take_memory_from(connection.info.backend_pid, local.status(settings.home).data_directory)
        connection.execute("SELECT length(string_agg(repeat('x', 1000000), '')) FROM generate_series(1, 800)")


def test_a_full_disk_is_called_that(at16: Settings) -> None:
    error = database.translate(psycopg.errors.DiskFull("could not extend file"), at16)
    assert type(error) is DatabaseError
    assert "is full" in error.message


def test_an_error_of_the_caller_rolls_back_and_stays_itself(table: Settings) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction(table) as connection:
        connection.execute(text("UPDATE t SET n = 1"))
        raise ZeroDivisionError
    with database.transaction(table) as connection:
        assert connection.execute(text("SELECT max(n) FROM t")).scalar() == 0


def terminate(home: Path, pid: int) -> None:
    administer(home, f"SELECT pg_terminate_backend({pid}, 5000)")


# -- sessions and the pool -----------------------------------------------------------------------------------


def shown_by(connection: psycopg.Connection[Any], *names: str) -> list[str]:
    return [connection.execute(f"SHOW {name}").fetchone()[name] for name in names]  # type: ignore[index]


def test_a_reading_session_is_set_up(at16: Settings) -> None:
    with database.connect(replace(at16, db_statement_timeout=1234)) as connection:
        assert shown_by(connection, "TimeZone", "statement_timeout", "plan_cache_mode") == [
            "UTC",
            "1234ms",
            "force_custom_plan",
        ]
        assert shown_by(connection, *database.PLANNER) == [*database.PLANNER.values()]
        assert shown_by(connection, "application_name") == ["ntrader"]
        assert connection.autocommit


def test_a_writing_session_is_set_up(at16: Settings) -> None:
    with database.transaction(replace(at16, db_statement_timeout=1234)) as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "1234ms"
        assert connection.execute(text("SHOW timezone")).scalar() == "UTC"
        assert connection.execute(text("SHOW plan_cache_mode")).scalar() == "auto"


def test_a_writing_session_without_sqlalchemy_is_set_up_alike(at16: Settings) -> None:
    with database.writing(replace(at16, db_statement_timeout=1234)) as connection:
        assert shown_by(connection, "TimeZone", "statement_timeout", "plan_cache_mode") == ["UTC", "1234ms", "auto"]


@WAYS
def test_options_and_names_of_the_url_are_kept(way: str, at16: Settings) -> None:
    query = "application_name=mine&options=-c%20work_mem%3D7MB%20-c%20statement_timeout%3D99"
    settings = replace(at16, database_url=f"{at16.database_url}?{query}")
    wanted = ["mine", "7MB", "99ms", "UTC"]
    names = ["application_name", "work_mem", "statement_timeout", "TimeZone"]
    if way == "reading":
        with database.connect(settings) as connection:
            assert shown_by(connection, *names) == wanted
    else:
        with database.transaction(settings) as writing:
            assert [writing.execute(text(f"SHOW {name}")).scalar() for name in names] == wanted


def test_the_pool_is_as_the_settings_say(settings: Settings) -> None:
    engine: Any = database.writing_engine(
        replace(
            settings,
            db_pool_size=3,
            db_max_overflow=4,
            db_pool_recycle=5,
            db_pool_pre_ping=False,
            db_query_cache_size=77,
            db_echo=True,
        )
    )
    pool = engine.pool
    assert (pool.size(), pool._max_overflow, pool._recycle, pool._pre_ping) == (3, 4, 5, False)
    assert (engine._compiled_cache.capacity, engine.echo) == (77, True)
    assert database.writing_engine(settings).pool._pre_ping is True


def test_one_engine_serves_equal_settings(settings: Settings) -> None:
    assert database.writing_engine(settings) is database.writing_engine(replace(settings))


def test_an_echo_shows_neither_passwords_nor_parameters(
    at16: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), database.transaction(replace(at16, db_echo=True)) as connection:
        connection.execute(text("SELECT :value"), {"value": "a private number"})
    output = "".join(capfd.readouterr()) + caplog.text
    assert "SELECT" in output
    assert PASSWORD not in output
    assert "a private number" not in output


# -- writing by psycopg alone --------------------------------------------------------------------------------


def test_writing_commits_at_the_end_and_rolls_back_what_raises(shared: Settings) -> None:
    with database.writing(shared) as connection:
        connection.execute("CREATE TABLE written (n int)")
        connection.execute("INSERT INTO written VALUES (1)")
    with pytest.raises(KeyError), database.writing(shared) as connection:
        connection.execute("INSERT INTO written VALUES (2)")
        raise KeyError
    with pytest.raises(DatabaseError, match="written"), database.writing(shared) as connection:
        connection.execute("INSERT INTO written VALUES ('x')")
    with database.writing(shared) as connection:
        assert connection.execute("SELECT * FROM written").fetchall() == [{"n": 1}]
        connection.execute("DROP TABLE written")


def test_a_connection_is_kept_for_the_next_transaction(shared: Settings) -> None:
    def backend() -> int:
        with database.writing(shared) as connection:
            return connection.info.backend_pid

    first = backend()
    assert backend() == first
    with database.writing(shared) as outer:
        assert backend() not in (first, None)  # one that is in use is not shared
        assert outer.info.backend_pid == first


def test_a_kept_connection_that_has_died_is_replaced_without_a_word(shared: Settings, home: Path) -> None:
    with database.writing(shared) as one, database.writing(shared) as two:
        kept = [one.info.backend_pid, two.info.backend_pid]
    for pid in kept:
        administer(home, f"SELECT pg_terminate_backend({pid}, 5000)")
    with database.writing(shared) as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert connection.info.backend_pid not in kept
