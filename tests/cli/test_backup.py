"""`ntrader db backup` and `restore` as a user meets them."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage import database
from tests.cli.conftest import Here, finish, start
from tests.cli.test_commands import a_failure, a_success


def wait_for_a_waiting_query(settings: Settings) -> None:
    deadline = time.monotonic() + 30
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with database.connect(settings) as connection:
        while connection.execute(query).rowcount == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_there_and_back(here: Here, environment: Settings, tmp_path: Path) -> None:
    run_id = a_success(environment)
    path = tmp_path / "runs.dump"

    made = here("db", "backup", str(path))
    a_failure(environment)
    refused = here("db", "restore", str(path))
    unasked = here("db", "restore", str(path), "--replace")
    restored = here("db", "restore", str(path), "--replace", "--yes")

    assert (made.code, made.out) == (0, "")
    assert made.err.startswith(f"{path}: 1 run, ")
    assert (refused.code, refused.out) == (2, "")
    assert "holds runs already: 2" in refused.err
    assert unasked.code == 2
    assert "2 runs would be given up" in unasked.err
    assert (restored.code, restored.out) == (0, "")
    assert "1 run restored" in restored.err
    assert run_id[:8] in here("history", "list").out
    assert here("db", "backup", str(path)).code == 2
    assert here("db", "backup", str(path), "--force").code == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("answer", "code"), [("n\n", 2), ("y\n", 0)])
def test_the_question(
    here: Here, environment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    path = tmp_path / "runs.dump"
    here("db", "backup", str(path))
    a_failure(environment)
    with (tmp_path / "answer").open("w+") as keyboard:
        keyboard.write(answer)
        keyboard.seek(0)
        monkeypatch.setattr(keyboard, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stdin", keyboard)

        said = here("db", "restore", str(path), "--replace")

    assert said.code == code
    assert "Give up 1 run in" in said.err


def test_files_that_do_not_fit(here: Here, tmp_path: Path) -> None:
    bad = tmp_path / "bad.dump"
    bad.write_text("no dump")

    for words in (("restore", str(bad)), ("restore", str(tmp_path / "none")), ("backup", str(tmp_path / "no" / "x"))):
        answer = here("db", *words)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("Error: ")
        assert "Traceback" not in answer.err


def test_a_schema_that_is_behind_is_said(
    here: Here, environment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.dump"
    here("db", "backup", str(path))
    monkeypatch.setattr("storage.backup.HEAD", "999_later")

    answer = here("db", "restore", str(path))

    assert answer.code == 0
    assert "run `ntrader db upgrade`" in answer.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_backup_leaves_nothing(environment: Settings, tmp_path: Path, number: int, code: int) -> None:
    with database.connect(environment, autocommit=False) as other:
        other.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        process = start("db", "backup", str(tmp_path / "runs.dump"))
        wait_for_a_waiting_query(environment)
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        process.send_signal(number)
        answer = finish(process)

    assert answer.code == code
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_restore_changes_nothing(here: Here, environment: Settings, tmp_path: Path) -> None:
    run_id = a_success(environment)
    path = tmp_path / "runs.dump"
    here("db", "backup", str(path))
    with database.connect(environment, autocommit=False) as other:
        other.execute("SELECT FROM trades")
        process = start("db", "restore", str(path), "--replace", "--yes")
        wait_for_a_waiting_query(environment)
        process.send_signal(signal.SIGINT)
        answer = finish(process)
        other.rollback()

    assert answer.code == 130
    assert answer.err == "Error: interrupted\n"
    assert here("history", "show", run_id).code == 0
