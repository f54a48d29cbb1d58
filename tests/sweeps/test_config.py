"""SweepConfig: what may be asked for, what is said about the rest, and when two sweeps are the same."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ntrader.config import RunRequest
from ntrader.errors import ConfigError
from ntrader.sweeps.axes import as_axis, parse_param
from ntrader.sweeps.config import LESS_IS_BETTER, OBJECTIVES, Period, SweepConfig, build_sweep, grid_size, read_sweep
from storage import fields

ROOT = Path(__file__).parent.parent.parent
BASE: dict[str, Any] = {"strategy": {"path": "sma_crossover"}, "data": {"symbol": "AAPL"}}
PARAMS: dict[str, Any] = {"fast_period": {"range": [5, 50, 5]}, "slow_period": [50, 100, 200]}


def build(**section: Any) -> SweepConfig:
    return build_sweep({**BASE, "sweep": {"params": PARAMS, **section}}, origin="x.yaml")


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build_sweep(raw, origin="x.yaml")
    message = caught.value.message
    assert message.startswith("x.yaml: ")
    assert not any(jargon in message.lower() for jargon in ("pydantic", "input should", "value error", "http"))
    return message.removeprefix("x.yaml: ")


def test_the_defaults() -> None:
    sweep = build()
    assert (sweep.objective, sweep.direction, sweep.sampler, sweep.seed) == ("sharpe_ratio", "maximize", "grid", 0)
    assert (sweep.batch, sweep.budget.trials, sweep.budget.wall, sweep.timeout) == (8, None, None, None)
    assert grid_size(sweep) == 30


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"parms": {}}, "sweep.parms: unknown setting; did you mean params?"),
        ({"trials": 5}, "sweep.trials: unknown setting; did you mean budget.trials?"),
        ({"budget": {"trails": 5}}, "sweep.budget.trails: unknown setting; did you mean trials?"),
        ({"budget": {"zzz": 5}}, "sweep.budget.zzz: unknown setting; known: trials, wall"),
        ({"budget": 5}, "sweep.budget: must be a mapping of settings, got 5"),
        ({"budget": {"trials": 0}}, "sweep.budget.trials: must be greater than or equal to 1, got 0"),
        ({"budget": {"wall": "soon"}}, "sweep.budget.wall: 'soon' is not a length of time; write it like 30s, 5m, "
         "2h or 1d"),
        ({"timeout": -1}, "sweep.timeout: -1 is not a length of time; write it like 30s, 5m, 2h or 1d"),
        ({"timeout": float("nan")}, "sweep.timeout: nan is not a length of time; write it like 30s, 5m, 2h or 1d"),
        ({"timeout": True}, "sweep.timeout: must not be true; if it is meant as text, put it in quotes"),
        ({"params": [1]}, "sweep.params: must be a mapping of settings, got [1]"),
        ({"params": {"x": []}}, "sweep.params.x: the list of values is empty"),
        ({"params": {"x": None}}, "sweep.params.x: has no values; write it like [10, 20, 50], {range: [5, 50, 5]}, "
         "{uniform: [0.5, 3.0]} or {values: [...]}"),
        ({"params": {"x": {"range": [9, 1, 1]}}}, "sweep.params.x: range [9, 1, 1] holds nothing"),
        ({"params": {"symbol": ["A"]}}, "sweep.params: symbol is the instrument; list them under symbols"),
        ({"params": {}, "symbols": []}, "sweep.symbols: the list is empty"),
        ({"params": {}}, "sweep: there is nothing to vary; give params, symbols, timeframes or periods"),
        ({"symbols": ["A", "A"]}, "sweep.symbols: has A twice"),
        ({"symbols": [1, "1"]}, "sweep.symbols: has 1 twice"),
        ({"symbols": ["A\nB"]}, "sweep.symbols.0: 'A\\nB' has a control character in it"),
        ({"timeframes": ["1h", "60m"]}, "sweep.timeframes: has 1-HOUR twice"),
        ({"timeframes": "soon"}, "sweep.timeframes.0: timeframe 'soon' is not known. "
         "Write it like 1-DAY, 1-HOUR or 5-MINUTE."),
        ({"periods": [{"last": "3 years"}]}, "sweep.periods.0.last: '3 years' is not a length of time; write it like "
         "3y, 6mo, 26w or 90d"),
        ({"periods": [{"last": "0d"}]}, "sweep.periods.0.last: '0d' is not a length of time; write it like 3y, 6mo, "
         "26w or 90d"),
        ({"period": {"last": "3y", "end": "2012-01-01"}}, "sweep.periods.0: a period has either `last` or a start and "
         "an end"),
        ({"period": {"last": "3y"}, "periods": [{"last": "4y"}]}, "sweep: give either period or periods"),
        ({"periods": [{}]}, "sweep.periods.0: a period needs a start, an end or both, or last"),
        ({"periods": [{"strat": "2012-01-01"}]}, "sweep.periods.0.strat: unknown setting; did you mean start?"),
        ({"periods": [{"start": "2013-01-01", "end": "2012-01-01"}]},
         "sweep.periods.0: start 2013-01-01 is after end 2012-01-01"),
        ({"periods": [{"start": "2012-01-01"}, {"start": date(2012, 1, 1)}]}, "sweep.periods: has 2012-01-01.. twice"),
        ({"objective": "sharp_ratio"}, "sweep.objective: unknown metric 'sharp_ratio'; did you mean sharpe_ratio?"),
        ({"direction": "up"}, "sweep.direction: must be 'maximize' or 'minimize', got 'up'"),
        ({"sampler": "tpe2"}, "sweep.sampler: must be 'grid', 'random' or 'tpe', got 'tpe2'"),
        ({"sampler": "random"}, "sweep: sampler random needs budget.trials: how many points to try"),
        ({"sampler": "tpe", "budget": {"wall": 5}}, "sweep: sampler tpe needs budget.trials: how many points to try"),
        ({"params": {"x": {"uniform": [1, 2]}}}, "sweep: a grid cannot take x from {'uniform': [1.0, 2.0]}; "
         "give a range or values, or sampler random or tpe"),
        ({"params": {name: {"int_uniform": [1, 1000]} for name in "abcd"}, "symbols": "A"},
         "sweep: the grid has 1,000,000,000,000 points, more than 1,000,000; give a budget, larger steps, "
         "or sampler random or tpe"),
        ({"constraints": ["a <"]}, "sweep.constraints.0: constraint 'a <' cannot be read: invalid syntax. "
         "Allowed are names of parameters, symbol, numbers, text in quotes, comparisons, and, or, not, "
         "+ - * / // % **, parentheses, abs, min and max."),
        ({"constraints": ["a<b", "a < b"]}, "sweep.constraints: has a < b twice"),
        ({"base": {}}, "sweep.base: unknown setting; the base run stands beside sweep, not in it"),
        ({"seed": -1}, "sweep.seed: must be greater than or equal to 0, got -1"),
        ({"name": ""}, "sweep.name: must have at least 1 character, got ''"),
        ({"name": "@last"}, "sweep.name: '@last' is no name, but the number of a sweep, or @last"),
        ({"name": "12"}, "sweep.name: '12' is no name, but the number of a sweep, or @last"),
        ({"name": "a\nb"}, "sweep.name: 'a\\nb' has a control character in it"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_named_in_one_line(section: dict[str, Any], message: str) -> None:
    assert refusal({**BASE, "sweep": {"params": PARAMS, **section}}) == message


def test_a_base_run_that_does_not_fit_is_refused_like_any_run() -> None:
    assert refusal({**BASE, "sede": 1, "sweep": {"params": PARAMS}}) == "sede: unknown setting; did you mean seed?"
    assert refusal({"data": {"symbol": "A"}, "sweep": {"params": PARAMS}}) == "strategy: is missing"


@pytest.mark.parametrize(
    ("section", "message"),
    [(None, "sweep: is missing"), ({}, "sweep: is missing"), (5, "sweep: must be a mapping of settings, got 5")],
)
def test_a_run_without_a_search_space_is_no_sweep(section: object, message: str) -> None:
    assert refusal({**BASE, "sweep": section}) == message


def test_symbols_cannot_vary_with_one_csv_file() -> None:
    raw = {**BASE, "data": {"symbol": "A", "path": "a.csv"}, "sweep": {"symbols": ["A", "B"]}}
    assert refusal(raw) == "sweep: symbols cannot vary with a csv file, which holds one instrument"


def test_a_budget_makes_a_large_grid_possible() -> None:
    params = {name: {"int_uniform": [1, 1000]} for name in "abcd"}
    assert grid_size(build(params=params, budget={"trials": 10})) == 10**12
    assert grid_size(build(params=params, budget={"wall": "1h"})) == 10**12


@pytest.mark.parametrize(
    ("written", "seconds"), [(90, 90), ("90", 90), ("30s", 30), ("5m", 300), (" 2 H ", 7200), ("1.5d", 129_600)]
)
def test_a_length_of_time_is_in_seconds_or_with_its_unit(written: object, seconds: float) -> None:
    assert build(timeout=written, budget={"wall": written}).timeout == seconds
    assert build(budget={"wall": written}).budget.wall == seconds


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_direction_follows_from_the_objective(objective: str) -> None:
    minimize = objective in {"volatility", "kurtosis", "losing_trades"}
    assert build(objective=objective).direction == ("minimize" if minimize else "maximize")
    assert build(objective=objective, direction="minimize").direction == "minimize"
    assert build(objective=objective, direction="maximize").direction == "maximize"


def test_lists_of_runs_are_of_the_same_opinion() -> None:
    assert {*fields.LESS_IS_BETTER} & {*OBJECTIVES} == LESS_IS_BETTER


def test_one_thing_is_short_for_a_list_of_it() -> None:
    long = build(symbols=["A"], timeframes=["1-DAY"], constraints=["a < b"], periods=[{"start": "2012-01-01"}])
    assert build(symbols="A", timeframes="1d", constraints="a < b", periods={"start": "2012-01-01"}) == long


def test_a_base_run_may_leave_its_symbol_to_the_axis() -> None:
    sweep = build_sweep({"strategy": {"path": "x"}, "sweep": {"symbols": [600519, "AAPL"]}})
    assert (sweep.base.data.symbol, sweep.symbols) == ("600519", ("600519", "AAPL"))


# The same sweep


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"params": {"a": {"range": [5, 15, 5]}}}, {"params": {"a": [5, 10, 15]}}),
        ({"params": {"a": {"range": [0.1, 0.3, 0.1]}}}, {"params": {"a": [0.1, 0.2, 0.3]}}),
        ({"params": {"a": 1, "b": 2}}, {"params": {"b": [2], "a": {"values": [1]}}}),
        ({}, {"objective": "sharpe_ratio", "direction": "maximize", "sampler": "grid", "budget": {}}),
        ({"objective": "volatility"}, {"objective": "volatility", "direction": "minimize"}),
        ({}, {"name": "mine", "budget": {"wall": "2h"}, "timeout": "30s"}),
        ({}, {"seed": 5, "batch": 16}),
        ({"sampler": "random", "budget": {"trials": 5}}, {"sampler": "random", "budget": {"trials": 5}, "batch": 4}),
        ({"constraints": ["a<b", "c > 1"]}, {"constraints": ["c>1", "(a < b)"]}),
        ({"timeframes": ["60m"]}, {"timeframes": ["1-HOUR"]}),
        ({"periods": [{"end": "2012-01-01T12:00Z"}]}, {"periods": [{"end": "2012-01-01T14:00+02:00"}]}),
    ],
)
def test_equal_sweeps_have_equal_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert build(**one).fingerprint == build(**other).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"params": {"fast_period": 5}}),
        ({"params": {"a": [1, 2]}}, {"params": {"a": [2, 1]}}),
        ({}, {"symbols": ["AAPL", "IBM"]}),
        ({"symbols": ["AAPL", "IBM"]}, {"symbols": ["IBM", "AAPL"]}),
        ({}, {"constraints": ["a < b"]}),
        ({}, {"objective": "cagr"}),
        ({}, {"direction": "minimize"}),
        ({}, {"budget": {"trials": 5}}),
        ({"sampler": "random", "budget": {"trials": 5}}, {"sampler": "tpe", "budget": {"trials": 5}}),
        ({"sampler": "random", "budget": {"trials": 5}}, {"sampler": "random", "budget": {"trials": 5}, "seed": 1}),
        ({"sampler": "tpe", "budget": {"trials": 5}}, {"sampler": "tpe", "budget": {"trials": 5}, "batch": 4}),
    ],
)
def test_other_sweeps_have_other_fingerprints(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert build(**one).fingerprint != build(**other).fingerprint


def test_what_the_axes_overlay_in_the_base_does_not_matter() -> None:
    section = {"params": {"a": [1, 2]}, "symbols": ["A", "B"], "periods": [{"start": "2012-01-01"}]}
    one = {"strategy": {"path": "x", "parameters": {"a": 7, "b": 1}}, "data": {"symbol": "A", "end": "2012-01-01"}}
    other = {"strategy": {"path": "x", "parameters": {"b": 1}}, "data": {"symbol": "B"}}
    third = {"strategy": {"path": "x", "parameters": {"b": 2}}, "data": {"symbol": "B"}}
    first, second, last = (build_sweep({**base, "sweep": section}).fingerprint for base in (one, other, third))
    assert first == second != last


FULL: dict[str, Any] = {
    "name": "all of it",
    "params": {"a": {"range": [1, 9, 2]}, "b": ["x", None, True, 1.5], "c": {"uniform": [0, 1]},
               "d": {"log_uniform": [1e-5, 1]}, "e": {"int_uniform": [1, 10**10]}},
    "symbols": ["AAPL", "IBM"],
    "timeframes": ["1-DAY", "1h"],
    "periods": [{"start": "2008-01-01", "end": "2010-12-31T12:00"}, {"end": "2012-01-01"}],
    "constraints": ["a > 1", "symbol != 'IBM' or a < 5"],
    "objective": "kurtosis",
    "sampler": "tpe",
    "seed": 7,
    "budget": {"trials": 100, "wall": "2h"},
    "timeout": "5m",
    "batch": 4,
}  # fmt: skip


@pytest.mark.parametrize("section", [FULL, {"params": PARAMS}, {"symbols": "A"}])
def test_a_stored_sweep_is_the_sweep_again(section: dict[str, Any]) -> None:
    sweep = build_sweep({**BASE, "sweep": section})
    again = build_sweep(json.loads(json.dumps(sweep.snapshot())))
    assert again == sweep
    assert again.fingerprint == sweep.fingerprint
    assert again.snapshot() == sweep.snapshot()


# From a file and the command line

FILE = """
strategy: sma_crossover
parameters: {risk_percent: 1.0}
data: {symbol: AAPL}
venue:
sweep:
  name:
  params:
    fast_period: {range: [5, 20, 5]}
    slow_period: [50, 100]
  budget:
    trials:
    wall: 1h
