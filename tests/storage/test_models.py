"""What the tables refuse, whoever writes to them: numbers that are none, rows that lie, changes of what is finished."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import (
    CheckViolation,
    ForeignKeyViolation,
    GeneratedAlways,
    NotNullViolation,
    RestrictViolation,
    UniqueViolation,
)
from psycopg.types.json import Jsonb

from ntrader.settings import Settings
from storage import database, recording
from tests import factories

Db = psycopg.Connection[dict[str, Any]]
RESULTS = ("performance_metrics", "equity_curves", "trades")
TABLES = ("backtest_runs", *RESULTS)
# What may still change: a person's words, and the link to an original that is deleted.
OPEN = {"name", "tags", "notes", "archived", "reproduced_from_run_id"}
GENERATED = {"parameters"}
OTHER_VALUES = {
    "bigint[]": [4, 2, 4, 2],
    "double precision[]": [4.0, 2.0, 4.0, 2.0],
    "bigint": 424242,
    "integer": 424242,
    "text": "changed",
    "text[]": ["changed"],
    "double precision": 0.4242,
    "numeric": 4242,
    "jsonb": Jsonb({"changed": True}),
    "bytea": b"changed",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "timestamp with time zone": "1999-01-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def connection(shared: Settings) -> Iterator[Db]:
    """A connection to a database with one successful run of two trades, and one that is running."""
    run = factories.new_run()
    execution = factories.execution(factories.run_result(trades=(factories.trade(), factories.trade(pnl=-5.0))))
    recording.start_run(shared, run)
    recording.save_success(shared, run.run_id, execution, factories.metrics_of(execution))
    recording.start_run(shared, factories.new_run())
    with database.connect(shared) as connection:
        yield connection


@pytest.fixture
def db(connection: Db) -> Iterator[Db]:
    """The same for one test, in a transaction that is rolled back."""
    with connection.transaction(force_rollback=True):
        yield connection


def columns(db: Db, table: str) -> dict[str, str]:
    rows = db.execute(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table],
    ).fetchall()
    return {row["attname"]: row["kind"] for row in rows}


def add_copy(db: Db, table: str, **changes: Any) -> None:
    """Insert the table's first row once more, changed: its keys are taken, but constraints come before keys."""
    names = [name for name in columns(db, table) if name not in GENERATED]
    template = "INSERT INTO {0} ({1}) SELECT {2} FROM {0} AS t, jsonb_populate_record(t, %s) AS changed LIMIT 1"
    statement = sql.SQL(template).format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(", ").join(sql.Identifier("changed", name) for name in names),
    )
    with db.transaction():
        db.execute(statement, [Jsonb(changes)])


def change(db: Db, table: str, column: str, value: Any, where: str = "true") -> int:
    statement = sql.SQL("UPDATE {} SET {} = %s WHERE {}").format(
        sql.Identifier(table), sql.Identifier(column), sql.SQL(where)
    )
    with db.transaction():
        return db.execute(statement, [value]).rowcount


# -- numbers that are none -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("table", ["backtest_runs", "performance_metrics", "trades"])
def test_no_column_takes_what_is_no_number(db: Db, table: str, value: str) -> None:
    numbers = [name for name, kind in columns(db, table).items() if kind in {"double precision", "numeric"}]
    assert len(numbers) >= 5
    for name in numbers:
        with pytest.raises(CheckViolation) as caught:
            add_copy(db, table, **{name: value})
        assert (caught.value.diag.constraint_name or "").startswith(f"ck_{table}_{name}")


@pytest.mark.parametrize("table", TABLES)
def test_without_a_change_only_the_keys_are_in_the_way(db: Db, table: str) -> None:
    with pytest.raises(UniqueViolation):
        add_copy(db, table)


