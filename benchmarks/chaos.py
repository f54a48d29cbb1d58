"""A sweep whose processes are killed at random, beside the same sweep left in peace: is anything lost or doubled?

    uv run python -m benchmarks.chaos [--kills 100] [--trials 400] [--seed 1] [--bars 6000] [--of worker,flow,...]

Victims of `kill -9`, while `ntrader sweep run` works:

    worker    one of the processes that run trials, or the one they are forked from
    flow      `ntrader` itself; it is started again, by the same command or as `ntrader sweep resume`
    server    the local Prefect server; the next start of the flow brings up another
    backend   a connection's process of PostgreSQL: it breaks off all of its connections and recovers

Afterwards the sweep is resumed until it is finished. A trial that was killed twice, the second time alone, counts as a
killer and is failed: such trials are run again by `ntrader sweep retry --failed`. Then the whole table is compared:
points, states, run keys, digests, every metric to the bit; each trial must have exactly one successful run with one
curve, and nothing may be left running. Exit code 1 where anything differs.

Everything happens in an NTRADER_HOME of its own, which is gone at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import yaml

from benchmarks.processes import children
from benchmarks.same import compare
from ntrader.errors import NtraderError
from ntrader.settings import Settings, load_settings
from storage import local, migrations
from storage.database import conninfo
from tasks import server

VICTIMS = ("worker", "flow", "server", "backend")
COMMAND = [sys.executable, "-W", "ignore", "-c", "from cli.main import main; main()"]
# Whoever is killed more often than this without an end in sight will not come to one.
MOST_STARTS = 500
LONGEST_WAIT = 60.0
# At each look, of which there are ten a second.
IMPATIENCE = 0.01

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How many kills of whom, at most so many seconds after one another, over a sweep of so many trials."""

    kills: int
    trials: int
    seed: int = 1
    bars: int = 6_000
    victims: tuple[str, ...] = VICTIMS
    longest_pause: float = 2.0
    workers: int = 2

    def search(self) -> dict[str, Any]:
        return {
            "strategy": "sma_crossover",
            "parameters": {"trade_size": 10},
            "data": {"symbol": "WALK", "source": "synthetic", "start": "1970-01-02", "end": _after(self.bars)},
            "sweep": {
                "params": {"fast_period": {"int_uniform": [2, 40]}, "slow_period": {"int_uniform": [41, 300]}},
                "sampler": "random",
                "seed": self.seed,
                "budget": {"trials": self.trials},
            },
        }


@dataclass(slots=True)
class Verdict:
    """What was done, and whatever is wrong."""

    killed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    accused: int = 0
    problems: list[str] = field(default_factory=list)


