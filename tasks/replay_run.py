"""replay-run: a stored config in the process of another engine."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader import progress
from ntrader.canary import Canary
from ntrader.data.bars import Bars
from ntrader.results import Execution


@task(name="replay-run", cache_policy=NO_CACHE)
def replay_run(
    engine: Canary, snapshot: dict[str, Any], bars: Bars | None, sources: dict[str, str] | None, stage: str
) -> Execution:
    """`stage` is how progress calls it. Not tried again, even where the process was killed: an engine that crashes is
    what one wants to know."""
    progress.report(stage)
    return engine.replay(snapshot, bars, sources, lambda done, total: progress.report(stage, done, total))
