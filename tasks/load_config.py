"""load-config: from what was asked for to the complete RunConfig."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.config import RunConfig, RunRequest
from ntrader.worker import default_worker


@task(name="load-config", cache_policy=NO_CACHE)
def load_config(request: RunRequest, home: Path) -> RunConfig:
    """The strategy's class types its parameters, so this happens where the engine is loaded."""
    config: RunConfig = default_worker().call("ntrader.resolve:resolve", request, home)
    return config
