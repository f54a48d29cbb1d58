"""Saving runs into a real PostgreSQL, and reading them back to the bit."""

from __future__ import annotations

import struct
import time
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from ntrader.config import sha256
from ntrader.errors import DatabaseError, TransientDatabaseError
from ntrader.results import EquityCurve, Execution, Metrics, RunResult, Trade
from ntrader.settings import Settings
from storage import database, leases, recording, runs
from storage.arrays import decode, times
from storage.fields import METRICS
from storage.rows import Failure, NewRun, moment
from storage.runs import StoredRun
from tests import factories
from tests.conftest import administer

FAILURE = Failure("failed", "StrategyError", "it broke", "Traceback: it broke")
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ODD_FLOATS = [-0.0, 0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1 / 3, 1e22, 1e23]
WITHIN = {"max_drawdown": FINITE.map(lambda x: -abs(x)), "avg_loss": FINITE.map(lambda x: -abs(x)),
          "win_rate": st.floats(0, 1)}  # fmt: skip
MEASURES = [field.name for field in fields(Metrics) if field.type == "float | None"]
ANY_METRICS = st.fixed_dictionaries({name: st.none() | WITHIN.get(name, FINITE) for name in MEASURES})


@pytest.fixture
def settings(shared: Settings) -> Settings:
    """One database for all tests here: each looks at its own runs only."""
    return shared


def saved(
    settings: Settings, execution: Execution, metrics: Metrics | None = None, run: NewRun | None = None
) -> StoredRun:
    """The run as it is read back after a success."""
    run = run or factories.new_run()
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, metrics or factories.metrics_of(execution))
    return runs.get_run(settings, str(run.run_id))


def started(settings: Settings, **changes: Any) -> UUID:
    run = factories.new_run(**changes)
    recording.start_run(settings, run)
    return run.run_id


def ask(settings: Settings, query: str, run_id: UUID) -> list[dict[str, Any]]:
    """The rows of a query about `run`, which is the row of the run."""
    query = f"WITH run AS (SELECT * FROM backtest_runs WHERE run_id = %s) {query}"
    with database.connect(settings) as connection:
        return connection.execute(query, [run_id]).fetchall()


def stored_trades(settings: Settings, run_id: UUID) -> list[dict[str, Any]]:
    return ask(settings, "SELECT t.* FROM trades t JOIN run ON run.id = backtest_run_id ORDER BY trade_number", run_id)


def stored_curve(settings: Settings, run_id: UUID) -> EquityCurve:
    query = (
        "SELECT points, array_send(steps) AS steps, array_send(equity) AS equity"
        " FROM equity_curves JOIN run ON run.id = backtest_run_id"
    )
    (row,) = ask(settings, query, run_id)
    curve = EquityCurve(times(decode(row["steps"])), decode(row["equity"]))
    assert len(curve) == row["points"]
    return curve


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack(">d", value)


# -- to the bit ----------------------------------------------------------------------------------------------


def test_a_success_is_read_back_to_the_bit(settings: Settings) -> None:
    run, execution = factories.new_run(config_path="config/x.yaml", flow_run_id=uuid4()), factories.execution()
    metrics = factories.metrics_of(execution)

    stored = saved(settings, execution, metrics, run)

    assert (stored.execution_status, stored.run_id, stored.flow_run_id) == ("success", run.run_id, run.flow_run_id)
    assert (stored.strategy_name, stored.strategy_type) == ("SMA Crossover", "trend_following")
    assert (stored.strategy_path, stored.config_path) == (run.config.strategy.path, "config/x.yaml")
    assert (stored.instrument_symbol, stored.data_source) == ("TEST", "auto")
    assert stored.config_snapshot == run.config.snapshot()
    assert stored.result_digest == execution.result_digest
    assert stored.run_key == execution.fingerprints.run_key
    assert stored.data_fingerprint == execution.fingerprints.data
    assert stored.environment_fingerprint == execution.fingerprints.environment
    assert (stored.lease_owner, stored.lease_expires_at) == (None, None)
    assert stored.finished_at is not None
    assert stored.finished_at >= stored.started_at
    assert stored.execution_duration_seconds == (stored.finished_at - stored.started_at).total_seconds()
    assert stored.metrics is not None
    for name in MEASURES:
        assert bits(getattr(stored.metrics, name)) == bits(getattr(metrics, name))
    assert (stored.metrics.total_trades, stored.metrics.return_observations) == (1, 4)
    assert stored.metrics.max_drawdown_date == moment(metrics.max_drawdown_date)


