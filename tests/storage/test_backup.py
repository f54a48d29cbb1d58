"""Backups: what is restored is what was there, to the bit, or nothing was touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ntrader.errors import (
    ConfigError,
    DatabaseUnavailableError,
    NtraderError,
    SchemaError,
    ServiceError,
    TransientDatabaseError,
)
from ntrader.settings import Settings
from storage import backup, database, local, migrations, programs, recording, runs
from tests import factories
from tests.conftest import administer, create_database, dispose_engines, settings_for
from tests.storage import sweeps
from tests.storage.conftest import PASSWORD, Server

FIRST = "001_create_backtest_tables"
ODD = "a\tb\\N\n\\.\nSET transaction_timeout = 0;\nümläut 'quoted' \"twice\""


def record(settings: Settings, count: int = 3) -> None:
    """Successes, a failure and a run that is still going on, with everything that may make trouble in a text."""
    for number in range(count):
        run = factories.new_run()
        equity = [100_000.0 + 0.1 * step * number for step in range(400)]
        execution = factories.execution(factories.run_result(equity, (factories.trade(pnl=0.1 + 0.2),)))
        recording.start_run(settings, run)
        recording.save_success(settings, run.run_id, execution, factories.metrics_of(execution))
    failed = factories.new_run()
    recording.start_run(settings, failed)
    recording.save_failure(settings, failed.run_id, recording.Failure("failed", "StrategyError", "it broke", "T"))
    recording.start_run(settings, factories.new_run())
    sweep_id = sweeps.written(settings, 4, name="ümläut 'quoted' \"twice\" \\N \\.")
    with database.connect(settings) as connection:
        connection.execute("UPDATE backtest_runs SET notes = %s", [ODD])
        # Each kind of trial, and no further runs.
        for number, change in enumerate((
            "state = 'success', linked = true, run_id = (SELECT min(id) FROM backtest_runs)",
            "state = 'failed', reason = 'killed', crashes = 2",
            "state = 'running', chunk_id = gen_random_uuid(), lease_owner = 'far/1/1', lease_expires_at = now()",
        )):  # fmt: skip
            connection.execute(
                f"UPDATE trials SET {change} WHERE sweep_id = %s AND trial_number = %s", [sweep_id, number]
            )


def rows(settings: Settings) -> dict[str, list[str]]:
    """Every row of every table, as PostgreSQL writes it: floats to the bit."""
    with database.connect(settings) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        return {
            name: [row["line"] for row in connection.execute(f'SELECT t::text AS line FROM "{name}" t ORDER BY 1')]
            for name in sorted(row["relname"] for row in names)
        }


def shape(settings: Settings) -> list[tuple[object, ...]]:
    """Constraints, indexes, triggers, functions, views and storage of columns: what autogenerate does not compare."""
    queries = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
        "SELECT attrelid::regclass::text, attname, attstorage::text || attnotnull::text AS kept FROM pg_attribute"
        " WHERE attnum > 0 AND NOT attisdropped"
        " AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)",
    )
    with database.connect(settings) as connection:
        return sorted(tuple(row.values()) for query in queries for row in connection.execute(query))


def execute(settings: Settings, *statements: str) -> None:
    with database.connect(settings) as connection:
        for statement in statements:
            connection.execute(statement)


def restore(settings: Settings, path: Path, *, replace: bool = False) -> backup.Restored:
    return backup.restore(settings, backup.look_into(settings, path), replace=replace)


@pytest.fixture(scope="module")
def recorded(home: Path, template: str) -> Iterator[Settings]:
    """A database with runs, which no test changes."""
    name = create_database(home, template)
    settings = settings_for(home, name)
    record(settings)
    yield settings
    dispose_engines()
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def dump(recorded: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its backup."""
    path = tmp_path_factory.mktemp("backup") / "runs.dump"
    backup.back_up(recorded, path)
    return path


