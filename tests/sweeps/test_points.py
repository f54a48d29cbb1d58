"""Points: the grid against itertools, random points against their promises, and what each trial runs."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from datetime import date
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntrader.config import RunRequest
from ntrader.errors import ConfigError
from ntrader.resolve import resolve
from ntrader.strategies.loader import load_strategy, parameters_of
from ntrader.sweeps.config import Period, SweepConfig, build_sweep, grid_size, read_sweep
from ntrader.sweeps.points import (
    Point,
    check_sweep,
    draw,
    grid,
    points,
    random_points,
    read_point,
    space_of,
    trial_config,
)

ROOT = Path(__file__).parent.parent.parent


def build(section: dict[str, Any], **parameters: Any) -> SweepConfig:
    base = {"strategy": {"path": "x", "parameters": parameters}, "data": {"symbol": "AAPL", "start": "2000-01-01"}}
    return build_sweep({**base, "sweep": section})


def random(params: dict[str, Any], trials: int, **section: Any) -> SweepConfig:
    return build({"params": params, "sampler": "random", "budget": {"trials": trials}, **section})


# The grid

SMALL = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(-5, 5), min_size=1, max_size=4, unique=True), min_size=1
)
CONDITIONS = {
    "a < 2": lambda v: v["a"] < 2,
    "a + b != 3 or a > b": lambda v: v["a"] + v["b"] != 3 or v["a"] > v["b"],
    "abs(b) >= 1": lambda v: abs(v["b"]) >= 1,
    "symbol == 'IBM' or a > 0": lambda v: v["symbol"] == "IBM" or v["a"] > 0,
}
SPACES = st.tuples(
    SMALL,
    st.lists(st.sampled_from(["AAPL", "IBM"]), unique=True),
    st.lists(st.sampled_from(sorted(CONDITIONS)), unique=True),
)


def section_of(space: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    params, symbols, constraints = space
    given = {"params": params, "symbols": symbols, "constraints": constraints}
    return {**{key: value for key, value in given.items() if value}, **more}


def model(space: tuple[Any, ...]) -> list[tuple[str | None, dict[str, Any]]]:
    """Every combination that fulfils the conditions, of plain loops; a and b are 1 where they do not vary."""
    params, symbols, constraints = space
    found = []
    for symbol, *chosen in product(symbols or [None], *(params[name] for name in sorted(params))):
        values = dict(zip(sorted(params), chosen, strict=True))
        if all(CONDITIONS[text]({"a": 1, "b": 1, **values, "symbol": symbol or "AAPL"}) for text in constraints):
            found.append((symbol, values))
    return found


@given(SPACES)
def test_a_grid_is_every_combination_in_order(space: tuple[Any, ...]) -> None:
    found = list(grid(build(section_of(space), a=1, b=1)))
    assert [(point.symbol, point.values) for point in found] == model(space)
    assert [point.number for point in found] == list(range(len(found)))


@given(SPACES, st.integers(1, 20))
def test_a_budget_takes_the_first_of_the_grid(space: tuple[Any, ...], trials: int) -> None:
    some = build(section_of(space, budget={"trials": trials}), a=1, b=1)
    assert list(grid(some)) == list(grid(build(section_of(space), a=1, b=1)))[:trials]


def test_the_last_axis_turns_fastest() -> None:
    sweep = build({"params": {"b": [1, 2], "a": [3, 4]}, "symbols": ["X", "Y"], "timeframes": ["1d", "1h"],
                   "periods": [{"start": "2001-01-01"}, {"end": "2002-01-01"}]})  # fmt: skip
    found = list(grid(sweep))
    assert [point.values for point in found[:4]] == [{"a": a, "b": b} for a in (3, 4) for b in (1, 2)]
    assert [point.symbol for point in found] == ["X"] * 16 + ["Y"] * 16
    assert [point.timeframe for point in found[:16]] == ["1-DAY"] * 8 + ["1-HOUR"] * 8
    assert found[4].period == Period(end=date(2002, 1, 1))
    assert len(found) == grid_size(sweep) == 32


def test_a_huge_grid_is_walked_without_being_built() -> None:
    params = {name: {"int_uniform": [1, 10**9]} for name in "abcd"}
    sweep = build({"params": params, "budget": {"wall": "1h"}})
    assert grid_size(sweep) == 10**36
    assert [point.values["d"] for point in islice(grid(sweep), 3)] == [1, 2, 3]


@pytest.mark.long
def test_a_grid_that_fits_nowhere_in_sight_is_given_up() -> None:
    params = {"a": {"int_uniform": [1, 10**9]}, "b": {"int_uniform": [1, 10**9]}}
    sweep = build({"params": params, "constraints": "a > b and b > 10", "budget": {"trials": 3}})
    with pytest.raises(
        ConfigError, match="of 1,000,000 points in a row, after 0 that do, none fulfils a > b and b > 10"
    ):
        next(grid(sweep))


# At random


@given(SPACES, st.integers(0, 2**32 - 1))
def test_a_finite_space_is_drawn_from_without_repeating(space: tuple[Any, ...], seed: int) -> None:
    sweep = build(section_of(space, sampler="random", seed=seed, budget={"trials": 10_000}), a=1, b=1)
    found = [(point.symbol, point.values) for point in random_points(sweep)]
    assert sorted(found, key=repr) == sorted(model(space), key=repr)


@given(SPACES, st.integers(0, 100), st.integers(1, 10))
def test_more_trials_go_on_where_fewer_stopped(space: tuple[Any, ...], seed: int, trials: int) -> None:
    few, many = (
        list(random_points(build(section_of(space, sampler="random", seed=seed, budget={"trials": n}), a=1, b=1)))
        for n in (trials, trials + 5)
    )
    assert many[:trials] == few
    assert [point.number for point in many] == list(range(len(many)))


MIXED = {
    "u": {"uniform": [-2.5, 3]},
    "l": {"log_uniform": [1e-6, 10]},
    "n": {"int_uniform": [1, 10**15]},
    "k": ["x", "y", None],
}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_random_values_lie_within_their_axes(seed: int) -> None:
    for point in random_points(random(MIXED, 50, seed=seed, constraints="u < 2 or l > 1")):
        assert -2.5 <= point.values["u"] <= 3
        assert 1e-6 <= point.values["l"] <= 10
        assert 1 <= point.values["n"] <= 10**15
        assert point.values["k"] in ("x", "y", None)
        assert point.values["u"] < 2 or point.values["l"] > 1


def test_random_values_are_spread_evenly() -> None:
    found = list(random_points(random(MIXED, 3000)))
    for name, share in (("u", lambda v: (v + 2.5) / 5.5), ("l", lambda v: math.log(v / 1e-6) / math.log(1e7))):
        tenths = Counter(int(share(point.values[name]) * 10) for point in found)
        assert all(220 < tenths[tenth] < 380 for tenth in range(10))
    assert all(850 < count < 1150 for count in Counter(point.values["k"] for point in found).values())
    orders = Counter(
        tuple(p.values["a"] for p in random_points(random({"a": [1, 2, 3]}, 3, seed=s))) for s in range(1200)
    )
    assert len(orders) == 6
    assert all(140 < count < 260 for count in orders.values())


def test_the_same_seed_gives_the_same_points_in_another_process() -> None:
    sweep = random({**MIXED, "s": {"range": [1, 3, 1]}}, 40, seed=3, symbols=["B", "A"])
    program = (
        "import json, sys\n"
        "from ntrader.sweeps.config import build_sweep\n"
        "from ntrader.sweeps.points import random_points\n"
        "sweep = build_sweep(json.load(sys.stdin))\n"
        "print(json.dumps([point.snapshot() for point in random_points(sweep)]))\n"
    )
    expected = [point.snapshot() for point in random_points(sweep)]
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", program], input=json.dumps(sweep.snapshot()), capture_output=True, text=True,
            check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert json.loads(result.stdout) == expected


def test_the_points_of_a_seed_never_change() -> None:
    params = {"a": {"range": [1, 9, 2]}, "l": {"log_uniform": [0.001, 1]}, "u": {"uniform": [0, 1]}}
    assert [point.values for point in random_points(random(params, 3, seed=7))] == [
        {"a": 3, "l": 0.002834963826558839, "u": 0.6509344730398537},
        {"a": 1, "l": 0.04051781460384446, "u": 0.36568891691258554},
        {"a": 1, "l": 0.03328949443182002, "u": 0.03749565844198488},
    ]
    assert [p.values["a"] for p in random_points(random({"a": {"range": [1, 9, 2]}}, 5, seed=7))] == [3, 1, 7, 5, 9]


def test_a_space_in_which_hardly_a_point_fits_is_refused() -> None:
    sweep = random({"u": {"uniform": [0, 1]}}, 5, constraints="u < 0.000000001")
    with pytest.raises(
        ConfigError, match="of 10,000 points in a row, after 0 that do, none fulfils u < 1e-09"
    ) as caught:
        list(random_points(sweep))
    assert caught.value.hint == "Narrow the axes to where the constraints hold."


# Refused before anything runs


def checked(sweep: SweepConfig, *known: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check_sweep(sweep, known)
    return f"{caught.value.message}. {caught.value.hint}"


def test_unknown_parameters_are_refused_with_the_nearest() -> None:
    sweep = build({"params": {"fats": [1]}})
    assert checked(sweep, "fast", "slow") == "sweep.params: the strategy has no parameter 'fats'. Did you mean 'fast'?"
    assert checked(sweep, "zzz") == "sweep.params: the strategy has no parameter 'fats'. Known: zzz."
    assert checked(sweep) == "sweep.params: the strategy has no parameter 'fats'. Known: none."


def test_constraints_know_axes_and_what_the_base_gives() -> None:
    check_sweep(build({"params": {"a": [1, 2]}, "constraints": "a < b and symbol == 'AAPL'"}, b=2), ["a", "b"])
    message = checked(build({"params": {"a": [1, 2]}, "constraints": "a < bb"}, bbb=2), "a", "bbb")
    assert message == "constraint 'a < bb' uses 'bb', which is no parameter. Did you mean 'bbb'?"
    message = checked(build({"params": {"a": [1, 2]}, "constraints": "a < b"}), "a", "b")
    assert message == "constraint 'a < b' uses 'b', which has no value here. Give b a value under parameters."


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_constraints_that_no_point_fulfils_are_refused(sampler: str) -> None:
    sweep = build({"params": {"a": [1, 2], "b": [1]}, "constraints": ["a < b", "a > 0"], "sampler": sampler,
                   "budget": {"trials": 5}})  # fmt: skip
    assert checked(sweep, "a", "b") == (
        "none of the 2 points fulfils a < b and a > 0. Widen an axis or relax a constraint."
    )


def test_a_constraint_that_cannot_be_worked_out_is_refused_with_the_point() -> None:
    sweep = build({"params": {"a": [0, 1]}, "constraints": "1 / a < 2"})
    assert checked(sweep, "a").startswith("constraint '1 / a < 2' cannot be worked out at a=0: division by zero")


# What a trial runs


def test_a_point_is_laid_over_the_base() -> None:
    base = build({"params": {"a": 1}}, a=5, b=6).base
    period = Period(start=date(2001, 1, 1), end=date(2002, 1, 1))
    config = trial_config(base, Point(3, {"a": 1, "c": [1]}, "IBM", "1-HOUR", period))
    assert config.strategy.parameters == {"a": 1, "b": 6, "c": [1]}
    assert (config.data.symbol, config.data.timeframe) == ("IBM", "1-HOUR")
    assert (config.data.start, config.data.end) == (date(2001, 1, 1), date(2002, 1, 1))
    assert base.strategy.parameters == {"a": 5, "b": 6}


def test_what_does_not_vary_is_the_bases() -> None:
    base = build({"params": {"a": 1}}, a=5).base
    assert trial_config(base, Point(0)) == base


def test_a_period_without_a_start_begins_with_the_bars() -> None:
    config = trial_config(build({"params": {"a": 1}}).base, Point(0, period=Period(end=date(2002, 1, 1))))
    assert (config.data.start, config.data.end) == (None, date(2002, 1, 1))


def test_a_value_that_no_run_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^trial 4: strategy\.parameters: a is inf"):
        trial_config(build({"params": {"a": 1}}).base, Point(4, {"a": math.inf}))


def test_a_stored_point_is_the_point_again() -> None:
    sweep = build({"params": {"a": [1, None], "b": [0.1, "x"]}, "symbols": "A", "timeframes": "1h",
                   "periods": [{"start": "2001-01-01", "end": "2002-01-01T12:00"}]})  # fmt: skip
    for point in [*grid(sweep), Point(7)]:
        again = read_point(json.loads(json.dumps(point.snapshot())))
        assert again == point
        assert again.place == point.place


def test_a_place_does_not_depend_on_the_number() -> None:
    assert Point(1, {"a": 1}).place == Point(2, {"a": 1}).place != Point(2, {"a": 2}).place
    assert Point(1, {"symbol": "A"}).place != Point(1, {}, "A").place


def test_drawing_goes_on_without_a_budget() -> None:
    assert len(list(draw(space_of(random({"a": {"int_uniform": [1, 50]}}, 3)), 0))) == 50


# What is shipped


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_sweep_can_be_searched(path: Path, tmp_path: Path) -> None:
    sweep = build_sweep(read_sweep(RunRequest(config_path=str(path))), origin=str(path))
    first = trial_config(sweep.base, next(points(sweep)))
    resolved = resolve(
        RunRequest(strategy=first.strategy.path, parameters=first.strategy.parameters, symbol=first.data.symbol,
                   start=first.data.start, end=first.data.end, account_type=first.venue.account_type), tmp_path
    )  # fmt: skip
    check_sweep(sweep, [parameter.name for parameter in parameters_of(load_strategy(resolved.strategy.path))])


def test_the_shipped_grid() -> None:
    sweep = build_sweep(read_sweep(RunRequest(config_path=str(ROOT / "config" / "sweeps" / "sma_grid.yaml"))))
    found = list(grid(sweep))
    assert len(found) == 29
    assert found[0].values == {"fast_period": 5, "slow_period": 50}
    assert found[-1].values == {"fast_period": 50, "slow_period": 200}
