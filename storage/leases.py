"""Who runs a run, and whether it still does: a kill leaves no chance to say goodbye."""

from __future__ import annotations

import os
import platform
import socket
from functools import cache
from pathlib import Path

# On another machine a dead owner is known by its lease alone; on this one its process is looked at.
LEASE_SECONDS = 300
RENEW_SECONDS = 30


def owner() -> str:
    """This process, recognisable after its pid has been given to another: machine, boot, pid and start time."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> str:
    """The same for another process of this machine."""
    return f"{_machine()}/{pid}/{_started(pid)}"


def describe(lease_owner: str) -> tuple[str, str]:
    """The name of the machine and the pid."""
    machine, _, process = lease_owner.partition("/")
    return machine.partition("|")[0], process.partition("/")[0]


def is_dead(lease_owner: str) -> bool:
    """True only when the owner was a process of this very machine and boot, and it is no more."""
    return is_alive(lease_owner) is False


def is_alive(lease_owner: str) -> bool | None:
    """Whether the owner still runs; None for one of another machine or boot, which cannot be seen from here."""
    machine, _, process = lease_owner.partition("/")
    pid, _, started = process.partition("/")
    if machine != _machine() or not pid.isdecimal():
        return None
    if not exists(int(pid)):
        return False
    now = _started(int(pid))
    # Where start times cannot be read (no /proc, or one that hides others) the pid alone has to do.
    return not (started and now) or now == started


def is_of_former_boot(lease_owner: str) -> bool:
    """Whether the owner ran on a machine of this name that has been restarted since; another machine may have the name
    too."""
    host, _, rest = lease_owner.partition("|")
    ours, _, here = _machine().partition("|")
    return bool(rest) and host == ours and rest.partition("|")[0] != here.partition("|")[0]


@cache
def _machine() -> str:
    boot = _read(Path("/proc/sys/kernel/random/boot_id"))
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = platform.system()
    return f"{socket.gethostname()}|{boot}|{namespace}".replace("/", "_")


def exists(pid: int) -> bool:
    """Whether a process of this machine has that number now, and is no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()[:1] != ["Z"]


def _started(pid: int) -> str:
    """The process' start time in clock ticks since boot; empty where the system has no /proc."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
