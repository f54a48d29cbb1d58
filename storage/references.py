"""Which run is meant: a uuid, a unique prefix of one, `@last`, `@last~N`, `@best:SWEEP`, or the name somebody gave it.
And which sweep: its number, `@last`, `@last~N`, or its name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import UTC
from typing import Any, LiteralString, cast
from uuid import UUID

import psycopg
from psycopg import sql

from ntrader.errors import AmbiguousError, NotFoundError

Connection = psycopg.Connection[dict[str, Any]]

MIN_PREFIX = 4
_WHOLE = 32

_LAST = re.compile(r"@last(?:~(\d{1,9}))?")
_BEST = "@best:"
_PREFIX = re.compile(r"[0-9a-f]{1,32}")
_LIST_HINT = "`ntrader history list` shows what there is."
_SWEEPS_HINT = "`ntrader sweep list` shows what there is."


def find_run_ids(connection: Connection, references: Sequence[str]) -> list[UUID]:
    """Each in its place; a whole uuid is taken at its word. Raises NotFoundError, or AmbiguousError listing
    candidates."""
    words = [reference.strip() for reference in references]
    prefixes = {word: _digits(word) for word in words if _PREFIX.fullmatch(_digits(word))}
    found = _by_prefix(connection, prefixes)
    return [found[word] if word in found else _by_word(connection, word) for word in words]


def find_run_id(connection: Connection, reference: str) -> UUID:
    """One run; raises as `find_run_ids` does."""
    (run_id,) = find_run_ids(connection, [reference])
    return run_id


def find_sweep_id(connection: Connection, reference: str) -> int:
    """The number of a sweep. Raises NotFoundError, or AmbiguousError listing the candidates."""
    word = reference.strip()
    last = _LAST.fullmatch(word)
    if last:
        found = _rows(connection, "SELECT id FROM sweeps ORDER BY id DESC LIMIT 1 OFFSET %s", int(last[1] or 0))
    elif word.isascii() and word.isdecimal():
        # A number of more digits is beyond what an id can be.
        found = _rows(connection, "SELECT id FROM sweeps WHERE id = %s", int(word)) if len(word) <= 18 else []
    else:
        found = _sweeps_by_name(connection, word)
    if not found:
        raise NotFoundError(f"there is no sweep {word!r}", hint=_SWEEPS_HINT)
    return cast("int", found[0]["id"])


def _digits(word: str) -> str:
    return word.lower().replace("-", "")


def _by_word(connection: Connection, word: str) -> UUID:
    last = _LAST.fullmatch(word)
    if last:
        return _nth_newest(connection, int(last[1] or 0), word)
    if word.startswith(_BEST):
        return _best(connection, word.removeprefix(_BEST))
    if word.startswith("@"):
        hint = "Write @last, @last~1 for the one before, or @best:SWEEP for the best trial of a sweep."
        raise NotFoundError(f"{word!r} names no run", hint=hint)
    return _by_name(connection, word)


def _nth_newest(connection: Connection, back: int, reference: str) -> UUID:
    """The one place that counts its way: `@last~N` has no other meaning, and an index alone answers it."""
    row = connection.execute(
        "SELECT run_id FROM backtest_runs WHERE id = (SELECT id FROM backtest_runs WHERE NOT archived"
        " ORDER BY created_at DESC NULLS LAST, id DESC LIMIT 1 OFFSET %s)",
        [back],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no run {reference}", hint=_LIST_HINT)
    return cast("UUID", row["run_id"])


def _best(connection: Connection, sweep: str) -> UUID:
    """As the sweep ranks its trials, whether or not it is finished."""
    number = find_sweep_id(connection, sweep)
    (ranked,) = _rows(connection, "SELECT objective, direction FROM sweeps WHERE id = %s", number)
    statement = sql.SQL(
        "SELECT r.run_id FROM trials t JOIN backtest_runs r ON r.id = t.run_id WHERE t.sweep_id = %s"
        " AND t.state = 'success' AND r.{0} IS NOT NULL ORDER BY r.{0} {1}, t.trial_number LIMIT 1"
    ).format(sql.Identifier(ranked["objective"]), sql.SQL("DESC" if ranked["direction"] == "maximize" else "ASC"))
    row = connection.execute(statement, [number]).fetchone()
    if row is None:
        raise NotFoundError(
            f"sweep {number} has no trial with a {ranked['objective']} yet", hint=f"See `ntrader sweep show {number}`."
        )
    return cast("UUID", row["run_id"])


def _by_prefix(connection: Connection, prefixes: dict[str, str]) -> dict[str, UUID]:
    """All in one question: each is a range of the unique index."""
    found = {word: UUID(digits) for word, digits in prefixes.items() if len(digits) == _WHOLE}
    parts = {word: digits for word, digits in prefixes.items() if word not in found}
    for word, digits in parts.items():
        if len(digits) < MIN_PREFIX:
            hint = f"Give at least {MIN_PREFIX} characters of the Run ID."
            raise NotFoundError(f"{word!r} is too short", hint=hint)
    if parts:
        rows = connection.execute(
            "SELECT p.word, r.* FROM unnest(%s::text[], %s::uuid[], %s::uuid[]) AS p (word, first, last)"
            " CROSS JOIN LATERAL (SELECT run_id, strategy_name, instrument_symbol, created_at FROM backtest_runs"
            " WHERE run_id BETWEEN p.first AND p.last ORDER BY run_id LIMIT 3) AS r",
            [
                list(parts),
                [UUID(digits.ljust(_WHOLE, "0")) for digits in parts.values()],
                [UUID(digits.ljust(_WHOLE, "f")) for digits in parts.values()],
            ],
        ).fetchall()
        found |= {word: _only_one(word, [row for row in rows if row["word"] == word]) for word in parts}
    return found


def _only_one(word: str, rows: list[dict[str, Any]]) -> UUID:
    if not rows:
        raise NotFoundError(f"there is no run {word}", hint=_LIST_HINT)
    if len(rows) > 1:
        lines = "".join(
            f"\n  {row['run_id']}  {row['created_at'].astimezone(UTC):%Y-%m-%d %H:%M}"
            f"  {row['strategy_name']} {row['instrument_symbol']}"
            for row in rows[:2]
        )
        more = "\n  ..." if len(rows) > 2 else ""
        raise AmbiguousError(f"{word!r} fits more than one run:{lines}{more}", hint="Give more characters.")
    return cast("UUID", rows[0]["run_id"])


def _by_name(connection: Connection, reference: str) -> UUID:
    if "\x00" not in reference and reference.isprintable():
        row = connection.execute("SELECT run_id FROM backtest_runs WHERE name = %s", [reference]).fetchone()
        if row is not None:
            return cast("UUID", row["run_id"])
    names = connection.execute("SELECT name FROM backtest_runs WHERE name IS NOT NULL LIMIT 1000").fetchall()
    near = difflib.get_close_matches(reference, [row["name"] for row in names], n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise NotFoundError(
        f"{reference!r} names no run", hint=f"{hint}Use a Run ID, its first 4 or more characters, @last or a name."
    )


def _sweeps_by_name(connection: Connection, name: str) -> list[dict[str, Any]]:
    if not name or not name.isprintable():
        return []
    found = _rows(connection, "SELECT id, created_at FROM sweeps WHERE name = %s ORDER BY id DESC LIMIT 5", name)
    if len(found) > 1:
        lines = "".join(f"\n  {row['id']}  {row['created_at'].astimezone(UTC):%Y-%m-%d %H:%M}  {name}" for row in found)
        raise AmbiguousError(f"{name!r} fits more than one sweep:{lines}", hint="Give its number.")
    if not found:
        names = _rows(connection, "SELECT DISTINCT name FROM sweeps WHERE name IS NOT NULL LIMIT %s", 1000)
        near = difflib.get_close_matches(name, [row["name"] for row in names], n=1)
        if near:
            raise NotFoundError(f"there is no sweep {name!r}", hint=f"Did you mean {near[0]!r}? {_SWEEPS_HINT}")
    return found


def _rows(connection: Connection, statement: LiteralString, value: object) -> list[dict[str, Any]]:
    return connection.execute(statement, [value]).fetchall()