@given(ANY_METRICS)
@example(dict.fromkeys(MEASURES, -0.0))
@example(dict.fromkeys(MEASURES) | {"final_balance": 1e23, "sharpe_ratio": 5e-324, "cagr": 1.7976931348623157e308})
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_metrics_are_read_back_to_the_bit(settings: Settings, values: dict[str, float | None]) -> None:
    stored = saved(settings, factories.execution(), Metrics(**values))  # type: ignore[arg-type]
    wanted = {name: bits(value) for name, value in values.items()}
    assert {name: bits(getattr(stored.metrics, name)) for name in MEASURES} == wanted
    (row,) = ask(settings, "SELECT m.* FROM performance_metrics m JOIN run ON run.id = backtest_run_id", stored.run_id)
    assert {name: bits(row[name]) for name in MEASURES} == wanted


def test_the_run_has_a_copy_of_every_metric(settings: Settings) -> None:
    run_id = saved(settings, factories.execution()).run_id
    names = ", ".join(METRICS)
    (copy,) = ask(settings, f"SELECT {names} FROM run", run_id)
    (original,) = ask(
        settings,
        f"SELECT {', '.join(f'm.{name}' for name in METRICS)} FROM performance_metrics m, run"
        " WHERE run.id = backtest_run_id",
        run_id,
    )
    assert copy == original
    assert set(copy) == {field.name for field in fields(Metrics)}
    assert None not in {copy["skewness"], copy["max_drawdown_date"], copy["avg_win"]}


@given(st.lists(FINITE, max_size=100))
@example(ODD_FLOATS)
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_trades_and_equity_are_read_back_to_the_bit(settings: Settings, values: list[float]) -> None:
    trades = tuple(factories.trade(pnl=value, entry_price=value, fees=value) for value in values)
    curve = EquityCurve(np.arange(len(values), dtype=np.int64), np.array(values, dtype=np.float64))
    result = RunResult(100_000.0, curve, (), trades, 0.0, len(values))
    execution = replace(factories.execution(), result=result)

    run_id = saved(settings, execution, Metrics()).run_id

    rows = stored_trades(settings, run_id)
    assert [row["trade_number"] for row in rows] == list(range(1, len(values) + 1))
    for name in ("pnl", "entry_price", "fees"):
        assert [bits(row[name]) for row in rows] == [bits(value) for value in values]
    read = stored_curve(settings, run_id)
    assert [bits(value) for value in read.equity.tolist()] == [bits(value) for value in values]
    assert read.times.tolist() == curve.times.tolist()


def test_times_of_trades_are_kept_to_the_microsecond(settings: Settings) -> None:
    trade = factories.trade(entry_time=1_600_000_000_123_456_789, exit_time=1_600_000_000_123_457_789)
    run_id = saved(settings, factories.execution(factories.run_result(trades=(trade,)))).run_id
    (row,) = stored_trades(settings, run_id)
    assert row["entry_time"] == datetime(2020, 9, 13, 12, 26, 40, 123456, tzinfo=UTC)
    assert row["exit_time"] == datetime(2020, 9, 13, 12, 26, 40, 123457, tzinfo=UTC)


@pytest.mark.parametrize("capital", ["0.01", "100000", "12345678901.123456789", "1000000000000"])
def test_money_is_exact(settings: Settings, capital: str) -> None:
    run = factories.new_run(config=factories.run_config(initial_capital=capital))
    stored = saved(settings, factories.execution(), run=run)
    assert stored.initial_capital == Decimal(capital)
    assert isinstance(stored.initial_capital, Decimal)
    assert stored.config_snapshot["initial_capital"] == capital


def test_the_period_is_the_one_asked_for_or_else_the_one_of_the_bars(settings: Settings) -> None:
    execution = factories.execution()
    bars = saved(settings, execution)
    assert bars.start_date == moment(execution.first_bar)
    assert bars.end_date == moment(execution.last_bar)
    asked = factories.run_config(data={"symbol": "TEST", "start": "2019-05-01", "end": "2021-05-01"})
    stored = saved(settings, execution, run=factories.new_run(config=asked))
    assert stored.start_date == datetime(2019, 5, 1, tzinfo=UTC)
    assert stored.end_date == datetime(2021, 5, 1, 23, 59, 59, 999999, tzinfo=UTC)


# -- odd runs ------------------------------------------------------------------------------------------------


