"""Which run is meant: a uuid, a unique prefix of one, `@last`, `@last~N`, or the name somebody gave it."""

from __future__ import annotations

import difflib
import re
from datetime import UTC
from typing import Any, cast
from uuid import UUID

import psycopg

from ntrader.errors import AmbiguousError, NotFoundError

MIN_PREFIX = 4

_LAST = re.compile(r"@last(?:~(\d{1,9}))?")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")
_LIST_HINT = "`ntrader history list` shows what there is."


def find_run_id(connection: psycopg.Connection[dict[str, Any]], reference: str) -> UUID:
    """Raises NotFoundError, or AmbiguousError listing the candidates."""
    reference = reference.strip()
    last = _LAST.fullmatch(reference)
    if last:
        return _nth_newest(connection, int(last[1] or 0), reference)
    if reference.startswith("@"):
        raise NotFoundError(f"{reference!r} names no run", hint="Write @last, or @last~1 for the one before.")
    digits = reference.lower().replace("-", "")
    if _PREFIX.fullmatch(digits):
        return _by_prefix(connection, digits, reference)
    return _by_name(connection, reference)


def _nth_newest(connection: psycopg.Connection[dict[str, Any]], back: int, reference: str) -> UUID:
    """The one place that counts its way: `@last~N` has no other meaning, and an index alone answers it."""
    row = connection.execute(
        "SELECT run_id FROM backtest_runs WHERE id = (SELECT id FROM backtest_runs WHERE NOT archived"
        " ORDER BY created_at DESC NULLS LAST, id DESC LIMIT 1 OFFSET %s)",
        [back],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no run {reference}", hint=_LIST_HINT)
    return cast("UUID", row["run_id"])


def _by_prefix(connection: psycopg.Connection[dict[str, Any]], digits: str, reference: str) -> UUID:
    if len(digits) < MIN_PREFIX:
        raise NotFoundError(f"{reference!r} is too short", hint=f"Give at least {MIN_PREFIX} characters of the Run ID.")
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    rows = connection.execute(
        "SELECT run_id, strategy_name, instrument_symbol, created_at FROM backtest_runs"
        " WHERE run_id BETWEEN %s AND %s ORDER BY run_id LIMIT 3",
        [first, last],
    ).fetchall()
    if not rows:
        raise NotFoundError(f"there is no run {reference}", hint=_LIST_HINT)
    if len(rows) > 1:
        lines = "".join(
            f"\n  {row['run_id']}  {row['created_at'].astimezone(UTC):%Y-%m-%d %H:%M}"
            f"  {row['strategy_name']} {row['instrument_symbol']}"
            for row in rows[:2]
        )
        more = "\n  ..." if len(rows) > 2 else ""
        raise AmbiguousError(f"{reference!r} fits more than one run:{lines}{more}", hint="Give more characters.")
    return cast("UUID", rows[0]["run_id"])


def _by_name(connection: psycopg.Connection[dict[str, Any]], reference: str) -> UUID:
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
