"""`ntrader data`: the bars there are, and bringing in more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.output import say, say_json, say_table, talk

if TYPE_CHECKING:
    from ntrader.data.entries import DataEntry

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


def _document(entry: DataEntry) -> dict[str, Any]:
    return {
        "symbol": entry.symbol,
        "venue": entry.venue,
        "timeframe": str(entry.timeframe),
        "rows": entry.rows,
        "period": entry.period,
        "source": entry.source,
    }
