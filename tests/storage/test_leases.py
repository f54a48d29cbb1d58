"""Who is alive: real processes, killed, reaped late, and told from others that got their number."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import leases

PROC = Path("/proc/self/stat").exists()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_this_process_is_alive() -> None:
    assert leases.is_alive(leases.owner()) is True
    assert not leases.is_dead(leases.owner())


def test_an_owner_names_its_process_and_stays_the_same() -> None:
    machine, pid, started = leases.owner().split("/")
    assert pid == str(os.getpid())
    assert machine
    assert started.isdecimal() == PROC
    assert leases.owner() == leases.owner_of(os.getpid())


def test_another_process_is_alive_until_it_is_killed(child: subprocess.Popen[bytes]) -> None:
    owner = leases.owner_of(child.pid)
    assert leases.is_alive(owner) is True
    child.kill()
    child.wait()
    assert leases.is_alive(owner) is False
    assert leases.is_dead(owner)


@pytest.mark.skipif(not PROC, reason="needs /proc")
def test_a_killed_process_that_nobody_waited_for_is_dead(child: subprocess.Popen[bytes]) -> None:
    owner = leases.owner_of(child.pid)
    child.kill()
    stat = Path(f"/proc/{child.pid}/stat")
    deadline = time.monotonic() + 10
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert leases.is_dead(owner)


@pytest.mark.skipif(not PROC, reason="needs /proc")
def test_a_later_process_of_the_same_number_is_another(child: subprocess.Popen[bytes]) -> None:
    machine, pid, started = leases.owner_of(child.pid).split("/")
    assert leases.is_dead(f"{machine}/{pid}/{int(started) - 1}")


def test_a_process_of_root_is_seen_by_everybody() -> None:
    assert leases.is_alive(leases.owner_of(1)) is True


@pytest.mark.parametrize("owner", ["elsewhere|boot|pid:[1]/{pid}/{started}", "elsewhere|boot|pid:[1]/999999/1",
                                   "{host}|another-boot|pid:[1]/999999/1", "", "nonsense", "a/b/c/d", "{machine}/x/1",
                                   "{machine}//"])  # fmt: skip
def test_nothing_is_known_of_owners_elsewhere(owner: str) -> None:
    machine, pid, started = leases.owner().split("/")
    owner = owner.format(machine=machine, host=machine.split("|")[0], pid=pid, started=started)
    assert leases.is_alive(owner) is None
    assert not leases.is_dead(owner)


def test_a_lease_outlasts_several_renewals() -> None:
    assert leases.LEASE_SECONDS >= 5 * leases.RENEW_SECONDS
