"""What it costs to have Prefect start a backtest, beside running it here: where the seconds go.

    uv run python -m benchmarks.triggers [--repeats 5] [--without-schedule]

    direct      `ntrader run-backtest`, from start to exit
    detach      `ntrader run-backtest --detach`, from its start until the run is saved:
                  submit    the command itself: the request is checked, the flow run made
                  wait      until the worker has seen it
                  start     until its process has begun the flow: Python, Prefect, the flow's module
                  prepare   until the run's row is there: the engine, the request, the database
                  run       until its result is saved
                  (close)   until Prefect says Completed: its pages; the run is there already
    schedule    the same of a schedule, due every minute: `wait` is counted from the moment it was due

The stack is the one `ntrader up` starts (NTRADER_HOME, DATABASE_URL, PREFECT_API_URL), and stays.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from flows import launch
from ntrader.settings import Settings, load_settings
from storage.runs import StoredRun, find_run
from tasks import server

COMMAND = "from cli.main import main; main()"
BACKTEST = "--strategy sma_crossover --symbol AAPL --start-date 2008-01-02 --end-date 2008-12-26"
CONFIG = "strategy: sma_crossover\ndata: {symbol: AAPL, start: 2008-01-02, end: 2008-12-26}\n"
NAME = "benchmark-triggers"
PATIENCE = timedelta(minutes=3)
PHASES = ("submit", "wait", "start", "prepare", "run", "close")
Phases = dict[str, float]


def ntrader(*words: str) -> str:
    done = subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, text=True, capture_output=True)
    return done.stdout


def timed(*words: str) -> tuple[float, str]:
    began = time.perf_counter()
    out = ntrader(*words)
    return time.perf_counter() - began, out


def detached(settings: Settings) -> Phases:
    began = datetime.now(UTC)
    submitted = json.loads(ntrader("run-backtest", *BACKTEST.split(), "--detach", "--json"))
    run = finished(settings, UUID(submitted["run_id"]))
    states = states_of(UUID(submitted["flow_run_id"]))
    return {"submit": (states["SCHEDULED"] - began).total_seconds()} | phases(states, run, states["SCHEDULED"])


def scheduled(settings: Settings, repeats: int) -> list[Phases]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CONFIG)
        file.flush()
        ntrader("schedule", "add", file.name, "--cron", "* * * * *", "--name", NAME, "--replace")
    found, seen = [], set[UUID]()
    try:
        while len(found) < repeats:
            last = json.loads(ntrader("schedule", "list", "--json"))["schedules"]
            last = next(entry for entry in last if entry["name"] == NAME)
            if last["last_state"] != "Completed" or UUID(last["last_flow_run_id"]) in seen:
                time.sleep(2)
                continue
            seen.add(UUID(last["last_flow_run_id"]))
            run = finished(settings, UUID(last["last_run_id"]))
            found.append(phases(states_of(UUID(last["last_flow_run_id"])), run, datetime.fromisoformat(last["last"])))
            tell("schedule", found[-1])
    finally:
        ntrader("schedule", "remove", NAME)
    return found


def phases(states: dict[str, datetime], run: StoredRun, due: datetime) -> Phases:
    assert run.finished_at is not None
    moments = [due, states["PENDING"], states["RUNNING"], run.created_at, run.finished_at, states["COMPLETED"]]
    seconds = ((after - before).total_seconds() for before, after in itertools.pairwise(moments))
    return dict(zip(PHASES[1:], seconds, strict=True))


def finished(settings: Settings, run_id: UUID) -> StoredRun:
    def look() -> StoredRun | None:
        run = find_run(settings, run_id)
        return run if run and run.finished_at else None

    return awaited(look)


def states_of(flow_run_id: UUID) -> dict[str, datetime]:
    """When it came into each state, the first time."""
    from prefect import get_client

    def look() -> dict[str, datetime] | None:
        with get_client(sync_client=True) as client:
            states = client.read_flow_run_states(flow_run_id)
        found: dict[str, Any] = {}
        for state in sorted(states, key=lambda state: state.timestamp):
            found.setdefault(state.type.value, state.timestamp)
        return found if "COMPLETED" in found else None

    return awaited(look)


def awaited[T](look: Callable[[], T | None]) -> T:
    until = datetime.now(UTC) + PATIENCE
    while datetime.now(UTC) < until:
        found = look()
        if found is not None:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"nothing within {PATIENCE}")


def until_saved(measured: Phases) -> float:
    return sum(seconds for phase, seconds in measured.items() if phase != "close")


def tell(kind: str, measured: Phases) -> None:
    print(f"  {kind:<9}{until_saved(measured):7.2f} s", file=sys.stderr)


def show(kind: str, measured: list[Phases], direct: float) -> None:
    total = statistics.median(map(until_saved, measured))
    print(f"{kind:<9}{total:7.2f} s  {total - direct:+.2f} s beside running it here")
    for phase in PHASES:
        if phase in measured[0]:
            times = [each[phase] for each in measured]
            label = f"({phase})" if phase == "close" else phase
            print(f"  {label:<9}{statistics.median(times):6.2f} s  ({min(times):.2f} to {max(times):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-schedule", action="store_true", help="which takes a minute a repeat")
    options = parser.parse_args()
    settings = load_settings()
    launch.bring_up(settings)
    with launch.prefect_at(server.ensure_server(settings)):
        timed("run-backtest", *BACKTEST.split())
        here, there = [], []
        for _ in range(options.repeats):
            here.append(timed("run-backtest", *BACKTEST.split())[0])
            print(f"  direct   {here[-1]:7.2f} s", file=sys.stderr)
            there.append(detached(settings))
            tell("detach", there[-1])
        due = [] if options.without_schedule else scheduled(settings, options.repeats)
    direct = statistics.median(here)
    print(f"250 daily bars, {os.cpu_count()} cores, median of {options.repeats}")
    print(f"direct   {direct:7.2f} s  ({min(here):.2f} to {max(here):.2f})")
    show("detach", there, direct)
    if due:
        show("schedule", due, direct)
    launch.finish()


if __name__ == "__main__":
    main()
