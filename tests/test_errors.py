"""Errors cross a process border on their way back from the engine: nothing of them may be lost on the way."""

from __future__ import annotations

import inspect
import pickle

import pytest

from ntrader import errors
from ntrader.errors import DatabaseError, Interruption, NtraderError, StrategyError, TransientDatabaseError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, NtraderError)]


class Counted(NtraderError):
    """An error with a constructor of its own."""

    def __init__(self, count: int, *, hint: str | None = None) -> None:
        super().__init__(f"counted to {count}", hint=hint)
        self.count = count


def sent[E: BaseException](error: E) -> E:
    copy: E = pickle.loads(pickle.dumps(error))
    return copy


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_pickled_error_keeps_class_message_and_hint(kind: type[NtraderError]) -> None:
    copy = sent(kind("it broke", hint="mend it"))
    assert (type(copy), copy.message, str(copy), copy.hint) == (kind, "it broke", "it broke", "mend it")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_attributes_added_later_are_kept(kind: type[NtraderError]) -> None:
    error = kind("it broke")
    error.__dict__["traceback_text"] = "Traceback ..."
    error.add_note("seen on a Monday")
    copy = sent(error)
    assert copy.traceback_text == "Traceback ..."  # type: ignore[attr-defined]
    assert copy.__notes__ == ["seen on a Monday"]
    assert copy.hint is None


def test_a_strategy_error_keeps_its_traceback() -> None:
    assert sent(StrategyError("x", traceback_text="line 7")).traceback_text == "line 7"


def test_an_error_with_a_constructor_of_its_own_is_rebuilt_without_calling_it() -> None:
    copy = sent(Counted(3, hint="stop"))
    assert (str(copy), copy.count, copy.hint) == ("counted to 3", 3, "stop")


def test_only_a_transient_database_error_is_worth_another_try() -> None:
    transient = [kind for kind in CLASSES if issubclass(kind, DatabaseError) and kind.transient]
    assert transient == [TransientDatabaseError]


def test_an_interruption_is_no_failure_and_keeps_its_signal() -> None:
    assert not issubclass(Interruption, Exception)
    assert sent(Interruption(15)).number == 15


def test_every_class_says_what_it_is_for() -> None:
    assert [kind.__name__ for kind in CLASSES if not (kind.__doc__ or "").strip()] == []
