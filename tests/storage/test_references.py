"""Which run is meant, and which sweep. (What `get_run` makes of each spelling is in test_runs.py.)"""

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
from storage.labels import delete_runs
from storage.references import find_run_id, find_run_ids, find_sweep_id
from tests.storage import rows, sweeps

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


@given(st.text(st.characters(codec=None)) | st.text("0123456789abcdef-@~last:", max_size=40))
@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_word_is_a_run_or_is_refused(db: Db, word: str) -> None:
    try:
        assert isinstance(find_run_id(db, word), UUID)
    except (NotFoundError, AmbiguousError) as error:
        assert error.hint


# -- sweeps --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four(shared: Settings, db: Db) -> list[int]:
    """Four sweeps, the first two of one name; after the other rows, which `@last` of runs counts."""
    return [
        sweeps.stored(shared, [0.1, 0.3, 0.2], name="twice"),
        sweeps.stored(shared, [0.1, 0.3, 0.2], name="twice", direction="minimize"),
        sweeps.stored(shared, [0.5, None], name="naïve 数 %_'\\"),
        sweeps.stored(shared, ["exception"], name="12 failures"),
    ]


def test_a_sweep_is_named_by_number_age_and_name(db: Db, four: list[int]) -> None:
    for word, place in [
        (str(four[1]), 1), (f"  0{four[1]} ", 1), ("@last", 3), ("@last~0", 3), ("@last~3", 0),
        ("naïve 数 %_'\\", 2), (" 12 failures", 3),
    ]:  # fmt: skip
        assert find_sweep_id(db, word) == four[place], word


def test_a_name_of_two_sweeps_lists_both(db: Db, four: list[int]) -> None:
    with pytest.raises(AmbiguousError, match="'twice' fits more than one sweep") as caught:
        find_sweep_id(db, "twice")
    assert [line.split()[0] for line in caught.value.message.splitlines()[1:]] == [str(four[1]), str(four[0])]


@pytest.mark.parametrize("word", ["", "0", "-1", "99999", "9" * 18, "9" * 5000, "@last~99", "@last~", "@lst", "@last1",
                                  "twic%", "\x00", "\udcff", "twice\x00", "a\nb", "²"])  # fmt: skip
def test_odd_words_name_no_sweep(db: Db, four: list[int], word: str) -> None:
    with pytest.raises(NotFoundError, match="there is no sweep") as caught:
        find_sweep_id(db, word)
    assert "ntrader sweep list" in (caught.value.hint or "")


def test_the_nearest_name_of_a_sweep_is_offered(db: Db, four: list[int]) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_sweep_id(db, "13 failures")
    assert (caught.value.hint or "").startswith("Did you mean '12 failures'? ")


def test_the_best_trial_of_a_sweep_is_a_run(shared: Settings, db: Db, four: list[int]) -> None:
    first, second, third = (sweeps.run_ids(shared, number) for number in four[:3])
    words = [f"@best:{four[0]}", f"@best: {four[1]}", "@best:@last~1", "@best:naïve 数 %_'\\"]
    assert [str(found) for found in find_run_ids(db, words)] == [first[1], second[0], third[0], third[0]]

    delete_runs(shared, [first[1]])
    assert str(find_run_id(db, words[0])) == first[2]


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("@best", NotFoundError, "'@best' names no run"),
        ("@best:", NotFoundError, "there is no sweep ''"),
        ("@best:nobody", NotFoundError, "there is no sweep 'nobody'"),
        ("@best:twice", AmbiguousError, "fits more than one sweep"),
        ("@best:12 failures", NotFoundError, "has no trial with a total_return yet"),
    ],
)
def test_a_best_trial_that_is_none_is_refused(
    db: Db, four: list[int], word: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_run_id(db, word)