@pytest.fixture
def empty(home: Path, template: str) -> Iterator[Settings]:
    """A database without tables."""
    name = create_database(home)
    yield settings_for(home, name)
    dispose_engines()
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def another_home(home: Path) -> Iterator[Settings]:
    """A second embedded PostgreSQL, with the session's programs."""
    local.ensure_running(home)
    folder = Path(tempfile.mkdtemp(prefix="nt b-"))
    (folder / "postgresql").mkdir()
    found = local.find_client(home, "postgres").parent.parent
    (folder / "postgresql" / found.name).symlink_to(found)
    yield Settings(home=folder)
    dispose_engines()
    local.stop(folder)
    shutil.rmtree(folder)


# -- the round trip ------------------------------------------------------------------------------------------


def test_everything_comes_back(recorded: Settings, empty: Settings, tmp_path: Path) -> None:
    made = backup.back_up(recorded, tmp_path / "runs.dump")

    done = restore(empty, made.path)

    assert (made.runs, made.revision, made.left_out) == (5, database.HEAD, ())
    assert made.size == made.path.stat().st_size > 0
    assert done == backup.Restored(5, database.HEAD, behind=False)
    assert rows(empty) == rows(recorded)
    assert len(rows(empty)["trades"]) == 3
    assert (len(rows(empty)["sweeps"]), len(rows(empty)["trials"])) == (1, 4)
    assert shape(empty) == shape(recorded)
    migrations.check(empty)


def test_a_restored_database_works_on(dump: Path, empty: Settings) -> None:
    restore(empty, dump)

    record(empty, 1)  # the numbers go on where they were

    assert len(runs.list_runs(empty, 20).runs) == 8
    with database.connect(empty) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("UPDATE backtest_runs SET total_return = 1 WHERE execution_status = 'success'")
    with database.connect(empty) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("UPDATE trials SET state = 'waiting' WHERE state = 'success'")
    assert sweeps.written(empty, 1) == 3


def test_into_the_embedded_database_of_another_home(recorded: Settings, another_home: Settings, dump: Path) -> None:
    assert backup.recorded_runs(another_home) == 0

    done = restore(another_home, dump)

    assert done == backup.Restored(5, database.HEAD, behind=False)
    assert rows(another_home) == rows(recorded)
    migrations.check(another_home)

    with pytest.raises(ConfigError, match="holds runs already: 5"):
        restore(another_home, dump)
    again = backup.back_up(another_home, dump.with_name("again.dump"))
    assert restore(another_home, again.path, replace=True).runs == 5
    assert rows(another_home) == rows(recorded)


