"""Running the source text that was kept instead of what is importable now. For a fresh worker process: it is never the
same again."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from ntrader.errors import NtraderError, RunError
from ntrader.sources import source_closure

# In use by the worker itself: its errors have to be those that it knows.
_STAYING = {"ntrader", "ntrader.errors", "ntrader.worker", "ntrader.replay"}

# Of a compiled module its sha256 was kept.
_COMPILED = re.compile("[0-9a-f]{64}")


def execute(
    snapshot: dict[str, Any],
    home: Path,
    bars: Any,
    sources: Mapping[str, str],
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """As `ntrader.execution.execute`, with the modules of `sources` as they were. Raises RunError where ntrader's own
    modules of then and of now do not fit together."""
    _replace(sources)
    try:
        execution = importlib.import_module("ntrader.execution")
        config = importlib.import_module("ntrader.config").build_config(snapshot, origin="the stored config")
        return execution.execute(config, home, _rebuilt(bars), dict(sources), progress=progress)
    except NtraderError:
        raise
    except (ImportError, AttributeError, TypeError) as error:
        if not _ours_changed(sources):
            raise
        raise RunError(
            f"the kept modules of ntrader do not run in this ntrader: {type(error).__name__}: {error}",
            hint="Install the ntrader of that time to run them.",
        ) from error


def _replace(sources: Mapping[str, str]) -> None:
    ours_changed = _ours_changed(sources)
    for name in list(sys.modules):
        top = name.partition(".")[0]
        if (name in sources and top != "ntrader") or (ours_changed and top == "ntrader" and name not in _STAYING):
            del sys.modules[name]
    kept = {
        name: text
        for name, text in sources.items()
        if (ours_changed or name.partition(".")[0] != "ntrader") and not _COMPILED.fullmatch(text)
    }
    sys.meta_path.insert(0, _Kept(kept))
    importlib.invalidate_caches()


def _ours_changed(sources: Mapping[str, str]) -> bool:
    ours = {name: text for name, text in sources.items() if name.partition(".")[0] == "ntrader"}
    now = source_closure(sorted(ours))
    return any(now.get(name) != text for name, text in ours.items())


def _rebuilt(bars: Any) -> Any:
    """Of the class that is importable now."""
    if bars is None:
        return None
    module = importlib.import_module("ntrader.data.bars")
    values = {field.name: getattr(bars, field.name) for field in dataclasses.fields(bars)}
    return module.Bars(**values | {"timeframe": module.parse_timeframe(str(bars.timeframe))})


class _Kept(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Modules from their text."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._sources or fullname in _STAYING:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, origin="kept", is_package=self.is_package(fullname))
        if spec is not None and spec.submodule_search_locations is not None:
            # What was not kept, because nothing imported it, is still on the disk.
            spec.submodule_search_locations.extend(_folders(fullname))
        return spec

    def get_source(self, fullname: str) -> str:
        return self._sources[fullname]

    def is_package(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self._sources)


def _folders(package: str) -> list[str]:
    places = [Path(entry or ".") / Path(*package.split(".")) for entry in sys.path]
    return [str(place) for place in places if place.is_dir()]
