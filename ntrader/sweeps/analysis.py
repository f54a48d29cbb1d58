"""What the trials of a sweep come to: which axes matter, where the good points lie, and what luck alone would give.

Plain values and arrays in, frozen values out. An objective that is not defined (a failed trial, one without a trade) is
NaN in arrays and None elsewhere; it stands in no mean and in no rank.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ntrader.noise import expected_best_of_unequal
from ntrader.results import Floats
from ntrader.sweeps.axes import Choices, Interval
from ntrader.sweeps.outcomes import Outcome
from ntrader.sweeps.plateau import Direction, Plateau, plateaus, scale_of
from ntrader.sweeps.points import Dimension
from ntrader.sweeps.tried import Codes, TriedAxis, short_text, tried_axes

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NOISE_OBJECTIVE: Final = "sharpe_ratio"
# With fewer, Optuna's estimate of what matters is a guess.
FEWEST_FOR_IMPORTANCE: Final = 15
# Of more trials than this so many are drawn: it takes no longer then, and changes little.
MOST_FOR_IMPORTANCE: Final = 3_000
# What is more than all of them gave is by chance in one case of twenty.
SHUFFLES: Final = 19
# The best tenth, but never fewer than five trials.
_BEST_SHARE: Final = 0.1
_BEST_TRIALS: Final = 5
# A grid's axis with more numbers is cut into intervals.
_MOST_LEVELS: Final = 40
_BINS: Final = (4, 5, 6, 8, 10, 12, 16, 20)
_SEED: Final = 20_130_501


@dataclass(frozen=True, slots=True)
class Noise:
    """What as many trials of pure noise would show. `observations` says how many trials have how many daily returns,
    `expected_best` is the annualised Sharpe ratio to be expected of the best of them (of the lowest where less is
    better), `above` whether the best trial of the sweep is better than that."""

    trials: int
    observations: dict[int, int]
    annualization: int
    expected_best: float
    above: bool


@dataclass(frozen=True, slots=True)
class Importance:
    """Shares that add up to 1, by axis, the largest first, and the share that each can have by `chance`. `best` trials
    of the `trials` were told from the others."""

    shares: dict[str, float]
    chance: dict[str, float]
    trials: int
    best: int


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """An axis cut into the cells of a heatmap: `texts` name them, `edges` (one more) are the numbers that bound them,
    None where cells are single values or places in a list."""

    name: str
    texts: tuple[str, ...]
    edges: tuple[float, ...] | None
    codes: Codes


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """The objective over two axes, whatever the others are: `average`, `best` and `count` (of trials with an objective)
    have a row for each cell of `y` and a column for each of `x`, NaN where there is no objective. `undefined` counts
    trials without."""

    x: Cells
    y: Cells
    average: Floats
    best: Floats
    count: Codes
    undefined: Codes


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between `edges`, of which there is one more. The outermost also hold `below` and `above` values that lie
    beyond them, far from all others."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """One of the best trials; `place` is where it stands in the arrays."""

    place: int
    number: int
    value: float
    plateau: Plateau


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Of the trials that are done. `values` are their objective in the order of `numbers`, NaN where it is not
    defined."""

    objective: str
    direction: Direction
    numbers: Codes
    values: Floats
    axes: tuple[TriedAxis, ...]
    top: tuple[Ranked, ...]
    noise: Noise | None
    importance: Importance | None
    heatmaps: tuple[Heatmap, ...]
    histogram: Histogram | None

    @property
    def defined(self) -> int:
        """How many trials have an objective."""
        return int((~np.isnan(self.values)).sum())

    @property
    def best(self) -> Ranked | None:
        return self.top[0] if self.top else None


def analyse(
    outcomes: Iterable[Outcome],
    dimensions: Sequence[Dimension],
    *,
    objective: str,
    direction: Direction,
    grid: bool,
    annualization: int,
    top: int,
) -> Analysis:
    """`dimensions` are those of the sweep's space, `grid` says whether its points are all of them in order, `top` how
    many of the best trials are wanted."""
    done = [outcome for outcome in outcomes if outcome.done]
    values = np.array([np.nan if one.value is None else one.value for one in done], dtype=np.float64)
    numbers = np.array([one.number for one in done], dtype=np.int64)
    axes = tried_axes(dimensions, [one.point for one in done])
    best = ranked(values, direction)[:top].tolist()
    scores = plateaus(axes, values, best, direction=direction, grid=grid)
    return Analysis(
        objective, direction, numbers, values, axes,
        tuple(Ranked(at, int(numbers[at]), float(values[at]), score) for at, score in zip(best, scores, strict=True)),
        noise_of(done, annualization, direction) if objective == NOISE_OBJECTIVE else None,
        importance(axes, values, direction),
        tuple(heatmap(*pair, values, direction, grid=grid) for pair in combinations(axes, 2)),
        histogram(values),
    )  # fmt: skip


