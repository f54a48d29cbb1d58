"""Rows of `backtest_runs` made at random, for lists: what there is to find, and for each test a plain model of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from psycopg import sql
from psycopg.types.json import Jsonb

from ntrader.settings import Settings
from storage import database
from storage.fields import COUNTS, METRICS

Row = dict[str, Any]

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
ODD_TEXTS = ["", " ", "a", "A", "abc", "aBc", "100%", "50_50", "back\\slash", "o'clock", 'say "x"', "naïve", "数", "😀",
             "NaN", "null", "true", "5", "5.0", "'; DROP TABLE backtest_runs; --", "%(v0)s", "%s", "{}", "{0}", "$1",
             "line\nbreak", "a" * 300]  # fmt: skip
ODD_NUMBERS = [0.0, -0.0, 0.1, 0.5, 1.0, 1.5, -2.0, 5e-324, -1e300, 1e300, 1 / 3]
# Of each type that JSON has, and numbers that look like texts.
ODD_VALUES = [0, 5, -3, 0.1, 2.5, 10**25, 1e-7, True, False, None, "5", "true", [5], ["a"], {"a": 5}, *ODD_TEXTS]
NAMES = ["n", "fast_period", "and", "a b", 'say "x"', "o'clock", "", "ñ", "%(v0)s", "{}", "5"]


def row(number: int, **changes: Any) -> Row:
    """A run that has failed, with what every run has."""
    return {
        "run_id": UUID(int=number),
        "strategy_name": "SMA",
        "strategy_type": "trend",
        "strategy_path": "a:B",
        "instrument_symbol": "AAPL",
        "data_source": "sample",
        "initial_capital": Decimal(1000),
        "execution_status": "failed",
        "error_message": "why",
        "run_key": "k",
        "result_digest": "d",
        "parameters": {},
        "tags": {},
        "archived": False,
        "created_at": BEGAN + timedelta(minutes=number),
        "started_at": BEGAN + timedelta(minutes=number),
        "finished_at": BEGAN + timedelta(days=1),
    } | changes


def random_row(number: int, random: Random) -> Row:
    """A run with odd values, few enough that many are equal, and many that are missing."""

    def maybe(values: list[Any], share: float = 0.7) -> Any:
        return random.choice(values) if random.random() < share else None

    status = random.choice(["success", "success", "failed", "interrupted"])
    begin = maybe([BEGAN + timedelta(days=day) for day in range(4)])
    return row(
        number,
        run_id=UUID(int=random.getrandbits(128)),
        execution_status=status,
        strategy_name=random.choice(["SMA", "RSI", "o'clock"]),
        strategy_type=random.choice(["trend", "mean"]),
        instrument_symbol=random.choice(["AAPL", "MSFT", "ß"]),
        data_source=random.choice(["sample", "csv"]),
        initial_capital=random.choice([Decimal("0.1"), Decimal(1000), Decimal("1e25"), Decimal("1000.5")]),
        config_path=maybe(ODD_TEXTS),
        notes=maybe(ODD_TEXTS),
        error_type=maybe(ODD_TEXTS),
        sweep_id=maybe([1, 2, 2**62]),
        trial_number=maybe([number]),  # of a sweep only one may succeed
        flow_run_id=maybe([UUID(int=7), UUID(int=8)]),
        archived=random.random() < 0.3,
        execution_duration_seconds=maybe([0.0, 0.5, 2.0]),
        start_date=begin,
        end_date=begin and begin + timedelta(days=random.choice([0, 1, 2])),
        created_at=BEGAN + timedelta(hours=random.choice(range(30))),
        finished_at=BEGAN + timedelta(days=random.choice([2, 3, 4])),
        parameters=maybe([{}], 0.1) or {name: random.choice(ODD_VALUES) for name in random.sample(NAMES, 4)},
        tags={name: random.choice(ODD_TEXTS) for name in random.sample(NAMES, 3)},
        **({name: maybe(_pool(name)) for name in METRICS} if status == "success" else {}),
    )


def _pool(name: str) -> list[Any]:
    if name in COUNTS:
        return [0, 1, 5, 2**31 - 1]
    return ODD_NUMBERS if METRICS[name] == "number" else [BEGAN, BEGAN + timedelta(days=1)]


def random_rows(count: int, seed: int) -> list[Row]:
    random = Random(seed)
    return [random_row(number, random) for number in range(1, count + 1)]


def insert(settings: Settings, rows: Iterable[Row]) -> None:
    """Store them as they are; parameters are read from the config, so they go there."""
    with database.connect(settings) as connection, connection.transaction():
        for values in rows:
            parameters = values["parameters"]
            stored = {name: value for name, value in values.items() if name != "parameters"}
            stored["config_snapshot"] = Jsonb({"strategy": {"parameters": parameters}} if parameters else {})
            stored["tags"] = Jsonb(values["tags"])
            statement = sql.SQL("INSERT INTO backtest_runs ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, stored)),
                sql.SQL(", ").join(map(sql.Placeholder, stored)),
            )
            connection.execute(statement, stored)
