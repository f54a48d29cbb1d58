"""An axis of a search space: the values that one parameter may take.

As people write it, in a sweep's file under `params` or on the command line, and as one value for one meaning: a range
and the list of its numbers are equal axes.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

from ntrader.config import canonical_json, require_plain
from ntrader.errors import ConfigError
from ntrader.yaml_file import parse_value

# Beyond it neighbouring whole numbers are the same float, and samplers compute in floats.
_LARGEST_WHOLE: Final = 2**53
_MOST_VALUES: Final = 1_000_000
_EXAMPLE = "write it like [10, 20, 50], {range: [5, 50, 5]}, {uniform: [0.5, 3.0]} or {values: [...]}"


@dataclass(frozen=True, slots=True)
class Choices:
    """One of finitely many values, in the order in which a grid takes them; no two are equal.

    Evenly spaced whole numbers are a `range` whichever way they were written, so that equal axes compare equal and
    {int_uniform: [1, 1_000_000_000]} takes no room; everything else is a tuple.
    """

    values: Sequence[Any]

    @property
    def size(self) -> int:
        return len(self.values)

    @property
    def ordered(self) -> bool:
        """Whether all values are numbers, so that a sampler may take near ones for similar."""
        return isinstance(self.values, range) or all(is_number(value) for value in self.values)

    def canonical(self) -> dict[str, Any]:
        values = self.values
        if isinstance(values, range):
            return {"range": [values[0], values[-1], values.step]}
        return {"values": list(values)}


@dataclass(frozen=True, slots=True)
class Interval:
    """Any float from `low` to `high`, both included, each equally likely; with `log` their logarithms are."""

    low: float
    high: float
    log: bool = False

    def canonical(self) -> dict[str, Any]:
        return {"log_uniform" if self.log else "uniform": [self.low, self.high]}


Axis = Choices | Interval


def as_axis(written: object) -> Axis:
    """An axis from what a sweep's file says: a mapping with one of range, values, uniform, log_uniform and
    int_uniform, a list (short for values) or a single value. An axis is itself.

    Raises ValueError where it holds nothing, too much, a value twice or what is not finite.
    """
    if isinstance(written, Choices | Interval):
        return written
    if written is None:
        raise ValueError(f"has no values; {_EXAMPLE}")
    if not isinstance(written, dict):
        return choices(written if isinstance(written, list | tuple) else [written])
    if len(written) != 1:
        raise ValueError(f"has the keys {', '.join(map(str, written)) or 'none'} where one is wanted; {_EXAMPLE}")
    ((kind, value),) = written.items()
    if kind not in _KINDS:
        near = difflib.get_close_matches(str(kind), _KINDS, n=1)
        raise ValueError(
            f"unknown kind of axis {kind!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(_KINDS)}")
        )
    return _KINDS[kind](value)


def choices(values: object) -> Choices:
    """The values of a list. Where one of the numbers is a float all are: [0.5, 1] is [0.5, 1.0]."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"values must be a list, got {reprlib.repr(values)}")
    if not values:
        raise ValueError("the list of values is empty")
    for value in values:
        _require_storable(value)
    if any(isinstance(value, float) for value in values):
        # Adding 0.0 turns -0.0 into 0.0.
        values = [float(value) + 0.0 if is_number(value) else value for value in values]
    seen: set[str] = set()
    for value in values:
        text = canonical_json(value)
        if text in seen:
            raise ValueError(f"has {reprlib.repr(value)} twice")
        seen.add(text)
    return Choices(_evenly_spaced(values) or tuple(values))


