"""compute-metrics: numbers from the result."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.metrics import measure
from ntrader.results import Metrics, RunResult


@task(name="compute-metrics", cache_policy=NO_CACHE)
def compute_metrics(result: RunResult, annualization: int) -> Metrics:
    return measure(result, annualization)
