"""`ntrader doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import say_json
from ntrader.errors import DatabaseError

if TYPE_CHECKING:
    from storage.doctor import Finding

_WIDEST = 1_000


def doctor(json_output: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """Check all that runs need, and say what to do; exit code 5 when something is wrong, 0 for warnings.

    Changes nothing and migrates nothing. Without DATABASE_URL it starts the embedded PostgreSQL, which a run
    would start too.
    """
    from ntrader.settings import load_settings
    from tasks.doctor import examine

    findings = examine(load_settings())
    bad = [finding.name for finding in findings if finding.state == "wrong"]
    if json_output:
        say_json({"ok": not bad, "checks": [finding.document() for finding in findings]})
    else:
        _say(findings)
    if bad:
        raise DatabaseError(
            f"something is wrong with {', '.join(bad)}", hint="Do what the last column says, from the top down."
        )


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
