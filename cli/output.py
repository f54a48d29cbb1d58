"""How things are said: data to stdout, talk to stderr, percent signs and rounding only here."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.runs import StoredRun

UNDEFINED = "-"
_FIRST = ("run_id", "execution_status", "run_key", "result_digest")
_WIDEST = 1_000


class Format(StrEnum):
    """How a reading command writes its answer."""

    table = "table"
    json = "json"


def complain(message: str, hint: str | None = None) -> None:
    """An error for a person: what, and the next step."""
    sys.stderr.write(f"Error: {message}\n" + (f"{hint}\n" if hint else ""))


def talk(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")


def say_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, default=_plain, ensure_ascii=False, indent=2) + "\n")


def run_document(run: StoredRun) -> dict[str, Any]:
    """A run as one JSON object: the columns of `backtest_runs`, and `metrics` with those of `performance_metrics`."""
    columns = dataclasses.asdict(run)
    return {name: columns[name] for name in _FIRST} | columns


def say_table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """`columns` are (heading, "left" or "right")."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="" if plain else "bold")
    for heading, justify in columns:
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    # A line that is too long may wrap in the terminal; a number that is cut off would be a wrong number.
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    Console(width=max(console.width, needed), highlight=False).print(table)


def say_pairs(pairs: Sequence[tuple[str, str]], indent: str = "  ") -> None:
    """`name   value` lines, the values in one column."""
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        say(f"{indent}{name:<{width}}{value}".rstrip())


def percent(value: float | None, digits: int = 2) -> str:
    return UNDEFINED if value is None else f"{value * 100:,.{digits}f}%"


def number(value: float | None, digits: int = 2) -> str:
    return UNDEFINED if value is None else f"{value:,.{digits}f}"


def money(value: float | Decimal | None, currency: str = "USD") -> str:
    return UNDEFINED if value is None else f"{value:,.2f} {currency}"


def moment(value: datetime | None) -> str:
    return UNDEFINED if value is None else f"{value:%Y-%m-%d %H:%M:%S}"


def day(value: datetime | None) -> str:
    return UNDEFINED if value is None else f"{value:%Y-%m-%d}"


def seconds(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:,.2f} s"


def progress_line() -> tuple[Callable[[str, int, int], None], Callable[[], None]]:
    """A listener for `ntrader.progress`, and what clears its line at the end.

    One line that is written over on a terminal; elsewhere a line for each stage.
    """
    live = sys.stderr.isatty()
    last = ""

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        if live:
            share = f" {done / total:.0%} of {total:,} bars" if total else ""
            sys.stderr.write(f"\r\x1b[2K{stage}{share} ...")
            sys.stderr.flush()
        elif stage != last:
            talk(f"{stage} ...")
        last = stage

    def clear() -> None:
        if live and last:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    return show, clear


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return str(value)
