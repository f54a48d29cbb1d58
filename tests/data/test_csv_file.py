"""CSV files as vendors write them, every kind of bad one, and pandas as the witness of the numbers."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.csv_file import Stamp, read_csv
from ntrader.errors import BadDataError, DataNotFoundError

HEADER = "date,open,high,low,close,volume\n"
ROWS = "2010-05-05,10,11,9,10.5,1000\n2010-05-06,10.5,12,10,11.25,2000\n2010-05-07,11,11.5,10.75,11,1500\n"
NUMBERS = [[10, 10.5, 11], [11, 12, 11.5], [9, 10, 10.75], [10.5, 11.25, 11], [1000, 2000, 1500]]
DAYS = ["2010-05-05T23:59:59.999999", "2010-05-06T23:59:59.999999", "2010-05-07T23:59:59.999999"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prices.csv"


def read(file: Path, content: str | bytes, timeframe: str = "1-DAY", stamp: Stamp = "open", symbol: str = "X") -> Bars:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_csv(file, symbol=symbol, venue="SIM", timeframe=parse_timeframe(timeframe), stamp=stamp)


def numbers(bars: Bars) -> list[list[float]]:
    return [column.tolist() for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)]


def times(bars: Bars) -> list[str]:
    return [str(time) for time in bars.times.astype("datetime64[ns]").astype("datetime64[us]")]


def refusal(file: Path, content: str | bytes, timeframe: str = "1-DAY") -> BadDataError:
    with pytest.raises(BadDataError) as caught:
        read(file, content, timeframe)
    assert caught.value.message.startswith(str(file))
    return caught.value


def test_a_plain_daily_file(file: Path) -> None:
    bars = read(file, HEADER + ROWS)
    assert numbers(bars) == NUMBERS
    assert times(bars) == DAYS
    assert (bars.symbol, bars.venue, str(bars.timeframe), bars.origin) == ("X", "SIM", "1-DAY", str(file))
    assert bars.notes == ()


def test_columns_are_what_the_engine_takes(file: Path) -> None:
    bars = read(file, HEADER + ROWS)
    assert bars.times.dtype == np.int64
    for column in (bars.times, bars.open, bars.high, bars.low, bars.close, bars.volume):
        assert column.flags.c_contiguous and column.flags.writeable
    assert {column.dtype.name for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)} == {"float64"}


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress((HEADER + ROWS).encode(), mtime=0),
        b"\xef\xbb\xbf" + (HEADER + ROWS).encode(),
        (HEADER + ROWS).replace("\n", "\r\n").encode(),
        (HEADER + ROWS).rstrip("\n").encode(),
        (HEADER + ROWS).replace(",", ";").encode(),
        (HEADER + ROWS).replace(",", "\t").encode(),
        (HEADER + ROWS).replace(",", ", ").encode(),
        ("\n" + HEADER + "\n" + ROWS.replace("\n", "\n\n,,,,,\n")).encode(),
        (HEADER + ROWS).replace("\n", ",\n").encode(),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEADER + ROWS).split()).encode(),
    ],
    ids=["gzip", "bom", "crlf", "no last line feed", "semicolon", "tab", "spaces", "blank lines", "trailing", "quoted"],
)
def test_the_same_file_in_other_clothes(file: Path, content: bytes) -> None:
    bars = read(file, content)
    assert numbers(bars) == NUMBERS
    assert times(bars) == DAYS


@pytest.mark.parametrize(
    "header",
    [
        "Date,Open,High,Low,Close,Volume",
        "DATETIME,OPEN,HIGH,LOW,CLOSE,VOL",
        "timestamp,o,h,l,c,v",
        "Date Time,open,high,low,close,vol",
        "date_time,Open,High,Low,Close,Volume",
        "Gmt time,Open,High,Low,Close,Volume",
        "open time,open,high,low,close,volume",
        "time,open,high,low,close,volume",
        " Date , Open , High , Low , Close , Volume ",
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<TICKVOL>",
    ],
)
def test_header_spellings(file: Path, header: str) -> None:
    assert numbers(read(file, f"{header}\n{ROWS}")) == NUMBERS


def test_columns_may_come_in_any_order_and_others_are_ignored(file: Path) -> None:
    frame = pd.read_csv(io.StringIO(HEADER + ROWS))
    frame["Adj Close"], frame["Dividends"] = -1.0, "none"
    frame = frame[["Adj Close", "volume", "close", "date", "Dividends", "low", "high", "open"]]
    assert numbers(read(file, frame.to_csv(index=False))) == NUMBERS


def test_without_a_volume_column_volume_is_zero_and_a_note_says_so(file: Path) -> None:
    bars = read(file, "date,open,high,low,close\n2010-05-05,10,11,9,10.5\n")
    assert bars.volume.tolist() == [0.0]
    assert "no volume column" in bars.notes[0]


@pytest.mark.parametrize(
    "content, expected",
    [
        (
            "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
            "2010.05.06\t09:30:00\t1.1\t1.2\t1.0\t1.15\t12\t7\t2\n",
            "2010-05-06T09:31:00.000000",
        ),
        ("Date,Time,Open,High,Low,Close,Volume\n20100506,93000,1.1,1.2,1,1.15,7\n", "2010-05-06T09:31:00.000000"),
        ("Date,Time,Open,High,Low,Close,Volume\n20100506,0930,1.1,1.2,1,1.15,7\n", "2010-05-06T09:31:00.000000"),
        ("Date,Time,Open,High,Low,Close,Volume\n05/13/2010,9:30,1.1,1.2,1,1.15,7\n", "2010-05-13T09:31:00.000000"),
    ],
)
def test_date_and_time_in_two_columns(file: Path, content: str, expected: str) -> None:
    bars = read(file, content, "1-MINUTE")
    assert times(bars) == [expected]
    assert numbers(bars) == [[1.1], [1.2], [1.0], [1.15], [7.0]]


MINUTES = "time,open,high,low,close\n" + "".join(f"2010-05-06 09:3{minute}:00,10,11,9,10\n" for minute in range(4))


def test_times_of_short_bars_are_their_opens_unless_said_otherwise(file: Path) -> None:
    assert times(read(file, MINUTES, "1-MINUTE"))[0] == "2010-05-06T09:31:00.000000"
    assert times(read(file, MINUTES, "1-MINUTE", "close"))[0] == "2010-05-06T09:30:00.000000"


@pytest.mark.parametrize(
    "text", ["2010-05-06 00:00:00", "2010-05-06 00:00:00+09:00", "2010-05-06T20:00:00-05:00", "1273104000000"]
)
def test_daily_rows_are_stamped_by_the_day_as_written(file: Path, text: str) -> None:
    assert times(read(file, f"{HEADER}{text},10,11,9,10,1\n")) == ["2010-05-06T23:59:59.999999"]


def test_a_daily_close_at_midnight_ends_the_day_before(file: Path) -> None:
    row = "2010-05-06 00:00:00,10,11,9,10,1\n"
    assert times(read(file, HEADER + row, stamp="close")) == ["2010-05-05T23:59:59.999999"]
    assert times(read(file, HEADER + row.replace("00:00:00", "00:00:00-05:00"), stamp="close"))[0] == DAYS[0]
    assert times(read(file, HEADER + row.replace("00:00:00", "20:00:00-05:00"), stamp="close"))[0] == DAYS[1]
    assert times(read(file, HEADER + ROWS, stamp="close")) == DAYS


def test_only_the_rows_of_the_symbol_are_read(file: Path) -> None:
    header = "ticker,date,open,high,low,close,volume\n"
    both = header + "".join(f"{name},2010-05-0{day},{day},9,1,{day},1\n" for name in "AB" for day in (5, 6))
    assert len(read(file, both, symbol="B")) == 2
    with pytest.raises(DataNotFoundError, match=r"no rows of 'C'; it has A, B"):
        read(file, both, symbol="C")
    single = header + "AAPL.US,2010-05-05,10,11,9,10,1\n"
    assert len(read(file, single, symbol="AAPL")) == 1


def test_lines_are_those_of_the_file_even_among_other_symbols(file: Path) -> None:
    header = "symbol,date,open,high,low,close,volume\n"
    content = header + "A,2010-05-05,10,11,9,10,1\nB,2010-05-05,10,11,9,10,1\n\nB,2010-05-06,10,9,11,10,1\n"
    with pytest.raises(BadDataError, match=r"line 5 .*high 9 is below low 11"):
        read(file, content, symbol="B")


BAD_ROWS = {
    "text": ("2010-05-10,10,11,9,abc,1", "close is 'abc', not a number"),
    "empty": ("2010-05-10,10,11,9,,1", "close is empty"),
    "comma": ('2010-05-10,10,11,9,"1,000.5",1', "close is '1,000.5', not a number"),
    "underscore": ("2010-05-10,10,1_1,9,10,1", "high is '1_1', not a number"),
    "null": ("2010-05-10,null,11,9,10,1", "open is 'null', not a number"),
    "nan": ("2010-05-10,nan,11,9,10,1", "open is not a finite number, nan"),
    "infinity": ("2010-05-10,10,inf,9,10,1", "high is not a finite number, inf"),
    "nan volume": ("2010-05-10,10,11,9,10,nan", "volume is not a finite number, nan"),
    "zero": ("2010-05-10,0,11,0,10,1", "open 0 is not above zero"),
    "negative": ("2010-05-10,10,11,-9,10,1", "low -9 is not above zero"),
    "high below low": ("2010-05-10,10,9,11,10,1", "high 9 is below low 11"),
    "open above high": ("2010-05-10,12,11,9,10,1", "open 12 is outside low 9 to high 11"),
    "open below low": ("2010-05-10,8,11,9,10,1", "open 8 is outside low 9 to high 11"),
    "close above high": ("2010-05-10,10,11,9,11.5,1", "close 11.5 is outside low 9 to high 11"),
    "close below low": ("2010-05-10,10,11,9,8.5,1", "close 8.5 is outside low 9 to high 11"),
    "negative volume": ("2010-05-10,10,11,9,10,-1", "volume -1 is negative"),
    "same day": ("2010-05-07,10,11,9,10,1", "has the same time as the bar before it"),
    "unsorted": ("2010-05-04,10,11,9,10,1", "the bars are not sorted by time"),
    "no date": (",10,11,9,10,1", "''"),
    "bad date": ("2010-13-10,10,11,9,10,1", "'2010-13-10'"),
    "short row": ("2010-05-10,10,11,9,10", "5 values where 6 columns are named"),
    "long row": ("2010-05-10,10,11,9,10,1,7", "7 values where 6 columns are named"),
}


@pytest.mark.parametrize("row, reason", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_refused_by_file_line_and_reason(file: Path, row: str, reason: str) -> None:
    message = refusal(file, f"{HEADER}{ROWS}{row}\n2010-05-11,10,11,9,10,1\n").message
    assert message.startswith(f"{file}, line 5")
    assert reason in message
    assert "more" not in message


@pytest.mark.parametrize("key", ["text", "nan", "high below low", "negative volume", "short row"])
def test_further_bad_rows_are_counted(file: Path, key: str) -> None:
    row, reason = BAD_ROWS[key]
    rows = "".join(row.replace("05-10", f"05-{day}") + "\n" for day in (10, 11, 12))
    message = refusal(file, HEADER + ROWS + rows).message
    assert f"{file}, line 5" in message and reason in message
    assert message.endswith("(and 2 more bad rows)")


def test_the_same_file_without_its_bad_row_is_read(file: Path) -> None:
    assert len(read(file, f"{HEADER}{ROWS}2010-05-10,10,11,9,10,1\n2010-05-11,10,11,9,10,1\n")) == 5


def test_a_file_from_new_to_old_says_so(file: Path) -> None:
    error = refusal(file, HEADER + "".join(reversed(ROWS.splitlines(keepends=True))))
    assert "line 3" in error.message and "not sorted" in error.message
    assert "from new to old" in (error.hint or "")


@pytest.mark.parametrize(
    "content, reason",
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        (HEADER, "no rows below"),
        ("date,open,high,low,volume\n", "no column for close; found: date, open, high, low, volume"),
        ("open,high,low,close\n1,1,1,1\n", "no column for date or time"),
        (ROWS, "no column for date or time, open, high, low, close; found: 2010-05-05, 10"),
        ("date,open,high,low,close,Close\n2010-05-05,1,1,1,1,1\n", "2 columns called 'close'"),
        (HEADER.encode() + b"2010-05-05,10,11,9,\xff,1\n", "line 2: not UTF-8"),
        ((HEADER + ROWS).encode("utf-16"), "line 1: not UTF-8"),
        (gzip.compress((HEADER + ROWS).encode(), mtime=0)[:-20], "gzip file is damaged"),
        (gzip.compress((HEADER + ROWS).encode(), mtime=0)[:5], "gzip file is damaged"),
        (HEADER + '2010-05-05,"10,11,9,10,1\n' + "x" * 200_000, "not CSV"),
    ],
)
def test_what_is_no_table_of_prices_is_refused(file: Path, content: str | bytes, reason: str) -> None:
    assert reason in refusal(file, content).message


def test_a_missing_file_names_the_one_that_was_meant(file: Path) -> None:
    file.write_text(HEADER + ROWS)
    with pytest.raises(DataNotFoundError, match=r"price\.csv does not exist") as caught:
        read_csv(file.with_name("price.csv"), symbol="X", venue="SIM", timeframe=parse_timeframe("1d"))
    assert "prices.csv" in (caught.value.hint or "")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="cannot be read"):
        read_csv(tmp_path, symbol="X", venue="SIM", timeframe=parse_timeframe("1d"))


@pytest.mark.parametrize(
    "content, timeframe, seen, hint",
    [
        (MINUTES, "1-DAY", "1 minute apart", "1-MINUTE"),
        (MINUTES, "5-MINUTE", "1 minute apart", "1-MINUTE"),
        (MINUTES.replace(":30", ":00").replace(":31", ":05").replace(":32", ":10").replace(":33", ":15"),
         "1-MINUTE", "5 minutes apart", "5-MINUTE"),
        (HEADER + "".join(f"2010-05-{day:02},10,11,9,10,1\n" for day in range(3, 32, 7)), "1-DAY", "7 days", None),
        (HEADER + "".join(f"2010-05-{day:02} 00:00,10,11,9,10,1\n" for day in range(3, 7)), "1-HOUR", "1 day", "1-DAY"),
    ],
)  # fmt: skip
def test_another_spacing_than_the_timeframe_is_refused(
    file: Path, content: str, timeframe: str, seen: str, hint: str | None
) -> None:
    error = refusal(file, content, timeframe)
    assert seen in error.message and timeframe in error.message
    assert (hint in error.hint) if hint and error.hint else hint is error.hint


def test_dates_alone_are_no_short_bars(file: Path) -> None:
    assert "a date and no time" in refusal(file, HEADER + ROWS, "1-HOUR").message


def test_missing_bars_are_no_other_spacing(file: Path) -> None:
    sparse = "".join(f"2010-05-06 09:{minute},10,11,9,10,1\n" for minute in (10, 15, 21, 22, 40))
    assert len(read(file, HEADER + sparse, "1-MINUTE")) == 5
    weeks_apart = "2010-05-07,10,11,9,10,1\n2010-05-21,10,11,9,10,1\n"
    assert len(read(file, HEADER + weeks_apart)) == 2, "two rows tell nothing of what is usual"


def test_an_ambiguous_date_is_refused_with_its_line(file: Path) -> None:
    error = refusal(file, HEADER + "05/06/2010,10,11,9,10,1\n06/06/2010,10,11,9,10,1\n")
    assert "line 2" in error.message and "day/month or month/day" in error.message
    assert "2010-05-06" in (error.hint or "")


prices = st.floats(0.01, 1e7, allow_nan=False).map(lambda number: round(number, 4))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(prices, prices, prices, prices, st.integers(0, 10**12)), min_size=1, max_size=30),
    st.sampled_from([",", ";", "\t"]),
    st.booleans(),
)
def test_numbers_and_days_agree_with_pandas(
    file: Path, rows: list[tuple[float, float, float, float, int]], separator: str, zipped: bool
) -> None:
    days = pd.date_range("2010-01-01", periods=len(rows), freq="D")
    frame = pd.DataFrame(
        [(*(min(row[:4]), max(row[:4])), row[0], row[3], row[4]) for row in rows],
        columns=["Low", "High", "Open", "Close", "Volume"],
    )
    frame.insert(0, "Date", days)
    frame.to_csv(file, sep=separator, index=False, compression="gzip" if zipped else None)
    bars = read_csv(file, symbol="X", venue="SIM", timeframe=parse_timeframe("1-DAY"))
    witness = pd.read_csv(file, sep=separator, parse_dates=["Date"], compression="gzip" if zipped else None)
    for name in ("Open", "High", "Low", "Close", "Volume"):
        assert getattr(bars, name.lower()).tolist() == witness[name].astype(float).tolist()
    ends = witness["Date"].dt.as_unit("ns") + pd.Timedelta(days=1) - pd.Timedelta(microseconds=1)
    assert bars.times.tolist() == ends.astype("int64").tolist()
