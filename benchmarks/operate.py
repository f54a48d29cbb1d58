"""The stack that `ntrader up` starts: from nothing to a finished run, at rest, and with many sweep chunks behind it.

    uv run python -m benchmarks.operate [--chunks 1000] [--only up,idle,chunks,retention,capacity]

    up         `ntrader up` in an empty home, then `ntrader run-backtest --detach` until its run is saved
    idle       memory and CPU time of the stack while nothing happens, a minute long
    chunks     how long the commands, Prefect's API and its pages take to answer, before and after so many chunks of one
               sweep have finished
    retention  flow runs older than the retention period, removed by the server; our own rows stay
    capacity   CPU time and room that a trial takes, and what a million of them in eight hours would

Everything happens in an NTRADER_HOME of its own, which is gone at the end. Pages are looked at with Chromium, where
there is one. What is too old for the server is made so by SQL, for its shortest period is an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from benchmarks import processes
from ntrader.settings import Settings, load_settings
from storage import local
from tasks import server

KINDS = ("up", "idle", "chunks", "retention", "capacity")
COMMAND = "from cli.main import main; main()"
BACKTEST = "run-backtest --strategy sma_crossover --symbol AAPL --start-date 2008-01-01 --end-date 2012-12-31"
SWEEP = (
    "sweep run --strategy sma_crossover --symbol AAPL --param fast_period=5,10 --param slow_period=50,100 --no-verify"
)
IDLE_SECONDS = 60.0
PATIENCE = 180.0
NIGHT, MILLION = 8 * 3600.0, 1_000_000
# The least that Prefect takes is more than an hour.
RETENTION = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "7200",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "2",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000)
    parser.add_argument("--only", default=",".join(KINDS), help=f"Some of: {', '.join(KINDS)}.")
    options = parser.parse_args()
    wanted = options.only.split(",")
    with at_home() as settings:
        print(f"{os.cpu_count()} cores, {processes.load()}", flush=True)
        show_up()
        if "idle" in wanted:
            show_idle()
        if "chunks" in wanted:
            show_chunks(settings, options.chunks)
        if "retention" in wanted:
            show_retention(settings)
        if "capacity" in wanted:
            show_capacity(settings)


@contextmanager
def at_home() -> Iterator[Settings]:
    home = Path(tempfile.mkdtemp(prefix="ntrader-operate-"))
    for name in ("DATABASE_URL", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    os.environ["NTRADER_HOME"] = str(home)
    try:
        yield load_settings()
    finally:
        ntrader("down", "--force")
        shutil.rmtree(home, ignore_errors=True)


def ntrader(*words: str) -> str:
    return subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, text=True, capture_output=True).stdout


def timed[T](action: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    found = action()
    return time.perf_counter() - began, found


# Up


def show_up() -> None:
    began = time.perf_counter()
    ntrader("up")
    up = time.perf_counter() - began
    submitted = json.loads(ntrader(*BACKTEST.split(), "--detach", "--json"))
    sent = time.perf_counter() - began
    awaited(lambda: state_of(submitted["run_id"]) == "success")
    done = time.perf_counter() - began
    print(f"UP: from nothing to `up` {up:.1f} s, to a submitted backtest {sent:.1f} s, to its saved run {done:.1f} s"
          f"   asked < 60: {'yes' if done < 60 else 'NO'}", flush=True)  # fmt: skip


def state_of(run_id: str) -> str | None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "history", "show", run_id, "--json"], check=False, text=True,
        capture_output=True,
    )  # fmt: skip
    return json.loads(done.stdout)["execution_status"] if done.returncode == 0 else None


def awaited(holds: Callable[[], bool], pause: float = 0.2) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing within {PATIENCE:.0f} s")
        time.sleep(pause)


# Idle


def show_idle() -> None:
    time.sleep(10)
    pids = {state["name"]: family(state["pid"]) for state in services() if state["pid"]}
    before = {name: spent(group) for name, group in pids.items()}
    time.sleep(IDLE_SECONDS)
    print("IDLE: memory as its share of what processes have in common, CPU time of one core")
    total = 0.0
    for name, group in pids.items():
        size = sum(map(proportional, group))
        total += size
        print(f"  {name:<24}{size / 1e6:6,.0f} MB in {len(group):2} processes,"
              f" {(spent(group) - before[name]) / IDLE_SECONDS:6.1%}")  # fmt: skip
    print(f"  {'all':<24}{total / 1e6:6,.0f} MB", flush=True)


def services() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ntrader("status", "--json"))["services"]
    return found


def family(pid: int) -> list[int]:
    return [pid, *(grandchild for child in processes.children(pid) for grandchild in family(child))]


def spent(pids: list[int]) -> float:
    return sum(map(processes.cpu, pids))


def proportional(pid: int) -> int:
    """Bytes; a page that several processes share counts for each of them in part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# Chunks


def show_chunks(settings: Settings, count: int) -> None:
    ntrader(*SWEEP.split())
    before = answers(settings, None)
    seconds, flow_run = timed(lambda: finished_chunks(settings, count))
    after = answers(settings, flow_run)
    print(f"CHUNKS: {count:,} task runs of one flow run, made in {seconds:.0f} s; seconds to answer, median of 5,"
          " before and after")  # fmt: skip
    for what, value in after.items():
        print(f"  {what:<44}{before.get(what, float('nan')):7.2f}{value:7.2f}")
    sys.stdout.flush()


