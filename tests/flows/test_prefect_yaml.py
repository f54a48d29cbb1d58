"""`prefect deploy --all`, Prefect's own command: from a checkout at any path, and from an installed wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from prefect import get_client

from ntrader.settings import Settings
from storage.runs import list_runs
from tests.cli.conftest import ROOT

pytestmark = pytest.mark.long

PACKAGES = ("cli", "flows", "tasks", "storage", "ntrader")
DEPLOYMENTS = {
    "backtest/backtest": "flows.backtest.backtest",
    "sweep/sweep": "flows.sweep.sweep",
    "sweep/nightly-sweep": "flows.sweep.sweep",
    "reproduce/reproduce": "flows.reproduce.reproduce",
    "verify-recent/verify-recent": "flows.verify.verify_recent",
}


def prefect(*words: str, folder: Path, api: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=folder,
        env=os.environ | {"PREFECT_API_URL": api, "PREFECT_HOME": str(folder)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def ensure_pool(folder: Path, api: str) -> None:
    made = prefect("work-pool", "create", "ntrader", "--type", "process", folder=folder, api=api)
    assert made.returncode == 0 or "already exists" in made.stdout + made.stderr


def deployed() -> dict[str, tuple[str | None, str | None]]:
    """Entrypoint and path by the name of each of ours that is there."""
    with get_client(sync_client=True) as client:
        found = {name: client.read_deployment_by_name(name) for name in DEPLOYMENTS}
        for deployment in found.values():
            client.delete_deployment(deployment.id)
    return {name: (deployment.entrypoint, deployment.path) for name, deployment in found.items()}


def test_from_a_checkout_whose_path_has_a_space_and_a_run_of_it_elsewhere(
    prefect_api: str, environment: Settings, tmp_path: Path
) -> None:
    checkout = tmp_path / "my checkout ü"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", checkout)
    ensure_pool(tmp_path, prefect_api)

    done = prefect("deploy", "--all", folder=checkout, api=prefect_api)

    assert done.returncode == 0, done.stdout + done.stderr
    started = prefect("deployment", "run", "backtest/backtest", folder=tmp_path, api=prefect_api)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("backtest/backtest")
        (flow_run,) = [run for run in client.read_flow_runs() if str(run.id) in started.stdout]
    assert flow_run.deployment_id == deployment.id
    shutil.rmtree(checkout)
    executed = prefect("flow-run", "execute", str(flow_run.id), folder=tmp_path, api=prefect_api)
    assert executed.returncode == 0, executed.stderr
    (run,) = list_runs(environment, 10).runs
    assert (run.execution_status, run.flow_run_id) == ("success", flow_run.id)
    assert {name: entry for name, (entry, _) in deployed().items()} == DEPLOYMENTS


@pytest.mark.skipif(shutil.which("uv") is None, reason="there is no uv here to build with")
def test_from_an_installed_wheel(prefect_api: str, tmp_path: Path) -> None:
    subprocess.run(["uv", "build", "--wheel", "--quiet", "-o", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    ensure_pool(tmp_path, prefect_api)

    where = "import flows, pathlib; print(pathlib.Path(flows.__file__).with_name('prefect.yaml'))"
    # Before the checkout that the tests run from.
    installed = {"PYTHONPATH": str(site)}
    file = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env=os.environ | installed,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    done = prefect("deploy", "--all", "--prefect-file", file, folder=tmp_path, api=prefect_api, **installed)

    assert Path(file) == site / "flows" / "prefect.yaml"
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: entry for name, (entry, _) in deployed().items()} == DEPLOYMENTS
