"""What bars the recorded runs were fed, for `ntrader data impact`: read in one pass, a stretch of the table at a time.

No index leads to a data fingerprint, so every run is looked at once. A stretch is short enough to stay far below the
statement timeout and to say how far it is. 60,000 runs of 500 data sets take 0.2 s, with all their ids 0.45 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from ntrader import progress
from ntrader.config import canonical_json
from ntrader.data.uses import DataUse
from ntrader.settings import Settings
from storage.database import reading

Connection = psycopg.Connection[dict[str, Any]]
_STRETCH = 20_000
_END_OF_STRETCH = (
    "SELECT max(id) AS last, count(*) AS runs FROM"
    " (SELECT id FROM backtest_runs WHERE id > %(after)s ORDER BY id LIMIT %(stretch)s) AS stretch"
)
_USES = sql.SQL("""
SELECT r.data_fingerprint AS fingerprint, coalesce(r.config_snapshot -> 'data', '{{}}') AS data,
    min(r.instrument_symbol) AS symbol, min(r.data_source) AS source,
    min(r.start_date) AS start, max(r.end_date) AS end,
    count(*) AS runs, max(r.id) AS newest, {run_ids} AS run_ids
FROM backtest_runs r
WHERE r.id > %(after)s AND r.id <= %(last)s AND r.execution_status = 'success' AND NOT r.archived
    AND r.data_fingerprint IS NOT NULL AND (%(symbols)s::text[] IS NULL OR r.instrument_symbol = ANY(%(symbols)s))
GROUP BY 1, 2
""")
_RUN_IDS = {
    True: sql.SQL("array_agg(r.run_id ORDER BY r.id)"),
    False: sql.SQL("ARRAY[]::uuid[]"),
}


def data_uses(settings: Settings, symbols: Sequence[str] = (), *, run_ids: bool = False) -> tuple[DataUse, ...]:
    """Successful runs that are not archived, together where data fingerprint and data section of the config are equal.

    All symbols unless some are named. The ids of all runs come with them where `run_ids` asks for it: at a million
    runs those are 100 MB.
    """
    with reading(settings) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        statement = _USES.format(run_ids=_RUN_IDS[run_ids])
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for after, last in _stretches(connection):
            values = {"after": after, "last": last, "symbols": list(symbols) or None}
            for row in connection.execute(statement, values, binary=True):
                key = row["fingerprint"], canonical_json(row["data"])
                found[key] = _together(found[key], row) if key in found else row
        newest = _run_ids(connection, [row["newest"] for row in found.values()])
    return tuple(_use(row, newest) for row in found.values())


def _stretches(connection: Connection) -> Iterator[tuple[int, int]]:
    """(after, last): ids of so many runs at a time, whatever ids are missing between them."""
    total = connection.execute("SELECT count(*) AS runs FROM backtest_runs").fetchone()
    after, done = 0, 0
    while True:
        progress.report("Reading what runs were fed", done, total["runs"] if total else 0)
        end = connection.execute(_END_OF_STRETCH, {"after": after, "stretch": _STRETCH}).fetchone()
        if not end or end["last"] is None:
            return
        yield after, end["last"]
        after, done = end["last"], done + end["runs"]


def _together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The same use in two stretches; `other` is the later one."""
    return other | {
        "start": min(filter(None, (one["start"], other["start"])), default=None),
        "end": max(filter(None, (one["end"], other["end"])), default=None),
        "runs": one["runs"] + other["runs"],
        "run_ids": one["run_ids"] + other["run_ids"],
    }


def _run_ids(connection: Connection, ids: list[int]) -> dict[int, UUID]:
    rows = connection.execute("SELECT id, run_id FROM backtest_runs WHERE id = ANY(%s)", [ids])
    return {row["id"]: row["run_id"] for row in rows}


def _use(row: dict[str, Any], newest: dict[int, UUID]) -> DataUse:
    return DataUse(**(row | {"newest": newest[row["newest"]], "run_ids": tuple(row["run_ids"])}))
