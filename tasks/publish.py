"""Artifacts: what a person sees of a run's outcome in Prefect's pages.

They are made after everything is recorded, and are no reason for a run to fail: what cannot be drawn, or sent to a
server that is away, is left out, and said in the flow run's log.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from ntrader.background import every
from ntrader.charts import data_uri, equity_chart
from ntrader.results import Execution, Metrics
from ntrader.summary import markdown_summary, metrics_table
from storage.rows import NewRun
from tasks.label import flow_run_id, tolerant

SUMMARY, METRICS, EQUITY = "backtest-summary", "backtest-metrics", "backtest-equity"
# Sooner nobody looks.
PROGRESS_SECONDS: Final = 5.0


@task(name="publish-summary", cache_policy=NO_CACHE)
def publish_summary(markdown: str, description: str, key: str) -> None:
    with tolerant():
        create_markdown_artifact(markdown=markdown, key=key, description=description)


@task(name="publish-summary", cache_policy=NO_CACHE)
def publish_backtest(run: NewRun, execution: Execution, metrics: Metrics, *, saved: bool) -> None:
    """The summary with the equity curve in it, and both the curve and the metrics by themselves."""
    config, result = run.config, execution.result
    with tolerant():
        currency, heading = config.venue.currency, f"{run.strategy_name} {config.data.symbol}"
        picture = data_uri(equity_chart(heading, currency, result.initial_capital, result.equity_curve))
        summary = markdown_summary(
            run.run_id, run.strategy_name, config, execution, metrics, saved=saved, picture=picture, page=_page()
        )
        what = f"{heading}, run {run.run_id}"
        create_markdown_artifact(summary, key=SUMMARY, description=what)
        create_table_artifact(metrics_table(metrics, currency), key=METRICS, description=f"Metrics of {what}")
        create_image_artifact(picture, key=EQUITY, description=f"Equity curve of {what}")


def _page() -> str | None:
    """Within Prefect's pages, so that it is right under whatever name a browser reaches them."""
    found = flow_run_id()
    return f"/v2/runs/flow-run/{found}" if found else None


class ProgressBar:
    """A progress artifact of the flow run that is going on."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._artifact: UUID | None = None

    def show(self, percent: float, description: str) -> None:
        """`percent` of 100. Raises what Prefect's client raises."""
        if self._artifact is None:
            found: Any = create_progress_artifact(progress=percent, key=self._key, description=description)
            self._artifact = found
        else:
            update_progress_artifact(artifact_id=self._artifact, progress=percent, description=description)

    @property
    def shown(self) -> bool:
        return self._artifact is not None


@contextmanager
def bars_shown(key: str = "backtest-progress") -> Iterator[Callable[[int, int], None]]:
    """Whoever runs bars inside tells (done, total); what takes longer has a progress bar in Prefect's pages.

    It is sent from another thread: a server that is slow slows no engine down.
    """
    bar, context, latest = ProgressBar(key), contextvars.copy_context(), (0, 0)

    def tell(done: int, total: int) -> None:
        nonlocal latest
        latest = (done, total)

    def show(done: int, total: int) -> None:
        if total:
            with tolerant():
                bar.show(100 * done / total, f"{done:,} of {total:,} bars")

    with every(PROGRESS_SECONDS, lambda: context.run(show, *latest)):
        yield tell
    if bar.shown:
        show(latest[1], latest[1])
