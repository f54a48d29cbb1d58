"""Dates as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.errors import ConfigError
from ntrader.moments import parse_moment

NOW = datetime(2024, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
        ("2024-01-31T14:00", datetime(2024, 1, 31, 14, tzinfo=UTC)),
        ("2024-01-31 14:00:05.000001", datetime(2024, 1, 31, 14, 0, 5, 1, tzinfo=UTC)),
        ("  2024-01-31\n", datetime(2024, 1, 31, tzinfo=UTC)),
        ("2024-01-31T14:00Z", datetime(2024, 1, 31, 14, tzinfo=UTC)),
        ("2024-01-31T01:00+02:00", datetime(2024, 1, 30, 23, tzinfo=UTC)),
        ("2024-12-31T23:30-05:30", datetime(2025, 1, 1, 5, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ],
)
def test_a_day_is_its_midnight_and_without_a_zone_it_is_utc(text: str, moment: datetime) -> None:
    found = parse_moment(text)
    assert (found, found.tzinfo) == (moment, UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0d", NOW),
        ("45s", datetime(2024, 3, 1, 12, 29, 30, 250_000, tzinfo=UTC)),
        ("30m", datetime(2024, 3, 1, 12, 0, 15, 250_000, tzinfo=UTC)),
        ("13h", datetime(2024, 2, 29, 23, 30, 15, 250_000, tzinfo=UTC)),
        ("1d", datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)),
        ("2w", datetime(2024, 2, 16, 12, 30, 15, 250_000, tzinfo=UTC)),
        (" 7 d ", datetime(2024, 2, 23, 12, 30, 15, 250_000, tzinfo=UTC)),
        ("366d", datetime(2023, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)),
    ],
)
def test_how_long_ago(text: str, moment: datetime) -> None:
    assert parse_moment(text, now=NOW) == moment


def test_ago_is_counted_from_the_present() -> None:
    before = datetime.now(UTC)
    found = parse_moment("1h") + timedelta(hours=1)
    assert before <= found <= datetime.now(UTC)


@pytest.mark.parametrize(
    "text",
    ["", " ", "d", "7", "7x", "7D", "-7d", "+7d", "7.5d", "7d12h", "7 days ago", "yesterday", "now", "2024", "2024-01",
     "2024-13-01", "2023-02-29", "2024-01-31T25:00", "31.01.2024", "01/31/2024", "2024-1-31", "2024-01-31T14:00+99:00",
     "999999w", "9999999d", "10000-01-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "NaN", "1e3", "\x00",
     "2024-01-31\x00", "\udcff", "数", "x" * 100_000, "9" * 100_000 + "d", "'; DROP TABLE runs"],
)  # fmt: skip
def test_what_is_no_date_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a date") as caught:
        parse_moment(text)
    assert caught.value.hint == "Write it like 2024-01-31, 2024-01-31T14:00, or 7d, 2w, 12h ago."


@given(st.datetimes(timezones=st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours))) | st.just(UTC)))
def test_any_moment_is_read_as_it_is_written(moment: datetime) -> None:
    try:
        wanted = moment.astimezone(UTC)
    except OverflowError:
        with pytest.raises(ConfigError):
            parse_moment(moment.isoformat())
    else:
        assert parse_moment(moment.isoformat()) == wanted


@given(st.text())
def test_any_text_is_a_moment_in_utc_or_is_refused(text: str) -> None:
    try:
        assert parse_moment(text).tzinfo == UTC
    except ConfigError as error:
        assert "is not a date" in error.message
