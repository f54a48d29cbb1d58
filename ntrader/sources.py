"""The source text behind a result: a strategy, what it imports of its own, and our engine.

A module's text is remembered from when it is first asked for, which the strategy loader does right after importing
it: a file that is edited while a run goes on, or between two runs of one process, must not speak for code that did not
run. `reload_changed` makes the next import see the edit.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages"}

_texts: dict[str, str] = {}
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


def reload_changed(module: str) -> None:
    """Forget the module and what it imports of its own if a file has changed since it was imported.

    Installed packages and ntrader itself are taken not to change while a process lives.
    """
    if module.partition(".")[0] == __name__.partition(".")[0]:
        return
    names = [name for name in source_closure([module]) if _is_own(name, set())]
    if any(_read(name) != _texts[name] for name in names):
        _closures.clear()
        for name in names:
            _texts.pop(name)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()


def _closure(wanted: tuple[str, ...]) -> dict[str, str]:
    packages = {name.partition(".")[0] for name in wanted}
    waiting, found = list(wanted), dict[str, str]()
    while waiting:
        name = waiting.pop()
        if not name or name in found or not _is_own(name, packages):
            continue
        text = _texts[name] if name in _texts else _read(name)
        if text is None:
            continue
        found[name] = _texts[name] = text
        waiting.extend(_imports(text, name, is_package=_is_package(name)))
        # Importing a.b.c runs a and a.b first.
        waiting.append(name.rpartition(".")[0])
    return dict(sorted(found.items()))


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
    loaded: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
    if loaded:
        return loaded
    try:
        return importlib.util.find_spec(name)
    except Exception:  # finding a submodule imports its package, and that may raise anything
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
