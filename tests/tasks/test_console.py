"""A flow run whose output nobody reads any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from prefect import flow, get_run_logger
from tasks.console import outlive_reader

@flow
def talk():
    outlive_reader()
    get_run_logger().info("begun")
    sys.stdin.readline()
    for _ in range(3):
        get_run_logger().info("and on " * 1000)
    return "done"

said = talk()
open(sys.argv[1], "w").write(said)
"""


def test_it_goes_on(prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the first line of the flow rich ends it."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "INFO")
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    result = tmp_path / "result"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(result)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    process.wait(timeout=60)

    assert result.read_text() == "done"
