"""Whether stored runs come out the same in other processes, and what reproducing, judging and keeping cost.

    uv run python -m benchmarks.reproduce [--runs 100] [--pairs 10] [--bars 100000] [--only digests,command,judge,bytes]

    digests   stored runs of all shipped strategies over daily and minute bars, with and without fees, slippage and
              stops, on CASH and MARGIN accounts, at the close and the next open; each executed again from its stored
              config in a process that did not make it, with another PYTHONHASHSEED
    command   `ntrader reproduce` beside the same `ntrader run-backtest`, as processes, alternating
    judge     minute bars: the run, its digest, the verdict against the stored original, splitting and keeping the bars
    bytes     what a run adds to the database: the first on its bars, a second one on them, a year of minute bars

Everything happens in an NTRADER_HOME of its own, which is gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from benchmarks.engine import make_bars
from ntrader.config import RunConfig, RunRequest
from ntrader.data.chunks import split
from ntrader.data.fingerprint import data_fingerprint
from ntrader.digest import result_digest
from ntrader.execution import execute
from ntrader.metrics import measure
from ntrader.resolve import resolve
from ntrader.results import Execution, Inputs, RunResult
from ntrader.settings import Settings, load_settings
from ntrader.strategies.registry import STRATEGIES, identity
from ntrader.verdict import judge
from storage import migrations
from storage.database import connect
from storage.kept import keep_inputs, read_bars
from storage.originals import read_original
from storage.recording import save_success, start_run
from storage.rows import NewRun
from storage.runs import get_run

KINDS = ("digests", "command", "judge", "bytes")
COMMAND = "from cli.main import main; main()"
MAIN_JOB = "run-backtest --strategy sma_crossover --symbol AAPL --start-date 2008-01-01 --end-date 2012-12-31"
BATCH = 10
AGAIN = """
import json, sys
from pathlib import Path
from ntrader.config import build_config
from ntrader.execution import execute
for snapshot in json.load(sys.stdin):
    print(execute(build_config(snapshot), Path(sys.argv[1])).result_digest)
"""
DATA: tuple[dict[str, Any], ...] = (
    {"symbol": "AAPL"},
    {"symbol": "MSFT"},
    {"symbol": "IBM"},
    {"symbol": "WALK", "source": "synthetic", "timeframe": "1-MINUTE", "start": "2024-01-01", "end": "2024-01-05"},
)
FEES: tuple[dict[str, Any], ...] = (
    {},
    {"model": "per_share", "rate": 0.005, "minimum": 1.0},
    {"model": "proportional", "rate": 0.0005},
    {"model": "fixed", "rate": 2.5},
)
SIZES: tuple[dict[str, Any], ...] = ({"trade_size": 100}, {"risk_percent": 1.0, "atr_multiple": 1.5})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--bars", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default=",".join(KINDS), help="Some of: digests, command, judge, bytes.")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    home = Path(tempfile.mkdtemp(prefix="ntrader-benchmark-"))
    for name in ("DATABASE_URL", "PREFECT_API_URL", "ENABLE_BACKTEST_PERSISTENCE"):
        os.environ.pop(name, None)
    os.environ["NTRADER_HOME"] = str(home)
    settings = load_settings()
    try:
        migrations.prepare(settings)
        if "bytes" in wanted:  # first: in an empty database
            show_bytes(settings)
        if "digests" in wanted:
            show_digests(settings, arguments.runs)
        if "judge" in wanted:
            show_judge(settings, arguments.bars, arguments.repeats)
        if "command" in wanted:
            show_command(arguments.pairs)
    finally:
        subprocess.run([sys.executable, "-W", "ignore", "-c", COMMAND, "down"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


# Equal digests


def show_digests(settings: Settings, runs: int) -> None:
    began = time.perf_counter()
    stored = [store(settings, config) for config in configs(settings.home, runs)]
    made = time.perf_counter()
    equal, fills = 0, 0
    for seed, first in enumerate(range(0, len(stored), BATCH), start=1):
        originals = [
            read_original(settings, get_run(settings, str(run_id))) for run_id in stored[first : first + BATCH]
        ]
        again = in_a_fresh_process(settings.home, [original.config_snapshot for original in originals], seed)
        equal += sum(one.result_digest == other for one, other in zip(originals, again, strict=True))
        fills += sum(len(original.result.fills) for original in originals)
    processes = -(-len(stored) // BATCH)
    print(f"{equal}/{len(stored)} digests equal ({fills:,} fills), in {processes} other processes and hash seeds")
    print(f"  made in {made - began:.1f} s, reproduced in {time.perf_counter() - made:.1f} s")


def configs(home: Path, number: int) -> list[RunConfig]:
    """Some of all combinations, the same ones each time."""
    every = list(product(STRATEGIES, DATA, FEES, (0.0, 0.0005), SIZES, ("CASH", "MARGIN"), ("close", "next_open")))
    chosen = random.Random(0).sample(every, number)
    return [
        configured(
            home, strategy=strategy.key, parameters={**sizes, "allow_short": account == "MARGIN"}, data=data,
            venue={"account_type": account, "fill_timing": timing, "slippage": slippage, "fees": fees},
        )
        for strategy, data, fees, slippage, sizes, account, timing in chosen
    ]  # fmt: skip


def configured(home: Path, *, strategy: str, parameters: dict[str, Any], **parts: Any) -> RunConfig:
    """As from a config file: fees and slippage have no option."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"strategy": strategy, "parameters": parameters, "initial_capital": 100_000, **parts}, file)
        file.flush()
        return resolve(RunRequest(config_path=file.name), home)


