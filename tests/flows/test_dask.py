"""A sweep on a Dask cluster: a scheduler and two workers, each a process with a folder, a home and data of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from flows.launch import prefect_at
from flows.sweep import SweepOutcome, resume_sweep, sweep
from ntrader.config import RunRequest
from ntrader.data.catalog import add_bars
from ntrader.errors import BadDataError, ConfigError, ServiceError
from ntrader.settings import Settings
from ntrader.sweeps.runner import RunnerConfig
from storage.sweeps import all_trials, get_sweep
from tasks import dask_runner, dask_slot
from tasks.dask_runner import DaskRunner
from tests.cli.conftest import finish, start
from tests.cli.test_interrupts import alive, children
from tests.conftest import create_database, dispose_engines, settings_for
from tests.factories import bars

PROGRAM = str(Path(sys.executable).parent / "dask")
GRID = {"params": {"fast_period": {"range": [2, 6, 1]}, "slow_period": {"values": [10, 20]}}}
# Long enough for both workers to take some.
SLOW = {"params": {"script": [{"3": f"sleep 0.1; buy {number}"} for number in range(1, 11)]}}


@dataclass
class Cluster:
    """The processes, and the settings of the machine that starts sweeps."""

    folder: Path
    settings: Settings
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(json.loads((self.folder / "scheduler.json").read_text())["address"])

    @property
    def config(self) -> RunnerConfig:
        return RunnerConfig(kind="dask", scheduler=self.address)

    def home(self, name: str) -> Path:
        return self.folder / name / "home"

    def start(self, name: str, *words: str, **variables: str) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        environ = os.environ | {"NTRADER_HOME": str(self.home(name)), "DASK_LOGGING__DISTRIBUTED": "error"} | variables
        with (folder / "log").open("wb") as log:
            self.processes[name] = subprocess.Popen([PROGRAM, *words], cwd=folder, env=environ, stdout=log, stderr=log)

    def start_worker(self, name: str) -> None:
        assert self.settings.database_url
        words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", name)
        self.start(name, "worker", self.address, *words, DATABASE_URL=self.settings.database_url)


def wait(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(home: Path, template: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ntrader-dask-"))
    found = Cluster(folder, settings_for(home, create_database(home, template)))
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    found.start("scheduler", *scheduler, "--scheduler-file", str(folder / "scheduler.json"))
    wait((folder / "scheduler.json").exists)
    for name in ("one", "two"):
        add_bars(found.home(name), walk())
        found.start_worker(name)
    add_bars(home, walk())
    yield found
    for process in reversed(found.processes.values()):
        process.kill()
        process.wait()
    dispose_engines()
    shutil.rmtree(folder)


@pytest.fixture
def here(cluster: Cluster, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """This process is the machine that starts sweeps; both workers are there."""
    assert cluster.settings.database_url
    monkeypatch.setenv("NTRADER_HOME", str(cluster.settings.home))
    monkeypatch.setenv("DATABASE_URL", cluster.settings.database_url)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=240)
    with prefect_at(prefect_server):
        yield cluster


def walk(*, changed: bool = False) -> Any:
    """Half a year of daily bars; the last may have been revised."""
    closes = 100 + 10 * np.sin(np.arange(180) / 7) + np.arange(180) / 10
    rows = [(close, close + 1, close - 1, close) for close in np.round(closes, 2).tolist()]
    if changed:
        rows[-1] = (100.0, 101.0, 99.0, 100.0)
    return bars(rows)


def request(strategy: str = "sma_crossover") -> RunRequest:
    return RunRequest(strategy=strategy, symbol="TEST", source="catalog", initial_capital="100000")


def results(settings: Settings, outcome: SweepOutcome) -> list[tuple[Any, ...]]:
    found = all_trials(settings, outcome.sweep.id)
    return [(trial.trial_number, trial.point, trial.state, trial.metrics, trial.result_digest) for trial in found]


def test_a_sweep_on_a_cluster_equals_one_on_this_machine(here: Cluster) -> None:
    there = sweep(request(), GRID, rerun=True, runner=here.config)
    local = sweep(request(), GRID, workers=1, rerun=True, verify_best=False)

    assert there.sweep.counts.success == 10
    assert there.checked is not None
    assert there.checked.holds
    assert len({digest for *_, digest in results(here.settings, there)}) > 5
    assert results(here.settings, there) == results(here.settings, local)


def test_a_worker_whose_data_differ_is_named_and_saves_nothing(here: Cluster) -> None:
    base = request("tests.scripted:Scripted")
    local = sweep(base, SLOW, workers=1, rerun=True, verify_best=False)
    add_bars(here.home("two"), walk(changed=True), replace=True)

    complaint = r"(?s)the Dask worker two \(tcp://.+\) on .+: the bars of TEST \(catalog\) are not those .*same data"
    with pytest.raises(BadDataError, match=complaint):
        sweep(base, SLOW, rerun=True, runner=here.config)

    add_bars(here.home("two"), walk(), replace=True)
    found = get_sweep(here.settings, "@last")
    assert found.counts.running == found.counts.failed == 0
    assert found.counts.waiting > 0
    saved = [trial for trial in all_trials(here.settings, found.id) if trial.state == "success"]
    assert {trial.result_digest for trial in saved} <= {digest for *_, digest in results(here.settings, local)}
    outcome = resume_sweep(str(found.id), verify_best=False, runner=here.config)
    assert results(here.settings, outcome) == results(here.settings, local)


@pytest.mark.long
def test_a_lost_worker_loses_nothing(here: Cluster, tmp_path: Path) -> None:
    """Dask gives its chunk to another worker, among them one that has come meanwhile."""
    command = start_sweep(here, tmp_path)
    wait((tmp_path / "begun").exists)
    lost = worker_at_work(here)
    engines = children(here.processes[lost].pid)

    here.processes[lost].kill()
    here.processes[lost].wait()
    here.start_worker(lost)
    answer = finish(command, timeout=240)

    assert answer.code == 0, answer.err
    found = get_sweep(here.settings, "@last")
    assert (found.counts.success, found.state) == (3, "finished")
    assert [trial.crashes for trial in all_trials(here.settings, found.id)] == [0, 0, 0]
    wait(lambda: alive(engines) == [], seconds=60)


@pytest.mark.long
def test_an_interrupted_sweep_leaves_nothing_running(here: Cluster, tmp_path: Path) -> None:
    command = start_sweep(here, tmp_path)
    wait((tmp_path / "begun").exists)
    engine = engines_of(here, worker_at_work(here))

    command.send_signal(signal.SIGINT)
    answer = finish(command, timeout=120)

    assert answer.code == 130
    found = get_sweep(here.settings, "@last")
    assert f"Go on with: ntrader sweep resume {found.id}" in answer.err
    assert (found.counts.waiting, found.counts.running) == (3 - found.counts.done, 0)
    wait(lambda: alive(engine) == [], seconds=60)


def start_sweep(cluster: Cluster, folder: Path) -> subprocess.Popen[str]:
    """A command that hangs in its first trial, near the end: what a trial will take is tried with 2,000 bars."""
    script = {"script": {"2005": "hang again"}, "marker": str(folder / "begun")}
    section = {"symbols": ["AAPL", "IBM", "MSFT"], "objective": "total_return"}
    base = {"strategy": "tests.scripted:Scripted", "parameters": script, "data": {"symbol": "AAPL"}}
    config = folder / "hang.yaml"
    config.write_text(json.dumps(base | {"sweep": section}))
    words = ("sweep", "run", str(config), "--rerun", "--no-verify", "--workers", "1")
    return start(*words, "--scheduler", cluster.address)


def worker_at_work(cluster: Cluster) -> str:
    with Client(cluster.address, set_as_default=False) as client:
        names = {address: worker["id"] for address, worker in client.scheduler_info()["workers"].items()}
        (address,) = (address for address, keys in client.processing().items() if keys)
    return str(names[address])


def engines_of(cluster: Cluster, worker: str) -> list[int]:
    """The processes that the worker's fork server has made."""
    return [pid for child in children(cluster.processes[worker].pid) for pid in children(child)]