def test_an_older_schema_is_restored_and_migrated_at_home(
    empty: Settings, another_home: Settings, tmp_path: Path
) -> None:
    migrations.upgrade(empty, FIRST)
    execute(another_home, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    made = backup.back_up(empty, tmp_path / "old.dump")

    done = restore(another_home, made.path)

    assert made.revision == FIRST
    assert done == backup.Restored(0, database.HEAD, behind=False)
    migrations.check(another_home)


def test_an_older_schema_elsewhere_is_said_to_be_behind(
    dump: Path, empty: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "HEAD", "999_later")

    assert restore(empty, dump) == backup.Restored(5, database.HEAD, behind=True)


def test_grants_and_owners_stay_behind(empty: Settings, home: Path, template: str, tmp_path: Path) -> None:
    migrations.upgrade(empty)
    role = f"gone_{uuid4().hex[:8]}"
    execute(empty, f"CREATE ROLE {role}", f"GRANT SELECT ON trades TO {role}", f"ALTER TABLE trades OWNER TO {role}")
    path = backup.back_up(empty, tmp_path / "runs.dump").path
    execute(empty, f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP OWNED BY {role}", f"DROP ROLE {role}")

    assert restore(empty, path).runs == 0


# -- the file ------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_only_when_asked_to(recorded: Settings, tmp_path: Path) -> None:
    path = tmp_path / "runs.dump"
    path.write_text("precious")
    path.chmod(0o640)

    with pytest.raises(ConfigError, match="exists") as caught:
        backup.back_up(recorded, path)
    assert "--force" in (caught.value.hint or "")
    assert path.read_text() == "precious"

    backup.back_up(recorded, path, force=True)
    assert path.read_bytes().startswith(b"PGDMP")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["nowhere/runs.dump", ".", "file/runs.dump"])
def test_a_place_where_no_file_can_be(recorded: Settings, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError):
        backup.back_up(recorded, tmp_path / place, force=True)

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_followed(recorded: Settings, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "runs.dump"
    link.symlink_to(tmp_path / "disk" / "real.dump")

    backup.back_up(recorded, link)

    assert link.is_symlink()
    assert (tmp_path / "disk" / "real.dump").read_bytes().startswith(b"PGDMP")


def test_a_full_disk_leaves_nothing_behind(recorded: Settings, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(NtraderError, match="No space left on device; nothing of it was kept"):
            backup.back_up(recorded, disk / "runs.dump")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_there_has_to_be_something_of_ours(empty: Settings, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no ntrader tables"):
        backup.back_up(empty, tmp_path / "runs.dump")

    execute(empty, "CREATE TABLE alembic_version (version_num text)", "INSERT INTO alembic_version VALUES ('a1b2c3')")
    with pytest.raises(SchemaError, match="another program's"):
        backup.back_up(empty, tmp_path / "runs.dump")
    assert list(tmp_path.iterdir()) == []


def test_a_locked_table_is_not_waited_for_for_ever(
    recorded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_LOCK_WAIT", "100ms")
    with database.connect(recorded, autocommit=False) as other:
        other.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientDatabaseError, match="locked"):
            backup.back_up(recorded, tmp_path / "runs.dump")
        other.rollback()
    assert list(tmp_path.iterdir()) == []


# -- what is refused, and leaves everything as it was --------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"PGDMP", b"-- a script\nCREATE TABLE x ();\n", bytes(10_000)])
def test_a_file_that_is_no_backup(settings: Settings, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.dump"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="is no backup, or a damaged one"):
        backup.look_into(settings, path)


def test_a_file_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    for path in (tmp_path / "runs.dump", tmp_path):
        with pytest.raises(ConfigError, match=r"no file|not a file"):
            backup.look_into(settings, path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.95, 0.999])
def test_a_file_that_breaks_off(
    recorded: Settings, settings: Settings, dump: Path, tmp_path: Path, share: float
) -> None:
    whole = dump.read_bytes()
    path = tmp_path / "cut.dump"
    path.write_bytes(whole[: int(len(whole) * share)])
    before = rows(settings), shape(settings)

    with pytest.raises(ConfigError, match="is no backup, or a damaged one"):
        restore(settings, path, replace=True)

    assert (rows(settings), shape(settings)) == before


def test_the_backup_of_another_program(empty: Settings, settings: Settings, tmp_path: Path) -> None:
    execute(empty, "CREATE TABLE orders AS SELECT 1 AS id")
    path = tmp_path / "orders.dump"
    found = programs.newest(empty)
    with programs.way_to(empty, found) as (place, environment):
        found.run("pg_dump", "-Fc", f"-f{path}", f"-d{place}", environment=environment).check_returncode()

    with pytest.raises(ConfigError, match="not of ntrader"):
        backup.look_into(settings, path)


def test_a_backup_from_the_future(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(settings, "UPDATE alembic_version SET version_num = '999_future'")
    with pytest.raises(SchemaError, match="999_future"):
        backup.back_up(settings, tmp_path / "no.dump")
    with monkeypatch.context() as later:
        later.setattr(backup, "HEAD", "999_future")
        path = backup.back_up(settings, tmp_path / "runs.dump").path

    with pytest.raises(SchemaError, match="newer than this ntrader") as caught:
        backup.look_into(settings, path)
    assert caught.value.hint == "Upgrade ntrader, then restore."


def test_runs_are_given_up_only_when_asked_to(dump: Path, recorded: Settings, settings: Settings) -> None:
    record(settings, 1)
    before = rows(settings)

    with pytest.raises(ConfigError, match="holds runs already: 3") as caught:
        restore(settings, dump)
    assert "--replace" in (caught.value.hint or "")
    assert rows(settings) == before

    execute(settings, "CREATE VIEW mine AS SELECT count(*) FROM trades", "CREATE TYPE mood AS ENUM ('good')")
    assert restore(settings, dump, replace=True).runs == 5
    assert rows(settings) == rows(recorded)
    assert shape(settings) == shape(recorded)


def test_runs_recorded_after_the_look_are_kept(dump: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = backup.look_into(settings, dump)
    check = backup._check_target

    def and_then_one_is_recorded(*arguments: object, **options: bool) -> None:
        check(*arguments, **options)  # type: ignore[arg-type]
        record(settings, 1)

    monkeypatch.setattr(backup, "_check_target", and_then_one_is_recorded)

    with pytest.raises(NtraderError, match="runs were recorded meanwhile"):
        backup.restore(settings, archive)
    assert len(runs.list_runs(settings, 10).runs) == 3


def test_tables_in_use_are_not_torn_away(dump: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    record(settings, 1)
    before = rows(settings)
    monkeypatch.setattr(backup, "_LOCK_TIMEOUT", "100ms")
    with database.connect(settings, autocommit=False) as other:
        other.execute("SELECT FROM trades")
        with pytest.raises(TransientDatabaseError, match="in use"):
            restore(settings, dump, replace=True)
        other.rollback()
    assert rows(settings) == before


def test_what_the_database_refuses_is_taken_back(dump: Path, empty: Settings) -> None:
    execute(empty, "CREATE TABLE trades AS SELECT 1 AS id")  # in the way, and with no table of ours beside it

    with pytest.raises(NtraderError, match='nothing was changed: relation "trades" already exists'):
        restore(empty, dump)

    assert rows(empty) == {"trades": ["(1)"]}


# -- a database that is shared -------------------------------------------------------------------------------


def test_what_others_keep_in_the_schema_is_left_alone(settings: Settings, empty: Settings, tmp_path: Path) -> None:
    record(settings, 1)
    execute(
        settings,
        'CREATE TABLE "Orders, old" AS SELECT 1 AS id',
        'CREATE VIEW orders_view AS SELECT * FROM "Orders, old"',
        "CREATE VIEW on_both AS SELECT o.id FROM orders_view o, trades",
        "CREATE VIEW on_ours AS SELECT count(*) FROM trades",
        "CREATE EXTENSION pg_trgm",
    )

    made = backup.back_up(settings, tmp_path / "runs.dump")
    restore(empty, made.path)

    assert made.left_out == ("Orders, old", "on_both", "orders_view")
    assert set(rows(empty)) == set(rows(settings)) - {"Orders, old"}
    with database.connect(empty) as connection:
        assert connection.execute("SELECT count FROM on_ours").fetchone() == {"count": 1}
    before = rows(settings)
    with pytest.raises(ConfigError, match="not ntrader's: Orders, old"):
        restore(settings, made.path, replace=True)
    assert rows(settings) == before


def test_an_extension_survives_a_replacement(settings: Settings, dump: Path) -> None:
    execute(settings, "CREATE EXTENSION pg_trgm")

    restore(settings, dump)

    with database.connect(settings) as connection:
        assert connection.execute("SELECT similarity('word', 'word') AS value").fetchone() == {"value": 1.0}


def test_a_schema_of_its_own(empty: Settings, settings: Settings, dump: Path, tmp_path: Path) -> None:
    odd = 'a "b" c'
    execute(empty, 'CREATE SCHEMA "a ""b"" c"')
    path = "%22a%20%22%22b%22%22%20c%22".replace("%20", "%5C%20")
    own = replace(empty, database_url=f"{empty.database_url}&options=-csearch_path={path}")
    migrations.upgrade(own)
    record(own, 1)

    made = backup.back_up(own, tmp_path / "runs.dump")

    assert backup.look_into(own, made.path).schema == odd
    assert restore(own, made.path, replace=True).runs == 3
    assert len(runs.list_runs(own, 10).runs) == 3
    with pytest.raises(ConfigError, match="the backup is of schema"):
        restore(settings, made.path)


# -- servers of all kinds ------------------------------------------------------------------------------------


@pytest.fixture
def settings16(postgres16: Server, home: Path) -> Iterator[Settings]:
    """An empty database on PostgreSQL 16, reached over TCP with a password that means something everywhere."""
    owner = Settings(home=home, database_url=postgres16.url())
    execute(owner, "DROP DATABASE IF EXISTS backups", "CREATE DATABASE backups")
    yield replace(owner, database_url=postgres16.url("backups"))
    dispose_engines()


def test_from_18_to_16_and_back(
    dump: Path, recorded: Settings, settings16: Settings, empty: Settings, tmp_path: Path
) -> None:
    assert restore(settings16, dump).runs == 5
    assert rows(settings16) == rows(recorded)
    migrations.check(settings16)

    made = backup.back_up(settings16, tmp_path / "sixteen.dump")
    assert restore(settings16, made.path, replace=True).runs == 5
    assert rows(settings16) == rows(recorded)

    assert restore(empty, made.path).runs == 5
    assert rows(empty) == rows(recorded)
    assert shape(empty) == shape(recorded)


def test_an_owner_without_other_rights(postgres16: Server, home: Path, recorded: Settings, dump: Path) -> None:
    admin = Settings(home=home, database_url=postgres16.url())
    execute(admin, "CREATE ROLE plain LOGIN", "CREATE DATABASE plain OWNER plain")
    plain = replace(admin, database_url=postgres16.socket_url("plain", user="plain"))
    try:
        assert restore(plain, dump).runs == 5
        assert backup.back_up(plain, dump.with_name("plain.dump")).runs == 5
        assert restore(plain, dump.with_name("plain.dump"), replace=True).runs == 5
        assert rows(plain) == rows(recorded)
    finally:
        dispose_engines()
        execute(admin, "DROP DATABASE plain WITH (FORCE)", "DROP ROLE plain")


def test_several_hosts_are_tried(settings16: Settings, postgres16: Server, tmp_path: Path) -> None:
    migrations.upgrade(settings16)
    assert settings16.database_url
    several = settings16.database_url.replace(postgres16.address, f"127.0.0.1:1,{postgres16.address}")

    made = backup.back_up(replace(settings16, database_url=several), tmp_path / "runs.dump")

    assert made.runs == 0


def test_a_password_that_does_not_fit(settings16: Settings, postgres16: Server, tmp_path: Path) -> None:
    wrong = replace(settings16, database_url=postgres16.url("backups", password="wr0ng"))

    with pytest.raises(DatabaseUnavailableError, match="refused the password"):
        backup.back_up(wrong, tmp_path / "runs.dump")
    assert list(tmp_path.iterdir()) == []


def test_secrets_stay_off_the_command_line(settings16: Settings) -> None:
    url = f"{settings16.database_url}?sslpassword=k3y&keepalives_idle=7&sslmode=prefer&options=-cgeqo%3Doff"
    found = programs.newest(settings16)

    with programs.way_to(replace(settings16, database_url=url), found) as (place, environment):
        given = psycopg.conninfo.conninfo_to_dict(place)
        services = Path(environment["PGSERVICEFILE"])
        assert (services.read_text(), services.stat().st_mode & 0o777) == ("[ntrader]\nsslpassword=k3y\n", 0o600)
        said = found.run("psql", "-XAtc", "SHOW geqo", f"-d{place}", environment=environment)

    assert not services.exists()
    assert "password" not in given
    assert "k3y" not in place
    assert PASSWORD not in place
    assert environment["PGPASSWORD"] == PASSWORD
    assert (given["keepalives_idle"], given["sslmode"], given["options"]) == ("7", "prefer", "-cgeqo=off")
    assert (said.stdout, said.stderr) == ("off\n", "")


def test_no_program_fits(settings: Settings) -> None:
    with pytest.raises(ServiceError, match="the server is PostgreSQL 99") as caught:
        programs.newest(settings, 99)
    assert "postgresql-client-99" in (caught.value.hint or "")
