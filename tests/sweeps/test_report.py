"""The page: looked at in a browser, with and without WebGL; whatever a sweep holds, texts stay texts."""

from __future__ import annotations

import html
import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from ntrader.sweeps.analysis import Analysis
from ntrader.sweeps.axes import as_axis
from ntrader.sweeps.charts import MOST_LINES, tick_format
from ntrader.sweeps.config import SweepConfig
from ntrader.sweeps.points import Point
from ntrader.sweeps.report import Facts, Style, TopRun, axis_text, noise_lines, plateau_lines, sweep_page
from ntrader.sweeps.report_data import report_document
from tests import browser
from tests.sweeps.searched import analysis_of, build, searched

EVIL = "</script><b>x</b><script>document.title='hacked'</script>"
EVIL_IMAGE = "<img src=x onerror=document.title='hacked'>"
STYLE = Style(
    lambda _, value: f"{value:,.2f}" if abs(value) < 1e6 else f"{value:.3g}", lambda seconds: f"{seconds:.1f} s",
    frozenset({"total_return", "max_drawdown", "volatility"}),
)  # fmt: skip
ODD: dict[str, Any] = {
    EVIL: [EVIL, EVIL_IMAGE, None, True, "%{x} %{text} {0}", "long" * 60, 1.5],
    "n<i>": [1, 2, 3],
    "f": [0.1, 0.2, 0.4],
}


def page_of(
    sweep: SweepConfig, objective: Callable[[Point], float | None], observations: int | None = 1259, **facts: Any
) -> tuple[Facts, Analysis, str]:
    outcomes = searched(sweep, objective, observations)
    analysis = analysis_of(sweep, objective, 20, observations)
    failed = Counter(str(one.reason) for one in outcomes if one.state == "failed")
    known: dict[str, Any] = {
        "id": 7, "name": sweep.name, "config": sweep, "strategy_name": "SMA Crossover", "state": "finished",
        "sampler_version": None,
        "planned": len(outcomes), "success": len(outcomes) - failed.total(), "linked": 2, "failed": failed,
        "seconds": 12.0, "verified": True, "best_linked": False,
        "created_at": datetime(2026, 1, 2, tzinfo=UTC), "finished_at": None,
    }  # fmt: skip
    made = Facts(**known | facts)
    return made, analysis, sweep_page(made, analysis, runs_of(analysis), STYLE)


def runs_of(analysis: Analysis) -> dict[int, TopRun]:
    metrics = {"sharpe_ratio": 1.5, "total_return": None, "max_drawdown": -0.2, "total_trades": 7}
    return {one.number: TopRun(UUID(int=one.number << 96), metrics) for one in analysis.top}


def text_of(page: str) -> str:
    """What one reads, on one line."""
    bare = re.sub(r"<script.*?</script>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", bare)))


def uneven(point: Point) -> float | None:
    draws = random.Random(point.number)
    return None if draws.random() < 0.2 else draws.gauss(0.2, 0.4)


# In a browser


@pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("webgl", [True, False], ids=["webgl", "no webgl"])
def test_a_browser_draws_every_chart_and_runs_nobodys_script(tmp_path: Path, webgl: bool) -> None:
    """One sweep that has it all: three axes, texts that are programs, failures, a name like an attack."""
    file = tmp_path / "page.html"
    file.write_text(page_of(build(ODD, name=EVIL), uneven)[2])
    errors: list[object] = []

    with browser.browser_page(
        900, 600, arguments=["--disable-gpu", *([] if webgl else ["--disable-software-rasterizer"])]
    ) as page:
        # A method of a list is none that playwright can mark as its own.
        page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108
        page.set_default_timeout(90_000)  # WebGL without a graphics card, on a busy machine
        page.goto(file.as_uri())
        page.locator("#distribution .point").first.wait_for(state="attached")

        assert page.title() == f"Sweep 7: {EVIL}"
        assert page.locator("main :is(b, i, img)").count() == 0
        assert page.locator("#heatmap .heatmaplayer image").count() == 2
        assert page.locator("#importance .point").count() == 3
        assert page.locator("#distribution .point").count() >= 8
        assert bool(page.locator("#parallel .parcoords").count()) is webgl
        assert (page.locator("#parallel .js-line").count() > 5) is not webgl
        assert page.locator("#brush").is_visible() is webgl
        # What is drawn is as wide as its place, and no wider than the page.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert (
            str(page.locator("#parallel").text_content()).count(EVIL[:27]) == 2
        )  # the title and a tick, not escaped twice

        titles = page.locator("#heatmap .xtitle, #heatmap .ytitle")
        shown = titles.all_text_contents()
        page.locator("#pair").select_option(index=2)
        assert titles.all_text_contents() != shown
        assert page.locator("#heatmap .heatmaplayer image").count() == 2
    assert errors == []


