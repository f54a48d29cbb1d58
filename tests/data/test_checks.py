"""The checks on bars already in memory, and gaps."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from ntrader.data import sample
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.checks import Gap, check, check_since_1970, gaps
from ntrader.errors import BadDataError
from tests import factories

GOOD = factories.bars([(10, 11, 9, 10.5), (10.5, 12, 10, 11), (11, 11.5, 10.5, 11)])


def changed(**columns: Any) -> Bars:
    arrays: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    return dataclasses.replace(GOOD, **arrays)


def at(times: list[str], timeframe: str) -> Bars:
    """Bars that close at the given times, or, of daily bars, on the given days."""
    frame = parse_timeframe(timeframe)
    stamps = np.array(times, dtype="datetime64[ns]").astype(np.int64)
    stamps += frame.nanoseconds - 1_000 if frame.daily else 0
    ones = np.ones(len(times))
    return Bars("X", "SIM", frame, stamps, ones, ones, ones, ones, ones, "test")


def test_good_bars_pass() -> None:
    check(GOOD)


@pytest.mark.parametrize(
    "columns, reason",
    [
        ({"open": [10, np.nan, 11.0]}, "bar 2 .*open is not a finite number, nan"),
        ({"volume": [1, 1, -np.inf]}, "bar 3 .*volume is not a finite number, -inf"),
        ({"low": [9, 10, -0.5]}, "bar 3 .*low -0.5 is not above zero"),
        ({"close": [0.0, 11, 11]}, "bar 1 .*close 0 is not above zero"),
        ({"volume": [1.0, -5, 1]}, "bar 2 .*volume -5 is negative"),
        ({"high": [11, 9.5, 11.5]}, "bar 2 .*high 9.5 is below low 10"),
        ({"open": [10, 10.5, 11.75]}, "bar 3 .*open 11.75 is outside low 10.5 to high 11.5"),
        ({"close": [8.5, 11, 11]}, "bar 1 .*close 8.5 is outside low 9 to high 11"),
        ({"times": GOOD.times[[0, 1, 1]]}, "bar 3 .*same time"),
        ({"times": GOOD.times[[1, 0, 2]]}, "bar 2 .*not sorted"),
    ],
)
def test_bad_bars_are_refused(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadDataError, match=f"^test, {reason}"):
        check(changed(**columns))


def test_the_first_bad_bar_is_named_whatever_is_wrong_with_later_ones() -> None:
    with pytest.raises(BadDataError, match=r"bar 1 \(2020-01-01\): close 20 .* \(and 2 more bad rows\)$"):
        check(changed(close=[20.0, np.nan, -1]))


def test_no_bars_are_refused() -> None:
    empty = changed(times=[], open=[], high=[], low=[], close=[], volume=[])
    with pytest.raises(BadDataError, match="no bars"):
        check(empty)


def test_lines_of_the_file_are_named_if_they_are_known() -> None:
    with pytest.raises(BadDataError, match="test, line 8 "):
        check(changed(open=[10, 99.0, 11]), lines=np.array([2, 8, 9]))


def test_bars_before_1970_are_refused() -> None:
    bars = at(["1969-12-30", "1969-12-31", "1970-01-02"], "1-DAY")
    with pytest.raises(BadDataError, match="2 bars are from before 1970"):
        check_since_1970(bars)
    check_since_1970(at(["1970-01-01", "1970-01-02"], "1-DAY"))


def days(bars: Bars) -> list[tuple[str, str, int]]:
    return [(label(gap.start), label(gap.end), gap.missing) for gap in gaps(bars)]


def label(time: int) -> str:
    return str(np.datetime64(time, "ns").astype("datetime64[D]"))


def test_daily_gaps_are_weekdays_missing_over_more_than_four_days() -> None:
    bars = at(["2010-05-05", "2010-05-07", "2010-05-11", "2010-05-17", "2010-05-18", "2010-05-24"], "1-DAY")
    assert days(bars) == [("2010-05-11", "2010-05-17", 3), ("2010-05-18", "2010-05-24", 3)]


def test_where_weekends_are_traded_a_missing_one_is_a_gap() -> None:
    every_day = [f"2010-05-{day:02}" for day in range(1, 31)]
    assert days(at(every_day, "1-DAY")) == []
    assert days(at(every_day[:8] + every_day[10:], "1-DAY")) == [("2010-05-08", "2010-05-11", 2)]


def test_gaps_of_short_bars_are_within_a_day() -> None:
    bars = at(
        ["2010-05-06T23:55", "2010-05-07T00:00", "2010-05-07T09:05", "2010-05-07T09:10", "2010-05-07T09:30"], "5-MINUTE"
    )
    assert gaps(bars) == [Gap(int(bars.times[3]), int(bars.times[4]), 3)]


def test_one_bar_has_no_gap() -> None:
    assert gaps(at(["2010-05-06"], "1-DAY")) == gaps(at(["2010-05-06T09:30"], "1-HOUR")) == []


def test_the_sample_has_the_two_gaps_its_source_tells_of() -> None:
    assert days(sample.read("IBM")) == [("2006-12-29", "2007-01-03", 2), ("2012-10-26", "2012-10-31", 2)]
