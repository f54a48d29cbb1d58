"""Sweeps that have been searched, without running anything: a function is their objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntrader.sweeps.analysis import Analysis, analyse
from ntrader.sweeps.config import SweepConfig, build_sweep
from ntrader.sweeps.outcomes import Outcome
from ntrader.sweeps.points import Point, points, space_of

Objective = Callable[[Point], float | None]


def build(params: dict[str, Any], trials: int | None = None, **section: Any) -> SweepConfig:
    """A grid, unless `trials` says how many points are drawn at random."""
    base = {"strategy": {"path": "x"}, "data": {"symbol": "A"}}
    drawn = {"sampler": "random", "budget": {"trials": trials}} if trials else {}
    return build_sweep({**base, "sweep": {"params": params, **drawn, **section}})


def searched(sweep: SweepConfig, objective: Objective, observations: int | None = 1000) -> list[Outcome]:
    """None means that the trial has failed."""
    found = []
    for point in points(sweep):
        value = objective(point)
        state, reason = ("failed", "exception") if value is None else ("success", None)
        found.append(Outcome(point, state, reason, value, observations))
    return found


def analysis_of(sweep: SweepConfig, objective: Objective, top: int = 5, observations: int | None = 1000) -> Analysis:
    return analyse(
        searched(sweep, objective, observations), space_of(sweep).axes, objective=sweep.objective,
        direction=sweep.direction, grid=sweep.sampler == "grid", annualization=252, top=top,
    )  # fmt: skip
