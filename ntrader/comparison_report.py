"""A comparison as sections to read: the terminal, the page and Prefect's artifact show the same ones.

How a metric is written is the caller's: percent and rounding belong to the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ntrader.comparison import (
    ABSENT,
    FINGERPRINTS,
    HEADLINES,
    ComparedRun,
    Comparison,
    MetricRow,
    Setting,
    value_text,
)

UNDEFINED = "-"
BEST = "*"
IDENTITY, PERFORMANCE, BEST_PERFORMER, CAUSE = "Identity", "Performance", "Best Performer", "Cause"

TITLES = {
    "total_return": "Total return",
    "final_balance": "Final balance",
    "cagr": "CAGR",
    "sharpe_ratio": "Sharpe ratio",
    "sortino_ratio": "Sortino ratio",
    "max_drawdown": "Max drawdown",
    "max_drawdown_date": "Max drawdown on",
    "calmar_ratio": "Calmar ratio",
    "volatility": "Volatility",
    "total_trades": "Trades",
    "winning_trades": "Winning trades",
    "losing_trades": "Losing trades",
    "win_rate": "Win rate",
    "profit_factor": "Profit factor",
    "expectancy": "Expectancy",
    "avg_win": "Average win",
    "avg_loss": "Average loss",
    "skewness": "Skewness",
    "kurtosis": "Kurtosis",
    "return_observations": "Daily returns",
}

Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Section:
    """A title, a table (columns are headings and the side they keep to), and lines below it; any may be missing."""

    title: str
    columns: tuple[tuple[str, Side], ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Style:
    """How a metric is written, by its name and value, and how a difference of two."""

    value: Callable[[str, Any], str]
    delta: Callable[[str, Any], str]


def title(comparison: Comparison) -> str:
    return f"Comparison of {len(comparison.runs)} runs"


def sections(comparison: Comparison, style: Style, *, everything: bool, deltas: bool) -> list[Section]:
    """`everything` adds the settings that all share, `deltas` columns of the distance to the baseline."""
    return [
        _identity(comparison),
        _differences(comparison),
        *([_in_common(comparison)] if everything else []),
        _performance(comparison, style, deltas=deltas),
        _best(comparison, style),
        Section(CAUSE, notes=cause_lines(comparison)),
    ]


def cause_lines(comparison: Comparison) -> tuple[str, ...]:
    """A sentence for each run against the baseline; of two runs it goes without saying which."""
    if len(comparison.runs) == 2:
        return tuple(verdict.sentence for verdict in comparison.verdicts)
    base = comparison.labels[comparison.baseline]
    return tuple(f"{comparison.labels[found.run]} against {base}: {found.sentence}" for found in comparison.verdicts)


def fingerprint_rows(comparison: Comparison) -> list[Setting]:
    """The fingerprints beside the config's, as if they were settings; None where one is not recorded."""
    rows = []
    for name in FINGERPRINTS:
        values = tuple(run.fingerprints.get(name) for run in comparison.runs)
        rows.append(Setting(f"{name} fingerprint", values, len({value for value in values if value}) > 1))
    return rows


def _identity(comparison: Comparison) -> Section:
    rows = []
    for number, (run, label) in enumerate(zip(comparison.runs, comparison.labels, strict=True)):
        shown = f"{label} (baseline)" if number == comparison.baseline else label
        created = f"{run.created_at:%Y-%m-%d %H:%M:%S}"
        rows.append((shown, str(run.run_id), run.strategy_name, run.symbol, _period(run), run.status, created))
    headings = ("Run", "Run ID", "Strategy", "Symbol", "Period", "Status", "Created (UTC)")
    errors = tuple(
        f"{label} {run.status}: {run.error}"
        for run, label in zip(comparison.runs, comparison.labels, strict=True)
        if run.error
    )
    return Section(IDENTITY, tuple((name, "left") for name in headings), tuple(rows), errors)


def _period(run: ComparedRun) -> str:
    return f"{_day(run.start)} to {_day(run.end)}" if run.start or run.end else UNDEFINED


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else UNDEFINED


def _differences(comparison: Comparison) -> Section:
    settings = [setting for setting in comparison.settings if setting.differs]
    prints = [setting for setting in fingerprint_rows(comparison) if setting.differs]
    rows = [(setting.name, *map(_setting_text, setting.values)) for setting in settings]
    rows += [(setting.name, *(value[:8] if value else UNDEFINED for value in setting.values)) for setting in prints]
    name = "Configuration Differences"
    if not rows:
        return Section(name, notes=("None: all settings and fingerprints are equal.",))
    return Section(name, _columns("Setting", comparison.labels, "left"), tuple(rows))