class Chaos:
    """One sweep under fire. `settings` name the database it is in; what they leave out is the embedded one."""

    def __init__(self, settings: Settings, plan: Plan, file: Path, report: Report = print) -> None:
        self._settings = settings
        self._plan = plan
        self._file = file
        self._report = report
        self._random = random.Random(plan.seed)
        self._flow: subprocess.Popen[str] | None = None
        self._family: set[int] = set()
        self._victims = {"worker": self._worker, "flow": self._own, "server": self._server, "backend": self._backend}
        self.verdict = Verdict()

    def run(self) -> int:
        """Until all kills are done and the sweep is finished. The sweep's number."""
        began = time.monotonic()
        try:
            while sum(self.verdict.killed.values()) < self._plan.kills and not self._is_finished():
                self._step()
            self._report(f"{sum(self.verdict.killed.values())} kills done; now it is left in peace")
            self._let_finish()
        finally:
            self._end()
        self.verdict.seconds = time.monotonic() - began
        return 1

    def _step(self) -> None:
        self._keep_running()
        behind = self._wait_for_progress()
        self._wait(self._random.uniform(0.0, self._plan.longest_pause / (4 if behind else 1)))
        kind = self._random.choice(self._plan.victims)
        pid = self._victims[kind]()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.verdict.killed[kind] += 1
            self._report(f"{sum(self.verdict.killed.values()):4} {kind:8} {pid:8}   {self._progress()}")

    def _wait_for_progress(self) -> bool:
        """Kills are spread over the whole sweep; now and then one comes before anything has been done. Whether the
        sweep is ahead of them."""
        share = sum(self.verdict.killed.values()) / self._plan.kills
        deadline = time.monotonic() + LONGEST_WAIT
        while self._random.random() > IMPATIENCE and self._own() and time.monotonic() < deadline:
            if self._done() / self._plan.trials > share:
                return True
            self._wait(0.1)
        return False

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._flow is not None and self._flow.poll() is None:
            self._family |= set(_descendants(self._flow.pid))
            time.sleep(0.02)

    def _keep_running(self) -> None:
        if self._flow is not None and self._flow.poll() is None:
            return
        self._reap()
        if self.verdict.starts >= MOST_STARTS:
            raise SystemExit(f"{MOST_STARTS} starts, and no end of it")
        known = self.verdict.starts > 0 and self._exists()
        words = ["resume", "1"] if known and self._random.random() < 0.5 else ["run", str(self._file)]
        self._flow = self._start("sweep", *words)
        self.verdict.starts += 1

    def _reap(self) -> None:
        """What a flow said that ended by itself; and all that it had started is gone with it."""
        if self._flow is None:
            return
        _, said = self._flow.communicate()
        code = self._flow.returncode
        if code not in (0, -signal.SIGKILL):
            self.verdict.ends[f"exit {code}: {_error(said)}"] += 1
            self._report(f"       flow ended with exit code {code}: {_error(said)}")
            if "Traceback" in said or code == 1:
                self.verdict.problems.append(f"the flow ended with exit code {code}: {said[-500:]}")
        orphans = _gone_within(self._family, 10.0)
        if orphans:
            self.verdict.problems.append(f"processes outlived their flow: {orphans}")
        self._family.clear()
        self._flow = None

    def _let_finish(self) -> None:
        if self._flow is not None:
            with suppress(subprocess.TimeoutExpired):
                self._flow.wait(timeout=self._patience())
            self._end()
        for _ in range(5):
            failed = self._count("failed")
            if failed:
                self.verdict.accused += failed
                self._report(f"       {failed} trials were killed twice and are run again")
            words = ("retry", "1", "--failed") if failed else ("resume", "1")
            self._flow = self._start("sweep", *words)
            self.verdict.starts += 1
            self._wait(self._patience())
            code = self._flow.poll()
            self._reap()
            if code == 0 and self._is_finished() and not self._count("failed"):
                return
        self.verdict.problems.append("the sweep does not come to an end")

    def _patience(self) -> float:
        return 120.0 + 2.0 * self._plan.trials

    def _end(self) -> None:
        if self._flow is not None and self._flow.poll() is None:
            self._flow.kill()
        self._reap()

    def _start(self, *words: str) -> subprocess.Popen[str]:
        options = ["--workers", str(self._plan.workers), "--no-verify"]
        return subprocess.Popen(
            [*COMMAND, *words, *options],
            env=_environment(self._settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    # Whom to kill

    def _own(self) -> int | None:
        return self._flow.pid if self._flow is not None and self._flow.poll() is None else None

    def _worker(self) -> int | None:
        found = [pid for pid in _descendants(self._flow.pid) if _lives(pid)] if self._flow is not None else []
        return self._random.choice(found) if found else None

    def _server(self) -> int | None:
        running = server.running_server(self._settings.home)
        return running.pid if running else None

    def _backend(self) -> int | None:
        with suppress(NtraderError, psycopg.Error), self._asked() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                " AND datname = current_database() ORDER BY pid"
            ).fetchall()
            return int(self._random.choice(rows)[0]) if rows else None
        return None

    # How far it is

    @contextmanager
    def _asked(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(conninfo(self._settings), autocommit=True) as connection:
            yield connection

    def _ask(self, query: str) -> int:
        """0 while the database is away."""
        with suppress(NtraderError, psycopg.Error), self._asked() as connection:
            row = connection.execute(query).fetchone()  # type: ignore[arg-type]
            return int(row[0]) if row else 0
        return 0

    def _exists(self) -> bool:
        return self._ask("SELECT count(*) FROM sweeps") > 0

    def _done(self) -> int:
        return self._ask("SELECT count(*) FROM trials WHERE state IN ('success', 'failed')")

    def _count(self, state: str) -> int:
        return self._ask(f"SELECT count(*) FROM trials WHERE state = '{state}'")

    def _is_finished(self) -> bool:
        return self._done() == self._plan.trials

    def _progress(self) -> str:
        return f"{self._done() or '?'} of {self._plan.trials} trials"


def in_peace(settings: Settings, file: Path) -> None:
    """The same sweep without kills. Raises CalledProcessError where it fails."""
    words = ["sweep", "run", str(file), "--no-verify"]
    subprocess.run([*COMMAND, *words], env=_environment(settings), check=True, capture_output=True, text=True)


def under_fire(peace: Settings, chaos: Settings, plan: Plan, folder: Path, report: Report = print) -> Verdict:
    """The sweep in both databases, and what is wrong in the end. Both are migrated and empty."""
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(plan.search()))
    report(f"{plan.trials} trials on {plan.bars:,} bars in peace ...")
    in_peace(peace, file)
    report(f"... and with {plan.kills} kills of {', '.join(plan.victims)}, seed {plan.seed}")
    under = Chaos(chaos, plan, file, report)
    under.run()
    verdict = under.verdict
    verdict.problems += compare(peace, chaos, plan.trials)
    missing = plan.kills - sum(verdict.killed.values())
    if missing > 0:
        verdict.problems.append(f"the sweep was finished before the last {missing} kills")
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bars", type=int, default=6_000)
    parser.add_argument("--of", default=",".join(VICTIMS), help=f"Some of: {', '.join(VICTIMS)}.")
    given = parser.parse_args()
    plan = Plan(given.kills, given.trials, given.seed, given.bars, tuple(given.of.split(",")))
    home = Path(tempfile.mkdtemp(prefix="ntrader-chaos-"))
    try:
        verdict = _in_a_home_of_its_own(home, plan)
    finally:
        subprocess.run([*COMMAND, "down"], env=_environment(Settings(home=home)), check=False, capture_output=True)
        left = _processes_of(home)
        shutil.rmtree(home, ignore_errors=True)
    verdict.problems += [f"still running: {name}" for name in left]
    _show(verdict)
    raise SystemExit(bool(verdict.problems))


def _in_a_home_of_its_own(home: Path, plan: Plan) -> Verdict:
    """The sweep in peace in a second database of the embedded PostgreSQL."""
    chaos = replace(load_settings(), home=home, database_url=None, prefect_api_url=None)
    migrations.prepare(chaos)
    where = psycopg.conninfo.conninfo_to_dict(local.ensure_running(home, database="peace"))
    peace = replace(chaos, database_url=f"postgresql://{where['user']}@/peace?host={where['host']}")
    migrations.upgrade(peace)
    return under_fire(peace, chaos, plan, home, lambda line: print(line, flush=True))


def _show(verdict: Verdict) -> None:
    print(f"\nKilled: {', '.join(f'{count} {kind}' for kind, count in sorted(verdict.killed.items()))}")
    print(f"{verdict.seconds:.0f} s, {verdict.starts} starts; {verdict.accused} trials were taken for killers")
    for end, count in verdict.ends.most_common():
        print(f"Ended by itself {count} times with {end}")
    if verdict.problems:
        print("\n".join([*verdict.problems, "NOT the same as without kills"]))
    else:
        print("The same as without kills: 0 lost, 0 doubled, every digest and metric equal")


def _environment(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "PREFECT_API_URL")}
    database = {"DATABASE_URL": settings.database_url} if settings.database_url else {}
    return {**kept, **database, "NTRADER_HOME": str(settings.home)}


def _descendants(pid: int) -> list[int]:
    """Its own processes; services that it has started are in sessions of their own."""
    try:
        session = os.getsid(pid)
        direct = [child for child in children(pid) if os.getsid(child) == session]
    except ProcessLookupError:
        return []
    return direct + [below for child in direct for below in _descendants(child)]


def _gone_within(pids: set[int], seconds: float) -> list[int]:
    """Those that are not."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if _lives(pid)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _processes_of(home: Path) -> list[str]:
    """Whatever still runs with this NTRADER_HOME."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"NTRADER_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes()[:100].replace(b"\0", b" ")
                found.append(f"{folder.name} {command.decode(errors='replace')}")
    return found


def _after(bars: int) -> str:
    """The day by which so many weekdays have passed."""
    import numpy as np

    return str(np.busday_offset("1970-01-02", bars, roll="forward"))


def _error(said: str) -> str:
    return next((line for line in said.splitlines() if line.startswith("Error")), said[-200:]).strip()


if __name__ == "__main__":
    main()
