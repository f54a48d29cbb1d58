"""The map of a sweep: the two axes with the most values, and in each cell the best of what lies there."""

from __future__ import annotations

import re
from typing import Any

from ntrader.sweeps.points import Point
from ntrader.sweeps.surface import picture


def texts(svg: str | None) -> list[str]:
    assert svg is not None
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def results(*found: tuple[dict[str, Any], float]) -> list[tuple[Point, float]]:
    return [(Point(number, values), value) for number, (values, value) in enumerate(found)]


def test_a_cell_has_the_best_of_the_other_axes() -> None:
    grid = [
        ({"fast": fast, "slow": slow, "stop": stop}, fast + slow + stop)
        for fast in (1, 2, 3, 4)
        for slow in (10, 20, 30)
        for stop in (0.1, 0.2)
    ]

    highest = texts(picture(results(*grid), "sharpe_ratio", "maximize"))
    lowest = texts(picture(results(*grid), "volatility", "minimize"))

    assert highest[:3] == ["sharpe_ratio: the best of each cell", "fast →", "slow ↓"]
    assert {"11.2", "34.2"} <= set(highest)
    assert "11.1" not in highest
    assert {"11.1", "34.1"} <= set(lowest)


def test_one_axis_is_a_row_and_nothing_varied_is_nothing() -> None:
    row = texts(picture(results(({"fast": 1}, 0.5), ({"fast": 2}, 0.75)), "cagr", "maximize"))

    assert {"0.5", "0.75"} <= set(row)
    assert picture(results(({"fast": 1}, 0.5)), "cagr", "maximize") is None
    assert picture([], "cagr", "maximize") is None


def test_many_values_share_cells() -> None:
    many = results(*(({"risk": number / 1_000, "kind": [number % 2]}, float(number)) for number in range(1_000)))

    drawn = texts(picture(many, "cagr", "maximize"))

    assert sum(text.endswith("..") for text in drawn) <= 24
    assert {"[0]", "[1]"} <= set(drawn)


def test_symbols_are_an_axis_too() -> None:
    points = [(Point(0, {}, symbol="AAPL"), 1.0), (Point(1, {}, symbol="MSFT"), 2.0)]

    assert {"AAPL", "MSFT"} <= set(texts(picture(points, "cagr", "maximize")))
