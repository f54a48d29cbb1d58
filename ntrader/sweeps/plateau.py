"""Plateau scores: whether a good trial stands among good ones or alone.

The neighbours of a trial are other trials of its sweep that differ from it on numeric axes only. On axes of anything
else (symbols, timeframes, periods, texts, true and false) there is no near and far: neighbours share its values there.

- Of a grid: the trials one step away along one axis, up or down, to the next number that the sweep tried on it. A trial
  inside a grid of k numeric axes has 2k of them, one at an edge fewer, and so has one beside points that a constraint
  leaves out.
- Of any other sweep: the 2k nearest trials, as many as there are inside a grid. Distances are Euclidean, with each axis
  scaled to run from 0 to 1: an interval by its size, a logarithmic one by its logarithm, a list of numbers by their
  places in it. Of equally near ones the trial with the smaller number comes first.

The score of a trial is the mean of its neighbours' objective. Those whose objective is not defined, because they failed
or made no trade, are counted and left out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ntrader.results import Floats
from ntrader.sweeps.tried import Codes, TriedAxis

Direction = Literal["maximize", "minimize"]

# Beyond it a peak is called lonely.
LONELY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plateau:
    """What stands around a trial. `neighbours` are trials, `undefined` of them have no objective, `mean` is that of the
    others' objective, in its unit; None where there is none.

    `ratio` is `mean` over the trial's own objective; None where that is not above 0, for such a ratio says nothing.
    `shortfall` is by how much `mean` is worse than the trial's own objective, in interquartile ranges of the objective
    of all trials: 0 on a plateau, below 0 in a hollow. It depends neither on the unit nor on the sign of the objective,
    nor on the direction. None where half of the trials have the same.
    `reach` is the distance of the farthest neighbour, in widths of an axis; None of a grid.
    """

    mean: float | None
    ratio: float | None
    shortfall: float | None
    neighbours: int
    undefined: int
    reach: float | None

    @property
    def lonely(self) -> bool | None:
        """Whether the neighbours are worse by more than the middle half of all trials differ among themselves."""
        return None if self.shortfall is None else self.shortfall > LONELY


def plateaus(
    axes: Sequence[TriedAxis], values: Floats, trials: Sequence[int], *, direction: Direction, grid: bool
) -> list[Plateau]:
    """Of those `trials`, which are places in `values`: the objective of every trial, NaN where it is not defined."""
    around = _Grid(axes) if grid else _Cloud(axes)
    sign = 1 if direction == "maximize" else -1
    spread = _spread(values[~np.isnan(values)])
    found = []
    for trial in trials:
        neighbours, reach = around.of(trial)
        near = values[neighbours]
        known = near[~np.isnan(near)]
        own, score = float(values[trial]), mean(known)
        ratio = score / own if score is not None and own > 0 else None
        shortfall = sign * (own / spread - score / spread) if score is not None and spread > 0 else None
        found.append(Plateau(score, ratio, shortfall, len(near), len(near) - len(known), reach))
    return found


def mean(values: Floats) -> float | None:
    """Without overflow; None of nothing."""
    if len(values) == 0:
        return None
    scale = scale_of(values)
    return float((values / scale).mean() * scale)


def scale_of(values: Floats) -> float:
    """A power of two near the largest: what is divided by it can be added up, and no digit is lost."""
    largest = float(np.abs(values).max(initial=0.0))
    return math.ldexp(0.5, math.frexp(largest)[1]) if largest else 1.0


def _spread(known: Floats) -> float:
    """The interquartile range; 0 of nothing. Halved on the way, for the distance of the largest numbers is none."""
    if len(known) == 0:
        return 0.0
    lower, upper = np.quantile(known / 2, [0.25, 0.75])
    return float(min((upper - lower) * 2, np.finfo(np.float64).max))


class _Grid:
    """Where each trial is in a grid, by its levels."""

    def __init__(self, axes: Sequence[TriedAxis]) -> None:
        codes = [axis.codes for axis in axes if axis.codes is not None]
        self._places = np.column_stack(codes) if codes else np.empty((0, 0), dtype=np.int64)
        self._stepped = [number for number, axis in enumerate(axes) if axis.ordered]
        self._at = {place.tobytes(): trial for trial, place in enumerate(self._places)}

    def of(self, trial: int) -> tuple[list[int], None]:
        if not self._stepped:
            return [], None
        steps = (self._stepped_from(self._places[trial], axis, step) for axis in self._stepped for step in (-1, 1))
        return [found for found in steps if found is not None], None

    def _stepped_from(self, place: Codes, axis: int, step: int) -> int | None:
        other = place.copy()
        other[axis] += step
        return self._at.get(other.tobytes())


class _Cloud:
    """Where each trial is in the scaled space, and what it is on the other axes."""

    def __init__(self, axes: Sequence[TriedAxis]) -> None:
        self._scaled = [axis.scaled for axis in axes if axis.scaled is not None]
        self._kinds = [axis.codes for axis in axes if axis.scaled is None and axis.codes is not None]

    def of(self, trial: int) -> tuple[list[int], float | None]:
        if not self._scaled:
            return [], None
        squares = sum((place - place[trial]) ** 2 for place in self._scaled)
        distances = np.sqrt(np.asarray(squares))
        candidates = np.ones(len(distances), dtype=bool)
        for codes in self._kinds:
            candidates &= codes == codes[trial]
        candidates[trial] = False
        near = np.flatnonzero(candidates)
        nearest = near[np.argsort(distances[near], kind="stable")][: 2 * len(self._scaled)]
        return nearest.tolist(), float(distances[nearest].max()) if len(nearest) else None