# What cannot work is said before anything is written down


def test_nobody_at_the_address(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_runner, "_CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(ServiceError, match=f"no Dask scheduler answers at {address}"):
            DaskRunner(cluster.settings, address, None)


def test_a_cluster_without_workers(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_runner, "_FIRST_WORKER_SECONDS", 0.2)
    cluster.start("alone", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file",
                  str(cluster.folder / "alone.json"))  # fmt: skip
    wait((cluster.folder / "alone.json").exists)
    address = json.loads((cluster.folder / "alone.json").read_text())["address"]

    with pytest.raises(ServiceError, match="no worker has been connected") as error:
        DaskRunner(cluster.settings, address, None)

    assert error.value.hint == f"Start one on each machine: dask worker {address} --no-nanny"


def test_the_embedded_database_is_out_of_reach(cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match="needs DATABASE_URL"):
        DaskRunner(Settings(home=cluster.settings.home), cluster.address, None)


def test_a_worker_without_a_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NTRADER_HOME", str(tmp_path))
    error = dask_slot.unfit()
    assert error is not None
    assert "the Dask worker has no DATABASE_URL" in error.message


def test_a_worker_that_dask_s_nanny_has_made_a_daemon() -> None:
    program = (
        "import multiprocessing\n"
        "from tasks import dask_slot\n"
        "def main(): print(dask_slot.unfit().message)\n"
        "child = multiprocessing.get_context('fork').Process(target=main, daemon=True)\n"
        "child.start()\n"
        "child.join()\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "may not start processes, because Dask's nanny has made it a daemon" in result.stdout, result.stderr
