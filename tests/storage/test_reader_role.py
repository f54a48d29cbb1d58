"""config/postgres/reader.sql: a role that may read what there is and what will be, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from ntrader.settings import Settings
from storage import database, migrations, programs, query
from tests.conftest import dispose_engines
from tests.storage.conftest import Server

SCRIPT = Path(__file__).parents[2] / "config" / "postgres" / "reader.sql"
ROLE = 'analyst "of" all'
FORBIDDEN = [
    "INSERT INTO trades SELECT * FROM trades",
    "UPDATE backtest_runs SET notes = 'x'",
    "DELETE FROM backtest_runs",
    "TRUNCATE trades",
    "DROP TABLE trades",
    "CREATE TABLE mine (id int)",
    "CREATE SCHEMA mine",
    "ALTER TABLE trades ADD COLUMN mine int",
    "SELECT nextval('backtest_runs_id_seq')",
    "CREATE ROLE mine",
    "SELECT pg_read_file('/etc/hostname')",
]


@pytest.fixture
def owner(postgres16: Server, home: Path) -> Iterator[Settings]:
    """The owner, no superuser, of a migrated database in PostgreSQL 16 that has an odd name."""
    admin = Settings(home=home, database_url=postgres16.url())
    with database.connect(admin) as connection:
        connection.execute('DROP DATABASE IF EXISTS "the runs"')
        connection.execute("DROP ROLE IF EXISTS keeper")
        connection.execute("CREATE ROLE keeper LOGIN CREATEROLE")
        connection.execute('CREATE DATABASE "the runs" OWNER keeper')
    settings = replace(admin, database_url=postgres16.socket_url(quote("the runs"), user="keeper"))
    migrations.upgrade(settings)
    yield settings
    dispose_engines()
    with database.connect(admin) as connection:
        connection.execute('DROP DATABASE "the runs" WITH (FORCE)')
        connection.execute(psycopg.sql.SQL("DROP ROLE IF EXISTS {}").format(psycopg.sql.Identifier(ROLE)))
        connection.execute("DROP ROLE keeper")


def run(settings: Settings, *variables: str) -> subprocess.CompletedProcess[str]:
    """The script by psql, as a user calls it."""
    found = programs.newest(settings)
    options = [part for variable in variables for part in ("-v", variable)]
    with programs.way_to(settings, found) as (place, environment):
        return found.run("psql", "-X", "-q", place, *options, "-f", str(SCRIPT), environment=environment)


def as_role(owner: Settings) -> Settings:
    assert owner.database_url
    return replace(owner, database_url=owner.database_url.replace("keeper@", f"{quote(ROLE)}@"))


def test_the_role_reads_what_is_there_and_what_will_be(owner: Settings) -> None:
    done = run(owner, f"role={ROLE}", "timeout=7s")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with database.connect(owner) as connection:
        connection.execute("CREATE TABLE later AS SELECT 1 AS id")
        connection.execute("CREATE VIEW later_view AS SELECT * FROM later")

    with database.connect(as_role(owner)) as connection:
        for name in (
            "backtest_runs",
            "performance_metrics",
            "equity_curves",
            "trades",
            "alembic_version",
            "later_view",
        ):
            connection.execute(f"SELECT count(*) FROM {name}")
        assert connection.execute("SHOW default_transaction_read_only").fetchone() == {
            "default_transaction_read_only": "on"
        }
    with query.ask(as_role(owner), "SELECT id FROM later") as answer:
        assert isinstance(answer, query.Table)
        assert list(answer.rows) == [(1,)]


def test_the_role_changes_nothing_even_when_it_asks_to(owner: Settings) -> None:
    assert run(owner, f"role={ROLE}").returncode == 0

    with database.connect(as_role(owner)) as connection:
        for statement in FORBIDDEN:
            with pytest.raises((psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege)):
                connection.execute(statement)
        connection.execute("SET default_transaction_read_only = off")
        for statement in FORBIDDEN:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_time_of_a_statement_is_limited(owner: Settings) -> None:
    assert run(owner, f"role={ROLE}", "timeout=50ms").returncode == 0

    url = as_role(owner).database_url
    assert url
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(10)")


def test_again_and_with_other_options(owner: Settings) -> None:
    for options in ((), (), ("login=off",), ("login=on", "timeout=5s")):
        done = run(owner, f"role={ROLE}", *options)
        assert (done.returncode, done.stderr) == (0, "")
        with database.connect(owner) as connection:
            row = connection.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone()
        assert row == {"rolcanlogin": options != ("login=off",)}


def test_a_role_that_is_not_named(owner: Settings) -> None:
    done = run(owner)

    assert done.returncode == 3
    assert "no role is named" in done.stderr


@pytest.mark.parametrize("role", ["keeper", "owner"])
def test_a_role_that_writes_stays_as_it_is(owner: Settings, role: str) -> None:
    done = run(owner, f"role={role}")

    assert done.returncode == 3
    assert "Choose another name" in done.stderr
    with database.connect(owner) as connection:
        assert (
            connection.execute("SELECT FROM pg_db_role_setting s WHERE s.setrole = %s::regrole", [role]).rowcount == 0
        )


def test_a_schema_that_everybody_may_write_to_is_said(owner: Settings, postgres16: Server) -> None:
    with psycopg.connect(postgres16.socket_url(quote("the runs")), autocommit=True) as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")

    done = run(owner, f"role={ROLE}")

    assert done.returncode == 0
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in done.stderr
