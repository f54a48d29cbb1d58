"""What a sweep found, laid out on two of its axes: values in, a table of the best values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ntrader.charts import heatmap
from ntrader.config import canonical_json
from ntrader.sweeps.axes import is_number
from ntrader.sweeps.points import Point

# Of more than so many values of an axis the neighbouring ones share a cell.
_MOST_CELLS: Final = 24


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis and its cells' labels; `place` has for each value the number of its cell."""

    name: str
    labels: tuple[str, ...]
    place: dict[Any, int]


def picture(results: Sequence[tuple[Point, float]], objective: str, direction: str) -> str | None:
    """A heatmap, as SVG, over the two axes that take the most values: in each cell the best result, whatever the other
    axes had. None where nothing varies, or nothing has a result."""
    axes = _axes([point for point, _ in results])
    if not axes:
        return None
    across, down = axes[0], axes[1] if len(axes) > 1 else _Axis("", ("",), {None: 0})
    best = max if direction == "maximize" else min
    cells: list[list[float | None]] = [[None] * len(across.labels) for _ in down.labels]
    for point, value in results:
        settings = _settings(point)
        row = cells[down.place[settings.get(down.name)]]
        column = across.place[settings[across.name]]
        former = row[column]
        row[column] = value if former is None else best(former, value)
    title = f"{objective}: the best of each cell" if len(axes) > 2 else objective
    labelled = (across.name, across.labels), (down.name, down.labels)
    return heatmap(title, *labelled, cells, less_is_better=direction == "minimize")


def _settings(point: Point) -> dict[str, Any]:
    others = {"symbol": point.symbol, "timeframe": point.timeframe, "period": point.period and str(point.period)}
    settings = {**{name: value for name, value in others.items() if value is not None}, **point.values}
    return {name: canonical_json(it) if isinstance(it, list | dict) else it for name, it in settings.items()}


def _axes(points: Sequence[Point]) -> list[_Axis]:
    """Those along which something varies, the one with the most values first."""
    values: dict[str, dict[Any, None]] = {}
    for point in points:
        for name, value in _settings(point).items():
            values.setdefault(name, {})[value] = None
    varied = {name: list(found) for name, found in values.items() if len(found) > 1}
    return [_axis(name, found) for name, found in sorted(varied.items(), key=lambda item: -len(item[1]))]


def _axis(name: str, values: list[Any]) -> _Axis:
    ordered = sorted(values) if all(is_number(value) for value in values) else values
    if len(ordered) <= _MOST_CELLS:
        return _Axis(name, tuple(map(_label, ordered)), {value: number for number, value in enumerate(ordered)})
    place = {value: number * _MOST_CELLS // len(ordered) for number, value in enumerate(ordered)}
    firsts = {number: value for value, number in reversed(place.items())}
    return _Axis(name, tuple(f"{_label(firsts[number])}.." for number in range(_MOST_CELLS)), place)


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
