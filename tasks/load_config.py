"""load-config: from what was asked for to the complete RunConfig."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.config import RunConfig, RunRequest, build_config
from ntrader.worker import default_worker


@task(name="load-config", cache_policy=NO_CACHE)
def load_config(request: RunRequest, home: Path) -> RunConfig:
    """The strategy's class types its parameters, so this happens where the engine is loaded."""
    config: RunConfig = default_worker().call("ntrader.resolve:resolve", request, home)
    return config


@task(name="load-config", cache_policy=NO_CACHE)
def load_stored_config(snapshot: dict[str, Any], *, with_kept_code: bool) -> RunConfig:
    """With code that was kept there is nothing to look up: the strategy may be gone."""
    if with_kept_code:
        return build_config(snapshot, origin="the stored config")
    config: RunConfig = default_worker().call("ntrader.resolve:restore", snapshot)
    return config
