"""`ntrader status` and `ntrader down`: the services that ntrader starts by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.output import say_json, say_table, talk


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
    """Stop the local Prefect server and the embedded PostgreSQL. Nothing that is stored is lost."""
    from ntrader.settings import load_settings
    from tasks.services import stop_services

    stopped = stop_services(load_settings())
    talk(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
