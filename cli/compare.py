"""`ntrader compare`: runs beside one another, and why they differ. Light: curves are read only for --plot and
--significance, and their libraries loaded only then."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO
from uuid import UUID

import typer

from cli import complete
from cli.comparison_data import document_text, flat
from cli.formats import UNDEFINED, Format, destination, printable, write, write_aligned
from cli.output import cell, day, say_table, talk
from ntrader.comparison import Comparison, check_number
from ntrader.comparison_report import Section, Side, Style, sections, title
from storage.fields import FRACTIONS

if TYPE_CHECKING:
    from ntrader.paired import DailySeries
    from ntrader.settings import Settings
    from ntrader.significance import Interval, Significance
    from storage.runs import StoredRun


def compare(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="2 to 10 runs: Run ID, its first characters, a name, @last, @last~1 or @best:SWEEP.",
            autocompletion=complete.runs,
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="RUN",
            help="One of them: show how far the others are from it. Causes are told against it; the first by default.",
            autocompletion=complete.runs,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Settings that are the same, too.")] = False,
    significance: Annotated[
        bool, typer.Option("--significance", help="Whether daily returns can be told apart: bootstrap intervals.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.html", help="Write a page with charts; it opens offline.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to write the answer.")] = Format.table,
    json_output: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")] = None,
) -> None:
    """Compare runs: what went in, what came out, who did best, and what made the difference.

    A cause is named only where exactly one input differs.
    """
    from ntrader.settings import load_settings
    from storage.compared import compare_runs

    check_number(len(references))
    _check_files(plot, output)
    settings = load_settings()
    comparison, runs = compare_runs(settings, references, baseline)
    series = _read_series(settings, runs) if plot or significance else {}
    found = _significances(comparison, series) if significance else {}
    parts = sections(comparison, _STYLE, everything=all_, deltas=baseline is not None)
    if significance:
        parts.append(_significance_section(comparison, found))
    if plot:
        _write_page(plot, comparison, parts, series)
    chosen = Format.json if json_output else format_
    with destination(output) as stream:
        if chosen is Format.table:
            _write_sections(stream, comparison, parts)
        elif chosen is Format.json:
            stream.write(document_text(comparison, runs, found if significance else None))
        else:
            columns, rows = flat(comparison, everything=all_, deltas=baseline is not None)
            write(chosen, stream, columns, rows)
    for warning in comparison.warnings:
        talk(f"Warning: {printable(warning)}")


def _check_files(plot: Path | None, output: Path | None) -> None:
    from ntrader.errors import ConfigError

    if plot is not None and str(plot) == "-":
        raise ConfigError("--plot - has no file to write the page to", hint="Write --plot comparison.html.")
    if plot is not None and output is not None and plot.resolve() == output.resolve():
        raise ConfigError(f"--plot and --output both say {plot}", hint="Give each a file of its own.")


# Text


def _value(name: str, value: Any) -> str:
    return day(value) if name == "max_drawdown_date" else cell(name, value)


def _delta(name: str, value: float) -> str:
    """Of percentages in percentage points."""
    if name in FRACTIONS:
        return f"{value * 100:+,.2f} pp"
    return f"{value:+,}" if isinstance(value, int) else f"{value:+,.2f}"


_STYLE = Style(_value, _delta)


def _write_sections(stream: TextIO, comparison: Comparison, parts: Sequence[Section]) -> None:
    stream.write(f"{title(comparison)}\n")
    for section in parts:
        stream.write(f"\n{section.title}\n\n")
        if section.rows:
            _write_table(stream, section)
        for note in section.notes:
            stream.write(f"{printable(note)}\n")


def _write_table(stream: TextIO, section: Section) -> None:
    columns = [(printable(name), side) for name, side in section.columns]
    rows = [[printable(text) for text in row] for row in section.rows]
    if stream is sys.stdout:
        say_table(columns, rows)
    else:
        write_aligned(stream, [[name for name, _ in columns], *rows], [side == "right" for _, side in columns])


# Curves


def _read_series(settings: Settings, runs: Sequence[StoredRun]) -> dict[UUID, DailySeries]:
    """The daily series of those runs that have a curve with a point in it."""
    from ntrader.paired import daily_series
    from storage.curves import read_curves

    curves = read_curves(settings, [run.run_id for run in runs])
    return {
        run.run_id: daily_series(float(run.initial_capital), curves[run.run_id])
        for run in runs
        if run.run_id in curves and len(curves[run.run_id])
    }


def _write_page(
    path: Path, comparison: Comparison, parts: Sequence[Section], series: Mapping[UUID, DailySeries]
) -> None:
    from ntrader.plots import PlottedRun, comparison_page

    plotted = [
        PlottedRun(label, position, series[run.run_id])
        for position, (run, label) in enumerate(zip(comparison.runs, comparison.labels, strict=True))
        if run.run_id in series
    ]
    page = comparison_page(
        title(comparison), comparison.labels, parts, plotted, comparison.baseline, comparison.warnings
    )
    with destination(path) as stream:
        stream.write(page)
    talk(f"Page written to {path}.")


# Significance


def _significances(comparison: Comparison, series: Mapping[UUID, DailySeries]) -> dict[int, Significance]:
    """By position, for each run but the baseline."""
    from ntrader.significance import Significance, significance

    base = comparison.runs[comparison.baseline]
    yearly = int(base.config.get("annualization") or 252)
    found = {}
    for verdict in comparison.verdicts:
        pair = [series.get(run.run_id) for run in (base, comparison.runs[verdict.run])]
        before, after = pair
        found[verdict.run] = (
            significance(before, after, yearly) if before is not None and after is not None else Significance(0)
        )
    return found


def _significance_section(comparison: Comparison, found: Mapping[int, Significance]) -> Section:
    from ntrader.significance import CONFIDENCE, FEWEST_DAYS, RESAMPLES

    base = comparison.labels[comparison.baseline]
    told = [(comparison.labels[position], each) for position, each in found.items() if each.block is not None]
    notes = [
        f"{comparison.labels[position]} against {base}: {each.days} common days with returns are too few; it takes"
        f" {FEWEST_DAYS}."
        for position, each in found.items()
        if each.block is None
    ]
    if not told:
        return Section("Significance", notes=tuple(notes))
    columns: tuple[tuple[str, Side], ...] = (
        ("Run", "left"), ("Common days", "right"), ("Block", "right"), ("Of", "left"), ("Difference", "right"),
        (f"{CONFIDENCE:.0%} interval", "right"), ("Distinguishable", "left"),
    )  # fmt: skip
    rows = tuple(row for label, each in told for row in _significance_rows(label, each))
    notes.insert(0, f"Differences from {base} over the days both have; {RESAMPLES:,} resamples, in blocks of days.")
    return Section("Significance", columns, rows, tuple(notes))


def _significance_rows(label: str, found: Significance) -> list[tuple[str, ...]]:
    common = (label, f"{found.days:,}", f"{found.block:,}")
    return [
        (*common, "Mean return a year", *_interval_texts("cagr", found.mean_return)),
        (*common, "Sharpe ratio", *_interval_texts("sharpe_ratio", found.sharpe_ratio)),
    ]


def _interval_texts(name: str, interval: Interval | None) -> tuple[str, str, str]:
    if interval is None:
        return UNDEFINED, UNDEFINED, "not defined"
    ends = f"{_delta(name, interval.low)} to {_delta(name, interval.high)}"
    return _delta(name, interval.estimate), ends, "yes" if interval.distinguishable else "not distinguishable"
