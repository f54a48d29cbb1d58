"""The backtest flow on real parts: Prefect server, PostgreSQL, engine process. Whatever happens, one row says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)

from flows.backtest import backtest
from ntrader import progress
from ntrader.config import RunRequest
from ntrader.errors import (
    BadDataError,
    ConfigError,
    DataNotFoundError,
    EngineKilledError,
    EngineStoppedError,
    StrategyError,
)
from ntrader.settings import Settings
from storage.database import connect
from storage.runs import StoredRun, get_run, list_runs

pytestmark = pytest.mark.usefixtures("prefect_api")


def request(**changes: Any) -> RunRequest:
    values = {"strategy": "sma_crossover", "symbol": "AAPL", "start": "2008-01-01", "end": "2009-12-31"}
    return RunRequest(**(values | changes))


def scripted(script: dict[str, str], **changes: Any) -> RunRequest:
    parameters = {"script": script, **changes.pop("parameters", {})}
    return request(strategy="tests.scripted:Scripted", parameters=parameters, **changes)


def only_run(settings: Settings) -> StoredRun:
    runs = list_runs(settings, 10).runs
    assert len(runs) == 1
    return runs[0]


def test_a_success_is_recorded_and_shown_in_prefect(environment: Settings) -> None:
    run_id = uuid4()

    outcome = backtest(request(), run_id=run_id)

    run = get_run(environment, str(run_id))
    assert run.execution_status == "success"
    assert run.metrics is not None
    assert run.metrics.sharpe_ratio == outcome.metrics.sharpe_ratio
    assert run.result_digest == outcome.execution.result_digest
    assert run.flow_run_id is not None
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(run.flow_run_id)
        assert flow_run.name == f"SMA Crossover AAPL {run_id}"
        assert {f"run:{run_id}", "strategy:SMA Crossover", "symbol:AAPL"} <= set(flow_run.tags)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.flow_run_id]))
        )
    shown = {artifact.key: (artifact.type, str(artifact.data)) for artifact in artifacts}
    assert {key: kind for key, (kind, _) in shown.items()} == {
        "backtest-summary": "markdown",
        "backtest-metrics": "table",
        "backtest-equity": "image",
    }
    assert str(run_id) in shown["backtest-summary"][1]
    assert shown["backtest-equity"][1] in shown["backtest-summary"][1]
    assert f'"value": "{run.metrics.sharpe_ratio:,.4f}"' in shown["backtest-metrics"][1]


def test_the_row_exists_before_data_are_loaded(environment: Settings) -> None:
    seen: list[str] = []
    progress.listen(lambda stage, *_: seen.append(stage))
    try:
        with pytest.raises(DataNotFoundError, match="NOPE"):
            backtest(request(symbol="NOPE"))
    finally:
        progress.listen(None)

    run = only_run(environment)
    assert run.execution_status == "failed"
    assert run.error_type == "DataNotFoundError"
    assert run.instrument_symbol == "NOPE"
    assert run.metrics is None


def test_a_strategy_that_raises_is_recorded_with_its_traceback(environment: Settings) -> None:
    with pytest.raises(StrategyError):
        backtest(scripted({"3": "raise"}))

    run = only_run(environment)
    assert run.execution_status == "failed"
    assert run.error_message == "the strategy raised RuntimeError: bar 3 went wrong"
    assert run.error_traceback is not None
    assert "in on_bar" in run.error_traceback
    assert run.lease_owner is None


def test_an_engine_that_stops_early_is_recorded(environment: Settings, tmp_path: Path) -> None:
    """999 shares at 100 can be paid when they are ordered, and no longer at the next open."""
    path = tmp_path / "gap.csv"
    path.write_text("date,open,high,low,close\n2020-01-02,100,100,100,100\n2020-01-03,110,110,110,110\n")

    with pytest.raises(EngineStoppedError):
        backtest(scripted({"1": "buy 999"}, source="csv", data_path=str(path), start=None, end=None))

    run = only_run(environment)
    assert run.execution_status == "failed"
    assert run.error_message is not None
    assert "stopped at bar" in run.error_message


def test_bad_data_are_recorded_with_file_and_line(environment: Settings, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("date,open,high,low,close,volume\n2020-01-02,1,2,1,2,5\n2020-01-03,1,0.5,1,2,5\n")

    with pytest.raises(BadDataError):
        backtest(RunRequest(strategy="sma_crossover", symbol="X", source="csv", data_path=str(path)))

    run = only_run(environment)
    assert run.execution_status == "failed"
    assert f"{path}, line 3" in str(run.error_message)


def test_a_killed_engine_process_is_tried_once_more(environment: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "killed"

    outcome = backtest(scripted({"3": "kill once"}, parameters={"marker": str(marker)}))

    assert marker.exists()
    assert outcome.saved
    assert only_run(environment).execution_status == "success"


def test_an_engine_process_that_is_killed_again_is_a_failure(environment: Settings) -> None:
    with pytest.raises(EngineKilledError):
        backtest(scripted({"3": "kill"}))

    run = only_run(environment)
    assert run.execution_status == "failed"
    assert "SIGKILL" in str(run.error_message)


def test_a_deterministic_failure_is_not_tried_again(environment: Settings) -> None:
    with pytest.raises(StrategyError):
        backtest(scripted({"3": "raise"}))

    run = only_run(environment)
    assert run.flow_run_id is not None
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(
            task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[run.flow_run_id]))
        )
    assert all(task_run.run_count <= 1 for task_run in found)


def test_a_connection_that_is_lost_before_saving_costs_a_retry_only(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_POOL_PRE_PING", "false")

    def cut(stage: str, *_: int) -> None:
        if stage == "Saving":
            with connect(environment) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    progress.listen(cut)
    try:
        backtest(request())
    finally:
        progress.listen(None)

    assert only_run(environment).execution_status == "success"


def test_nothing_is_saved_where_that_is_not_wanted(environment: Settings) -> None:
    outcome = backtest(request(), save=False)

    assert not outcome.saved
    assert outcome.metrics.total_trades > 0
    assert list_runs(environment, 10).runs == []


def test_a_bad_request_leaves_no_row(environment: Settings) -> None:
    with pytest.raises(ConfigError, match="fast_perod"):
        backtest(request(parameters={"fast_perod": 3}))

    assert list_runs(environment, 10).runs == []


def test_equal_runs_have_equal_keys_and_digests(environment: Settings) -> None:
    first, second = backtest(request()), backtest(request())

    assert first.execution.fingerprints == second.execution.fingerprints
    assert first.execution.result_digest == second.execution.result_digest
    assert first.run.run_id != second.run.run_id


def a_run_over(rows: list[str], script: dict[str, str], folder: Path, **changes: Any) -> UUID:
    """A scripted run over daily rows `open,high,low,close`; 10,000 in a MARGIN account."""
    path = folder / "bars.csv"
    days = (f"2020-01-{day:02},{row}" for day, row in enumerate(rows, start=6))
    path.write_text("\n".join(["date,open,high,low,close", *days]) + "\n")
    asked = {"source": "csv", "data_path": str(path), "start": None, "end": None, "account_type": "MARGIN"}
    return backtest(scripted(script, **asked, initial_capital=10_000, **changes)).run.run_id


FLAT, FALLING = ["100,100,100,100"] * 4, ["100,100,100,100", "100,100,100,100", "80,80,80,80", "70,70,70,70"]
RISING = ["100,100,100,100", "100,100,100,100", "300,300,300,300", "320,320,320,320"]
# rows, script, then what must be stored: total return, drawdown, Sharpe defined, trades, win rate. Worked out by hand.
ODD_RUNS: dict[str, tuple[list[str], dict[str, str], tuple[float, float, bool, int, float | None]]] = {
    "flat": (FLAT, {}, (0.0, 0.0, False, 0, None)),
    "one bar": (FLAT[:1], {"1": "buy 1"}, (0.0, 0.0, False, 0, None)),
    "losing": (FALLING, {"1": "buy 10", "3": "sell 10"}, (-0.03, -0.03, True, 1, 0.0)),
    "open at the end": (FALLING, {"1": "buy 10"}, (-0.03, -0.03, True, 0, None)),
    "break-even": (FLAT, {"1": "buy 10", "2": "sell 10"}, (0.0, 0.0, False, 1, 0.0)),
    "bankrupt": (RISING, {"1": "sell 100"}, (-2.2, -2.2, False, 0, None)),
}


@pytest.mark.parametrize("kind", ODD_RUNS)
def test_odd_runs_are_recorded_as_they_were(kind: str, environment: Settings, tmp_path: Path) -> None:
    rows, script, (total_return, drawdown, has_sharpe, trades, win_rate) = ODD_RUNS[kind]

    run = get_run(environment, str(a_run_over(rows, script, tmp_path)))

    assert run.execution_status == "success"
    assert run.metrics is not None
    assert run.metrics.total_return == pytest.approx(total_return)
    assert run.metrics.max_drawdown == pytest.approx(drawdown)
    assert (run.metrics.sharpe_ratio is not None) == has_sharpe
    assert (run.metrics.total_trades, run.metrics.win_rate) == (trades, win_rate)
    assert run.metrics.final_balance == pytest.approx(10_000 * (1 + total_return))
    assert (run.metrics.cagr is None) == (kind in ("one bar", "bankrupt"))
