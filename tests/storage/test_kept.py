"""What runs consumed, kept once in a real PostgreSQL: the same to the bit, whoever saves it at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from ntrader.config import canonical_json, sha256
from ntrader.data.bars import Bars
from ntrader.data.fingerprint import daily_fingerprints, data_fingerprint
from ntrader.errors import BadDataError
from ntrader.results import Inputs
from ntrader.settings import Settings
from storage import kept
from storage.database import connect
from tests.factories import flat_bars
from tests.flows.stored import tamper

SOURCES = {"mine": "x = 1\n", "mine.helper": "# ü \ud800 \x00\n", "empty": ""}


def inputs(bars: Bars | None = None, sources: dict[str, str] | None = None) -> Inputs:
    sources = SOURCES if sources is None else sources
    documents = {
        "code": canonical_json({name: sha256(text) for name, text in sources.items()}),
        "engine": canonical_json(["1.231.0", False]),
    }
    return Inputs(sources, documents, bars or flat_bars([1.0, 2.0, 3.0]))


def keep(settings: Settings, given: Inputs, *, data: bool = True) -> None:
    with connect(settings, autocommit=False) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        kept.keep_inputs(cursor, data_fingerprint(given.bars), given, data=data)
        connection.commit()


def count(settings: Settings, table: str = "kept_contents") -> int:
    with connect(settings) as connection:
        row = connection.execute(psycopg.sql.SQL("SELECT count(*) AS n FROM {}").format(psycopg.sql.Identifier(table)))
        found = row.fetchone()
    assert found is not None
    return int(found["n"])


def same(one: Bars, other: Bars | None) -> bool:
    columns = ("times", "open", "high", "low", "close", "volume")
    return other is not None and all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes() for name in columns
    ) and (one.symbol, one.venue, one.timeframe) == (other.symbol, other.venue, other.timeframe)  # fmt: skip


def test_what_was_kept_comes_back_as_it_was(settings: Settings) -> None:
    given = inputs(flat_bars([100.0 + 0.1 * day for day in range(800)]))
    keep(settings, given)

    assert same(given.bars, kept.read_bars(settings, data_fingerprint(given.bars)))
    assert kept.read_sources(settings, sha256(given.documents["code"])) == SOURCES
    engine = sha256(given.documents["engine"])
    assert kept.read_documents(settings, [engine, None, "0" * 64]) == {engine: ["1.231.0", False]}
    assert kept.read_days(settings, data_fingerprint(given.bars)) is None


def test_what_was_not_kept_is_none(settings: Settings) -> None:
    assert kept.read_bars(settings, "0" * 64) is None
    assert kept.read_sources(settings, "0" * 64) is None
    assert kept.read_days(settings, "0" * 64) is None
    assert kept.read_documents(settings, ["0" * 64]) == {}


def test_equal_contents_are_kept_once_for_many_runs(settings: Settings) -> None:
    keep(settings, inputs())
    once = count(settings)

    for _ in range(5):
        keep(settings, inputs())

    assert count(settings) == once
    assert count(settings, "kept_data") == 1


def test_another_day_of_bars_adds_one_chunk_and_another_module_two_contents(settings: Settings) -> None:
    closes = [100.0] * 800
    keep(settings, inputs(flat_bars(closes)))
    before = count(settings)

    keep(settings, inputs(flat_bars([*closes, 101.0])))
    assert count(settings) == before + 1
    keep(settings, inputs(flat_bars(closes), {**SOURCES, "more": "y = 2\n"}))
    assert count(settings) == before + 3


def test_of_bars_that_were_not_to_be_kept_the_days_are_known(settings: Settings) -> None:
    given = inputs()
    keep(settings, given, data=False)
    fingerprint = data_fingerprint(given.bars)

    assert kept.read_bars(settings, fingerprint) is None
    days = kept.read_days(settings, fingerprint)
    assert days == {day: bytes.fromhex(each)[:8] for day, each in daily_fingerprints(given.bars).items()}
    assert kept.read_sources(settings, sha256(given.documents["code"])) == SOURCES


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["kept first", "kept later"])
def test_bars_are_kept_if_one_run_keeps_them(settings: Settings, order: tuple[bool, bool]) -> None:
    given = inputs()
    for data in order:
        keep(settings, given, data=data)

    assert same(given.bars, kept.read_bars(settings, data_fingerprint(given.bars)))
    assert kept.read_days(settings, data_fingerprint(given.bars)) is None
    assert count(settings, "kept_data") == 1


def test_bars_of_two_symbols_share_their_chunks(settings: Settings) -> None:
    one = flat_bars([1.0, 2.0, 3.0])
    other = replace(one, symbol="OTHER")
    keep(settings, inputs(one))
    before = count(settings)
    keep(settings, inputs(other))

    assert count(settings) == before
    assert same(other, kept.read_bars(settings, data_fingerprint(other)))


TAMPERED: dict[str, tuple[str, Callable[[Settings, Inputs], Any]]] = {
    "source": ("UPDATE kept_contents SET content = content || '\\x20' WHERE kind = 'source'",
               lambda settings, given: kept.read_sources(settings, sha256(given.documents["code"]))),
    "document": ("UPDATE kept_contents SET content = content || '\\x20' WHERE kind = 'document'",
                 lambda settings, given: kept.read_documents(settings, [sha256(given.documents["engine"])])),
    "bars": ("UPDATE kept_contents SET content = set_byte(content, 40, get_byte(content, 40) # 1) WHERE kind = 'bars'",
             lambda settings, given: kept.read_bars(settings, data_fingerprint(given.bars))),
    "symbol": ("UPDATE kept_data SET symbol = 'OTHER'",
               lambda settings, given: kept.read_bars(settings, data_fingerprint(given.bars))),
    "chunk missing": ("DELETE FROM kept_contents WHERE kind = 'bars'",
                      lambda settings, given: kept.read_bars(settings, data_fingerprint(given.bars))),
    "chunks turned round": ("UPDATE kept_data SET chunks = chunks[2:] || chunks[1]",
                            lambda settings, given: kept.read_bars(settings, data_fingerprint(given.bars))),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_in_the_database_is_noticed(settings: Settings, what: str) -> None:
    statement, read = TAMPERED[what]
    given = inputs(flat_bars([100.0 + 0.1 * day for day in range(800)]))
    keep(settings, given)
    tamper(settings, statement)

    with pytest.raises(BadDataError):
        read(settings, given)


def test_kept_contents_cannot_be_changed_by_accident(settings: Settings) -> None:
    keep(settings, inputs())

    with connect(settings) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("UPDATE kept_contents SET content = ''")


def test_whoever_keeps_the_same_a_moment_later_waits_and_finds_it_there(settings: Settings) -> None:
    done = threading.Event()
    second = threading.Thread(target=lambda: (keep(settings, inputs()), done.set()))
    with connect(settings, autocommit=False) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        kept.keep_inputs(cursor, data_fingerprint(inputs().bars), inputs(), data=True)
        second.start()
        time.sleep(0.3)
        assert not done.is_set()
        connection.commit()
    second.join(timeout=10)

    assert done.is_set()
    assert count(settings, "kept_data") == 1


def test_whoever_waited_for_one_that_gave_up_keeps_it_all(settings: Settings) -> None:
    second = threading.Thread(target=lambda: keep(settings, inputs()))
    with connect(settings, autocommit=False) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
        kept.keep_inputs(cursor, data_fingerprint(inputs().bars), inputs(), data=True)
        second.start()
        time.sleep(0.3)
        connection.rollback()
    second.join(timeout=10)

    assert same(inputs().bars, kept.read_bars(settings, data_fingerprint(inputs().bars)))
    assert kept.read_sources(settings, sha256(inputs().documents["code"])) == SOURCES


def test_many_who_keep_the_same_at_once_do_not_block_each_other_for_ever(settings: Settings) -> None:
    """The same modules and chunks in any order, with and without the bars, each in a connection of its own."""
    rounds, failures = 12, []

    def work(number: int) -> None:
        random = np.random.default_rng(number)
        for turn in range(rounds):
            names = random.permutation(40)
            sources = {f"m{name}": f"x = {turn}, {name}\n" for name in names}
            bars = flat_bars([float(turn + 1)] * int(random.choice([5, 400, 800])))
            try:
                keep(settings, inputs(bars, sources), data=bool(random.random() < 0.7))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert not any(thread.is_alive() for thread in threads)
    assert failures == []
    with connect(settings) as connection:
        rows = connection.execute("SELECT data_fingerprint FROM kept_data WHERE chunks IS NOT NULL").fetchall()
    assert rows
    assert all(kept.read_bars(settings, row["data_fingerprint"]) is not None for row in rows)