# The text


def test_nothing_comes_from_elsewhere() -> None:
    page = page_of(build(ODD, name=EVIL), uneven)[2]

    outside = re.sub(r"<script>.*?</script>", "<script>", page, flags=re.DOTALL)
    assert re.findall(r"<(?:link|img|iframe|b>|script [^>]*src)|https?:|url\(|@import", outside) == []
    assert "plotly.js v" in page


def test_the_head_says_what_was_searched_and_what_came_of_it() -> None:
    sweep = build({"n": {"range": [5, 50, 5]}, "u": {"log_uniform": [0.001, 1]}}, 40, seed=3, symbols=["A", "B"],
                  constraints=["n < 45"], name="first try")  # fmt: skip
    text = text_of(
        page_of(sweep, uneven, failed={"timeout": 1, "exception": 2}, success=37, sampler_version="optuna 5")[2]
    )

    for words in (
        "Sweep 7: first try", "SMA Crossover · A, B · 2026-01-02 00:00 UTC", "Objective Sharpe ratio, maximize",
        "Sampler random (optuna 5)", "Seed 3", "Trials 40 of 40", "Linked to earlier runs 2",
        "Failed 3 (2 exception, 1 timeout)", "Time 12.0 s", "Best verified identical when run by itself",
        "symbol A, B", "n 5 to 50 by 5 (10 values)", "u 0.001 to 1, even in the logarithm", "Only where n < 45.",
        "pure noise", "neighbours of the best trial (nearest,", "Sharpe ratio over two axes", "All axes",
        "Distribution of Sharpe ratio", "whoever was long earned something",
    ):  # fmt: skip
        assert words in text


def test_a_run_is_named_by_the_command_that_shows_it() -> None:
    _, analysis, page = page_of(build({"n": [1, 2, 3]}), lambda point: float(point.number))
    commands = re.findall(r"<code class=copy>(.*?)</code>", page)
    assert commands == [f"ntrader history show 0000000{one.number}" for one in analysis.top]


def test_an_unfinished_sweep_says_so() -> None:
    text = text_of(page_of(build({"n": [1, 2, 3]}), lambda _: 1.0, state="interrupted", planned=10, verified=None)[2])
    assert "The sweep is interrupted: 3 of 10 trials are done." in text
    assert "Best verified no" in text


@pytest.mark.parametrize(
    ("verified", "best_linked", "words"),
    [(None, True, "not again, it was there before"), (False, False, "DIFFERENT"), (None, None, "no ")],
)
def test_what_came_of_running_the_best_trial_again(verified: bool | None, best_linked: bool | None, words: str) -> None:
    made = page_of(build({"n": [1, 2, 3]}), lambda _: 1.0, verified=verified, best_linked=best_linked)
    assert f"Best verified {words}" in text_of(made[2])


LINE = {"a": {"range": [1, 9, 1]}}
MANY = [f"S{number}" for number in range(50)]
ODD_SWEEPS: dict[str, tuple[SweepConfig, Any, list[str], list[str]]] = {
    "one": (
        build({"a": [1]}), lambda _: 1.0, ["One trial alone", "no neighbours", "One trial has 1.00"],
        ["All axes", "Importance"],
    ),
    "none": (
        build({"a": [1, 2]}), lambda _: None, ["No trial has a value", "2 of the trials"], ["The best", "Distribution"],
    ),
    "equal": (
        build({"a": [1, 2], "b": [3, 4]}), lambda _: 0.5, ["All trials have 0.50", "too few to tell"], ["All axes"],
    ),
    "one axis": (build(LINE), lambda p: p.number / 9, ["Sharpe ratio along a"], ["two axes", "Importance"]),
    "texts": (build({"a": ["x", None, True]}), lambda p: float(p.number), ["Sharpe ratio along a"], ["two axes"]),
    "huge": (
        build(LINE | {"b": [1, 2]}, objective="profit_factor"), lambda p: 1e300 if p.number == 5 else p.number,
        ["also hold 1 value", "Profit factor over"], ["pure noise"],
    ),
    "minimize": (
        build(ODD, 30, objective="volatility"), lambda p: 0.1 + p.number / 1e4, ["Volatility, minimize"],
        ["pure noise"],
    ),
    "symbols": (build({"n": [1, 2]}, symbols=MANY), lambda p: -1e-9 * p.number, ["and 38 more", "50 symbols"], []),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_SWEEPS)
def test_odd_sweeps_have_a_page(kind: str) -> None:
    sweep, objective, there, missing = ODD_SWEEPS[kind]
    text = text_of(page_of(sweep, objective)[2])
    assert [words for words in there if words not in text] == []
    assert [words for words in missing if words in text] == []


