"""What went in and what came out, as sha256: five fingerprints, the run key over them, and the result digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from ntrader.config import RunConfig, canonical_json, sha256
from ntrader.results import Fill, Fingerprints, RunResult, Trade
from ntrader.sources import source_closure

# The libraries that compute a result; others (a linter, a web server) may change without changing it.
_COMPUTING = ("nautilus-trader", "numpy", "pandas", "pyarrow", "msgspec")
_DIGEST_FORMAT = b"ntrader-result-1"


def fingerprints(config: RunConfig, data: str, documents: Mapping[str, str]) -> Fingerprints:
    """All five of a run whose bars have the fingerprint `data`; see `documents`."""
    parts = {"config": sha256(config.canonical_json()), "data": data}
    parts |= {name: sha256(text) for name, text in documents.items()}
    return Fingerprints(**parts, run_key=sha256(canonical_json(parts)))


def documents(sources: Mapping[str, str], engine: Sequence[object]) -> dict[str, str]:
    """What is hashed for `code`, `engine` and `environment`: the modules with the sha256 of their text, what
    `ntrader.engine.identity` says, and `environment()`."""
    return {
        "code": canonical_json({name: sha256(text) for name, text in sources.items()}),
        "engine": canonical_json(engine),
        "environment": canonical_json(environment()),
    }


def code(strategy_path: str) -> dict[str, str]:
    """Source text by module: the strategy, what it imports from its own package, and our engine."""
    return source_closure([strategy_path.partition(":")[0], "ntrader.engine", "ntrader.metrics"])


def result_digest(result: RunResult) -> str:
    """Over every fill, closed trade and equity point, bit by bit. Random ids are not part of a result."""
    digest = hashlib.sha256(_DIGEST_FORMAT)
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


@cache
def environment() -> dict[str, object]:
    """Python, platform and the versions of the libraries that compute results, with what those need."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libraries": dict(sorted(_versions(_COMPUTING))),
    }


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


def _versions(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    waiting, seen = list(names), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield name, distribution.version
        needed = (text for text in distribution.requires or () if not re.search(r"\bextra\s*==", text))
        waiting.extend(re.split(r"[\s;<>=!~\[(]", text, maxsplit=1)[0] for text in needed)
