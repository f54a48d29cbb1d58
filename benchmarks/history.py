"""History with a million runs: what lists, filters, sorts, pages, shows, saves and exports cost.

    uv run python -m benchmarks.history [--runs 1000000] [--curves 20000] [--repeats 30] [--only queries,process,...]

The runs are made up, skewed as real ones are (30 strategies, 500 symbols, 5 % failed, sweeps of 1,000, strategies and
symbols of different quality), and put into a database of their own by COPY: `ntrader_benchmark_<runs>` in the
PostgreSQL that ntrader uses (NTRADER_HOME, DATABASE_URL). It stays there and is used again; `--rebuild` makes it anew.

Queries are timed around `connection.execute` and fetch through psycopg, one connection, server warm. Prints p50 and
p95 in milliseconds of at least 30 repetitions, each with other values where a query has any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import numpy as np
import psycopg
from psycopg import conninfo as libpq
from psycopg import sql

from ntrader.config import build_config
from ntrader.metrics import measure
from ntrader.results import EquityCurve, Execution, Fingerprints, Metrics, RunResult, Trade
from ntrader.settings import Settings, load_settings
from storage import arrays, database, migrations
from storage.conditions import Filters
from storage.fields import SORTABLE
from storage.rows import NewRun
from storage.runs import read_runs
from storage.search import Order, count, find_page

STRATEGIES, SYMBOLS, SWEEP = 30, 500, 1_000
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = (
    *("run_id", "strategy_name", "strategy_type", "strategy_path", "instrument_symbol", "data_source"),
    *("start_date", "end_date", "initial_capital", "execution_status", "execution_duration_seconds", "error_type"),
    *("error_message", "error_traceback", "config_snapshot", "config_fingerprint", "data_fingerprint"),
    *("code_fingerprint", "engine_fingerprint", "environment_fingerprint", "run_key", "result_digest", "sweep_id"),
    *("trial_number", "tags", "archived", "total_return", "final_balance", "cagr", "sharpe_ratio", "sortino_ratio"),
    *("max_drawdown", "max_drawdown_date", "calmar_ratio", "volatility", "total_trades", "winning_trades"),
    *("losing_trades", "win_rate", "profit_factor", "expectancy", "avg_win", "avg_loss", "skewness", "kurtosis"),
    *("return_observations", "created_at", "started_at", "finished_at"),
)
METRICS = COLUMNS[COLUMNS.index("total_return") : COLUMNS.index("created_at")]


def symbol(number: int) -> str:
    return f"{chr(65 + number % 26)}{chr(65 + number // 26)}{number}"


def strategy(number: int) -> str:
    return f"Strategy {number}"


def tested_period(lead: int) -> tuple[datetime, datetime]:
    """One for all of a sweep: half of them are of fixed years, as research is, half of the last years, as monitoring
    is."""
    chance = random.Random(lead)
    years = chance.choice((1, 3, 5, 10))
    if chance.random() < 0.5:
        end = datetime(chance.randrange(2016, 2025), 1, 1, tzinfo=UTC)
    else:
        end = (BEGAN + timedelta(seconds=lead * 80)).replace(hour=0, minute=0, second=0)
        end -= timedelta(days=chance.choice((0, 1, 1, 1, 30)))
    return end - timedelta(days=365 * years), end


def made_up_runs(runs: int, seed: int = 1) -> Iterator[tuple[Any, ...]]:
    """Rows for COPY in the order of COLUMNS."""
    luck = np.random.default_rng(seed)
    chance = random.Random(seed)
    strategies = luck.zipf(1.3, runs * 3)
    strategies = (strategies[strategies <= STRATEGIES] - 1)[:runs]
    symbols = luck.zipf(1.2, runs * 4)
    symbols = (symbols[symbols <= SYMBOLS] - 1)[:runs]
    quality = luck.normal(0, 0.7, STRATEGIES)
    trend = luck.normal(0, 0.5, SYMBOLS)
    sources = ("catalog", "sample", "csv", "synthetic")
    engine, environment = ("e" * 64, "f" * 64)
    for number in range(runs):
        which, instrument = int(strategies[number % len(strategies)]), int(symbols[number % len(symbols)])
        created = BEGAN + timedelta(seconds=number * 80)
        swept = chance.random() < 0.8
        lead = number - number % SWEEP if swept else number
        if swept:  # a sweep is of one strategy on one symbol
            which, instrument = int(strategies[lead % len(strategies)]), int(symbols[lead % len(symbols)])
        fast, slow = chance.randrange(2, 60), chance.randrange(60, 300)
        config = {
            "annualization": 252,
            "data": {"end": None, "path": None, "source": "catalog", "stamp": "open", "start": None,
                     "symbol": symbol(instrument), "synthetic": None, "timeframe": "1-DAY", "venue": "XNAS"},
            "initial_capital": "100000",
            "instrument": {"price_precision": 4},
            "schema_version": 1,
            "seed": 0,
            "strategy": {"parameters": {"allow_short": False, "atr_multiple": 2.0, "atr_period": 14,
                                        "fast_period": fast, "risk_percent": round(chance.uniform(0.5, 3), 4),
                                        "slow_period": slow, "trade_size": None},
                         "path": f"desk.strategies.number_{which}:Strategy{which}"},
            "venue": {"account_type": "CASH", "currency": "USD", "fees": {"minimum": 0.0, "model": "none", "rate": 0.0},
                      "fill_timing": "next_open", "leverage": 1.0, "slippage": 0.0},
        }  # fmt: skip
        failed = chance.random() < 0.05
        start, end = tested_period(lead)
        years = max(1, (end - start).days // 365)
        seconds = 0.2 + chance.expovariate(2)
        sharpe = chance.gauss(0.3 + quality[which] + trend[instrument], 0.6)
        tags = {}
        if chance.random() < 0.1:
            tags["team"] = chance.choice(("fx", "equity", "macro", "crypto"))
        if chance.random() < 0.0002:
            tags["keep"] = "yes"
        total = sharpe * 0.1 * years + chance.gauss(0, 0.1)
        trades = chance.randrange(0, 300)
        won = int(trades * min(1, max(0, chance.gauss(0.45, 0.1))))
        missing = chance.random() < 0.03
        metrics = (
            total, 100_000 * (1 + total), total / years, None if missing else sharpe,
            None if missing else sharpe * chance.uniform(1.1, 1.6), -abs(chance.gauss(0.2, 0.1)),
            created - timedelta(days=chance.randrange(400, 3_000)), None if missing else sharpe * 0.6,
            abs(chance.gauss(0.15, 0.05)), trades, won, trades - won, won / trades if trades else None,
            abs(chance.gauss(1.2, 0.4)) if trades else None, chance.gauss(30, 200) if trades else None,
            abs(chance.gauss(300, 100)) if won else None, -abs(chance.gauss(200, 100)) if trades > won else None,
            chance.gauss(0, 1), chance.gauss(3, 2), 252 * years,
        )  # fmt: skip
        digest = f"{number:064x}"
        yield (
            UUID(int=chance.getrandbits(128), version=4), strategy(which), ("trend_following", "mean_reversion",
            "momentum", "breakout", "custom")[which % 5], config["strategy"]["path"], symbol(instrument),
            chance.choices(sources, (90, 5, 4.9, 0.1))[0], start, end, 100_000,
            "failed" if failed else "success", seconds, "StrategyError" if failed else None,
            "division by zero" if failed else None,
            "Traceback (most recent call last):\n" * 20 if failed else None, json.dumps(config), digest, "d" * 64,
            "c" * 64, engine, environment, digest, None if failed else digest[::-1],
            number // SWEEP + 1 if swept else None, number % SWEEP if swept else None, json.dumps(tags),
            chance.random() < 0.01, *(metrics if not failed else (None,) * len(METRICS)),
            created, created, created + timedelta(seconds=seconds),
        )  # fmt: skip


def build(settings: Settings, runs: int, curves: int) -> None:
    """COPY into tables without indexes, then the indexes as the migration has them."""
    migrations.upgrade(settings)
    with database.connect(settings) as connection:
        connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '1GB'; SET synchronous_commit = off")
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'backtest_runs' AND indexname LIKE 'ix_%'"
        ).fetchall()
        for index in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index["indexname"])))
        began = time.perf_counter()
        statement = f"COPY backtest_runs ({', '.join(COLUMNS)}) FROM STDIN"
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for number, row in enumerate(made_up_runs(runs), start=1):
                copy.write_row(row)
                if number % 100_000 == 0:
                    say(f"  {number:,} runs, {time.perf_counter() - began:.0f} s")
        names = ", ".join(METRICS)
        connection.execute(
            f"INSERT INTO performance_metrics (backtest_run_id, {names}) SELECT id, {names} FROM backtest_runs"
            " WHERE execution_status = 'success'"
        )
        for index in indexes:
            connection.execute(index["indexdef"])
        say(f"  indexes made, {time.perf_counter() - began:.0f} s")
        add_curves(connection, curves)
        connection.execute("VACUUM (ANALYZE)")
        say(f"  built in {time.perf_counter() - began:.0f} s")


def add_curves(connection: psycopg.Connection[Any], curves: int) -> None:
    """Curves of 1,000 daily points, in the market six days of ten, and 80 trades each."""
    luck = np.random.default_rng(2)
    ids = [row["id"] for row in connection.execute(
        "SELECT id FROM backtest_runs WHERE execution_status = 'success' ORDER BY id LIMIT %s", [curves])]  # fmt: skip
    days = np.cumsum(np.resize(np.array([1, 1, 1, 1, 3]), 1_000)) + 15_000
    steps = arrays.Column(arrays.steps((days * 86_400_000_000_000 - 1_000).astype(np.int64)))
    with connection.transaction(), connection.cursor() as cursor:
        arrays.register(cursor)
        for row_id in ids:
            moves = np.where(np.arange(1_000) // 25 % 5 < 3, luck.normal(0, 800, 1_000).round(2), 0)
            equity = arrays.Column(100_000 + np.cumsum(moves))
            cursor.execute("INSERT INTO equity_curves VALUES (%s, 1000, %s, %s)", [row_id, steps, equity])
    start = datetime(2011, 1, 27, tzinfo=UTC)
    with connection.cursor() as cursor, cursor.copy("COPY trades FROM STDIN") as copy:
        for row_id in ids:
            for number in range(80):
                entry = start + timedelta(days=number * 17)
                price = round(float(luck.uniform(50, 150)), 2)
                copy.write_row((row_id, number + 1, "long", 100.0, entry, price, entry + timedelta(days=9),
                                price + 1.25, 0.0, 125.0))  # fmt: skip


def settings_of(base: Settings, runs: int) -> Settings:
    """The same server, a database of our own, created where it is missing."""
    name = f"ntrader_benchmark_{runs}"
    place = libpq.conninfo_to_dict(database.conninfo(base))
    with psycopg.connect(libpq.make_conninfo(**place), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    login = quote(str(place["user"])) + (f":{quote(str(place['password']))}" if place.get("password") else "")
    url = f"postgresql://{login}@/{name}?host={quote(str(place['host']))}"
    return Settings(home=base.home, database_url=url + (f"&port={place['port']}" if place.get("port") else ""))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


Query = Callable[[psycopg.Connection[Any], random.Random], object]
LIST = sql.SQL(
    "r.run_id, r.created_at, r.strategy_name, r.instrument_symbol, r.total_return, r.sharpe_ratio, r.max_drawdown,"
    " r.execution_status, r.parameters"
)


def listing(order: Order, **fixed: Any) -> Query:
    """A page of 20; a value of `fixed` that is callable is drawn anew each time."""

    def run(connection: psycopg.Connection[Any], chance: random.Random) -> object:
        values = {name: value(chance) if callable(value) else value for name, value in fixed.items()}
        return find_page(connection, LIST, Filters(**values), order, 20)

    return run


def deep(order: Order, **fixed: Any) -> Query:
    """A page somewhere in the middle of a list."""
    tokens: list[str] = []

    def run(connection: psycopg.Connection[Any], chance: random.Random) -> object:
        filters = Filters(**fixed)
        if not tokens:
            token = find_page(connection, LIST, filters, order, 200_000).token
            assert token is not None
            tokens.append(token)
        return find_page(connection, LIST, filters, order, 20, tokens[0])

    return run


def queries() -> dict[str, list[tuple[str, Query]]]:
    """Every kind of list there is, by group."""
    now = BEGAN + timedelta(seconds=1_000_000 * 80)
    filters: dict[str, dict[str, Any]] = {
        "common strategy": {"strategies": (strategy(0),)},
        "any strategy": {"strategies": lambda chance: (strategy(chance.randrange(STRATEGIES)),)},
        "rare strategy": {"strategies": (strategy(STRATEGIES - 1),)},
        "two strategies": {
            "strategies": lambda chance: (strategy(chance.randrange(3)), strategy(chance.randrange(STRATEGIES)))
        },
        "strategy type": {"strategy_type": lambda chance: chance.choice(("momentum", "custom", "breakout"))},
        "common symbol": {"symbols": (symbol(0),)},
        "any symbol": {"symbols": lambda chance: (symbol(chance.randrange(SYMBOLS)),)},
        "three symbols": {"symbols": lambda chance: tuple(symbol(chance.randrange(SYMBOLS)) for _ in range(3))},
        "success": {"statuses": ("success",)},
        "failed": {"statuses": ("failed",)},
        "rare source": {"data_source": "synthetic"},
        "common source": {"data_source": "catalog"},
        "sweep": {"sweep": lambda chance: chance.randrange(1, 900)},
        "common tag": {"tags": (("team", "fx"),)},
        "rare tag": {"tags": (("keep", "yes"),)},
        "after a week ago": {"after": now - timedelta(days=7)},
        "before a year ago": {"before": now - timedelta(days=365)},
        "one month": {"after": now - timedelta(days=300), "before": now - timedelta(days=270)},
        "period": {"period_start": datetime(2020, 1, 1, tzinfo=UTC), "period_end": datetime(2024, 6, 1, tzinfo=UTC)},
        "any period": {
            "period_start": lambda chance: BEGAN - timedelta(days=chance.randrange(3_000)),
            "period_end": lambda chance: BEGAN + timedelta(days=chance.randrange(900)),
        },
        "period from": {"period_start": lambda chance: BEGAN - timedelta(days=chance.randrange(-600, 3_000))},
        "period, success": {
            "period_end": lambda chance: BEGAN + timedelta(days=chance.randrange(900)), "statuses": ("success",)
        },
        "strategy, symbol": {
            "strategies": lambda chance: (strategy(chance.randrange(STRATEGIES)),),
            "symbols": lambda chance: (symbol(chance.randrange(100)),),
        },
        "strategy, period": {
            "strategies": lambda chance: (strategy(chance.randrange(STRATEGIES)),),
            "period_start": lambda chance: BEGAN - timedelta(days=chance.randrange(3_000)),
            "period_end": lambda chance: BEGAN + timedelta(days=chance.randrange(900)),
        },
        "strategy, failed": {
            "strategies": lambda chance: (strategy(chance.randrange(STRATEGIES)),), "statuses": ("failed",)
        },
        "strategy, symbol, success, tag, month": {
            "strategies": (strategy(1),), "symbols": (symbol(2),), "statuses": ("success",),
            "tags": (("team", "fx"),), "after": now - timedelta(days=300), "before": now - timedelta(days=270),
        },
        "symbol, success, after": {
            "symbols": lambda chance: (symbol(chance.randrange(SYMBOLS)),), "statuses": ("success",),
            "after": now - timedelta(days=90),
        },
        "where sharpe, param": {"where": "sharpe_ratio > 1 and params.fast_period between 5 and 20"},
        "where of the issue": {
            "where": "sharpe_ratio > 1 and (status = 'success' or tag.team = 'fx')"
            " and params.fast_period between 5 and 20"
        },
        "where param =": {"where": "params.fast_period = 7 and params.slow_period = 70"},
        "where like": {"where": "strategy like 'Strategy 1%' and not symbol in ('AA0')"},
        "with archived": {"archived": True},
    }  # fmt: skip
    orders = {"newest": Order(), "best sharpe": Order("sharpe_ratio"), "worst sharpe": Order("sharpe_ratio", False),
              "best return": Order("total_return"), "best drawdown": Order("max_drawdown")}  # fmt: skip
    groups: dict[str, list[tuple[str, Query]]] = {
        "every sort, both ways": [
            (f"{column} {'desc' if way else 'asc'}", listing(Order(column, way)))
            for column in SORTABLE for way in (True, False)
        ],
        "deep pages": [
            (f"{column} {'desc' if way else 'asc'}", deep(Order(column, way)))
            for column in ("created_at", "sharpe_ratio", "total_return") for way in (True, False)
        ],
    }  # fmt: skip
    for name, order in orders.items():
        groups[f"filters, {name}"] = [(filter_, listing(order, **fixed)) for filter_, fixed in filters.items()]
    groups["count"] = [
        (name, lambda connection, chance, fixed=fixed: count(
            connection, Filters(**{key: value(chance) if callable(value) else value for key, value in fixed.items()})))
        for name, fixed in {"all": {}, **filters}.items()
    ]  # fmt: skip
    return groups


def made_up_result(number: int) -> tuple[NewRun, Execution, Metrics]:
    """What a backtest of 3,300 daily bars with 80 trades leaves to be saved."""
    luck = np.random.default_rng(number)
    days = np.cumsum(np.resize(np.array([1, 1, 1, 1, 3]), 3_300)) + 10_000
    moves = np.where(np.arange(3_300) // 25 % 5 < 3, luck.normal(0, 300, 3_300).round(2), 0)
    curve = EquityCurve((days * 86_400_000_000_000 - 1_000).astype(np.int64), 100_000 + np.cumsum(moves))
    trades = tuple(
        Trade("long", 100.0, int(curve.times[at]), 50.0, int(curve.times[at + 20]), 51.25, 0.0, 125.0)
        for at in range(0, 3_200, 40)
    )
    result = RunResult(100_000.0, curve, (), trades, 0.0, 3_300)
    config = build_config({"strategy": {"path": "desk:Saved"}, "data": {"symbol": symbol(0)}})
    run = NewRun(uuid4(), config, "Saved by the benchmark", "custom")
    digest = f"{luck.integers(2**62):064x}"
    prints = Fingerprints(*["a" * 64] * 5, run_key=digest)
    execution = Execution(result, prints, digest, int(curve.times[0]), int(curve.times[-1]))
    return run, execution, measure(result, 252)


def timed(run: Callable[[], object], repeats: int) -> list[float]:
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1_000)
    return sorted(times)


def p95(times: list[float]) -> float:
    return times[min(len(times) - 1, round(0.95 * len(times)))]


def measure_queries(settings: Settings, repeats: int, *, verbose: bool) -> None:
    with database.connect(settings) as connection:
        for group, members in queries().items():
            worst, name_of_worst, middle = 0.0, "", []
            for name, query in members:
                chance = random.Random(3)
                times = timed(lambda query=query, chance=chance: query(connection, chance), repeats)
                middle.append(statistics.median(times))
                if p95(times) > worst:
                    worst, name_of_worst = p95(times), name
                if verbose:
                    print(f"    {name:<40}{statistics.median(times):8.2f}{p95(times):8.2f}")
            print(f"{group:<28}{len(members):>4} queries   p50 {statistics.median(middle):6.2f} ms"
                  f"   worst p95 {worst:7.2f} ms ({name_of_worst})", flush=True)  # fmt: skip


def measure_lookups(settings: Settings, repeats: int) -> None:
    """Show by uuid and by prefix, compare ten: the statements that `ntrader.storage.runs` sends."""
    with database.connect(settings) as connection:
        ids = [
            str(row["run_id"])
            for row in connection.execute("SELECT run_id FROM backtest_runs TABLESAMPLE SYSTEM (0.1) LIMIT 1000")
        ]
        lookups: dict[str, Callable[[random.Random], object]] = {
            "show by uuid": lambda chance: read_runs(connection, [chance.choice(ids)]),
            "show by prefix": lambda chance: read_runs(connection, [chance.choice(ids)[:10]]),
            "show @last": lambda chance: read_runs(connection, ["@last"]),
            "compare 10": lambda chance: read_runs(connection, chance.sample(ids, 10)),
        }
        for name, lookup in lookups.items():
            chance = random.Random(4)
            times = timed(lambda lookup=lookup, chance=chance: lookup(chance), repeats)
            print(f"{name:<28}{'':>13}   p50 {statistics.median(times):6.2f} ms   p95 {p95(times):13.2f} ms")


def measure_process(settings: Settings, repeats: int) -> None:
    """`ntrader history list` against the imports it cannot do without, alternately."""
    environment = os.environ | {"DATABASE_URL": str(settings.database_url), "NTRADER_HOME": str(settings.home)}
    # As an installation has it: bytecode there. A checkout where Python may write it has it after the first command.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "cli", "storage", "ntrader"], check=True)
    programs = {"floor": "import typer, psycopg", "ours": "from cli.main import main; main(['history', 'list'])"}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(repeats + 1):
        for name in programs if number % 2 else reversed(programs):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", programs[name]], env=environment, capture_output=True, check=False)
            if number:  # the first of each warms the disk
                times[name].append(time.perf_counter() - began)
    floor, ours = (statistics.median(times[name]) * 1_000 for name in programs)
    print(f"history list, a process      import typer, psycopg {floor:.0f} ms   ours {ours:.0f} ms"
          f"   ratio {ours / floor:.2f}")  # fmt: skip
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", programs["ours"]], env=environment, capture_output=True, text=True,
        check=False,
    ).stderr  # fmt: skip
    print("  imports of our own modules and the largest others, in ms (-X importtime, cumulative):")
    for name, spent in heaviest(trace):
        print(f"    {name:<28}{spent:8.1f}")


def heaviest(trace: str) -> list[tuple[str, float]]:
    """Modules at the top of the import tree, and all of ours, by the time they took."""
    found = {}
    for line in trace.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():
            name = parts[2].strip()
            if name in {"typer", "psycopg", "click", "pydantic", "rich"} or name.split(".")[0] in {
                "cli",
                "storage",
                "ntrader",
            }:
                found[name] = int(parts[1]) / 1_000
    return sorted(found.items(), key=lambda pair: -pair[1])[:12]


def measure_export(settings: Settings, rows: int) -> None:
    """Each format in a process of its own, so that its peak of memory is its own."""
    environment = os.environ | {"DATABASE_URL": str(settings.database_url), "NTRADER_HOME": str(settings.home)}
    for format_ in ("csv", "json", "ndjson", "parquet"):
        for count_ in (rows // 10, rows):
            with tempfile.TemporaryDirectory() as folder:
                words = ["history", "export", "--format", format_, "-o", f"{folder}/runs", "--limit", str(count_)]
                program = (
                    "import sys\nfrom cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n"
                    "    print(*(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
                )
                began = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, check=True
                )
                seconds = time.perf_counter() - began
                size = (Path(folder) / "runs").stat().st_size
                print(f"export {count_:>8,} as {format_:<8}  {seconds:6.2f} s   {size / 1e6:8.1f} MB"
                      f"   memory {int(done.stdout.split()[-1]) / 1024:.0f} MB", flush=True)  # fmt: skip


def measure_paging(settings: Settings) -> None:
    """Page through all runs by a column with NULLs while others are added: each that was there comes exactly once."""
    from storage import recording

    over = threading.Event()

    def add() -> None:
        number = 0
        while not over.wait(0.05):
            run, execution, metrics = made_up_result(number := number + 1)
            recording.start_run(settings, run)
            recording.save_success(settings, run.run_id, execution, metrics)

    with database.connect(settings) as connection:
        (there,) = connection.execute("SELECT max(id) AS last, count(*) AS number FROM backtest_runs").fetchall()
        for order in (Order("sharpe_ratio"), Order("profit_factor", False)):
            over.clear()
            writer = threading.Thread(target=add)
            writer.start()
            began, seen, pages, token = time.perf_counter(), [], 0, None
            while token or not pages:
                page = find_page(connection, sql.SQL("r.run_id"), Filters(archived=True), order, 10_000, token)
                seen += [row["id"] for row in page.rows]
                pages, token = pages + 1, page.token
            over.set()
            writer.join()
            old = [row_id for row_id in seen if row_id <= there["last"]]
            verdict = "each once" if len(set(old)) == len(old) == there["number"] else "NOT each once"
            print(f"paging by {order.column:<16} {pages} pages, {len(old):,} of {there['number']:,} runs, {verdict};"
                  f" {len(seen) - len(old):,} added meanwhile; {time.perf_counter() - began:.0f} s")  # fmt: skip
        connection.execute("DELETE FROM backtest_runs WHERE strategy_name = 'Saved by the benchmark'")


def measure_saving(settings: Settings, repeats: int) -> None:
    """A run with 3,300 points and 80 trades, against the same transaction with the row of the run alone."""
    from storage import recording

    whole, bare = [], []
    for number in range(repeats + 5):
        run, execution, metrics = made_up_result(number)
        began = time.perf_counter()
        recording.start_run(settings, run)
        started = time.perf_counter()
        recording.save_success(settings, run.run_id, execution, metrics)
        whole.append((time.perf_counter() - started) * 1_000)
        bare.append((started - began) * 1_000)
    whole, bare = sorted(whole[5:]), sorted(bare[5:])
    print(f"save a run: its first row    p50 {statistics.median(bare):.2f} ms   p95 {p95(bare):.2f} ms")
    print(f"save a run: its result       p50 {statistics.median(whole):.2f} ms   p95 {p95(whole):.2f} ms"
          "   (metrics, 3,300 points, 80 trades, 40 indexes)")  # fmt: skip
    with database.connect(settings) as connection:
        connection.execute("DELETE FROM backtest_runs WHERE strategy_name = 'Saved by the benchmark'")


def measure_sizes(settings: Settings) -> None:
    """Bytes a run: rows, indexes, and what curves and trades take where there are any."""
    with database.connect(settings) as connection:
        connection.execute("SET statement_timeout = 0")
        (row,) = connection.execute(
            "SELECT (SELECT count(*) FROM backtest_runs) AS runs, (SELECT count(*) FROM equity_curves) AS curves,"
            " pg_table_size('backtest_runs') AS heap, pg_indexes_size('backtest_runs') AS indexes,"
            " pg_total_relation_size('performance_metrics') AS metrics,"
            " pg_total_relation_size('equity_curves') AS curve_bytes, pg_total_relation_size('trades') AS trades"
        ).fetchall()
    a_run = (row["heap"] + row["metrics"]) / row["runs"]
    print(f"bytes a run: {a_run:,.0f} of rows, {row['indexes'] / row['runs']:,.0f} of indexes,"
          f" {row['curve_bytes'] / row['curves']:,.0f} of a 1,000-point curve,"
          f" {row['trades'] / row['curves']:,.0f} of 80 trades")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--curves", type=int, default=20_000)
    parser.add_argument("--only", default="queries,lookups,process,export,paging,saving,sizes", help="some of these")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="a line for each query")
    options = parser.parse_args()
    base = load_settings()
    settings = settings_of(base, options.runs)
    with database.connect(settings) as connection:
        version = database.schema_version(connection)
        known = connection.execute("SELECT reltuples FROM pg_class WHERE relname = 'backtest_runs'").fetchone()
    if options.rebuild and version:
        migrations.downgrade(settings, "base")
    if options.rebuild or not known or known["reltuples"] < options.runs * 0.9:
        build(settings, options.runs, options.curves)
    elif version != database.HEAD:
        migrations.upgrade(settings)
    wanted = options.only.split(",")
    if "queries" in wanted:
        measure_queries(settings, options.repeats, verbose=options.verbose)
    if "lookups" in wanted:
        measure_lookups(settings, options.repeats)
    if "process" in wanted:
        measure_process(settings, options.repeats)
    if "export" in wanted:
        measure_export(settings, min(100_000, options.runs))
    if "paging" in wanted:
        measure_paging(settings)
    if "saving" in wanted:
        measure_saving(settings, options.repeats)
    if "sizes" in wanted:
        measure_sizes(settings)


if __name__ == "__main__":
    main()
