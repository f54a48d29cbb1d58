"""Columns of 64-bit numbers as PostgreSQL arrays and back, to the bit, without a Python object for each number; columns
of words on their way there.

PostgreSQL's binary form of a one-dimensional array is a header and then, for each element, its length and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import pq
from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Dumper

_HEADER = struct.Struct(">iiIii")  # dimensions, has NULLs, element type, length, lower bound
_EMPTY = struct.Struct(">iiI")
_LENGTH = struct.Struct(">i")
_INT8, _FLOAT8 = 20, 701
_INT8_ARRAY, _FLOAT8_ARRAY = 1016, 1022
_TEXT, _TEXT_ARRAY = 25, 1009


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """An int64 or float64 array on its way to the database."""

    values: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Words on their way to the database: psycopg sends an empty list of them in text form, which COPY cannot read."""

    values: Sequence[str]


def steps(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first time and then the differences: a regular series becomes one number repeated, which compresses."""
    return np.diff(times, prepend=np.int64(0))


def times(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The inverse of `steps`."""
    return np.cumsum(steps, dtype=np.int64)


def decode(data: bytes) -> NDArray[Any]:
    """What `array_send(column)` returned. Raises ValueError for what is no plain array of int8 or float8."""
    dimensions, nulls, kind = _EMPTY.unpack_from(data)
    if nulls or dimensions > 1 or kind not in (_INT8, _FLOAT8):
        raise ValueError("not a plain array of int8 or float8")
    if not dimensions:
        return np.empty(0, dtype=_native(kind))
    cells = np.frombuffer(data, dtype=_cells(kind), offset=_HEADER.size)
    return np.ascontiguousarray(cells["value"], dtype=_native(kind))


class ColumnDumper(Dumper):
    """Registered with `register`."""

    format = pq.Format.BINARY

    def get_key(self, obj: Column, format: Any) -> Any:
        return (self.cls, obj.values.dtype.kind)

    def upgrade(self, obj: Column, format: Any) -> Dumper:
        dumper = ColumnDumper(self.cls)
        dumper.oid = _INT8_ARRAY if obj.values.dtype.kind == "i" else _FLOAT8_ARRAY
        return dumper

    def dump(self, obj: Column) -> Buffer:
        kind = _INT8 if obj.values.dtype.kind == "i" else _FLOAT8
        if obj.values.dtype != _native(kind):
            raise TypeError(f"only int64 or float64 columns can be stored, not {obj.values.dtype}")
        if not len(obj.values):
            return _EMPTY.pack(0, 0, kind)
        cells = np.empty(len(obj.values), dtype=_cells(kind))
        cells["length"], cells["value"] = 8, obj.values
        return _HEADER.pack(1, 0, kind, len(cells), 1) + cells.tobytes()


class TextsDumper(Dumper):
    """Registered with `register`."""

    format = pq.Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, obj: Texts) -> Buffer:
        if not obj.values:
            return _EMPTY.pack(0, 0, _TEXT)
        cells = [text.encode() for text in obj.values]
        return _HEADER.pack(1, 0, _TEXT, len(cells), 1) + b"".join(_LENGTH.pack(len(cell)) + cell for cell in cells)


def register(context: AdaptContext) -> None:
    """Let this connection, or cursor, take a `Column` and `Texts` as parameters."""
    context.adapters.register_dumper(Column, ColumnDumper)
    context.adapters.register_dumper(Texts, TextsDumper)


def _native(kind: int) -> np.dtype[Any]:
    return np.dtype("<i8" if kind == _INT8 else "<f8")


def _cells(kind: int) -> np.dtype[Any]:
    return np.dtype([("length", ">i4"), ("value", ">i8" if kind == _INT8 else ">f8")])