def test_a_run_without_trades(settings: Settings) -> None:
    stored = saved(settings, factories.execution(factories.run_result(trades=())))
    assert stored.metrics is not None
    assert (stored.metrics.total_trades, stored.metrics.win_rate, stored.metrics.profit_factor) == (0, None, None)
    assert stored_trades(settings, stored.run_id) == []


def test_a_run_of_one_bar(settings: Settings) -> None:
    stored = saved(settings, factories.execution(factories.run_result(equity=[100_000.0])))
    assert stored.metrics is not None
    metrics = stored.metrics
    assert (metrics.total_return, metrics.sharpe_ratio, metrics.return_observations) == (0.0, None, 1)
    assert len(stored_curve(settings, stored.run_id)) == 1


def test_a_run_that_only_broke_even(settings: Settings) -> None:
    even = factories.trade(exit_price=100.0, fees=0.0, pnl=0.0)
    stored = saved(settings, factories.execution(factories.run_result(trades=(even, even))))
    assert stored.metrics is not None
    assert (stored.metrics.total_trades, stored.metrics.winning_trades, stored.metrics.losing_trades) == (2, 0, 0)


def test_a_run_that_lost_more_than_everything(settings: Settings) -> None:
    stored = saved(settings, factories.execution(factories.run_result(equity=[100_000.0, -50_000.0])))
    assert stored.metrics is not None
    assert stored.metrics.final_balance == -50_000.0
    assert stored.metrics.total_return == -1.5
    assert stored.metrics.max_drawdown == -1.5
    assert stored_curve(settings, stored.run_id).equity.tolist() == [100_000.0, -50_000.0]


def test_a_config_of_100_kilobytes(settings: Settings) -> None:
    config = factories.run_config(
        strategy={"path": "my:Strategy", "parameters": {"note": "ä" * 50_000, "list": [1] * 9}}
    )
    stored = saved(settings, factories.execution(), run=factories.new_run(config=config))
    assert stored.config_snapshot == config.snapshot()


def test_ten_thousand_trades(settings: Settings) -> None:
    execution = factories.execution(factories.run_result(trades=(factories.trade(),) * 10_000))
    assert len(stored_trades(settings, saved(settings, execution).run_id)) == 10_000


UNICODE = "naïve 数 😀 \t\n\r\x01\x7f \u2028 \ufeff \ufffe ' \" \\ %s :name {} $1 \\x00"


def test_all_other_text_is_kept_as_it_is(settings: Settings) -> None:
    config = factories.run_config(strategy={"path": "my:Strategy", "parameters": {UNICODE: UNICODE}})
    stored = saved(
        settings,
        factories.execution(notes=(UNICODE, "", "{a,b}")),
        run=factories.new_run(config=config, strategy_name=UNICODE, config_path=UNICODE),
    )
    assert stored.config_snapshot["strategy"]["parameters"] == {UNICODE: UNICODE}
    assert (stored.strategy_name, stored.config_path) == (UNICODE, UNICODE)
    assert stored.warnings == [UNICODE, "", "{a,b}"]


ODD = "before\x00after \udcff \ud800"
WRITTEN = "before\\x00after \\udcff \\ud800"


def test_a_failure_is_saved_whatever_its_text(settings: Settings) -> None:
    run_id = started(settings, config_path=f"/{ODD}.yaml")
    recording.save_failure(settings, run_id, Failure("failed", ODD, ODD, ODD))
    stored = runs.get_run(settings, str(run_id))
    assert (stored.error_type, stored.error_message, stored.error_traceback) == (WRITTEN, WRITTEN, WRITTEN)
    assert stored.config_path == f"/{WRITTEN}.yaml"


def test_so_are_the_notes_of_a_success(settings: Settings) -> None:
    assert saved(settings, factories.execution(notes=(ODD,))).warnings == [WRITTEN]


@given(st.text(st.characters(codec=None)))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_makes_a_failure_that_can_be_saved(settings: Settings, message: str) -> None:
    run_id = started(settings)
    recording.save_failure(settings, run_id, Failure("failed", "Error", message, message))
    assert runs.get_run(settings, str(run_id)).execution_status == "failed"


def test_a_very_long_message_is_kept(settings: Settings) -> None:
    message = "word " * 1_000_000
    run_id = started(settings)
    recording.save_failure(settings, run_id, Failure("failed", "Error", message, message))
    stored = runs.get_run(settings, str(run_id))
    assert stored.error_message == message
    assert stored.error_traceback == message