def _setting_text(value: Any) -> str:
    """A null is shown as nothing is everywhere; a setting that the config does not have at all is left blank."""
    if value is ABSENT:
        return ""
    return UNDEFINED if value is None else value_text(value)


def _in_common(comparison: Comparison) -> Section:
    rows = [
        (setting.name, _setting_text(setting.values[0]))
        for setting in (*comparison.settings, *fingerprint_rows(comparison))
        if not setting.differs
    ]
    return Section("Configuration in Common", (("Setting", "left"), ("Value", "left")), tuple(rows))


def _columns(first: str, labels: Sequence[str], side: Side) -> tuple[tuple[str, Side], ...]:
    return ((first, "left"), *((label, side) for label in labels))


def _performance(comparison: Comparison, style: Style, *, deltas: bool) -> Section:
    if not comparison.metrics:
        return Section(PERFORMANCE, notes=("None of the runs has a result.",))
    columns: list[tuple[str, Side]] = [("Metric", "left")]
    for number, label in enumerate(comparison.labels):
        columns.append((label, "right"))
        if deltas and number != comparison.baseline:
            columns.append(("delta", "right"))
    rows = tuple(
        (TITLES.get(row.name, row.name), *_cells(row, comparison, style, deltas=deltas)) for row in comparison.metrics
    )
    marked = any(row.best for row in comparison.metrics)
    base = f"delta: the difference from {comparison.labels[comparison.baseline]}"
    notes = [f"{BEST} the best value"] * marked + [base] * deltas
    return Section(PERFORMANCE, tuple(columns), rows, ("; ".join(notes),) if notes else ())


def _cells(row: MetricRow, comparison: Comparison, style: Style, *, deltas: bool) -> list[str]:
    """The mark comes first: digits that keep to the right stay below one another."""
    cells = []
    for number, value in enumerate(row.values):
        shown = UNDEFINED if value is None else style.value(row.name, value)
        cells.append(f"{BEST}{shown}" if number in row.best else shown)
        if deltas and number != comparison.baseline:
            delta = row.deltas[number]
            cells.append(UNDEFINED if delta is None else style.delta(row.name, delta))
    return cells


def _best(comparison: Comparison, style: Style) -> Section:
    by_name = {row.name: row for row in comparison.metrics}
    rows = tuple(_winner(by_name[name], comparison.labels, style) for name in HEADLINES if name in by_name)
    if not rows:
        return Section(BEST_PERFORMER, notes=("None of the runs has a result.",))
    return Section(BEST_PERFORMER, (("Metric", "left"), ("Run", "left"), ("Value", "right")), rows)


def _winner(row: MetricRow, labels: Sequence[str], style: Style) -> tuple[str, str, str]:
    known = [value for value in row.values if value is not None]
    if not known:
        return TITLES[row.name], UNDEFINED, UNDEFINED
    winners = ", ".join(labels[number] for number in row.best) or "all equal"
    return TITLES[row.name], winners, style.value(row.name, row.values[row.best[0]] if row.best else known[0])


# Markdown


def markdown(comparison: Comparison) -> str:
    """The whole comparison for Prefect's pages: fractions with four digits."""
    style = Style(_fraction, lambda name, value: f"{value:+,.4f}" if isinstance(value, float) else f"{value:+,}")
    parts = [f"# {title(comparison)}"]
    for section in sections(comparison, style, everything=False, deltas=True):
        parts += [f"## {section.title}", _table(section), *(escaped(note) for note in section.notes)]
    parts += [f"**Warning:** {escaped(warning)}" for warning in comparison.warnings]
    return "\n\n".join(part for part in parts if part) + "\n"


def _fraction(_name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return _day(value)
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"


def _table(section: Section) -> str:
    if not section.rows:
        return ""
    rules = ["---:" if side == "right" else "---" for _, side in section.columns]
    lines = [[escaped(name) for name, _ in section.columns], rules]
    lines += [[escaped(cell) for cell in row] for row in section.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """User text that neither ends a cell nor becomes Markdown or HTML."""
    return re.sub(r"\s*[\r\n]+\s*", "<br>", re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", text))
