"""Waiting for a database that comes back, and for nothing else."""

from __future__ import annotations

import threading
import time

import pytest

from ntrader.errors import DatabaseError, DatabaseUnavailableError, SchemaError, TransientDatabaseError
from ntrader.settings import Settings
from storage import patience
from storage.database import writing
from storage.patience import patiently
from tests.storage.proxy import Proxy


def away(times: int, error: Exception | None = None) -> object:
    """An action that fails so often before it answers."""
    left = iter(range(times))

    def action() -> str:
        for _ in left:
            raise error or TransientDatabaseError("away")
        return "there"

    return action


def test_what_may_come_back_is_waited_for() -> None:
    waits: list[None] = []
    assert patiently(away(3), lambda: waits.append(None)) == "there"
    assert len(waits) == 3


@pytest.mark.parametrize(
    "error",
    [DatabaseUnavailableError("no such user"), SchemaError("behind"), DatabaseError("disk full"), ValueError("a bug")],
    ids=lambda error: type(error).__name__,
)
def test_what_trying_again_cannot_help_is_raised_at_once(error: Exception) -> None:
    waits: list[None] = []
    with pytest.raises(type(error), match=str(error)):
        patiently(away(1, error), lambda: waits.append(None))
    assert waits == []


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(TransientDatabaseError, match="away"):
        patiently(away(1_000_000))
    assert 0.3 <= time.monotonic() - began < 5


def test_who_is_told_to_stop_stops_waiting() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(TransientDatabaseError, match="away"):
        patiently(away(1_000_000), stop=stop)
    assert time.monotonic() - began < 3


def test_what_waiting_raises_comes_out() -> None:
    def impatient() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        patiently(away(5), impatient)


def test_a_database_that_is_away_for_a_second(proxied: tuple[Settings, Proxy]) -> None:
    far, proxy = proxied

    def ask() -> object:
        with writing(far) as connection:
            return connection.execute("SELECT 1 AS one").fetchone()

    assert ask() == {"one": 1}
    proxy.cut()
    threading.Timer(1, proxy.mend).start()
    waits: list[None] = []
    assert patiently(ask, lambda: waits.append(None)) == {"one": 1}
    assert waits
