"""A sweep on three machines: a desk and two with workers, each in a network namespace of its own, PostgreSQL over TCP.

    sudo .venv/bin/python -m benchmarks.cluster [--trials 120] [--bars 2000]

Each machine has its own address, folder, NTRADER_HOME and data catalog; nothing but DATABASE_URL, PREFECT_API_URL and
the address of Dask's scheduler leads from one to another. The same sweep is run on the desk alone, and then on the
Dask cluster of the two: undisturbed, with a worker killed, with the cable of one pulled out for a while, with one
machine's data changed; and in shards over a Prefect work pool that both serve. Each time points, digests and metrics
of all trials have to be those of the desk alone. Ends with exit code 1 where they are not. Needs Linux, root and `ip`.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.catalog import add_bars
from storage import local

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
DESK, ONE, TWO = "ntrader-desk", "ntrader-one", "ntrader-two"
ADDRESSES = {DESK: "10.77.0.1", ONE: "10.77.0.2", TWO: "10.77.0.3"}
PASSWORD = "open-sesame"
DAY = 86_400_000_000_000


@dataclass
class Machines:
    """The three of them, and what runs on them."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def scheduler(self) -> str:
        return f"tcp://{ADDRESSES[DESK]}:8786"

    def home(self, machine: str) -> Path:
        return self.folder / machine / "home"

    def environment(self, machine: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "NTRADER", "DASK"))
        }
        return kept | {
            "HOME": str(self.folder / machine),
            "NTRADER_HOME": str(self.home(machine)),
            "DATABASE_URL": f"postgresql://desk:{PASSWORD}@{ADDRESSES[DESK]}:5432/postgres",
            "PREFECT_API_URL": f"http://{ADDRESSES[DESK]}:4200/api",
            "PREFECT_HOME": str(self.folder / machine / "prefect"),
            "DO_NOT_TRACK": "1",
            "PYTHONSAFEPATH": "1",
        }

    def start(self, name: str, machine: str, *command: str, **options: Any) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["ip", "netns", "exec", machine, *command], cwd=self.folder / machine, env=self.environment(machine),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options,
            )  # fmt: skip

    def run(self, machine: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", machine, *command], cwd=self.folder / machine, env=self.environment(machine),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.running.pop(name)
        with suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--bars", type=int, default=2000)
    arguments = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise SystemExit("network namespaces need root and the program `ip`")
    with machines(walk(arguments.bars)) as them:
        search = search_of(arguments.trials)
        alone = sweep(them, "on the desk, one worker", search, "--workers", "1")
        start_cluster(them)
        cluster = ("--scheduler", them.scheduler)
        compare(alone, sweep(them, "on the Dask cluster of two", search, *cluster))
        with midway(them, lambda: lose_worker(them)):
            compare(alone, sweep(them, "the same, a worker killed -9 and started again", search, *cluster))
        with midway(them, lambda: pull_cable(TWO, 15)):
            compare(alone, sweep(them, "the same, the cable of one out for 15 s", search, *cluster))
        refuse(them, walk(arguments.bars), search, *cluster)
        end_cluster(them)
        start_pool(them)
        compare(alone, sweep(them, "in shards, one a machine", search, "--runner", "prefect", "--workers", "1"))


# The machines


@contextmanager
def machines(bars: Bars) -> Iterator[Machines]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ntrader-cluster-")))
        folder.chmod(0o755)
        stack.enter_context(network())
        them = Machines(folder)
        stack.callback(lambda: [them.end(name) for name in reversed(list(them.running))])
        for machine in ADDRESSES:
            (folder / machine).mkdir()
            add_bars(them.home(machine), bars)
        start_postgresql(them)
        them.start("prefect-server", DESK, str(BIN / "prefect"), "server", "start", "--host", "0.0.0.0")
        wait(them, "the Prefect server", DESK, sys.executable, "-c", HEALTH)
        yield them


HEALTH = "import os, urllib.request; urllib.request.urlopen(os.environ['PREFECT_API_URL'] + '/health', timeout=2)"


@contextmanager
def network() -> Iterator[None]:
    """A bridge on the desk, and a cable to it from each of the others."""
    try:
        for machine in ADDRESSES:
            ip("netns", "add", machine)
            ip("-n", machine, "link", "set", "lo", "up")
        ip("-n", DESK, "link", "add", "bridge", "type", "bridge")
        ip("-n", DESK, "addr", "add", f"{ADDRESSES[DESK]}/24", "dev", "bridge")
        ip("-n", DESK, "link", "set", "bridge", "up")
        for machine in (ONE, TWO):
            cable = machine.removeprefix("ntrader-")
            ip("-n", machine, "link", "add", "eth0", "type", "veth", "peer", "name", cable, "netns", DESK)
            ip("-n", DESK, "link", "set", cable, "master", "bridge")
            ip("-n", DESK, "link", "set", cable, "up")
            ip("-n", machine, "addr", "add", f"{ADDRESSES[machine]}/24", "dev", "eth0")
            ip("-n", machine, "link", "set", "eth0", "up")
        yield
    finally:
        for machine in ADDRESSES:
            subprocess.run(["ip", "netns", "del", machine], capture_output=True, check=False)


def start_postgresql(them: Machines) -> None:
    """With a password, for whoever is on the cable. As nobody, for it refuses to be root."""
    home = them.folder / "binaries"
    local.ensure_running(home)
    programs = local.find_client(home, "postgres").parent
    local.stop(home)
    account = pwd.getpwnam("nobody")
    data, secret = them.folder / "data", them.folder / "secret"
    data.mkdir()
    secret.write_text(PASSWORD)
    for path in (data, secret):
        os.chown(path, account.pw_uid, account.pw_gid)
    setpriv = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    setpriv += ["env", "LC_ALL=C", f"LD_LIBRARY_PATH={programs.parent / 'lib'}"]
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "desk", "--encoding=UTF8"]
    initdb += ["--auth=scram-sha-256", f"--pwfile={secret}"]
    done = subprocess.run([*setpriv, *initdb, "--no-sync"], capture_output=True, text=True, cwd="/", check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 scram-sha-256\n")
    options = ["-c", "listen_addresses=*", "-c", f"unix_socket_directories={data}"]
    them.start("postgresql", DESK, *setpriv, str(programs / "postgres"), "-D", str(data), *options)
    wait(them, "PostgreSQL", DESK, str(BIN / "ntrader"), "db", "upgrade")


def start_cluster(them: Machines) -> None:
    dask = str(BIN / "dask")
    them.start("scheduler", DESK, dask, "scheduler", "--host", ADDRESSES[DESK], "--port", "8786", "--no-dashboard")
    for machine in (ONE, TWO):
        start_worker(them, machine)
    time.sleep(5)


def start_worker(them: Machines, machine: str) -> None:
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", ADDRESSES[machine])
    them.start(f"worker-{machine}", machine, str(BIN / "dask"), "worker", them.scheduler, *options)


def end_cluster(them: Machines) -> None:
    for name in (f"worker-{ONE}", f"worker-{TWO}", "scheduler"):
        them.end(name)


def start_pool(them: Machines) -> None:
    prefect = str(BIN / "prefect")
    them.run(DESK, prefect, "work-pool", "create", "ntrader", "--type", "process")
    them.run(DESK, prefect, "--no-prompt", "deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml"))
    for machine in (ONE, TWO):
        them.start(f"pool-{machine}", machine, prefect, "worker", "start", "--pool", "ntrader")
    wait(them, "the workers of the pool", DESK, sys.executable, "-c", ONLINE)


