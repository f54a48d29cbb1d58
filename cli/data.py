"""`ntrader data`: the bars there are, and bringing in more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.filters import SymbolOption
from cli.formats import Format, destination, write
from cli.output import progress_line, say, say_json, say_table, talk

if TYPE_CHECKING:
    from ntrader.data.entries import DataEntry
    from ntrader.data.impact import Impact
    from ntrader.data.uses import DataUse

app = typer.Typer(help="List, import and check bars.", no_args_is_help=True, rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.command("list")
def list_(json_output: JsonOption = False) -> None:
    """Every series of bars in the sample and in the catalog."""
    from ntrader.data.load import available
    from ntrader.settings import load_settings

    entries = available(load_settings().home)
    if json_output:
        say_json({"series": [_document(entry) for entry in entries]})
        return
    say_table(
        [("Symbol", "left"), ("Venue", "left"), ("Timeframe", "left"), ("Bars", "right"), ("Period", "left"),
         ("Source", "left")],
        [
            [entry.symbol, entry.venue, str(entry.timeframe), f"{entry.rows:,}", entry.period, entry.source]
            for entry in entries
        ],
    )  # fmt: skip


@app.command("import")
def import_(
    csv: Annotated[Path, typer.Option("--csv", help="The file; plain or gzip.")],
    symbol: Annotated[str, typer.Option("--symbol", help="Symbol to store it under.")],
    venue: Annotated[str, typer.Option("--venue", help="Venue to store it under, such as XNAS.")],
    timeframe: Annotated[str, typer.Option("--timeframe", help="Bar length: 1-DAY, 1-HOUR, 5-MINUTE.")] = "1-DAY",
    stamp: Annotated[
        Literal["open", "close"], typer.Option("--stamp", help="Whether intraday times are the open or the close.")
    ] = "open",
    replace: Annotated[bool, typer.Option("--replace", help="Let the file win over bars stored before.")] = False,
) -> None:
    """Copy the bars of a CSV file into the data catalog, after checking each of them."""
    from ntrader.data.bars import parse_timeframe
    from ntrader.data.catalog import import_csv
    from ntrader.settings import load_settings

    summary = import_csv(
        load_settings().home, csv, symbol, venue, parse_timeframe(timeframe), stamp=stamp, replace=replace
    )
    for note in summary.notes:
        talk(f"Note: {note}")
    say(f"{summary.rows:,} bars read, {summary.added:,} added, {summary.changed:,} changed.")
    say(f"{summary.entry}: {summary.entry.rows:,} bars")


@app.command()
def check(
    symbol: Annotated[str | None, typer.Option("--symbol", help="Only this symbol.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Check this file instead of what is stored.")] = None,
    timeframe: Annotated[str, typer.Option("--timeframe", help="Bar length of the file.")] = "1-DAY",
    json_output: JsonOption = False,
) -> None:
    """Look for bad rows and gaps. Bad rows are an error; gaps (holidays are some) are only listed."""
    from ntrader.data.report import report_csv, report_stored
    from ntrader.settings import load_settings

    if csv is not None:
        reports = [report_csv(csv, symbol or csv.name.partition(".")[0], timeframe)]
    else:
        reports = report_stored(load_settings().home, symbol)
    if json_output:
        say_json({"series": [dataclasses.asdict(report) for report in reports]})
        return
    for report in reports:
        say(f"{report.name}: {report.rows:,} bars, no bad rows, {len(report.gaps):,} gaps")
        for gap in report.gaps:
            say(f"  {gap}")


@app.command()
def impact(
    symbol: SymbolOption = None,
    runs: Annotated[bool, typer.Option("--runs", help="A line a run, not a line a data set.")] = False,
    format_: Annotated[Format | None, typer.Option("--format", help="How to write them; table by default.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Successful runs that would see other bars today: changed, gone or unreadable. Archived ones are left out.

    The bars are loaded as a run would load them, and compared by fingerprint. Exit code 6 when there are any.
    """
    from ntrader.signals import interruptible

    with interruptible():
        uses, impacts = _impacts(symbol or [], run_ids=runs)
    chosen = Format.json if json_output else format_ or Format.table
    columns, rows = _impact_runs(impacts) if runs else _impact_groups(impacts)
    if rows or output or chosen is not Format.table:
        with destination(output) as stream:
            write(chosen, stream, columns, rows)
    talk(_impact_summary(uses, impacts))
    if impacts:
        raise typer.Exit(6)


def _impacts(symbols: list[str], *, run_ids: bool) -> tuple[tuple[DataUse, ...], tuple[Impact, ...]]:
    """What runs were fed, and what of it is no longer so."""
    from ntrader import progress
    from ntrader.data.impact import find_impacts
    from ntrader.settings import load_settings
    from storage.impact import data_uses

    settings = load_settings()
    show, clear = progress_line("runs")
    progress.listen(show)
    try:
        uses = data_uses(settings, symbols, run_ids=run_ids)
        return uses, find_impacts(uses, settings.home)
    finally:
        progress.listen(None)
        clear()


def _impact_groups(impacts: tuple[Impact, ...]) -> tuple[list[str], list[tuple[Any, ...]]]:
    columns = ["symbol", "source", "timeframe", "start", "end", "runs", "newest_run", "state", "message"]
    rows = [(*_place(found.use), found.use.runs, found.use.newest, found.state, found.message) for found in impacts]
    return columns, rows


def _impact_runs(impacts: tuple[Impact, ...]) -> tuple[list[str], list[tuple[Any, ...]]]:
    columns = ["run_id", "symbol", "source", "timeframe", "start", "end", "state", "message"]
    rows = [
        (run_id, *_place(found.use), found.state, found.message) for found in impacts for run_id in found.use.run_ids
    ]
    return columns, rows


def _place(use: DataUse) -> tuple[Any, ...]:
    ends = (moment.date() if moment else None for moment in (use.start, use.end))
    return use.symbol, use.source, use.data.get("timeframe"), *ends


def _impact_summary(uses: tuple[DataUse, ...], impacts: tuple[Impact, ...]) -> str:
    runs, affected = (sum(use.runs for use in some) for some in (uses, [found.use for found in impacts]))
    sets = f"{len(uses):,} data set{'' if len(uses) == 1 else 's'}"
    if not impacts:
        return f"{runs:,} run{'' if runs == 1 else 's'} on {sets}: all unchanged"
    return f"{affected:,} of {runs:,} runs, on {len(impacts):,} of {sets}, would see other bars today"


def _document(entry: DataEntry) -> dict[str, Any]:
    return {
        "symbol": entry.symbol,
        "venue": entry.venue,
        "timeframe": str(entry.timeframe),
        "rows": entry.rows,
        "period": entry.period,
        "source": entry.source,
    }
