"""`ntrader canary`: what would another version of Nautilus make of the runs there are?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.formats import UNDEFINED, Format, destination, write
from cli.output import progress_line, say_table, talk
from cli.reproduce import DIFFERENT, RunsArgument, SweepOption, chosen, place

if TYPE_CHECKING:
    from flows.canary import CanaryReport, Replayed

_COLUMNS = ("Run ID", "Strategy", "Symbol", "Result", "Also moved", "First difference, or error")
_KEYS = ("run_id", "strategy", "symbol", "result", "also_moved", "first_difference", "error")


def canary(
    runs: RunsArgument = None,
    nautilus: Annotated[str, typer.Option("--nautilus", help="The other version, such as 1.230.0.")] = "",
    last: Annotated[int | None, typer.Option("--last", min=1, help="The newest N successful runs.")] = None,
    sweep: SweepOption = None,
    recreate: Annotated[bool, typer.Option("--recreate", help="Make the environment of that version anew.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="How the results are written.")] = Format.table,
    json_output: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")] = None,
) -> None:
    """Run stored runs again with another version of Nautilus, without saving anything: what would move?

    Bars and code are those that were kept, so that only the engine differs. The environment is made once, by uv, under
    NTRADER_HOME/canary. Exit code 6 if any result moved or failed.
    """
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings

    if not nautilus:
        raise ConfigError("no version is named", hint="Add --nautilus VERSION, such as --nautilus 1.230.0.")
    settings = load_settings()
    found = _flown(settings, nautilus, chosen(settings, runs or [], last, sweep), recreate=recreate)
    if (Format.json if json_output else format_) is Format.table and output is None:
        say_table([(name, "left") for name in _COLUMNS], [_shown(each) for each in found.runs])
    else:
        with destination(output) as stream:
            write(Format.json if json_output else format_, stream, _KEYS, [_row(each) for each in found.runs])
    _conclude(found)


def _flown(settings: Any, nautilus: str, runs: list[str], *, recreate: bool) -> CanaryReport:
    from flows.launch import launch_canary
    from ntrader import progress
    from ntrader.environments import check_version

    check_version(nautilus)
    show, clear = progress_line()
    progress.listen(show)
    try:
        return launch_canary(settings, nautilus, runs, recreate=recreate)
    finally:
        clear()


def _row(replayed: Replayed) -> list[Any]:
    who = [str(replayed.run_id), replayed.strategy_name, replayed.instrument_symbol, replayed.outcome]
    moved = replayed.outcome == "moved" and replayed.verdict
    where = place(moved.divergence) if moved and moved.divergence else None
    return [*who, ", ".join(replayed.also_moved) or None, where, replayed.error]


def _shown(replayed: Replayed) -> list[str]:
    *who, also_moved, where, error = _row(replayed)
    return [who[0][:8], *who[1:], also_moved or UNDEFINED, _first_line(error) if error else where or UNDEFINED]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _conclude(found: CanaryReport) -> None:
    for name, (here, there) in found.besides.items():
        talk(f"Besides Nautilus: {name.removeprefix('libraries.')} {here or 'none'} here, {there or 'none'} there")
    counts = Counter(each.outcome for each in found.runs)
    outcomes = ", ".join(f"{counts[name]:,} {name}" for name in ("unchanged", "moved", "failed"))
    talk(f"nautilus_trader {found.nautilus}: {outcomes}.")
    if counts["unchanged"] < len(found.runs):
        raise typer.Exit(DIFFERENT)
