"""How things are said: data to stdout, talk to stderr, percent signs and rounding only here."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cli.formats import UNDEFINED, plain, printable, text, write_aligned

if TYPE_CHECKING:
    from storage.runs import StoredRun

_FIRST = ("run_id", "execution_status", "run_key", "result_digest")
_WIDEST = 1_000


def complain(message: str, hint: str | None = None) -> None:
    """An error for a person: what, and the next step."""
    sys.stderr.write(f"Error: {message}\n" + (f"{hint}\n" if hint else ""))


def talk(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")


def say_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, default=plain, ensure_ascii=False, indent=2) + "\n")


def run_document(run: StoredRun) -> dict[str, Any]:
    """A run as one JSON object: the columns of `backtest_runs`, and `metrics` with those of `performance_metrics`."""
    from storage.fields import METRICS

    columns = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    metrics = dataclasses.asdict(run.metrics) if run.metrics else None
    copies = {name: metrics[name] if metrics else None for name in METRICS}
    parameters = {"parameters": run.config_snapshot["strategy"]["parameters"]}
    return {name: columns[name] for name in _FIRST} | columns | parameters | copies | {"metrics": metrics}


def say_table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """`columns` are (heading, "left" or "right"). Rich draws it on a terminal, and is loaded for nothing less."""
    names, right = [heading for heading, _ in columns], [justify == "right" for _, justify in columns]
    if not on_terminal():
        write_aligned(sys.stdout, [names, *rows], right)
        return
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name, end in zip(names, right, strict=True):
        table.add_column(name, justify="right" if end else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    # A line that is too long may wrap in the terminal; a number that is cut off would be a wrong number.
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    Console(width=max(console.width, needed), highlight=False, markup=False).print(table)


def on_terminal() -> bool:
    """Whether a person looks at stdout, and at colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def terminal_width() -> int:
    """Of the terminal; what goes elsewhere may be as wide as it likes."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDEST


# Columns of runs

_HEADINGS = {
    "run_id": "Run ID",
    "created_at": "Date/Time (UTC)",
    "strategy_name": "Strategy",
    "instrument_symbol": "Symbol",
    "total_return": "Return",
    "sharpe_ratio": "Sharpe",
    "max_drawdown": "Max DD",
    "execution_status": "Status",
    "parameters": "Parameters",
}


def heading(column: str) -> tuple[str, str]:
    """A column of runs by the name that tables give it, and the side it keeps to."""
    from storage.fields import FIELDS

    return _HEADINGS.get(column, column), "right" if FIELDS.get(column) == "number" else "left"


def cell(column: str, value: Any) -> str:
    """A value of a run as a table shows it: rounded, in percent where that is how one reads it."""
    from storage.fields import COUNTS, FRACTIONS

    if value is None:
        return UNDEFINED
    if column == "run_id":
        return str(value)[:8]
    if column in COUNTS:
        return str(value)
    if column in FRACTIONS:
        return percent(value)
    if isinstance(value, datetime):
        return moment(value)
    if column in {"parameters", "tags"}:
        return parameters_text(value) or UNDEFINED
    return number(float(value)) if isinstance(value, float | Decimal) else printable(text(value))


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """`fast_period=10 slow_period=50`; what is not set is left out."""
    return " ".join(
        f"{name}={printable(text(value))}" for name, value in sorted(parameters.items()) if value is not None
    )


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


def progress_line(unit: str = "bars") -> tuple[Callable[[str, int, int], None], Callable[[], None]]:
    """A listener for `ntrader.progress`, and what clears its line at the end; `unit` is what a stage counts.

    One line that is written over on a terminal; elsewhere a line for each stage.
    """
    live = sys.stderr.isatty()
    last = ""

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        if live:
            share = f" {done / total:.0%} of {total:,} {unit}" if total else ""
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
