"""Where results part: by hand, against a plain model that merges two lists of events, and against the digest."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntrader.digest import result_digest
from ntrader.divergence import Divergence, ReturnDifference, first_divergence, return_difference
from ntrader.results import EquityCurve, Fill, RunResult
from tests.factories import DAY, START, run_result

FILL = Fill(START + DAY, "buy", 10.0, 100.0, 1.0, "MARKET")
EQUITY = [100.0, 101.0, 99.0, 102.0]


def result(*fills: Fill, equity: list[float] | None = None, capital: float = 100.0, **curve: Any) -> RunResult:
    found = dataclasses.replace(run_result(EQUITY if equity is None else equity), fills=fills, initial_capital=capital)
    return dataclasses.replace(found, equity_curve=dataclasses.replace(found.equity_curve, **curve))


def fill(**changes: Any) -> Fill:
    return dataclasses.replace(FILL, **changes)


def close(number: int) -> int:
    """When the day with this number, from 1, closes."""
    return START + number * DAY - 1000


def test_equal_results_do_not_part() -> None:
    assert first_divergence(result(FILL), result(fill())) is None
    assert first_divergence(result(equity=[]), result(equity=[])) == first_divergence(result(), result())


@pytest.mark.parametrize(
    "changes",
    [{"time": FILL.time + 1}, {"side": "sell"}, {"quantity": 11.0}, {"price": np.nextafter(100.0, 0)}, {"fee": 0.0},
     {"order_type": "LIMIT"}],
    ids=str,
)  # fmt: skip
def test_every_field_of_a_fill_counts(changes: dict[str, Any]) -> None:
    other = fill(**changes)
    assert first_divergence(result(FILL, FILL), result(FILL, other)) == Divergence("fill", 2, FILL.time, FILL, other)


def test_fills_of_different_times_part_at_the_earlier() -> None:
    late = fill(time=FILL.time + 5)
    assert first_divergence(result(late), result(FILL)) == Divergence("fill", 1, FILL.time, late, FILL)


def test_a_fill_that_is_missing() -> None:
    second = fill(time=FILL.time + 5)
    assert first_divergence(result(FILL, second), result(FILL)) == Divergence("fill", 2, second.time, second, None)
    assert first_divergence(result(), result(FILL)) == Divergence("fill", 1, FILL.time, None, FILL)


def test_the_last_bit_of_an_equity_counts() -> None:
    other = float(np.nextafter(99.0, 100))
    new = result(equity=[100.0, 101.0, other, 102.0])
    assert first_divergence(result(), new) == Divergence("equity", 3, close(3), 99.0, other)


def test_minus_zero_is_another_number() -> None:
    new = result(equity=[100.0, -0.0])
    found = first_divergence(result(equity=[100.0, 0.0]), new)
    assert found == Divergence("equity", 2, close(2), 0.0, -0.0)
    assert first_divergence(result(fill(fee=0.0)), result(fill(fee=-0.0))) is not None


def test_a_missing_point_of_the_curve() -> None:
    short = result(equity=EQUITY[:3])
    assert first_divergence(short, result()) == Divergence("equity", 4, close(4), None, 102.0)
    assert first_divergence(result(), short) == Divergence("equity", 4, close(4), 102.0, None)


def test_a_point_at_another_time_is_missing_on_one_side() -> None:
    times = result().equity_curve.times + np.array([0, 0, 7, 0])
    assert first_divergence(result(), result(times=times)) == Divergence("equity", 3, close(3), 99.0, None)
    assert first_divergence(result(times=times), result()) == Divergence("equity", 3, close(3), None, 99.0)


def test_the_earlier_of_fill_and_equity_and_the_fill_at_the_same_time() -> None:
    new_equity = [100.0, 101.0, 98.0, 102.0]
    for moment, kind in ((close(3) - 1, "fill"), (close(3), "fill"), (close(3) + 1, "equity")):
        found = first_divergence(result(), result(fill(time=moment), equity=new_equity))
        assert found is not None
        assert (found.kind, found.time) == (kind, min(moment, close(3)))


def test_another_capital_comes_first() -> None:
    found = first_divergence(result(fill(time=START + 5)), result(FILL, capital=200.0))
    assert found == Divergence("capital", 1, START + 5, 100.0, 200.0)
    empty = result(equity=[], times=np.empty(0, np.int64))
    nothing = dataclasses.replace(empty, equity_curve=EquityCurve(np.empty(0, np.int64), np.empty(0)))
    found = first_divergence(nothing, dataclasses.replace(nothing, initial_capital=1.0))
    assert found == Divergence("capital", 1, 0, 100.0, 1.0)


# Against a plain model


FLOATS = st.sampled_from([0.0, -0.0, 1.0, 5e-324, float(np.nextafter(1.0, 2)), float("nan"), float("inf")])
FILLS = st.builds(
    Fill, st.integers(0, 4), st.sampled_from(["buy", "sell"]), FLOATS, FLOATS, FLOATS, st.sampled_from(["MARKET", ""])
)


@st.composite
def results(draw: st.DrawFn) -> RunResult:
    fills = sorted(draw(st.lists(FILLS, max_size=4)), key=lambda found: found.time)
    times = sorted(draw(st.sets(st.integers(0, 4))))
    equity = draw(st.lists(FLOATS, min_size=len(times), max_size=len(times)))
    curve = EquityCurve(np.array(times, dtype=np.int64), np.array(equity, dtype=np.float64))
    return RunResult(draw(st.sampled_from([1.0, 1.0, 1.0, 2.0])), curve, tuple(fills), (), 0.0, len(times))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[RunResult, RunResult]:
    """Two results: strangers, or one and the same but for something."""
    one, other = draw(results()), draw(results())
    names = draw(st.sets(st.sampled_from(["initial_capital", "fills", "equity_curve"])))
    return one, dataclasses.replace(one, **{name: getattr(other, name) for name in names})


def events(found: RunResult) -> list[tuple[int, int, int, Any]]:
    """(time, rank, number, value) of every event but the capital, in order."""
    fills = [(fill.time, 0, number, fill) for number, fill in enumerate(found.fills, 1)]
    points = zip(found.equity_curve.times.tolist(), found.equity_curve.equity.tolist(), strict=True)
    equity = [(moment, 1, number, value) for number, (moment, value) in enumerate(points, 1)]
    return sorted(fills + equity, key=lambda event: event[:3])


def bits(value: Any) -> str:
    """-0.0 has a sign here; there is but one NaN."""
    return repr(value)


def model(original: RunResult, new: RunResult) -> tuple[str, int, int] | None:
    """Kind, number and time: the first event, in order, that is not matched by the event of that kind and number."""
    lists = events(original), events(new)
    if bits(original.initial_capital) != bits(new.initial_capital):
        return "capital", 1, min((event[0] for found in lists for event in found), default=0)
    known = [{event[1:3]: (event[0], bits(event[3])) for event in found} for found in lists]
    for event in sorted(lists[0] + lists[1], key=lambda event: event[:3]):
        if known[0].get(event[1:3]) != known[1].get(event[1:3]):
            return ("fill", "equity")[event[1]], event[2], event[0]
    return None


@settings(max_examples=500)
@given(pairs())
def test_as_the_plain_model_and_the_digest_say(pair: tuple[RunResult, RunResult]) -> None:
    found = first_divergence(*pair)
    assert (found and (found.kind, found.number, found.time)) == model(*pair)
    assert (found is None) == (result_digest(pair[0]) == result_digest(pair[1]))
    back = first_divergence(*reversed(pair))
    assert repr(back and (back.new, back.original)) == repr(found and (found.original, found.new))
    if found:
        assert bits(found.original) != bits(found.new)


def test_a_hundred_thousand_points_and_ten_thousand_fills() -> None:
    equity = np.linspace(1, 2, 100_000)
    fills = [fill(time=FILL.time + number) for number in range(10_000)]
    minutes = FILL.time + 60 * 10**9 * np.arange(100_000)
    one = result(*fills, equity=equity.tolist(), times=minutes)
    changed = equity.copy()
    changed[-1] = 0
    other = result(*[dataclasses.replace(each) for each in fills], equity=changed.tolist(), times=minutes)
    begun = time.process_time()
    found = first_divergence(one, other)
    assert time.process_time() - begun < 0.3
    assert found == Divergence("equity", 100_000, int(minutes[-1]), 2.0, 0.0)


# Returns


def test_returns_of_equal_results() -> None:
    assert return_difference(result(), result()) == ReturnDifference(4, 0, 0.0, None, 0.0)


def test_returns_by_hand() -> None:
    found = return_difference(result(equity=[100.0, 110.0, 110.0]), result(equity=[100.0, 105.0, 84.0]))
    assert found is not None
    assert (found.days, found.differing, found.largest_day) == (3, 2, START + 2 * DAY)
    assert found.largest == pytest.approx(0.2)
    assert found.mean == pytest.approx((-0.05 - 0.2) / 3)


def test_only_days_that_both_have_are_compared() -> None:
    later = result().equity_curve.times + 2 * DAY
    found = return_difference(result(), result(times=later, equity=[100.0, 100.0, 100.0, 100.0]))
    assert found is not None
    assert (found.days, found.differing, found.largest_day) == (2, 2, START + 3 * DAY)
    assert found.largest == pytest.approx(102 / 99 - 1)


def test_a_bar_that_closes_at_midnight_is_of_the_day_it_ends() -> None:
    midnight = result().equity_curve.times + 1000
    assert return_difference(result(), result(times=midnight)) == ReturnDifference(4, 0, 0.0, None, 0.0)


def test_no_returns_to_compare() -> None:
    for other in (result(equity=[100.0, -5.0]), result(times=result().equity_curve.times + 100 * DAY)):
        assert return_difference(result(), other) is None
        assert return_difference(other, result()) is None
