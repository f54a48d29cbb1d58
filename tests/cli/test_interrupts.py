"""Ctrl-C, SIGTERM and kill -9 while a backtest runs: one row each, and it says interrupted."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage.runs import list_runs
from tests.cli.conftest import finish

HANG = """
strategy: tests.scripted:Scripted
parameters: {{script: {{"3": "hang"}}, marker: {marker}}}
data: {{symbol: AAPL}}
"""


@pytest.fixture
def terminal() -> Iterator[None]:
    """Whoever runs the tests by nohup has it ignored that a terminal is closed, and so has what they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def hanging(command: Callable[..., subprocess.Popen[str]], tmp_path: Path, terminal: None) -> subprocess.Popen[str]:
    """A backtest whose strategy has begun to wait for ever on its third bar."""
    marker, config = tmp_path / "begun", tmp_path / "hang.yaml"
    config.write_text(HANG.format(marker=marker))
    process = command("run-backtest", "--config", str(config))
    deadline = time.monotonic() + 60
    while not marker.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    direct = [int(word) for word in found]
    return direct + [grandchild for child in direct for grandchild in children(child)]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text()]


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "interrupted")],
    ids=["Ctrl-C", "SIGTERM", "closed terminal"],
)
def test_an_interruption_is_recorded_at_once(
    hanging: subprocess.Popen[str], environment: Settings, number: int, code: int, words: str
) -> None:
    workers = children(hanging.pid)

    hanging.send_signal(number)
    answer = finish(hanging, timeout=20)

    assert answer.code == code
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    (run,) = list_runs(environment, 10).runs
    assert run.execution_status == "interrupted"
    assert run.error_type == "Interrupted"
    assert run.error_message == f"interrupted by {signal.Signals(number).name}"
    assert run.finished_at is not None
    time.sleep(1)
    assert alive(workers) == []


def test_kill_9_is_noticed_by_the_next_command(hanging: subprocess.Popen[str], environment: Settings) -> None:
    workers = children(hanging.pid)

    hanging.kill()
    hanging.communicate(timeout=20)

    (run,) = list_runs(environment, 10).runs
    assert run.execution_status == "interrupted"
    assert run.error_message == "the process that ran it ended without a word"
    deadline = time.monotonic() + 10
    while alive(workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(workers) == []


def test_an_impatient_ctrl_c_does_not_cut_the_record_short(
    hanging: subprocess.Popen[str], environment: Settings
) -> None:
    for _ in range(5):
        hanging.send_signal(signal.SIGINT)
        time.sleep(0.02)
    finish(hanging, timeout=20)

    (run,) = list_runs(environment, 10).runs
    assert (run.execution_status, run.error_message) == ("interrupted", "interrupted by SIGINT")
