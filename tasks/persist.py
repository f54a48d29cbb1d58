"""persist: the row before the run, and its outcome after. Each may be repeated without doubling anything."""

from __future__ import annotations

from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.results import Execution, Metrics
from ntrader.settings import Settings
from storage import recording
from storage.rows import Failure, NewRun
from tasks.retrying import DATABASE_DELAYS, worth_another_try


@task(
    name="persist-start",
    cache_policy=NO_CACHE,
    retries=len(DATABASE_DELAYS),
    retry_delay_seconds=DATABASE_DELAYS,
    retry_condition_fn=worth_another_try,
)
def start_run(settings: Settings, run: NewRun) -> None:
    recording.start_run(settings, run)


@task(
    name="persist",
    cache_policy=NO_CACHE,
    retries=len(DATABASE_DELAYS),
    retry_delay_seconds=DATABASE_DELAYS,
    retry_condition_fn=worth_another_try,
)
def save_success(
    settings: Settings, run_id: UUID, execution: Execution, metrics: Metrics, *, keep_data: bool = True
) -> None:
    recording.save_success(settings, run_id, execution, metrics, keep_data=keep_data)


@task(
    name="persist-failure",
    cache_policy=NO_CACHE,
    retries=len(DATABASE_DELAYS),
    retry_delay_seconds=DATABASE_DELAYS,
    retry_condition_fn=worth_another_try,
)
def save_failure(settings: Settings, run_id: UUID, failure: Failure, *, keep_data: bool = True) -> None:
    recording.save_failure(settings, run_id, failure, keep_data=keep_data)