def test_of_many_trials_some_are_drawn_and_the_page_says_so() -> None:
    page = page_of(
        build({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, MOST_LINES + 1), lambda p: p.values["a"]
    )[2]
    assert f"Of {MOST_LINES + 1:,} trials {MOST_LINES:,} are drawn: the best 300, others at random." in text_of(page)
    assert len(page) < 6_000_000


def test_it_repeats() -> None:
    sweep = build(ODD, 60)
    assert page_of(sweep, uneven)[2] == page_of(sweep, uneven)[2]


def test_what_is_said_of_noise() -> None:
    """Of ten trials over 1,000 days the best of noise has the root of 252/999 times 1.57 (exactly 1.5388)."""

    def said(best: float, observations: int = 1000, **section: Any) -> str:
        built = build({"n": {"range": [1, 10, 1]}}, **section)
        return " ".join(noise_lines(analysis_of(built, lambda p: best if p.number == 3 else 0.0, 5, observations), str))

    assert said(1.2).startswith("The best Sharpe ratio, 1.2, is above 0.79")
    assert said(0.5).startswith("The best Sharpe ratio, 0.5, is not above 0.79")
    assert said(0.5).endswith("Luck alone would explain it.")
    assert "(1,000 daily returns each)" in said(1.2)
    assert "is below -0.79" in said(-1.2, direction="minimize")
    assert said(1.2, objective="sortino_ratio") == ""


def test_what_is_said_of_neighbours() -> None:
    def said(function: Callable[[Point], float | None], *sweep: Any) -> str:
        facts, analysis, _ = page_of(build(*sweep), function)
        return " ".join(plateau_lines(facts, analysis, str))

    line = {"n": {"range": [1, 9, 1]}}
    # 0 0.1 0.2 0.6 0.7 0.8 2 9: quartiles 0.175 and 1.1.
    assert said(lambda p: {4: 9.0, 3: 2.0, 5: None}.get(p.number, p.number / 10), line) == (
        "The 2 neighbours of the best trial (one step away) have a mean of 2.0; 1 of them has no value. That is worse"
        " by 7.57 of the interquartile range of all trials: a lonely peak."
    )
    assert said(lambda p: 1.0 if p.number == 8 else None, line) == (
        "The 1 neighbour of the best trial (one step away) has no value."
    )


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ({"int_uniform": [5, 120]}, "5 to 120 (116 values)"),
        ({"range": [50, 5, -5]}, "50 to 5 by -5 (10 values)"),
        ({"uniform": [0.5, 3]}, "0.5 to 3, even"),
        (["a", None, True, 0.1], "a, none, true, 0.1"),
        (
            [0.1 * number**2 for number in range(15)],
            "0, 0.1, 0.4, 0.9, 1.6, 2.5, 3.6, 4.9, 6.4, 8.1, 10, 12.1 and 3 more",
        ),
    ],
    ids=str,
)
def test_an_axis_in_words(written: Any, text: str) -> None:
    assert axis_text(as_axis(written)) == text


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([0.0, 2.5], False, ",.2~f"),
        ([0.10, 0.14], True, ",.2~%"),
        ([1e5, 3e5], False, ",.0~f"),
        ([1e300], False, ".3~e"),
        ([1.0, 1.0], False, ",.2~f"),
        ([1e-7, 2e-7], False, ".3~e"),
        ([0.0], False, ",.2~f"),
    ],
    ids=str,
)
def test_digits_that_tell_the_values_apart(values: list[float], fraction: bool, expected: str) -> None:
    assert tick_format(np.array(values), fraction=fraction) == expected


# As numbers


def test_the_numbers_are_those_of_the_page() -> None:
    sweep = build(ODD, name=EVIL, symbols=["A", "B"], periods=[{"start": "2010-01-01"}, {"end": "2012-01-01"}])
    facts, analysis, _ = page_of(sweep, uneven)
    document = report_document(facts, analysis, runs_of(analysis))

    assert document["trials"] == {
        "planned": facts.planned, "done": facts.done, "success": facts.success, "linked": 2,
        "failed": {"exception": facts.failed["exception"]}, "defined": analysis.defined,
    }  # fmt: skip
    assert document["sweep"]["search"]["params"][EVIL] == {"values": ODD[EVIL]}
    best = document["top"][0]
    assert best["value"] == max(one.value for one in searched(sweep, uneven) if one.value is not None)
    assert set(best["axes"]) == {"symbol", "period", *ODD}
    assert best["axes"]["period"] in {"2010-01-01..", "..2012-01-01"}
    assert len(document["heatmaps"]) == 10
    assert sum(map(sum, document["heatmaps"][0]["count"])) == analysis.defined
    assert document["noise"]["expected_best"] > 0
