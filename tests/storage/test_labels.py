"""What people say of a run, and deleting one: all or nothing, and never anything else about it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from ntrader.errors import AmbiguousError, ConfigError, NotFoundError
from ntrader.settings import Settings
from storage import database, labels, recording, runs
from storage.labels import LONGEST_NAME, Deletable
from tests import factories
from tests.storage import rows

A, B, C = (UUID(f"{digit}abc0000-0000-4000-8000-000000000000") for digit in "123")
ODD_TEXTS = [*rows.ODD_TEXTS, "\x01\x1b[31m\x7f", "ä" * 100_000]


@pytest.fixture
def settings(cleared: Settings) -> Settings:
    """A database without a run."""
    return cleared


@pytest.fixture
def three(settings: Settings) -> Settings:
    """Three finished runs: A, B and, the newest, C."""
    rows.insert(settings, [rows.row(number, run_id=run_id) for number, run_id in enumerate((A, B, C))])
    return settings


def of(settings: Settings, run_id: UUID) -> dict[str, Any]:
    with database.connect(settings) as connection:
        (found,) = connection.execute("SELECT * FROM backtest_runs WHERE run_id = %s", [run_id]).fetchall()
    return found


def everything(settings: Settings) -> list[dict[str, Any]]:
    with database.connect(settings) as connection:
        return connection.execute("SELECT * FROM backtest_runs ORDER BY id").fetchall()


def started(settings: Settings) -> UUID:
    run = factories.new_run()
    recording.start_run(settings, run)
    return run.run_id


def finished(settings: Settings) -> UUID:
    run_id, execution = started(settings), factories.execution()
    recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
    return run_id


def reproduce(settings: Settings, original: UUID, *, by: UUID) -> None:
    link = (
        "UPDATE backtest_runs SET reproduced_from_run_id = (SELECT id FROM backtest_runs WHERE run_id = %s)"
        " WHERE run_id = %s"
    )
    with database.connect(settings) as connection:
        connection.execute(link, [original, by])


def only_changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


# -- tags ----------------------------------------------------------------------------------------------------


def test_tags_are_added_replaced_and_removed_and_others_stay(three: Settings) -> None:
    labels.set_tags(three, ["1abc"], {"team": "fx", "stage": "1", "old": "x"}, [])
    labels.set_tags(three, ["1abc"], {"stage": "2", "new": ""}, ["old", "never there"])
    assert of(three, A)["tags"] == {"team": "fx", "stage": "2", "new": ""}
    assert of(three, B)["tags"] == {}


def test_tags_of_several_runs_each_once(three: Settings) -> None:
    assert labels.set_tags(three, ["@last", "1abc", str(C), "3abc"], {"a": "b"}, []) == [A, C]
    assert [run["tags"] for run in everything(three)] == [{"a": "b"}, {}, {"a": "b"}]


def test_only_the_tags_change(three: Settings) -> None:
    before = of(three, A)
    labels.set_tags(three, [str(A)], {"a": "b"}, [])
    assert only_changed(before, of(three, A)) == {"tags"}


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_tag_may_be_any_text(three: Settings, text: str) -> None:
    labels.set_tags(three, [str(A)], {text: text}, [])
    assert of(three, A)["tags"] == {text: text}
    labels.set_tags(three, [str(A)], {}, [text])
    assert of(three, A)["tags"] == {}


# -- notes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_note_may_be_any_text(three: Settings, text: str) -> None:
    before = of(three, A)
    assert labels.set_note(three, str(A), text) == A
    assert of(three, A)["notes"] == text
    assert only_changed(before, of(three, A)) == {"notes"}


def test_a_note_can_be_replaced_and_removed(three: Settings) -> None:
    labels.set_note(three, "@last", "first")
    labels.set_note(three, "@last", "second")
    assert of(three, C)["notes"] == "second"
    labels.set_note(three, "@last", None)
    assert of(three, C)["notes"] is None


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "the best",
        "x" * LONGEST_NAME,
        "数",
        "deadbeefg",
        "12 34",
        "a@last",
        "%(v0)s",
        "{}",
        "'; DROP TABLE x",
        "0x1f",
        "é",
    ],
)
def test_a_run_is_found_by_the_name_it_was_given(three: Settings, name: str) -> None:
    before = of(three, B)
    assert labels.set_name(three, str(B), name) == B
    assert runs.get_run(three, name).run_id == B
    assert only_changed(before, of(three, B)) == {"name"}


def test_spaces_around_a_name_are_no_part_of_it(three: Settings) -> None:
    labels.set_name(three, str(B), "  the best \n")
    assert of(three, B)["name"] == "the best"


def test_a_name_can_be_replaced_and_taken_away(three: Settings) -> None:
    labels.set_name(three, str(A), "first")
    labels.set_name(three, "first", "second")
    labels.set_name(three, "second", "second")
    assert of(three, A)["name"] == "second"
    labels.set_name(three, "second", None)
    assert of(three, A)["name"] is None


def test_two_runs_cannot_have_one_name(three: Settings) -> None:
    labels.set_name(three, str(A), "the best")
    with pytest.raises(ConfigError, match="another run is named 'the best'"):
        labels.set_name(three, str(B), "the best")
    assert of(three, B)["name"] is None


def test_an_archived_run_keeps_its_name_to_itself(three: Settings) -> None:
    labels.set_name(three, str(A), "the best")
    labels.set_archived(three, [str(A)], True)
    with pytest.raises(ConfigError, match="another run is named"):
        labels.set_name(three, str(B), "the best")


def test_the_name_of_a_deleted_run_is_free(three: Settings) -> None:
    labels.set_name(three, str(A), "the best")
    labels.delete_runs(three, ["the best"])
    labels.set_name(three, str(B), "the best")
    assert runs.get_run(three, "the best").run_id == B


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "a\x00b", "\x1b[31mred", "a\u2028b", "\udcff", "x" * 201, "x" * 100_000]
)
def test_what_is_no_name_is_refused(three: Settings, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        labels.set_name(three, str(A), name)
    assert of(three, A)["name"] is None


@pytest.mark.parametrize("name", ["dead", "DEAD-beef", "7", "-", "@", "@last", "@last~3", "@me", str(A), "f" * 200])
def test_a_name_like_a_run_id_is_refused(three: Settings, name: str) -> None:
    with pytest.raises(ConfigError, match="could be taken for a Run ID"):
        labels.set_name(three, str(A), name)
    assert of(three, A)["name"] is None


# -- archive -------------------------------------------------------------------------------------------------


def test_runs_are_put_away_and_brought_back(three: Settings) -> None:
    before = of(three, A)
    assert labels.set_archived(three, ["1abc", "3abc"], True) == [A, C]
    assert [run["archived"] for run in everything(three)] == [True, False, True]
    assert only_changed(before, of(three, A)) == {"archived"}
    assert labels.set_archived(three, ["3abc", "1abc"], False) == [A, C]
    assert [run["archived"] for run in everything(three)] == [False, False, False]


def test_putting_away_the_newest_makes_another_one_the_last(three: Settings) -> None:
    labels.set_archived(three, ["@last"], True)
    assert runs.get_run(three, "@last").run_id == B


# -- all or nothing ------------------------------------------------------------------------------------------


CHANGES: list[Callable[[Settings, list[str]], object]] = [
    lambda settings, words: labels.set_tags(settings, words, {"a": "b"}, []),
    lambda settings, words: labels.set_archived(settings, words, True),
    lambda settings, words: labels.set_note(settings, words[-1], "note"),
    lambda settings, words: labels.set_name(settings, words[-1], "name"),
    labels.delete_runs,
    labels.look_at,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("word", "error"),
    [
        (str(UUID(int=0)), NotFoundError),
        ("beef", NotFoundError),
        ("nobody", NotFoundError),
        ("@last~9", NotFoundError),
        ("", NotFoundError),
        ("\udcff", NotFoundError),
        ("x" * 100_000, NotFoundError),
        ("dead", AmbiguousError),
    ],
)
def test_one_bad_reference_and_nothing_changes(
    three: Settings, change: Callable[[Settings, list[str]], object], word: str, error: type[Exception]
) -> None:
    rows.insert(three, [rows.row(9, run_id=UUID(f"dead000{digit}" + "0" * 24)) for digit in "12"])
    before = everything(three)
    with pytest.raises(error):
        change(three, [str(A), word])
    assert everything(three) == before


@pytest.mark.parametrize("text", ["a\x00b", "\udcff", "\ud800"])
@pytest.mark.parametrize(
    "change",
    [
        lambda settings, text: labels.set_tags(settings, [str(A)], {"a": text}, []),
        lambda settings, text: labels.set_tags(settings, [str(A)], {text: "a"}, []),
        lambda settings, text: labels.set_tags(settings, [str(A)], {}, [text]),
        lambda settings, text: labels.set_note(settings, str(A), text),
    ],
)
def test_text_that_cannot_be_stored_is_refused(
    three: Settings, change: Callable[[Settings, str], object], text: str
) -> None:
    before = everything(three)
    with pytest.raises(ConfigError):
        change(three, text)
    assert everything(three) == before


def test_a_running_run_may_be_labelled_and_keeps_its_labels(settings: Settings) -> None:
    run_id, execution = started(settings), factories.execution()
    labels.set_tags(settings, [str(run_id)], {"a": "b"}, [])
    labels.set_note(settings, str(run_id), "note")
    labels.set_name(settings, str(run_id), "the best")
    recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
    run = runs.get_run(settings, "the best")
    assert (run.execution_status, run.tags, run.notes) == ("success", {"a": "b"}, "note")


def test_two_at_once_never_wait_for_each_other(three: Settings) -> None:
    words = [str(A), str(B), str(C)]

    def label(number: int) -> None:
        labels.set_tags(three, words if number % 2 else words[::-1], {"by": str(number)}, [])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(label, range(40)))
    assert len({run["tags"]["by"] for run in everything(three)}) == 1


# -- deleting ------------------------------------------------------------------------------------------------


def test_what_would_be_deleted_is_shown_first(settings: Settings) -> None:
    first, second = finished(settings), finished(settings)
    reproduce(settings, first, by=second)
    labels.set_name(settings, str(first), "the best")
    shown = {found.run_id: found for found in labels.look_at(settings, [str(first), str(second)])}
    assert shown == {
        first: Deletable(first, "the best", "SMA Crossover", "TEST", "success", trades=1, reproductions=1),
        second: Deletable(second, None, "SMA Crossover", "TEST", "success", trades=1, reproductions=0),
    }


def test_a_deleted_run_is_gone_with_all_that_belongs_to_it(settings: Settings) -> None:
    first, second = finished(settings), finished(settings)
    assert labels.delete_runs(settings, [str(first), str(first).upper()]) == 1
    with pytest.raises(NotFoundError):
        runs.get_run(settings, str(first))
    assert (runs.get_trades(settings, first), runs.get_equity(settings, first)) == ([], [])
    assert (len(runs.get_trades(settings, second)), len(runs.get_equity(settings, second))) == (1, 4)


def test_a_run_cannot_be_deleted_twice(three: Settings) -> None:
    labels.delete_runs(three, [str(A)])
    with pytest.raises(NotFoundError, match=f"there is no run {A}"):
        labels.delete_runs(three, [str(A)])
    assert labels.count_deleted(three) == 1


def test_deleting_the_original_leaves_the_reproduction(three: Settings) -> None:
    reproduce(three, A, by=B)
    assert runs.get_run(three, str(B)).reproduced_from_run_id == A
    labels.delete_runs(three, [str(A)])
    assert runs.get_run(three, str(B)).reproduced_from_run_id is None


@pytest.mark.parametrize("delete", [labels.delete_runs, labels.look_at])
def test_a_running_run_is_not_deleted_nor_are_those_beside_it(
    three: Settings, delete: Callable[[Settings, list[str]], object]
) -> None:
    running = started(three)
    before = everything(three)
    with pytest.raises(ConfigError, match=f"^run {running} is running$"):
        delete(three, [str(A), str(running), str(B)])
    assert everything(three) == before
    assert labels.count_deleted(three) == 0


def test_what_was_deleted_is_counted_by_strategy_and_symbol(settings: Settings) -> None:
    kinds = [("SMA", "AAPL"), ("SMA", "MSFT"), ("RSI", "AAPL"), ("RSI", "AAPL"), ("o'clock", "ß")]
    rows.insert(
        settings,
        [rows.row(n, strategy_name=name, instrument_symbol=symbol) for n, (name, symbol) in enumerate(kinds)],
    )
    assert labels.delete_runs(settings, [str(UUID(int=n)) for n in range(1, 5)]) == 4
    assert labels.count_deleted(settings) == 4
    assert labels.count_deleted(settings, ["SMA"]) == 1
    assert labels.count_deleted(settings, ["RSI", "o'clock"]) == 3
    assert labels.count_deleted(settings, symbols=["AAPL"]) == 2
    assert labels.count_deleted(settings, ["RSI"], ["AAPL", "ß"]) == 2
    assert labels.count_deleted(settings, ["SMA"], ["AAPL"]) == 0
