"""`ntrader canary` as a user has it: a table, exit codes, one message for what went wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.backtest import backtest
from flows.launch import prefect_at
from ntrader.config import RunRequest
from ntrader.settings import Settings
from tests import engines
from tests.cli.conftest import Here, finish

Command = Callable[..., subprocess.Popen[str]]
HEADINGS = "Run ID    Strategy            Symbol  Result     Also moved  First difference, or error"


@pytest.fixture
def record(prefect_server: str, environment: Settings) -> Callable[..., str]:
    """Make a run in this process, which is quicker; its Run ID."""

    def recorded(strategy: str, **parameters: Any) -> str:
        request = RunRequest(
            strategy=strategy, symbol="AAPL", start="2008-01-01", end="2009-12-31", parameters=parameters
        )
        with prefect_at(prefect_server):
            return str(backtest(request).run.run_id)

    return recorded


def test_it_says_what_moved_and_ends_with_6(
    other_engine: engines.Making, command: Command, record: Callable[..., str], tmp_path: Path
) -> None:
    oldest, newest = record("mean_reversion"), record("sma_crossover")

    answer = finish(command("canary", "--nautilus", engines.OTHER, "--last", "2"))

    assert answer.code == 6, answer.err
    head, _, first, second = answer.out.splitlines()
    assert head == HEADINGS
    assert first.split() == [newest[:8], "SMA", "Crossover", "AAPL", "unchanged", "-", "-"]
    assert second.startswith(f"{oldest[:8]}  RSI Mean Reversion  AAPL    moved      -           fill ")
    assert answer.err.splitlines()[-1] == f"nautilus_trader {engines.OTHER}: 1 unchanged, 1 moved, 0 failed."
    assert "Traceback" not in answer.err

    target = tmp_path / "found.json"
    answer = finish(command("canary", "--nautilus", engines.OTHER, oldest, "--json", "-o", str(target)))
    assert (answer.code, answer.out) == (6, "")
    (row,) = json.loads(target.read_text())
    assert (row["run_id"], row["result"], row["also_moved"], row["error"]) == (oldest, "moved", None, None)
    assert row["first_difference"].startswith("fill ")


def test_with_the_same_engine_it_ends_with_0(command: Command, record: Callable[..., str], home: Path) -> None:
    engines.stand_in(home)
    run = record("momentum")

    answer = finish(command("canary", "--nautilus", engines.HERE, "@last", "--format", "csv"))

    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[1] == f"{run},Momentum,AAPL,unchanged,,,"
    assert f"nautilus_trader {engines.HERE}: 1 unchanged, 0 moved, 0 failed." in answer.err


def test_a_version_that_does_not_exist_ends_with_3(
    other_engine: engines.Making, here: Here, record: Callable[..., str]
) -> None:
    answer = here("canary", "--nautilus", "1.999.0", record("momentum"))

    assert (answer.code, answer.out) == (3, "")
    assert "Error: there is no nautilus_trader 1.999.0 for Python 3." in answer.err
    assert "cause" not in answer.err
    assert "Connecting to Prefect" not in answer.err


def test_without_uv_it_ends_with_5(
    here: Here, record: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record("momentum")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setitem(sys.modules, "uv", None)

    answer = here("canary", "--nautilus", "1.229.0", run)

    assert (answer.code, answer.out) == (5, "")
    assert "pip install uv" in answer.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "no version is named"),
        (("--nautilus", "latest", "@last"), 2, "'latest' is no version of nautilus_trader"),
        (("--nautilus", "1.230.0"), 2, "no run is named"),
        (("--nautilus", "1.230.0", "@last", "--last", "1"), 2, "RUN and --last do not go together"),
        (("--nautilus", "1.230.0", "--last", "0"), 2, "--last"),
        (("--nautilus", "1.230.0", "--last", "3"), 3, "there is no successful run"),
        (("--nautilus", "1.230.0", "nosuchrun"), 3, "'nosuchrun' names no run"),
    ],
)
def test_usage(words: tuple[str, ...], code: int, said: str, here: Here) -> None:
    answer = here("canary", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Making" not in answer.err


def test_ctrl_c_ends_it_and_all_that_it_started(
    command: Command, record: Callable[..., str], home: Path, tmp_path: Path
) -> None:
    engines.stand_in(home)
    marker = tmp_path / "begun"
    marker.touch()
    run = record("tests.scripted:Scripted", script={"3": "hang again"}, marker=str(marker))
    marker.unlink()

    process = command("canary", "--nautilus", engines.HERE, run)
    deadline = time.monotonic() + 60
    while not marker.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert canary_processes(home) != []
    process.send_signal(signal.SIGINT)
    answer = finish(process, timeout=20)

    assert (answer.code, answer.out) == (130, "")
    assert "interrupted" in answer.err
    assert "Traceback" not in answer.err
    deadline = time.monotonic() + 10
    while canary_processes(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert canary_processes(home) == []


def canary_processes(home: Path) -> list[int]:
    python = str(home / "canary").encode()
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if line.read_bytes().startswith(python):
                found.append(int(line.parent.name))
        except OSError:
            continue
    return found
