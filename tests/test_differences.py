"""What moved: bars against a dict model, sources and environments by hand."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.data import sample
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.fingerprint import data_fingerprint
from ntrader.differences import BarChange, BarValues, diff_bars, diff_environment, diff_sources
from tests import factories

COLUMNS = ("open", "high", "low", "close", "volume")
HOUR = 3_600 * 10**9


def with_rows(rows: dict[int, tuple[float, ...]], **names: Any) -> Bars:
    times = sorted(rows)
    columns = [np.array([rows[moment][k] for moment in times], dtype=np.float64) for k in range(5)]
    made = Bars("TEST", "SIM", parse_timeframe("1h"), np.array(times, dtype=np.int64), *columns, origin="test")
    return dataclasses.replace(made, **names)


def changed(bars: Bars, row: int, **values: float) -> Bars:
    columns: dict[str, Any] = {}
    for name, value in values.items():
        columns[name] = getattr(bars, name).copy()
        columns[name][row] = value
    return dataclasses.replace(bars, **columns)


# Bars


def test_equal_bars() -> None:
    found = diff_bars(sample.read("AAPL"), dataclasses.replace(sample.read("AAPL"), origin="elsewhere"))
    assert found.same
    assert (found.changed, found.added, found.removed, found.days, found.rows, found.names) == (0, 0, 0, (), (), ())


def test_one_changed_one_added_one_removed() -> None:
    old = with_rows({HOUR: (1, 2, 1, 1.5, 7), 2 * HOUR: (2, 3, 2, 2.5, 8), 25 * HOUR: (3, 4, 3, 3.5, 9)})
    new = with_rows({HOUR: (1, 2, 1, 1.5, 7), 25 * HOUR: (3, 5, 3, 3.5, 0), 50 * HOUR: (4, 4, 4, 4, 4)})
    found = diff_bars(old, new)
    assert (found.changed, found.added, found.removed) == (1, 1, 1)
    assert found.days == ("1970-01-01", "1970-01-02", "1970-01-03")
    assert found.rows == (
        BarChange(2 * HOUR, BarValues(2, 3, 2, 2.5, 8), None, COLUMNS),
        BarChange(25 * HOUR, BarValues(3, 4, 3, 3.5, 9), BarValues(3, 5, 3, 3.5, 0), ("high", "volume")),
        BarChange(50 * HOUR, None, BarValues(4, 4, 4, 4, 4), COLUMNS),
    )
    assert diff_bars(old, new, most_rows=1) == dataclasses.replace(found, rows=found.rows[:1])


def test_the_bar_that_closes_at_midnight_is_of_the_day_it_ends() -> None:
    old = with_rows({24 * HOUR: (1, 1, 1, 1, 1)})
    assert diff_bars(old, changed(old, 0, close=2.0)).days == ("1970-01-01",)


@pytest.mark.parametrize(("name", "value"), [("symbol", "X"), ("venue", "Y"), ("timeframe", parse_timeframe("4h"))])
def test_names_that_differ(name: str, value: Any) -> None:
    old = with_rows({HOUR: (1, 1, 1, 1, 1)})
    found = diff_bars(old, dataclasses.replace(old, **{name: value}))
    assert found.names == ((name, str(getattr(old, name)), str(value)),)
    assert not found.same


def test_no_bars_at_all() -> None:
    none, some = with_rows({}), with_rows({HOUR: (1, 1, 1, 1, 1)})
    assert diff_bars(none, none).same
    assert (diff_bars(none, some).added, diff_bars(some, none).removed) == (1, 1)


def test_a_hundred_thousand_bars_all_changed() -> None:
    times = np.arange(1, 100_001) * HOUR
    column = np.linspace(1, 2, len(times))
    old = Bars("TEST", "SIM", parse_timeframe("1h"), times, *[column.copy() for _ in range(5)], origin="test")
    new = dataclasses.replace(old, close=column + 1)
    begun = time.process_time()
    found = diff_bars(old, new)
    assert time.process_time() - begun < 0.5
    assert (found.changed, len(found.days), len(found.rows)) == (100_000, 4167, 20)


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, float(np.nextafter(1.0, 2)), 5e-324, 1e300])
ROWS = st.dictionaries(st.integers(-3, 8).map(lambda hour: hour * 8 * HOUR), st.tuples(*[NUMBERS] * 5), max_size=6)


@given(ROWS, ROWS, st.sets(st.integers(-3, 8)))
def test_as_a_dict_says(old: dict[int, Any], other: dict[int, Any], taken: set[int]) -> None:
    new = {**old, **other} if len(taken) > 2 else other
    found = diff_bars(with_rows(old), with_rows(new), most_rows=100)
    differing = {moment for moment in {*old, *new} if old.get(moment) != new.get(moment)}
    assert [change.time for change in found.rows] == sorted(differing)
    assert found.changed == len(differing & old.keys() & new.keys())
    assert (found.added, found.removed) == (len(new.keys() - old.keys()), len(old.keys() - new.keys()))
    for change in found.rows:
        sides = (old.get(change.time), new.get(change.time))
        for row, values in zip(sides, (change.original, change.new), strict=True):
            assert (None if row is None else BarValues(*row)) == values
        assert change.columns == tuple(
            name for k, name in enumerate(COLUMNS) if None in sides or sides[0][k] != sides[1][k]
        )
    assert found.same == (data_fingerprint(with_rows(old)) == data_fingerprint(with_rows(new)))


def test_nan_is_the_same_as_itself() -> None:
    bars = changed(factories.flat_bars([1.0, 2.0]), 0, close=float("nan"))
    assert diff_bars(bars, bars).same


# Sources


def test_equal_sources() -> None:
    found = diff_sources({"a": "x = 1\n"}, {"a": "x = 1\n"})
    assert (found.modules, found.only_comments) == ((), False)


def test_a_changed_line() -> None:
    found = diff_sources({"pkg.a": "x = 1\ny = 2\n", "b": ""}, {"pkg.a": "x = 1\ny = 3\nz = 4\n", "b": ""})
    (module,) = found.modules
    expected = "--- a/pkg.a\n+++ b/pkg.a\n@@ -1,2 +1,3 @@\n x = 1\n-y = 2\n+y = 3\n+z = 4\n"
    assert (module.module, module.kind, module.diff) == ("pkg.a", "changed", expected)
    assert (module.added, module.removed, module.only_comments, found.only_comments) == (2, 1, False, False)


def test_modules_that_came_and_went() -> None:
    found = diff_sources({"gone": "x = 1\n"}, {"came": "--y\n++z\n"})
    came, gone = found.modules
    assert (came.module, came.kind, came.added, came.removed) == ("came", "added", 2, 0)
    assert (gone.module, gone.kind, gone.added, gone.removed) == ("gone", "removed", 0, 1)
    assert came.diff.startswith("--- /dev/null\n+++ b/came\n")
    assert gone.diff.startswith("--- a/gone\n+++ /dev/null\n")
    assert not found.only_comments


def test_an_empty_module_came() -> None:
    (module,) = diff_sources({}, {"pkg": ""}).modules
    assert (module.kind, module.diff, module.added, module.only_comments) == ("added", "", 0, False)


@pytest.mark.parametrize(
    ("new", "only_comments"),
    [
        ('"""Doc."""\n\n# why\nx = (1 + 2)\n', True),
        ('"""Doc."""\nx = 1 + 2', True),
        ('"""Doc."""\n\n\nx = 1 + \\\n    2  # three\n', True),
        ('"""Other."""\nx = 1 + 2\n', False),
        ('"""Doc."""\nx = 1 + 3\n', False),
        ('"""Doc."""\nx = 1 + 2.0\n', False),
        ('"""Doc."""\nx = True + 2\n', False),
        ('"""Doc."""\nx = (\n', False),
        ('"""Doc."""\0\nx = 1 + 2\n', False),
        ("f" * 64, False),
    ],
)
def test_only_comments(new: str, only_comments: bool) -> None:
    old = {"a": '"""Doc."""\nx = 1 + 2\n'}
    found = diff_sources(old, {"a": new})
    assert (found.only_comments, found.modules[0].only_comments) == (only_comments, only_comments)
    assert not diff_sources({**old, "b": "x = 1"}, {"a": new, "b": "x = 2"}).only_comments


def test_a_missing_line_end_is_told_as_git_does() -> None:
    (module,) = diff_sources({"a": "x"}, {"a": "x\n"}).modules
    assert module.diff.endswith("@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+x\n")
    assert (module.added, module.removed) == (1, 1)


def test_only_a_line_feed_ends_a_line() -> None:
    (module,) = diff_sources({"a": "x\f = 1\n"}, {"a": "x\f = 2\n"}).modules
    assert (module.added, module.removed) == (1, 1)


# The environment


def test_environments() -> None:
    old = {"python": "3.13.1", "machine": "x86_64", "libraries": {"numpy": "2.2", "pandas": "2.3", "six": "1"}}
    new = {"python": "3.13.2", "machine": "x86_64", "libraries": {"numpy": "2.3", "pandas": "2.3", "zope.i": "5"}}
    assert diff_environment(old, new) == {
        "libraries.numpy": ("2.2", "2.3"),
        "libraries.six": ("1", None),
        "libraries.zope.i": (None, "5"),
        "python": ("3.13.1", "3.13.2"),
    }
    assert diff_environment(old, old) == {}


def test_what_was_nested_and_is_no_more() -> None:
    assert diff_environment({"a": {"b": 1}}, {"a": 2}) == {"a": (None, 2), "a.b": (1, None)}
    assert diff_environment({"a": {}}, {}) == {}
