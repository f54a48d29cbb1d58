"""The axes of a sweep as they were tried: of each the values that trials had, and where on it each trial lies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ntrader.comparison import value_text
from ntrader.config import canonical_json
from ntrader.results import Floats
from ntrader.sweeps.axes import Axis, Choices, Interval, is_number
from ntrader.sweeps.points import Dimension, Point

Codes = NDArray[np.int64]

# Longer texts are cut off in charts.
_LONGEST_TEXT: Final = 28


@dataclass(frozen=True, slots=True, eq=False)
class TriedAxis:
    """An axis of which trials had more than one value. Arrays have one entry a trial.

    Of finitely many values `levels` are those that were tried, numbers ascending and others in the order in which the
    sweep lists them, and `codes` say which of them a trial has; both are None where the axis is an interval.
    Where all values are numbers `numbers` holds them, and `scaled` where they lie between the ends of the axis, from 0
    to 1: in an interval by their size (or its logarithm), in a list by their place in it. Both are None elsewhere.
    """

    name: str
    levels: tuple[Any, ...] | None
    codes: Codes | None
    numbers: Floats | None
    scaled: Floats | None
    axis: Axis

    @property
    def ordered(self) -> bool:
        """Whether there is a near and a far on it."""
        return self.scaled is not None

    @property
    def texts(self) -> tuple[str, ...]:
        """The levels, to read."""
        return tuple(level_text(level) for level in self.levels or ())

    def at(self, trial: int) -> Any:
        """The value of a trial, by its place in the arrays."""
        if self.levels is not None and self.codes is not None:
            return self.levels[self.codes[trial]]
        assert self.numbers is not None
        return float(self.numbers[trial])

    def number_at(self, share: float) -> float:
        """What lies at a share of the way through an interval or a range."""
        axis = self.axis
        low, high = (axis.low, axis.high) if isinstance(axis, Interval) else sorted((axis.values[0], axis.values[-1]))
        if isinstance(axis, Interval) and axis.log:
            return math.exp(math.log(low) * (1 - share) + math.log(high) * share)
        return float(low * (1 - share) + high * share)


def tried_axes(dimensions: Iterable[Dimension], points: Sequence[Point]) -> tuple[TriedAxis, ...]:
    """Those on which the points differ, in the order of the dimensions."""
    listed = list(dimensions)
    taken = {dimension.name for dimension in listed if dimension.kind == "parameter"}
    found = []
    for dimension in listed:
        # A parameter may be called period, too.
        name = f"test {dimension.name}" if dimension.kind != "parameter" and dimension.name in taken else dimension.name
        values = [value_at(dimension, point) for point in points]
        tried = (_finite if isinstance(dimension.axis, Choices) else _continuous)(name, dimension.axis, values)
        if tried is not None:
            found.append(tried)
    return tuple(found)


def value_at(dimension: Dimension, point: Point) -> Any:
    return point.values[dimension.name] if dimension.kind == "parameter" else getattr(point, dimension.name)


def level_text(value: Any) -> str:
    """A value of an axis to read: six digits of a float, a long text cut off."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value_text(value) if value is None or isinstance(value, str | bool | int | list | dict) else str(value)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def short_text(number: float) -> str:
    """Three digits of a number, or all in front of the point."""
    return f"{number:,.0f}" if 1_000 <= abs(number) < 1_000_000 else f"{number:.3g}"


def _continuous(name: str, axis: Axis, values: Sequence[Any]) -> TriedAxis | None:
    assert isinstance(axis, Interval)
    numbers = np.array(values, dtype=np.float64)
    if len(numbers) == 0 or numbers.min() == numbers.max():
        return None
    low, high, along = (math.log(axis.low), math.log(axis.high), np.log(numbers)) if axis.log else (
        axis.low, axis.high, numbers)  # fmt: skip
    # Halved, for the distance between the largest numbers is none.
    return TriedAxis(name, None, None, numbers, (along / 2 - low / 2) / (high / 2 - low / 2), axis)


def _finite(name: str, axis: Axis, values: Sequence[Any]) -> TriedAxis | None:
    assert isinstance(axis, Choices)
    keys = [_key(value) for value in values]
    by_key = dict(zip(keys, values, strict=True))
    if len(by_key) <= 1:
        return None
    places = {key: place for place, key in enumerate(_in_order(axis, by_key))}
    codes = np.array([places[key] for key in keys], dtype=np.int64)
    levels = tuple(by_key[key] for key in places)
    if not axis.ordered:
        return TriedAxis(name, levels, codes, None, None, axis)
    numbers = np.array(levels, dtype=np.float64)
    return TriedAxis(name, levels, codes, numbers[codes], _along(axis, numbers)[codes], axis)


def _in_order(axis: Choices, keys: Iterable[Any]) -> list[Any]:
    if axis.ordered:
        return sorted(keys)
    known = {_key(value): place for place, value in enumerate(axis.values)}
    return sorted(keys, key=lambda key: known.get(key, len(known)))


def _along(axis: Choices, numbers: Floats) -> Floats:
    """A range is even: its ends are enough, however many numbers lie between them."""
    if isinstance(axis.values, range):
        low, high = sorted((axis.values[0], axis.values[-1]))
        return (numbers - low) / (high - low)
    ascending = np.array(sorted(axis.values), dtype=np.float64)
    return np.searchsorted(ascending, numbers) / (len(ascending) - 1)


def _key(value: Any) -> Any:
    """Equal for equal values: True is not 1, and a large float comes back from JSON as a whole number."""
    if is_number(value):
        return float(value)
    return str(value) if not isinstance(value, str | bool | list | dict | None) else canonical_json(value)