def ranked(values: Floats, direction: Direction) -> Codes:
    """Places of the defined values, the best first; of equal ones the earlier."""
    known = np.flatnonzero(~np.isnan(values))
    return known[np.argsort(-_sign(direction) * values[known], kind="stable")]


def noise_of(outcomes: Iterable[Outcome], annualization: int, direction: Direction) -> Noise | None:
    """Of the trials that have a Sharpe ratio; None without one."""
    found = [
        (one.observations, one.value) for one in outcomes if one.value is not None and (one.observations or 0) >= 2
    ]
    counts = Counter(observations for observations, _ in found if observations is not None)
    expected = expected_best_of_unequal(counts, annualization)
    if expected is None:
        return None
    sign = _sign(direction)
    above = max(sign * value for _, value in found) > expected
    return Noise(len(found), dict(sorted(counts.items())), annualization, sign * expected, above)


# Importance


def importance(axes: Sequence[TriedAxis], values: Floats, direction: Direction) -> Importance | None:
    """How much each axis, taken by itself, decides whether a trial is among the best: PED-ANOVA (Watanabe, Bansal and
    Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces", IJCAI 2023), as
    Optuna has it. It holds where the best tenth of the trials (at least five) lie on an axis against where all trials
    lie: an axis on which both are spread alike has no share. It goes by ranks: outliers weigh no more than others.

    Shares add up to 1 whether or not anything matters, so each comes with what chance can do: the most that the axis
    got in 19 shuffles of the objective among the trials.

    None with fewer than two axes or 15 trials, and where the best cannot be told from the others.
    """
    known = np.flatnonzero(~np.isnan(values))
    if len(axes) < 2 or len(known) < FEWEST_FOR_IMPORTANCE:
        return None
    draws = np.random.default_rng(_SEED)
    if len(known) > MOST_FOR_IMPORTANCE:
        known = np.sort(draws.choice(known, MOST_FOR_IMPORTANCE, replace=False))
    share = max(_BEST_SHARE, _BEST_TRIALS / len(known))
    losses = -_sign(direction) * values[known]
    best = _among_the_best(losses, share)
    if best == len(known):
        return None
    orders = [losses, *(draws.permutation(losses) for _ in range(SHUFFLES))]
    found, *shuffled = _by_optuna(axes, known.tolist(), orders, share)
    total = sum(found)
    if not total > 0:
        return None
    ordered = sorted(range(len(axes)), key=lambda number: -found[number])
    return Importance(
        {axes[number].name: found[number] / total for number in ordered},
        {axes[number].name: max(other[number] for other in shuffled) / total for number in ordered},
        len(known), best,
    )  # fmt: skip


def _among_the_best(losses: Floats, share: float) -> int:
    """As many as Optuna takes for the best: all that equal the last of them count too."""
    ascending = np.sort(losses)
    return int((ascending <= ascending[int(np.ceil(share * len(losses))) - 1]).sum())


