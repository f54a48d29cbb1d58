"""A sweep that somebody stops, whose database goes away or whose disk is full: what is done stays, the rest goes on."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.same import Comparison, compare
from ntrader.settings import Settings
from storage import migrations
from storage.sweeps import Counts, count_trials
from tests.cli.conftest import Answer, finish, start
from tests.cli.test_interrupts import alive, children
from tests.conftest import create_database, dispose_engines, settings_for
from tests.storage.conftest import Server, own_server
from tests.storage.trials import runs, states

Command = Callable[..., subprocess.Popen[str]]
OPTIONS = ("--workers", "2", "--no-verify")
TRIALS = 60
# Each trial is long enough for something to happen meanwhile, and no two come out alike.
SEARCH: dict[str, Any] = {
    "strategy": "tests.scripted:Scripted",
    "data": {"symbol": "AAPL", "start": "2008-01-01", "end": "2008-02-28"},
    "sweep": {"params": {"script": [{"3": f"sleep 0.1; buy {number}"} for number in range(1, TRIALS + 1)]}},
}
SAME = Comparison(TRIALS, lost=0, doubled=0, equal=TRIALS, problems=[])
GO_ON = "Go on with: ntrader sweep resume 1\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    found.write_text(yaml.safe_dump(SEARCH))
    return str(found)


@pytest.fixture(scope="module")
def peace(home: Path, template: str, prefect_server: str, file: str) -> Settings:
    """Where the same sweep was run with nobody in its way."""
    settings = settings_for(home, create_database(home, template))
    answer = finish(start("sweep", "run", file, *OPTIONS, **variables(settings)), 240)
    dispose_engines()
    assert answer.code == 0, answer.err
    return settings


def variables(settings: Settings) -> dict[str, str]:
    assert settings.database_url
    return {"NTRADER_HOME": str(settings.home), "DATABASE_URL": settings.database_url}


class Heard:
    """What a command says on stderr, as it says it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line

    def wait_for(self, what: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def end(self, seconds: float = 240) -> Answer:
        assert self.process.stdout is not None
        code = self.process.wait(timeout=seconds)
        self._thread.join()
        with self.process:
            return Answer(code, self.process.stdout.read(), self.text)


def begun(settings: Settings, file: str) -> Heard:
    """A sweep of which some trials are saved."""
    heard = Heard(start("sweep", "run", file, *OPTIONS, **variables(settings)))
    heard.wait_for(lambda: f"Sweep 1: {TRIALS} trials" in heard.text)
    heard.wait_for(lambda: count_trials(settings, 1).done > 0)
    return heard


def assert_stopped(settings: Settings, answer: Answer) -> None:
    """It says how far it is and how to go on, and that is true; nothing is half-written, and nobody holds anything."""
    assert "Traceback" not in answer.err
    assert answer.out == ""
    said = re.search(r"\nSweep 1: (\d+) trials are saved, (\d+) are not run.\n" + GO_ON, answer.err)
    assert said is not None, answer.err
    assert count_trials(settings, 1) == Counts(success=int(said[1]), waiting=int(said[2]))
    assert 0 < int(said[1]) < TRIALS
    assert_whole(settings)


def assert_whole(settings: Settings) -> None:
    """A run for each trial that is saved, with all that belongs to it, and no other."""
    found = runs(settings, 1)
    done = [number for number, state in enumerate(states(settings, 1)) if state == "success"]
    assert [row["trial_number"] for row in found] == done
    assert {(row["execution_status"], row["metrics"], row["curves"], row["fills"]) for row in found} == {
        ("success", 1, 1, 1)
    }


# -- somebody stops it ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_sweep_that_is_terminated_says_how_to_go_on(environment: Settings, prefect_server: str, file: str) -> None:
    heard = begun(environment, file)
    family = children(heard.process.pid)

    heard.process.send_signal(signal.SIGTERM)
    answer = heard.end()

    assert answer.code == 143
    assert answer.err.endswith("Error: terminated\n")
    assert_stopped(environment, answer)
    deadline = time.monotonic() + 10
    while alive(family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(family) == []


def test_after_an_impatient_ctrl_c_two_that_resume_it_at_once_share_it(
    environment: Settings, peace: Settings, file: str
) -> None:
    heard = begun(environment, file)
    for _ in range(4):
        heard.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    answer = heard.end()
    assert answer.code == 130
    assert "Error: interrupted\n" in answer.err
    assert_stopped(environment, answer)

    both = [start("sweep", "resume", "1", "--workers", "1", "--no-verify", "--json") for _ in range(2)]
    answers = [finish(process, 240) for process in both]

    assert [answer.code for answer in answers] == [0, 0], answers
    assert {json.loads(answer.out)["state"] for answer in answers} == {"finished"}
    assert compare(peace, environment, TRIALS) == SAME


# -- the database --------------------------------------------------------------------------------------------


@pytest.fixture
def own(home: Path) -> Iterator[tuple[Server, Settings]]:
    """A server of the test's own, to be stopped and started."""
    folder = Path(tempfile.mkdtemp(prefix="ntrader-own-"))
    with own_server(folder) as server:
        yield server, migrated(home, server)
        dispose_engines()
    shutil.rmtree(folder)


def migrated(home: Path, server: Server) -> Settings:
    settings = Settings(home=home, database_url=server.url())
    migrations.upgrade(settings)
    return settings


@pytest.mark.long
@pytest.mark.parametrize("seconds", [4, 60])
def test_a_database_that_is_away_for_a_while_is_waited_for(
    own: tuple[Server, Settings], peace: Settings, file: str, seconds: float
) -> None:
    server, settings = own
    heard = begun(settings, file)
    server.stop()
    heard.wait_for(lambda: "waiting for the database" in heard.text)
    time.sleep(seconds)
    assert heard.process.poll() is None, heard.text
    server.start()

    answer = heard.end()

    assert answer.code == 0, answer.err
    assert "Traceback" not in answer.err
    assert compare(peace, settings, TRIALS) == SAME


@pytest.fixture
def small(home: Path) -> Iterator[tuple[Server, Settings, Path]]:
    """A server on a disk of 100 MB."""
    disk = Path(tempfile.mkdtemp(prefix="ntrader-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        disk.rmdir()
        pytest.skip("nothing can be mounted here")
    try:
        with own_server(disk) as server:
            yield server, migrated(home, server), disk
            dispose_engines()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
        disk.rmdir()


def test_a_full_disk_stops_it_and_with_room_it_goes_on(
    small: tuple[Server, Settings, Path], peace: Settings, file: str
) -> None:
    server, settings, disk = small
    heard = begun(settings, file)
    ballast = fill(disk)

    answer = heard.end()

    assert answer.code == 5
    assert re.search(r"Error: the disk of the database .* is full: ", answer.err), answer.err
    assert "Make room there, then run the command again." in answer.err
    assert GO_ON in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    ballast.unlink()
    if server.process is not None and server.process.poll() is not None:  # out of room for its log
        server.start()
    assert count_trials(settings, 1).done < TRIALS
    assert_whole(settings)

    resumed = finish(start("sweep", "resume", "1", *OPTIONS, **variables(settings)), 240)

    assert resumed.code == 0, resumed.err
    assert compare(peace, settings, TRIALS) == SAME


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(4096))
                file.flush()
        except OSError:
            return ballast