def test_a_config_that_cannot_be_stored_as_it_is_is_refused(settings: Settings) -> None:
    """RunConfig lets through no such text as a value; this is the last line."""
    config = factories.run_config(strategy={"path": "my:Strategy", "parameters": {"odd": {"\x00": 1}}})
    run = factories.new_run(config=config)
    with pytest.raises(DatabaseError, match="unsupported Unicode escape sequence") as caught:
        recording.start_run(settings, run)
    assert not caught.value.transient
    assert ask(settings, "SELECT 1 FROM run", run.run_id) == []


# -- again and again -----------------------------------------------------------------------------------------


def state(settings: Settings, run_id: UUID) -> list[list[dict[str, Any]]]:
    """Everything stored of a run."""
    tables = ("performance_metrics", "equity_curves", "trades")
    of_run = [f"SELECT x.* FROM {table} x JOIN run ON run.id = backtest_run_id ORDER BY 1, 2" for table in tables]
    return [ask(settings, query, run_id) for query in ("SELECT * FROM run", *of_run)]


def test_starting_twice_makes_one_row(settings: Settings) -> None:
    run = factories.new_run()
    recording.start_run(settings, run)
    before = state(settings, run.run_id)
    recording.start_run(settings, replace(run, strategy_name="Another"))
    assert state(settings, run.run_id) == before


def test_a_started_run_is_running_under_a_lease(settings: Settings) -> None:
    run_id = started(settings)
    stored = runs.get_run(settings, str(run_id))
    assert (stored.execution_status, stored.lease_owner) == ("running", leases.owner())
    assert stored.lease_expires_at is not None
    seconds = (stored.lease_expires_at - stored.started_at).total_seconds()
    assert seconds == leases.LEASE_SECONDS
    assert (stored.finished_at, stored.metrics, stored.execution_duration_seconds) == (None, None, None)
    assert stored.config_fingerprint == sha256(factories.run_config().canonical_json())


def test_a_success_that_is_saved_twice_is_saved_once(settings: Settings) -> None:
    """The answer to the commit was lost, so the task tries again."""
    execution = factories.execution()
    run_id = saved(settings, execution).run_id
    before = state(settings, run_id)
    assert [len(rows) for rows in before] == [1, 1, 1, 1]
    recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
    assert state(settings, run_id) == before


def test_another_result_for_a_finished_run_is_refused(settings: Settings) -> None:
    execution = factories.execution()
    run_id = saved(settings, execution).run_id
    before = state(settings, run_id)
    with pytest.raises(DatabaseError, match=f"run {run_id} is success already: its result was not saved"):
        recording.save_success(settings, run_id, replace(execution, result_digest="1" * 64), Metrics())
    assert state(settings, run_id) == before


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_success_after_somebody_gave_the_run_up_is_an_error(settings: Settings, status: str) -> None:
    run_id, execution = started(settings), factories.execution()
    recording.save_failure(settings, run_id, replace(FAILURE, status=status))
    before = state(settings, run_id)
    with pytest.raises(DatabaseError, match=f"run {run_id} is {status} already: its result was not saved") as caught:
        recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
    assert not caught.value.transient
    assert caught.value.hint == "Run the backtest again."
    assert state(settings, run_id) == before


def test_a_success_of_a_run_that_was_never_started_is_an_error(settings: Settings) -> None:
    run_id, execution = uuid4(), factories.execution()
    with pytest.raises(DatabaseError, match=f"run {run_id} has no row: its result was not saved"):
        recording.save_success(settings, run_id, execution, factories.metrics_of(execution))


def test_a_failure_after_a_success_changes_nothing(settings: Settings) -> None:
    run_id = saved(settings, factories.execution()).run_id
    before = state(settings, run_id)
    recording.save_failure(settings, run_id, FAILURE)
    assert state(settings, run_id) == before


def test_a_failure_is_saved_once(settings: Settings) -> None:
    run_id = started(settings)
    recording.save_failure(settings, run_id, FAILURE)
    before = state(settings, run_id)
    recording.save_failure(settings, run_id, replace(FAILURE, message="something else"))
    assert state(settings, run_id) == before
    stored = runs.get_run(settings, str(run_id))
    assert (stored.execution_status, stored.error_type, stored.error_message) == ("failed", "StrategyError", "it broke")
    assert (stored.error_traceback, stored.lease_owner) == ("Traceback: it broke", None)
    assert (stored.execution_duration_seconds or 0) > 0


