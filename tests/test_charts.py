"""Pictures: well-formed, with the extremes in them whatever is left out, and small however long the run."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ntrader.charts import data_uri, equity_chart, heatmap
from ntrader.results import EquityCurve

DAY = 86_400 * 10**9


def curve(*equity: float, step: int = DAY) -> EquityCurve:
    return EquityCurve(10**18 + step * np.arange(len(equity), dtype=np.int64), np.array(equity, dtype=np.float64))


def drawn(svg: str) -> ET.Element:
    """Raises where it is not XML."""
    return ET.fromstring(svg)


def line_points(svg: str) -> list[tuple[int, int]]:
    """Of the equity: the first path that is a stroke in relative steps."""
    path = next(found for found in re.findall(r'<path d="(M[^"]*)"', svg) if "l" in found and "Z" not in found)
    start, *steps = path.split("l")
    x, y = map(int, start.removeprefix("M").split())
    points = [(x, y)]
    for step in steps:
        dx, dy = map(int, step.split())
        x, y = x + dx, y + dy
        points.append((x, y))
    return points


def test_the_line_follows_the_equity() -> None:
    points = line_points(equity_chart("A", "USD", 100, curve(110, 90, 130)))

    heights = [-y for _, y in points]
    assert len(points) == 4
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert np.argsort(heights).tolist() == [2, 0, 1, 3]
    # As far apart as the money is: 100, 110, 90 and 130.
    assert np.diff(heights) / (heights[3] - heights[2]) * 40 == pytest.approx([10, -20, 40], abs=0.3)


def test_a_long_run_is_small_and_keeps_its_extremes() -> None:
    equity = np.full(200_000, 1_000.0)
    equity[70_003], equity[130_001] = 5_000, 200
    svg = equity_chart("A", "USD", 1_000, curve(*equity, step=60 * 10**9))

    heights = [-y for _, y in line_points(svg)]
    assert len(svg) < 20_000
    highest, lowest = int(np.argmax(heights)), int(np.argmin(heights))
    assert highest < lowest
    assert (max(heights) - heights[0]) / (heights[0] - min(heights)) == pytest.approx(4_000 / 800, rel=0.01)


@pytest.mark.parametrize("equity", [(100.0,), (100.0, 100.0), (0.0, -50.0), (1e12, 1e12 + 1)], ids=str)
def test_odd_runs_are_drawn_too(equity: tuple[float, ...]) -> None:
    root = drawn(equity_chart('<b> & "quoted" ü', "USD", 100, curve(*equity)))

    assert root[0].text == '<b> & "quoted" ü'
    assert "nan" not in ET.tostring(root, encoding="unicode")


def test_a_map_shows_each_value_in_its_cell() -> None:
    svg = heatmap("sharpe", ("fast", ["5", "10"]), ("slow", ["50", "100"]), [[0.5, None], [-1.25, 2.0]])

    texts = [found.text for found in drawn(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text in {"0.5", "-1.25", "2"}] == ["0.5", "-1.25", "2"]
    assert len(drawn(svg).findall("{http://www.w3.org/2000/svg}rect")) == 1 + 3


def test_the_better_is_the_bluer() -> None:
    cells = [[1.0, 3.0]]
    more, less = (
        re.findall(r'<rect x[^>]*fill="(#\w+)"', heatmap("x", ("a", ["1", "2"]), ("", [""]), cells, less_is_better=it))
        for it in (False, True)
    )

    assert more == less[::-1]
    assert int(more[1][5:], 16) > int(more[0][5:], 16)


def test_as_a_uri_it_is_the_picture() -> None:
    kind, _, data = data_uri("<svg>ü</svg>").partition(",")

    assert kind == "data:image/svg+xml;base64"
    assert base64.b64decode(data).decode() == "<svg>ü</svg>"
