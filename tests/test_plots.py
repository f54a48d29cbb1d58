"""The page: one file, nothing from elsewhere, and texts that stay texts."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np

from ntrader.comparison_report import CAUSE, PERFORMANCE, Section
from ntrader.paired import DailySeries, daily_series
from ntrader.plots import PlottedRun, comparison_page
from ntrader.results import EquityCurve
from tests.factories import DAY, START

SECTIONS = [
    Section(PERFORMANCE, (("Metric", "left"), ("a", "right")), (("Total return", "*5.00%"), ("Trades", "7"))),
    Section(CAUSE, notes=("x < y",)),
]
EVIL = "<img src=x onerror=alert(1)> & 数"


def series(equity: list[float], first_day: int = 0) -> DailySeries:
    times = START + DAY * np.arange(first_day + 1, first_day + len(equity) + 1, dtype=np.int64)
    return daily_series(100.0, EquityCurve(times, np.array(equity)))


def page(*runs: PlottedRun, baseline: int = 0) -> str:
    return comparison_page("Comparison", [run.label for run in runs] or ["a"], SECTIONS, runs, baseline, ["beware <i>"])


def figures(text: str) -> dict[str, list[dict[str, Any]]]:
    """The traces of each chart by its id, as plotly.js is given them."""
    calls = re.findall(r'Plotly\.newPlot\(\s*"(\w+)",\s*(\[.*?\]),\s*\{"', text, re.DOTALL)
    return {key: json.loads(data) for key, data in calls}


def values(column: Any) -> list[float]:
    if isinstance(column, list):
        return column
    return np.frombuffer(base64.b64decode(column["bdata"]), dtype=column["dtype"]).tolist()  # type: ignore[no-any-return]


def test_charts_hold_the_series() -> None:
    text = page(PlottedRun("one", 0, series([110.0, 99.0])), PlottedRun("two", 1, series([100.0, 120.0, 90.0])))

    found = figures(text)

    assert list(found) == ["equity", "drawdown", "returns"]
    assert [trace["name"] for trace in found["equity"]] == ["one", "two"]
    assert values(found["equity"][0]["y"]) == [1.0, 1.1, 0.99]
    np.testing.assert_allclose(values(found["drawdown"][1]["y"]), [0, 0, 0, -0.25], atol=1e-15)
    milliseconds = values(found["equity"][0]["x"])
    assert [round((x * 1_000_000 - START) / DAY, 3) for x in milliseconds] == [0, 1, 2]
    (points,) = found["returns"]
    np.testing.assert_allclose(values(points["x"]), [0.1, -0.1], rtol=1e-14)
    np.testing.assert_allclose(values(points["y"]), [0.0, 0.2], rtol=1e-14)


def test_returns_are_paired_with_the_baseline_only() -> None:
    runs = [PlottedRun(label, number, series([100.0, 101.0])) for number, label in enumerate("abc")]

    assert [trace["name"] for trace in figures(page(*runs, baseline=1))["returns"]] == ["a", "c"]
    assert list(figures(page(*runs, baseline=7))) == ["equity", "drawdown"]
    assert list(figures(page(runs[0]))) == ["equity", "drawdown"]
    apart = PlottedRun("late", 1, series([100.0], first_day=50))
    assert list(figures(page(runs[0], apart))) == ["equity", "drawdown"]
    assert figures(page()) == {}


def test_nothing_comes_from_elsewhere() -> None:
    text = page(PlottedRun("one", 0, series([110.0])), PlottedRun("two", 1, series([100.0])))

    outside = re.sub(r"<script[^>]*>.*?</script>", "<script>", text, flags=re.DOTALL)
    assert re.findall(r"<(?:link|img|iframe|script [^>]*src)|https?:|url\(|@import", outside) == []
    assert text.count("<script") < 10
    assert "plotly.js v" in text
    assert '<meta charset="utf-8">' in text


def test_texts_stay_texts() -> None:
    evil = Section(EVIL, ((EVIL, "left"), (EVIL, "right")), ((EVIL, EVIL),), (EVIL,))
    run = PlottedRun(EVIL, 0, series([110.0, 99.0]))

    text = comparison_page(EVIL, [EVIL], [evil], [run], 0, [EVIL])

    assert "<img" not in re.sub(r"<script[^>]*>/\*.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert figures(text)["equity"][0]["name"] == "&lt;img src=x onerror=alert(1)&gt; &amp; 数"


def test_it_repeats() -> None:
    runs = [PlottedRun("one", 0, series([110.0])), PlottedRun("two", 1, series([100.0]))]

    assert page(*runs) == page(*runs)


def test_the_best_is_marked() -> None:
    assert '<td class="right best">*5.00%</td>' in page()
    assert '<td class="right">7</td>' in page()
    assert "beware &lt;i&gt;" in page()
