"""What `--detach` means wherever it is offered: submit it to a deployment instead of doing it here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import progress_line, say, say_json, say_pairs, talk

if TYPE_CHECKING:
    from flows.detach import Submitted

Detach = Annotated[
    bool, typer.Option("--detach", help="Submit it to its Prefect deployment, and end; `ntrader watch` follows it.")
]
# The same by another name.
Deploy = Annotated[bool, typer.Option("--deploy", hidden=True)]


def submit(work: Callable[[], Submitted], *, json_output: bool) -> None:
    """Do it and say what was submitted; what stands in its way is said on stderr."""
    from ntrader import progress

    show, clear = progress_line()
    progress.listen(show)
    try:
        submitted = work()
    finally:
        clear()
    flow_run = submitted.flow_run
    if json_output:
        document = {
            "run_id": submitted.run_id,
            "flow_run_id": flow_run.id,
            "flow_run_name": flow_run.name,
            "url": flow_run.url,
            "deployment": submitted.deployment,
            "state": flow_run.state,
        }
        say_json(document)
    else:
        say(f"Submitted to {submitted.deployment}: {flow_run.name}")
        say()
        run_id = [("Run ID", str(submitted.run_id))] if submitted.run_id else []
        say_pairs([("Flow run", flow_run.url), *run_id])
    for obstacle in submitted.obstacles:
        talk(f"Warning: {obstacle}")
    talk(f"Follow it with: ntrader watch {str(submitted.run_id or flow_run.id)[:8]}")


def require_saving(*, persistence: bool, no_persist: bool) -> None:
    """Raises ConfigError where nothing would be left of it."""
    from ntrader.errors import ConfigError

    if no_persist or not persistence:
        why = "--no-persist" if no_persist else "ENABLE_BACKTEST_PERSISTENCE=false"
        raise ConfigError(
            f"--detach and {why} do not go together: its result is in the database, or nowhere",
            hint="Leave one of them out.",
        )