ONLINE = (
    "from prefect import get_client\n"
    "with get_client(sync_client=True) as client:\n"
    "    states = [str(worker.status.value) for worker in client.read_workers_for_work_pool('ntrader')]\n"
    "raise SystemExit(states != ['ONLINE'] * 2)"
)


# What happens to them


@contextmanager
def midway(them: Machines, action: Callable[[], None]) -> Iterator[None]:
    """Beside the block, once the sweep that it starts has saved something."""
    before = ask(them, "SELECT max(id) AS n FROM sweeps")
    progress = f"SELECT count(*) AS n FROM trials WHERE sweep_id > {before} AND state = 'success'"
    left = f"SELECT count(*) AS n FROM trials WHERE sweep_id > {before} AND state <> 'success'"

    def act() -> None:
        while not ask(them, progress):
            time.sleep(0.2)
        print(f"    ... after {ask(them, progress)} trials, with {ask(them, left)} to go", flush=True)
        action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    yield
    thread.join()


def lose_worker(them: Machines) -> None:
    """The process is a child of `ip`, which has become it."""
    them.end(f"worker-{ONE}", signal.SIGKILL)
    time.sleep(3)
    start_worker(them, ONE)


def pull_cable(machine: str, seconds: float) -> None:
    ip("-n", machine, "link", "set", "eth0", "down")
    time.sleep(seconds)
    ip("-n", machine, "link", "set", "eth0", "up")


