"""Running the source text that was kept instead of what is importable now. For a fresh worker process: it is never the
same again."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.abc
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
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
    if os.getcwd() not in sys.path:  # where strategies are looked for
        sys.path.insert(0, os.getcwd())
    _require_compiled(sources)
    ours_changed = _ours_changed(sources)
    kept = {
        name: text
        for name, text in sources.items()
        if (ours_changed or not _is_ours(name)) and not _COMPILED.fullmatch(text)
    }
    finder = _Kept(kept)
    for name in list(sys.modules):
        if name not in _STAYING and (finder.has(name) or (ours_changed and _is_ours(name))):
            del sys.modules[name]
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()


def _ours_changed(sources: Mapping[str, str]) -> bool:
    ours = {name: text for name, text in sources.items() if _is_ours(name)}
    now = source_closure(ours)
    return any(now.get(name) != text for name, text in ours.items())


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "ntrader"


def _require_compiled(sources: Mapping[str, str]) -> None:
    """There is no text to run: the file itself has to be what it was."""
    for name, text in sources.items():
        if _COMPILED.fullmatch(text) and source_closure([name]).get(name) != text:
            raise RunError(
                f"the compiled module {name} is not what it was, and of compiled modules only the hash is kept",
                hint=f"Build {name} as it was, or reproduce without --with-original-code.",
            )


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
        if not self.has(fullname) or fullname in _STAYING:
            return None
        spec = importlib.util.spec_from_loader(fullname, self, origin="kept", is_package=self.is_package(fullname))
        if spec is None:
            return None
        file = _file(fullname)
        if file is not None:
            # A strategy may look for its files beside its own.
            spec.origin, spec.has_location = file, True
        if spec.submodule_search_locations is not None:
            # What was not kept, because nothing imported it, is still on the disk.
            spec.submodule_search_locations.extend(_folders(fullname))
        return spec

    def has(self, fullname: str) -> bool:
        return fullname in self._sources or self._is_above(fullname)

    def get_source(self, fullname: str) -> str:
        # A folder without __init__.py has no text.
        return self._sources.get(fullname, "")

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_source(fullname), f"<kept {fullname}>")

    def is_package(self, fullname: str) -> bool:
        return self._is_above(fullname) or str(_file(fullname)).endswith("__init__.py")

    def _is_above(self, fullname: str) -> bool:
        return any(name.startswith(f"{fullname}.") for name in self._sources)


def _folders(package: str) -> list[str]:
    return [str(place) for place in _places(package) if place.is_dir()]


def _file(module: str) -> str | None:
    """Where the module would be, or is another now."""
    files = (file for place in _places(module) for file in (place / "__init__.py", place.with_suffix(".py")))
    return next((str(file) for file in files if file.is_file()), None)


def _places(module: str) -> list[Path]:
    return [Path(entry or ".") / Path(*module.split(".")) for entry in sys.path]
