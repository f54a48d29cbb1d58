"""Only the command that was asked for. Typer builds every option of every command before it looks at the line, which
takes longer than asking the database."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

COMPLETION = "_NTRADER_COMPLETE"


def narrowed(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """`app` with nothing beside the path that `words` begin with; whole where they name no command, as --help does."""
    if COMPLETION in os.environ or not words:
        return app
    slim = copy.copy(app)
    commands = [command for command in app.registered_commands if _name(command) == words[0]]
    if commands:
        slim.registered_commands, slim.registered_groups = commands, []
        return slim
    for group in app.registered_groups:
        if group.name == words[0] and group.typer_instance is not None:
            inner = copy.copy(group)
            inner.typer_instance = narrowed(group.typer_instance, words[1:])
            slim.registered_commands, slim.registered_groups = [], [inner]
            return slim
    return app


def _name(command: CommandInfo) -> str | None:
    return command.name or (get_command_name(command.callback.__name__) if command.callback else None)
