"""The local Prefect server: one, whoever asks and however often; and gone when told so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ntrader.errors import ServiceError
from ntrader.settings import Settings
from storage import local
from storage.leases import is_dead
from tasks import server, services

ENSURE = """
import sys
from pathlib import Path
from ntrader.settings import Settings
from tasks.server import ensure_server
print(ensure_server(Settings(home=Path(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def own_home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ntrader-test-"))
    yield path
    server.stop_server(path)
    local.stop(path)
    shutil.rmtree(path)


def test_two_at_once_start_one_server_beside_a_taken_port(own_home: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((server.HOST, server.PORT))
            taken.listen()
        except OSError:
            pass  # somebody has it already, which is as good
        commands = [
            subprocess.Popen([sys.executable, "-c", ENSURE, str(own_home)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        urls = {command.communicate(timeout=120)[0].strip() for command in commands}

    assert len(urls) == 1
    (url,) = urls
    assert url.startswith("http://127.0.0.1:")
    assert f":{server.PORT}/" not in url
    state = server.running_server(own_home)
    assert state is not None
    assert state.api_url == url
    assert "running" in {found.state for found in services.service_states(Settings(home=own_home))}


def test_a_server_that_runs_is_reused_at_once(own_home: Path) -> None:
    before = server.running_server(own_home)

    server.ensure_server(Settings(home=own_home))

    assert server.running_server(own_home) == before


def test_it_listens_on_the_loopback_address_only(own_home: Path) -> None:
    state = server.running_server(own_home)
    assert state is not None
    port = f"{int(state.api_url.rpartition(':')[2].partition('/')[0]):04X}"
    listening = [
        line.split()[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()
        if line.split()[1].endswith(f":{port}") and line.split()[3] == "0A"
    ]
    assert listening == [f"0100007F:{port}"]


def test_a_server_that_was_killed_is_started_again(own_home: Path) -> None:
    before = server.running_server(own_home)
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not is_dead(before.process.owner) and time.monotonic() < deadline:
        time.sleep(0.05)

    server.ensure_server(Settings(home=own_home))

    after = server.running_server(own_home)
    assert after is not None
    assert after.pid != before.pid


def test_a_server_whose_starter_was_killed_is_not_left_behind(own_home: Path) -> None:
    server.stop_server(own_home)
    file = own_home / "prefect" / "server.json"
    starter = subprocess.Popen([sys.executable, "-c", ENSURE, str(own_home)], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    starter.kill()
    starter.communicate()
    begun = json.loads(file.read_text())

    server.ensure_server(Settings(home=own_home))

    after = server.running_server(own_home)
    assert after is not None
    assert after.process.owner == begun["owner"] or is_dead(begun["owner"])


def test_it_stops_when_told_and_only_once(own_home: Path) -> None:
    state = server.running_server(own_home)
    assert state is not None

    stopped = services.stop_services(Settings(home=own_home))

    assert stopped == services.Stopped(["Prefect server", "embedded PostgreSQL"], [])
    assert is_dead(state.process.owner)
    assert services.stop_services(Settings(home=own_home)) == services.Stopped([], [])
    assert {found.state for found in services.service_states(Settings(home=own_home))} == {"stopped"}


def test_a_port_is_taken_before_its_server_answers() -> None:
    """Of two that start at once neither takes the other's answer for its own."""
    with server._listening(server.HOST, [0]) as first:
        port = first.getsockname()[1]
        with server._listening(server.HOST, [port]) as second:
            assert second.getsockname()[1] != port
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((server.HOST, port))


def test_an_api_of_ones_own_is_used_as_it_is(tmp_path: Path, prefect_server: str) -> None:
    settings = Settings(home=tmp_path, prefect_api_url=prefect_server)

    assert server.ensure_server(settings) == prefect_server
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "nonsense", "http://no.such.host.invalid/api"])
def test_an_api_that_does_not_answer_is_said(tmp_path: Path, url: str) -> None:
    with pytest.raises(ServiceError, match="no Prefect server answers at PREFECT_API_URL"):
        server.ensure_server(Settings(home=tmp_path, prefect_api_url=url))


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ServiceError, match="cannot be made"):
        server.prepare_client(Settings(home=tmp_path / "file"))


def test_a_state_file_of_rubbish_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "server.json").write_text('{"pid": "x"')

    assert server.running_server(tmp_path) is None
