"""What exactly moved in an input: which bars, which lines of which module, which part of the environment."""

from __future__ import annotations

import ast
import difflib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntrader.data.bars import Bars

_COLUMNS = ("open", "high", "low", "close", "volume")
_DAY = 86_400 * 1_000_000_000
_NO_LINE_END = "\n\\ No newline at end of file\n"


@dataclass(frozen=True, slots=True)
class BarValues:
    """Prices and volume of one bar."""

    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class BarChange:
    """A bar that closes at `time` (ns since 1970 UTC) and is not what it was; None where it was not, or is no more.

    `columns` are the names of those that differ, all five where the bar was added or removed.
    """

    time: int
    original: BarValues | None
    new: BarValues | None
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BarsDifference:
    """How many bars changed, came and went, on which UTC days (ISO dates), and the first of them.

    `names` has (field, original, new) where symbol, venue or timeframe differ. A day is that of the bar's end: the
    bar that closes at midnight is the last of its day.
    """

    changed: int
    added: int
    removed: int
    days: tuple[str, ...]
    rows: tuple[BarChange, ...]
    names: tuple[tuple[str, str, str], ...]

    @property
    def same(self) -> bool:
        """Whether both have the same data fingerprint."""
        return not (self.changed or self.added or self.removed or self.names)


@dataclass(frozen=True, slots=True)
class ModuleDifference:
    """One module that is not what it was. `diff` is unified, between `a/module` and `b/module`.

    `added` and `removed` count lines. `only_comments` says that it compiles to the same: comments, blank lines and
    layout changed; a docstring is code.
    """

    module: str
    kind: Literal["changed", "added", "removed"]
    diff: str
    added: int
    removed: int
    only_comments: bool


@dataclass(frozen=True, slots=True)
class SourcesDifference:
    """The modules that differ, by name. `only_comments`: some changed, and each of them in nothing but comments."""

    modules: tuple[ModuleDifference, ...]
    only_comments: bool


def diff_bars(original: Bars, new: Bars, *, most_rows: int = 20) -> BarsDifference:
    """What differs to the data fingerprint: every bit, except that 0.0 and -0.0 are one number.

    Bars are matched by the time of their close; the first `most_rows` differences in time come with their values.
    """
    times = np.union1d(original.times, new.times)
    here, there = _rows_of(original, times), _rows_of(new, times)
    both = (here >= 0) & (there >= 0)
    unequal = np.zeros((len(_COLUMNS), len(times)), np.bool_)
    for mask, name in zip(unequal, _COLUMNS, strict=True):
        mask[both] = _bits(original, name)[here[both]] != _bits(new, name)[there[both]]
    touched = np.flatnonzero(~both | unequal.any(axis=0))
    return BarsDifference(
        changed=int(unequal.any(axis=0).sum()),
        added=int((here < 0).sum()),
        removed=int((there < 0).sum()),
        days=_days(times[touched]),
        rows=tuple(
            _change(int(times[k]), _values(original, int(here[k])), _values(new, int(there[k])), unequal[:, k])
            for k in touched[:most_rows].tolist()
        ),
        names=tuple(_names(original, new)),
    )


def diff_sources(original: Mapping[str, str], new: Mapping[str, str]) -> SourcesDifference:
    """Both are source text by module name, as `ntrader.sources.source_closure` returns it."""
    modules = tuple(
        _module(name, original.get(name), new.get(name))
        for name in sorted({*original, *new})
        if original.get(name) != new.get(name)
    )
    return SourcesDifference(modules, bool(modules) and all(module.only_comments for module in modules))


def diff_environment(
    original: Mapping[str, object], new: Mapping[str, object]
) -> dict[str, tuple[object | None, object | None]]:
    """(original, new) of what differs, by a name with dots for what is nested; None where it is missing."""
    before, after = dict(_flat(original)), dict(_flat(new))
    names = sorted({*before, *after})
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


# Bars


def _rows_of(bars: Bars, times: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each time the row that closes then, -1 where none does."""
    rows = np.full(len(times), -1, np.int64)
    rows[np.searchsorted(times, bars.times)] = np.arange(len(bars))
    return rows


def _bits(bars: Bars, name: str) -> NDArray[np.int64]:
    # Adding zero turns -0.0 into 0.0, as the data fingerprint does.
    bits: NDArray[np.int64] = (np.asarray(getattr(bars, name), np.float64) + 0.0).view(np.int64)
    return bits


def _days(times: NDArray[np.int64]) -> tuple[str, ...]:
    days = np.unique((times - 1) // _DAY).astype("datetime64[D]")
    return tuple(np.datetime_as_string(days).tolist())


def _values(bars: Bars, row: int) -> BarValues | None:
    return None if row < 0 else BarValues(*(float(getattr(bars, name)[row]) for name in _COLUMNS))


def _change(time: int, original: BarValues | None, new: BarValues | None, unequal: NDArray[np.bool_]) -> BarChange:
    one_sided = original is None or new is None
    columns = tuple(name for name, differs in zip(_COLUMNS, unequal.tolist(), strict=True) if one_sided or differs)
    return BarChange(time, original, new, columns)


def _names(original: Bars, new: Bars) -> Iterator[tuple[str, str, str]]:
    for name in ("symbol", "venue", "timeframe"):
        before, after = str(getattr(original, name)), str(getattr(new, name))
        if before != after:
            yield name, before, after


# Sources


def _module(name: str, original: str | None, new: str | None) -> ModuleDifference:
    lines = list(
        difflib.unified_diff(
            _lines(original or ""),
            _lines(new or ""),
            fromfile=f"a/{name}" if original is not None else "/dev/null",
            tofile=f"b/{name}" if new is not None else "/dev/null",
        )
    )
    # The first two lines are the names of the files.
    added, removed = (sum(line.startswith(sign) for line in lines[2:]) for sign in "+-")
    return ModuleDifference(
        module=name,
        kind="added" if original is None else "removed" if new is None else "changed",
        diff="".join(line if line.endswith("\n") else line + _NO_LINE_END for line in lines),
        added=added,
        removed=removed,
        only_comments=original is not None and new is not None and _same_code(original, new),
    )


def _lines(text: str) -> list[str]:
    """With their ends. Only a line feed ends one: `str.splitlines` would break a text at a form feed as well."""
    return list(io.StringIO(text, newline="\n"))


def _same_code(original: str, new: str) -> bool:
    try:
        return ast.dump(ast.parse(original)) == ast.dump(ast.parse(new))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _flat(nested: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
