"""Columns of one's choice: by the names of storage/fields.py, `params.NAME`, `tag.NAME`, and the wide ones."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from ntrader.errors import ConfigError
from storage.conditions import storable
from storage.fields import ALIASES, FIELDS, PLACES, column_name

_WIDE = ("parameters", "tags", "warnings", "config_snapshot", "error_traceback", "reproduced_from_run_id")
ORIGINAL = "(SELECT o.run_id FROM backtest_runs o WHERE o.id = r.reproduced_from_run_id)"


@dataclass(frozen=True, slots=True)
class Picked:
    """A list of columns as SQL, and how to take their values from a row."""

    names: list[str]
    statement: sql.Composable

    def values(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[f"c{number}"] for number in range(len(self.names)))


def pick(columns: Sequence[str]) -> Picked:
    """Raises ConfigError for a name that is none, with the nearest."""
    resolved = [_resolve(name.strip()) for name in columns if name.strip()]
    if not resolved:
        raise ConfigError("no columns are named", hint="Write --columns run_id,sharpe_ratio,params.fast_period.")
    parts = [
        sql.SQL("{} AS {}").format(expression, sql.Identifier(f"c{number}"))
        for number, (_, expression) in enumerate(resolved)
    ]
    return Picked([name for name, _ in resolved], sql.SQL(", ").join(parts))


def exported() -> list[str]:
    """All there is to a run but its whole config and its stack trace, which can be asked for by name."""
    names = [*FIELDS]
    at = names.index("notes")
    return [*names[:at], "parameters", "tags", "warnings", "reproduced_from_run_id", *names[at:]]


def _resolve(name: str) -> tuple[str, sql.Composable]:
    first, dot, key = name.partition(".")
    place = PLACES.get(first.lower()) if dot else None
    if place:
        column = "r.parameters -> {}" if place == "params" else "r.tags ->> {}"
        return f"{place}.{key}", sql.SQL(column).format(_literal(key))
    wanted = column_name(name)
    if wanted == "reproduced_from_run_id":
        return wanted, sql.SQL(ORIGINAL)
    if wanted in FIELDS or wanted in _WIDE:
        return wanted, sql.Identifier("r", wanted)
    near = difflib.get_close_matches(wanted, [*FIELDS, *ALIASES, *_WIDE], n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "A parameter is params.NAME, a tag is tag.NAME."
    raise ConfigError(f"there is no column {name!r}", hint=hint)


def _literal(text: str) -> sql.Literal:
    """psycopg looks for placeholders in literals too: a percent sign is written twice."""
    return sql.Literal(storable(text).replace("%", "%%"))