def finished_chunks(settings: Settings, count: int) -> str:
    """By Prefect's own client, as a sweep makes them: empty ones."""
    server.prepare_client(settings)
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    from flows.launch import prefect_at
    from tasks.label import flow_run_id

    @task(name="run-trials")
    def chunk() -> None: ...

    @flow(name="sweep", task_runner=ThreadPoolTaskRunner(max_workers=2))
    def many() -> str:
        futures = [chunk.submit() for _ in range(count)]
        for future in futures:
            future.wait()
        return str(flow_run_id())

    with prefect_at(server.ensure_server(settings)):
        found = many()
    api = httpx.Client(base_url=server.ensure_server(settings), timeout=30)
    body = {"flow_runs": {"id": {"any_": [found]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    awaited(lambda: api.post("/task_runs/count", json=body).json() >= count)
    return found


def answers(settings: Settings, flow_run: str | None) -> dict[str, float]:
    found = {
        "ntrader status": median(lambda: ntrader("status")),
        "ntrader sweep status @last": median(lambda: ntrader("sweep", "status", "@last")),
    }
    api = httpx.Client(base_url=server.ensure_server(settings), timeout=30)
    asked: dict[str, Callable[[], httpx.Response]] = {
        "API: newest flow runs": lambda: api.post("/flow_runs/filter", json={"limit": 50, "sort": "START_TIME_DESC"}),
        "API: newest task runs": lambda: api.post("/task_runs/filter", json={"limit": 50}),
    }
    if flow_run:
        of_it = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}
        asked["API: task runs of the sweep"] = lambda: api.post("/task_runs/filter", json=of_it)
        asked["API: graph of the sweep"] = lambda: api.get(f"/flow_runs/{flow_run}/graph-v2")
    for what, ask in asked.items():
        found[what] = median(lambda ask=ask: ask().raise_for_status())
    return found | pages(settings, flow_run)


def pages(settings: Settings, flow_run: str | None) -> dict[str, float]:
    """Until the page shows what was asked for."""
    from tests.browser import CHROMIUM, browser_page

    if CHROMIUM is None:
        return {}
    root = server.ensure_server(settings).removesuffix("/api")
    shown = {"page: runs": (f"{root}/runs", "sweep")}
    if flow_run:
        shown["page: the sweep's flow run"] = (f"{root}/runs/flow-run/{flow_run}", "Completed")
    found = {}
    with browser_page() as page:
        for what, (url, text) in shown.items():

            def look(url: str = url, text: str = text) -> None:
                page.goto(url)
                page.get_by_text(text).first.wait_for()

            look()
            found[what] = median(look)
    return found


def median(action: Callable[[], object]) -> float:
    return statistics.median(timed(action)[0] for _ in range(5))


# Retention


def show_retention(settings: Settings) -> None:
    ntrader("down", "--force")
    os.environ |= RETENTION
    ntrader("up")
    mine = len(json.loads(ntrader("history", "list", "--limit", "1000", "--json"))["runs"])
    with psycopg.connect(local.conninfo(settings.home, server.DATABASE), autocommit=True) as prefect:
        aged = prefect.execute(
            "UPDATE flow_run SET start_time = start_time - interval '3 hours', end_time = end_time - interval '3 hours'"
            " WHERE state_type = 'COMPLETED'"
        ).rowcount
        before = sizes(prefect)
        seconds, _ = timed(lambda: awaited(lambda: not sizes(prefect)["flow runs"], pause=0.5))
        after = sizes(prefect)
    kept = len(json.loads(ntrader("history", "list", "--limit", "1000", "--json"))["runs"])
    print(f"RETENTION: {aged} finished flow runs made three hours old, kept for two: gone after {seconds:.0f} s")
    print("  " + ", ".join(f"{name} {before[name]:,} -> {after[name]:,}" for name in before))
    print(f"  our own runs {mine} -> {kept}", flush=True)


def sizes(connection: psycopg.Connection[Any]) -> dict[str, int]:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'), (SELECT count(*) FROM task_run),"
        " (SELECT count(*) FROM artifact), (SELECT count(*) FROM log)"
    ).fetchone()
    assert row is not None
    return dict(zip(("flow runs", "task runs", "artifacts", "log lines"), row, strict=True))


# Capacity


def show_capacity(settings: Settings) -> None:
    from benchmarks.one_sweep import Case, launch

    launch(settings, Case(250, "5,10", "50,60"))
    print(f"CAPACITY: a million trials in {NIGHT / 3600:.0f} hours, by the figures of one trial here")
    for case in (Case(250, "5:44:1", "50:99:1"), Case(3_270, "5:24:1", "50:170:5")):
        show_case(settings, case)


def show_case(settings: Settings, case: Any) -> None:
    from benchmarks.one_sweep import sweep

    trials, before = len(case.pairs), room(settings)
    swept = sweep(settings, case)
    each = (room(settings) - before) / trials
    print(f"  {case}: {trials / swept.spent.seconds:.1f} trials/s here, {each / 1e3:.1f} kB a trial;"
          f" {each * MILLION / 1e9:.0f} GB for a million")  # fmt: skip
    for name, seconds in swept.spent.cpu.items():
        cores = MILLION * seconds / trials / NIGHT
        print(f"    {name:<28}{1e3 * seconds / trials:8.2f} ms of CPU a trial, {cores:6.2f} cores all night")
    sys.stdout.flush()


def room(settings: Settings) -> int:
    """Bytes of our own database."""
    with psycopg.connect(local.conninfo(settings.home)) as connection:
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row is not None
    size: int = row[0]
    return size


if __name__ == "__main__":
    main()
