"""A sweep in shards: flow runs of a deployment, taken by a real worker of a Prefect work pool."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import exception_to_failed_state

from flows.launch import prefect_at
from flows.sweep import sweep
from ntrader.config import RunRequest
from ntrader.errors import BadDataError, ConfigError, NtraderError, RunError, ServiceError
from ntrader.settings import Settings
from ntrader.sweeps.runner import RunnerConfig
from storage.database import connect
from storage.sweeps import all_trials, get_sweep
from tasks.open_sweep import Opening, join_sweep, open_sweep, read
from tasks.shards import ShardRunner, failure_of
from tasks.sitting import told_from_afar

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
PROGRAM = str(Path(sys.executable).parent / "prefect")
REQUEST = RunRequest(strategy="sma_crossover", symbol="AAPL", source="sample", initial_capital="100000")
LEARNING = {
    "params": {"fast_period": {"range": [2, 30, 1]}, "slow_period": {"range": [40, 120, 5]}},
    "sampler": "tpe",
    "budget": {"trials": 32},
}
SHARDS = RunnerConfig(kind="prefect", shards=2)


@pytest.fixture(scope="module")
def deployed(prefect_server: str) -> str:
    """The API of a server that has what `prefect.yaml` describes, and its work pool. Nobody works there."""
    with prefect_at(prefect_server), get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name="ntrader", type="process"))
    result = subprocess.run(
        [PROGRAM, "--no-prompt", "deploy", "--all"], cwd=ROOT, env=os.environ | {"PREFECT_API_URL": prefect_server},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return prefect_server


@pytest.fixture
def pool_worker(deployed: str, prefect_api: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the pool in a folder that has nothing to do with the project."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "worker", "start", "--pool", "ntrader", "--type", "process"],
            cwd=folder, env=os.environ | {"PREFECT_API_URL": deployed}, stdout=log, stderr=log,
        )  # fmt: skip
        wait(lambda: online("ntrader"))
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def online(pool: str) -> bool:
    with get_client(sync_client=True) as client:
        return any(worker.status is WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))


def wait(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def results(settings: Settings, sweep_id: int) -> list[tuple[Any, ...]]:
    found = all_trials(settings, sweep_id)
    return [(trial.trial_number, trial.point, trial.state, trial.metrics, trial.result_digest) for trial in found]


def kill_a_shard(settings: Settings) -> int:
    """The one whose engine is first seen with a trial in its hands. Its engine is a child of a child of it."""
    with connect(settings) as connection:
        held: list[dict[str, Any]] = []
        deadline = time.monotonic() + 300
        while not held and time.monotonic() < deadline:
            time.sleep(0.02)
            held = connection.execute("SELECT lease_owner FROM trials WHERE state = 'running' LIMIT 1").fetchall()
    engine = int(held[0]["lease_owner"].split("/")[1])
    shard = parent(parent(engine))
    os.kill(shard, signal.SIGKILL)
    return shard


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_nobody_works_there_yet(deployed: str, prefect_api: str, environment: Settings) -> None:
    with get_client(sync_client=True) as client:
        # Of another test on this server, and gone.
        for worker in client.read_workers_for_work_pool("ntrader"):
            place = {"work_pool_name": "ntrader", "name": worker.name}
            client.request("DELETE", "/work_pools/{work_pool_name}/workers/{name}", path_params=place)
    with pytest.raises(ServiceError, match="no worker of the work pool ntrader is online") as error:
        ShardRunner(environment, SHARDS, None, 1)
    assert "prefect worker start --pool ntrader" in str(error.value.hint)


def test_a_learning_sweep_in_shards_equals_one_here(pool_worker: Any, environment: Settings) -> None:
    """Though one of the shards is killed: another takes its place, and nothing is lost or done twice."""
    with ThreadPoolExecutor() as threads:
        killed = threads.submit(kill_a_shard, environment)
        shared = sweep(REQUEST, LEARNING, workers=1, runner=SHARDS)
        assert killed.result(timeout=1) > 0

    local = sweep(REQUEST, LEARNING, workers=1, rerun=True, verify_best=False)

    assert shared.sweep.counts.success == 32
    assert shared.checked is not None
    assert shared.checked.holds
    assert results(environment, shared.sweep.id) == results(environment, local.sweep.id)
    with get_client(sync_client=True) as client:
        states = [run.state_name for run in client.read_flow_runs() if f"sweep:{shared.sweep.id}" in run.tags]
    assert states.count("Crashed") == 1


def test_there_is_no_such_deployment(prefect_api: str, environment: Settings) -> None:
    with pytest.raises(ServiceError, match="has no deployment sweep-shard/other"):
        ShardRunner(environment, RunnerConfig(kind="prefect", deployment="sweep-shard/other"), None, 1)


# What a shard must find on its machine


@pytest.fixture
def opening(prefect_api: str, environment: Settings) -> Opening:
    config = read(environment, REQUEST, {"params": {"fast_period": {"values": [5, 6]}}})
    return open_sweep.fn(environment, config, 1, config_path=None, rerun=False, keep_data=True, flow_run_id=None)


def join(settings: Settings, opening: Opening, **changes: str) -> Opening:
    sitting = opening.sitting
    created_at = get_sweep(settings, str(opening.sweep_id)).created_at.isoformat()
    expected = {"code": sitting.code, "engine": sitting.engine, "environment": sitting.environment} | changes
    return join_sweep.fn(
        settings, str(opening.sweep_id), 1, keep_data=True,
        expected={"created_at": created_at} | expected, flow_run_id=None,
    )  # fmt: skip


def test_a_shard_takes_what_was_planned(environment: Settings, opening: Opening) -> None:
    before = all_trials(environment, opening.sweep_id)
    joined = join(environment, opening)
    assert (joined.sweep_id, joined.estimate.trials) == (opening.sweep_id, 2)
    assert all_trials(environment, opening.sweep_id) == before


def test_a_shard_of_another_version_is_refused(environment: Settings, opening: Opening) -> None:
    with pytest.raises(ConfigError, match="the code and environment of this worker differ from what sweep"):
        join(environment, opening, code="0" * 64, environment="1" * 64)


def test_a_shard_with_another_database_is_refused(environment: Settings, opening: Opening) -> None:
    """There is a sweep of the number, but it is another one."""
    with pytest.raises(ConfigError, match=f"sweep {opening.sweep_id} is not in the database"):
        join(environment, opening, created_at="2020-01-01T00:00:00+00:00")


@pytest.mark.parametrize("kind", [BadDataError, ConfigError, RunError])
def test_what_a_shard_raises_arrives(kind: type[NtraderError]) -> None:
    """By what Prefect makes of it, which is its message alone."""
    with pytest.raises(kind) as raised, told_from_afar():
        raise kind("the bars are others", hint="Give every machine the same data.")
    state = asyncio.run(exception_to_failed_state(raised.value))

    error = failure_of("proud-owl", state)

    assert type(error) is kind
    assert error.message.startswith("shard proud-owl: on ")
    assert error.message.endswith(": the bars are others\nGive every machine the same data.")
