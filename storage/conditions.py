"""Filters as SQL conditions on `backtest_runs r`: every value a parameter, every name one we know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import sql

from ntrader.errors import ConfigError
from ntrader.moments import parse_moment
from storage.fields import FIELDS
from storage.where import And, Compare, Expression, Not, Or, Value, parse_where


@dataclass(frozen=True, slots=True)
class Filters:
    """Which runs; all that are given must hold. Several strategies, symbols or statuses: any of them.

    `sweep` is its number; text is a reference, which `storage.search.settle` looks up. It finds out about `linked` too:
    whether there are runs from before the sweep that its trials are linked to, and that belong here as well.
    """

    strategies: tuple[str, ...] = ()
    strategy_type: str | None = None
    symbols: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    data_source: str | None = None
    sweep: int | str | None = None
    linked: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    where: str | None = None
    archived: bool = False


# An array, so that the runs of a sweep are looked up one by one. Of a subquery the planner would not know that its runs
# are all of one time: it may wade through the newer ones of everybody else to find twenty in order.
_MADE_FOR_OR_LINKED = sql.SQL(
    "r.id = ANY (ARRAY(SELECT o.id FROM backtest_runs o WHERE o.archived IN (false, true) AND o.sweep_id = {sweep}"
    " UNION ALL SELECT t.run_id FROM trials t WHERE t.sweep_id = {sweep} AND t.linked AND t.run_id IS NOT NULL))"
)


class Values:
    """Parameters by generated names."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters

    def add(self, value: object) -> sql.Placeholder:
        name = f"v{len(self._parameters)}"
        self._parameters[name] = value
        return sql.Placeholder(name)


def conditions(filters: Filters, values: Values) -> list[sql.Composable]:
    """All of them have to hold; `filters.archived` is left to the caller. Raises ConfigError for a bad `where`, and for
    text that no run can have."""
    found: list[sql.Composable] = []
    for column, wanted in (
        ("strategy_name", filters.strategies),
        ("instrument_symbol", filters.symbols),
        ("execution_status", filters.statuses),
        ("strategy_type", filters.strategy_type),
        ("data_source", filters.data_source),
        ("sweep_id", None if filters.linked else filters.sweep),
    ):
        if wanted is not None and wanted != ():
            found.append(_equal(column, wanted, values))
    if filters.linked:
        found.append(_MADE_FOR_OR_LINKED.format(sweep=values.add(filters.sweep)))
    for column, sign, moment in (
        ("created_at", ">=", filters.after),
        ("created_at", "<", filters.before),
        ("start_date", ">=", filters.period_start),
        ("end_date", "<=", filters.period_end),
    ):
        if moment is not None:
            found.append(sql.SQL("{} {} {}").format(sql.Identifier("r", column), sql.SQL(sign), values.add(moment)))
    for key, value in filters.tags:
        tag = json.dumps({storable(key): storable(value)})
        found.append(sql.SQL("r.tags @> {}::jsonb").format(values.add(tag)))
    if filters.where is not None:
        found.append(sql.SQL("({})").format(_compiled(parse_where(filters.where), values, positive=True)))
    return found


def _equal(column: str, wanted: str | int | tuple[str, ...], values: Values) -> sql.Composable:
    name = sql.Identifier("r", column)
    words = wanted if isinstance(wanted, tuple) else (wanted,)
    known = [storable(word) if isinstance(word, str) else word for word in words]
    if len(known) > 1:
        return sql.SQL("{} = ANY({})").format(name, values.add(known))
    return sql.SQL("{} = {}").format(name, values.add(known[0]))


# The expression language


def _compiled(expression: Expression, values: Values, *, positive: bool) -> sql.Composable:
    """`positive` where neither-true-nor-false may count as false, that is under an even number of `not`."""
    match expression:
        case Not(inner):
            return sql.SQL("NOT ({})").format(_compiled(inner, values, positive=not positive))
        case And(inner) | Or(inner):
            word = " AND " if isinstance(expression, And) else " OR "
            parts = [sql.SQL("({})").format(_compiled(part, values, positive=positive)) for part in inner]
            return sql.SQL(word).join(parts)
        case Compare():
            _require_whole_pattern(expression)
            if expression.field.place == "column":
                return _column_comparison(expression, values)
            return _json_comparison(expression, values, positive=positive)


