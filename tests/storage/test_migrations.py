"""The tables: made by the migration as the models say them, by whoever comes first, and never by halves."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlmodel import SQLModel

from ntrader.errors import SchemaError
from ntrader.metrics import daily_returns
from ntrader.results import EquityCurve, Metrics, RunResult
from ntrader.settings import Settings
from storage import database, fields, migrations, recording
from storage.database import connect
from tests import factories
from tests.conftest import administer, create_database, dispose_engines, settings_for
from tests.factories import DAY, START
from tests.storage.conftest import free_port, with_a_migration_that_fails

Db = psycopg.Connection[dict[str, Any]]
PROJECT = Path(__file__).resolve().parents[2]
TABLES = {"backtest_runs", "performance_metrics", "equity_curves", "trades", "deleted_runs", "fills", "kept_contents",
          "kept_data", "sweeps", "trials"}  # fmt: skip
FIRST = "001_create_backtest_tables"
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
    assert migrations.current(empty) == "005_sweeps" == database.HEAD
    assert tables(empty) == TABLES | {"alembic_version"}

    migrations.downgrade(empty, "base")
    assert migrations.current(empty) is None
    assert tables(empty) == {"alembic_version"}
    leftovers = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT stxname FROM pg_statistic_ext"
        " UNION ALL SELECT viewname FROM pg_views WHERE schemaname = 'public'"
    )
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
WHERE attnum > 0 AND NOT attisdropped AND relkind = 'r' AND relnamespace = 'public'::regnamespace
      AND relname <> 'alembic_version'
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
    counts = {"total_trades", "winning_trades", "losing_trades", "return_observations"}
    measures = set(fields.METRICS) - counts - {"max_drawdown_date"}
    tables_with_measures = ("backtest_runs", "performance_metrics")
    assert {types[table, name] for table in tables_with_measures for name in measures} == {"double precision"}
    assert {types[table, name] for table in tables_with_measures for name in counts} == {"integer"}
    assert types["equity_curves", "steps"] == "bigint[]"
    assert types["equity_curves", "equity"] == "double precision[]"


def test_every_order_of_a_list_has_an_index(shared: Settings) -> None:
    """`archived` first, then the order with its ties by id: what a page costs does not depend on how many there are."""
    indexes = [str(row[0]).partition(" USING btree (")[2] for row in ask(shared, INDEXES)]
    for column in fields.SORTABLE:
        beginning = f"archived, {column} DESC NULLS LAST, id DESC"
        assert [index for index in indexes if index.startswith(beginning)], column


def test_every_index_is_valid(shared: Settings) -> None:
    assert ask(shared, "SELECT indexrelid::regclass FROM pg_index WHERE NOT (indisvalid AND indisready)") == []


def test_no_two_indexes_are_the_same(shared: Settings) -> None:
    bodies = [str(row[0]).partition(" ON ")[2] for row in ask(shared, INDEXES)]
    assert len(set(bodies)) == len(bodies)


def test_curves_are_compressed_by_the_server(shared: Settings) -> None:
    storage = (
        "SELECT attname, attstorage FROM pg_attribute"
        " WHERE attrelid = 'equity_curves'::regclass AND attlen = -1 AND NOT attisdropped"
    )
    assert sorted(ask(shared, storage)) == [("equity", "x"), ("steps", "x")]


def test_triggers_guard_every_table(shared: Settings) -> None:
    triggers = "SELECT tgrelid::regclass::text, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"
    assert set(ask(shared, triggers)) == {
        ("backtest_runs", "finished_runs_are_immutable", "O"),
        ("backtest_runs", "deleted_runs_are_remembered", "O"),
        ("backtest_runs", "backtest_runs_stay_whole", "O"),
        *(
            (table, f"{table}_{name}", "O")
            for table in ("performance_metrics", "equity_curves", "trades", "deleted_runs", "fills")
            for name in ("are_immutable", "stay", "stay_whole")
        ),
        ("kept_contents", "kept_contents_are_immutable", "O"),
        ("kept_contents", "kept_contents_stay_whole", "O"),
        *(
            (table, f"{table}_{name}", "O")
            for table in ("sweeps", "trials")
            for name in ("are_immutable", "stay_whole")
        ),
    }


# -- 001 to 002 and back, with runs in it --------------------------------------------------------------------


DESCRIBED = {
    "strategy_name": "SMA", "strategy_type": "trend", "strategy_path": "a:B", "instrument_symbol": "AAPL",
    "data_source": "sample", "initial_capital": 100_000,
    "config_snapshot": Jsonb({"strategy": {"path": "a:B", "parameters": {"fast": 5, "on": True}}}),
}  # fmt: skip
SUCCESS = {"execution_status": "success", "finished_at": "2024-01-02T00:00:00Z", "run_key": "k", "result_digest": "d"}
MEASURED = {
    "total_return": 0.5, "final_balance": 150_000.0, "sharpe_ratio": -0.0, "max_drawdown": -0.1,
    "max_drawdown_date": datetime(2020, 1, 3, tzinfo=UTC), "total_trades": 5, "winning_trades": 3,
    "losing_trades": 2, "expectancy": 1.5, "avg_win": 4.25, "avg_loss": -2.625, "skewness": 5e-324,
    "kurtosis": None, "return_observations": 3,
}  # fmt: skip
# Times that leap, and equity of every kind of bits.
TIMES = np.array([-1, 0, 1_577_923_199_999_999_000, 1_577_923_199_999_999_001, 2**62], dtype=np.int64)
EQUITY = np.array([100_000.0, -0.0, math.inf, 5e-324, 0.1])


def raw(column: NDArray[Any]) -> bytes:
    """The first form of revision 001: a zero, and the words as they are."""
    return b"\x00" + column.tobytes()


def shuffled(column: NDArray[Any]) -> bytes:
    """The second: a one, and zlib over the differences, all their first bytes first, then all their second bytes..."""
    differences = np.diff(column.view("<u8"), prepend=np.uint64(0))
    return b"\x01" + zlib.compress(differences.view(np.uint8).reshape(-1, 8).T.tobytes())


@pytest.fixture
def at_first(empty: Settings) -> Settings:
    migrations.upgrade(empty, FIRST)
    return empty


def add_run(
    settings: Settings, form: Callable[[NDArray[Any]], bytes], times: NDArray[Any], equity: NDArray[Any]
) -> int:
    """A successful run as revision 001 stored it; its row id."""
    run = {"run_id": uuid4(), **DESCRIBED, **SUCCESS, "total_return": 0.5, "total_trades": 5}
    with database.connect(settings) as connection, connection.transaction():
        row_id: int = insert(connection, "backtest_runs", run)["id"]
        insert(connection, "performance_metrics", {"backtest_run_id": row_id, **MEASURED})
        curve = {"points": len(times), "times": form(times), "equity": form(equity)}
        insert(connection, "equity_curves", {"backtest_run_id": row_id, **curve})
    return row_id


def insert(connection: Db, table: str, values: dict[str, Any]) -> dict[str, Any]:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(map(sql.Placeholder, values)),
    )
    (row,) = connection.execute(statement, values).fetchall()
    return row


def row_of(settings: Settings, query: str) -> dict[str, Any]:
    with database.connect(settings) as connection:
        (row,) = connection.execute(query).fetchall()
    return row


def bits(values: Iterable[float]) -> list[bytes]:
    return [struct.pack("<d", value) for value in values]


@pytest.mark.parametrize("form", [raw, shuffled])
def test_a_curve_of_revision_001_becomes_arrays_to_the_bit(
    at_first: Settings, form: Callable[[NDArray[Any]], bytes]
) -> None:
    add_run(at_first, form, TIMES, EQUITY)
    migrations.upgrade(at_first)
    curve = row_of(at_first, "SELECT * FROM equity_curves")
    assert list(accumulate(curve["steps"])) == TIMES.tolist()
    assert bits(curve["equity"]) == bits(EQUITY)


@pytest.mark.parametrize("form", [raw, shuffled])
def test_an_empty_curve_of_revision_001_stays_empty(at_first: Settings, form: Callable[[NDArray[Any]], bytes]) -> None:
    add_run(at_first, form, TIMES[:0], EQUITY[:0])
    migrations.upgrade(at_first)
    curve = row_of(at_first, "SELECT points, steps, equity FROM equity_curves")
    assert curve == {"points": 0, "steps": [], "equity": []}


def test_on_the_way_down_a_curve_becomes_its_bytes_again(at_first: Settings) -> None:
    add_run(at_first, shuffled, TIMES, EQUITY)
    migrations.upgrade(at_first)
    migrations.downgrade(at_first, FIRST)
    curve = row_of(at_first, "SELECT points, times, equity FROM equity_curves")
    assert curve == {"points": 5, "times": raw(TIMES), "equity": raw(EQUITY)}


def test_what_a_run_says_survives_up_down_and_up(at_first: Settings) -> None:
    run_id = add_run(at_first, shuffled, TIMES, EQUITY)
    before = [row_of(at_first, f"SELECT * FROM {table}") for table in ("backtest_runs", "performance_metrics")]
    migrations.upgrade(at_first)
    above = [row_of(at_first, f"SELECT * FROM {table}") for table in ("backtest_runs", "equity_curves")]
    migrations.downgrade(at_first, FIRST)
    assert [row_of(at_first, f"SELECT * FROM {table}") for table in ("backtest_runs", "performance_metrics")] == before
    migrations.upgrade(at_first)
    assert [row_of(at_first, f"SELECT * FROM {table}") for table in ("backtest_runs", "equity_curves")] == above
    assert above[0]["id"] == run_id


def test_the_way_up_copies_the_metrics_beside_a_finished_run(at_first: Settings) -> None:
    add_run(at_first, raw, TIMES, EQUITY)
    migrations.upgrade(at_first)
    run = row_of(at_first, "SELECT * FROM backtest_runs")
    copied = {"max_drawdown_date", "winning_trades", "losing_trades", "expectancy", "avg_win", "avg_loss", "skewness",
              "kurtosis", "return_observations"}  # fmt: skip
    assert {name: run[name] for name in copied} == {name: MEASURED[name] for name in copied}


def test_the_way_up_finds_the_parameters_and_archives_nothing(at_first: Settings) -> None:
    add_run(at_first, raw, TIMES, EQUITY)
    migrations.upgrade(at_first)
    run = row_of(at_first, "SELECT parameters, archived, name FROM backtest_runs")
    assert run == {"parameters": {"fast": 5, "on": True}, "archived": False, "name": None}


def test_a_run_without_a_result_goes_up_and_down_too(at_first: Settings) -> None:
    failed = {"execution_status": "failed", "finished_at": "2024-01-01T00:00:00Z", "error_message": "why"}
    with database.connect(at_first) as connection:
        before = insert(connection, "backtest_runs", {"run_id": uuid4(), **DESCRIBED, **failed})
    migrations.upgrade(at_first)
    migrations.downgrade(at_first, FIRST)
    assert row_of(at_first, "SELECT * FROM backtest_runs") == before


@pytest.mark.parametrize("revision", [database.HEAD, FIRST])
def test_finished_runs_and_their_curves_are_guarded_after_the_way(at_first: Settings, revision: str) -> None:
    add_run(at_first, shuffled, TIMES, EQUITY)
    migrations.upgrade(at_first)
    migrations.downgrade(at_first, revision)
    with database.connect(at_first) as connection:
        for statement in ("UPDATE backtest_runs SET sharpe_ratio = 9", "UPDATE equity_curves SET points = 5"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(statement)


def test_at_revision_001_a_finished_run_has_tags_and_notes_only(at_first: Settings) -> None:
    add_run(at_first, raw, TIMES, EQUITY)
    migrations.upgrade(at_first)
    migrations.downgrade(at_first, FIRST)
    with database.connect(at_first) as connection:
        connection.execute("UPDATE backtest_runs SET notes = 'n', tags = '{\"a\": \"b\"}'")
    assert row_of(at_first, "SELECT notes, tags FROM backtest_runs") == {"notes": "n", "tags": {"a": "b"}}


@pytest.mark.parametrize("data", [b"\x01no zlib", b"\x00" + bytes(7)])
def test_a_curve_that_cannot_be_read_stops_the_way_up_and_changes_nothing(at_first: Settings, data: bytes) -> None:
    add_run(at_first, lambda _: data, TIMES, EQUITY)
    with pytest.raises((zlib.error, struct.error)):
        migrations.upgrade(at_first)
    assert migrations.current(at_first) == FIRST
    assert row_of(at_first, "SELECT times FROM equity_curves") == {"times": data}


# -- views ---------------------------------------------------------------------------------------------------


def test_views_have_the_columns_that_are_documented(shared: Settings) -> None:
    query = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_name ~ '^v_' ORDER BY ordinal_position"
    )
    found: dict[object, list[object]] = {}
    for view, column in ask(shared, query):
        found.setdefault(view, []).append(column)
    assert set(found) == {"v_runs", "v_trades", "v_daily_returns", "v_trials"}
    assert set(found["v_runs"]) == {*fields.FIELDS, "parameters", "tags", "warnings", "reproduced_from_run_id"}
    assert found["v_trades"] == [
        *("run_id", "strategy_name", "instrument_symbol", "trade_number", "side", "quantity"),
        *("entry_time", "entry_price", "exit_time", "exit_price", "fees", "pnl"),
    ]
    assert found["v_trials"] == [
        *("sweep_id", "trial_number", "state", "reason", "linked", "crashes", "point", "run_key", "run_id"),
        *("strategy_name", "instrument_symbol", "start_date", "end_date", "parameters", *fields.METRICS),
        *("error_message", "execution_duration_seconds", "result_digest"),
    ]
    assert found["v_daily_returns"] == ["run_id", "strategy_name", "instrument_symbol", "day", "equity", "daily_return"]


def save(settings: Settings, result: RunResult) -> UUID:
    run, execution = factories.new_run(), factories.execution(result)
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, Metrics())
    return run.run_id


def result_of(times: list[int], equity: list[float]) -> RunResult:
    return RunResult(100_000.0, EquityCurve(np.array(times, dtype=np.int64), np.array(equity)), (), (), 0.0, len(times))


def days_and_returns(settings: Settings, run_id: UUID) -> list[tuple[str, float | None]]:
    query = "SELECT day, daily_return FROM v_daily_returns WHERE run_id = %s ORDER BY day"
    with database.connect(settings) as connection:
        rows = connection.execute(query, [run_id]).fetchall()
    return [(row["day"].isoformat(), row["daily_return"]) for row in rows]


@pytest.mark.parametrize("stamp", [-1_000_000_000, -1000, -1, 0])
def test_a_bar_stamped_at_the_end_of_a_day_counts_to_that_day(shared: Settings, stamp: int) -> None:
    """Up to a nanosecond before midnight, and at midnight itself, which is the close of the bar before it."""
    times = [START + DAY * number + stamp for number in (1, 2, 3)]
    run_id = save(shared, result_of(times, [110_000.0, 99_000.0, 99_000.0]))
    days = days_and_returns(shared, run_id)
    assert [day for day, _ in days] == ["2020-01-01", "2020-01-02", "2020-01-03"]
    assert [value for _, value in days] == [1.1 - 1, 99_000.0 / 110_000.0 - 1, 0.0]


def test_a_bar_just_after_midnight_begins_a_day(shared: Settings) -> None:
    run_id = save(shared, result_of([START, START + 1], [100_000.0, 101_000.0]))
    assert [day for day, _ in days_and_returns(shared, run_id)] == ["2019-12-31", "2020-01-01"]


STEP = st.sampled_from([1, 6, 12, 18, 24, 36]).map(lambda hours: hours * DAY // 24)
CURVES = st.lists(st.tuples(STEP, st.floats(1.0, 1e9)), min_size=1, max_size=60)


@given(CURVES, st.sampled_from([0, 1, -1, -1000, DAY // 3]))
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_daily_returns_are_those_of_the_metrics(shared: Settings, points: list[tuple[int, float]], stamp: int) -> None:
    times = [START + stamp + total for total in accumulate(step for step, _ in points)]
    result = result_of(times, [equity for _, equity in points])
    found = [value for _, value in days_and_returns(shared, save(shared, result))]
    assert found == daily_returns(result.initial_capital, result.equity_curve).tolist()


@pytest.mark.parametrize("touched", [0.0, -0.0, -5.0])
def test_where_equity_touched_zero_there_are_no_returns(shared: Settings, touched: float) -> None:
    times = [START + DAY * number - 1000 for number in (1, 2, 3)]
    run_id = save(shared, result_of(times, [110_000.0, touched, 50.0]))
    assert days_and_returns(shared, run_id) == [("2020-01-01", None), ("2020-01-02", None), ("2020-01-03", None)]


def test_zero_within_a_day_is_no_reason(shared: Settings) -> None:
    run_id = save(shared, result_of([START + 1, START + 2], [-1.0, 50_000.0]))
    assert days_and_returns(shared, run_id) == [("2020-01-01", -0.5)]


def test_a_view_names_the_run_that_was_reproduced(settings: Settings) -> None:
    first, second = save(settings, factories.run_result()), save(settings, factories.run_result())
    with database.connect(settings) as connection:
        connection.execute(
            "UPDATE backtest_runs SET reproduced_from_run_id = (SELECT id FROM backtest_runs WHERE run_id = %s)"
            " WHERE run_id = %s",
            [first, second],
        )
    query = "SELECT run_id, reproduced_from_run_id FROM v_runs ORDER BY created_at"
    assert ask(settings, query) == [(first, None), (second, first)]


def test_a_view_shows_trades_with_what_they_belong_to(settings: Settings) -> None:
    trades = (factories.trade(), factories.trade(pnl=-5.0))
    run_id = save(settings, factories.run_result(trades=trades))
    query = "SELECT run_id, strategy_name, instrument_symbol, trade_number, pnl FROM v_trades ORDER BY trade_number"
    run = (run_id, "SMA Crossover", "TEST")
    assert ask(settings, query) == [(*run, 1, 99.0), (*run, 2, -5.0)]


# -- from a checkout -----------------------------------------------------------------------------------------


def test_the_alembic_command_works_from_a_checkout(empty: Settings) -> None:
    script = str(Path(sys.executable).parent / "alembic")
    assert call(empty, script, "upgrade", "head") == ""
    said = call(
        empty, sys.executable, "-c", ONE_AFTER_ANOTHER, "current", "check", "downgrade base", "upgrade head --sql"
    )
    assert said.startswith(f"{database.HEAD} (head)\nNo new upgrade operations detected.\nBEGIN;\n")
    assert "CREATE TRIGGER finished_runs_are_immutable" in said
    assert "cannot be converted by SQL alone" in said
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


def test_one_absurd_curve_does_not_spoil_the_view(settings: Settings) -> None:
    run, absurd = factories.new_run(), factories.execution(factories.run_result([1e-300, 1e300]))
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, absurd, factories.metrics_of(absurd))

    with database.connect(settings) as connection:
        rows = connection.execute("SELECT equity, daily_return FROM v_daily_returns ORDER BY day").fetchall()

    assert [(row["equity"], row["daily_return"]) for row in rows] == [(1e-300, None), (1e300, None)]


def test_a_run_that_is_deleted_twice_was_one_trial(settings: Settings) -> None:
    run = factories.new_run()
    for _ in range(2):
        recording.start_run(settings, run)
        with database.connect(settings) as connection:
            connection.execute("DELETE FROM backtest_runs")

    with database.connect(settings) as connection:
        assert connection.execute("SELECT count(*) AS number FROM deleted_runs").fetchall() == [{"number": 1}]