def store(settings: Settings, config: RunConfig, execution: Execution | None = None) -> UUID:
    name, kind = identity(config.strategy.path)
    run = NewRun(uuid4(), config, name, kind)
    execution = execution or execute(config, settings.home)
    start_run(settings, run)
    save_success(settings, run.run_id, execution, measure(execution.result, config.annualization))
    return run.run_id


def in_a_fresh_process(home: Path, snapshots: list[dict[str, Any]], seed: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AGAIN, str(home)], input=json.dumps(snapshots), check=True, text=True,
        capture_output=True, env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )  # fmt: skip
    return done.stdout.split()


# The command


def show_command(pairs: int) -> None:
    command(MAIN_JOB)
    first = command(MAIN_JOB)[1]
    words = {"run-backtest": MAIN_JOB, "reproduce": f"reproduce {first}"}
    command(words["reproduce"])
    seconds: dict[str, list[float]] = {name: [] for name in words}
    for number in range(pairs):
        for name in words if number % 2 == 0 else reversed(words):
            seconds[name].append(command(words[name])[0])
            print(f"  {name:<14}{seconds[name][-1]:7.2f} s", file=sys.stderr)
    print(f"the command, median (best) of {pairs} alternating pairs")
    for name, times in seconds.items():
        print(f"  {name:<14}{statistics.median(times):6.2f} s  ({min(times):.2f})")
    ratio = statistics.median(seconds["reproduce"]) / statistics.median(seconds["run-backtest"])
    print(f"  reproduce / run-backtest  {ratio:.2f}")


