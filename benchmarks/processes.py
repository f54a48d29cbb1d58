"""What processes cost, read from Linux' /proc: CPU seconds and bytes, of one process and of whole families."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from ntrader.settings import Settings
from ntrader.worker import default_worker
from storage import local
from tasks import server

_TICKS = os.sysconf("SC_CLK_TCK")
FLOW, PLANNER, WORKERS = "flow and Prefect's client", "planning and verifying", "workers"
STORE, PREFECT_TABLES, PREFECT = "PostgreSQL, trials", "PostgreSQL, Prefect's tables", "Prefect's server"


@dataclass
class Spent:
    """What a block cost: wall seconds, CPU seconds by who used them, and those that others on this machine used."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    others: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@contextmanager
def metered(settings: Settings) -> Iterator[Spent]:
    """Of a sweep, which has all of these processes."""
    spent = Spent()
    before, busy, began = _shares(settings), _busy(), time.perf_counter()
    yield spent
    spent.seconds = time.perf_counter() - began
    after, all_of_it = _shares(settings), _busy() - busy
    spent.cpu = {name: max(0.0, after[name] - before[name]) for name in after}
    spent.others = max(0.0, all_of_it - spent.total)


@contextmanager
def bystanders(spent: Spent) -> Iterator[None]:
    """What others use while the block runs, whose own use `spent` has in the end."""
    busy = _busy()
    yield
    spent.others = max(0.0, _busy() - busy - spent.total)


def cpu(pid: int, *, with_ended_children: bool = False) -> float:
    """User and system seconds of a process; 0 where there is none."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, values[11 : 15 if with_ended_children else 13])) / _TICKS


def memory(pid: int) -> dict[str, int]:
    """Bytes: `resident` now, `peak` so far, and `private`, which no other process shares."""
    found = {"resident": 0, "peak": 0, "private": 0}
    with suppress(OSError):
        status = _fields(Path(f"/proc/{pid}/status"))
        found |= {"resident": status.get("VmRSS", 0), "peak": status.get("VmHWM", 0)}
        rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
        found["private"] = rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0)
    return found


def pid_of(worker: Any) -> int:
    """Of the process that a started `ntrader.worker.Worker` has."""
    pid: int = worker._child.result()._process.pid
    return pid


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def load() -> str:
    return "load " + " ".join(f"{value:.1f}" for value in os.getloadavg())


def _shares(settings: Settings) -> dict[str, float]:
    """CPU seconds so far. What has ended is in the sum of whoever started it: trial workers in the fork server's,
    connections of the store in PostgreSQL's."""
    planner = cpu(pid_of(default_worker()))
    forks: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    postmaster = local.status(settings.home).pid or 0
    of_prefect = [pid for pid in children(postmaster) if _database(pid) == server.DATABASE]
    running = server.running_server(settings.home)
    prefect_tables = sum(map(cpu, of_prefect))
    return {
        FLOW: cpu(os.getpid()),
        PLANNER: planner,
        WORKERS: _family(forks) - planner,
        STORE: _family(postmaster) - prefect_tables,
        PREFECT_TABLES: prefect_tables,
        PREFECT: cpu(running.pid) if running else 0.0,
    }


def _family(pid: int) -> float:
    return cpu(pid, with_ended_children=True) + sum(map(cpu, children(pid)))


def _database(pid: int) -> str | None:
    """`postgres: user database host state` is how a backend calls itself."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split()[2]
    return None


def _busy() -> float:
    """CPU seconds of everything on this machine, and those that its host gave to somebody else."""
    user, nice, system, _idle, _waiting, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / _TICKS


def _fields(path: Path) -> dict[str, int]:
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in pairs if value.endswith("kB")}