"""


def from_file(folder: Path, text: str, request: dict[str, Any], overrides: dict[str, Any]) -> SweepConfig:
    file = folder / "x.yaml"
    file.write_text(text)
    return build_sweep(read_sweep(RunRequest(config_path=str(file), **request), overrides), origin="x.yaml")


def test_a_file_is_a_runs_with_one_section_more(tmp_path: Path) -> None:
    sweep = from_file(tmp_path, FILE, {}, {})
    assert sweep.base.strategy.parameters == {"risk_percent": 1.0}
    assert sweep.params == {"fast_period": as_axis([5, 10, 15, 20]), "slow_period": as_axis([50, 100])}
    assert (sweep.name, sweep.budget.trials, sweep.budget.wall) == (None, None, 3600)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    axes = dict(map(parse_param, ["fast_period=1..9", "atr_period=7,14"]))
    overrides = {"params": axes, "budget": {"trials": 5, "wall": None}, "sampler": "random", "seed": None}
    sweep = from_file(tmp_path, FILE, {"symbol": "IBM", "parameters": {"risk_percent": 2.0}}, overrides)
    assert (sweep.base.data.symbol, sweep.base.strategy.parameters) == ("IBM", {"risk_percent": 2.0})
    assert sweep.params == {**axes, "slow_period": as_axis([50, 100])}
    assert (sweep.budget.trials, sweep.budget.wall, sweep.sampler, sweep.seed) == (5, 3600, "random", 0)


def test_the_command_line_alone_is_enough() -> None:
    request = RunRequest(strategy="sma_crossover", symbol="AAPL")
    sweep = build_sweep(read_sweep(request, {"params": dict([parse_param("fast_period=5:50:5")])}))
    assert grid_size(sweep) == 10


def test_a_parameter_without_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: sweep\.params\.a: has no values"):
        from_file(tmp_path, "strategy: x\ndata: {symbol: A}\nsweep:\n  params:\n    a:\n", {}, {})


def test_a_section_that_is_no_mapping_is_refused_whatever_is_laid_over_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: sweep: must be a mapping of settings, got \[1\]"):
        from_file(tmp_path, "strategy: x\ndata: {symbol: A}\nsweep: [1]\n", {}, {"seed": 1})


@pytest.mark.parametrize("length", ["1d", "90d", "26w", "1mo", "6mo", "13mo", "1y", "3y"])
@pytest.mark.parametrize("newest", ["2012-02-29", "2012-03-31", "2013-01-01", "2012-12-31"])
def test_a_rolling_period_is_as_long_as_pandas_makes_it(length: str, newest: str) -> None:
    units = {"d": "days", "w": "weeks", "mo": "months", "y": "years"}
    count, unit = int(length.rstrip("dwmoy")), length.lstrip("0123456789")
    before = pd.Timestamp(newest) - pd.DateOffset(**{units[unit]: count})
    found = Period(last=length).ending(date.fromisoformat(newest))
    assert found == Period(start=(before + pd.Timedelta(days=1)).date(), end=date.fromisoformat(newest))


def test_one_period_is_short_for_a_list_of_one() -> None:
    assert build(period={"last": "3y"}).periods == (Period(last="3y"),)
