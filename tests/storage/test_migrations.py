"""The tables: made by the migration as the models say them, by whoever comes first, and never by halves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlmodel import SQLModel

from ntrader.errors import SchemaError
from ntrader.settings import Settings
from storage import database, migrations, models, recording
from storage.database import connect
from tests import factories
from tests.conftest import administer, create_database, dispose_engines, settings_for
from tests.storage.conftest import free_port, with_a_migration_that_fails

PROJECT = Path(__file__).resolve().parents[2]
TABLES = {"backtest_runs", "performance_metrics", "equity_curves", "trades"}
# Eight processes with everything loaded, so that they meet in the database and not on the way there.
EIGHT_AT_ONCE = """
import os
from alembic import command
from ntrader.settings import load_settings
from storage import migrations, models
ready, go = os.pipe()
children = []
for _ in range(8):
    if (child := os.fork()) == 0:
        os.close(go)
        os.read(ready, 1)
        migrations.upgrade(load_settings())
        os._exit(0)
    children.append(child)
os.close(go)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def ask(settings: Settings, query: str) -> list[tuple[object, ...]]:
    with database.connect(settings) as connection:
        return [tuple(row.values()) for row in connection.execute(query).fetchall()]


def tables(settings: Settings) -> set[object]:
    return {
        row[0] for row in ask(settings, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname !~ '^pg_|^sql_'")
    }


# -- up and down ---------------------------------------------------------------------------------------------


def test_up_down_up(empty: Settings) -> None:
    migrations.upgrade(empty)
    assert migrations.current(empty) == "001_create_backtest_tables" == database.HEAD
    assert tables(empty) == TABLES | {"alembic_version"}

    migrations.downgrade(empty, "base")
    assert migrations.current(empty) is None
    assert tables(empty) == {"alembic_version"}
    leftovers = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    assert ask(empty, leftovers) == []

    migrations.upgrade(empty)
    assert tables(empty) == TABLES | {"alembic_version"}


def test_an_upgrade_may_be_repeated(settings: Settings) -> None:
    with database.transaction(settings) as connection:
        connection.execute(text("COMMENT ON TABLE trades IS 'still the same'"))
    migrations.upgrade(settings)
    assert ask(settings, "SELECT obj_description('trades'::regclass)") == [("still the same",)]


def test_eight_processes_may_upgrade_at_once(empty: Settings) -> None:
    assert call(empty, sys.executable, "-c", EIGHT_AT_ONCE) == f"{[0] * 8}\n"
    assert migrations.current(empty) == database.HEAD


def test_an_upgrade_waits_longer_than_a_query_may_take(empty: Settings) -> None:
    hasty = replace(empty, db_statement_timeout=200)
    with database.connect(empty) as other, ThreadPoolExecutor() as pool:
        other.execute("SELECT pg_advisory_lock(%s)", [0x6E747261646572])
        upgrade = pool.submit(migrations.upgrade, hasty)
        with pytest.raises(TimeoutError):
            upgrade.result(timeout=0.6)
        other.execute("SELECT pg_advisory_unlock_all()")
        upgrade.result(timeout=10)
    assert migrations.current(empty) == database.HEAD


def test_an_upgrade_that_fails_leaves_nothing_behind(empty: Settings) -> None:
    with database.transaction(empty) as connection:
        connection.execute(text("CREATE TABLE trades (id int)"))
    with pytest.raises(
        SchemaError, match=r'migration 001_\w+ failed and changed nothing: .*"trades" is there'
    ) as caught:
        migrations.upgrade(empty)
    assert "empty database" in (caught.value.hint or "")
    assert tables(empty) == {"trades"}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    scripts = with_a_migration_that_fails(tmp_path)
    monkeypatch.setattr(migrations, "_scripts", lambda: scripts)
    return scripts


@pytest.mark.parametrize("before", [None, database.HEAD])
def test_a_migration_that_fails_half_way_changes_nothing_and_is_named(
    before: str | None, empty: Settings, failing: Path
) -> None:
    if before:
        migrations.upgrade(empty, before)
    found = tables(empty)
    with pytest.raises(SchemaError, match=r'^the migration 999_fails_half_way failed and .*"pnl"') as caught:
        migrations.upgrade(empty)
    assert "`ntrader db upgrade` again" in (caught.value.hint or "")
    assert migrations.current(empty) == before
    assert tables(empty) == found


@pytest.mark.parametrize("action", [migrations.upgrade, migrations.downgrade])
def test_a_revision_that_is_not_there_is_refused(action: object, shared: Settings) -> None:
    with pytest.raises(SchemaError, match="Can't locate revision identified by 'nonsense'"):
        action(shared, "nonsense")  # type: ignore[operator]


# -- what a command finds ------------------------------------------------------------------------------------


def test_prepare_makes_the_embedded_database_ready(embedded: Settings) -> None:
    migrations.downgrade(embedded, "base")
    migrations.prepare(embedded)
    assert migrations.current(embedded) == database.HEAD


def test_prepare_leaves_a_newer_embedded_database_alone(embedded: Settings) -> None:
    migrations.upgrade(embedded)
    stamp(embedded, "999_after")
    with pytest.raises(SchemaError, match="is at 999_after") as caught:
        migrations.prepare(embedded)
    assert "Upgrade ntrader" in (caught.value.hint or "")
    stamp(embedded, database.HEAD)


def test_prepare_only_looks_at_a_database_of_somebodys_own(empty: Settings) -> None:
    with pytest.raises(SchemaError, match=r"^the database has no ntrader tables yet$") as caught:
        migrations.prepare(empty)
    assert caught.value.hint == "Run `ntrader db upgrade`."
    assert tables(empty) == set()


def test_prepare_is_content_with_the_right_revision(shared: Settings) -> None:
    migrations.prepare(shared)
    assert migrations.current(shared) == database.HEAD


@pytest.mark.parametrize(
    ("revision", "message", "hint"),
    [
        ("000_before", f"is at 000_before, this ntrader needs {database.HEAD}", "Run `ntrader db upgrade`."),
        ("999_after", f"is at 999_after, this ntrader needs {database.HEAD}", "Upgrade ntrader"),
        ("a1b2c3d4", "another program's", "a database of its own"),
    ],
)
def test_another_revision_is_neither_prepared_nor_read(
    revision: str, message: str, hint: str, settings: Settings
) -> None:
    stamp(settings, revision)
    for refuses in (migrations.prepare, read):
        with pytest.raises(SchemaError, match=message) as caught:
            refuses(settings)
        assert hint in (caught.value.hint or "")


def test_a_database_without_tables_cannot_be_read(empty: Settings) -> None:
    with pytest.raises(SchemaError, match="has no ntrader tables yet"):
        read(empty)


def test_no_revision_is_no_table(settings: Settings) -> None:
    with database.transaction(settings) as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(SchemaError, match="has no ntrader tables yet"):
        read(settings)


def read(settings: Settings) -> None:
    with database.reading(settings):
        pass


def stamp(settings: Settings, revision: str) -> None:
    with database.transaction(settings) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


# -- checks --------------------------------------------------------------------------------------------------


def test_check_is_content_and_quiet(shared: Settings) -> None:
    """In a process of its own: Alembic speaks to the stdout that it found when it was imported."""
    check = (
        "from ntrader.settings import load_settings; from storage import migrations; migrations.check(load_settings())"
    )
    assert call(shared, sys.executable, "-c", check) == ""


def test_check_finds_a_column_that_nobody_wrote_down(settings: Settings) -> None:
    with database.transaction(settings) as connection:
        connection.execute(text("ALTER TABLE trades ADD extra int"))
    with pytest.raises(SchemaError, match="extra"):
        migrations.check(settings)


def test_check_refuses_a_database_without_tables(empty: Settings) -> None:
    with pytest.raises(SchemaError, match="not up to date"):
        migrations.check(empty)


# -- the same by migration and by models ---------------------------------------------------------------------


COLUMNS = """
SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, pg_get_expr(adbin, adrelid)
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE attnum > 0 AND relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid <> coalesce(to_regclass('alembic_version'), 0)
"""
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"


@pytest.fixture(scope="module")
def modelled(shared: Settings) -> Iterator[Settings]:
    """A database whose tables were made without a migration."""
    name = create_database(shared.home)
    settings = settings_for(shared.home, name)
    SQLModel.metadata.create_all(database.writing_engine(settings))
    yield settings
    dispose_engines()
    administer(shared.home, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("query", "least"), [(COLUMNS, 80), (CONSTRAINTS, 70), (INDEXES, 11)])
def test_the_migration_makes_what_the_models_say(query: str, least: int, shared: Settings, modelled: Settings) -> None:
    migrated, wanted = set(ask(shared, query)), set(ask(modelled, query))
    assert len(migrated) >= least
    assert migrated - wanted == set()
    assert wanted - migrated == set()


def test_column_types_are_those_that_lose_nothing(shared: Settings) -> None:
    types = {(str(table), str(name)): kind for table, name, kind, *_ in ask(shared, COLUMNS)}
    assert types["backtest_runs", "id"] == "bigint"
    assert types["backtest_runs", "run_id"] == "uuid"
    assert types["backtest_runs", "initial_capital"] == "numeric"
    assert types["backtest_runs", "config_snapshot"] == "jsonb"
    assert {kind for (_, name), kind in types.items() if name.endswith(("_at", "_date", "_time"))} == {
        "timestamp with time zone"
    }
    measures = [name for name in models.HEADLINE_METRICS if name != "total_trades"]
    tables_with_measures = ("backtest_runs", "performance_metrics")
    assert {types[table, name] for table in tables_with_measures for name in measures} == {"double precision"}


def test_indexes_hold_what_is_asked_for(shared: Settings) -> None:
    indexes = {str(row[0]).partition(" ON public.")[2] for row in ask(shared, INDEXES)}
    assert "backtest_runs USING btree (created_at DESC, id DESC, strategy_name, instrument_symbol)" in indexes
    partial = {index.partition(" WHERE ")[2] for index in indexes if " WHERE " in index}
    assert partial == {
        "(execution_status = 'running'::text)",
        "(execution_status = 'success'::text)",
        "(reproduced_from_run_id IS NOT NULL)",
        "(flow_run_id IS NOT NULL)",
    }


def test_curves_are_not_compressed_again(shared: Settings) -> None:
    storage = "SELECT attname, attstorage FROM pg_attribute WHERE attrelid = 'equity_curves'::regclass AND attlen = -1"
    assert sorted(ask(shared, storage)) == [("equity", "e"), ("times", "e")]


def test_triggers_guard_every_table(shared: Settings) -> None:
    triggers = "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"
    assert set(ask(shared, triggers)) == {
        ("backtest_runs", "finished_runs_are_immutable", "O"),
        *(
            (table, f"{table}_{name}", "O")
            for table in ("performance_metrics", "equity_curves", "trades")
            for name in ("are_immutable", "stay", "stay_whole")
        ),
    }


# -- from a checkout -----------------------------------------------------------------------------------------


def test_the_alembic_command_works_from_a_checkout(empty: Settings) -> None:
    script = str(Path(sys.executable).parent / "alembic")
    assert call(empty, script, "upgrade", "head") == ""
    said = call(
        empty, sys.executable, "-c", ONE_AFTER_ANOTHER, "current", "check", "downgrade base", "upgrade head --sql"
    )
    assert said.startswith(f"{database.HEAD} (head)\nNo new upgrade operations detected.\nBEGIN;\n")
    assert "CREATE TRIGGER finished_runs_are_immutable" in said
    assert tables(empty) == {"alembic_version"}


def test_the_alembic_command_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    nowhere = Settings(home=tmp_path, database_url=f"postgresql://u:S3cret@127.0.0.1:{free_port()}/d")
    script = str(Path(sys.executable).parent / "alembic")
    done = subprocess.run(
        [script, "current"], cwd=PROJECT, env=environment_for(nowhere), capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "no connection to the database postgresql://u:***@127.0.0.1" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


# What the script `alembic` does, without a second of imports for each command.
ONE_AFTER_ANOTHER = "import sys; from alembic.config import main; [main(words.split()) for words in sys.argv[1:]]"


def call(settings: Settings, *command: str) -> str:
    done = subprocess.run(command, cwd=PROJECT, env=environment_for(settings), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment_for(settings: Settings) -> dict[str, str]:
    assert settings.database_url
    return {**os.environ, "NTRADER_HOME": str(settings.home), "DATABASE_URL": settings.database_url}


@pytest.mark.parametrize("table", ["performance_metrics", "equity_curves", "trades"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {}"])
def test_results_go_with_their_run_and_never_by_themselves(settings: Settings, table: str, statement: str) -> None:
    run, execution = factories.new_run(), factories.execution()
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, factories.metrics_of(execution))

    with connect(settings) as connection:
        with pytest.raises(psycopg.errors.RestrictViolation, match="nor removed"):
            connection.execute(statement.format(table))
        connection.execute("DELETE FROM backtest_runs")
        left = connection.execute(f"SELECT count(*) AS n FROM {table}").fetchone()
    assert left == {"n": 0}