# -- all or nothing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trade",
    [
        factories.trade(side="x"),
        factories.trade(quantity=float("nan")),
        factories.trade(pnl=float("inf")),
        factories.trade(entry_time=10**18, exit_time=0),
    ],
)
def test_one_bad_trade_and_nothing_is_saved(settings: Settings, trade: Trade) -> None:
    run_id = started(settings)
    before = state(settings, run_id)
    execution = factories.execution(factories.run_result(trades=(factories.trade(), trade)))
    with pytest.raises(DatabaseError, match="violates check constraint") as caught:
        recording.save_success(settings, run_id, execution, Metrics())
    assert not caught.value.transient
    assert state(settings, run_id) == before
    assert before[0][0]["execution_status"] == "running"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_no_number_and_nothing_is_saved(settings: Settings, value: float) -> None:
    run_id = started(settings)
    before = state(settings, run_id)
    with pytest.raises(DatabaseError, match="ck_backtest_runs_sharpe_ratio_finite"):
        recording.save_success(settings, run_id, factories.execution(), Metrics(sharpe_ratio=value))
    assert state(settings, run_id) == before


def test_a_connection_that_breaks_while_saving_saves_nothing_and_the_next_try_everything(
    settings: Settings, home: Path
) -> None:
    """A trigger has the server end its own session when the trades come."""
    run_id, execution = started(settings), factories.execution()
    before = state(settings, run_id)
    with database.transaction(settings) as connection:
        connection.execute(
            text(
                "CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'"
            )
        )
        connection.execute(
            text("CREATE TRIGGER break_off BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION break_off()")
        )
    try:
        with pytest.raises(TransientDatabaseError):
            recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
        assert state(settings, run_id) == before
    finally:
        with database.transaction(settings) as connection:
            connection.execute(text("DROP FUNCTION break_off CASCADE"))
    recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
    assert [len(rows) for rows in state(settings, run_id)] == [1, 1, 1, 1]


# -- leases --------------------------------------------------------------------------------------------------


def lease_end(settings: Settings, run_id: UUID) -> datetime:
    (row,) = ask(settings, "SELECT lease_expires_at FROM run", run_id)
    end: datetime = row["lease_expires_at"]
    return end


def test_a_lease_is_renewed(settings: Settings) -> None:
    run_id = started(settings)
    before = lease_end(settings, run_id)
    recording.renew_lease(settings, run_id)
    assert lease_end(settings, run_id) > before


def test_a_finished_run_gets_no_lease(settings: Settings) -> None:
    run_id = saved(settings, factories.execution()).run_id
    before = state(settings, run_id)
    recording.renew_lease(settings, run_id)
    assert state(settings, run_id) == before


def test_a_lease_is_kept_for_as_long_as_the_block_lasts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RENEW_SECONDS", 0.02)
    run_id = started(settings)
    with recording.lease_kept(settings, run_id):
        wait_for_renewal(settings, run_id)
        wait_for_renewal(settings, run_id)
    after = lease_end(settings, run_id)
    time.sleep(0.1)
    assert lease_end(settings, run_id) == after


def test_keeping_a_lease_survives_lost_connections(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "RENEW_SECONDS", 0.02)
    fragile = replace(settings, db_pool_pre_ping=False)
    run_id = started(fragile)
    with recording.lease_kept(fragile, run_id):
        for _ in range(3):
            administer(
                home,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name = 'ntrader' AND datname LIKE 'test_%'",
            )
            wait_for_renewal(settings, run_id)


def wait_for_renewal(settings: Settings, run_id: UUID) -> None:
    before, deadline = lease_end(settings, run_id), time.monotonic() + 10
    while lease_end(settings, run_id) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- not saved -----------------------------------------------------------------------------------------------


def test_a_run_that_is_not_saved_looks_like_one_that_is(settings: Settings) -> None:
    run, execution = factories.new_run(), factories.execution()
    metrics = factories.metrics_of(execution)
    unsaved = recording.unsaved_run(run, execution, metrics, 1.5)
    stored = saved(settings, execution, metrics, run)
    times = {"created_at", "started_at", "finished_at", "execution_duration_seconds"}
    assert {name: value for name, value in asdict(unsaved).items() if name not in times} == {
        name: value for name, value in asdict(stored).items() if name not in times
    }
    assert unsaved.execution_duration_seconds == 1.5
