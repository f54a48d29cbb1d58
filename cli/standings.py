"""`ntrader sweep list | status`: how sweeps stand. Light on purpose: neither Prefect nor the engine is loaded."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import complete
from cli.formats import UNDEFINED, Format, destination, printable, write, write_document
from cli.output import (
    cell,
    complain,
    moment,
    number,
    say,
    say_pairs,
    say_table,
    talk,
)

if TYPE_CHECKING:
    from ntrader.settings import Settings
    from ntrader.sweeps.standing import Standing
    from storage.standings import Holder, Listed
    from storage.sweeps import StoredSweep

Which = Annotated[
    str,
    typer.Argument(metavar="SWEEP", help="Its number, its name, @last or @last~1.", autocompletion=complete.sweeps),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")]

_NOT_FINISHED = 4
_REFRESH_SECONDS = 2.0
_SAY_SECONDS = 10.0
# Nobody holds a trial while a sweep is planned, or its next batch asked for.
_NOBODY_SECONDS = 60.0


def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many sweeps, at most.")] = 20,
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Sweeps, newest first, each with the best of its objective so far."""
    from ntrader.settings import load_settings
    from storage.standings import sweeps_page

    found, total = sweeps_page(load_settings(), limit)
    documents = [_listed_document(listed) for listed in found]
    format_ = Format.json if json_output else format_
    if format_ is Format.table and output is None:
        _say_list(found)
    elif format_ is Format.json:
        write_document({"sweeps": documents, "total": total}, output)
    else:
        write_documents(documents, _IN_LISTS, format_, output)
    if not found:
        talk("No sweeps yet. Start one: ntrader sweep run config/sweeps/sma_grid.yaml")
    elif total > len(found):
        talk(f"Showing {len(found):,} of {total:,} sweeps. More: --limit {total}")