def parse_param(text: str) -> tuple[str, Axis]:
    """A parameter and its axis as the command line has them: `fast_period=5:50:5` (a range), `slow_period=50,100`
    (values, as YAML reads them) or `risk_percent=0.5..3.0` (uniform; between whole numbers, whole numbers).

    Raises ConfigError.
    """
    name, equals, written = (part.strip() for part in text.partition("="))
    hint = "Write it like fast_period=5:50:5, slow_period=50,100,200 or risk_percent=0.5..3.0."
    if not name or not equals:
        raise ConfigError(f"{reprlib.repr(text)} does not say which values a parameter takes", hint=hint)
    try:
        return name, _spelled(written)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}", hint=hint) from None


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spelled(written: str) -> Axis:
    ends = _numbers(written.split(".."))
    if len(ends) == 2:
        return _whole(ends) if all(isinstance(end, int) for end in ends) else _uniform(ends)
    steps = _numbers(written.split(":"))
    if len(steps) == 3:
        return _range(steps)
    listed = parse_value(f"[{written}]")
    if not isinstance(listed, list):
        raise ValueError(f"{reprlib.repr(written)} is not a list of values")
    return choices(listed)


def _numbers(parts: list[str]) -> list[Any]:
    """What the parts say, where each of them is a number."""
    values = [parse_value(part) for part in parts]
    return values if all(is_number(value) for value in values) else []


def _range(bounds: object) -> Choices:
    """[start, end, step], the end included where a step lands on it; floats as the decimals they are written in."""
    start, end, step = _bounds(bounds, "range", "[start, end, step]")
    if step == 0:
        raise ValueError("the step of a range must not be 0")
    exact = [Fraction(repr(number)) for number in (start, end, step)]
    steps = (exact[1] - exact[0]) // exact[2]
    if steps < 0:
        raise ValueError(f"range [{start}, {end}, {step}] holds nothing")
    if all(isinstance(number, int) for number in (start, end, step)):
        return _whole_range(start, step, steps)
    if steps >= _MOST_VALUES:
        raise ValueError(f"range [{start}, {end}, {step}] holds {steps + 1:,} values; use uniform")
    return choices([float(exact[0] + number * exact[2]) for number in range(steps + 1)])


def _uniform(bounds: object) -> Interval:
    low, high = _bounds(bounds, "uniform", "[low, high]")
    return _interval(float(low), float(high), log=False)


def _log_uniform(bounds: object) -> Interval:
    low, high = _bounds(bounds, "log_uniform", "[low, high]")
    if low <= 0:
        raise ValueError(f"log_uniform needs a low end above 0, got {low}")
    return _interval(float(low), float(high), log=True)


def _interval(low: float, high: float, *, log: bool) -> Interval:
    if low >= high:
        raise ValueError(f"{'log_uniform' if log else 'uniform'} [{low}, {high}] holds nothing; low must be below high")
    return Interval(low + 0.0, high + 0.0, log)


def _whole(bounds: object) -> Choices:
    low, high = _bounds(bounds, "int_uniform", "[low, high]")
    if not isinstance(low, int) or not isinstance(high, int):
        raise ValueError(f"int_uniform needs whole numbers, got [{low}, {high}]")
    if low > high:
        raise ValueError(f"int_uniform [{low}, {high}] holds nothing")
    return _whole_range(low, 1, high - low)


_KINDS: dict[str, Callable[[object], Axis]] = {
    "range": _range,
    "values": choices,
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "int_uniform": _whole,
}


def _whole_range(start: int, step: int, steps: int) -> Choices:
    """A single number is the same axis whatever step it was written with."""
    return Choices(range(start, start + steps * step + (1 if step > 0 else -1), step) if steps else (start,))


def _evenly_spaced(values: Sequence[Any]) -> range | None:
    if len(values) < 2 or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return None
    step = values[1] - values[0]
    if any(after - before != step for before, after in pairwise(values)):
        return None
    return range(values[0], values[-1] + (1 if step > 0 else -1), step)


def _bounds(written: object, kind: str, form: str) -> list[Any]:
    wanted = form.count(",") + 1
    if not isinstance(written, list | tuple) or len(written) != wanted or not all(is_number(n) for n in written):
        raise ValueError(f"{kind} wants {wanted} numbers, {form}, got {reprlib.repr(written)}")
    for number in written:
        _require_storable(number)
    return list(written)


def _require_storable(value: object) -> None:
    require_plain("a value", value)
    if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
        raise ValueError(f"{reprlib.repr(value)} is beyond 2**53, the largest whole number a sampler can tell apart")
