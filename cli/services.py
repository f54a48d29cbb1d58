"""`ntrader up`, `ntrader status` and `ntrader down`: the services that ntrader starts by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import say_json, say_table, talk


def up() -> None:
    """Start all that is missing: the database, the Prefect server with its pages, the deployments and a worker.

    Says what runs where. Two at once are safe, and a second one finds everything there.
    """
    from cli.output import progress_line
    from flows.launch import bring_up
    from ntrader import progress
    from ntrader.settings import load_settings

    show, clear = progress_line()
    progress.listen(show)
    try:
        names = bring_up(load_settings())
    finally:
        clear()
    talk(f"Deployments: {', '.join(names)}.")
    status()


def status(json_output: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """What runs where. Starts nothing; exit code 0 whether or not something runs."""
    from ntrader.settings import load_settings
    from tasks.services import service_states

    settings = load_settings()
    states = service_states(settings)
    if json_output:
        say_json({"home": str(settings.home), "services": [state.document() for state in states]})
        return
    say_table(
        [
            ("Service", "left"),
            ("State", "left"),
            ("Where", "left"),
            ("PID", "right"),
            ("Memory", "right"),
            ("Log", "left"),
        ],
        [state.row() for state in states],
    )


def down() -> None:
    """Stop the worker, the local Prefect server and the embedded PostgreSQL. Nothing that is stored is lost."""
    from ntrader.settings import load_settings
    from tasks.services import stop_services

    stopped = stop_services(load_settings())
    talk(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
