"""What trials come to, against pandas, planted objectives and cases by hand."""

from __future__ import annotations

from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from ntrader.noise import expected_best_sharpe
from ntrader.sweeps.analysis import (
    FEWEST_FOR_IMPORTANCE,
    MOST_FOR_IMPORTANCE,
    Heatmap,
    bulk,
    histogram,
    noise_of,
    ranked,
)
from ntrader.sweeps.outcomes import Outcome
from ntrader.sweeps.points import Point, points
from ntrader.sweeps.tried import level_text
from tests.sweeps.searched import analysis_of, build, searched

PARAMS: dict[str, Any] = {"fast": {"range": [5, 30, 5]}, "slow": [200, 40, 80], "kind": ["b", None, True]}


def uneven(point: Point) -> float | None:
    """Neither smooth nor defined everywhere."""
    values = point.values
    if values["fast"] == 10 and values["slow"] == 40:
        return None
    return float(np.sin(values["fast"] * 1.7 + values["slow"]) + (values["kind"] is True) - 2 * (point.symbol == "B"))


# Heatmaps


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_heatmaps_are_what_pandas_makes_of_the_trials(direction: str) -> None:
    sweep = build(PARAMS, symbols=["B", "A"], direction=direction)
    found = analysis_of(sweep, uneven)
    frame = pd.DataFrame(
        {**{name: level_text(value) for name, value in point.values.items()}, "symbol": point.symbol,
         "value": uneven(point)}
        for point in points(sweep)
    )  # fmt: skip
    frame["value"] = frame["value"].astype(float)

    pairs = [(one.x.name, one.y.name) for one in found.heatmaps]
    assert pairs == list(combinations(["symbol", "fast", "kind", "slow"], 2))
    for one in found.heatmaps:
        best = "max" if direction == "maximize" else "min"
        np.testing.assert_allclose(one.average, pivot(frame, one, "mean"), rtol=1e-13)
        np.testing.assert_allclose(one.best, pivot(frame, one, best), rtol=0)
        np.testing.assert_array_equal(one.count, pivot(frame, one, "count"))
        assert one.count.sum() + one.undefined.sum() == len(frame)


def pivot(frame: pd.DataFrame, one: Heatmap, how: str) -> np.ndarray[Any, Any]:
    table = frame.pivot_table("value", index=one.y.name, columns=one.x.name, aggfunc=cast("Any", how), dropna=False)
    return table.reindex(index=list(one.y.texts), columns=list(one.x.texts)).to_numpy()


def test_intervals_are_cut_into_equal_parts_as_pandas_cuts_them() -> None:
    sweep = build({"a": {"uniform": [0.5, 3]}, "b": {"log_uniform": [0.001, 1]}, "n": {"range": [1, 500, 1]}}, 800)
    found = analysis_of(sweep, lambda point: point.values["a"] * point.values["n"])
    frame = pd.DataFrame(point.values for point in points(sweep)).assign(value=lambda f: f["a"] * f["n"])
    edges = {"a": np.linspace(0.5, 3, 21), "b": np.logspace(-3, 0, 21), "n": np.linspace(1, 500, 21)}

    for one in found.heatmaps:
        across, up = (
            pd.cut(frame[cells.name], edges[cells.name], labels=False, right=False).fillna(19)
            for cells in (one.x, one.y)
        )
        expected = frame.groupby([up, across])["value"].mean().unstack().reindex(range(20))
        np.testing.assert_allclose(one.average, expected.reindex(columns=range(20)), rtol=1e-12)
        assert one.x.edges == pytest.approx(edges[one.x.name])
        assert len(one.x.texts) == 20


def test_the_fewer_the_trials_the_larger_the_parts() -> None:
    axes = {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}
    sizes = [
        len(analysis_of(build(axes, trials), lambda _: 1.0).heatmaps[0].x.texts) for trials in (2, 32, 64, 300, 3000)
    ]
    assert sizes == [4, 4, 5, 12, 20]


def test_many_numbers_of_a_list_are_cut_too_and_empty_parts_left_out() -> None:
    squares = [number**2 for number in range(60)]
    found = analysis_of(build({"s": squares, "t": [1, 2]}), lambda point: float(point.values["s"]))

    (one,) = found.heatmaps
    assert one.x.edges is None
    assert one.x.texts[0] == "0 to 81"
    assert one.x.texts[-1] == "2,500 to 3,481"
    assert one.count.sum() == 120


def test_texts_are_never_cut() -> None:
    found = analysis_of(build({"s": [f"s{number}" for number in range(70)], "t": [1, 2]}), lambda _: 1.0)
    assert len(found.heatmaps[0].x.texts) == 70


# Importance


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_what_was_planted_comes_out_in_its_order(direction: str, sampler: str) -> None:
    axes: dict[str, Any] = {"weak": {"range": [0, 7, 1]}, "strong": {"range": [0, 7, 1]}, "none": {"range": [0, 7, 1]}}
    if sampler == "random":
        axes = {name: {"uniform": [0, 7]} for name in axes}
    sign = 1 if direction == "maximize" else -1

    def objective(point: Point) -> float:
        return sign * (5 * point.values["strong"] + 2 * point.values["weak"])

    sweep = build(axes, None if sampler == "grid" else 512, direction=direction)
    found = analysis_of(sweep, objective).importance

    assert found is not None
    assert list(found.shares) == ["strong", "weak", "none"]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["strong"] > found.chance["strong"]
    assert found.shares["weak"] > found.chance["weak"]
    assert found.shares["none"] <= found.chance["none"]


def test_texts_and_symbols_can_matter() -> None:
    found = analysis_of(
        build({"kind": ["a", None, True], "n": {"range": [1, 9, 1]}}, symbols=["A", "B"]),
        lambda point: 10.0 * (point.values["kind"] is None) + (point.symbol == "B"),
    ).importance
    assert found is not None
    assert list(found.shares) == ["kind", "symbol", "n"]


