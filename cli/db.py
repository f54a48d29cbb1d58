"""`ntrader db`: the tables, as a schema and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import say, talk

if TYPE_CHECKING:
    from ntrader.settings import Settings

app = typer.Typer(
    help="Create, migrate and check the tables; back them up and restore them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def upgrade(revision: Annotated[str, typer.Argument(help="Up to this revision.")] = "head") -> None:
    """Create the tables, or bring them to this version. Safe to repeat, and to run twice at once."""
    from ntrader.settings import load_settings
    from storage import migrations

    settings = load_settings()
    migrations.upgrade(settings, revision)
    talk(f"{settings.masked_database_url} is at {migrations.current(settings)}.")


@app.command()
def current() -> None:
    """The revision that the database is at."""
    from ntrader.settings import load_settings
    from storage import migrations

    say(migrations.current(load_settings()) or "none")


@app.command()
def check() -> None:
    """Whether the tables are what this version needs; exit code 5 when not."""
    from ntrader.settings import load_settings
    from storage import migrations

    settings = load_settings()
    migrations.check(settings)
    say(f"{settings.masked_database_url} is up to date ({migrations.current(settings)}).")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it, such as ntrader.dump.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write every run, with all that belongs to it, to one file (pg_dump's custom format)."""
    from ntrader.settings import load_settings
    from ntrader.signals import interruptible
    from storage.backup import back_up

    with interruptible():
        done = back_up(load_settings(), file, force=force)
    if done.left_out:
        talk(f"Left out, because they are not ntrader's: {', '.join(done.left_out)}.")
    talk(f"{done.path}: {_runs(done.runs)}, {_megabytes(done.size)}.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `ntrader db backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Give up the runs that are there; asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Bring back what a backup holds. All or nothing: after a failure everything is as it was."""
    from ntrader.settings import load_settings
    from ntrader.signals import interruptible
    from storage import backup

    settings = load_settings()
    with interruptible():
        archive = backup.look_into(settings, file)
        if replace and not yes and (runs := backup.recorded_runs(settings)):
            _confirm(settings, runs, file)
        done = backup.restore(settings, archive, replace=replace)
    talk(f"{settings.masked_database_url}: {_runs(done.runs)} restored, {_megabytes(file.stat().st_size)} read.")
    if done.behind:
        talk(f"Its tables are at {done.revision}: run `ntrader db upgrade`.")


def _confirm(settings: Settings, runs: int, file: Path) -> None:
    import sys

    from ntrader.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(f"{_runs(runs)} would be given up, and nobody can be asked", hint="Say --yes as well.")
    question = f"Give up {_runs(runs)} in {settings.masked_database_url} for those of {file}?"
    if not typer.confirm(question, err=True):
        raise ConfigError("not confirmed: nothing was changed")


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
