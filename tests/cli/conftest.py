"""The command line as a user has it: a process of its own, on the session's PostgreSQL and Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.main import main
from ntrader.settings import Settings
from tests.storage.conftest import new_home, postgres16  # noqa: F401 - fixtures for here too

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Here = Callable[..., Answer]


@pytest.fixture
def here(environment: Settings, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a command in this process: for those that start nothing."""

    def run(*words: str) -> Answer:
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        return Answer(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def command(environment: Settings, prefect_server: str) -> Callable[..., subprocess.Popen[str]]:
    """`start`, with all that a backtest needs there."""
    return start


def start(*words: str, **variables: str) -> subprocess.Popen[str]:
    """A command as a process, at the root of the checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", "from cli.main import main; main()", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | variables,
    )


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Answer:
    out, err = process.communicate(timeout=timeout)
    return Answer(process.returncode, out, err)
