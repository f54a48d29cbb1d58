"""`ntrader sql` as a user meets it."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ntrader.settings import Settings
from tests.cli.conftest import ROOT, Here, finish, start
from tests.cli.test_commands import a_success

# In FROM the server would keep the series before it sends the first row.
MILLION = "SELECT generate_series(1, 1000000) AS i, 0.1::float8 AS x, now() AS t"
ENDLESS = MILLION.replace("1000000", "1000000000")
PROGRAM = "from cli.main import main; main()"


def test_every_format(here: Here, environment: Settings) -> None:
    run_id = a_success(environment)
    question = "SELECT run_id, total_return, error_message FROM backtest_runs"

    assert (
        here("sql", question, "--format", "csv").out
        == f"run_id,total_return,error_message\n{run_id},0.020000000000000018,\n"
    )
    document = {"run_id": run_id, "total_return": 0.020000000000000018, "error_message": None}
    assert json.loads(here("sql", question, "--json").out) == [document]
    assert json.loads(here("sql", question, "--format", "ndjson").out) == document
    assert f"| {run_id} | 0.020000000000000018 | - |" in here("sql", question, "--format", "md").out
    table = here("sql", question)
    assert table.out.splitlines()[2].split() == [run_id, "0.020000000000000018", "-"]
    assert table.err == ""


def test_a_statement_from_stdin(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 1 AS one;\n"))

    assert here("sql", "-", "--format", "csv").out == "one\n1\n"


def test_a_copy_goes_out_as_it_is(here: Here, tmp_path: Path) -> None:
    statement = "COPY (SELECT 1 AS a, 'ü' AS b) TO STDOUT WITH CSV HEADER"
    path = tmp_path / "out.csv"

    assert here("sql", statement).out == "a,b\n1,ü\n"
    assert here("sql", statement, "-o", str(path)).out == ""
    assert path.read_text() == "a,b\n1,ü\n"
    refused = here("sql", statement, "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "a format of its own" in refused.err


def test_no_file_after_an_error(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"

    late = here("sql", "SELECT 1 / (5000 - i) FROM generate_series(1, 9000) i", "--format", "csv", "-o", str(path))
    nowhere = here("sql", "SELECT 1", "-o", str(tmp_path / "no" / "out.csv"))
    here("sql", "SET work_mem = '1MB'", "-o", str(path))

    assert (late.code, late.out, late.err) == (2, "", "Error: division by zero\n")
    assert nowhere.code == 2
    assert "there is no folder" in nowhere.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("selct 1",), ("DROP TABLE trades",), ("SELECT 1; SELECT 2",), ("",), ()])
def test_a_statement_that_will_not_do_ends_with_2(here: Here, words: tuple[str, ...]) -> None:
    answer = here("sql", *words)

    assert (answer.code, answer.out) == (2, "")
    assert "Traceback" not in answer.err


def test_too_long_ends_with_5(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_STATEMENT_TIMEOUT", "50")

    answer = here("sql", "SELECT pg_sleep(10)")

    assert answer.code == 5
    assert "DB_STATEMENT_TIMEOUT" in answer.err


def test_a_statement_without_rows_says_so(here: Here) -> None:
    answer = here("sql", "SET work_mem = '1MB'")

    assert (answer.code, answer.out, answer.err) == (0, "", "SET: the statement has no rows to show.\n")


@pytest.mark.parametrize(
    "words",
    [
        (f"COPY ({MILLION}) TO STDOUT",),
        pytest.param((MILLION, "--format", "csv"), marks=pytest.mark.long),
        pytest.param((MILLION, "--json"), marks=pytest.mark.long),
    ],
)
def test_a_million_rows_need_no_more_memory_than_ten(environment: Settings, words: tuple[str, ...]) -> None:
    def peak(*arguments: str) -> int:
        """In kB; of this child alone."""
        command = [sys.executable, "-c", PROGRAM, "sql", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env=os.environ)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert isinstance(usage, resource.struct_rusage)
        return usage.ru_maxrss

    small = peak(words[0].replace("1000000", "10"), *words[1:])

    assert peak(*words) < small + 10_000


def test_a_reader_that_has_seen_enough(environment: Settings) -> None:
    for statement in (ENDLESS, f"COPY ({ENDLESS}) TO STDOUT"):
        process = start("sql", statement, *(["--format", "csv"] if statement.startswith("S") else []))
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""
        process.stderr.close()


def test_ctrl_c_ends_it_and_the_query(environment: Settings, tmp_path: Path, here: Here) -> None:
    path = tmp_path / "out.csv"
    process = start("sql", ENDLESS, "--format", "csv", "-o", str(path))
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size for part in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    answer = finish(process, timeout=20)

    assert (answer.code, answer.out, answer.err) == (130, "", "Error: interrupted\n")
    assert list(tmp_path.iterdir()) == []
    busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1000000000%'"
    assert here("sql", f"{busy} AND pid <> pg_backend_pid()", "--format", "csv").out == "count\n0\n"


def test_it_loads_neither_prefect_nor_the_engine_nor_an_orm(environment: Settings) -> None:
    heavy = ("flows", "tasks", "prefect", "nautilus_trader", "pandas", "numpy", "sqlalchemy", "sqlmodel", "alembic")
    program = (
        "import sys\n"
        "from cli.main import main\n"
        "try:\n"
        "    main(['sql', 'SELECT 1 AS one', '--format', 'csv'])\n"
        "except SystemExit as end:\n"
        f"    found = [name for name in {heavy!r} if name in sys.modules]\n"
        "    print(end.code, found, file=sys.stderr)\n"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)

    assert (result.stdout, result.stderr) == ("one\n1\n", "0 []\n")
