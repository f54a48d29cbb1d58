"""`ntrader watch`: what was submitted, followed to its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli import complete
from cli.output import complain, run_document, say_json, talk
from cli.run import say_summary
from cli.standings import standing_of, standing_text

if TYPE_CHECKING:
    from flows.follow import Subject
    from ntrader.settings import Settings
    from storage.runs import StoredRun
    from storage.sweeps import StoredSweep

_FAILED, _DIFFERENT = 4, 6
_SAY_SECONDS = 10.0


def watch(
    run: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="Run ID or the beginning of one, @last (begun or submitted), sweep:3, id or name of a flow run.",
            autocompletion=complete.runs,
        ),
    ],
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Follow what was submitted, and say at its end what the command itself would have said.

    Each change of state is said on stderr. Ctrl-C ends the watching, not the run. Exit code 4 when the run failed, 6
    when a reproduction came out otherwise.
    """
    from ntrader.settings import load_settings

    settings = load_settings()
    subject = _followed(settings, run)
    if subject.run is not None and subject.run.finished_at is not None:
        _say_run(settings, subject.run, json_output=json_output)
    elif subject.sweep is not None:
        _say_sweep(settings, subject, json_output=json_output)
    else:
        _say_flow_run(subject)


def _followed(settings: Settings, reference: str) -> Subject:
    from cli.output import progress_line
    from flows.follow import follow
    from ntrader import progress
    from ntrader.errors import Interruption

    stage, clear = progress_line()
    progress.listen(stage)
    show, subject = _state_line(), None
    try:
        for subject in follow(settings, reference):
            if subject.ended and subject.flow_run is None:
                break  # there was nothing to be followed
            show(subject)
    except Interruption:
        clear()
        if subject is not None and not subject.ended:
            talk(f"It goes on by itself. Follow it again with: ntrader watch {reference}")
        raise
    finally:
        progress.listen(None)
        clear()
    assert subject is not None  # a first look is always returned
    return subject


def _state_line() -> Callable[[Subject], None]:
    """One line that is written over on a terminal; elsewhere a line a change, and of a sweep one now and then."""
    live = sys.stderr.isatty()
    began = time.monotonic()
    state, due, first_done = "", 0.0, None

    def show(subject: Subject) -> None:
        nonlocal state, due, first_done
        found, now = _state(subject), time.monotonic()
        if found != state:
            sys.stderr.write("\r\x1b[2K" if live else "")
            talk(f"{datetime.now(UTC):%H:%M:%S} UTC  {found}")
            for obstacle in subject.obstacles if not state else ():
                talk(f"Warning: {obstacle}")
            state, due = found, now + _SAY_SECONDS
        elif live:
            sys.stderr.write(f"\r\x1b[2K{_standing(subject) or found}, {now - began:,.0f} s")
            sys.stderr.flush()
        elif subject.sweep is not None and now >= due:
            talk(_standing(subject))
            due = now + _SAY_SECONDS

    return show


def _state(subject: Subject) -> str:
    parts = [subject.flow_run.state if subject.flow_run else "Running"]
    if subject.away:
        parts = ["The Prefect server does not answer"]
    if subject.sweep is not None:
        parts.append(f"sweep {subject.sweep.sweep.id}")
    message = subject.flow_run.message if subject.flow_run else None
    if message and subject.flow_run and not subject.flow_run.succeeded:
        parts.append(message)
    return ": ".join(parts)


def _standing(subject: Subject) -> str:
    return standing_text(standing_of(subject.sweep, None, waiting=False)) if subject.sweep else ""


def _say_run(settings: Settings, run: StoredRun, *, json_output: bool) -> None:
    if json_output:
        say_json(run_document(run))
    else:
        say_summary(run, saved=True)
    if run.execution_status != "success":
        complain(f"run {run.run_id} {run.execution_status}: {run.error_message}")
        raise typer.Exit(_FAILED)
    if run.reproduced_from_run_id is not None:
        _say_verdict(settings, run)


def _say_verdict(settings: Settings, run: StoredRun) -> None:
    from storage.runs import find_run

    assert run.reproduced_from_run_id is not None
    original = find_run(settings, run.reproduced_from_run_id)
    if original is None or original.result_digest is None:
        return
    short = str(original.run_id)[:8]
    if original.result_digest == run.result_digest:
        talk(f"Identical to run {short}, to the bit.")
        return
    complain(
        f"the result is not that of run {short}",
        f"What differs: ntrader compare {short} {str(run.run_id)[:8]}. The cause: ntrader reproduce {short}",
    )
    raise typer.Exit(_DIFFERENT)


def _say_sweep(settings: Settings, subject: Subject, *, json_output: bool) -> None:
    from cli.sweep import say_outcome
    from storage.sweeps import ranking

    assert subject.sweep is not None
    sweep = subject.sweep.sweep
    best = next(iter(ranking(settings, sweep.id, sweep.objective, sweep.direction, 1)), None)
    say_outcome(sweep, best, None, json_output=json_output)
    if sweep.finished_at is None:
        complain(f"sweep {sweep.id} is {sweep.state}", f"Go on with: ntrader sweep resume {sweep.id}")
        raise typer.Exit(_FAILED)
    _require_best_verified(sweep)


def _require_best_verified(sweep: StoredSweep) -> None:
    if sweep.verified is False:
        complain(
            f"the best trial of sweep {sweep.id} does not come out the same when it is run by itself",
            f"`ntrader reproduce @best:{sweep.id}` looks for the cause.",
        )
        raise typer.Exit(_DIFFERENT)


def _say_flow_run(subject: Subject) -> None:
    """It made nothing that is in the database: it failed before that, or is of another kind."""
    flow_run = subject.flow_run
    assert flow_run is not None
    if flow_run.succeeded and flow_run.run_id is None:
        talk(f"{flow_run.name}: {flow_run.state}.")
        return
    if flow_run.succeeded:
        complain(
            f"flow run {flow_run.name} has completed, and run {flow_run.run_id} is not in this database",
            "Does its worker use another DATABASE_URL? `ntrader status` says which one is used here.",
        )
    else:
        complain(f"flow run {flow_run.name} is {flow_run.state}: {flow_run.message}", f"Its log: {flow_run.url}")
    raise typer.Exit(_FAILED)
