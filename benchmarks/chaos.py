"""A sweep whose processes are killed at random, beside the same sweep left in peace: is anything lost or doubled?

    uv run python -m benchmarks.chaos [--kills 100] [--trials 400] [--seed 1] [--bars 4000] [--of worker,flow,...]

Victims of `kill -9`, while `ntrader sweep run` works:

    worker    one of the processes that run trials, or the one they are forked from
    flow      `ntrader` itself; it is started again, by the same command or as `ntrader sweep resume`
    server    the local Prefect server; the next start of the flow brings up another
    backend   a connection's process of PostgreSQL: it breaks off all of its connections and recovers

Who comes when is drawn with the seed, in fixed shares (of 100 kills 28, 27, 18 and 27). A kill comes at a random moment
after the flow has got to work again, no earlier in the sweep than its turn, and counts where the process was alive
before and is gone afterwards. Whoever is not there when drawn (no server, until the flow is started again) is put off.

Afterwards the sweep is resumed until it is finished. A trial that was killed twice, the second time alone, counts as a
killer and is failed: such trials are run again by `ntrader sweep retry --failed`. Then the whole table is compared:
points, states, run keys, digests, every metric to the bit; each trial must have exactly one successful run with one
curve, and nothing may be left running. Exit code 1 where anything differs.

Everything happens in an NTRADER_HOME of its own, which is gone at the end.
"""

from __future__ import annotations

import argparse
import itertools
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
from benchmarks.same import Comparison, compare
from ntrader.errors import NtraderError
from ntrader.settings import Settings, load_settings
from storage import local, migrations
from storage.database import conninfo
from storage.leases import is_dead
from tasks import server

