"""A Prefect server of one's own, with a login and protection against forged requests (CSRF)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from ntrader.settings import Settings
from storage import local
from storage.doctor import State
from storage.runs import list_runs
from tasks import doctor, server
from tests.cli.conftest import start
from tests.storage.conftest import free_port

pytestmark = pytest.mark.long

LOGIN = "desk:a pass: word"
RUN = ("run-backtest", "--strategy", "sma_crossover", "--symbol", "AAPL", "--start-date", "2010-01-01")


@pytest.fixture
def guarded(home: Path, prefect_server: str, environment: Settings, tmp_path: Path) -> Iterator[str]:
    """A second server over the tables of the session's: only its API, which wants a login."""
    port = free_port()
    url = f"http://{server.HOST}:{port}/api"
    variables = {
        **server._server_environment(home, url, local.conninfo(home, server.DATABASE)),
        "PREFECT_SERVER_API_AUTH_STRING": LOGIN,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT__SERVER_WEBSERVER_ONLY": "true",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", server.HOST, "--port", str(port)], stdout=log, stderr=log, env=os.environ | variables
        )
    deadline = time.monotonic() + 90
    while not server._healthy(url) and time.monotonic() < deadline:
        time.sleep(0.2)
    yield url
    process.kill()
    process.wait()


def test_a_run_is_recorded_with_the_login_and_refused_without(guarded: str, environment: Settings) -> None:
    with closing(urlopen(f"{guarded.removesuffix('/api')}/ui-settings")) as answer:
        said = answer.read()
    assert b'"csrf_enabled":true' in said
    assert b'"auth":"BASIC"' in said

    commands = [
        start(*RUN, PREFECT_API_URL=guarded, PREFECT_API_AUTH_STRING=login) for login in (LOGIN, "desk:another")
    ]
    (_, _), (_, refused) = [command.communicate(timeout=120) for command in commands]

    assert [command.returncode for command in commands] == [0, 5]
    assert "wants a login, or another one" in refused
    assert "PREFECT_API_AUTH_STRING" in refused
    assert LOGIN not in refused
    (run,) = list_runs(environment, 10).runs
    assert run.execution_status == "success"


def test_the_doctor_says_what_the_login_is_worth(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Settings(home=Path("/"), prefect_api_url=guarded)
    found = {}
    for login in ("", LOGIN, "desk:another"):
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", login)
        found[login] = doctor._prefect(theirs)

    assert [verdict.state for verdict in found.values()] == [State.ok, State.ok, State.wrong]
    assert "wants a login" in found[""].found
    assert found[LOGIN].found.startswith("Prefect 3.8.")
    assert "wants a login, or another one" in found["desk:another"].found
