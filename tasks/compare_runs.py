"""compare-runs: read the runs that are named, and compare them."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.comparison import Comparison
from ntrader.settings import Settings
from storage import compared
from tasks.retrying import DATABASE_DELAYS, worth_another_try


@task(
    name="compare-runs",
    cache_policy=NO_CACHE,
    retries=len(DATABASE_DELAYS),
    retry_delay_seconds=DATABASE_DELAYS,
    retry_condition_fn=worth_another_try,
)
def compare_runs(settings: Settings, runs: list[str], baseline: str | None) -> Comparison:
    return compared.compare_runs(settings, runs, baseline)[0]
