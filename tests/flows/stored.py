"""Stored runs to reproduce: a strategy of one's own in a package with a helper, and bars in a file; easy to change."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from flows.backtest import backtest
from ntrader.config import RunRequest
from ntrader.settings import Settings
from storage.database import connect

_numbers = itertools.count(1)

STRATEGY = '''"""Long while the helper wants to be."""

from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

from .rules import wants


class MineConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    bar_type: BarType
    limit: float = 100.0
    quantity: int = 10


class Mine(Strategy):
    def __init__(self, config: MineConfig) -> None:
        super().__init__(config)
        self.long = False

    def on_start(self) -> None:
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: Bar) -> None:
        long = wants(float(bar.close), self.config.limit)
        if long == self.long:
            return
        self.long = long
        instrument = self.cache.instrument(self.config.instrument_id)
        side = OrderSide.BUY if long else OrderSide.SELL
        quantity = instrument.make_qty(self.config.quantity)
        self.submit_order(self.order_factory.market(self.config.instrument_id, side, quantity))
'''
PACKAGE = '"""A package with a word of its own."""\n\nMARGIN = 1.0\n'
RULES = '''"""When to be long."""

from . import MARGIN
from .inner.steps import step


def wants(close: float, limit: float) -> bool:
    return close > limit + MARGIN * step()
'''
STEPS = "def step() -> float:\n    return 1.0\n"
PARTS = {
    "__init__.py": PACKAGE,
    "mine.py": STRATEGY,
    "rules.py": RULES,
    "inner/__init__.py": "",
    "inner/steps.py": STEPS,
}


def closes(count: int = 120) -> list[float]:
    """A wave around 100 with a little noise: some eight round trips of `Mine`."""
    noise = np.random.default_rng(7).normal(0, 0.3, count)
    return [round(float(100 + 8 * np.sin(day / 5) + noise[day]), 2) for day in range(count)]


@dataclass
class Rows:
    """Daily bars in a CSV file: `rows` are [open, high, low, close, volume] by ISO date."""

    path: Path
    rows: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def new(cls, path: Path) -> Rows:
        days = np.datetime64("2020-01-01") + np.arange(len(closes()))
        made = cls(path)
        before = 100.0
        for day, close in zip(days, closes(), strict=True):
            low, high = min(before, close) - 0.5, max(before, close) + 0.5
            made.rows[str(day)] = [before, round(high, 2), round(low, 2), close, 10_000.0]
            before = close
        made.write()
        return made

    def write(self) -> None:
        lines = [f"{day},{','.join(map(str, row))}" for day, row in sorted(self.rows.items())]
        self.path.write_text("\n".join(["date,open,high,low,close,volume", *lines]) + "\n")


@dataclass(frozen=True)
class Own:
    """A folder with a package of its own name and `bars.csv`; the process is in that folder."""

    folder: Path
    package: str
    data: Rows

    @property
    def strategy(self) -> str:
        return f"{self.package}.mine:Mine"

    def file(self, part: str) -> Path:
        return self.folder / self.package / part

    def change(self, part: str, old: str, new: str) -> None:
        text = self.file(part).read_text()
        assert text.count(old) == 1
        self.file(part).write_text(text.replace(old, new))

    def request(self, **changes: Any) -> RunRequest:
        values: dict[str, Any] = {
            "strategy": self.strategy,
            "symbol": "OWN",
            "source": "csv",
            "data_path": str(self.data.path),
            "initial_capital": 10_000,
        }
        return RunRequest(**(values | changes))

    def run(self, *, keep_data: bool = True, **changes: Any) -> str:
        """A stored run; its Run ID."""
        return str(backtest(self.request(**changes), keep_data=keep_data).run.run_id)


def make_own(folder: Path) -> Own:
    # A name of its own: the worker that lives through all tests has imported those before.
    package = f"own_{next(_numbers)}"
    for part, text in PARTS.items():
        path = folder / package / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Own(folder, package, Rows.new(folder / "bars.csv"))


def tamper(settings: Settings, *statements: str) -> None:
    """Change what nobody may change."""
    with connect(settings) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(psycopg.sql.SQL(statement))  # type: ignore[arg-type]


def events(settings: Settings, run_id: UUID | str) -> Iterator[tuple[int, int, int, Any]]:
    """(time, 0 for a fill and 1 for equity, number of its kind, what it says), from SQL alone and in that order."""
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT f.steps, f.sides, f.quantities, f.prices, f.fees, f.order_types, e.steps AS curve, e.equity"
            " FROM backtest_runs r JOIN fills f ON f.backtest_run_id = r.id"
            " JOIN equity_curves e ON e.backtest_run_id = r.id WHERE r.run_id = %s",
            [run_id],
        ).fetchone()
    assert row is not None
    fills = zip(row["sides"], row["quantities"], row["prices"], row["fees"], row["order_types"], strict=True)
    found = [
        (time, 0, number, what) for number, (time, what) in enumerate(zip(_times(row["steps"]), fills, strict=True), 1)
    ]
    found += [
        (time, 1, number, what)
        for number, (time, what) in enumerate(zip(_times(row["curve"]), row["equity"], strict=True), 1)
    ]
    yield from sorted(found, key=lambda event: event[:3])


def _times(steps: list[int]) -> list[int]:
    return list(itertools.accumulate(steps))


def document(settings: Settings, fingerprint: str) -> Any:
    with connect(settings) as connection:
        row = connection.execute("SELECT content FROM kept_contents WHERE digest = %s", [fingerprint]).fetchone()
    assert row is not None
    return json.loads(bytes(row["content"]))
