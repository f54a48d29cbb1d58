"""Processes that outlive the command that starts them: started, remembered in a file, found again, stopped.

The file says who the process is, so that another with the same pid is never taken for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.leases import is_dead, owner_of

STOP_SECONDS = 15
LOG_LIMIT = 10_000_000

# Those that this process started: held, so that one that ends is reaped and does not stay a zombie of ours.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Remembered:
    """A process as its file has it; `owner` tells it from another with the same pid, `facts` are whatever else is worth
    knowing."""

    pid: int
    owner: str
    started_at: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def lives(self) -> bool:
        return not is_dead(self.owner)


def start(
    command: Sequence[str], *, log: Path, folder: Path, environment: Mapping[str, str], files: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """In a session of its own, with `environment` added to ours, these open files handed on, and everything it says in
    `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    rotate(log)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=files,
            cwd=folder,
            env={**os.environ, **environment},
        )
    _started.append(process)
    return process


@contextlib.contextmanager
def ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """What goes wrong inside, Ctrl-C too, takes the process along: half started it would be of no use to anybody."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def rotate(log: Path) -> None:
    """One former log is kept. Whoever is writing goes on in the same file, which it appends to."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def remember(file: Path, pid: int, **facts: Any) -> Remembered:
    state = Remembered(pid, owner_of(pid), datetime.now(UTC).isoformat(timespec="seconds"), facts)
    temporary = file.with_suffix(".tmp")
    known = {"pid": state.pid, "owner": state.owner, "started_at": state.started_at}
    temporary.write_text(json.dumps(known | facts))
    temporary.replace(file)
    return state


def remembered(file: Path) -> Remembered | None:
    """None where there is no such file, or none that can be read."""
    try:
        facts = json.loads(file.read_text())
        return Remembered(facts.pop("pid"), facts.pop("owner"), facts.pop("started_at"), facts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def terminate(state: Remembered, seconds: float = STOP_SECONDS) -> None:
    """End all that it has started, then it itself; what does not end in time is killed.

    In this order: a Prefect worker that ends kills what it runs, which would have something to write down.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        deadline = time.monotonic() + seconds
        for pid in _group(state.pid) - {state.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        _wait(lambda: _group(state.pid) <= {state.pid}, deadline)
        os.killpg(state.pid, signal.SIGTERM)
        if not _wait(lambda: not state.lives and not _group(state.pid), deadline):
            os.killpg(state.pid, signal.SIGKILL)
    _started[:] = [process for process in _started if process.poll() is None]


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """No other process that says so of the same file is in here at the same time."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _group(leader: int) -> set[int]:
    """The processes of a group that run; none where the system has no /proc to tell."""
    return {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _group_of(folder) == str(leader)}


def _group_of(folder: Path) -> str | None:
    """None for a zombie, and for one that has just gone."""
    try:
        status, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return None
    return None if status == "Z" else group


def _wait(condition: Callable[[], bool], deadline: float) -> bool:
    """Whether it has come true in time."""
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