# -- rows that lie -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "changes", "constraint"),
    [
        ("backtest_runs", {"execution_status": "done"}, "execution_status"),
        ("backtest_runs", {"execution_status": "running"}, "finished"),
        ("backtest_runs", {"finished_at": None}, "finished"),
        ("backtest_runs", {"execution_status": "failed", "error_message": None}, "failed_says_why"),
        ("backtest_runs", {"run_key": None}, "success_has_run_key"),
        ("backtest_runs", {"result_digest": None}, "success_has_digest"),
        ("backtest_runs", {"start_date": "2021-01-01", "end_date": "2020-01-01"}, "period"),
        ("backtest_runs", {"initial_capital": 0}, "initial_capital"),
        ("performance_metrics", {"max_drawdown": 0.1}, "max_drawdown"),
        ("performance_metrics", {"win_rate": 1.01}, "win_rate"),
        ("performance_metrics", {"win_rate": -0.01}, "win_rate"),
        ("performance_metrics", {"avg_loss": 0.1}, "avg_loss"),
        ("performance_metrics", {"winning_trades": 2, "losing_trades": 1}, "trades"),
        ("performance_metrics", {"losing_trades": -1}, "counts"),
        ("performance_metrics", {"return_observations": -1}, "counts"),
        ("backtest_runs", {"name": "@last"}, "name"),
        ("backtest_runs", {"name": "deadBEEF-12"}, "name"),
        ("backtest_runs", {"name": ""}, "name"),
        ("backtest_runs", {"name": "x" * 201}, "name"),
        ("equity_curves", {"points": 3}, "points"),
        ("equity_curves", {"steps": [1, 2, 3]}, "points"),
        ("equity_curves", {"equity": []}, "points"),
        ("trades", {"side": "buy"}, "side"),
        ("trades", {"quantity": 0}, "quantity"),
        ("trades", {"entry_time": "2021-01-01", "exit_time": "2020-01-01"}, "times"),
    ],
)
def test_a_row_that_lies_is_refused(db: Db, table: str, changes: dict[str, Any], constraint: str) -> None:
    with pytest.raises(CheckViolation) as caught:
        add_copy(db, table, **changes)
    assert caught.value.diag.constraint_name == f"ck_{table}_{constraint}"


@pytest.mark.parametrize(
    "changes",
    [
        {"winning_trades": 0, "losing_trades": 0, "total_trades": 5, "win_rate": 0},
        {"total_return": -1.5, "final_balance": -50_000, "max_drawdown": -1.5},
        {"max_drawdown": 0, "avg_loss": 0, "win_rate": 1},
        dict.fromkeys(("total_return", "final_balance", "cagr", "sharpe_ratio", "max_drawdown", "win_rate")),
    ],
)
def test_odd_but_honest_metrics_are_taken(db: Db, changes: dict[str, Any]) -> None:
    with pytest.raises(UniqueViolation):
        add_copy(db, "performance_metrics", **changes)


@pytest.mark.parametrize("name", ["run_id", "strategy_name", "instrument_symbol", "config_snapshot", "created_at"])
def test_what_every_run_has_is_never_null(db: Db, name: str) -> None:
    with pytest.raises(NotNullViolation):
        add_copy(db, "backtest_runs", **{name: None})


@pytest.mark.parametrize("table", RESULTS)
def test_a_result_belongs_to_a_run(db: Db, table: str) -> None:
    keys = {"id": 999} if table == "performance_metrics" else {}
    with pytest.raises(ForeignKeyViolation):
        add_copy(db, table, backtest_run_id=999_999, **keys)


def test_a_run_reproduces_one_that_there_is(db: Db) -> None:
    with pytest.raises(ForeignKeyViolation):
        change(db, "backtest_runs", "reproduced_from_run_id", 999_999)


# -- what is finished stays as it is -------------------------------------------------------------------------


def finish(db: Db, status: str) -> None:
    """Bring every run into a state in which it is finished."""
    db.execute(
        "UPDATE backtest_runs SET execution_status = %s, finished_at = now(), error_message = 'why', run_key = 'k',"
        " result_digest = 'd' WHERE execution_status = 'running'",
        [status],
    )


