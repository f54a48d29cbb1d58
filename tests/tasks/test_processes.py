"""Processes in the background: what they have started has time to write down what it must."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from storage.leases import is_dead
from tasks import processes

# As Prefect's worker does: at its end it kills what it runs.
LEADER = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
def end(*_):
    child.kill()
    child.wait()
    sys.exit()
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(0.05)
"""
CHILD = """
import signal, sys, time
from pathlib import Path
def end(*_):
    time.sleep(0.3)
    Path(sys.argv[1]).write_text("written down")
    sys.exit()
signal.signal(signal.SIGTERM, {handler})
Path(sys.argv[2]).touch()
while True:
    time.sleep(0.05)
"""


def started(folder: Path, handler: str) -> processes.Remembered:
    words = [CHILD.format(handler=handler), str(folder / "last words"), str(folder / "begun")]
    process = processes.start([sys.executable, "-c", LEADER, *words], log=folder / "log", folder=folder, environment={})
    deadline = time.monotonic() + 30
    while not (folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return processes.remember(folder / "state.json", process.pid)


def test_what_it_has_started_ends_first(tmp_path: Path) -> None:
    state = started(tmp_path, "end")

    processes.terminate(state)

    assert is_dead(state.owner)
    assert processes._group(state.pid) == set()
    assert (tmp_path / "last words").read_text() == "written down"


def test_what_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    state = started(tmp_path, "signal.SIG_IGN")

    processes.terminate(state, seconds=0.3)

    assert processes._wait(lambda: processes._group(state.pid) == set(), time.monotonic() + 10)
    assert not (tmp_path / "last words").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_file_of_rubbish_remembers_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "state.json"
    file.write_text(text)

    assert processes.remembered(file) is None
