"""Columns as PostgreSQL arrays and back: whatever the 64 bits of a number are, the server gives them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ntrader.settings import Settings
from storage import database
from storage.arrays import Column, Texts, decode, register, steps, times
from tests.factories import DAY, START

Db = psycopg.Connection[dict[str, Any]]
WORDS = st.lists(st.integers(0, 2**64 - 1), max_size=200)
QUIET_NAN, SIGNALLING_NAN, NEGATIVE_NAN = 0x7FF8000000000001, 0x7FF0000000000001, 0xFFF8DEADBEEF0000
INFINITY, MINUS_INFINITY, MINUS_ZERO, SUBNORMAL = 0x7FF << 52, 0xFFF << 52, 1 << 63, 1
SPECIAL = [QUIET_NAN, SIGNALLING_NAN, NEGATIVE_NAN, INFINITY, MINUS_INFINITY, MINUS_ZERO, SUBNORMAL]
TYPES = {"bigint": np.dtype(np.int64), "double precision": np.dtype(np.float64)}


@pytest.fixture(scope="module")
def db(shared: Settings) -> Iterator[Db]:
    """A connection that takes columns, with a table to put them in."""
    with database.connect(shared) as connection:
        register(connection)
        connection.execute("CREATE TEMP TABLE cells (bigint bigint[], double double precision[])")
        yield connection


def there_and_back(db: Db, column: NDArray[Any]) -> NDArray[Any]:
    """Through a table of the server, not only through its parser."""
    name = "bigint" if column.dtype.kind == "i" else "double"
    with db.transaction(force_rollback=True):
        db.execute(f"INSERT INTO cells ({name}) VALUES (%s)", [Column(column)])
        (row,) = db.execute(f"SELECT array_send({name}) AS data FROM cells").fetchall()
    return decode(row["data"])


@given(words=st.lists(st.text(st.characters(exclude_characters="\x00", codec="utf-8")), max_size=20))
@example(words=[])
@example(words=["", "buy", "NULL", '{"a,b\\\\"}'])
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_come_back_from_copy(db: Db, words: list[str]) -> None:
    with db.transaction(force_rollback=True), db.cursor() as cursor:
        db.execute("CREATE TEMP TABLE said (words text[] NOT NULL)")
        with cursor.copy("COPY said FROM STDIN BINARY") as copy:
            copy.write_row([Texts(words)])
        (row,) = db.execute("SELECT words FROM said").fetchall()

    assert row["words"] == words


def bits(column: NDArray[Any]) -> list[int]:
    return [int(word) for word in column.view(np.uint64)]


@pytest.mark.parametrize("kind", TYPES)
@given(words=WORDS)
@example(words=[])
@example(words=[0])
@example(words=SPECIAL)
@example(words=[2**63 - 1, 2**63])
@hypothesis_settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_column_comes_back_whatever_its_bits_mean(db: Db, kind: str, words: list[int]) -> None:
    back = there_and_back(db, np.array(words, dtype=np.uint64).view(TYPES[kind]))
    assert (back.dtype, bits(back)) == (TYPES[kind], words)


def test_the_server_reads_the_numbers_that_were_meant(db: Db) -> None:
    (row,) = db.execute(
        "SELECT %s::bigint[] AS whole, %s::double precision[] AS real",
        [Column(np.array([-(2**63), -1, 0, 2**63 - 1])), Column(np.array([0.1, -1.5, 5e-324]))],
    ).fetchall()
    assert row == {"whole": [-(2**63), -1, 0, 2**63 - 1], "real": [0.1, -1.5, 5e-324]}


def test_arrays_that_the_server_made_are_read(db: Db) -> None:
    (row,) = db.execute(
        "SELECT array_send('{1,-2,3}'::bigint[]) AS whole, array_send('{NaN,-Infinity,0.1}'::float8[]) AS real,"
        " array_send('{}'::float8[]) AS nothing, array_send('[5:6]={7,8}'::bigint[]) AS shifted"
    ).fetchall()
    assert decode(row["whole"]).tolist() == [1, -2, 3]
    assert repr(decode(row["real"]).tolist()) == "[nan, -inf, 0.1]"
    assert decode(row["nothing"]).tolist() == []
    assert decode(row["shifted"]).tolist() == [7, 8]


def test_an_array_of_columns_may_be_copied_too(db: Db) -> None:
    with db.transaction(force_rollback=True):
        db.cursor().executemany(
            "INSERT INTO cells VALUES (%s, %s)",
            [(Column(np.arange(n, dtype=np.int64)), Column(np.zeros(n))) for n in range(3)],
        )
        rows = db.execute("SELECT bigint, double FROM cells ORDER BY cardinality(bigint)").fetchall()
    assert [(row["bigint"], row["double"]) for row in rows] == [([], []), ([0], [0.0]), ([0, 1], [0.0, 0.0])]


def test_a_column_that_is_read_back_may_be_written_to(db: Db) -> None:
    back = there_and_back(db, np.zeros(3))
    back[0] = 1.0
    assert back.tolist() == [1.0, 0.0, 0.0]


def test_what_lies_apart_in_memory_is_stored_as_what_it_says(db: Db) -> None:
    assert there_and_back(db, np.arange(20, dtype=np.float64)[::-2]).tolist() == list(range(19, 0, -2))


@pytest.mark.parametrize("dtype", ["float32", "int32", ">f8", ">i8", "uint64", "uint8", "bool", "complex128", "M8[ns]"])
def test_a_column_of_other_numbers_is_refused(db: Db, dtype: str) -> None:
    with pytest.raises(TypeError, match="only int64 or float64 columns can be stored"):
        db.execute("SELECT %s", [Column(np.zeros(8, dtype=dtype))])


@pytest.mark.parametrize(
    "array",
    [
        "'{1,2}'::int[]",
        "'{1,2}'::real[]",
        "'{1,2}'::numeric[]",
        "'{12345678}'::text[]",
        "'{}'::text[]",
        "'{1,NULL}'::bigint[]",
        "'{{1,2},{3,4}}'::bigint[]",
        "'{2020-01-01}'::timestamptz[]",
    ],
)
def test_other_arrays_are_not_decoded(db: Db, array: str) -> None:
    (row,) = db.execute(f"SELECT array_send({array}) AS data").fetchall()
    with pytest.raises(ValueError, match="not a plain array of int8 or float8"):
        decode(row["data"])


# -- steps ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
@example([])
@example([2**63 - 1, -(2**63)])
def test_steps_and_times_are_inverse_even_where_they_overflow(moments: list[int]) -> None:
    column = np.array(moments, dtype=np.int64)
    back = times(steps(column))
    assert (back.dtype, back.tolist()) == (np.dtype(np.int64), moments)


def test_steps_are_the_first_time_and_then_the_differences() -> None:
    assert steps(np.array([START, START + DAY, START + 4 * DAY])).tolist() == [START, DAY, 3 * DAY]


def test_a_regular_curve_of_13_years_is_small_in_the_database(db: Db) -> None:
    """Its times are one number repeated: raw they would be 26 kB."""
    column = steps(START + DAY * np.arange(1, 3301, dtype=np.int64))
    with db.transaction(force_rollback=True):
        db.execute("INSERT INTO cells (bigint) VALUES (%s)", [Column(column)])
        (row,) = db.execute("SELECT pg_column_size(bigint) AS bytes FROM cells").fetchall()
    assert row["bytes"] < 1_000
