"""The points of a search space, in the order of their trials, and the RunConfig of each.

The space of a sweep is walked like an odometer whose wheels are symbols, timeframes, periods and then the parameters by
name: the last turns fastest, so that trials on the same bars follow one another, and neither the order of keys in a
file nor what a database makes of it changes a trial's number.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Context
from itertools import count, islice, takewhile
from typing import Any, Final, Literal

from ntrader.config import RunConfig, build_config, canonical_json
from ntrader.errors import ConfigError
from ntrader.sweeps.axes import Axis, Choices, Interval
from ntrader.sweeps.config import LARGEST_GRID, Period, SweepConfig, grid_size
from ntrader.sweeps.constraints import Constraint, parse_constraint, require_known

# Of so many points at least one must fulfil the constraints, or drawing them at random is no way to find any.
RAREST: Final = 10_000
_LARGEST_WHOLE: Final = 2**53
_DECIMAL = Context(prec=30)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a search space: the trial of this number lays it over the base run. None is the base's own."""

    number: int
    values: dict[str, Any] = field(default_factory=dict)
    symbol: str | None = None
    timeframe: str | None = None
    period: Period | None = None

    def snapshot(self) -> dict[str, Any]:
        """The point as plain JSON data, which `read_point` reads again."""
        period = self.period.model_dump(mode="json") if self.period else None
        rest = {"symbol": self.symbol, "timeframe": self.timeframe, "period": period}
        return {"number": self.number, "values": self.values, **{k: v for k, v in rest.items() if v is not None}}

    @property
    def place(self) -> str:
        """Where in the space it is: points of different numbers and the same place are the same backtest."""
        return canonical_json({**self.snapshot(), "number": None})


def read_point(snapshot: dict[str, Any]) -> Point:
    period = snapshot.get("period")
    return Point(**{**snapshot, "period": Period.model_validate(period) if period else None})


@dataclass(frozen=True, slots=True)
class Planned:
    """A point and the run key of its trial: what is reserved, and looked for in the history."""

    point: Point
    run_key: str


@dataclass(frozen=True, slots=True)
class Dimension:
    """An axis with what it varies; `name` is the parameter's, or that of the field of a Point."""

    kind: Literal["symbol", "timeframe", "period", "parameter"]
    name: str
    axis: Axis


@dataclass(frozen=True, slots=True)
class Space:
    """A search space: its axes, the slowest first, its constraints and the names that do not vary."""

    axes: tuple[Dimension, ...]
    constraints: tuple[Constraint, ...]
    fixed: dict[str, Any]
    size: int | None

    def point(self, number: int, chosen: Sequence[Any]) -> Point:
        """The point with one chosen value an axis."""
        pairs = list(zip(self.axes, chosen, strict=True))
        values = {axis.name: value for axis, value in pairs if axis.kind == "parameter"}
        others = {axis.name: value for axis, value in pairs if axis.kind != "parameter"}
        return Point(number, values, **others)

    def at(self, index: int) -> list[Any]:
        """The chosen values at a place of the grid, counted from 0; finite spaces only."""
        chosen = []
        for dimension in reversed(self.axes):
            assert isinstance(dimension.axis, Choices)
            index, place = divmod(index, dimension.axis.size)
            chosen.append(dimension.axis.values[place])
        return chosen[::-1]

    def fits(self, point: Point) -> bool:
        """Whether the point fulfils the constraints. Raises ConfigError where one cannot be worked out."""
        if not self.constraints:
            return True
        values = {**self.fixed, **point.values, **({"symbol": point.symbol} if point.symbol else {})}
        return all(constraint.holds(values) for constraint in self.constraints)


def space_of(sweep: SweepConfig) -> Space:
    given: tuple[tuple[Literal["symbol", "timeframe", "period"], tuple[Any, ...]], ...] = (
        ("symbol", sweep.symbols),
        ("timeframe", sweep.timeframes),
        ("period", sweep.periods),
    )
    others = [Dimension(kind, kind, Choices(values)) for kind, values in given if values]
    parameters = [Dimension("parameter", name, axis) for name, axis in sorted(sweep.params.items())]
    fixed = {**sweep.base.strategy.parameters, "symbol": sweep.base.data.symbol}
    constraints = tuple(parse_constraint(text) for text in sweep.constraints)
    return Space((*others, *parameters), constraints, fixed, grid_size(sweep))


def check_sweep(sweep: SweepConfig, known: Collection[str]) -> None:
    """Refuse before anything runs what cannot be searched. `known` are the names of the strategy's parameters; the base
    should have them all written out, so that constraints may use those that do not vary.

    Raises ConfigError for an unknown parameter, an unknown name in a constraint, and where no point that fulfils the
    constraints is to be found.
    """
    for name in sweep.params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
            raise ConfigError(f"sweep.params: the strategy has no parameter {name!r}", hint=hint)
    usable = {*sweep.params, *sweep.base.strategy.parameters, "symbol"}
    for text in sweep.constraints:
        constraint = parse_constraint(text)
        require_known(constraint, usable | {*known})
        for name in sorted(constraint.names - usable):
            raise ConfigError(
                f"constraint {constraint.text!r} uses {name!r}, which has no value here",
                hint=f"Give {name} a value under parameters.",
            )
    first = next(points(sweep), None)
    if first is None:
        raise ConfigError(
            f"none of the {grid_size(sweep) or 0:,} points fulfils {' and '.join(sweep.constraints)}",
            hint="Widen an axis or relax a constraint.",
        )
    trial_config(sweep.base, first)