def refuse(them: Machines, bars: Bars, search: list[str], *where: str) -> None:
    """The last bar has been revised on one machine: whatever comes to it is refused there."""
    bars.close[-1] += 0.5
    bars.high[-1] += 1
    add_bars(them.home(TWO), bars, replace=True)
    done = them.run(DESK, str(BIN / "ntrader"), "sweep", "run", *search, "--rerun", "--no-verify", *where)
    last = "\n    ".join(done.stderr.strip().splitlines()[-2:])
    print(f"one bar revised on one machine: exit code {done.returncode}\n    {last}")
    bars.close[-1] -= 0.5
    bars.high[-1] -= 1
    add_bars(them.home(TWO), bars, replace=True)
    if done.returncode != 4:
        raise SystemExit("it was not refused")


# The sweep


def search_of(trials: int) -> list[str]:
    axes = ("--param", f"fast_period=2:{trials // 4 + 1}:1", "--param", "slow_period=100,120,150,200")
    return ["--strategy", "sma_crossover", "--symbol", "WALK", "--source", "catalog", *axes]


@dataclass(frozen=True, slots=True)
class Done:
    seconds: float
    runs: int
    trials: list[dict[str, Any]]


def sweep(them: Machines, what: str, search: list[str], *where: str) -> Done:
    """Anew, and all that is stored of its trials."""
    ntrader = str(BIN / "ntrader")
    began = time.perf_counter()
    done = them.run(DESK, ntrader, "sweep", "run", *search, "--rerun", "--no-verify", "--json", *where)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{what}: exit code {done.returncode}\n{done.stderr}")
    number = json.loads(done.stdout)["id"]
    rows = query(
        them,
        "SELECT t.trial_number, t.point, t.state, r.result_digest, r.run_key, r.sharpe_ratio, r.total_return"
        f" FROM trials t JOIN backtest_runs r ON r.id = t.run_id WHERE t.sweep_id = {number} ORDER BY 1",
    )
    runs = ask(them, f"SELECT count(*) AS n FROM backtest_runs WHERE sweep_id = {number}")
    print(f"{what}: {seconds:.1f} s, {len(rows)} trials, {runs} runs", flush=True)
    return Done(seconds, runs, rows)


def query(them: Machines, statement: str) -> list[dict[str, Any]]:
    done = them.run(DESK, str(BIN / "ntrader"), "sql", "--format", "json", statement)
    if done.returncode:
        raise SystemExit(done.stderr)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def ask(them: Machines, statement: str) -> int:
    """A number that the statement calls n."""
    return int(query(them, statement)[0]["n"])


def compare(alone: Done, other: Done) -> None:
    same = (alone.trials, alone.runs) == (other.trials, other.runs)
    different = len({trial["result_digest"] for trial in other.trials})
    verdict = "equal" if same else "NOT equal"
    print(f"    {different} different digests, and all trials {verdict} to those on the desk alone", flush=True)
    if not same:
        raise SystemExit(1)


def walk(count: int) -> Bars:
    """A seeded random walk of daily bars."""
    draw = np.random.default_rng(7)
    close = np.round(100 * np.exp(np.cumsum(draw.normal(0.0002, 0.012, count))), 2) + 5
    opening = np.round(close * (1 + draw.normal(0, 0.003, count)), 2)
    high, low = np.maximum(opening, close) + 0.5, np.minimum(opening, close) - 0.5
    times = 946_684_800_000_000_000 + DAY * np.arange(1, count + 1, dtype=np.int64) - 1000
    return Bars(
        "WALK", "SIM", parse_timeframe("1-DAY"), times, opening, high, low, close, np.full(count, 1e6), "a walk"
    )


def wait(them: Machines, what: str, machine: str, *command: str) -> None:
    for _ in range(60):
        done = them.run(machine, *command)
        if done.returncode == 0:
            return
        time.sleep(1)
    raise SystemExit(f"{what} did not start: {done.stderr[-2000:]}")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    main()
