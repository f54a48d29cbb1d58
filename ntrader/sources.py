"""The source text behind a result: a strategy, what it imports of its own, and our engine.

A file that is edited while a run goes on, or between two runs of one process, must not speak for code that did not
run. So a module's text is kept from when it was imported (`remember`), and `reload_changed` makes the next import see
an edit. Installed packages and ntrader itself are taken not to change while a process lives.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class _Module:
    """A module as it was when it was first looked at. `imports` are names that may be modules or in one."""

    text: str
    imports: frozenset[str]


_modules: dict[str, _Module] = {}
_closures: dict[tuple[str, ...], dict[str, str]] = {}


def source_closure(modules: Iterable[str]) -> dict[str, str]:
    """Source text by module name: the modules and, transitively, what they import from packages of their own.

    A module is somebody's own when its top-level package is that of one of `modules`, or when it lies outside
    the standard library and the installed packages. Imports by a computed name are not seen.
    """
    wanted = tuple(modules)
    if wanted not in _closures:
        _closures[wanted] = _closure(wanted)
    return _closures[wanted]


def remember(module: str) -> None:
    """Keep the text of a module that has just been imported, and of what it imports of its own."""
    if not _is_ours(module):
        source_closure([module])


def reload_changed(module: str) -> None:
    """Forget the module and what it imports of its own if a file has changed since it was imported."""
    if module not in sys.modules or _is_ours(module):
        return
    names = [name for name in source_closure([module]) if _is_own(name, set()) and not _is_ours(name)]
    if any(_read(name) != _modules[name].text for name in names):
        _closures.clear()
        for name in names:
            del _modules[name]
            sys.modules.pop(name, None)
        importlib.invalidate_caches()


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == __name__.partition(".")[0]


def _closure(wanted: tuple[str, ...]) -> dict[str, str]:
    packages = {name.partition(".")[0] for name in wanted}
    waiting, seen, found = list(wanted), set[str](), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        module = _module(name) if _is_own(name, packages) else None
        if module is not None:
            found[name] = module.text
            # Importing a.b.c runs a and a.b first.
            waiting.extend((*module.imports, name.rpartition(".")[0]))
    return dict(sorted(found.items()))


def _module(name: str) -> _Module | None:
    if name not in _modules:
        text = _read(name)
        if text is None:
            return None
        _modules[name] = _Module(text, frozenset(_imports(text, name, is_package=_is_package(name))))
    return _modules[name]


def _is_own(name: str, packages: set[str]) -> bool:
    top = name.partition(".")[0]
    if top in packages:
        return True
    if top in sys.stdlib_module_names:
        return False
    spec = _spec(top)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return any(place and not _INSTALLED & set(Path(place).parts) for place in places)


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is or would be imported from, without importing it or the packages above it."""
    loaded: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
    if loaded:
        return loaded
    parent = name.rpartition(".")[0]
    if parent:
        above = _spec(parent)
        places = above.submodule_search_locations if above else None
        return PathFinder.find_spec(name, places) if places else None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _is_package(name: str) -> bool:
    spec = _spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def _read(name: str) -> str | None:
    """The module's text; of a compiled one, its hash. None where there is no such module, only a name in one."""
    spec = _spec(name)
    try:
        content = Path(spec.origin).read_bytes() if spec and spec.has_location and spec.origin else None
    except OSError:
        return None
    if content is None or spec is None or spec.origin is None:
        return None
    if not spec.origin.endswith(".py"):
        return hashlib.sha256(content).hexdigest()
    return importlib.util.decode_source(content)


def _imports(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    package = module if is_package else module.rpartition(".")[0]
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
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
