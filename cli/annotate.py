"""`ntrader history tag | note | name | archive | unarchive | delete`: what people say of runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import complete
from cli.filters import assignments
from cli.output import say, talk

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run ID, its first 4 or more characters, a name, @last, @last~1 or @best:SWEEP.",
        autocompletion=complete.runs,
    ),
]  # fmt: skip
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="One run or several.", autocompletion=complete.runs)
]


def tag(
    reference: RunArgument,
    tags: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", autocompletion=complete.tags)] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="KEY", help="Repeatable.")] = None,
) -> None:
    """Put tags on a run, or take them off; without either, show them."""
    from ntrader.settings import load_settings
    from storage.labels import set_tags
    from storage.runs import get_run

    settings = load_settings()
    if tags or remove:
        set_tags(settings, [reference], assignments(tags or []), remove or [])
    for key, value in sorted(get_run(settings, reference).tags.items()):
        say(f"{key}={value}")


def note(
    reference: RunArgument,
    words: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Replaces the note.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the note.")] = False,
) -> None:
    """Write a note on a run; without a text, show it."""
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage.labels import set_note
    from storage.runs import get_run

    settings = load_settings()
    if words and clear:
        raise ConfigError("a text and --clear cannot both be had", hint="Leave one of them out.")
    if words or clear:
        set_note(settings, reference, " ".join(words) if words else None)
    found = get_run(settings, reference).notes
    if found:
        say(found)


def name(
    reference: RunArgument,
    new: Annotated[str | None, typer.Argument(metavar="NAME", help="No other run may have it.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take the name away.")] = False,
) -> None:
    """Give a run a name, by which every command finds it; without one, show it."""
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage.labels import set_name
    from storage.runs import get_run

    settings = load_settings()
    if new and clear:
        raise ConfigError("a name and --clear cannot both be had", hint="Leave one of them out.")
    run_id = set_name(settings, reference, new) if new is not None or clear else None
    found = get_run(settings, str(run_id) if run_id else reference).name
    if found:
        say(found)


def archive(references: RunsArgument) -> None:
    """Put runs out of the lists; `--all` still lists them, and statistics still count them."""
    _archive(references, True)


def unarchive(references: RunsArgument) -> None:
    """Put archived runs back into the lists."""
    _archive(references, False)


def delete(
    references: RunsArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete runs with their metrics, trades and curves. That they were tried stays on record."""
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage.labels import delete_runs, look_at

    settings = load_settings()
    doomed = look_at(settings, references)
    for run in doomed:
        named = f" {run.name!r}" if run.name else ""
        lost = f", the original of {run.reproductions:,} reproductions" if run.reproductions else ""
        talk(f"{run.run_id}{named}  {run.strategy_name} {run.instrument_symbol} {run.execution_status},"
             f" {run.trades:,} trades{lost}")  # fmt: skip
    if dry_run:
        talk(f"{_runs(len(doomed))} would be deleted; nothing was.")
        return
    if not yes:
        try:
            agreed = typer.confirm(f"Delete {_runs(len(doomed))} for good?", err=True)
        except typer.Abort:
            raise ConfigError("nobody answered; nothing was deleted", hint="Use --yes in scripts.") from None
        if not agreed:
            talk("Nothing was deleted.")
            return
    deleted = delete_runs(settings, [str(run.run_id) for run in doomed])
    talk(f"{_runs(deleted)} deleted; the number of trials keeps counting {'it' if deleted == 1 else 'them'}.")


def register(app: typer.Typer) -> None:
    """Add the commands to `ntrader history`."""
    for command in (tag, note, name, archive, unarchive, delete):
        app.command()(command)


def _archive(references: list[str], archived: bool) -> None:
    from ntrader.settings import load_settings
    from storage.labels import set_archived

    ids = set_archived(load_settings(), references, archived)
    talk(f"{_runs(len(ids))} {'archived' if archived else 'back in the lists'}.")


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number:,} runs"
