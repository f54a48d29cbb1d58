"""What went in and what came out, as sha256: five fingerprints, the run key over them, and the result digest."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from functools import cache
from pathlib import Path

import numpy as np

from ntrader.config import RunConfig, canonical_json, sha256
from ntrader.results import Fill, Fingerprints, RunResult, Trade

# The libraries that compute a result; others (a linter, a web server) may change without changing it.
_COMPUTING = ("nautilus-trader", "numpy", "pandas", "pyarrow", "msgspec")
_DIGEST_FORMAT = b"ntrader-result-1"


def fingerprints(config: RunConfig, data: str) -> Fingerprints:
    """All five of a run whose bars have the fingerprint `data`; the strategy must be importable."""
    parts = {
        "config": sha256(config.canonical_json()),
        "data": data,
        "code": code_fingerprint(config.strategy.path),
        "engine": engine_fingerprint(),
        "environment": environment_fingerprint(),
    }
    return Fingerprints(**parts, run_key=sha256(canonical_json(parts)))


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


def code_fingerprint(strategy_path: str) -> str:
    """Over the source text of the strategy, of what it imports from its own package, and of our engine."""
    sources = source_closure([strategy_path.partition(":")[0], "ntrader.engine"])
    return sha256(canonical_json({name: sha256(text) for name, text in sources.items()}))


@cache
def engine_fingerprint() -> str:
    from nautilus_trader.core.nautilus_pyo3 import HIGH_PRECISION

    return sha256(canonical_json([importlib.metadata.version("nautilus-trader"), bool(HIGH_PRECISION)]))


@cache
def environment_fingerprint() -> str:
    return sha256(canonical_json(environment()))


def environment() -> dict[str, object]:
    """Python, platform and the versions of the libraries that compute results, with what those need."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libraries": dict(sorted(_versions(_COMPUTING))),
    }


def source_closure(modules: Iterable[str]) -> dict[str, str]:
    """Source text by module name: the modules and, transitively, what they import from packages of their own.

    A module is somebody's own when its top-level package is that of one of `modules`, or when it lies outside
    the standard library and the installed packages.
    """
    waiting = list(modules)
    packages = {name.partition(".")[0] for name in waiting}
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        path = _source_file(name)
        if name in found or path is None or not _own(name, path, packages):
            continue
        found[name] = path.read_text(encoding="utf-8")
        waiting.extend(_imports(found[name], name, is_package=path.name == "__init__.py"))
    return dict(sorted(found.items()))


def _packed(row: Fill | Trade) -> bytes:
    return b"".join(
        struct.pack("<d", value) if isinstance(value, float) else f"{value};".encode() for value in astuple(row)
    )


def _source_file(name: str) -> Path | None:
    module = sys.modules.get(name)
    try:
        spec = getattr(module, "__spec__", None) or importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def _own(name: str, path: Path, packages: set[str]) -> bool:
    if name.partition(".")[0] in packages:
        return True
    return name.partition(".")[0] not in sys.stdlib_module_names and "site-packages" not in path.parts


def _imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parents = parts[: len(parts) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


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
        needed = (text for text in distribution.requires or () if "extra ==" not in text)
        waiting.extend(re.split(r"[\s;<>=!~\[(]", text, maxsplit=1)[0] for text in needed)
