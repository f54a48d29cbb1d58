"""Axes: how people write them, and one value for one meaning."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.config import canonical_json
from ntrader.errors import ConfigError
from ntrader.sweeps.axes import Choices, Interval, as_axis, choices, parse_param


def values(written: object) -> list[Any]:
    axis = as_axis(written)
    assert isinstance(axis, Choices)
    return list(axis.values)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"range": [5, 50, 5]}, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
        ({"range": [5, 52, 5]}, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]),
        ({"range": [5, 5, 1]}, [5]),
        ({"range": [3, 1, -1]}, [3, 2, 1]),
        ({"range": [0.1, 0.5, 0.1]}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"range": [0, 1, 0.3]}, [0.0, 0.3, 0.6, 0.9]),
        ({"range": [1e-9, 3e-9, 1e-9]}, [1e-9, 2e-9, 3e-9]),
        ({"range": [-0.2, 0.2, 0.1]}, [-0.2, -0.1, 0.0, 0.1, 0.2]),
        ({"values": [50, 100, 200]}, [50, 100, 200]),
        ([50, 100, 200], [50, 100, 200]),
        ([0.5, 1], [0.5, 1.0]),
        ([None, 2], [None, 2]),
        (["a", "b"], ["a", "b"]),
        ([True, False], [True, False]),
        ([True, 1], [True, 1]),
        ([[1, 2], {"a": 1}], [[1, 2], {"a": 1}]),
        ({"int_uniform": [3, 6]}, [3, 4, 5, 6]),
        (5, [5]),
        ("sma", ["sma"]),
        (False, [False]),
    ],
)
def test_an_axis_holds_what_is_written(written: object, meant: list[Any]) -> None:
    assert canonical_json(values(written)) == canonical_json(meant)


def test_a_continuous_axis() -> None:
    assert as_axis({"uniform": [0.5, 3]}) == Interval(0.5, 3.0)
    assert as_axis({"log_uniform": [0.001, 1]}) == Interval(0.001, 1.0, log=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"range": [5, 15, 5]}, [5, 10, 15]),
        ({"range": [5, 19, 5]}, {"range": [5, 15, 5]}),
        ({"range": [0.1, 0.3, 0.1]}, {"values": [0.1, 0.2, 0.3]}),
        ({"range": [0.5, 1.5, 0.5]}, [0.5, 1, 1.5]),
        ({"int_uniform": [1, 3]}, [1, 2, 3]),
        ({"range": [3, 1, -1]}, [3, 2, 1]),
        ({"range": [7, 9, 5]}, 7),
        ([0.0, 1.0], [-0.0, 1.0]),
        ({"uniform": [1, 2]}, {"uniform": [1.0, 2.0]}),
    ],
)
def test_equal_meaning_is_an_equal_axis(one: object, other: object) -> None:
    assert as_axis(one) == as_axis(other)
    assert canonical_json(as_axis(one).canonical()) == canonical_json(as_axis(other).canonical())


@pytest.mark.parametrize(
    ("one", "other"),
    [([1, 2], [2, 1]), ([1, 2], [1.0, 2.0]), (["1"], [1]), ([True], [1]), ({"uniform": [1, 2]}, [1, 2])],
)
def test_another_meaning_is_another_axis(one: object, other: object) -> None:
    assert canonical_json(as_axis(one).canonical()) != canonical_json(as_axis(other).canonical())


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "has no values; write it like [10, 20, 50], {range: [5, 50, 5]}"),
        ([], "the list of values is empty"),
        ({"values": []}, "the list of values is empty"),
        ({"values": 5}, "values must be a list, got 5"),
        ({}, "has the keys none where one is wanted"),
        ({"range": [1, 2, 1], "values": [1]}, "has the keys range, values where one is wanted"),
        ({"rnage": [1, 2, 1]}, "unknown kind of axis 'rnage'; did you mean range?"),
        ({"zzz": [1]}, "unknown kind of axis 'zzz'; known: range, values, uniform, log_uniform, int_uniform"),
        ({"range": [5, 50]}, "range wants 3 numbers, [start, end, step], got [5, 50]"),
        ({"range": [5, 50, "5"]}, "range wants 3 numbers, [start, end, step], got [5, 50, '5']"),
        ({"range": [5, 50, True]}, "range wants 3 numbers"),
        ({"range": [5, 50, 0]}, "the step of a range must not be 0"),
        ({"range": [50, 5, 5]}, "range [50, 5, 5] holds nothing"),
        ({"range": [5, 50, -5]}, "range [5, 50, -5] holds nothing"),
        ({"range": [0, 1, 1e-9]}, "range [0, 1, 1e-09] holds 1,000,000,001 values; use uniform"),
        ({"range": [0, float("inf"), 1]}, "a value is inf; a parameter must be finite"),
        ({"uniform": [float("nan"), 1]}, "a value is nan; a parameter must be finite"),
        ({"uniform": [2, 1]}, "uniform [2.0, 1.0] holds nothing; low must be below high"),
        ({"uniform": [1, 1]}, "uniform [1.0, 1.0] holds nothing; low must be below high"),
        ({"uniform": 3}, "uniform wants 2 numbers, [low, high], got 3"),
        ({"log_uniform": [0, 1]}, "log_uniform needs a low end above 0, got 0"),
        ({"int_uniform": [1.5, 3]}, "int_uniform needs whole numbers, got [1.5, 3]"),
        ({"int_uniform": [3, 1]}, "int_uniform [3, 1] holds nothing"),
        ({"int_uniform": [0, 2**60]}, "1152921504606846976 is beyond 2**53"),
        ([1, 2, 1], "has 1 twice"),
        ([1, 1.0], "has 1.0 twice"),
        ([0.0, -0.0], "has 0.0 twice"),
        (["a", "a"], "has 'a' twice"),
        ([float("nan")], "a value is nan; a parameter must be finite"),
        ([[1, float("inf")]], "a value[1] is inf; a parameter must be finite"),
        (["\0"], "a value is '\\x00', text that cannot be stored"),
        ([10**400], "is beyond 2**53"),
    ],
)
def test_what_is_no_axis_is_refused(written: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        as_axis(written)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_large_range_takes_no_room() -> None:
    axis = as_axis({"int_uniform": [1, 10**12]})
    assert isinstance(axis, Choices)
    assert (axis.size, axis.ordered, axis.canonical()) == (10**12, True, {"range": [1, 10**12, 1]})


TENTHS = st.integers(-2000, 2000).map(lambda number: number / 10)


@given(TENTHS, TENTHS, st.integers(1, 50).map(lambda number: number / 10))
def test_a_range_of_floats_is_one_of_decimals(start: float, end: float, step: float) -> None:
    model, number = [], Decimal(repr(start))
    while number <= Decimal(repr(end)):
        model.append(float(number))
        number += Decimal(repr(step))
    if model:
        assert values({"range": [start, end, step]}) == model
    else:
        with pytest.raises(ValueError, match="holds nothing"):
            as_axis({"range": [start, end, step]})


@given(st.integers(-100, 100), st.integers(-100, 100), st.integers(-20, 20).filter(bool))
def test_a_range_of_whole_numbers_is_pythons_with_its_end(start: int, end: int, step: int) -> None:
    model = list(range(start, end + (1 if step > 0 else -1), step))
    if model:
        assert values({"range": [start, end, step]}) == model
        assert as_axis({"range": [start, end, step]}) == choices(model)
    else:
        with pytest.raises(ValueError, match="holds nothing"):
            as_axis({"range": [start, end, step]})


SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text("ab,: ", max_size=4)


@given(st.lists(SCALARS, min_size=1, max_size=6))
def test_what_an_axis_says_of_itself_is_the_axis(written: list[Any]) -> None:
    try:
        axis = as_axis(written)
    except ValueError as error:
        assert "twice" in str(error)
        return
    assert as_axis(axis.canonical()) == axis


# On the command line


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("p=5:50:5", {"range": [5, 50, 5]}),
        ("p=0.1:0.5:0.1", {"range": [0.1, 0.5, 0.1]}),
        ("p=50,100,200", [50, 100, 200]),
        (" p = 50, 100 ", [50, 100]),
        ("p=0.5..3.0", {"uniform": [0.5, 3.0]}),
        ("p=.5..3", {"uniform": [0.5, 3]}),
        ("p=-1.5..-0.5", {"uniform": [-1.5, -0.5]}),
        ("p=5..50", {"int_uniform": [5, 50]}),
        ("p=a,b", ["a", "b"]),
        ("p=7", [7]),
        ("p=true,false", [True, False]),
        ("p=null,2", [None, 2]),
        ("p='1',1", ["1", 1]),
        ("p=[1, 2],[3]", [[1, 2], [3]]),
        ("p=15:30", ["15:30"]),
        ("p=1-DAY,1-HOUR", ["1-DAY", "1-HOUR"]),
        ("p=a=b", ["a=b"]),
    ],
)
def test_the_command_lines_form_means_the_same(text: str, written: object) -> None:
    assert parse_param(text) == ("p", as_axis(written))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p", "'p' does not say which values a parameter takes"),
        ("=5", "'=5' does not say which values a parameter takes"),
        ("p=", "p: the list of values is empty"),
        ("p=5:50:0", "p: the step of a range must not be 0"),
        ("p=50:5:5", "p: range [50, 5, 5] holds nothing"),
        ("p=3.0..0.5", "p: uniform [3.0, 0.5] holds nothing; low must be below high"),
        ("p=1,,2", "p: '1,,2' is not a list of values"),
        ("p=[1", "p: '[1' is not a list of values"),
        ("p=1,1", "p: has 1 twice"),
        ("p=.nan", "p: a value is nan; a parameter must be finite"),
        ("p=0.5...inf", "p: a value is inf; a parameter must be finite"),
    ],
)
def test_what_the_command_line_cannot_say_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_param(text)
    assert caught.value.message.startswith(message)
    assert "5:50:5" in (caught.value.hint or "")
