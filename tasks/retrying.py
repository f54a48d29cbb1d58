"""When another try can help: a connection that broke, a process that was killed. Never a deterministic failure."""

from __future__ import annotations

from typing import Any

from ntrader.errors import DatabaseError, EngineKilledError

DATABASE_DELAYS: list[float] = [0.5, 1, 2, 4, 8, 15]


def worth_another_try(_task: Any, _task_run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, DatabaseError):
        return error.transient
    return isinstance(error, EngineKilledError)
