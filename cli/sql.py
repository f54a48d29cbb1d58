"""`ntrader sql`: any question, in SQL. Light like `history`: neither Prefect nor the engine is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.formats import Format, destination, write
from cli.output import talk

if TYPE_CHECKING:
    from storage.query import Answer


def sql(
    statement: Annotated[str, typer.Argument(help="One statement that reads; - takes it from stdin.")],
    format_: Annotated[Format | None, typer.Option("--format", help="How to write the rows; table by default.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
) -> None:
    """Ask the database anything. It can change nothing: the transaction is read-only.

    COPY (SELECT ...) TO STDOUT is sent as PostgreSQL writes it. The tables are in docs/sql.md.
    """
    from ntrader.settings import load_settings
    from ntrader.signals import interruptible
    from storage.query import ask

    chosen = Format.json if json_output else format_
    question = _from_stdin() if statement == "-" else statement
    with interruptible(), ask(load_settings(), question) as answer:
        _write(answer, chosen, output)


def _write(answer: Answer, chosen: Format | None, output: Path | None) -> None:
    from ntrader.errors import ConfigError
    from storage.query import Copied, Table

    if isinstance(answer, Table):
        with destination(output) as stream:
            write(chosen or Format.table, stream, answer.columns, answer.rows)
    elif not isinstance(answer, Copied):
        talk(f"{answer.command}: the statement has no rows to show.")
    elif chosen is not None:
        raise ConfigError(f"COPY has a format of its own, and --format {chosen} does not go with it")
    else:
        with destination(output) as stream:
            for chunk in answer.chunks:
                stream.buffer.write(chunk)


def _from_stdin() -> str:
    from ntrader.errors import ConfigError

    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise ConfigError("the statement on stdin is not UTF-8 text") from None
