"""Axes as they were tried: in order, and how far apart."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ntrader.sweeps.points import Point, points, read_point, space_of
from ntrader.sweeps.tried import TriedAxis, level_text, short_text, tried_axes
from tests.sweeps.searched import build


def tried(params: dict[str, Any], trials: int | None = None, **section: Any) -> dict[str, TriedAxis]:
    """As they come back from the database."""
    sweep = build(params, trials, **section)
    found = [read_point(json.loads(json.dumps(point.snapshot()))) for point in points(sweep)]
    return {axis.name: axis for axis in tried_axes(space_of(sweep).axes, found)}


def test_numbers_are_in_order_and_other_values_as_the_sweep_lists_them() -> None:
    found = tried({"n": [200, 50, 100], "kind": ["b", None, True, "a"]})

    assert found["n"].levels == (50, 100, 200)
    assert found["n"].ordered
    assert found["kind"].levels == ("b", None, True, "a")
    assert not found["kind"].ordered
    assert found["kind"].texts == ("b", "none", "true", "a")


def test_equal_to_python_is_not_the_same_value() -> None:
    found = tried({"odd": [True, 1, "1", "true", None, "none", [1], {"a": 1}]})

    assert found["odd"].codes is not None
    assert found["odd"].codes.tolist() == list(range(8))


def test_a_large_number_is_the_same_after_the_database() -> None:
    """PostgreSQL writes 1e23 as a whole number, which is another one to Python."""
    sweep = build({"n": [1e23, 2e23], "k": [1, 2]})
    stored = [read_point({**point.snapshot(), "values": {"k": 1, "n": 10**23}}) for point in points(sweep)][:1]

    found = tried_axes(space_of(sweep).axes, [*stored, *points(sweep)])

    assert found[1].codes is not None
    assert found[1].codes.tolist() == [0, 0, 1, 0, 1]


def test_only_what_varies_is_an_axis() -> None:
    assert list(tried({"a": [1], "b": [1, 2], "c": {"uniform": [0, 1]}}, 1)) == []
    assert list(tried({"a": [1], "b": [1, 2]})) == ["b"]
    assert tried_axes(space_of(build({"a": [1, 2]})).axes, []) == ()


def test_a_parameter_may_be_called_like_an_axis_of_another_kind() -> None:
    found = tried({"period": [1, 2], "timeframe": [3, 4]}, periods=[{"start": "2010-01-01"}, {"end": "2011-03-01"}])

    assert list(found) == ["test period", "period", "timeframe"]
    assert found["test period"].texts == ("2010-01-01..", "..2011-03-01")


@pytest.mark.parametrize(
    ("axis", "value", "share"),
    [
        ({"uniform": [1, 3]}, 2.5, 0.75),
        ({"log_uniform": [0.01, 100]}, 0.1, 0.25),
        ({"range": [10, 50, 10]}, 20, 0.25),
        ({"range": [50, 10, -10]}, 20, 0.25),
        ([1, 10, 1000], 10, 0.5),  # by its place
        ({"uniform": [-1e308, 1e308]}, 5e307, 0.75),
    ],
    ids=str,
)
def test_how_far_along_an_axis_a_value_lies(axis: Any, value: float, share: float) -> None:
    sweep = build({"a": axis, "b": [1, 2]}, 2)
    made = [Point(number, {"a": at, "b": 1}) for number, at in enumerate((value, _other(axis)))]

    (found,) = tried_axes(space_of(sweep).axes, made)

    assert found.scaled is not None
    assert found.scaled[0] == pytest.approx(share)
    if not isinstance(axis, list):
        assert found.number_at(share) == pytest.approx(value)


def _other(axis: Any) -> float:
    """Any other value on the axis."""
    if isinstance(axis, list):
        return float(axis[-1])
    return next(iter(axis.values()))[0]  # type: ignore[no-any-return]


def test_long_texts_are_cut_off_and_digits_too() -> None:
    assert level_text("x" * 100) == "x" * 27 + "…"
    assert level_text(math.pi) == "3.14159"
    assert [short_text(number) for number in (12_345.6, 0.00123456, 100.8, 1e300, -5.0)] == [
        "12,346", "0.00123", "101", "1e+300", "-5",
    ]  # fmt: skip
