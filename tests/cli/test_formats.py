"""Rows as text: what is read back is what was written."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.formats import Format, destination, distinct, plain, write
from ntrader.errors import ConfigError, NtraderError

ODD = 'a "b", |c|\\\r\nümläut\t'


class Colour(Enum):
    red = "r"


def written(format_: Format, columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    stream = io.StringIO()
    write(format_, stream, columns, iter(rows))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (0.1 + 0.2, 0.30000000000000004),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (Decimal("1.10"), 1.1),
        (Decimal("100000.00"), 100000),
        (Decimal("12345678901234567890.5"), "12345678901234567890.5"),
        (Decimal("NaN"), "NaN"),
        (datetime(2020, 1, 1, 9, tzinfo=timezone(timedelta(hours=9))), "2020-01-01T00:00:00+00:00"),
        (datetime(2020, 1, 1, 0, 0, 0, 5), "2020-01-01T00:00:00.000005"),
        (date(2020, 1, 1), "2020-01-01"),
        (time(1, 2), "01:02:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "\\x00ff"),
        (Colour.red, "r"),
        ({"a": [Decimal("0.5"), None], 1: (UUID(int=0),)},
         {"a": [0.5, None], "1": ["00000000-0000-0000-0000-000000000000"]}),
    ],
)  # fmt: skip
def test_plain_values(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_every_format() -> None:
    columns, rows = ["n", "text"], [(1.5, ODD), (None, None), (Decimal("1E-10"), "")]

    assert written(Format.csv, columns, rows) == f'n,text\n1.5,"{ODD.replace('"', '""')}"\n,\n0.0000000001,""\n'
    assert json.loads(written(Format.json, columns, rows)) == [
        {"n": 1.5, "text": ODD}, {"n": None, "text": None}, {"n": 1e-10, "text": ""},
    ]  # fmt: skip
    assert [json.loads(line)["text"] for line in written(Format.ndjson, columns, rows).splitlines()] == [ODD, None, ""]
    assert written(Format.md, columns, rows).splitlines() == [
        "| n | text |",
        "| --- | --- |",
        '| 1.5 | a "b", \\|c\\|\\\\<br>ümläut\t |',
        "| - | - |",
        "| 0.0000000001 |  |",
    ]
    assert written(Format.table, columns, rows).splitlines() == [
        "           n  text",
        "------------  -----------------------",
        '         1.5  a "b", |c|\\\\r\\nümläut\\t',
        "           -  -",
        "0.0000000001",
    ]


@pytest.mark.parametrize(
    ("format_", "expected"),
    [
        ("csv", "a,b\n"),
        ("json", "[]\n"),
        ("ndjson", ""),
        ("md", "| a | b |\n| --- | --- |\n"),
        ("table", "a  b\n-  -\n"),
    ],
)
def test_no_rows(format_: str, expected: str) -> None:
    assert written(Format(format_), ["a", "b"], []) == expected


def test_names_that_repeat() -> None:
    assert distinct(["a", "a", "a_2", "a"]) == ["a", "a_2", "a_2_2", "a_3"]
    assert json.loads(written(Format.json, ["a", "a"], [(1, 2)])) == [{"a": 1, "a_2": 2}]


@given(st.lists(st.tuples(st.text() | st.none(), st.floats(allow_nan=False), st.text()), max_size=5))
def test_csv_and_json_lose_nothing(rows: list[tuple[str | None, float, str]]) -> None:
    rows = [row for row in rows if "\r" not in f"{row[0]}{row[2]}"]  # Python's reader makes it \n
    table = list(csv.reader(io.StringIO(written(Format.csv, ["a", "b", "c"], rows), newline="")))
    documents = json.loads(written(Format.json, ["a", "b", "c"], rows))

    assert [(line[0], float(line[1]), line[2]) for line in table[1:]] == [(a or "", b, c) for a, b, c in rows]
    assert [(row["a"], float(row["b"]), row["c"]) for row in documents] == rows


def test_one_empty_column_is_still_a_line() -> None:
    assert list(csv.reader(io.StringIO(written(Format.csv, ["a"], [(None,), ("",)])))) == [["a"], [""], [""]]


def test_rows_are_written_as_they_come() -> None:
    stream = io.StringIO()
    seen = []

    def rows() -> Iterator[tuple[int]]:
        for number in range(3):
            yield (number,)
            seen.append(stream.getvalue().count("\n"))

    for format_ in (Format.csv, Format.json, Format.ndjson, Format.md):
        seen.clear()
        write(format_, stream, ["n"], rows())
        assert seen[0] < seen[1] < seen[2]


# -- files ---------------------------------------------------------------------------------------------------


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with destination(path) as stream:
        stream.write("ü\n")
        assert not path.exists()
    assert path.read_bytes() == "ü\n".encode()

    with pytest.raises(KeyboardInterrupt), destination(path) as stream:
        stream.write("half")
        raise KeyboardInterrupt
    assert path.read_bytes() == "ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    before = os.umask(0o027)
    try:
        with destination(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    with destination(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in (
        (tmp_path / "no" / "x", "there is no folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x", "there is no folder"),
    ):
        with pytest.raises(ConfigError, match=words), destination(path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(NtraderError, match="No space left on device; nothing of it was kept"),
        destination(tmp_path / "x"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with destination(Path("/dev/null")) as stream:
        stream.write("gone")
    assert Path("/dev/null").is_char_device()
    for path in (None, Path("-")):
        with destination(path) as stream:
            stream.write("said\n")
    assert capsys.readouterr().out == "said\nsaid\n"


def test_times_of_another_zone_are_utc() -> None:
    assert written(Format.csv, ["t"], [(datetime(2020, 1, 1, tzinfo=UTC),)]) == "t\n2020-01-01T00:00:00+00:00\n"
