"""run-backtest: the simulation, in the warm worker process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader import progress
from ntrader.config import RunConfig
from ntrader.data.bars import Bars
from ntrader.results import Execution
from ntrader.worker import Worker, default_worker
from tasks.publish import bars_shown
from tasks.retrying import worth_another_try


@task(name="run-backtest", cache_policy=NO_CACHE, retries=1, retry_condition_fn=worth_another_try)
def run_backtest(
    config: RunConfig, home: Path, bars: Bars | None = None, sources: dict[str, str] | None = None
) -> Execution:
    """Over `bars` and with the code `sources`, where they are not to be those there are now.

    Tried once more only when the process was killed: the simulation itself would fail the same way again.
    """
    progress.report("Running")
    with bars_shown() as show:

        def tell(done: int, total: int) -> None:
            progress.report("Running", done, total)
            show(done, total)

        return _run(config, home, bars, sources, tell)


def _run(
    config: RunConfig, home: Path, bars: Bars | None, sources: dict[str, str] | None, tell: Callable[[int, int], None]
) -> Execution:
    execution: Execution
    if sources is None:
        execution = default_worker().call("ntrader.execution:execute", config, home, bars, on_progress=tell)
        return execution
    worker = Worker()  # of its own: modules that were replaced stay so
    try:
        execution = worker.call("ntrader.replay:execute", config.snapshot(), home, bars, sources, on_progress=tell)
    finally:
        worker.kill()
    return execution
