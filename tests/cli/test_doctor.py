"""`ntrader doctor`: a table or JSON on stdout, and an exit code that says whether something is wrong."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ntrader.settings import Settings
from tests.cli.conftest import Here


def test_all_is_well(here: Here) -> None:
    answer = here("doctor")

    assert (answer.code, answer.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in answer.out.splitlines()]
    assert lines[0] == ["Check", answer.out.splitlines()[0].split(maxsplit=1)[1]]
    assert "What to do" in answer.out.splitlines()[0]
    assert len(lines) == 2 + 26
    assert "\x1b" not in answer.out


def test_a_warning_is_no_failure(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_BACKTEST_PERSISTENCE", "false")

    answer = here("doctor", "--json")

    document = json.loads(answer.out)
    assert (answer.code, answer.err, document["ok"]) == (0, "", True)
    # Without a Prefect server, its flow runs cannot be looked at.
    assert [check for check in document["checks"] if check["state"] not in ("ok", "skipped")] == [
        {
            "name": "Recording",
            "state": "warning",
            "found": "ENABLE_BACKTEST_PERSISTENCE is false: runs are not saved",
            "fix": "Unset ENABLE_BACKTEST_PERSISTENCE.",
        }
    ]


def test_several_things_wrong_are_named_with_their_fixes(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://me:secret@h/d")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")

    answer = here("doctor", "--json")

    document = json.loads(answer.out)
    assert (answer.code, document["ok"]) == (5, False)
    wrong = [check for check in document["checks"] if check["state"] == "wrong"]
    assert [check["name"] for check in wrong] == ["DATABASE_URL", "Prefect server"]
    assert all(check["fix"] for check in wrong)
    assert answer.err.startswith("Error: something is wrong with DATABASE_URL, Prefect server\n")
    assert "secret" not in answer.out + answer.err


def test_a_home_that_cannot_be_used(here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("NTRADER_HOME", str(tmp_path / "file" / "home"))

    answer = here("doctor", "--json")

    (wrong,) = [check for check in json.loads(answer.out)["checks"] if check["state"] == "wrong"]
    assert (answer.code, wrong["name"]) == (5, "Server")
    assert str(tmp_path / "file") in wrong["found"]
    assert "NTRADER_HOME" in wrong["fix"]


def test_a_setting_that_does_not_fit_is_a_usage_error_as_everywhere(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_POOL_SIZE", "many")

    assert here("doctor").code == 2


def test_sentences_wrap_in_their_columns_on_a_terminal(environment: Settings) -> None:
    told, terminal = pty.openpty()
    variables = {"COLUMNS": "80", "TERM": "xterm", "DATABASE_URL": "postgresql://me:x@127.0.0.1:1/runs"}
    program = "from cli.main import main; main(['doctor'])"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=terminal, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, env=os.environ | variables)  # fmt: skip
    os.close(terminal)
    text = b""
    with suppress(OSError):  # the end of a terminal, on Linux
        while piece := os.read(told, 10_000):
            text += piece
    os.close(told)

    assert process.wait(timeout=30) == 5
    assert max(len(line) for line in text.decode().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()) <= 80
