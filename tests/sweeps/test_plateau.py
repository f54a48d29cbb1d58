"""Plateau scores by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ntrader.sweeps.plateau import Plateau, mean
from ntrader.sweeps.points import Point, points
from tests.sweeps.searched import analysis_of, build


def around(best: dict[str, Any], function: Callable[[Point], float | None], *sweep: Any, **section: Any) -> Plateau:
    """Of the trial with these values."""
    built = build(*sweep, **section)
    found = analysis_of(built, function, top=1_000)
    (place,) = [one.number for one in points(built) if {**one.values, **_rest(one)} == best]
    return next(one.plateau for one in found.top if one.number == place)


def _rest(point: Point) -> dict[str, Any]:
    return {"symbol": point.symbol} if point.symbol else {}


# a down, b across:   10  20  40
TABLE = {
    1: {10: 1.0, 20: 2.0, 40: 3.0},
    2: {10: 4.0, 20: 9.0, 40: 5.0},
    3: {10: 6.0, 20: 7.0, 40: None},
}
GRID = {"a": [1, 2, 3], "b": [10, 20, 40]}
# Of 1, 2, 3, 4, 5, 6, 7, 9 the middle half spans 2.75 to 6.25.
SPREAD = 3.5


def table(point: Point) -> float | None:
    return TABLE[point.values["a"]][point.values["b"]]


def test_inside_a_grid_four_neighbours_one_step_away() -> None:
    assert around({"a": 2, "b": 20}, table, GRID) == Plateau(
        mean=(2 + 4 + 5 + 7) / 4, ratio=4.5 / 9, shortfall=pytest.approx((9 - 4.5) / SPREAD), neighbours=4, undefined=0,
        reach=None,
    )  # fmt: skip


def test_at_a_corner_two() -> None:
    found = around({"a": 1, "b": 10}, table, GRID)
    assert (found.mean, found.ratio, found.neighbours) == (3.0, 3.0, 2)
    assert found.shortfall == pytest.approx(-2 / SPREAD)
    assert found.lonely is False


def test_a_neighbour_without_a_value_is_counted_and_left_out() -> None:
    found = around({"a": 3, "b": 20}, table, GRID)
    assert (found.mean, found.neighbours, found.undefined) == (7.5, 3, 1)


def test_less_may_be_better() -> None:
    """The same table upside down, and 20 added to it: the same shortfall."""

    def upside_down(point: Point) -> float | None:
        value = table(point)
        return None if value is None else 20 - value

    found = around({"a": 2, "b": 20}, upside_down, GRID, objective="volatility")
    assert found.shortfall == pytest.approx((9 - 4.5) / SPREAD)
    assert found.ratio == pytest.approx(15.5 / 11)


def test_of_negative_values_there_is_no_ratio_but_a_shortfall() -> None:
    found = around({"a": 2, "b": 20}, lambda point: (table(point) or -90.0) - 100, GRID)
    assert found.mean == -95.5
    assert found.ratio is None
    assert found.shortfall is not None
    assert found.shortfall > 0


def test_what_a_constraint_leaves_out_is_no_neighbour() -> None:
    found = around({"a": 2, "b": 20}, table, GRID, constraints=["a != 3 or b != 20"])
    assert (found.mean, found.neighbours) == (pytest.approx(11 / 3), 3)


def test_of_a_grid_that_was_cut_short_what_was_tried() -> None:
    """The first four points: (1, 10), (1, 20), (1, 40), (2, 10)."""
    found = around({"a": 1, "b": 10}, table, GRID, budget={"trials": 4})
    assert (found.mean, found.neighbours) == (3.0, 2)


def test_symbols_and_texts_have_no_near_and_far() -> None:
    def objective(point: Point) -> float:
        return point.values["n"] + (100.0 if point.symbol == "B" else 0.0) + (1_000.0 if point.values["k"] else 0.0)

    found = around(
        {"n": 2, "k": True, "symbol": "B"}, objective, {"n": [1, 2, 5], "k": [False, True]}, symbols=["A", "B"]
    )
    assert (found.mean, found.neighbours) == (1103.0, 2)


def test_of_a_sweep_over_symbols_alone_there_is_none() -> None:
    found = around({"symbol": "A"}, lambda point: float(point.symbol == "A"), {}, symbols=["A", "B", "C"])
    assert found == Plateau(None, None, None, 0, 0, None)


def test_a_lonely_peak_is_recognised_and_a_hill_is_not() -> None:
    axes = {"a": {"range": [0, 10, 1]}, "b": {"range": [0, 10, 1]}}

    def hill(point: Point) -> float:
        return -float((point.values["a"] - 5) ** 2 + (point.values["b"] - 5) ** 2)

    def needle(point: Point) -> float:
        noise = (point.values["a"] * 7 + point.values["b"] * 3) % 5 / 10
        return 5.0 if (point.values["a"], point.values["b"]) == (5, 5) else noise

    assert around({"a": 5, "b": 5}, hill, axes).lonely is False
    assert around({"a": 5, "b": 5}, needle, axes).lonely is True


def test_of_points_drawn_at_random_the_nearest() -> None:
    """By brute force: as many as there are inside a grid, two an axis."""
    axes = {"a": {"uniform": [0, 10]}, "b": {"log_uniform": [0.01, 100]}, "k": ["x", "y"]}
    sweep = build(axes, 60)
    found = analysis_of(sweep, lambda point: point.values["a"], top=60)
    everyone = list(points(sweep))

    for one in found.top:
        own = everyone[one.number]
        others = [point for point in everyone if point is not own and point.values["k"] == own.values["k"]]
        near = sorted(others, key=lambda other: _distance(own, other))[:4]
        assert one.plateau.neighbours == 4
        assert one.plateau.mean == pytest.approx(np.mean([point.values["a"] for point in near]))
        assert one.plateau.reach == pytest.approx(_distance(own, near[-1]))


def _distance(one: Point, other: Point) -> float:
    along = (one.values["a"] - other.values["a"]) / 10
    up = np.log10(one.values["b"] / other.values["b"]) / 4
    return float(np.hypot(along, up))


def test_of_few_points_all_others() -> None:
    found = analysis_of(build({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, 3), lambda point: 1.0)
    assert [one.plateau.neighbours for one in found.top] == [2, 2, 2]
    assert [one.plateau.shortfall for one in found.top] == [None] * 3


def test_a_mean_of_the_largest_numbers() -> None:
    assert mean(np.array([1.5e308, 1.7e308])) == pytest.approx(1.6e308)
    assert mean(np.array([])) is None
    assert mean(np.array([0.0, -0.0])) == 0
