"""What there is to name: complete, without repetition, and never more than a person can look through."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text

from ntrader.settings import Settings
from storage import database, known
from tests.storage import rows, sweeps
from tests.storage.rows import Row


def named(number: int, **changes: object) -> Row:
    return rows.row(number, **changes)


def test_an_empty_database_knows_nothing(settings: Settings) -> None:
    assert not known.anything(settings)
    assert known.strategy_names(settings) == known.symbols(settings) == []
    with database.connect(settings) as connection:
        assert known.recent_runs(connection) == []
        assert known.recent_tags(connection) == []
        assert known.runs_that_begin(connection, "dead") == []


def test_an_archived_run_is_anything(settings: Settings) -> None:
    rows.insert(settings, [named(1, archived=True)])
    assert known.anything(settings)


def test_strategies_and_symbols_once_each_in_order_without_the_archived(settings: Settings) -> None:
    rows.insert(
        settings,
        [
            named(1, strategy_name="SMA", instrument_symbol="MSFT"),
            named(2, strategy_name="o'clock %s", instrument_symbol="数"),
            named(3, strategy_name="SMA", instrument_symbol="AAPL"),
            named(4, strategy_name="", instrument_symbol="MSFT"),
            named(5, strategy_name="put away", instrument_symbol="put away", archived=True),
        ],
    )
    assert known.strategy_names(settings) == ["", "SMA", "o'clock %s"]
    assert known.symbols(settings) == ["AAPL", "MSFT", "数"]


def test_at_most_a_thousand_names(settings: Settings) -> None:
    with database.transaction(settings) as connection:
        connection.execute(
            text(
                "INSERT INTO backtest_runs (run_id, strategy_name, strategy_type, strategy_path, instrument_symbol,"
                " data_source, initial_capital, execution_status, config_snapshot, lease_expires_at)"
                " SELECT gen_random_uuid(), lpad(n::text, 4, '0'), 't', 'p', 'A', 's', 1, 'running', '{}', now()"
                " FROM generate_series(1, 1100) n"
            )
        )
    assert known.strategy_names(settings) == [f"{number:04}" for number in range(1, 1001)]


def test_recent_runs_by_name_or_run_id_newest_first(settings: Settings) -> None:
    rows.insert(settings, [named(1), named(2, name="the best"), named(3, archived=True)])
    with database.connect(settings) as connection:
        assert known.recent_runs(connection) == [
            ("the best", "SMA AAPL failed"),
            (str(UUID(int=1)), "SMA AAPL failed"),
        ]


def test_at_most_fifty_recent_runs(settings: Settings) -> None:
    rows.insert(settings, [named(number) for number in range(1, 61)])
    with database.connect(settings) as connection:
        assert [word for word, _ in known.recent_runs(connection)] == [str(UUID(int=n)) for n in range(60, 10, -1)]


@pytest.mark.parametrize("prefix", ["dead", "DEAD", "dead-be", "deadbeef-", "deadbeef-0000-4000-8000-00000000000"])
def test_runs_that_begin_are_found_however_old_or_archived(settings: Settings, prefix: str) -> None:
    inside = [UUID(f"deadbeef-0000-4000-8000-00000000000{digit}") for digit in "05f"]
    outside = [UUID("deac" + "f" * 28), UUID("deae" + "0" * 28)]
    rows.insert(settings, [named(n, run_id=run_id, archived=n == 1) for n, run_id in enumerate([*inside, *outside])])
    with database.connect(settings) as connection:
        found = known.runs_that_begin(connection, prefix)
    assert found == [(str(run_id), "SMA AAPL failed") for run_id in inside]


def test_at_most_twenty_runs_that_begin_alike(settings: Settings) -> None:
    rows.insert(settings, [named(number) for number in range(1, 31)])
    with database.connect(settings) as connection:
        found = known.runs_that_begin(connection, "0000")
        assert [word for word, _ in found] == [str(UUID(int=number)) for number in range(1, 21)]
        assert known.runs_that_begin(connection, UUID(int=7).hex + "0000") == [(str(UUID(int=7)), "SMA AAPL failed")]


def test_tags_as_one_types_them(settings: Settings) -> None:
    rows.insert(
        settings,
        [
            named(1, tags={"team": "fx", "note": "a=b"}),
            named(2, tags={"team": "fx", "": ""}),
            named(3, tags={"team": "gone"}, archived=True),
        ],
    )
    with database.connect(settings) as connection:
        assert known.recent_tags(connection) == ["=", "note=a=b", "team=fx"]


def test_at_most_two_hundred_tags(settings: Settings) -> None:
    rows.insert(settings, [named(1, tags={f"key {number:03}": "v" for number in range(300)})])
    with database.connect(settings) as connection:
        assert known.recent_tags(connection) == [f"key {number:03}=v" for number in range(200)]


def test_recent_sweeps_by_number_and_by_name(settings: Settings) -> None:
    sweeps.written(settings, 3, name="the first")
    sweeps.written(settings, 1200)
    with database.connect(settings) as connection:
        assert known.recent_sweeps(connection) == [
            ("2", "SMA Crossover, 1,200 trials"),
            ("1", "the first, 3 trials"),
            ("the first", "sweep 1, 3 trials"),
        ]


# -- whom to ask ---------------------------------------------------------------------------------------------


def test_a_database_that_is_ready_is_asked(settings: Settings) -> None:
    connection = known.connect_if_there(settings)
    assert connection is not None
    with connection:
        assert known.recent_runs(connection) == []


def test_a_database_without_our_tables_is_not_asked(empty: Settings) -> None:
    assert known.connect_if_there(empty) is None


def test_a_database_of_another_revision_is_not_asked(settings: Settings) -> None:
    with database.transaction(settings) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '999_after'"))
    assert known.connect_if_there(settings) is None


def test_no_server_is_started_for_an_answer(tmp_path: Path) -> None:
    assert known.connect_if_there(Settings(home=tmp_path)) is None
    assert list(tmp_path.iterdir()) == []