def _by_optuna(
    axes: Sequence[TriedAxis], trials: Sequence[int], orders: Sequence[Floats], share: float
) -> list[list[float]]:
    """Of each of the `orders`, objectives of which less is better, what Optuna finds for each axis: not yet shares."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import FrozenTrial, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = [str(number) for number in range(len(axes))]
    kinds = {name: _distribution(axis) for name, axis in zip(names, axes, strict=True)}
    study = optuna.create_study()
    study.add_trials(
        create_trial(
            value=0.0, distributions=kinds,
            params={name: _suggested(axis, at) for name, axis in zip(names, axes, strict=True)},
        )
        for at in trials
    )  # fmt: skip
    evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
    rows = []
    for losses in orders:

        def loss(trial: FrozenTrial, losses: Floats = losses) -> float:
            return float(losses[trial.number])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=evaluator, target=loss, normalize=False)
        rows.append([float(found[name]) for name in names])
    return rows


def _distribution(axis: TriedAxis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.levels is None:
        return FloatDistribution(0.0, 1.0)
    last = len(axis.levels) - 1
    return IntDistribution(0, last) if axis.ordered else CategoricalDistribution(range(last + 1))


def _suggested(axis: TriedAxis, at: int) -> Any:
    if axis.codes is not None:
        return int(axis.codes[at])
    assert axis.scaled is not None
    return min(max(float(axis.scaled[at]), 0.0), 1.0)


# Heatmaps


def heatmap(x: TriedAxis, y: TriedAxis, values: Floats, direction: Direction, *, grid: bool) -> Heatmap:
    """Mean and best of the trials that fall into each cell."""
    across, up = cells(x, len(values), grid=grid), cells(y, len(values), grid=grid)
    shape = len(up.texts), len(across.texts)
    place = up.codes * shape[1] + across.codes
    known = ~np.isnan(values)
    size = shape[0] * shape[1]
    count = np.bincount(place[known], minlength=size)
    best = np.full(size, np.nan)
    (np.fmax if direction == "maximize" else np.fmin).at(best, place[known], values[known])
    return Heatmap(
        across, up, _means(place[known], values[known], count).reshape(shape), best.reshape(shape),
        count.reshape(shape), np.bincount(place[~known], minlength=size).reshape(shape),
    )  # fmt: skip


def cells(axis: TriedAxis, trials: int, *, grid: bool) -> Cells:
    """The values that were tried, each by itself; of an interval, and where there are too many numbers for the trials,
    equal parts of the axis."""
    bins = max((bins for bins in _BINS if 2 * bins**2 <= trials), default=_BINS[0])
    few = axis.levels is not None and len(axis.levels) <= (_MOST_LEVELS if grid else bins)
    if axis.codes is not None and (few or axis.scaled is None):
        return Cells(axis.name, axis.texts, None, axis.codes)
    assert axis.scaled is not None
    codes = np.clip((axis.scaled * bins).astype(np.int64), 0, bins - 1)
    if isinstance(axis.axis, Interval) or (isinstance(axis.axis, Choices) and isinstance(axis.axis.values, range)):
        edges = tuple(axis.number_at(number / bins) for number in range(bins + 1))
        texts = tuple(f"{short_text(low)} to {short_text(high)}" for low, high in pairwise(edges))
        return Cells(axis.name, texts, edges, codes)
    return _listed(axis, codes)


def _listed(axis: TriedAxis, codes: Codes) -> Cells:
    """Parts of a list of numbers, named by the first and last in them that were tried; empty ones are left out."""
    assert axis.numbers is not None
    used, places = np.unique(codes, return_inverse=True)
    within = [axis.numbers[codes == code] for code in used]
    texts = tuple(f"{short_text(part.min())} to {short_text(part.max())}" for part in within)
    return Cells(axis.name, texts, None, places)


def _means(places: Codes, values: Floats, count: Codes) -> Floats:
    """Scaled before they are added up: the sum of the largest numbers is none."""
    scale = scale_of(values)
    sums = np.bincount(places, weights=values / scale, minlength=len(count))
    with np.errstate(invalid="ignore"):
        found: Floats = sums / count * scale
    return found


# Distribution


def histogram(values: Floats) -> Histogram | None:
    """As many bins as numpy finds fit for the bulk of the values, 8 to 60; None of nothing or of equal values."""
    known = values[~np.isnan(values)]
    low, high = bulk(known)
    if not low < high:
        return None
    within = known[(known >= low) & (known <= high)]
    bins = min(max(len(np.histogram_bin_edges(within / max(abs(low), abs(high)), "auto")) - 1, 8), 60)
    part = np.linspace(0, 1, bins + 1)
    edges = low * (1 - part) + high * part
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    below, above = int((known < edges[0]).sum()), int((known > edges[-1]).sum())
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()), below, above)


def bulk(values: Floats) -> tuple[float, float]:
    """From the lowest to the highest value, without those farther than three interquartile ranges from the middle half
    (Tukey's outer fences), so that one outlier does not make all others look alike. (0, 0) of nothing."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return 0.0, 0.0
    scaled = known / scale_of(known)
    lower, upper = np.quantile(scaled, [0.25, 0.75])
    margin = 3 * (upper - lower) or np.inf
    within = known[(scaled >= lower - margin) & (scaled <= upper + margin)]
    return float(within.min()), float(within.max())


def _sign(direction: Direction) -> int:
    return 1 if direction == "maximize" else -1
