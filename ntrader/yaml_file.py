"""YAML in: plain data out, or a ConfigError that names file and line. And the way back.

Stricter and less surprising than YAML 1.1: `ON` and `NO` are symbols, `1e5` is a number, `15:30` is text, a key given
twice is an error, and dates stay text, so that a bad one is reported like any other bad value.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from ntrader.errors import ConfigError

# A config of 100 KB is a large one; more is a mistake, and so are aliases that expand to more values than this.
_LARGEST_FILE = 1_000_000
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The scalars of YAML 1.2's core schema, with `1_000` besides; `007` is text, for symbols are written so."""

    yaml_implicit_resolvers = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _places = [*_first, ""] if _tag == "null" else [*_first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _places)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError with file and line where it is not one."""
    data = _parse(_read_text(path), str(path))
    if not isinstance(data, dict):
        found = {type(None): "nothing", list: "a list", str: "text"}.get(type(data), repr(data))
        raise ConfigError(f"{path}: expected a mapping of settings at the top, found {found}")
    return data


def parse_value(text: str) -> Any:
    """What `text` would be as a value in a config file; text that is not YAML is itself."""
    try:
        return _parse(text, "value")
    except ConfigError:
        return text


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist", hint=_similar_files(path)) from None
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror or error}") from None
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"config file {path} is larger than {_LARGEST_FILE // 1_000_000} MB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"config file {path} cannot be read: it is not UTF-8 text") from None


def _similar_files(path: Path) -> str | None:
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix in {".yaml", ".yml"}]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else None


def _parse(text: str, origin: str) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = error.problem or error.context
    except yaml.reader.ReaderError as error:
        place = f", line {text.count('\n', 0, error.position) + 1}"
        problem = f"the character {chr(error.character)!a} is not allowed"
    except RecursionError:
        place, problem = "", "nested too deeply"
    except (yaml.YAMLError, ValueError, LookupError) as error:  # from tags such as !!int abc
        place, problem = "", str(error)
    raise ConfigError(f"{origin}{place}: not valid YAML: {problem}")


def _check(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """How many values a node holds once its aliases are expanded: a few lines can stand for billions.

    Raises a YAML error for too many, for an alias that contains itself and for a key that is given twice.
    """
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise _refusal("an alias contains itself", node)
        return size
    sizes[id(node)] = None
    size = 1 + sum(_check(child, sizes) for child in _children(node))
    if size > _MOST_VALUES:
        raise _refusal(f"more than {_MOST_VALUES:,} values, with aliases expanded", node)
    sizes[id(node)] = size
    return size


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    names = set()
    for key, _ in node.value:
        name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
        if name is not None and name in names:
            raise _refusal(f"{key.value!r} is given twice", key)
        names.add(name)
    return [child for pair in node.value for child in pair]


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around whatever any YAML, ours or 1.1, would not take for text."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = {
    key: [*yaml.SafeDumper.yaml_implicit_resolvers.get(key, []), *_Loader.yaml_implicit_resolvers.get(key, [])]
    for key in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dump_yaml(data: dict[str, Any]) -> str:
    """Text that `read_yaml` reads as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