VICTIMS = ("worker", "flow", "server", "backend")
COMMAND = [sys.executable, "-W", "ignore", "-c", "from cli.main import main; main()"]
# Whoever is killed more often than this without an end in sight will not come to one.
MOST_STARTS = 500
LONGEST_WAIT = 60.0
# Now and then a kill comes before there is anything to do: while the flow is starting.
IMPATIENCE = 0.1
# The last kill comes when so much of the sweep is done.
LAST = 0.8
# Of so many kills in a row each kind has its share, and the first four are all different.
SHARES = ("worker", "flow", "server", "backend", "worker", "flow", "backend", "worker", "flow", "server", "backend")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How many kills of whom, at most so many seconds after one another, over a sweep of so many trials."""

    kills: int
    trials: int
    seed: int = 1
    bars: int = 4_000
    victims: tuple[str, ...] = VICTIMS
    longest_pause: float = 1.0
    workers: int = 2

    def deck(self, drawn: random.Random) -> list[str]:
        """Whom to kill, one after another."""
        shares = itertools.cycle([kind for kind in SHARES if kind in self.victims])
        deck = list(itertools.islice(shares, self.kills))
        drawn.shuffle(deck)
        return deck

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
    at_work: int = 0
    starts: int = 0
    resumes: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    accused: int = 0
    comparison: Comparison | None = None
    problems: list[str] = field(default_factory=list)


class Chaos:
    """One sweep under fire. `settings` name the database it is in; what they leave out is the embedded one."""

    def __init__(self, settings: Settings, plan: Plan, file: Path, report: Report = print) -> None:
        self._settings = settings
        self._plan = plan
        self._file = file
        self._report = report
        self._random = random.Random(plan.seed)
        self._deck = plan.deck(self._random)
        self._flow: subprocess.Popen[str] | None = None
        self._family: set[int] = set()
        self._session: int | None = None
        self._victims = {"worker": self._worker, "flow": self._own, "server": self._server, "backend": self._backend}
        self.verdict = Verdict()

    def run(self) -> None:
        """Until all kills are done and the sweep is finished."""
        began = time.monotonic()
        try:
            while self._killed() < self._plan.kills and not self._is_finished():
                self._step()
            self._report(f"{self._killed()} kills done; now it is left in peace")
            self._let_finish()
        finally:
            self._end()
        self.verdict.seconds = time.monotonic() - began

    def _step(self) -> None:
        self._keep_running()
        self._wait_for_its_turn()
        self._wait(self._random.uniform(0.0, self._plan.longest_pause))
        found = self._next_victim()
        if found is None:
            return
        kind, pid = found
        at_work = self._is_at_work()
        if not _killed(pid):
            return
        if kind in self._deck:
            self._deck.remove(kind)
        self.verdict.killed[kind] += 1
        self.verdict.at_work += at_work
        how_far = f"{self._done()} of {self._plan.trials} trials" + ("" if at_work else ", none of them running")
        self._report(f"{self._killed():4} {kind:8} {pid:8}   {how_far}")

    def _next_victim(self) -> tuple[str, int] | None:
        """The next in turn who is there. Where only a server is wanted, and there is none, the flow has to be started
        again."""
        for kind in dict.fromkeys([*self._deck, "flow"]):
            pid = self._victims[kind]()
            if pid is not None:
                return kind, pid
        return None

    def _killed(self) -> int:
        return sum(self.verdict.killed.values())

    def _wait_for_its_turn(self) -> None:
        """Kills are spread over the whole sweep, and come while there is work to be disturbed."""
        due = LAST * self._killed() / self._plan.kills * self._plan.trials
        if self._random.random() < IMPATIENCE:
            return
        deadline = time.monotonic() + LONGEST_WAIT
        while self._own() and time.monotonic() < deadline:
            if self._done() >= due and self._is_at_work():
                return
            self._wait(0.1)

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
        self._launch(*words)

    def _launch(self, *words: str) -> None:
        self._flow = self._start("sweep", *words)
        self._session = _session(self._flow.pid)
        self.verdict.starts += 1
        self.verdict.resumes += words[0] != "run"

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
        # Without services that it had just begun to start when they were counted.
        orphans = [pid for pid in _gone_within(self._family, 10.0) if _session(pid) == self._session]
        if orphans:
            self.verdict.problems.append(f"processes outlived their flow: {orphans}")
        self._family.clear()
        self._flow = None

    def _let_finish(self) -> None:
        for _ in range(6):
            if self._flow is None:
                self._launch(*self._going_on())
            self._wait(self._patience())
            code = self._flow.poll() if self._flow else None
            self._end()
            if code == 0 and self._is_finished() and not self._count("failed"):
                return
        self.verdict.problems.append("the sweep does not come to an end")

    def _going_on(self) -> tuple[str, ...]:
        failed = self._count("failed")
        if not failed:
            return "resume", "1"
        self.verdict.accused += failed
        self._report(f"       {failed} trials were killed twice and are run again")
        return "retry", "1", "--failed"

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
        if self._flow is None:
            return None
        found = [pid for pid in _descendants(self._flow.pid) if _lives(pid) and _runs_trials(pid)]
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

    def _ask(self, query: str) -> list[Any]:
        """The first column, as soon as the database answers."""
        deadline = time.monotonic() + LONGEST_WAIT
        while True:
            try:
                with self._asked() as connection:
                    return [row[0] for row in connection.execute(query).fetchall()]  # type: ignore[arg-type]
            except (NtraderError, psycopg.OperationalError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _exists(self) -> bool:
        return self._ask("SELECT count(*) FROM sweeps") != [0]

    def _is_at_work(self) -> bool:
        """Whether a living process holds a trial."""
        owners = self._ask("SELECT DISTINCT lease_owner FROM trials WHERE state = 'running'")
        return any(owner and not is_dead(owner) for owner in owners)

    def _done(self) -> int:
        return int(self._ask("SELECT count(*) FROM trials WHERE state IN ('success', 'failed')")[0])

    def _count(self, state: str) -> int:
        return int(self._ask(f"SELECT count(*) FROM trials WHERE state = '{state}'")[0])

    def _is_finished(self) -> bool:
        return self._done() == self._plan.trials


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
    verdict.comparison = compare(peace, chaos, plan.trials)
    verdict.problems += verdict.comparison.problems
    missing = plan.kills - sum(verdict.killed.values())
    if missing > 0:
        verdict.problems.append(f"the sweep was finished before the last {missing} kills")
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bars", type=int, default=4_000)
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
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(verdict.killed.items()))
    print(f"\nKilled    {sum(verdict.killed.values())}: {kinds}; {verdict.at_work} of them while trials were running")
    print(f"Started   {verdict.starts} times, {verdict.resumes} of them by resume or retry")
    print(f"Accused   {verdict.accused} trials were killed twice, taken for killers and retried")
    for end, count in verdict.ends.most_common():
        print(f"Ended     {count} times by itself with {end}")
    if found := verdict.comparison:
        print(f"Trials    {found.trials}: {found.lost} lost, {found.doubled} doubled, {found.equal} digests equal")
    print(f"Wall      {verdict.seconds:.0f} s")
    print("\n".join([*verdict.problems, "NOT the same"]) if verdict.problems else "The same as in peace")


def _environment(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "PREFECT_API_URL")}
    database = {"DATABASE_URL": settings.database_url} if settings.database_url else {}
    return {**kept, **database, "NTRADER_HOME": str(settings.home)}


def _descendants(pid: int) -> list[int]:
    """Its own processes; services that it has started are in sessions of their own."""
    session = _session(pid)
    direct = [child for child in children(pid) if session is not None and _session(child) == session]
    return direct + [below for child in direct for below in _descendants(child)]


def _session(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return None


def _runs_trials(pid: int) -> bool:
    """Or forks those that do. Beside them there is the tracker of multiprocessing, which nobody would miss."""
    with suppress(OSError):
        return b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _killed(pid: int) -> bool:
    """Whether it was alive, and is gone now."""
    if not _lives(pid):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return not _gone_within({pid}, 10.0)
    return False


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