def points(sweep: SweepConfig) -> Iterator[Point]:
    """The points of a grid or random sweep, in the order of their numbers. A tpe sweep's depend on results: of these,
    the ones that it begins with."""
    return grid(sweep) if sweep.sampler == "grid" else random_points(sweep)


def grid(sweep: SweepConfig) -> Iterator[Point]:
    """Every point that fulfils the constraints, the last axis turning fastest, numbered from 0; of a budget of N trials
    the first N.

    Raises ConfigError where a million points in a row do not fulfil the constraints.
    """
    space = space_of(sweep)
    return islice(_fitting(space, _in_order(space), LARGEST_GRID), sweep.budget.trials)


def random_points(sweep: SweepConfig) -> Iterator[Point]:
    """Points drawn evenly from the space until the budget of trials is used up or, of a finite space, every point has
    been drawn; none twice. The same seed gives the same points on every machine and in every Python: of `random.Random`
    only what its documentation promises to keep is used, seeding by a whole number and `random()`.

    Raises ConfigError where 10,000 points in a row do not fulfil the constraints.
    """
    return islice(draw(space_of(sweep), sweep.seed), sweep.budget.trials)


def draw(space: Space, seed: int) -> Iterator[Point]:
    """As `random_points`, without a budget."""
    return _fitting(space, _at_random(space, random.Random(seed)), RAREST)


def trial_config(base: RunConfig, point: Point) -> RunConfig:
    """The base run with the point laid over it. Raises ConfigError where a value does not fit."""
    raw = base.snapshot()
    raw["strategy"]["parameters"].update(point.values)
    if point.symbol is not None:
        raw["data"]["symbol"] = point.symbol
    if point.timeframe is not None:
        raw["data"]["timeframe"] = point.timeframe
    if point.period is not None:
        raw["data"].update(start=point.period.start, end=point.period.end)
    return build_config(raw, origin=f"trial {point.number}")


def _fitting(space: Space, candidates: Iterator[list[Any]], patience: int) -> Iterator[Point]:
    """The candidates that fulfil the constraints, numbered."""
    number, misses = 0, 0
    for chosen in candidates:
        point = space.point(number, chosen)
        if space.fits(point):
            yield point
            number, misses = number + 1, 0
            continue
        misses += 1
        if misses == patience:
            texts = " and ".join(constraint.text for constraint in space.constraints)
            raise ConfigError(
                f"of {patience:,} points in a row, after {number:,} that do, none fulfils {texts}",
                hint="Narrow the axes to where the constraints hold.",
            )


def _in_order(space: Space) -> Iterator[list[Any]]:
    """By `count`, for the size may be beyond what `range` can be asked the length of."""
    size = space.size or 0
    return (space.at(index) for index in takewhile(lambda index: index < size, count()))


def _at_random(space: Space, numbers: random.Random) -> Iterator[list[Any]]:
    if space.size is not None and space.size <= _LARGEST_WHOLE:
        return (space.at(index) for index in _shuffled(space.size, numbers))
    return _independent(space, numbers)


def _shuffled(size: int, numbers: random.Random) -> Iterator[int]:
    """0 to size - 1 in random order: Fisher and Yates' shuffle, of which only what was moved is kept."""
    moved: dict[int, int] = {}
    for place in range(size):
        other = place + _below(size - place, numbers)
        found = moved.get(other, other)
        moved[other] = moved.pop(place, place)
        yield found


def _independent(space: Space, numbers: random.Random) -> Iterator[list[Any]]:
    """Of a space too large to be counted, or continuous: one value an axis, by itself."""
    seen = set()
    while True:
        chosen = [_value(dimension.axis, numbers) for dimension in space.axes]
        place = space.point(0, chosen).place
        if place not in seen:
            seen.add(place)
            yield chosen


def _value(axis: Axis, numbers: random.Random) -> Any:
    if isinstance(axis, Choices):
        return axis.values[_below(axis.size, numbers)]
    return _between(axis, numbers.random())


def _below(size: int, numbers: random.Random) -> int:
    # The product may round up to size.
    return min(int(numbers.random() * size), size - 1)


def _between(axis: Interval, share: float) -> float:
    """Logarithms in decimal arithmetic, which rounds alike everywhere; the C library's differ in the last bit."""
    if not axis.log:
        return min(max(axis.low * (1 - share) + axis.high * share, axis.low), axis.high)
    low, high, part = (_DECIMAL.create_decimal(number) for number in (axis.low, axis.high, share))
    low, high = low.ln(_DECIMAL), high.ln(_DECIMAL)
    exponent = _DECIMAL.add(low, _DECIMAL.multiply(part, _DECIMAL.subtract(high, low)))
    return min(max(float(exponent.exp(_DECIMAL)), axis.low), axis.high)
