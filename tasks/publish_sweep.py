"""What a person sees of a sweep in Prefect's pages: how far it is, and its ranking."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from ntrader.sweeps.standing import Standing
from storage.sweeps import StoredSweep, StoredTrial

_EVERY_SECONDS: Final = 5.0


class Publisher:
    """The artifacts of one sitting. A server that is away stops no sweep: its pages lag behind."""

    def __init__(self, sweep_id: int) -> None:
        self._sweep_id = sweep_id
        self._artifact: UUID | None = None
        self._last = 0.0

    def report(self, standing: Standing) -> None:
        """Not more often than somebody looks."""
        if time.monotonic() - self._last < _EVERY_SECONDS:
            return
        self._publish(100 * standing.done / max(standing.total, 1), _said(standing))
        self._last = time.monotonic()

    def finish(self, sweep: StoredSweep, ranking: Sequence[StoredTrial], checked: object) -> None:
        counts = sweep.counts
        with _tolerant():
            self._publish(100 * counts.done / max(sweep.trials, 1), f"Sweep {sweep.id}: {sweep.state}")
            create_table_artifact(
                table=[_row(place, trial, sweep.objective) for place, trial in enumerate(ranking, start=1)],
                key=f"sweep-{self._sweep_id}-ranking",
                description=f"The best of {counts.success:,} trials by {sweep.objective};"
                f" {counts.linked:,} were there before, {counts.failed:,} failed",
            )

    def _publish(self, percent: float, description: str) -> None:
        with _tolerant():
            if self._artifact is None:
                found: Any = create_progress_artifact(
                    progress=percent, key=f"sweep-{self._sweep_id}-progress", description=description
                )
                self._artifact = found
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=percent, description=description)


@contextmanager
def _tolerant() -> Iterator[None]:
    try:
        yield
    except (HTTPError, RuntimeError):
        return


def _said(standing: Standing) -> str:
    best = f", best {standing.best:.4g} (trial {standing.best_trial})" if standing.best is not None else ""
    return f"{standing.done:,} of {standing.total:,} trials, {standing.failed:,} failed{best}"


def _row(place: int, trial: StoredTrial, objective: str) -> dict[str, Any]:
    metrics = dict.fromkeys((objective, "total_return", "sharpe_ratio", "max_drawdown", "total_trades"))
    return {
        "place": place,
        "trial": trial.trial_number,
        **{name: trial.metrics[name] for name in metrics},
        **trial.point.values,
        **{
            name: value
            for name, value in (("symbol", trial.point.symbol), ("timeframe", trial.point.timeframe))
            if value
        },
        "run_id": str(trial.run_id) if trial.run_id else None,
    }