def status(
    sweep: Annotated[
        str | None,
        typer.Argument(
            metavar="SWEEP", help="All that are not finished, if none is named.", autocompletion=complete.sweeps
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until it is finished; of several, the newest.")
    ] = False,
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """How far sweeps are, and which processes are at them.

    With --watch exit code 4 when nobody has worked on the sweep for a minute.
    """
    from ntrader.settings import load_settings
    from storage.standings import look_at, unfinished_sweeps

    settings = load_settings()
    found = unfinished_sweeps(settings) if sweep is None else [look_at(settings, sweep)]
    if watch and found:
        found = [_watched(settings, found[0])]
    format_ = Format.json if json_output else format_
    documents = [_listed_document(listed) for listed in found]
    if format_ is Format.table and output is None:
        _say_status(found)
    elif format_ is Format.json:
        write_document({"sweeps": documents}, output)
    else:
        write_documents(documents, _IN_LISTS, format_, output)
    if not found:
        talk("No sweep is unfinished.")
    if watch and found and found[0].sweep.finished_at is None:
        number_ = found[0].sweep.id
        complain(f"nobody works on sweep {number_}", f"Go on with: ntrader sweep resume {number_}")
        raise typer.Exit(_NOT_FINISHED)


# Sweeps


def _verified(sweep: StoredSweep) -> str:
    if sweep.verified is None:
        return "not again, it was there before" if sweep.best_linked else "no"
    return "identical" if sweep.verified else "DIFFERENT"


def say_sweep(sweep: StoredSweep) -> None:
    counts = sweep.counts
    say(f"Sweep {sweep.id}{f': {printable(sweep.name)}' if sweep.name else ''}")
    say()
    say_pairs(
        [
            ("Strategy", sweep.strategy_name),
            ("State", sweep.state),
            ("Trials", f"{counts.done:,} of {sweep.trials:,}"),
            ("Succeeded", f"{counts.success:,}" + (f", {counts.linked:,} there before" if counts.linked else "")),
            ("Failed", f"{counts.failed:,}"),
            ("Objective", f"{sweep.objective} ({sweep.direction})"),
            ("Sampler", f"{sweep.sampler} ({sweep.sampler_version})" if sweep.sampler_version else sweep.sampler),
            ("Time", duration(sweep.seconds)),
            ("Best verified", _verified(sweep)),
        ]
    )


def sweep_document(sweep: StoredSweep) -> dict[str, Any]:
    return dataclasses.asdict(sweep) | {"state": sweep.state}


_IN_LISTS = (
    *("id", "created_at", "name", "strategy_name", "state", "done", "trials", "success", "linked", "failed", "waiting"),
    *("running", "objective", "direction", "best_value", "best_trial", "verified", "sampler", "sampler_version"),
    *("seconds", "finished_at", "config_path", "fingerprint", "flow_run_id", "holders"),
)


def _listed_document(listed: Listed) -> dict[str, Any]:
    """Flat, and without the whole config, which `show --json` has."""
    counts = listed.sweep.counts
    known = sweep_document(listed.sweep) | dataclasses.asdict(counts) | dataclasses.asdict(listed)
    return {name: known[name] for name in _IN_LISTS if name != "done"} | {"done": counts.done}


def write_documents(
    documents: Sequence[dict[str, Any]], names: Sequence[str], format_: Format, output: Path | None
) -> None:
    """A row a document, a column a name."""
    with destination(output) as stream:
        write(format_, stream, names, [[document[name] for name in names] for document in documents])


def _say_list(found: Sequence[Listed]) -> None:
    if not found:
        return
    say_table(
        [("Sweep", "right"), ("Created (UTC)", "left"), ("Name", "left"), ("Strategy", "left"), ("State", "left"),
         ("Trials", "right"), ("Failed", "right"), ("Objective", "left"), ("Best", "right")],
        [
            [
                str(sweep.id), moment(sweep.created_at), printable(sweep.name or UNDEFINED),
                sweep.strategy_name, sweep.state, f"{sweep.counts.done:,}/{sweep.trials:,}", f"{sweep.counts.failed:,}",
                sweep.objective, measured(sweep.objective, listed.best_value),
            ]
            for listed in found
            for sweep in [listed.sweep]
        ],
    )  # fmt: skip


def _say_status(found: Sequence[Listed]) -> None:
    if not found:
        return
    say_table(
        [("Sweep", "right"), ("Name", "left"), ("State", "left"), ("Done", "right"), ("There before", "right"),
         ("Failed", "right"), ("Waiting", "right"), ("Running", "right"), ("Time", "right"), ("Run by", "left")],
        [
            [
                str(sweep.id), printable(sweep.name or sweep.strategy_name), sweep.state,
                f"{counts.done:,}/{sweep.trials:,}", f"{counts.linked:,}", f"{counts.failed:,}",
                f"{counts.waiting:,}", f"{counts.running:,}", duration(sweep.seconds), _held_by(listed.holders),
            ]
            for listed in found
            for sweep, counts in [(listed.sweep, listed.sweep.counts)]
        ],
    )  # fmt: skip


def _held_by(holders: Sequence[Holder]) -> str:
    """`alpha: 4711, 4712 (gone)`: processes by machine."""
    machines: dict[str, list[str]] = {}
    for holder in holders:
        gone = " (gone)" if holder.alive is False or (holder.alive is None and holder.expired) else ""
        machines.setdefault(holder.machine, []).append(f"{holder.pid}{gone}")
    return "; ".join(f"{machine}: {', '.join(pids)}" for machine, pids in machines.items()) or UNDEFINED


def _watched(settings: Settings, listed: Listed) -> Listed:
    """The sweep once it is finished, or nobody has worked on it for a while; until then a line says how far it is."""
    from ntrader.signals import interruptible
    from storage.patience import patiently
    from storage.standings import look_at

    reference, first, began = str(listed.sweep.id), listed.sweep.counts.done, time.monotonic()
    show, waiting, seen_working = standing_line(f"Sweep {listed.sweep.id}: "), False, began

    def database_away() -> None:
        nonlocal waiting
        waiting = True
        show(standing_of(listed, None, waiting=True))

    with interruptible():
        while listed.sweep.finished_at is None and time.monotonic() - seen_working < _NOBODY_SECONDS:
            seconds = time.monotonic() - began
            rate = (listed.sweep.counts.done - first) / seconds if seconds > _REFRESH_SECONDS else None
            show(standing_of(listed, rate, waiting=False))
            time.sleep(_REFRESH_SECONDS)
            listed = patiently(lambda: look_at(settings, reference), database_away)
            if waiting or listed.sweep.state == "running":
                waiting, seen_working = False, time.monotonic()
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K")
    return listed


def standing_of(listed: Listed, rate: float | None, *, waiting: bool) -> Standing:
    from ntrader.sweeps.standing import Standing

    counts, total = listed.sweep.counts, listed.sweep.trials
    eta = (total - counts.done) / rate if rate else None
    best, trial = listed.best_value, listed.best_trial
    return Standing(total, counts.done, counts.linked, counts.failed, rate, eta, best, trial, waiting)


def standing_line(prefix: str = "") -> Callable[[Standing], None]:
    """Written over on a terminal; elsewhere a line now and then."""
    live = sys.stderr.isatty()
    last, due, waited = "", 0.0, False

    def show(standing: Standing) -> None:
        nonlocal last, due, waited
        said = prefix + standing_text(standing)
        news, waited = standing.waiting_for_database and not waited, standing.waiting_for_database
        if live:
            sys.stderr.write(f"\r\x1b[2K{said}")
            sys.stderr.flush()
        elif news or (said != last and time.monotonic() >= due):
            talk(said)
            due = time.monotonic() + _SAY_SECONDS
        last = said

    return show


def standing_text(standing: Standing) -> str:
    parts = [f"{standing.done:,} of {standing.total:,} trials"]
    if standing.linked:
        parts.append(f"{standing.linked:,} there before")
    if standing.failed:
        parts.append(f"{standing.failed:,} failed")
    if standing.rate:
        parts.append(f"{standing.rate:,.1f}/s")
    if standing.eta is not None and standing.done < standing.total:
        parts.append(f"{duration(standing.eta)} to go")
    if standing.best is not None:
        parts.append(f"best {standing.best:,.4g} (trial {standing.best_trial})")
    if standing.waiting_for_database:
        parts.append("waiting for the database")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"


def measured(name: str, value: Any) -> str:
    """As lists of runs have it, but that trials which are near one another can be told apart."""
    from storage.fields import COUNTS, FRACTIONS

    if isinstance(value, float) and name not in COUNTS and name not in FRACTIONS:
        return number(value, 4)
    return cell(name, value)
