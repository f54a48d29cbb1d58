"""Reading dates, with pandas as the witness of what a text means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.data.dates import DateProblem, parse_moments

MOMENT = datetime(2010, 5, 6, 9, 31)


def utc(texts: list[str]) -> list[str]:
    return [str(moment) for moment in parse_moments(texts).utc.astype("datetime64[us]").astype("datetime64[s]")]


@pytest.mark.parametrize(
    "text",
    [
        "2010-05-06 09:31:00",
        "2010-05-06T09:31:00",
        "2010-05-06 09:31",
        "2010-05-06 9:31",
        "2010-05-06T09:31:00Z",
        "2010-05-06T09:31:00+00:00",
        "2010-05-06 05:31:00-04:00",
        "2010-05-06 05:31:00-0400",
        "2010-05-06 11:31:00+0200",
        "2010-05-06 09:31:00 UTC",
        "20100506 093100",
        "20100506 0931",
        "20100506T093100",
        "20100506093100",
        "201005060931",
        "2010/05/06 09:31",
        "2010/5/6 9:31",
        "2010.05.06 09:31",
        "06.05.2010 09:31:00.000",
        "06.05.2010 10:31:00.000 GMT+0100",
        "06.05.2010 05:31:00.000 GMT-0400",
        "06-May-2010 09:31",
        "6 May 2010 9:31 AM",
        "6-may-10 09:31",
        "May 6, 2010 09:31:00",
        "1273138260",
        "1273138260.0",
        "1273138260000",
        "1273138260000000",
        "1273138260000000000",
    ],
)
def test_one_moment_in_many_spellings(text: str) -> None:
    assert utc([text]) == ["2010-05-06T09:31:00"]


@pytest.mark.parametrize(
    "text",
    ["2010-05-06", "20100506", "2010/05/06", "2010-5-6", "06.05.2010", "6-May-10", "May 6, 2010", "06 may 2010"],
)
def test_a_date_without_a_time_is_known_as_one(text: str) -> None:
    moments = parse_moments([text])
    assert moments.date_only
    assert moments.local.astype("datetime64[us]").astype(str).tolist() == ["2010-05-06T00:00:00.000000"]


@pytest.mark.parametrize("text", ["2010-05-06 00:00", "20100506 000000", "06/30/2010 0:00", "1273104000"])
def test_midnight_is_a_time(text: str) -> None:
    assert not parse_moments([text]).date_only


def test_the_clock_of_the_file_is_kept_beside_utc() -> None:
    moments = parse_moments(["2010-05-06 00:00:00-04:00", "2010-12-06 00:00:00-05:00"])
    assert (moments.utc - moments.local).tolist() == [4 * 3_600_000_000, 5 * 3_600_000_000]
    assert moments.local.astype("datetime64[us]").astype("datetime64[D]").astype(str).tolist() == [
        "2010-05-06",
        "2010-12-06",
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_numbers_since_1970_agree_with_pandas(unit: Literal["s", "ms", "us", "ns"]) -> None:
    moments = pd.date_range("2001-09-10", "2035-01-01", freq="97D", unit="ns")
    texts = [str(value) for value in moments.as_unit(unit).asi8]
    assert parse_moments(texts).utc.tolist() == moments.as_unit("us").asi8.tolist()


def test_day_first_if_any_row_can_only_be_so() -> None:
    assert utc(["05/06/2010", "13/06/2010"]) == ["2010-06-05T00:00:00", "2010-06-13T00:00:00"]


def test_month_first_if_any_row_can_only_be_so() -> None:
    assert utc(["05/06/2010", "06/13/2010"]) == ["2010-05-06T00:00:00", "2010-06-13T00:00:00"]


@pytest.mark.parametrize("separator", ["/", "-"])
def test_two_possible_orders_are_refused(separator: str) -> None:
    texts = [f"0{day}{separator}06{separator}2010" for day in range(1, 10)]
    with pytest.raises(DateProblem, match="day/month or month/day") as caught:
        parse_moments(texts)
    assert "2010-05-06" in (caught.value.hint or "")


def test_a_column_in_two_orders_is_refused_where_they_meet() -> None:
    with pytest.raises(DateProblem, match="'06/30/2010' cannot be read in the order") as caught:
        parse_moments(["05/06/2010", "13/06/2010", "01/07/2010", "06/30/2010", "07/31/2010"])
    assert caught.value.index == 3


@pytest.mark.parametrize(
    "text, microseconds",
    [("09:31:00.25", 250_000), ("09:31:00,000001", 1), ("09:31:00.1234567", 123_456), ("09:31:00", 0)],
)
@pytest.mark.parametrize("day", ["2010-05-06", "06.05.2010"])
def test_fractions_of_a_second(day: str, text: str, microseconds: int) -> None:
    assert parse_moments([f"{day} {text}"]).utc.tolist() == [1_273_138_260_000_000 + microseconds]


@pytest.mark.parametrize("hour, text", [(0, "12:05 AM"), (1, "1:05 am"), (12, "12:05 PM"), (23, "11:05 p.m.")])
def test_the_twelve_hour_clock(hour: int, text: str) -> None:
    assert utc([f"06/30/2010 {text}"]) == [f"2010-06-30T{hour:02}:05:00"]


@pytest.mark.parametrize("year, text", [(1969, "69"), (1999, "99"), (2000, "00"), (2068, "68")])
def test_two_digit_years_beside_a_month_name(year: int, text: str) -> None:
    assert utc([f"6-May-{text}"]) == [f"{year}-05-06T00:00:00"]


@pytest.mark.parametrize(
    "texts, index, reason",
    [
        (["foo"], 0, "'foo'"),
        (["2010-05-06", "foo"], 1, "'foo'"),
        (["2010-05-06", ""], 1, "''"),
        (["20100506", "foo"], 1, "'foo'"),
        (["20100506 0931", "20100506 0932", "foo"], 2, "'foo'"),
        (["1273138260", "foo"], 1, "'foo'"),
        (["2010-02-29"], 0, "day"),
        (["20100229"], 0, "'20100229'"),
        (["06/30/2010", "06/31/2010"], 1, "day is out of range"),
        (["2010-05-06 24:00"], 0, "'24:00' is not a time of day"),
        (["2010-05-06 09:60"], 0, "'09:60' is not a time of day"),
        (["06/30/2010 13:00 PM"], 0, "'13:00 PM' is not a time of day"),
        (["2010-05-06 09:31", "2010-05-06 09:31 EST"], 1, "'09:31 EST'"),
        (["6-Mai-2010"], 0, "no month is called 'Mai'"),
        (["5/6/10"], 0, "'5/6/10'"),
        (["09:31"], 0, "'09:31'"),
        (["40304"], 0, "'40304'"),
        (["1.27E+12"], 0, "'1.27E\\+12'"),
        (["99999999999999999999"], 0, "'99999999999999999999'"),
        (["2010-05-06", "0210-05-07"], 1, "year 210"),
        (["99999999999"], 0, "year 5138"),
    ],
)
def test_what_is_no_date_is_refused_with_its_row(texts: list[str], index: int, reason: str) -> None:
    with pytest.raises(DateProblem, match=reason) as caught:
        parse_moments(texts)
    assert caught.value.index == index


@given(
    st.lists(
        st.datetimes(datetime(1900, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC)), min_size=1, max_size=20
    ),
    st.integers(-14 * 60, 14 * 60),
)
def test_iso_times_with_an_offset_keep_their_moment(moments: list[datetime], minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    inside = [moment for moment in moments if 1901 <= moment.year <= 2198] or [MOMENT.replace(tzinfo=UTC)]
    texts = [moment.astimezone(zone).isoformat(" ") for moment in inside]
    expected = [(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for moment in inside]
    assert parse_moments(texts).utc.tolist() == expected


@given(
    st.lists(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=20),
    st.sampled_from(
        [
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%S.%f",
            "%Y%m%d %H%M%S",
            "%Y%m%d%H%M%S",
            "%Y/%m/%d %H:%M:%S",
            "%d.%m.%Y %H:%M:%S",
            "%d-%b-%Y %H:%M:%S",
            "%d %B %Y %H:%M:%S UTC",
            "%B %d, %Y %I:%M:%S %p",
        ]
    ),
)
def test_formats_agree_with_strptime(moments: list[datetime], written: str) -> None:
    texts = [moment.strftime(written) for moment in moments]
    expected = np.array([datetime.strptime(text, written) for text in texts], dtype="datetime64[us]")
    assert parse_moments(texts).utc.tolist() == expected.astype(np.int64).tolist()


@given(st.lists(st.dates(datetime(1950, 1, 1).date(), datetime(2100, 1, 1).date()), min_size=1, max_size=20))
def test_slashes_mean_what_was_meant_or_are_refused(days: list[datetime]) -> None:
    for written in ("%d/%m/%Y", "%m/%d/%Y"):
        texts = [day.strftime(written) for day in days]
        decided = any(day.day > 12 for day in days)
        if decided:
            assert utc(texts) == [f"{day:%Y-%m-%d}T00:00:00" for day in days]
        else:
            with pytest.raises(DateProblem):
                parse_moments(texts)
