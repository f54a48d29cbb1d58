"""`ntrader db`: the tables."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import say, talk

app = typer.Typer(help="Create, migrate and check the tables.", no_args_is_help=True, rich_markup_mode=None)


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
