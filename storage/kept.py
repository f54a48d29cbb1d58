"""What runs consumed, kept once by its content: source text, the documents behind fingerprints, and bars in chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import date
from typing import Any

import psycopg

from ntrader.config import sha256
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.chunks import join, split
from ntrader.data.fingerprint import daily_fingerprints, data_fingerprint
from ntrader.errors import BadDataError
from ntrader.results import Inputs
from ntrader.settings import Settings
from storage.database import reading

Cursor = psycopg.Cursor[Any]

DIGEST_BYTES = 8
_RESTORE = "Somebody changed it in the database: restore it from a backup."


def keep_inputs(cursor: Cursor, data_fingerprint: str, inputs: Inputs, *, data: bool) -> None:
    """In the caller's transaction. Without `data` the bars themselves are left out: a later change can then be dated to
    the day, but not shown."""
    texts = {sha256(text): ("source", text) for text in inputs.sources.values()}
    texts |= {sha256(text): ("document", text) for text in inputs.documents.values()}
    contents = {digest: (kind, text.encode("utf-8", "surrogatepass")) for digest, (kind, text) in texts.items()}
    if not _is_kept(cursor, data_fingerprint, whole=data):
        contents |= _keep_bars(cursor, data_fingerprint, inputs.bars, whole=data)
    _add(cursor, contents)


def read_sources(settings: Settings, code_fingerprint: str) -> dict[str, str] | None:
    """Source text by module; None where it was not kept.

    Raises BadDataError where what is stored is not what was hashed, as `read_documents` does.
    """
    with reading(settings) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        document = _texts(cursor, [code_fingerprint])
        if not document:
            return None
        modules: dict[str, str] = json.loads(document[code_fingerprint])
        found = _texts(cursor, modules.values())
    if any(digest not in found for digest in modules.values()):
        return None
    return {name: found[digest] for name, digest in modules.items()}


def read_documents(settings: Settings, fingerprints: Iterable[str | None]) -> dict[str, Any]:
    """What is kept behind fingerprints of code, engine and environment, by fingerprint."""
    with reading(settings) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        found = _texts(cursor, [each for each in fingerprints if each])
    return {digest: json.loads(text) for digest, text in found.items()}


def read_bars(settings: Settings, fingerprint: str) -> Bars | None:
    """The bars that have the fingerprint; None where they were not kept.

    Raises BadDataError where what is stored is not what was hashed.
    """
    with reading(settings) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        row = cursor.execute(
            "SELECT symbol, venue, timeframe, chunks FROM kept_data WHERE data_fingerprint = %s", [fingerprint]
        ).fetchone()
        if row is None or row[3] is None:
            return None
        symbol, venue, timeframe, digests = row
        found = _contents(cursor, digests)
    chunks = [found[digest] for digest in digests if digest in found]
    bars = join(symbol, venue, parse_timeframe(timeframe), chunks, f"kept with run data {fingerprint[:8]}")
    if data_fingerprint(bars) != fingerprint:
        raise BadDataError(
            f"the kept bars of {symbol} are damaged: they do not have the fingerprint {fingerprint}", hint=_RESTORE
        )
    return bars


def read_days(settings: Settings, fingerprint: str) -> dict[str, bytes] | None:
    """The first 8 bytes of each day's fingerprint, by ISO date, of data that was not kept."""
    with reading(settings) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        row = cursor.execute(
            "SELECT days, day_digests FROM kept_data WHERE data_fingerprint = %s", [fingerprint]
        ).fetchone()
    if row is None or row[0] is None:
        return None
    days, digests = row
    return {
        day.isoformat(): bytes(digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)])
        for number, day in enumerate(days)
    }


def _is_kept(cursor: Cursor, fingerprint: str, *, whole: bool) -> bool:
    row = cursor.execute("SELECT chunks IS NOT NULL FROM kept_data WHERE data_fingerprint = %s", [fingerprint])
    found = row.fetchone()
    return found is not None and (found[0] or not whole)


def _keep_bars(cursor: Cursor, fingerprint: str, bars: Bars, *, whole: bool) -> dict[str, tuple[str, bytes]]:
    """The row, and the chunks that it names. Data that were not to be kept may be later, by another run."""
    chunks = split(bars) if whole else ()
    digests = {} if whole else daily_fingerprints(bars)
    cursor.execute(
        "INSERT INTO kept_data (data_fingerprint, symbol, venue, timeframe, bars, chunks, days, day_digests)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (data_fingerprint) DO UPDATE"
        " SET chunks = excluded.chunks, days = NULL, day_digests = NULL"
        " WHERE kept_data.chunks IS NULL AND excluded.chunks IS NOT NULL",
        [
            *(fingerprint, bars.symbol, bars.venue, str(bars.timeframe), len(bars)),
            [chunk.digest for chunk in chunks] if whole else None,
            None if whole else [date.fromisoformat(day) for day in digests],
            None if whole else b"".join(bytes.fromhex(each)[:DIGEST_BYTES] for each in digests.values()),
        ],
    )
    return {chunk.digest: ("bars", chunk.content) for chunk in chunks}


def _add(cursor: Cursor, contents: dict[str, tuple[str, bytes]]) -> None:
    """In the order of their digests, so that two who add the same never wait for each other in a circle."""
    cursor.execute("SELECT digest FROM kept_contents WHERE digest = ANY(%s)", [list(contents)])
    known = {row[0] for row in cursor.fetchall()}
    missing = [(digest, *contents[digest]) for digest in sorted(contents) if digest not in known]
    if missing:
        cursor.executemany(
            "INSERT INTO kept_contents (digest, kind, content) VALUES (%s, %s, %s) ON CONFLICT (digest) DO NOTHING",
            missing,
        )


def _texts(cursor: Cursor, digests: Iterable[str]) -> dict[str, str]:
    """Those that are there, each checked against its digest."""
    texts = {}
    for digest, content in _contents(cursor, digests).items():
        if hashlib.sha256(content).hexdigest() != digest:
            raise BadDataError(f"the kept text {digest} is damaged: it does not have that digest", hint=_RESTORE)
        texts[digest] = content.decode("utf-8", "surrogatepass")
    return texts


def _contents(cursor: Cursor, digests: Iterable[str]) -> dict[str, bytes]:
    rows = cursor.execute(
        "SELECT digest, content FROM kept_contents WHERE digest = ANY(%s)", [list(digests)], binary=True
    ).fetchall()
    return {digest: bytes(content) for digest, content in rows}
