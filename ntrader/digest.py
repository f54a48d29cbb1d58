"""What came out, as one sha256: equal digests mean equal results, to the bit. Reaches no engine."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from ntrader.results import Fill, RunResult, Trade

_FORMAT = b"ntrader-result-1"


def result_digest(result: RunResult) -> str:
    """Over every fill, closed trade and equity point, bit by bit. Random ids are not part of a result."""
    digest = hashlib.sha256(_FORMAT)
    digest.update(struct.pack("<d", result.initial_capital))
    for name, rows in (("fills", result.fills), ("trades", result.trades)):
        digest.update(f"{name}:{len(rows)};".encode())
        for row in rows:
            digest.update(_packed(row))
    curve = result.equity_curve
    digest.update(f"equity:{len(curve)};".encode())
    digest.update(np.ascontiguousarray(curve.times, dtype="<i8"))
    digest.update(np.ascontiguousarray(curve.equity, dtype="<f8"))
    return digest.hexdigest()


def _packed(row: Fill | Trade) -> bytes:
    """The fields by their declared types: numbers in 8 bytes, text after its length; none runs into the next."""
    return b"".join(_PACK[field.type](getattr(row, field.name)) for field in fields(row))  # type: ignore[index]


def _packed_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<q", len(data)) + data


# Annotations are texts here, as `ntrader.results` has them.
_PACK: dict[str, Callable[[Any], bytes]] = {
    "int": struct.Struct("<q").pack,
    "float": struct.Struct("<d").pack,
    "str": _packed_text,
}
