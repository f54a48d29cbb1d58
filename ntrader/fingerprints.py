"""What went in, as sha256: five fingerprints, and the run key over them."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

from ntrader.config import RunConfig, canonical_json, sha256
from ntrader.results import Fingerprints
from ntrader.sources import source_closure

# The libraries that compute a result; others (a linter, a web server) may change without changing it.
_COMPUTING = ("nautilus-trader", "numpy", "pandas", "pyarrow", "msgspec")


def fingerprints(config: RunConfig, data: str, documents: Mapping[str, str]) -> Fingerprints:
    """All five of a run whose bars have the fingerprint `data`; see `documents`."""
    return combined(config, data, {name: sha256(text) for name, text in documents.items()})


def combined(config: RunConfig, data: str, others: Mapping[str, str]) -> Fingerprints:
    """The same, where the fingerprints of the documents are known."""
    parts = {"config": sha256(config.canonical_json()), "data": data, **others}
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