def command(words: str) -> tuple[float, str]:
    """How long it took, and the Run ID it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMAND, *words.split()], check=True, text=True, capture_output=True
    )
    return time.perf_counter() - began, done.stdout.rpartition("Run ID: ")[2].strip()


# The verdict


def show_judge(settings: Settings, bars: int, repeats: int) -> None:
    config = configured(
        settings.home, strategy="sma_crossover", parameters={"trade_size": 100},
        data={"symbol": "TEST", "source": "synthetic", "timeframe": "1-MINUTE", "start": "2024-01-01",
              "end": "2024-12-31"},
    )  # fmt: skip
    made = make_bars(bars)
    execution = execute(config, settings.home, made)
    assert execution.inputs is not None
    run_id = store(settings, config, execution)
    stored = get_run(settings, str(run_id))
    original = read_original(settings, stored)
    other = replace(execution, result=one_fill_off(execution.result), result_digest="0" * 64)
    run = median_ms(lambda: execute(config, settings.home, made), max(3, repeats // 2))
    steps: dict[str, Callable[[], object]] = {
        "result_digest": lambda: result_digest(execution.result),
        "read the original": lambda: read_original(settings, stored),
        "judge, identical": lambda: judge(original, execution),
        "judge, different": lambda: judge(original, other),
        "split the bars": lambda: split(made),
        "keep them": lambda: kept_and_undone(settings, execution.inputs),
        "read them back": lambda: read_bars(settings, execution.fingerprints.data),
    }
    print(f"{len(made):,} minute bars, {len(execution.result.fills):,} fills: the run takes {run:,.0f} ms")
    times = {name: median_ms(step, repeats) for name, step in steps.items()}
    for name, taken in times.items():
        print(f"  {name:<18}{taken:9.2f} ms  {100 * taken / run:5.2f} %")
    for name in ("identical", "different"):
        total = times["result_digest"] + times["read the original"] + times[f"judge, {name}"]
        print(f"  verdict and digest, {name}: {100 * total / run:.2f} % of the run")


def one_fill_off(result: RunResult) -> RunResult:
    """The last one, so that everything before it has to be looked at."""
    *fills, last = result.fills
    return replace(result, fills=(*(replace(fill) for fill in fills), replace(last, price=last.price + 0.01)))


def kept_and_undone(settings: Settings, inputs: Inputs | None) -> None:
    assert inputs is not None
    with psycopg.connect(conninfo(settings)) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM kept_contents; DELETE FROM kept_data")
        keep_inputs(connection.cursor(), data_fingerprint(inputs.bars), inputs, data=True)
        connection.rollback()


def conninfo(settings: Settings) -> str:
    with connect(settings) as connection:
        return connection.info.dsn


def median_ms(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


# Bytes


def show_bytes(settings: Settings) -> None:
    print("bytes kept by a run (contents compressed, as stored; then what its own rows take)")
    config = resolve(RunRequest(strategy="sma_crossover", symbol="AAPL"), settings.home)
    for what in ("first run on AAPL, 8 years of days", "second run on the same bars"):
        before = kept(settings)
        run_id = store(settings, config)
        say_bytes(what, before, kept(settings), own_rows(settings, run_id))
    minutes = make_bars(525_600)
    execution = execute(config, settings.home)
    assert execution.inputs is not None
    before = kept(settings)
    with psycopg.connect(conninfo(settings)) as connection:
        keep_inputs(connection.cursor(), data_fingerprint(minutes), replace(execution.inputs, bars=minutes), data=True)
    say_bytes(f"a year of minutes, {len(minutes):,} bars", before, kept(settings), None)


def kept(settings: Settings) -> dict[str, int]:
    with connect(settings) as connection:
        rows = connection.execute(
            "SELECT kind, sum(pg_column_size(content))::bigint AS size FROM kept_contents GROUP BY kind"
        ).fetchall()
    return {row["kind"]: row["size"] for row in rows}


def own_rows(settings: Settings, run_id: UUID) -> int:
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT pg_column_size(e.*) + pg_column_size(f.*) AS size FROM backtest_runs r"
            " JOIN equity_curves e ON e.backtest_run_id = r.id JOIN fills f ON f.backtest_run_id = r.id"
            " WHERE r.run_id = %s",
            [run_id],
        ).fetchone()
    return int(row["size"]) if row else 0


def say_bytes(what: str, before: dict[str, int], after: dict[str, int], rows: int | None) -> None:
    parts = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in ("bars", "source", "document")}
    listed = ", ".join(f"{kind} {size:,}" for kind, size in parts.items())
    own = f"; equity curve and fills {rows:,}" if rows is not None else ""
    print(f"  {what}: {sum(parts.values()):,} ({listed}){own}")


if __name__ == "__main__":
    main()
