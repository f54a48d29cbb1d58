"""What people say of a run after it is finished: its name, tags, notes, whether it is archived; and deleting it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from ntrader.errors import ConfigError, NotFoundError, NtraderError
from ntrader.settings import Settings
from storage.conditions import storable
from storage.database import reading
from storage.references import find_run_ids

LONGEST_NAME = 200

_LIKE_A_RUN_ID = re.compile(r"@.*|[0-9a-fA-F-]*")


@dataclass(frozen=True, slots=True)
class Deletable:
    """What deleting would take away."""

    run_id: UUID
    name: str | None
    strategy_name: str
    instrument_symbol: str
    execution_status: str
    trades: int
    reproductions: int


def set_tags(settings: Settings, references: Sequence[str], tags: dict[str, str], removed: Sequence[str]) -> list[UUID]:
    """Add or replace `tags`, take `removed` away; other tags stay. The ids of the runs."""
    for text in (*tags, *tags.values(), *removed):
        storable(text)
    change = sql.SQL("tags = (tags || %(tags)s::jsonb) - %(removed)s::text[]")
    return _changed(settings, references, change, tags=json.dumps(tags), removed=list(removed))


def set_note(settings: Settings, reference: str, note: str | None) -> UUID:
    """Replace the note; None removes it."""
    (run_id,) = _changed(settings, [reference], sql.SQL("notes = %(note)s"), note=note and storable(note))
    return run_id


def set_name(settings: Settings, reference: str, name: str | None) -> UUID:
    """Give the run a name that no other run has; None takes it away. Raises ConfigError for one that cannot be."""
    if name is not None:
        name = _checked_name(name)
    try:
        (run_id,) = _changed(settings, [reference], sql.SQL("name = %(name)s"), name=name)
    except NtraderError as error:
        if "ix_backtest_runs_name" not in error.message:
            raise
        raise ConfigError(
            f"another run is named {name!r}", hint="Choose another name, or take it from that run."
        ) from None
    return run_id


def set_archived(settings: Settings, references: Sequence[str], archived: bool) -> list[UUID]:
    """Put runs out of the lists, or back into them. Nothing else about them changes."""
    return _changed(settings, references, sql.SQL("archived = %(archived)s"), archived=archived)


def look_at(settings: Settings, references: Sequence[str]) -> list[Deletable]:
    """What `delete` would take away. Raises ConfigError for a run that is running."""
    with reading(settings) as connection:
        ids = _ids(connection, references)
        rows = connection.execute(
            "SELECT r.run_id, r.name, r.strategy_name, r.instrument_symbol, r.execution_status,"
            " (SELECT count(*) FROM trades t WHERE t.backtest_run_id = r.id) AS trades,"
            " (SELECT count(*) FROM backtest_runs o WHERE o.reproduced_from_run_id = r.id) AS reproductions"
            " FROM backtest_runs r WHERE r.run_id = ANY(%s)",
            [ids],
        ).fetchall()
    _require_all(ids, rows)
    _require_finished(rows)
    return [Deletable(**row) for row in rows]


def delete_runs(settings: Settings, references: Sequence[str]) -> int:
    """Delete runs with all that belongs to them; how many there were. A trigger writes a row of `deleted_runs` for
    each, so that the number of trials stays known. All or none; raises ConfigError for a run that is running."""
    with _writing(settings) as connection:
        ids = _ids(connection, references)
        rows = _locked(connection, ids)
        _require_all(ids, rows)
        _require_finished(rows)
        return connection.execute("DELETE FROM backtest_runs WHERE run_id = ANY(%s)", [ids]).rowcount


def count_deleted(settings: Settings, strategies: Sequence[str] = (), symbols: Sequence[str] = ()) -> int:
    """How many runs of these strategies and symbols (none given: of all) were deleted."""
    with reading(settings) as connection:
        (row,) = connection.execute(
            "SELECT count(*) AS number FROM deleted_runs WHERE (%(all)s OR strategy_name = ANY(%(strategies)s))"
            " AND (%(every)s OR instrument_symbol = ANY(%(symbols)s))",
            {"all": not strategies, "strategies": list(strategies), "every": not symbols, "symbols": list(symbols)},
        ).fetchall()
    return int(row["number"])


def _changed(settings: Settings, references: Sequence[str], change: sql.SQL, **values: Any) -> list[UUID]:
    with _writing(settings) as connection:
        ids = _ids(connection, references)
        _require_all(ids, _locked(connection, ids))
        statement = sql.SQL("UPDATE backtest_runs SET {} WHERE run_id = ANY(%(ids)s)").format(change)
        connection.execute(statement, values | {"ids": ids})
    return ids


@contextmanager
def _writing(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with reading(settings) as connection, connection.transaction():
        yield connection


def _ids(connection: psycopg.Connection[dict[str, Any]], references: Sequence[str]) -> list[UUID]:
    """Each run once."""
    return sorted(set(find_run_ids(connection, references)))


def _locked(connection: psycopg.Connection[dict[str, Any]], ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """In a fixed order, so that two commands cannot wait for each other: an UPDATE takes rows in the order in which it
    happens to meet them."""
    return connection.execute(
        "SELECT run_id, execution_status FROM backtest_runs WHERE run_id = ANY(%s) ORDER BY run_id FOR UPDATE",
        [list(ids)],
    ).fetchall()


def _require_all(ids: Sequence[UUID], rows: list[dict[str, Any]]) -> None:
    missing = set(ids) - {row["run_id"] for row in rows}
    if missing:
        raise NotFoundError(f"there is no run {min(missing)}", hint="`ntrader history list` shows what there is.")


def _require_finished(rows: list[dict[str, Any]]) -> None:
    running = [row["run_id"] for row in rows if row["execution_status"] == "running"]
    if running:
        raise ConfigError(f"run {running[0]} is running", hint="Stop it first, or wait for its end.")


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(f"{name[:50]!r} is no name", hint=f"1 to {LONGEST_NAME} printable characters.")
    if _LIKE_A_RUN_ID.fullmatch(name):
        raise ConfigError(
            f"{name!r} could be taken for a Run ID", hint="Put in a letter after f, or anything that no Run ID has."
        )
    return storable(name)
