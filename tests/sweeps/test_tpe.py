"""The sampler that learns: one list of trials, however many workers there are and whenever it is resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ntrader.errors import ConfigError
from ntrader.sweeps.config import SweepConfig, build_sweep
from ntrader.sweeps.points import Point, random_points, read_point
from ntrader.sweeps.tpe import STARTUP, TpeSampler

ROOT = Path(__file__).parent.parent.parent
PARAMS: dict[str, Any] = {
    "fast": {"range": [5, 50, 5]},
    "slow": [200, 50, 100],
    "risk": {"uniform": [0.5, 3]},
    "scale": {"log_uniform": [0.001, 1]},
    "kind": ["a", "b", None, True],
}


def build(params: dict[str, Any] = PARAMS, trials: int = 32, **section: Any) -> SweepConfig:
    base = {"strategy": {"path": "x"}, "data": {"symbol": "A"}}
    return build_sweep({**base, "sweep": {"params": params, "sampler": "tpe", "budget": {"trials": trials}, **section}})


def objective(point: Point) -> float | None:
    """Best at fast 30, risk 2 and kind a; at fast 25 a run fails."""
    values = point.values
    if values["fast"] == 25:
        return None
    return -((values["fast"] - 30) ** 2) / 100 - (values["risk"] - 2) ** 2 + (values["kind"] == "a")


def carry_on(sampler: TpeSampler) -> list[Point]:
    found = []
    while batch := sampler.ask():
        found += batch
        sampler.tell({point.number: objective(point) for point in batch})
    return found


def test_every_point_is_new_within_the_space_and_fulfils_the_constraints() -> None:
    found = carry_on(TpeSampler(build(trials=60, constraints="fast * 2 < slow")))
    assert [point.number for point in found] == list(range(60))
    assert len({point.place for point in found}) == 60
    for values in (point.values for point in found):
        assert values["fast"] in range(5, 51, 5)
        assert values["slow"] in (50, 100, 200)
        assert values["kind"] in ("a", "b", None) or values["kind"] is True
        assert 0.5 <= values["risk"] <= 3
        assert 0.001 <= values["scale"] <= 1
        assert values["fast"] * 2 < values["slow"]


def test_it_learns() -> None:
    found = carry_on(TpeSampler(build(trials=80)))
    drawn = list(random_points(build(trials=80, sampler="random")))
    late, chance = ([value for value in map(objective, group[40:]) if value is not None] for group in (found, drawn))
    assert sum(late) / len(late) > sum(chance) / len(chance) + 1
    worst = carry_on(TpeSampler(build(trials=80, direction="minimize")))[40:]
    assert sum(objective(point) or 0 for point in worst) / len(worst) < sum(chance) / len(chance)


def test_it_begins_like_the_random_sampler() -> None:
    found = carry_on(TpeSampler(build(trials=16)))
    assert STARTUP == 10
    assert found == list(random_points(build(trials=16, sampler="random")))


def test_it_does_not_matter_in_which_order_workers_finish() -> None:
    expected = carry_on(TpeSampler(build()))
    sampler, found = TpeSampler(build()), []
    while batch := sampler.ask():
        found += batch
        for point in reversed(batch):
            sampler.tell({point.number: objective(point)})
    assert found == expected


@pytest.mark.parametrize("known", range(33))
def test_a_resumed_sweep_goes_on_as_it_would_have(known: int, whole: list[Point]) -> None:
    stored = json.loads(json.dumps([point.snapshot() for point in whole[:known]]))
    sampler = TpeSampler(build(), map(read_point, stored))
    assert sampler.waiting == whole[:known]
    sampler.tell({point.number: objective(point) for point in reversed(whole[:known])})
    assert whole[:known] + carry_on(sampler) == whole


@pytest.fixture(scope="module")
def whole() -> list[Point]:
    return carry_on(TpeSampler(build()))


@pytest.mark.parametrize("batch", [1, 5, 32, 100])
def test_the_size_of_a_batch_is_the_configs(batch: int) -> None:
    sampler = TpeSampler(build(batch=batch))
    assert len(sampler.ask()) == min(batch, 32)


def test_another_process_asks_for_the_same(whole: list[Point]) -> None:
    program = (
        "import json, sys\n"
        "from ntrader.sweeps.config import build_sweep\n"
        "from ntrader.sweeps.points import read_point\n"
        "from ntrader.sweeps.tpe import TpeSampler\n"
        "sweep, points, results = json.load(sys.stdin)\n"
        "sampler = TpeSampler(build_sweep(sweep), map(read_point, points))\n"
        "sampler.tell(dict(enumerate(results)))\n"
        "print(json.dumps([point.snapshot() for point in sampler.ask()]))\n"
    )
    told = [build().snapshot(), [p.snapshot() for p in whole[:16]], [objective(p) for p in whole[:16]]]
    result = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(told), capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert json.loads(result.stdout) == [point.snapshot() for point in whole[16:24]]
    assert result.stderr == ""


def test_a_finite_space_ends_when_every_point_has_been_tried() -> None:
    params = {"fast": {"range": [5, 30, 5]}, "risk": [1, 2, 3], "kind": ["a", "b"]}
    found = carry_on(TpeSampler(build(params, trials=500, constraints="fast > 5")))
    assert len({point.place for point in found}) == len(found) == 30


@pytest.mark.parametrize(
    "params", [{"fast": [30], "risk": [1], "kind": ["a"]}, {"fast": [5, 30], "risk": 1, "kind": "a"}]
)
def test_a_tiny_space_ends_too(params: dict[str, Any]) -> None:
    assert len(carry_on(TpeSampler(build(params, batch=1)))) == len(params["fast"])


def test_symbols_and_periods_are_searched_as_well() -> None:
    section = {"symbols": ["A", "B"], "timeframes": ["1d", "1h"],
               "periods": [{"start": "2001-01-01"}, {"end": "2002-01-01"}]}  # fmt: skip
    found = carry_on(TpeSampler(build(trials=24, **section)))
    assert {point.symbol for point in found} == {"A", "B"}
    resumed = TpeSampler(build(trials=24, **section), [read_point(point.snapshot()) for point in found[:16]])
    resumed.tell({point.number: objective(point) for point in found[:16]})
    assert carry_on(resumed) == found[16:]


def test_where_every_trial_fails_it_goes_on() -> None:
    sampler, count = TpeSampler(build()), 0
    while batch := sampler.ask():
        count += len(batch)
        sampler.tell(dict.fromkeys((point.number for point in batch), None))
    assert count == 32


def test_an_objective_that_is_not_finite_counts_as_failed() -> None:
    one, other = TpeSampler(build()), TpeSampler(build())
    for sampler, value in ((one, None), (other, float("nan"))):
        for _ in range(2):
            sampler.tell({point.number: value if point.number % 2 else 1.0 for point in sampler.ask()})
    assert one.ask() == other.ask()


def test_results_must_be_there_before_the_next_batch() -> None:
    sampler = TpeSampler(build())
    batch = sampler.ask()
    sampler.tell({0: 1.0, 2: 2.0})
    assert [point.number for point in sampler.waiting] == [1, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match=r"the results of trials \[1, 3, 4, 5, 6, 7\] are missing"):
        sampler.ask()
    assert len(batch) == 8


def test_a_result_is_told_once() -> None:
    sampler = TpeSampler(build())
    sampler.ask()
    sampler.tell({0: 1.0})
    sampler.tell({0: 1.0})
    for results in ({0: 2.0}, {8: 1.0}, {-1: 1.0}):
        with pytest.raises(ValueError, match="was not asked for, or has another result already"):
            sampler.tell(results)


@pytest.mark.parametrize(
    "values", [{"fast": 7}, {"slow": 51}, {"risk": 5.0}, {"risk": "much"}, {"kind": "c"}, {"kind": 1}]
)
def test_points_of_another_space_are_refused(values: dict[str, Any], whole: list[Point]) -> None:
    point = Point(0, {**whole[0].values, **values})
    with pytest.raises(ConfigError, match="trial 0 is not a point of this sweep's space"):
        TpeSampler(build(), [point])


def test_points_out_of_order_are_refused(whole: list[Point]) -> None:
    with pytest.raises(ConfigError, match="trial 1 stands where trial 0 should"):
        TpeSampler(build(), whole[1:])


def test_neither_optuna_nor_scipy_is_loaded_before_it_learns() -> None:
    program = (
        "import sys\n"
        "from ntrader.sweeps import axes, config, constraints, points, tpe\n"
        "from ntrader import noise\n"
        "print([name for name in ('optuna', 'scipy', 'nautilus_trader', 'pandas') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "[]\n"
