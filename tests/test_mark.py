"""A mark is the same in the process that writes it and in the one that reads it, and outlives the writer."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ntrader.errors import EngineKilledError
from ntrader.mark import Mark
from ntrader.worker import Worker


def test_a_new_mark_says_nothing() -> None:
    assert Mark().read() == (0, 0.0)


def test_what_was_written_is_read_with_its_time() -> None:
    mark = Mark()
    before = time.monotonic()
    mark.write(-7)
    number, since = mark.read()
    assert number == -7
    assert before <= since <= time.monotonic()


def test_a_worker_that_is_killed_leaves_its_last_mark() -> None:
    mark = Mark()
    worker = Worker(mark)
    try:
        before = time.monotonic()
        with pytest.raises(EngineKilledError):
            worker.call("tests.worker_targets:note_and_die", 41, signal.SIGKILL)
        number, since = mark.read()
        assert number == 41
        assert before < since < time.monotonic()
        worker.call("tests.worker_targets:note_number", 42)
        assert mark.read()[0] == 42
    finally:
        worker.kill()


def test_without_a_mark_there_is_nobody_to_tell() -> None:
    worker = Worker()
    try:
        assert worker.call("tests.worker_targets:note_number", 1) == 1
    finally:
        worker.kill()


def test_nothing_is_left_open() -> None:
    Mark()
    before = _open_files()
    for _ in range(20):
        Mark().write(1)
    assert _open_files() <= before


def _open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())
