"""`ntrader doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import say_json, talk
from ntrader.errors import DatabaseError, NtraderError

if TYPE_CHECKING:
    from ntrader.settings import Settings
    from storage.doctor import Finding

_WIDEST = 1_000


def doctor(
    mend: Annotated[
        bool,
        typer.Option(
            "--mend",
            help="First put in order what processes that were killed have left behind: runs and flow runs marked as"
            " over, trials given back.",
        ),
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
) -> None:
    """Check all that runs need, and say what to do; exit code 5 when something is wrong, 0 for warnings.

    Without --mend it changes nothing, and it never migrates. Without DATABASE_URL it starts the embedded PostgreSQL,
    which a run would start too.
    """
    from ntrader.settings import load_settings
    from tasks.doctor import examine

    settings = load_settings()
    if mend:
        _mend(settings)
    findings = examine(settings)
    bad = [finding.name for finding in findings if finding.state == "wrong"]
    if json_output:
        say_json({"ok": not bad, "checks": [finding.document() for finding in findings]})
    else:
        _say(findings)
    if bad:
        raise DatabaseError(
            f"something is wrong with {', '.join(bad)}", hint="Do what the last column says, from the top down."
        )


def _mend(settings: Settings) -> None:
    """What stands in the way is among the findings, which come after."""
    from tasks.reaper import mend

    try:
        said = mend(settings).sentences()
    except NtraderError as error:
        said = [f"Not everything could be put in order: {error.message}."]
    for sentence in said or ["There was nothing to put in order."]:
        talk(sentence)


def _say(findings: list[Finding]) -> None:
    """Sentences may wrap, unlike numbers: on a terminal they do, in their columns; a pipe gets a line each."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("Check", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Found", overflow="fold")
    table.add_column("What to do", overflow="fold")
    for finding in findings:
        table.add_row(finding.name, finding.state, finding.found, finding.fix)
    Console(width=None if sys.stdout.isatty() else _WIDEST, highlight=False, markup=False).print(table)
