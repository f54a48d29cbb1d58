"""`ntrader up`, `ntrader status` and `ntrader down`: the services that ntrader starts by itself."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import say, say_json, say_table, talk
from ntrader.errors import ConfigError

if TYPE_CHECKING:
    from ntrader.settings import Settings
    from tasks.flow_runs import FlowRun
    from tasks.services import Overview, ServiceState

_SERVICES = [
    ("Service", "left"),
    ("State", "left"),
    ("Version", "left"),
    ("Where", "left"),
    ("PID", "right"),
    ("Memory", "right"),
    ("Up", "right"),
    ("Log", "left"),
]
_FLOW_RUNS = [("Flow run", "left"), ("State", "left"), ("For", "right"), ("Worker", "left"), ("Page", "left")]


def up(
    host: Annotated[
        str | None,
        typer.Option(
            help="The address that the Prefect server listens on, for other machines to reach it: 0.0.0.0 is every one"
            " of this machine. Without this option as before, at first 127.0.0.1.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start all that is missing: the database, the Prefect server with its pages, the deployments and a worker.

    Says what runs where. Two at once are safe, and a second one finds everything there. What processes that were killed
    have left behind is put in order.
    """
    from cli.output import progress_line
    from flows.launch import bring_up
    from ntrader import progress
    from ntrader.settings import load_settings

    settings = load_settings()
    if host and settings.prefect_api_url:
        raise ConfigError(
            f"--host {host} is for the local Prefect server, and PREFECT_API_URL names another",
            hint="Unset PREFECT_API_URL, or leave --host away.",
        )
    show, clear = progress_line()
    progress.listen(show)
    try:
        found = bring_up(settings, host)
    finally:
        clear()
    for sentence in found.mended.sentences():
        talk(sentence)
    talk(f"Deployments: {', '.join(found.deployments)}.")
    _warn_of_guests(settings)
    status()


def status(json_output: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """What runs where, and which flow runs are going on. Starts nothing; exit code 0 whether or not something runs."""
    from ntrader.settings import load_settings
    from tasks.services import overview

    settings = load_settings()
    found = overview(settings)
    if json_output:
        say_json({"home": str(settings.home), **_document(found)})
        return
    say_table(_SERVICES, [_service_row(state) for state in found.services])
    if found.flow_runs:
        say()
        say_table(_FLOW_RUNS, [_flow_run_row(run, found.ui_url or "") for run in found.flow_runs])
    if found.late:
        talk(f"{found.late:,} flow runs wait for a worker though their time has come; `ntrader up` starts one.")
    if found.trouble:
        talk(f"Flow runs are not shown: {found.trouble}.")


def down(
    force: Annotated[bool, typer.Option("--force", help="Interrupt what is going on.")] = False,
) -> None:
    """Stop the worker, the local Prefect server and the embedded PostgreSQL. Nothing that is stored is lost.

    Where a flow run is going on nothing is stopped, unless --force is given: then it is interrupted, and an interrupted
    sweep can be resumed. What DATABASE_URL and PREFECT_API_URL name is never stopped.
    """
    from ntrader.settings import load_settings
    from tasks.services import going_on, left_waiting, stop_services

    settings = load_settings()
    busy = [] if force else going_on(settings)
    if busy:
        raise ConfigError(
            f"{len(busy)} flow run{' is' if len(busy) == 1 else 's are'} going on: {', '.join(busy)}",
            hint="Wait, cancel them in Prefect's pages, or `ntrader down --force`.",
        )
    waiting = left_waiting(settings)
    found = stop_services(settings)
    talk(f"Stopped: {', '.join(found.services)}." if found.services else "Nothing was running.")
    if found.interrupted:
        talk(f"Interrupted: {', '.join(found.interrupted)}. `ntrader sweep resume` goes on with a sweep.")
    if waiting:
        what = "1 flow run waits" if waiting == 1 else f"{waiting:,} flow runs wait"
        talk(f"{what} for a worker: the next `ntrader up` starts one.")


def _warn_of_guests(settings: Settings) -> None:
    """A deployment runs what it is asked to run."""
    import os

    from tasks.server import running_server

    found = None if settings.prefect_api_url else running_server(settings.home)
    if found is None or found.is_loopback:
        return
    talk(f"The Prefect server is open to {found.host} until `ntrader down`; a plain `ntrader up` after that closes it.")
    if "PREFECT_SERVER_API_AUTH_STRING" not in os.environ:
        talk(
            f"Whoever reaches {found.host} may start, change and cancel flow runs. Set PREFECT_SERVER_API_AUTH_STRING"
            " and PREFECT_API_AUTH_STRING (user:password) to ask for a login, then `ntrader down` and `ntrader up`"
            " again."
        )


def _document(found: Overview) -> dict[str, Any]:
    return {
        "services": [dataclasses.asdict(state) for state in found.services],
        "flow_runs": [run.document(found.ui_url or "") for run in found.flow_runs],
        "late": found.late,
        "trouble": found.trouble,
    }


def _service_row(state: ServiceState) -> list[str]:
    memory = "-" if state.memory_bytes is None else f"{state.memory_bytes / 1e6:,.0f} MB"
    up_for = "-" if state.uptime_seconds is None else _duration(state.uptime_seconds)
    return [
        state.name,
        state.state,
        state.version or "-",
        state.where,
        str(state.pid or "-"),
        memory,
        up_for,
        state.log or "-",
    ]


def _flow_run_row(run: FlowRun, ui_url: str) -> list[str]:
    since = (datetime.now(UTC) - run.since).total_seconds()
    return [run.name, run.state, _duration(since), run.worker or "-", f"{ui_url}/runs/flow-run/{run.id}"]


def _duration(seconds: float) -> str:
    days, rest = divmod(int(max(seconds, 0)), 86_400)
    clock = f"{rest // 3600}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