@pytest.mark.parametrize("status", ["success", "failed", "interrupted"])
def test_a_running_run_may_become(db: Db, status: str) -> None:
    finish(db, status)
    found = db.execute("SELECT DISTINCT execution_status AS status FROM backtest_runs ORDER BY 1").fetchall()
    assert [row["status"] for row in found] == sorted({"success", status})


@pytest.mark.parametrize("status", ["success", "failed", "interrupted"])
def test_no_column_of_a_finished_run_can_be_changed(db: Db, status: str) -> None:
    finish(db, status)
    fixed = {name: kind for name, kind in columns(db, "backtest_runs").items() if name not in OPEN | GENERATED}
    assert {"skewness", "kurtosis", "max_drawdown_date", "winning_trades", "return_observations"} < set(fixed)
    assert len(fixed) > 50
    for name, kind in fixed.items():
        value = "interrupted" if (name, status) == ("execution_status", "failed") else OTHER_VALUES[kind]
        with pytest.raises(RestrictViolation, match=f"is finished \\({status}\\) and cannot be changed"):
            change(db, "backtest_runs", name, value, where=f"execution_status = '{status}'")


def test_the_parameters_follow_the_config_and_nobody_else(db: Db) -> None:
    with pytest.raises(GeneratedAlways):
        change(db, "backtest_runs", "parameters", Jsonb({"other": 1}))
    change(
        db,
        "backtest_runs",
        "config_snapshot",
        Jsonb({"strategy": {"parameters": {"n": 7}}}),
        where="execution_status = 'running'",
    )
    rows = db.execute("SELECT parameters FROM backtest_runs WHERE execution_status = 'running'").fetchall()
    assert rows == [{"parameters": {"n": 7}}]


def test_a_finished_run_does_not_run_again(db: Db) -> None:
    with pytest.raises(RestrictViolation):
        db.execute(
            "UPDATE backtest_runs SET execution_status = 'running', finished_at = NULL"
            " WHERE execution_status = 'success'"
        )


def test_not_even_the_sign_of_a_zero_can_be_changed(db: Db) -> None:
    db.execute("UPDATE backtest_runs SET total_return = 0, initial_capital = 100.00 WHERE execution_status = 'running'")
    finish(db, "failed")
    with pytest.raises(RestrictViolation):
        change(db, "backtest_runs", "total_return", -0.0, where="execution_status = 'failed'")
    with pytest.raises(RestrictViolation):
        change(db, "backtest_runs", "initial_capital", 100, where="execution_status = 'failed'")


@pytest.mark.parametrize("status", ["success", "failed", "interrupted"])
def test_a_finished_run_may_be_labelled_and_linked(db: Db, status: str) -> None:
    finish(db, status)
    assert change(db, "backtest_runs", "tags", Jsonb({"seen": "yes"})) == 2
    assert change(db, "backtest_runs", "notes", "looked at") == 2
    assert change(db, "backtest_runs", "archived", True) == 2
    assert db.execute("UPDATE backtest_runs SET name = 'run ' || id").rowcount == 2
    assert change(db, "backtest_runs", "name", None) == 2
    assert db.execute("UPDATE backtest_runs SET reproduced_from_run_id = id").rowcount == 2
    assert db.execute("UPDATE backtest_runs SET strategy_name = strategy_name").rowcount == 2


def test_two_runs_cannot_have_one_name(db: Db) -> None:
    with pytest.raises(UniqueViolation, match="ix_backtest_runs_name"):
        change(db, "backtest_runs", "name", "the best")


def test_a_label_and_a_fact_do_not_change_together(db: Db) -> None:
    with pytest.raises(RestrictViolation, match="cannot be changed"):
        db.execute("UPDATE backtest_runs SET notes = 'x', skewness = 0.5 WHERE execution_status = 'success'")


