"""What a sweep's page shows, as plain data for JSON: fractions, every digit, null where something is not defined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ntrader.results import Floats
from ntrader.sweeps.analysis import Analysis, Heatmap, Ranked
from ntrader.sweeps.report import Facts, TopRun


def report_document(facts: Facts, analysis: Analysis, runs: Mapping[int, TopRun]) -> dict[str, Any]:
    """`runs` are those of the best trials, by their numbers."""
    return {
        "sweep": _sweep(facts),
        "trials": {
            "planned": facts.planned,
            "done": facts.done,
            "success": facts.success,
            "linked": facts.linked,
            "failed": dict(facts.failed),
            "defined": analysis.defined,
        },
        "noise": dataclasses.asdict(analysis.noise) if analysis.noise else None,
        "importance": dataclasses.asdict(analysis.importance) if analysis.importance else None,
        "histogram": dataclasses.asdict(analysis.histogram) if analysis.histogram else None,
        "top": [_trial(one, analysis, runs.get(one.number)) for one in analysis.top],
        "heatmaps": [_heatmap(one) for one in analysis.heatmaps],
    }


def _sweep(facts: Facts) -> dict[str, Any]:
    config = facts.config
    names = (
        "id",
        "name",
        "strategy_name",
        "state",
        "sampler_version",
        "seconds",
        "verified",
        "created_at",
        "finished_at",
    )
    search = config.snapshot()["sweep"]
    chosen = {name: getattr(config, name) for name in ("objective", "direction", "sampler", "seed")}
    return {name: getattr(facts, name) for name in names} | chosen | {"search": search}


def _trial(one: Ranked, analysis: Analysis, run: TopRun | None) -> dict[str, Any]:
    return {
        "trial_number": one.number,
        "value": one.value,
        "axes": {axis.name: _plain(axis.at(one.place)) for axis in analysis.axes},
        "plateau": dataclasses.asdict(one.plateau) | {"lonely": one.plateau.lonely},
        "run_id": run.run_id if run else None,
        "metrics": dict(run.metrics) if run else None,
    }


def _heatmap(one: Heatmap) -> dict[str, Any]:
    """Rows of `mean`, `best` and `count` go with the cells of `y`."""
    return {
        "x": one.x.name,
        "y": one.y.name,
        "x_cells": one.x.texts,
        "y_cells": one.y.texts,
        "mean": _rows(one.average),
        "best": _rows(one.best),
        "count": one.count.tolist(),
        "undefined": one.undefined.tolist(),
    }


def _rows(values: Floats) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]


def _plain(value: Any) -> Any:
    """A test period as its text."""
    return value if value is None or isinstance(value, bool | int | float | str | list | dict) else str(value)
