"""What 100,000 bars cost before and after the engine sees them: reading, checking, fingerprint, metrics, digest.

uv run python -m benchmarks.data [--bars 100000] [--repeats 10]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.engine import make_bars
from ntrader.data.bars import Bars
from ntrader.data.checks import check
from ntrader.data.csv_file import read_csv
from ntrader.data.fingerprint import data_fingerprint
from ntrader.digest import result_digest
from ntrader.metrics import measure
from ntrader.results import EquityCurve, RunResult


def as_csv(bars: Bars, path: Path) -> None:
    times = bars.opened.astype("datetime64[ns]").astype("datetime64[s]").astype(str)
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    lines = (",".join(map(str, row)) for row in zip(times, *(column.tolist() for column in columns), strict=True))
    path.write_text("\n".join(["time,open,high,low,close,volume", *lines]) + "\n")


def median_ms(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bars", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    bars = make_bars(arguments.bars)
    equity = 100_000 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.001, len(bars))))
    result = RunResult(100_000.0, EquityCurve(bars.times, equity), (), (), 0.0, len(bars))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.csv"
        as_csv(bars, path)
        kinds: dict[str, Callable[[], object]] = {
            "read_csv": lambda: read_csv(path, symbol="TEST", venue="SIM", timeframe=bars.timeframe),
            "check": lambda: check(bars),
            "data_fingerprint": lambda: data_fingerprint(bars),
            "measure": lambda: measure(result, 252),
            "result_digest": lambda: result_digest(result),
        }
        print(f"{len(bars):,} one-minute bars, median of {arguments.repeats}")
        for name, action in kinds.items():
            print(f"  {name:<18}{median_ms(action, arguments.repeats):9.2f} ms")


if __name__ == "__main__":
    main()