def test_of_what_does_not_matter_nothing_is_more_than_chance() -> None:
    draws = np.random.default_rng(3)
    exceeded = 0
    for _ in range(6):
        values = draws.normal(size=120).tolist()
        found = analysis_of(
            build({name: {"uniform": [0, 1]} for name in "abc"}, 120), lambda point, v=values: v[point.number]
        ).importance
        assert found is not None
        exceeded += sum(found.shares[name] > found.chance[name] for name in "abc")
    # Of 18 comparisons one in twenty is expected to: more than 4 would happen once in 200 times.
    assert exceeded <= 4


def test_many_trials_are_drawn_from() -> None:
    found = analysis_of(build({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, 4_000), lambda p: p.values["a"])
    assert found.importance is not None
    assert found.importance.trials == MOST_FOR_IMPORTANCE
    assert next(iter(found.importance.shares)) == "a"


@pytest.mark.parametrize(
    ("params", "trials", "objective"),
    [
        ({"a": {"range": [1, 50, 1]}}, None, lambda point: float(point.number)),
        (
            {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}},
            FEWEST_FOR_IMPORTANCE - 1,
            lambda point: point.values["a"],
        ),
        ({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, 50, lambda _: 1.0),
        ({"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}}, 50, lambda _: None),
    ],
    ids=["one axis", "too few", "all equal", "all failed"],
)
def test_where_it_cannot_be_told_there_is_none(params: dict[str, Any], trials: int | None, objective: Any) -> None:
    assert analysis_of(build(params, trials), objective).importance is None


# Distribution, rank, noise


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(1).normal(size=2_000)
    found = histogram(values)
    assert found is not None
    counts, _ = np.histogram(values, found.edges)
    assert list(found.counts) == counts.tolist()
    assert sum(found.counts) == 2_000
    assert (found.below, found.above) == (0, 0)


def test_outliers_stand_in_the_outermost_bars() -> None:
    found = histogram(np.array([*np.linspace(0, 1, 50), 1e300, -1e300, np.nan]))
    assert found is not None
    assert (found.edges[0], found.edges[-1]) == (0, 1)
    assert (found.below, found.above, sum(found.counts)) == (1, 1, 52)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [np.nan]], ids=str)
def test_of_equal_values_there_is_no_histogram(values: list[float]) -> None:
    assert histogram(np.array(values, dtype=float)) is None


def test_the_bulk_is_within_the_outer_fences_of_tukey() -> None:
    """Quartiles of 0 to 8 are 2 and 6: the fences lie at -10 and 18."""
    assert bulk(np.array([*range(9)], dtype=float)) == (0, 8)
    values = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 1000], dtype=float)
    lower, upper = np.quantile(values, [0.25, 0.75])
    assert upper + 3 * (upper - lower) < 1000
    assert bulk(values) == (0, 8)
    assert bulk(np.array([5.0] * 9 + [99.0])) == (5, 99)  # there is no middle half to go by
    assert bulk(np.array([])) == (0, 0)


def test_of_equal_trials_the_earlier_comes_first() -> None:
    values = np.array([1.0, np.nan, 3.0, 3.0, -1.0])
    assert ranked(values, "maximize").tolist() == [2, 3, 0, 4]
    assert ranked(values, "minimize").tolist() == [4, 0, 2, 3]


def test_noise_goes_by_the_trials_that_have_a_sharpe_ratio() -> None:
    sweep = build({"n": {"range": [1, 10, 1]}})
    found = noise_of(
        searched(sweep, lambda point: None if point.number < 3 else 0.1 * point.number, 501), 252, "maximize"
    )
    assert found is not None
    assert (found.trials, found.observations, found.annualization) == (7, {501: 7}, 252)
    assert found.expected_best == expected_best_sharpe(7, 501, 252)
    assert found.above is (found.expected_best < 0.9)


def test_where_less_is_better_noise_is_below() -> None:
    sweep = build({"n": {"range": [1, 10, 1]}})
    found = noise_of(searched(sweep, lambda point: -5.0 if point.number == 4 else 0.0, 501), 252, "minimize")
    assert found is not None
    assert found.expected_best == -(expected_best_sharpe(10, 501, 252) or 0)
    assert found.above


def test_without_returns_there_is_no_noise() -> None:
    sweep = build({"n": {"range": [1, 3, 1]}})
    for observations in (None, 0, 1):
        assert noise_of(searched(sweep, lambda _: 1.0, observations), 252, "maximize") is None
    assert analysis_of(build({"n": [1, 2]}, objective="total_return"), lambda _: 1.0).noise is None


# Odd sweeps


def test_trials_that_are_not_done_do_not_count() -> None:
    point = Point(0, {"n": 1})
    states = [Outcome(point, state) for state in ("waiting", "running")]
    assert noise_of(states, 252, "maximize") is None


@pytest.mark.parametrize(
    "objective",
    [lambda _: 1e300, lambda point: 1e300 * (-1) ** point.number, lambda point: -1e-300 * point.number, lambda _: 0.0],
    ids=["equal and huge", "huge", "tiny", "zero"],
)
@pytest.mark.parametrize("trials", [None, 20], ids=["grid", "random"])
def test_whatever_the_numbers_are_it_ends(objective: Any, trials: int | None) -> None:
    found = analysis_of(build(PARAMS, trials, symbols=["A", "B"]), objective, top=3)

    assert len(found.top) == 3
    for one in found.heatmaps:
        assert np.isfinite(one.average[one.count > 0]).all()
    for ranked_one in found.top:
        assert ranked_one.plateau.mean is None or np.isfinite(ranked_one.plateau.mean)
