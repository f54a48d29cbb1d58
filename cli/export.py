"""Runs to a file of any size, a thousand at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.formats import Format, destination, text, write
from ntrader.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow

    from storage.conditions import Filters
    from storage.search import Order

_FORMATS = ("csv", "json", "ndjson", "md", "parquet")
_BATCH = 5_000


def export_runs(
    format_: str, output: Path | None, columns: Sequence[str], filters: Filters, order: Order, limit: int | None
) -> int:
    """Write the runs that fit; how many there were. Raises ConfigError for an unknown format or parquet to stdout."""
    from ntrader.settings import load_settings
    from storage.runs import streamed_runs

    if format_ not in _FORMATS:
        raise ConfigError(f"{format_!r} is no format of an export", hint=f"Choose one of {', '.join(_FORMATS)}.")
    if format_ == "parquet" and output is None:
        raise ConfigError("parquet is no text for a terminal", hint="Name a file: -o runs.parquet")
    with streamed_runs(load_settings(), columns, filters, order, limit) as (names, rows):
        counted = _Counted(rows)
        if format_ == "parquet":
            assert output is not None
            _write_parquet(output, names, counted)
        else:
            with destination(output) as stream:
                write(Format(format_), stream, names, counted)
    return counted.number


class _Counted:
    """Rows on their way to a writer, counted."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.number = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in self._rows:
            self.number += 1
            yield row


def _write_parquet(output: Path, names: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Typed by column, so that a batch without a single value has the type of the others. JSON stays text."""
    import pyarrow
    from pyarrow import parquet

    from ntrader.files import replacing

    schema = pyarrow.schema([(name, _arrow_type(name)) for name in names])
    with replacing(output) as fresh, parquet.ParquetWriter(fresh, schema, compression="zstd") as writer:
        for batch in batched(rows, _BATCH, strict=False):
            columns = zip(*batch, strict=True)
            arrays = [_arrow_column(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _arrow_type(name: str) -> pyarrow.DataType:
    import pyarrow

    from storage.fields import COUNTS, FIELDS

    if name in COUNTS:
        return pyarrow.int64()
    kinds = {
        "number": pyarrow.float64(),
        "time": pyarrow.timestamp("us", tz="UTC"),
        "boolean": pyarrow.bool_(),
    }
    return kinds.get(FIELDS.get(name, "text"), pyarrow.string())


def _arrow_column(values: tuple[Any, ...], kind: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow

    if pyarrow.types.is_string(kind):
        values = tuple(value if value is None or type(value) is str else text(value) for value in values)
    elif pyarrow.types.is_floating(kind):
        values = tuple(value if value is None or type(value) is float else float(value) for value in values)
    return pyarrow.array(values, kind)
