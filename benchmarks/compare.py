"""What it costs to compare ten runs of 3,300 bars, with a page of charts and without one.

    uv run python -m benchmarks.compare [--runs 10] [--bars 3300] [--repeats 10]

Works in a database of its own, `ntrader_compare`, in the PostgreSQL that ntrader uses (NTRADER_HOME), made anew each
time. "In process" is reading, comparing and writing, beyond what importing takes; "as a process" is the whole command.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from uuid import uuid4

import numpy as np
import psycopg
from psycopg import conninfo as libpq

from cli.main import main as ntrader
from ntrader.config import build_config
from ntrader.metrics import measure
from ntrader.results import EquityCurve, Execution, Fingerprints, RunResult, Trade
from ntrader.settings import Settings, load_settings
from storage import local, migrations, recording

NAME = "ntrader_compare"
DAY = 86_400 * 10**9


def new_database() -> Settings:
    home = load_settings().home
    local.ensure_running(home)
    with psycopg.connect(local.conninfo(home, "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {NAME}")
    place = libpq.conninfo_to_dict(local.conninfo(home))
    os.environ["DATABASE_URL"] = f"postgresql://{place['user']}@/{NAME}?host={place['host']}"
    settings = load_settings()
    migrations.upgrade(settings)
    return settings


def save_run(settings: Settings, number: int, bars: int) -> str:
    """A made-up success with noise for returns."""
    config = build_config({
        "strategy": {"path": "ntrader.strategies.sma_crossover:SMACrossover",
                     "parameters": {"fast_period": 5 + number, "slow_period": 50}},
        "data": {"symbol": "AAPL", "venue": "XNAS"},
    })  # fmt: skip
    returns = np.random.default_rng(number).normal(0.0004, 0.01, bars)
    times = 1_000_000_000_000_000_000 // DAY * DAY + DAY * np.arange(1, bars + 1, dtype=np.int64) - 1
    trades = (Trade("long", 10.0, int(times[0]), 100.0, int(times[1]), 110.0, 1.0, 99.0),)
    result = RunResult(100_000.0, EquityCurve(times, 100_000 * np.cumprod(1 + returns)), (), trades, 0.0, bars)
    prints = Fingerprints(*(letter * 64 for letter in "abcdef"))
    run = recording.NewRun(uuid4(), config, "SMA Crossover", "trend_following")
    recording.start_run(settings, run)
    done = Execution(result, prints, f"{number:064x}", int(times[0]), int(times[-1]))
    recording.save_success(settings, run.run_id, done, measure(result, 252))
    return str(run.run_id)


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def in_process(words: list[str]) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            ntrader(words)
        except SystemExit as end:
            assert not end.code, end.code


def as_process(words: list[str]) -> None:
    command = [sys.executable, "-c", "from cli.main import main; main()", *words]
    subprocess.run(command, check=True, capture_output=True)


def report(what: str, seconds: list[float]) -> None:
    print(f"{what:<44}{statistics.median(seconds):8.3f} s  (best {min(seconds):.3f}, worst {max(seconds):.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--bars", type=int, default=3300)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    settings = new_database()
    runs = [save_run(settings, number, arguments.bars) for number in range(arguments.runs)]
    page = Path(tempfile.mkdtemp()) / "page.html"
    plain, plotted = ["compare", *runs], ["compare", *runs, "--plot", str(page)]
    sure = ["compare", *runs, "--significance"]
    for words in (plain, plotted, sure):
        in_process(words)  # whatever is imported is imported now
    print(f"{arguments.runs} runs of {arguments.bars:,} bars, {os.cpu_count()} cores, median of {arguments.repeats}")
    report("in process, tables", timed(lambda: in_process(plain), arguments.repeats))
    report("in process, page", timed(lambda: in_process(plotted), arguments.repeats))
    report("in process, significance", timed(lambda: in_process(sure), min(3, arguments.repeats)))
    report("as a process, tables", timed(lambda: as_process(plain), arguments.repeats))
    report("as a process, page", timed(lambda: as_process(plotted), arguments.repeats))
    print(f"page: {page.stat().st_size / 1e6:.1f} MB at {page}")


if __name__ == "__main__":
    main()
