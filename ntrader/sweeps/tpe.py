"""A sampler that learns: optuna's tree-structured Parzen estimator, asked in batches of a fixed size.

Each batch follows from the sweep, the points before it and their results alone: a study is made anew, its random
numbers seeded by the sweep's seed and the batch's first trial. So it does not matter how many workers there are, which
of them finished first, or whether the process that asks for a batch is the one that asked for the batch before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ntrader.config import canonical_json, sha256
from ntrader.errors import ConfigError
from ntrader.sweeps.axes import Choices
from ntrader.sweeps.config import SweepConfig
from ntrader.sweeps.points import Dimension, Point, draw, random_points, space_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

# As many trials as optuna draws at random before it begins to learn; whole batches are.
STARTUP: Final = 10
# So often a suggestion may be refused, by a constraint or as a repetition, before a point is drawn at random.
_PATIENCE: Final = 50


class TpeSampler:
    """The points of a tpe sweep, batch by batch: `ask`, run them, `tell`.

    A sweep is resumed by making a sampler with the points it has asked for, in the order of their numbers, and telling
    it their results: it goes on exactly as it would have. That needs the same optuna, numpy and kind of machine; with
    others it goes on as well, from the recorded points and results, with other points than it would have had.
    """

    def __init__(self, sweep: SweepConfig, asked: Iterable[Point] = ()) -> None:
        """Raises ConfigError where a point in `asked` is not of the sweep's space or out of order."""
        self._sweep = sweep
        self._space = space_of(sweep)
        self._points = list(asked)
        self._results: dict[int, float | None] = {}
        for number, point in enumerate(self._points):
            if point.number != number:
                raise ConfigError(f"trial {point.number} stands where trial {number} should")
            self._suggestion(point)

    @property
    def waiting(self) -> list[Point]:
        """The points that were asked for and whose results have not been told."""
        return [point for point in self._points if point.number not in self._results]

    def ask(self) -> list[Point]:
        """The next batch; the rest of one that was recorded in part. Empty when the budget of trials is used up or a
        finite space exhausted.

        Raises ValueError while results of batches before are missing.
        """
        size = self._sweep.batch
        first = len(self._points) // size * size
        missing = [point.number for point in self.waiting if point.number < first]
        if missing:
            raise ValueError(f"the results of trials {missing} are missing")
        before = self._points[:first]
        batch = self._learned(before) if first >= STARTUP else self._drawn(first)
        wanted = max((self._sweep.budget.trials or 0) - first, 0)
        new = batch[:wanted][len(self._points) - first :]
        self._points += new
        return new

    def tell(self, results: Mapping[int, float | None]) -> None:
        """The objective by trial number, in whatever order; None for a failed trial or one whose objective is not
        defined, which is taken for worse than all others.

        Raises ValueError for a trial that was not asked for or has another result already.
        """
        for number, value in results.items():
            result = value if value is not None and math.isfinite(value) else None
            if not 0 <= number < len(self._points) or self._results.get(number, result) != result:
                raise ValueError(f"trial {number} was not asked for, or has another result already")
            self._results[number] = result

    def _drawn(self, first: int) -> list[Point]:
        """A batch of the random sampler with the same seed."""
        return list(islice(random_points(self._sweep), first, first + self._sweep.batch))

    def _learned(self, before: Sequence[Point]) -> list[Point]:
        seed = int(sha256(canonical_json([self._sweep.seed, len(before)]))[:8], 16)
        study = self._study(before, seed)
        seen = {point.place for point in before}
        # Also where the estimator comes up with nothing new.
        others = draw(self._space, seed)
        batch: list[Point] = []
        for number in range(len(before), len(before) + self._sweep.batch):
            point = self._suggested(study, number, seen) or _unseen(others, number, seen)
            if point is None:
                break
            seen.add(point.place)
            batch.append(point)
        return batch

    def _study(self, before: Sequence[Point], seed: int) -> Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A point that is still running counts as a bad one: the points of a batch keep apart.
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True)
        study = optuna.create_study(direction=self._sweep.direction, sampler=sampler)
        study.add_trials([self._told(point) for point in before])
        return study

    def _told(self, point: Point) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        value = self._results[point.number]
        # Of pruned trials the estimator takes all for worse than any complete one; failed ones it would forget.
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        params = self._suggestion(point)
        return create_trial(state=state, value=value, params=params, distributions=self._distributions())

    def _suggested(self, study: Study, number: int, seen: set[str]) -> Point | None:
        """What the estimator would try next; None where it insists on what cannot be used."""
        from optuna.trial import TrialState

        for _ in range(_PATIENCE):
            trial = study.ask(self._distributions())
            point = self._space.point(number, [_chosen(axis, trial) for axis in self._space.axes])
            if point.place not in seen and self._space.fits(point):
                return point
            study.tell(trial, state=TrialState.PRUNED)
        return None

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {_key(dimension): _distribution(dimension) for dimension in self._space.axes}

    def _suggestion(self, point: Point) -> dict[str, Any]:
        """The point as optuna knows it. Raises ConfigError where it is none of the space."""
        try:
            return {_key(dimension): _position(dimension, point) for dimension in self._space.axes}
        except (ValueError, TypeError, KeyError):
            raise ConfigError(f"trial {point.number} is not a point of this sweep's space") from None


def _unseen(others: Iterable[Point], number: int, seen: set[str]) -> Point | None:
    for point in others:
        if point.place not in seen:
            return Point(number, point.values, point.symbol, point.timeframe, point.period)
    return None


def _key(dimension: Dimension) -> str:
    """A parameter may be named like a field of a point."""
    return f"{dimension.kind}.{dimension.name}"


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Of finitely many values their places are suggested: in order for numbers, however they are spaced."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    axis = dimension.axis
    if not isinstance(axis, Choices):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    if axis.ordered:
        return IntDistribution(0, axis.size - 1)
    return CategoricalDistribution(range(axis.size))


def _ascending(axis: Choices) -> Sequence[Any]:
    if isinstance(axis.values, range):
        return axis.values if axis.values.step > 0 else axis.values[::-1]
    return sorted(axis.values) if axis.ordered else axis.values


def _chosen(dimension: Dimension, trial: Trial) -> Any:
    suggested = trial.params[_key(dimension)]
    return _ascending(dimension.axis)[suggested] if isinstance(dimension.axis, Choices) else float(suggested)


def _position(dimension: Dimension, point: Point) -> Any:
    value = point.values[dimension.name] if dimension.kind == "parameter" else getattr(point, dimension.name)
    axis = dimension.axis
    if not isinstance(axis, Choices):
        if not axis.low <= value <= axis.high:
            raise ValueError(value)
        return float(value)
    return _place(_ascending(axis), value)


def _place(values: Sequence[Any], value: Any) -> int:
    if isinstance(values, range):
        return values.index(value)
    for place, other in enumerate(values):
        # True is 1 to Python, and both may be choices.
        if other == value and isinstance(other, bool) == isinstance(value, bool):
            return place
    raise ValueError(value)
