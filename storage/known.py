"""What there is to name: runs, sweeps, strategies, symbols and tags, for completion and for "did you mean"."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import psycopg

from ntrader.settings import Settings
from storage import local
from storage.database import HEAD, connect, reading, schema_version

Connection = psycopg.Connection[dict[str, Any]]


def anything(settings: Settings) -> bool:
    """Whether there is any run, archived or not."""
    with reading(settings) as connection:
        return connection.execute("SELECT 1 FROM backtest_runs LIMIT 1").fetchone() is not None


def strategy_names(settings: Settings) -> list[str]:
    """Names of the strategies that have runs."""
    with reading(settings) as connection:
        return distinct(connection, "strategy_name")


def symbols(settings: Settings) -> list[str]:
    """Symbols that have runs."""
    with reading(settings) as connection:
        return distinct(connection, "instrument_symbol")


def distinct(connection: Connection, column: Literal["strategy_name", "instrument_symbol"]) -> list[str]:
    """From value to next value through the index: 30 strategies cost 30 looks, however many runs they have."""
    first = f"SELECT {column} AS word FROM backtest_runs WHERE NOT archived"
    rows = connection.execute(
        f"WITH RECURSIVE found AS (({first} ORDER BY {column} LIMIT 1) UNION ALL"
        f" SELECT (SELECT * FROM ({first} AND {column} > found.word ORDER BY {column} LIMIT 1) AS next)"
        " FROM found WHERE found.word IS NOT NULL)"
        " SELECT word FROM found WHERE word IS NOT NULL LIMIT 1000"
    ).fetchall()
    return [row["word"] for row in rows]


def recent_runs(connection: Connection) -> list[tuple[str, str]]:
    """The newest runs by name or Run ID, each with what it is."""
    rows = connection.execute(
        "SELECT coalesce(name, run_id::text) AS word, strategy_name, instrument_symbol, execution_status"
        " FROM backtest_runs WHERE NOT archived ORDER BY created_at DESC NULLS LAST, id DESC LIMIT 50"
    ).fetchall()
    return [(row["word"], _said(row)) for row in rows]


def runs_that_begin(connection: Connection, prefix: str) -> list[tuple[str, str]]:
    """Runs of any age whose Run ID begins with these hexadecimal digits."""
    digits = prefix.lower().replace("-", "")[:32]
    rows = connection.execute(
        "SELECT run_id::text AS word, strategy_name, instrument_symbol, execution_status FROM backtest_runs"
        " WHERE run_id BETWEEN %s AND %s ORDER BY run_id LIMIT 20",
        [UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))],
    ).fetchall()
    return [(row["word"], _said(row)) for row in rows]


def recent_sweeps(connection: Connection) -> list[tuple[str, str]]:
    """The newest sweeps by number, and those that have a name by that too, each with what it is."""
    rows = connection.execute(
        "SELECT id::text AS number, name, strategy_name, trials FROM sweeps ORDER BY id DESC LIMIT 50"
    ).fetchall()
    by_number = [(row["number"], f"{row['name'] or row['strategy_name']}, {row['trials']:,} trials") for row in rows]
    by_name = [(row["name"], f"sweep {row['number']}, {row['trials']:,} trials") for row in rows if row["name"]]
    return [*by_number, *by_name]


def recent_tags(connection: Connection) -> list[str]:
    """Tags of the newest thousand runs, as KEY=VALUE."""
    rows = connection.execute(
        "SELECT DISTINCT t.key || '=' || t.value AS word FROM (SELECT tags FROM backtest_runs WHERE NOT archived"
        " ORDER BY created_at DESC NULLS LAST, id DESC LIMIT 1000) r, jsonb_each_text(r.tags) t ORDER BY 1 LIMIT 200"
    ).fetchall()
    return [row["word"] for row in rows]


def connect_if_there(settings: Settings) -> Connection | None:
    """A connection for completion: it neither starts a server nor migrates one."""
    if settings.embedded and not local.status(settings.home).running:
        return None
    connection = connect(settings)
    if schema_version(connection) == HEAD:
        return connection
    connection.close()
    return None


def _said(row: dict[str, Any]) -> str:
    return f"{row['strategy_name']} {row['instrument_symbol']} {row['execution_status']}"
