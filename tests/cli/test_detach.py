"""`--detach`: what is submitted, and what is refused before anything is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun

from flows.backtest import backtest
from flows.launch import prefect_at
from flows.reproduce import reproduce
from ntrader.config import RunRequest
from ntrader.errors import ServiceError
from ntrader.settings import Settings
from ntrader.sweeps.config import build_sweep
from storage.runs import get_run, list_runs
from storage.sweeps import NewSweep, create_sweep
from tasks.deployments import submit
from tasks.services import left_waiting
from tests.cli.conftest import Here

pytestmark = pytest.mark.usefixtures("deployments")

CONFIG = """
strategy: sma_crossover
parameters: {fast_period: 5}
data: {symbol: ACME, source: csv, path: bars/acme.csv, end: 2012-12-31}
initial_capital: 50000.25
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "x.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return "x.yaml"


@pytest.fixture
def api(prefect_server: str) -> str:
    return prefect_server


@pytest.fixture(autouse=True, scope="module")
def leave_nothing_scheduled(prefect_server: str) -> Iterator[None]:
    """No worker takes it up here, and whoever looks later would find it late."""
    yield
    with prefect_at(prefect_server), get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs():
            if flow_run.state is not None and flow_run.state.is_scheduled():
                client.delete_flow_run(flow_run.id)


def read_flow_run(api: str, flow_run_id: str) -> FlowRun:
    with prefect_at(api), get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run_id))


def count_flow_runs(api: str) -> int:
    with prefect_at(api), get_client(sync_client=True) as client:
        return client.count_flow_runs()


@pytest.mark.parametrize("option", ["--detach", "--deploy"])
def test_what_is_submitted_can_be_carried_out_elsewhere(
    here: Here, api: str, environment: Settings, file: str, tmp_path: Path, option: str
) -> None:
    answer = here("run-backtest", "-c", file, "--set", "fast_period=7", "--initial-capital", "1e3", option, "--json")

    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    flow_run = read_flow_run(api, said["flow_run_id"])
    run_id = said["run_id"]
    assert flow_run.name == f"SMA Crossover ACME {run_id}" == said["flow_run_name"]
    assert {f"run:{run_id}", "strategy:SMA Crossover", "symbol:ACME"} <= set(flow_run.tags)
    assert flow_run.state_name == "Scheduled" == said["state"]
    assert said["url"] == f"{api.removesuffix('/api')}/runs/flow-run/{flow_run.id}"
    assert flow_run.parameters == {
        "request": {
            "config_path": "x.yaml",
            "config": {
                "strategy": {"path": "sma_crossover", "parameters": {"fast_period": 5}},
                "data": {"symbol": "ACME", "source": "csv", "path": str(tmp_path / "bars" / "acme.csv"),
                         "end": "2012-12-31"},
                "initial_capital": 50000.25,
            },
            "parameters": {"fast_period": 7},
            "initial_capital": 1000,
        },
        "keep_data": True,
        "run_id": run_id,
    }  # fmt: skip
    assert "No worker polls the work pool ntrader" in answer.err
    assert f"ntrader watch {run_id[:8]}" in answer.err
    assert list_runs(environment, 1).runs == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["run-backtest", "-s", "sma_crossover", "--symbol", "AAPL", "--set", "fats_period=3"], "'fast_period'"),
        (["run-backtest", "-s", "sma_crosover", "--symbol", "AAPL"], "'sma_crossover'"),
        (["run-backtest", "-c", "there_is_none.yaml"], "there_is_none.yaml"),
        (["run-backtest", "-s", "momentum", "--symbol", "AAPL", "--no-persist"], "--no-persist do not go together"),
        (["sweep", "run", "-s", "momentum", "--symbol", "AAPL", "-p", "lookbak=1:9:2"], "lookbak"),
        (["sweep", "run", "-s", "momentum", "--symbol", "AAPL", "-p", "lookback=1:9:2", "--objective", "x"], "'x'"),
        (["sweep", "run", "config/sweeps/sma_grid.yaml", "--estimate"], "--estimate runs nothing"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value[:3]),
)
def test_what_cannot_be_run_is_refused_before_anything_is_submitted(
    here: Here, api: str, words: list[str], reason: str
) -> None:
    before = count_flow_runs(api)

    answer = here(*words, "--detach")

    assert (answer.code, answer.out) == (2, "")
    assert reason in answer.err
    assert count_flow_runs(api) == before