def _require_whole_pattern(comparison: Compare) -> None:
    """PostgreSQL complains of half an escape only where it comes to it, that is for some runs and not for others."""
    pattern = comparison.values[0] if comparison.operator in {"like", "ilike"} else None
    if isinstance(pattern, str) and (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise ConfigError(
            f"--where: {pattern!r} ends with a single backslash", hint="A backslash itself is two of them."
        )


def _column_comparison(comparison: Compare, values: Values) -> sql.Composable:
    name = comparison.field.name
    column: sql.Composable = sql.Identifier("r", name)
    kind = FIELDS[name]
    if comparison.operator == "null":
        return sql.SQL("{} IS NULL").format(column)
    if comparison.operator in {"like", "ilike"}:
        if kind not in {"text", "uuid"}:
            raise ConfigError(f"--where: {name} is no text: it cannot be compared with {comparison.operator}")
        column = sql.SQL("{}::text").format(column)
        kind = "text"
    if kind in {"boolean", "uuid"} and comparison.operator not in {"=", "!=", "in"}:
        raise ConfigError(f"--where: {name} can be compared with =, != and in only")
    return _compared(column, comparison.operator, [values.add(_fit(name, kind, value)) for value in comparison.values])


def _fit(name: str, kind: str, value: Value) -> object:
    """The value as the column has it. Raises ConfigError where it is of another kind."""
    if kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(value)
    if kind == "text" and isinstance(value, str):
        return storable(value)
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "time" and isinstance(value, str):
        return parse_moment(value)
    if kind == "uuid" and isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            hint = f"For a part of one: {name} like '7b14%'."
            raise ConfigError(f"--where: {value!r} is no uuid", hint=hint) from None
    example = {"number": "5", "text": "'text'", "time": "'2024-01-31' or '7d'", "boolean": "true", "uuid": "'7b14...'"}
    raise ConfigError(f"--where: {name} cannot be compared with {value!r}", hint=f"Write it like {example[kind]}.")


def _bounded(value: int | float) -> int | float | Decimal:
    """Python's whole numbers have no end; those of 64 bits and more are compared as decimals."""
    if isinstance(value, int) and abs(value) >= 2**63:
        if abs(value) > 10**300:
            raise ConfigError("--where: a number of more than 300 digits makes no sense here")
        return Decimal(value)
    return value


def storable(text: str) -> str:
    """Raises ConfigError for what PostgreSQL cannot have in a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r} is not text that can be compared") from None
    if "\x00" in text:
        raise ConfigError(f"{text!r} has a NUL character in it")
    return text


def _compared(left: sql.Composable, operator: str, right: Sequence[sql.Composable]) -> sql.Composable:
    if operator == "in":
        return sql.SQL("{} IN ({})").format(left, sql.SQL(", ").join(right))
    if operator == "between":
        return sql.SQL("{} BETWEEN {} AND {}").format(left, *right)
    sign = {"!=": "<>", "like": "LIKE", "ilike": "ILIKE"}.get(operator, operator)
    return sql.SQL("{} {} {}").format(left, sql.SQL(sign), right[0])


def _json_comparison(comparison: Compare, values: Values, *, positive: bool) -> sql.Composable:
    """A parameter or a tag. It compares with values of its own type only; with others it is as if it were not there."""
    column = sql.SQL("r.parameters" if comparison.field.place == "params" else "r.tags")
    name = storable(comparison.field.name)
    if comparison.operator == "null":
        return sql.SQL("({} ->> {}) IS NULL").format(column, values.add(name))
    if comparison.operator == "=" and positive:
        document = _contained(comparison, name)
        if document is not None:
            return sql.SQL("{} @> {}::jsonb").format(column, values.add(document))
    if comparison.operator in {"in", "between"}:
        return _json_several(comparison, values, positive=positive)
    left = _json_value(comparison, values.add(name), comparison.values[0])
    return _compared(left, comparison.operator, [values.add(_exact(comparison.values[0]))])


def _exact(value: Value) -> str | bool | Decimal:
    """JSON's numbers are decimals, and are compared as such."""
    if isinstance(value, str):
        return storable(value)
    return value if isinstance(value, bool) else Decimal(str(_bounded(value)))


def _json_several(comparison: Compare, values: Values, *, positive: bool) -> sql.Composable:
    """`in` and `between` taken apart, because each value may be of another type."""
    if comparison.operator == "in":
        parts = [Compare(comparison.field, "=", (value,)) for value in comparison.values]
        return sql.SQL(" OR ").join(_json_comparison(part, values, positive=positive) for part in parts)
    low, high = comparison.values
    return sql.SQL("{} AND {}").format(
        _json_comparison(Compare(comparison.field, ">=", (low,)), values, positive=positive),
        _json_comparison(Compare(comparison.field, "<=", (high,)), values, positive=positive),
    )


def _contained(comparison: Compare, name: str) -> str | None:
    """The JSON to look for in the index, where one look is enough. A tag's value is text, whatever it looks like."""
    value = comparison.values[0]
    if comparison.field.place == "tag" and not isinstance(value, str):
        return None
    return json.dumps({name: storable(value) if isinstance(value, str) else value})


def _json_value(comparison: Compare, name: sql.Composable, value: Value) -> sql.Composable:
    """The parameter or tag as the value's type; NULL where it is of another."""
    if isinstance(value, bool) and (comparison.field.place == "tag" or comparison.operator not in {"=", "!="}):
        raise ConfigError(f"--where: {comparison.field.name} cannot be compared with {str(value).lower()} like that")
    if comparison.operator in {"like", "ilike"} and not isinstance(value, str):
        raise ConfigError(f"--where: {comparison.operator} needs 'text', not {value!r}")
    if comparison.field.place == "tag":
        if isinstance(value, str):
            return sql.SQL("(r.tags ->> {})").format(name)
        # Longer numbers are no numbers but names; a cast of one could overflow.
        pattern = "^[+-]?[0-9]{1,50}([.][0-9]{1,50})?$"
        return sql.SQL("CASE WHEN r.tags ->> {0} ~ {1} THEN (r.tags ->> {0})::numeric END").format(
            name, sql.Literal(pattern)
        )
    kind, cast = ("boolean", "boolean") if isinstance(value, bool) else ("string", "text")
    if not isinstance(value, bool | str):
        kind, cast = "number", "numeric"
    return sql.SQL("CASE jsonb_typeof(r.parameters -> {0}) WHEN {1} THEN (r.parameters ->> {0})::{2} END").format(
        name, sql.Literal(kind), sql.SQL(cast)
    )
