"""`ntrader notify`: being told of failures, of drift, of what a schedule has finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import progress_line, say_json, say_table, talk
from ntrader.errors import ServiceError
from ntrader.notices import OCCASIONS, read_address, read_name, read_occasions

if TYPE_CHECKING:
    from ntrader.settings import Settings

app = typer.Typer(
    help="Be told of failures, of drift, of what a schedule has finished.", no_args_is_help=True, rich_markup_mode=None
)

_DEFAULT = ["failure", "drift", "late"]
_Name = Annotated[str, typer.Argument(help="Its name, as `ntrader notify list` shows it.", show_default=False)]


@app.command("add")
def add(
    url: Annotated[
        str,
        typer.Argument(
            help="Where to: https://... of a webhook or of Slack, or mailtos://user:password@host?to=address.",
            show_default=False,
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What to be told of: {', '.join(OCCASIONS)}; may be given more than once."
            f" [default: {', '.join(_DEFAULT)}]",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="webhook, slack or email; by default the URL tells.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="By default its kind.", show_default=False)] = None,
) -> None:
    """Have Prefect's server tell somebody.

    A webhook gets a POST with the JSON fields subject, body and text. The URL is kept in Prefect's database, encrypted,
    and never shown again. Told are flow runs of deployments, not what is run at a terminal.
    """
    address = read_address(url, kind)
    occasions = read_occasions(on or _DEFAULT)
    wanted = read_name(address.kind if name is None else name)
    with _notifications():
        from tasks.notify import add as create

        found = create(wanted, address, occasions)
    talk(
        f"Notification {found.name}: {found.shown} is told of {', '.join(found.occasions)}."
        f" `ntrader notify test {found.name}` sends one now."
    )


@app.command("list")
def list_notifications(json_output: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """Show who is told of what; secrets are masked."""
    with _notifications():
        from tasks.notify import listed

        found = listed()
    if json_output:
        say_json({"notifications": [dataclasses.asdict(each) for each in found]})
        return
    if not found:
        talk("Nobody is told of anything. `ntrader notify add URL` changes that.")
        return
    say_table(
        [("Name", "left"), ("Kind", "left"), ("Told of", "left"), ("Where", "left"), ("State", "left")],
        [
            [each.name, each.kind, ", ".join(each.occasions), each.shown, "on" if each.enabled else "paused"]
            for each in found
        ],
    )


@app.command("remove")
def remove(name: _Name) -> None:
    """Tell them no more."""
    with _notifications():
        from tasks.notify import remove as delete

        delete(name)
    talk(f"Removed: {name}.")


@app.command("test")
def test(name: _Name) -> None:
    """Have the server send one now; exit code 5 when it could not."""
    with _notifications() as settings:
        from ntrader import progress
        from tasks.notify import send_test
        from tasks.server import ensure_server

        api_url = ensure_server(settings)
        progress.report("Waiting for the server to send it")
        sent = send_test(name, api_url)
    if not sent.arrived:
        raise ServiceError(
            f"notification {name!r} was not sent: {sent.trouble}",
            hint=f"Is the other end up? For another URL `ntrader notify remove {name}`, then add it again.",
        )
    talk(f"Sent: {name}.")


@contextmanager
def _notifications() -> Iterator[Settings]:
    """Prefect's server is there, and what is asked of it goes to it."""
    from flows.launch import connected
    from ntrader import progress
    from ntrader.settings import load_settings
    from ntrader.signals import interruptible
    from tasks.server import prepare_client

    settings = load_settings()
    show, clear = progress_line()
    progress.listen(show)
    try:
        with interruptible():
            prepare_client(settings)
            with connected(settings):
                yield settings
    finally:
        clear()
