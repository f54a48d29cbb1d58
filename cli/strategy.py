"""`ntrader strategy`: what can be run."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from cli.formats import UNDEFINED
from cli.output import say, say_json, say_pairs, say_table

app = typer.Typer(help="List strategies and show their parameters.", no_args_is_help=True, rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.command("list")
def list_(json_output: JsonOption = False) -> None:
    """The strategies that have a short name. Any Nautilus strategy runs by its import path as well."""
    from ntrader.strategies.registry import STRATEGIES

    if json_output:
        say_json({"strategies": [dataclasses.asdict(entry) for entry in STRATEGIES]})
        return
    say_table(
        [("Key", "left"), ("Name", "left"), ("Type", "left"), ("What it does", "left")],
        [[entry.key, entry.name, entry.strategy_type, entry.summary] for entry in STRATEGIES],
    )


@app.command()
def show(
    strategy: Annotated[str, typer.Argument(help="Key, name or import path.")], json_output: JsonOption = False
) -> None:
    """A strategy's parameters, with their types and defaults."""
    from ntrader.strategies.loader import load_strategy, parameters_of
    from ntrader.strategies.registry import strategy_path

    found = load_strategy(strategy_path(strategy))
    parameters = parameters_of(found)
    if json_output:
        document = {"name": found.name, "strategy_type": found.strategy_type, "path": found.path}
        say_json({**document, "parameters": [dataclasses.asdict(parameter) for parameter in parameters]})
        return
    say(found.name)
    say_pairs([("Type", found.strategy_type), ("Path", found.path)])
    if not parameters:
        say("\nIt has no parameters.")
        return
    say_table(
        [("Parameter", "left"), ("Type", "left"), ("Default", "right"), ("Meaning", "left")],
        [
            [item.name, item.type, "required" if item.required else _default(item.default), item.description]
            for item in parameters
        ],
    )


def _default(value: object) -> str:
    return UNDEFINED if value is None else str(value)
