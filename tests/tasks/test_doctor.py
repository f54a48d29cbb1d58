"""The doctor's look at the Prefect server, which need not run."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage.doctor import State
from tasks import doctor, server


@pytest.fixture
def website() -> Iterator[str]:
    """A server that answers, and is not Prefect's."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://me:secret@127.0.0.1:{found.server_port}"
        found.shutdown()


def test_a_local_server_that_does_not_run_starts_when_needed(tmp_path: Path) -> None:
    verdict = doctor._prefect(Settings(home=tmp_path))
    assert (verdict.state, verdict.found) == (State.ok, "not running: starts when needed")
    assert list(tmp_path.iterdir()) == []


def test_one_that_runs_says_its_version(home: Path, prefect_server: str) -> None:
    verdict = doctor._prefect(Settings(home=home))
    assert verdict.state is State.ok
    assert verdict.found.startswith("Prefect 3.8.")
    assert verdict.found.endswith(f" at {prefect_server.removesuffix('/api')}")


def test_one_that_hangs_is_named(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (tmp_path / "prefect").mkdir()
        server._remember(tmp_path, process.pid, "http://127.0.0.1:1/api")
        verdict = doctor._prefect(Settings(home=tmp_path))
    finally:
        process.kill()
        process.wait()
    assert (verdict.state, verdict.found) == (State.warning, f"process {process.pid} does not answer")
    assert "ntrader down" in verdict.fix


def test_an_api_of_ones_own(tmp_path: Path, prefect_server: str) -> None:
    verdict = doctor._prefect(Settings(home=tmp_path, prefect_api_url=prefect_server))
    assert verdict.state is State.ok
    assert verdict.found.startswith("Prefect 3.8.")


def test_one_that_does_not_answer(tmp_path: Path) -> None:
    verdict = doctor._prefect(Settings(home=tmp_path, prefect_api_url="http://me:secret@127.0.0.1:1/api"))
    assert verdict.state is State.wrong
    assert "http://me:***@127.0.0.1:1/api" in verdict.found
    assert "PREFECT_API_URL" in verdict.fix


def test_one_that_is_something_else(tmp_path: Path, website: str) -> None:
    verdict = doctor._prefect(Settings(home=tmp_path, prefect_api_url=website))
    assert verdict.state is State.wrong
    assert "secret" not in f"{verdict}"


def test_nothing_of_prefect_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ntrader.settings import Settings; from tasks import doctor;"
        f"doctor._prefect(Settings(home=Path({str(tmp_path)!r}))); print('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