def test_without_a_server_it_says_how_to_get_one(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NTRADER_HOME", str(tmp_path))

    answer = here("run-backtest", "-s", "momentum", "--symbol", "AAPL", "--detach")

    assert (answer.code, answer.out) == (5, "")
    assert "no Prefect server is running" in answer.err
    assert "`ntrader up`" in answer.err


def test_a_sweep_has_no_number_yet(here: Here, api: str) -> None:
    answer = here(
        "sweep", "run", "config/sweeps/sma_grid.yaml", "--param", "fast_period=5:9:2", "--workers", "3", "--detach"
    )

    assert answer.code == 0, answer.err
    url = next(line.split()[-1] for line in answer.out.splitlines() if line.strip().startswith("Flow run"))
    flow_run = read_flow_run(api, url.rpartition("/")[2])
    assert "Run ID" not in answer.out
    assert flow_run.name == "Sweep SMA Crossover SMA periods on AAPL"
    assert flow_run.parameters["search"] == {"params": {"fast_period": {"range": [5, 9, 2]}}}
    assert flow_run.parameters["request"]["config"]["sweep"]["params"]["slow_period"] == [50, 100, 200]
    assert (flow_run.parameters["workers"], flow_run.parameters["runner"]) == (3, None)


def test_a_recorded_sweep_is_gone_on_with_by_its_number(here: Here, api: str, environment: Settings) -> None:
    sweep = build_sweep(
        {"strategy": {"path": "momentum"}, "data": {"symbol": "AAPL"}, "sweep": {"params": {"lookback": [5, 6]}}}
    )
    new = NewSweep(sweep.fingerprint, "Momentum", sweep.snapshot(), "sharpe_ratio", "maximize", "grid", 2)
    number = create_sweep(environment, new, [])

    answer = here("sweep", "resume", "@last", "--detach", "--json")

    flow_run = read_flow_run(api, json.loads(answer.out)["flow_run_id"])
    assert flow_run.parameters["sweep"] == str(number)
    assert f"sweep:{number}" in flow_run.tags


def test_a_reproduction_carried_out_as_it_was_submitted(here: Here, api: str, environment: Settings) -> None:
    with prefect_at(api):
        original = backtest(RunRequest(strategy="momentum", symbol="IBM", start="2011-01-01")).run.run_id
        said = json.loads(here("reproduce", str(original)[:8], "--detach", "--json").out)
        parameters: dict[str, Any] = read_flow_run(api, said["flow_run_id"]).parameters
        reproduce(**parameters)

    run = get_run(environment, said["run_id"])
    assert run.reproduced_from_run_id == original
    answer = here("watch", said["run_id"])
    assert (answer.code, answer.out.splitlines()[-1]) == (0, f"Run ID: {said['run_id']}")
    assert f"Identical to run {str(original)[:8]}" in answer.err


def test_a_copy_of_a_flow_run_makes_a_run_of_its_own(api: str, environment: Settings) -> None:
    asked, run_id = RunRequest(strategy="momentum", symbol="IBM", start="2012-01-01"), uuid4()
    with prefect_at(api):
        first, second = backtest(asked, run_id=run_id), backtest(asked, run_id=run_id)

    assert first.run.run_id == run_id != second.run.run_id
    assert len(list_runs(environment, 5).runs) == 2


def test_the_same_thing_submitted_twice_is_one_flow_run(api: str) -> None:
    parameters = {"request": {"strategy": "momentum", "symbol": "IBM"}}
    with prefect_at(api):
        first, second = (
            submit("backtest/backtest", parameters, name="x", tags=[], key="once and only once") for _ in range(2)
        )

    assert first.id == second.id


def test_what_the_deployment_does_not_take_or_is_not_there(api: str) -> None:
    with prefect_at(api):
        with pytest.raises(ServiceError, match="symbl") as refused:
            submit("backtest/backtest", {"request": {"symbl": "AAPL"}}, name="x", tags=[], key="refused")
        with pytest.raises(ServiceError, match="has no deployment backtest/nightly") as missing:
            submit("backtest/nightly", {}, name="x", tags=[], key="missing")

    for error in (refused.value, missing.value):
        assert "`ntrader up`" in (error.hint or "")
        assert "prefect deploy --all" in (error.hint or "")


def test_who_stops_the_stack_hears_of_what_still_waits(here: Here, api: str, environment: Settings) -> None:
    before = left_waiting(environment)
    answer = here("run-backtest", "--strategy", "momentum", "--symbol", "MSFT", "--detach", "--json")

    assert answer.code == 0, answer.err
    assert left_waiting(environment) == before + 1
