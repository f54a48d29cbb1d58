"""What a person sees of a sweep in Prefect's pages: how far it is, then its ranking and a map of what it found."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import copy_context
from typing import Any, Final

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from ntrader.charts import data_uri
from ntrader.settings import Settings
from ntrader.summary import sweep_summary
from ntrader.sweeps.standing import Standing
from ntrader.sweeps.surface import picture
from storage import sweeps as stored
from storage.sweeps import StoredSweep, StoredTrial
from tasks.label import tolerant
from tasks.publish import PROGRESS_SECONDS, ProgressBar

_RANKED: Final = 50
# A map of more trials would take long to read from the database, and show no more.
_MAPPED: Final = 50_000
_LAST_SECONDS: Final = 3.0


class Publisher:
    """The artifacts of one sitting, from a thread of their own: a server that is away or slow holds no sweep up, its
    pages lag behind."""

    def __init__(self, sweep_id: int) -> None:
        self._sweep_id = sweep_id
        self._bar = ProgressBar(f"sweep-{sweep_id}-progress")
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

    def finish(self, settings: Settings, sweep: StoredSweep, *, holds: bool | None) -> None:
        """`holds` says whether the best trial came out the same once more; None where nobody looked."""
        counts = sweep.counts
        percent = 100 * counts.done / max(sweep.trials, 1)
        # A server that is away is asked once, not for every artifact.
        if not self._thread.is_alive() and self._show(percent, f"Sweep {sweep.id}: {sweep.state}"):
            with tolerant():
                _publish_outcome(settings, sweep, holds)

    def _repeat(self) -> None:
        while not self._over.wait(PROGRESS_SECONDS):
            standing, self._latest = self._latest, None
            if standing is not None:
                self._show(100 * standing.done / max(standing.total, 1), _said(standing))

    def _show(self, percent: float, description: str) -> bool:
        """Whether the server took it."""
        with tolerant():
            self._bar.show(percent, description)
            return True
        return False


def _publish_outcome(settings: Settings, sweep: StoredSweep, holds: bool | None) -> None:
    counts, key = sweep.counts, f"sweep-{sweep.id}"
    ranking = stored.ranking(settings, sweep.id, sweep.objective, sweep.direction, _RANKED)
    title = f"{sweep.strategy_name} {sweep.name or ''}".strip()
    said = (
        f"{counts.success:,} of {sweep.trials:,} trials succeeded, {counts.linked:,} of them were there before;"
        f" {counts.failed:,} failed"
    )
    surface = _surface(settings, sweep)
    best = ranking[0] if ranking else None
    summary = sweep_summary(
        sweep.id, title, f"{sweep.state.capitalize()}: {said}", sweep.objective, _best(best, sweep.objective),
        best.run_id if best else None, holds, surface,
    )  # fmt: skip
    create_markdown_artifact(summary, key=f"{key}-summary", description=f"Sweep {sweep.id}: {title}")
    create_table_artifact(
        table=_table(ranking, sweep.objective),
        key=f"{key}-ranking",
        description=f"The best {len(ranking)} by {sweep.objective}; {said}",
    )
    if surface:
        create_image_artifact(surface, key=f"{key}-map", description=f"{sweep.objective} over the search space")


def _surface(settings: Settings, sweep: StoredSweep) -> str | None:
    if sweep.trials > _MAPPED:
        return None
    found = stored.objectives(settings, sweep.id, sweep.objective).values()
    results = [(point, value) for point, _, value in found if value is not None]
    drawn = picture(results, sweep.objective, sweep.direction)
    return data_uri(drawn) if drawn else None


def _said(standing: Standing) -> str:
    best = f", best {standing.best:.4g} (trial {standing.best_trial})" if standing.best is not None else ""
    return f"{standing.done:,} of {standing.total:,} trials, {standing.failed:,} failed{best}"


def _best(trial: StoredTrial | None, objective: str) -> dict[str, Any]:
    return {} if trial is None else {"trial": trial.trial_number, objective: trial.metrics[objective], **_where(trial)}


def _table(ranking: Sequence[StoredTrial], objective: str) -> list[dict[str, Any]]:
    return [_row(place, trial, objective) for place, trial in enumerate(ranking, start=1)]


def _row(place: int, trial: StoredTrial, objective: str) -> dict[str, Any]:
    metrics = dict.fromkeys((objective, "total_return", "sharpe_ratio", "max_drawdown", "total_trades"))
    return {
        "place": place,
        "trial": trial.trial_number,
        **_where(trial),
        **{name: _rounded(trial.metrics[name]) for name in metrics},
        "run_id": str(trial.run_id) if trial.run_id else None,
    }


def _rounded(value: Any) -> Any:
    """To what a table has room for; the database has every digit."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _where(trial: StoredTrial) -> dict[str, Any]:
    """What sets it apart from the others."""
    point = trial.point
    others = {"symbol": point.symbol, "timeframe": point.timeframe, "period": point.period and str(point.period)}
    return {**{name: value for name, value in others.items() if value}, **point.values}
