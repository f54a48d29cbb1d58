"""`ntrader schedule`: sweeps and backtests that Prefect starts again and again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from cli.formats import UNDEFINED, Format, printable, write_document
from cli.output import progress_line, say, say_json, say_pairs, say_table, talk
from cli.standings import FormatOption, JsonOption, OutputOption, write_documents

if TYPE_CHECKING:
    from tasks.deployments import FlowRunSeen
    from tasks.schedules import Scheduled

app = typer.Typer(help="Sweeps and backtests that are run again and again, by cron.", no_args_is_help=True)

_COLUMNS = (
    *("name", "flow", "when", "timezone", "state", "next", "last", "last_state", "last_run_id", "last_sweep_id"),
    *("last_flow_run_id", "description"),
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a schedule; `ntrader schedule list` shows them.")]


@app.command("add")
def add(
    file: Annotated[str, typer.Argument(help="YAML file of a backtest, or of a sweep (with a section `sweep`).")],
    cron: Annotated[str, typer.Option("--cron", metavar="LINE", help="When, such as '30 2 * * 1-5'.")],
    timezone: Annotated[str, typer.Option("--timezone", help="In which the cron line is meant.")] = "UTC",
    name: Annotated[str | None, typer.Option("--name", help="What to call it; by default as the file.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the schedule of that name.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Have a file run by cron. Its content is kept with the schedule: after changing the file add it again.

    A period of the form `last: 3y` moves along. While one run of a schedule is at work, the next is left out.
    """
    from flows.schedule import add_schedule
    from ntrader.settings import load_settings

    settings = load_settings()
    made = _shown(lambda: add_schedule(settings, file, cron=cron, timezone=timezone, name=name, replace=replace))
    if json_output:
        say_json(_document(made))
        return
    say(f"Schedule {printable(made.name)}: a {made.flow}, {made.when} {made.timezone}")
    say()
    say_pairs([(f"Run {place}", _both(moment, made.timezone)) for place, moment in enumerate(made.next, start=1)])


@app.command("list")
def list_(format_: FormatOption = Format.table, json_output: JsonOption = False, output: OutputOption = None) -> None:
    """Schedules, when they are due next, and what became of them last."""
    from flows.schedule import list_schedules
    from ntrader.settings import load_settings

    settings = load_settings()
    found = _shown(lambda: list_schedules(settings))
    format_ = Format.json if json_output else format_
    if format_ is Format.table and output is None:
        _say_list(found)
    elif format_ is Format.json:
        write_document({"schedules": [_document(entry) for entry in found]}, output)
    else:
        write_documents([_flat(entry) for entry in found], _COLUMNS, format_, output)
    if not found:
        talk("No schedules yet. Add one: ntrader schedule add config/sweeps/sma_grid.yaml --cron '30 2 * * 1-5'")


@app.command("pause")
def pause(name: Name) -> None:
    """Start no more runs, until it is resumed."""
    from flows.schedule import pause_schedule
    from ntrader.settings import load_settings

    settings = load_settings()
    _shown(lambda: pause_schedule(settings, name))
    talk(f"Schedule {name} is paused.")


@app.command("resume")
def resume(name: Name) -> None:
    """Start runs again. What was left out meanwhile is not made up for."""
    from flows.schedule import resume_schedule
    from ntrader.settings import load_settings

    settings = load_settings()
    found = _shown(lambda: resume_schedule(settings, name))
    talk(f"Schedule {name} goes on: {_both(found.next[0], found.timezone) if found.next else UNDEFINED}.")


@app.command("remove")
def remove(name: Name) -> None:
    """Forget the schedule. What it has run stays."""
    from flows.schedule import remove_schedule
    from ntrader.settings import load_settings

    settings = load_settings()
    _shown(lambda: remove_schedule(settings, name))
    talk(f"Schedule {name} is removed.")


def _shown[T](work: Callable[[], T]) -> T:
    from ntrader import progress

    show, clear = progress_line()
    progress.listen(show)
    try:
        return work()
    finally:
        clear()


def _say_list(found: list[Scheduled]) -> None:
    if not found:
        return
    say_table(
        [(heading, "left") for heading in ("Name", "Runs", "Cron", "Time zone", "State", "Next (UTC)", "Next there",
                                           "Last (UTC)", "Last result")],
        [
            [
                printable(entry.name), entry.flow, entry.when, entry.timezone, _state(entry), _time(_next(entry)),
                _time(_next(entry), entry.timezone), _time(entry.last.expected if entry.last else None),
                _result(entry.last),
            ]
            for entry in found
        ],
    )  # fmt: skip


def _document(entry: Scheduled) -> dict[str, Any]:
    flat = _flat(entry)
    return {**flat, "next": list(entry.next)}


def _flat(entry: Scheduled) -> dict[str, Any]:
    last = entry.last
    return {
        "name": entry.name,
        "flow": entry.flow,
        "when": entry.when,
        "timezone": entry.timezone,
        "state": _state(entry),
        "next": _next(entry),
        "last": last.expected if last else None,
        "last_state": last.state if last else None,
        "last_run_id": last.run_id if last else None,
        "last_sweep_id": last.sweep_id if last else None,
        "last_flow_run_id": last.id if last else None,
        "description": entry.description,
    }


def _state(entry: Scheduled) -> str:
    return "active" if entry.active else "paused"


def _next(entry: Scheduled) -> datetime | None:
    return entry.next[0] if entry.next else None


def _result(last: FlowRunSeen | None) -> str:
    """`Completed, sweep 12`."""
    if last is None:
        return UNDEFINED
    made = f", sweep {last.sweep_id}" if last.sweep_id else f", run {str(last.run_id)[:8]}" if last.run_id else ""
    return f"{last.state}{made}"


def _time(moment: datetime | None, zone: str = "UTC") -> str:
    return UNDEFINED if moment is None else f"{moment.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M}"


def _both(moment: datetime, zone: str) -> str:
    """`Tue 2026-11-24 02:30 UTC`, and there, where that is another time."""
    there = _time(moment, zone)
    return f"{_time(moment)} UTC" + (f" ({there} {zone})" if there != _time(moment) else "")