def test_a_big_finished_run_may_be_labelled(db: Db) -> None:
    db.execute(
        "UPDATE backtest_runs SET error_traceback = repeat(md5(random()::text), 100000)"
        " WHERE execution_status = 'running'"
    )
    finish(db, "failed")
    assert change(db, "backtest_runs", "notes", "3 MB of traceback") == 2


@pytest.mark.parametrize("table", RESULTS)
def test_no_column_of_a_result_can_be_changed(db: Db, table: str) -> None:
    for name, kind in columns(db, table).items():
        with pytest.raises(RestrictViolation, match=f"rows of {table} can neither be changed nor removed"):
            change(db, table, name, OTHER_VALUES[kind])


def test_deleting_a_run_deletes_its_result(db: Db) -> None:
    db.execute("UPDATE backtest_runs SET reproduced_from_run_id = (SELECT min(id) FROM backtest_runs)")
    db.execute("DELETE FROM backtest_runs WHERE execution_status = 'success'")
    for table in RESULTS:
        assert db.execute(f"SELECT count(*) AS rows FROM {table}").fetchall() == [{"rows": 0}]
    left = db.execute("SELECT execution_status, reproduced_from_run_id FROM backtest_runs").fetchall()
    assert left == [{"execution_status": "running", "reproduced_from_run_id": None}]


def test_deleting_the_original_unlinks_a_finished_reproduction(db: Db) -> None:
    db.execute("UPDATE backtest_runs SET reproduced_from_run_id = (SELECT min(id) FROM backtest_runs)")
    finish(db, "failed")
    db.execute("DELETE FROM backtest_runs WHERE execution_status = 'success'")
    left = db.execute("SELECT execution_status, reproduced_from_run_id FROM backtest_runs").fetchall()
    assert left == [{"execution_status": "failed", "reproduced_from_run_id": None}]


# -- what was deleted stays known ----------------------------------------------------------------------------


def test_deleting_leaves_a_trace_of_each_run(db: Db) -> None:
    db.execute("UPDATE backtest_runs SET sweep_id = 7 WHERE execution_status = 'running'")
    remembered = ("run_id, strategy_name, instrument_symbol, execution_status, sweep_id, config_fingerprint, run_key,"
                  " total_return, sharpe_ratio, return_observations, created_at")  # fmt: skip
    there = db.execute(f"SELECT {remembered} FROM backtest_runs ORDER BY run_id").fetchall()
    assert {(row["execution_status"], row["sweep_id"], row["return_observations"]) for row in there} == {
        ("success", None, 4),
        ("running", 7, None),
    }
    db.execute("DELETE FROM backtest_runs")
    assert db.execute(f"SELECT {remembered} FROM deleted_runs ORDER BY run_id").fetchall() == there
    assert db.execute("SELECT DISTINCT deleted_at = now() AS now FROM deleted_runs").fetchall() == [{"now": True}]


def test_no_column_of_a_trace_can_be_changed(db: Db) -> None:
    db.execute("DELETE FROM backtest_runs")
    names = columns(db, "deleted_runs")
    assert len(names) == 13
    for name, kind in names.items():
        with pytest.raises(RestrictViolation, match="rows of deleted_runs can neither be changed nor removed"):
            change(db, "deleted_runs", name, OTHER_VALUES[kind])


@pytest.mark.parametrize(
    "statement", ["DELETE FROM deleted_runs", "TRUNCATE deleted_runs", "TRUNCATE backtest_runs CASCADE"]
)
def test_what_would_lose_count_is_refused(db: Db, statement: str) -> None:
    db.execute("DELETE FROM backtest_runs WHERE execution_status = 'success'")
    with pytest.raises(RestrictViolation, match="can neither be changed nor removed"), db.transaction():
        db.execute(statement)
    counts = "SELECT (SELECT count(*) FROM deleted_runs) AS gone, (SELECT count(*) FROM backtest_runs) AS there"
    assert db.execute(counts).fetchall() == [{"gone": 1, "there": 1}]
