"""Which run is meant. (What `get_run` makes of each spelling is in test_runs.py.)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ntrader.errors import AmbiguousError, NotFoundError
from ntrader.settings import Settings
from storage import database
from storage.references import find_run_id, find_run_ids
from tests.storage import rows

Db = psycopg.Connection[dict[str, Any]]
FIRST, SECOND, ARCHIVED = (UUID(f"{digit}abc0000-0000-4000-8000-000000000000") for digit in "123")
TWINS = [UUID(f"dead000{digit}-0000-4000-8000-000000000000") for digit in "123"]
NOWHERE = UUID(int=0)


@pytest.fixture(scope="module")
def db(shared: Settings) -> Iterator[Db]:
    """Three runs that can be told apart, the newest of them archived, and three older ones that can hardly be."""
    rows.insert(
        shared,
        [
            *(rows.row(number, run_id=run_id) for number, run_id in enumerate(TWINS)),
            rows.row(11, run_id=FIRST, name="the best"),
            rows.row(12, run_id=SECOND, name="naïve 数 %_'\\"),
            rows.row(13, run_id=ARCHIVED, name="put away", archived=True),
        ],
    )
    with database.connect(shared) as connection:
        yield connection


def test_each_run_comes_in_its_place(db: Db) -> None:
    words = ["the best", "@last", "3abc", "1ABC-0000", str(NOWHERE), "@last~1", "the best", TWINS[1].hex]
    assert find_run_ids(db, words) == [FIRST, SECOND, ARCHIVED, FIRST, NOWHERE, FIRST, FIRST, TWINS[1]]


def test_no_references_are_no_runs(db: Db) -> None:
    assert find_run_ids(db, []) == []


def test_a_whole_uuid_is_taken_at_its_word(db: Db) -> None:
    assert find_run_id(db, str(NOWHERE).upper()) == NOWHERE


def test_last_passes_over_what_is_archived(db: Db) -> None:
    assert [find_run_id(db, word) for word in ("@last", "@last~1", "@last~4")] == [SECOND, FIRST, TWINS[0]]
    with pytest.raises(NotFoundError, match="there is no run @last~5"):
        find_run_id(db, "@last~5")


@pytest.mark.parametrize("word", ["put away", "  put away\t", "3abc", "3abc0000-0000-4000-8000"])
def test_an_archived_run_is_found_by_its_name_and_its_id(db: Db, word: str) -> None:
    assert find_run_id(db, word) == ARCHIVED


def test_a_name_may_be_of_any_printable_characters(db: Db) -> None:
    assert find_run_id(db, "naïve 数 %_'\\") == SECOND


@pytest.mark.parametrize("word", ["The Best", "the  best", "the best.", "%", "the b%"])
def test_a_name_is_found_by_itself_only(db: Db, word: str) -> None:
    with pytest.raises(NotFoundError, match=re.escape(f"{word!r} names no run")):
        find_run_id(db, word)


def test_the_nearest_name_is_offered(db: Db) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_run_id(db, "the bst")
    assert (caught.value.hint or "").startswith("Did you mean 'the best'? ")


def test_of_many_that_fit_two_are_shown(db: Db) -> None:
    with pytest.raises(AmbiguousError, match="'dead-000' fits more than one run") as caught:
        find_run_id(db, "dead-000")
    shown = [line.split()[0] for line in caught.value.message.splitlines()[1:]]
    assert shown == [str(TWINS[0]), str(TWINS[1]), "..."]


def test_one_bad_word_among_good_ones_is_the_one_that_is_named(db: Db) -> None:
    for words, error, message in [
        (["@last", "dead", "the best"], AmbiguousError, "'dead' fits more than one"),
        (["@last", "beef", "the best"], NotFoundError, "there is no run beef"),
        (["@last", "1a", "the best"], NotFoundError, "'1a' is too short"),
        (["@last", "nobody", "the best"], NotFoundError, "'nobody' names no run"),
        (["@last", "@lst", "the best"], NotFoundError, "'@lst' names no run"),
    ]:
        with pytest.raises(error, match=message):
            find_run_ids(db, words)


@pytest.mark.parametrize("word", ["", "  ", "\x00", "the best\x00", "\udcff", "\x1b[31m", "a\nb", "x" * 100_000,
                                  "d" * 100_000, "-" * 100_000, "@" * 1000, "@last~" + "9" * 1000, "😀"])  # fmt: skip
def test_odd_words_name_no_run(db: Db, word: str) -> None:
    with pytest.raises(NotFoundError):
        find_run_id(db, word)


@given(st.text(st.characters(codec=None)) | st.text("0123456789abcdef-@~last", max_size=40))
@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_word_is_a_run_or_is_refused(db: Db, word: str) -> None:
    try:
        assert isinstance(find_run_id(db, word), UUID)
    except (NotFoundError, AmbiguousError) as error:
        assert error.hint
