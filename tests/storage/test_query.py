"""Questions in SQL: every answer, and no way to change anything."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ntrader.errors import ConfigError, DatabaseError, NtraderError, SchemaError
from ntrader.settings import Settings
from storage import database, migrations, query, recording
from tests import factories
from tests.storage.conftest import Server

CHANGES = [
    "INSERT INTO trades SELECT * FROM trades",
    "UPDATE backtest_runs SET notes = 'x'",
    "DELETE FROM backtest_runs",
    "TRUNCATE backtest_runs",
    "DROP TABLE trades",
    "CREATE TABLE mine AS SELECT 1",
    "WITH gone AS (DELETE FROM backtest_runs RETURNING *) SELECT * FROM gone",
    "SELECT * FROM backtest_runs FOR UPDATE",
    "SELECT nextval('backtest_runs_id_seq')",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "GRANT ALL ON trades TO PUBLIC",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "EXPLAIN ANALYZE DELETE FROM backtest_runs",
    "COPY trades FROM STDIN",
    "VACUUM backtest_runs",
]
ESCAPES = [
    "SELECT 1; DROP TABLE trades",
    "COMMIT; DROP TABLE trades",
    "COPY (SELECT 1) TO STDOUT; COMMIT; DROP TABLE trades",
    "SET TRANSACTION READ WRITE",
    "DO $$ BEGIN EXECUTE 'RESET ROLE'; END $$",
    "/* a /* nested */ note */ -- and another\n do language plpgsql 'begin end'",
    "CALL something()",
    "COPY trades TO '/tmp/x'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/x'",
    "COPY (SELECT 1 AS \"TO STDOUT\") TO '/tmp/TO STDOUT'",
    "COPY trades FROM PROGRAM 'echo TO STDOUT'",
    "COPY (SELECT ' ') TO /* STDOUT */ '/tmp/x'",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/hostname')",
    "PREPARE TRANSACTION 'x'",
]


def ask(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with query.ask(settings, statement) as answer:
        assert isinstance(answer, query.Table)
        return list(answer.rows)


def copied(settings: Settings, statement: str) -> str:
    with query.ask(settings, statement) as answer:
        assert isinstance(answer, query.Copied)
        return b"".join(bytes(chunk) for chunk in answer.chunks).decode()


def refusal(settings: Settings, statement: str) -> NtraderError:
    with pytest.raises(NtraderError) as caught, query.ask(settings, statement) as answer:
        if isinstance(answer, query.Table):
            list(answer.rows)
    return caught.value


@pytest.fixture(scope="module")
def recorded(shared: Settings) -> Settings:
    run, execution = factories.new_run(), factories.execution()
    recording.start_run(shared, run)
    recording.save_success(shared, run.run_id, execution, factories.metrics_of(execution))
    return shared


@pytest.mark.parametrize(
    ("statement", "columns", "rows"),
    [
        ("SELECT count(*) FROM backtest_runs", ("count",), [(1,)]),
        ("select 1 as a, null as a, '%s' as b;", ("a", "a", "b"), [(1, None, "%s")]),
        ("VALUES (1.10), (2)", ("column1",), [(Decimal("1.10"),), (Decimal(2),)]),
        ("TABLE equity_curves LIMIT 0", ("backtest_run_id", "points", "steps", "equity"), []),
        ("WITH x AS (SELECT 1) (SELECT * FROM x)", ("?column?",), [(1,)]),
        ("SHOW timezone", ("TimeZone",), [("UTC",)]),
        ("SHOW transaction_read_only", ("transaction_read_only",), [("on",)]),
        ("-- why\n/* not; */ SELECT ';'", ("?column?",), [(";",)]),
        ("SELECT interval '1 month 2 days' AS i", ("i",), [("1 mon 2 days",)]),
        ("""SELECT '{"x": 0.10000000000000000001}'::jsonb j""", ("j",), [({"x": Decimal("0.10000000000000000001")},)]),
    ],
)  # fmt: skip
def test_what_is_asked_is_answered(
    recorded: Settings, statement: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> None:
    with query.ask(recorded, statement) as answer:
        assert isinstance(answer, query.Table)
        assert answer.columns == columns
        assert list(answer.rows) == rows


def test_a_plan_is_an_answer(recorded: Settings) -> None:
    assert "Seq Scan on trades" in ask(recorded, "EXPLAIN SELECT * FROM trades")[0][0]


def test_a_copy_comes_as_postgresql_writes_it(recorded: Settings) -> None:
    statement = "COPY (SELECT 1 AS a, NULL AS b, 'x,y' AS c) TO STDOUT WITH CSV HEADER"

    assert copied(recorded, statement) == 'a,b,c\n1,,"x,y"\n'
    assert copied(recorded, "copy performance_metrics (total_trades) to stdout") == "1\n"


def test_a_statement_without_rows(recorded: Settings) -> None:
    for statement, command in (("SET work_mem = '1MB'", "SET"), ("COMMIT", "COMMIT"), ("SELECT", "SELECT 1")):
        with query.ask(recorded, statement) as answer:
            assert answer == query.Nothing(command)


def test_what_is_not_read_is_not_waited_for(recorded: Settings) -> None:
    with query.ask(recorded, "SELECT generate_series(1, 1000000000)") as answer:
        assert isinstance(answer, query.Table)
        assert [next(answer.rows) for _ in range(3)] == [(1,), (2,), (3,)]
    with query.ask(recorded, "COPY (SELECT generate_series(1, 1000000000)) TO STDOUT") as answer:
        assert isinstance(answer, query.Copied)
        assert bytes(next(answer.chunks)).startswith(b"1\n")


@pytest.fixture(params=["superuser", "embedded", "owner on 16"])
def asked(
    request: pytest.FixtureRequest, recorded: Settings, postgres16: Server, embedded: Settings, home: Path
) -> Settings:
    """Three who ask: a superuser, who steps down; the embedded login; the owner of a database elsewhere."""
    if request.param == "superuser":
        return recorded
    if request.param == "embedded":
        return embedded
    owner = Settings(home=home, database_url=postgres16.url())
    with database.connect(owner) as connection:
        connection.execute("DROP DATABASE IF EXISTS asked")
        connection.execute("DROP ROLE IF EXISTS asker")
        connection.execute("CREATE ROLE asker LOGIN")
        connection.execute("CREATE DATABASE asked OWNER asker")
    settings = replace(owner, database_url=postgres16.socket_url("asked", user="asker"))
    migrations.upgrade(settings)
    return settings


def tables(settings: Settings) -> list[Any]:
    with database.connect(settings) as connection:
        return connection.execute("SELECT count(*), max(relname::text) FROM pg_class").fetchall()


def test_nothing_can_be_changed_and_nothing_escapes(asked: Settings) -> None:
    ask(asked, "SELECT count(*) FROM backtest_runs")
    before = tables(asked)

    for statement in CHANGES:
        error = refusal(asked, statement)
        assert isinstance(error, ConfigError), (statement, error)
    for statement in ESCAPES:
        if statement == "SET TRANSACTION READ WRITE":
            continue  # it is one statement, and over with its transaction
        error = refusal(asked, statement)
        assert isinstance(error, ConfigError), (statement, error)

    assert tables(asked) == before
    assert not Path("/tmp/x").exists()


def test_the_embedded_login_cannot_become_the_superuser(embedded: Settings) -> None:
    assert ask(embedded, "SELECT session_user::text, current_user::text") == [("ntrader_reader", "ntrader_reader")]
    for statement in (
        "SELECT set_config('role', 'ntrader', true)",
        "SET ROLE ntrader",
        "SET SESSION AUTHORIZATION ntrader",
    ):
        assert "permission denied" in refusal(embedded, statement).message


def test_a_superuser_steps_down_and_finds_the_same_tables(recorded: Settings) -> None:
    assert ask(recorded, "SELECT current_user::text") == [("pg_read_all_data",)]
    with database.connect(recorded) as connection:
        connection.execute("CREATE SCHEMA ntrader")  # the superuser's "$user"
        connection.execute("CREATE TABLE ntrader.mine AS SELECT 7 AS n")
    try:
        assert ask(recorded, "SELECT n FROM mine") == [(7,)]
    finally:
        with database.connect(recorded) as connection:
            connection.execute("DROP SCHEMA ntrader CASCADE")


@pytest.mark.parametrize(
    ("statement", "message", "hint"),
    [
        ("", "there is no statement", "answers one question"),
        (" ; ", "there is no statement", "answers one question"),
        ("-- nothing", "there is no statement", "answers one question"),
        ("SELECT 1\0", "zero byte", None),
        ("selct 1", 'syntax error at or near "selct"\nline 1: selct 1\n        ^', None),
        (
            "SELECT id,\n  sharp_ratio\nFROM backtest_runs",
            'column "sharp_ratio" does not exist\nline 2:   sharp_ratio\n          ^',
            'Perhaps you meant to reference the column "backtest_runs.sharpe_ratio".',
        ),
        ("SELECT * FROM run", 'relation "run" does not exist', None),
        ("SELECT 1 / 0", "division by zero", None),
        ("SELECT 1 / (10 - i) FROM generate_series(1, 2000) i", "division by zero", None),
        ("SELECT $1::int", "has a parameter", None),
        ("SELECT 'infinity'::timestamptz", "cannot be shown", "column::text"),
        ("SELECT 'not closed", "unterminated quoted string", None),
        ("SELECT 1; SELECT 2", "more than one statement", "answers one question"),
        ("DELETE FROM trades", "cannot execute DELETE in a read-only transaction", "changes nothing"),
    ],
)
def test_what_is_wrong_is_said(recorded: Settings, statement: str, message: str, hint: str | None) -> None:
    error = refusal(recorded, statement)

    assert isinstance(error, ConfigError)
    assert message in error.message
    assert (hint or "") in (error.hint or "")


def test_a_long_line_is_shown_around_the_place(recorded: Settings) -> None:
    error = refusal(recorded, f"SELECT {', '.join(str(number) for number in range(1000))}, wrong, 1 FROM trades")

    _, line, mark = error.message.split("\n")
    assert len(line) < 120
    assert line[mark.index("^") :].startswith("wrong")


def test_a_question_may_take_too_long(recorded: Settings) -> None:
    error = refusal(replace(recorded, db_statement_timeout=50), "SELECT pg_sleep(10)")

    assert type(error) is DatabaseError
    assert "after 50 ms" in error.message


def test_a_schema_that_is_behind_is_said_first(postgres16: Server, home: Path) -> None:
    assert isinstance(refusal(Settings(home=home, database_url=postgres16.url()), "SELECT 1"), SchemaError)
