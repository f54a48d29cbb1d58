"""What one recorded backtest costs beside the imports nobody can avoid: 250 daily bars, services warm.

    uv run python -m benchmarks.one_run [--repeats 10]

    floor    `python -c "import prefect, nautilus_trader.backtest.engine"`, then the engine's own time for the run
    ours     `ntrader run-backtest`: the whole command, from start to exit, run saved in PostgreSQL

The two alternate. The database and the Prefect server are the ones ntrader uses (NTRADER_HOME, DATABASE_URL,
PREFECT_API_URL) and are started before anything is measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

FLOOR = "import prefect, nautilus_trader.backtest.engine"
COMMAND = "from cli.main import main; main()"
OPTIONS = "run-backtest --strategy sma_crossover --symbol AAPL --start-date 2008-01-02 --end-date 2008-12-26 --json"
ENGINE = """
import time
from pathlib import Path
from ntrader.config import RunRequest
from ntrader.data.load import load_bars
from ntrader.engine import simulate
from ntrader.resolve import resolve
request = RunRequest(strategy="sma_crossover", symbol="AAPL", start="2008-01-02", end="2008-12-26")
config = resolve(request, Path("/nowhere"))
bars = load_bars(config.data, Path("/nowhere"))
simulate(config, bars)
times = []
for _ in range(10):
    began = time.perf_counter()
    simulate(config, bars)
    times.append(time.perf_counter() - began)
print(len(bars), sorted(times)[5])
"""


def run(code: str, *words: str) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words], check=True, text=True, capture_output=True
    )
    return time.perf_counter() - began, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    run(COMMAND, *OPTIONS.split())
    bars, engine = run(ENGINE)[1].split()
    floors, ours = [], []
    for number in range(repeats):
        for kind in ("floor", "ours") if number % 2 == 0 else ("ours", "floor"):
            seconds, _ = run(FLOOR) if kind == "floor" else run(COMMAND, *OPTIONS.split())
            (floors if kind == "floor" else ours).append(seconds)
            print(f"  {kind:<6}{seconds:7.2f} s", file=sys.stderr)
    floor, mine = statistics.median(floors) + float(engine), statistics.median(ours)
    print(f"{bars} daily bars, {os.cpu_count()} cores, median (best) of {repeats} alternating runs")
    print(f"  imports     {statistics.median(floors):6.2f} s  ({min(floors):.2f})")
    print(f"  engine      {float(engine):6.3f} s")
    print(f"  floor       {floor:6.2f} s")
    print(f"  ours        {mine:6.2f} s  ({min(ours):.2f})")
    print(f"ours / floor  {mine / floor:.2f}")


if __name__ == "__main__":
    main()
