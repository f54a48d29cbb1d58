"""What a person sees of a sweep in Prefect's pages: how far it is, and its ranking."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from ntrader.sweeps.standing import Standing
from storage.sweeps import StoredSweep, StoredTrial

_EVERY_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 3.0


class Publisher:
    """The artifacts of one sitting, from a thread of their own: a server that is away or slow holds no sweep up, its
    pages lag behind."""

    def __init__(self, sweep_id: int) -> None:
        self._sweep_id = sweep_id
        self._artifact: UUID | None = None
        self._latest: Standing | None = None
        self._over = threading.Event()
        # Artifacts belong to the flow run that is going on, which is known here.
        run = copy_context().run
        self._thread = threading.Thread(target=run, args=(self._repeat,), daemon=True, name="ntrader-publisher")
        self._thread.start()

    def report(self, standing: Standing) -> None:
        """Published when somebody may look again."""
        self._latest = standing

    def stop(self) -> None:
        """Nothing more is published by itself."""
        self._over.set()
        self._thread.join(_LAST_SECONDS)

    def finish(self, sweep: StoredSweep, ranking: Sequence[StoredTrial]) -> None:
        counts = sweep.counts
        percent = 100 * counts.done / max(sweep.trials, 1)
        if self._thread.is_alive() or not self._publish(percent, f"Sweep {sweep.id}: {sweep.state}"):
            return
        with suppress(HTTPError, RuntimeError):
            create_table_artifact(
                table=[_row(place, trial, sweep.objective) for place, trial in enumerate(ranking, start=1)],
                key=f"sweep-{self._sweep_id}-ranking",
                description=f"The best of {counts.success:,} trials by {sweep.objective};"
                f" {counts.linked:,} were there before, {counts.failed:,} failed",
            )

    def _repeat(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            standing, self._latest = self._latest, None
            if standing is not None:
                self._publish(100 * standing.done / max(standing.total, 1), _said(standing))

    def _publish(self, percent: float, description: str) -> bool:
        """Whether the server took it."""
        try:
            if self._artifact is None:
                found: Any = create_progress_artifact(
                    progress=percent, key=f"sweep-{self._sweep_id}-progress", description=description
                )
                self._artifact = found
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=percent, description=description)
        except (HTTPError, RuntimeError):
            return False
        return True


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
