"""Rows as csv, json, ndjson, Markdown or a table: column names and any iterable of rows in, text out.

All but the table write each row as it comes, so that a million rows need no more memory than one.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from ntrader.files import replacing

UNDEFINED = "-"

Row = Sequence[Any]
Writer = Callable[[TextIO, Sequence[str], Iterable[Row]], None]


class Format(StrEnum):
    """How rows are written."""

    table = "table"
    csv = "csv"
    json = "json"
    ndjson = "ndjson"
    md = "md"


def write(format_: Format, stream: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """`rows` hold Python values in the order of `columns`; csv, json and ndjson keep every digit."""
    _WRITERS[format_](stream, columns, rows)


def write_document(document: object, path: Path | None) -> None:
    """One JSON document, to be read by people too."""
    with destination(path) as stream:
        stream.write(json.dumps(plain(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n")


@contextmanager
def destination(path: Path | None) -> Iterator[TextIO]:
    """Where `-o FILE` says, or stdout; a file takes its place when it is whole.

    Raises ConfigError where no file can be made.
    """
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as stream:
        yield stream


def write_csv(stream: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """As PostgreSQL writes it: NULL is empty, an empty text is `""`."""
    stream.write(_csv_line(columns))
    for row in rows:
        stream.write(_csv_line(row))


def write_json(stream: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A list of objects, one a line."""
    names, separator = distinct(columns), "[\n"
    for row in rows:
        stream.write(f"{separator}  {_object(names, row)}")
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def write_ndjson(stream: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    names = distinct(columns)
    for row in rows:
        stream.write(f"{_object(names, row)}\n")


def write_md(stream: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    stream.write(_md_line(columns) + _md_line(["---"] * len(columns)))
    for row in rows:
        stream.write(_md_line([shown(value) for value in row]))


def write_table(stream: TextIO, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Aligned for reading; numbers to the right. Needs all rows at once."""
    values = [list(row) for row in rows]
    lines = [[printable(name) for name in columns], *([printable(shown(value)) for value in row] for row in values)]
    write_aligned(stream, lines, [_is_numeric(row[index] for row in values) for index in range(len(columns))])


def write_aligned(stream: TextIO, lines: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    """The first line is the heading; `right` says which columns keep to the right."""
    width_of = len if all(cell.isascii() for line in lines for cell in line) else _cell_width()
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    for line in (lines[0], ["-" * width for width in widths], *lines[1:]):
        gaps = [" " * (width - width_of(cell)) for cell, width in zip(line, widths, strict=True)]
        cells = [gap + cell if end else cell + gap for cell, gap, end in zip(line, gaps, right, strict=True)]
        stream.write("  ".join(cells).rstrip() + "\n")


_QUOTED = re.compile(r'[",\r\n]|^\s|\s$').search
_WRITERS: dict[Format, Writer] = {
    Format.table: write_table,
    Format.csv: write_csv,
    Format.json: write_json,
    Format.ndjson: write_ndjson,
    Format.md: write_md,
}


def plain(value: Any) -> Any:
    """A value as JSON knows it: times as ISO 8601, aware ones in UTC; NaN and infinity as their names.

    A Decimal becomes a number where that keeps every digit, else a text.
    """
    if value is None or type(value) in {bool, int, str}:
        return value
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, date | time):
        return _moment(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    return plain(value.value) if isinstance(value, Enum) else str(value)


# It asks `plain` only for what it does not know: a row is mostly numbers and texts.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain)


def text(value: Any) -> str:
    """A value as one cell, with every digit; `None` has no text of its own and is empty."""
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    known = plain(value)
    if known is None:
        return ""
    return known if isinstance(known, str) else _ENCODER.encode(known)


def shown(value: Any) -> str:
    """The same for reading: `-` where there is nothing."""
    return UNDEFINED if value is None else text(value)


def json_text(document: Any) -> str:
    """On one line, of plain values."""
    try:
        return _ENCODER.encode(document)
    except ValueError:  # NaN or infinity in it, for which the encoder has no word
        return _ENCODER.encode(plain(document))


def distinct(columns: Sequence[str]) -> list[str]:
    """The names with `_2`, `_3`... where one repeats: an object would keep the last one only."""
    names: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def _object(names: Sequence[str], row: Row) -> str:
    return json_text(dict(zip(names, row, strict=True)))


def _moment(value: date | time) -> str:
    if isinstance(value, datetime) and value.utcoffset():
        return value.astimezone(UTC).isoformat()
    return value.isoformat()


def _number(value: float | Decimal) -> int | float | str:
    if not math.isfinite(value):
        # As PostgreSQL calls them; JSON has no such numbers.
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, float):
        return float(value)
    if value == value.to_integral_value():
        return int(value)
    near = float(value)
    return near if Decimal(repr(near)) == value else f"{value:f}"


def _csv_line(row: Row) -> str:
    line = ",".join([_CSV.get(type(value), _csv_other)(value) for value in row])
    # A line with nothing in it would be taken for none.
    return f"{line}\n" if line else '""\n'


def _csv_text(cell: str) -> str:
    if cell.isalnum():  # as most are, and it takes a tenth of the search
        return cell
    return cell if cell and not _QUOTED(cell) else '"' + cell.replace('"', '""') + '"'


def _csv_float(value: float) -> str:
    cell = repr(value)
    return text(value) if cell[-1] in "fn" else cell  # inf and nan have names of their own


def _csv_other(value: Any) -> str:
    return _csv_text(text(value))


# A million rows are fifty million cells: each goes straight to its own function.
_CSV: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    str: _csv_text,
    float: _csv_float,
    int: str,
    bool: lambda value: "true" if value else "false",
    datetime: _moment,
    UUID: str,
}


def _md_line(cells: Sequence[str]) -> str:
    safe = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(re.sub(r"\r\n|\r|\n", "<br>", cell) for cell in safe) + " |\n"


def printable(cell: str) -> str:
    """A line end would break the table, and an escape sequence would do as it likes with the terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in cell)


def _cell_width() -> Callable[[str], int]:
    """Letters of some scripts are two columns wide. Loaded only where there are others than ASCII's."""
    from rich.cells import cell_len

    return cell_len


def _is_numeric(values: Iterable[Any]) -> bool:
    kinds = [type(value) for value in values if value is not None]
    return bool(kinds) and all(issubclass(kind, int | float | Decimal) and kind is not bool for kind in kinds)
