"""run-backtest: the simulation, in the warm worker process."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader import progress
from ntrader.config import RunConfig
from ntrader.results import Execution
from ntrader.worker import default_worker
from tasks.retrying import worth_another_try


@task(name="run-backtest", cache_policy=NO_CACHE, retries=1, retry_condition_fn=worth_another_try)
def run_backtest(config: RunConfig, home: Path) -> Execution:
    """Tried once more only when the process was killed: the simulation itself would fail the same way again."""
    progress.report("Running")
    execution: Execution = default_worker().call(
        "ntrader.execution:execute",
        config,
        home,
        on_progress=lambda done, total: progress.report("Running", done, total),
    )
    return execution
