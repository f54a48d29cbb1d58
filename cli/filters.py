"""The options that say which runs, shared by all commands that take a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.complete import strategies, sweeps, symbols, tags

if TYPE_CHECKING:
    from storage.conditions import Filters
    from storage.search import Order


class Status(StrEnum):
    """`execution_status` as one types it."""

    running = "running"
    success = "success"
    failed = "failed"
    interrupted = "interrupted"


_DATE = "DATE"

StrategyOption = Annotated[
    list[str] | None,
    typer.Option("--strategy", "-s", help="Name, key or import path; repeatable.", autocompletion=strategies),
]
TypeOption = Annotated[str | None, typer.Option("--strategy-type", help="Such as trend_following.")]
SymbolOption = Annotated[
    list[str] | None, typer.Option("--symbol", help="Instrument; repeatable.", autocompletion=symbols)
]
StatusOption = Annotated[list[Status] | None, typer.Option("--status", help="Repeatable.")]
SourceOption = Annotated[str | None, typer.Option("--data-source", help="sample, catalog, csv, synthetic.")]
SweepOption = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="SWEEP",
        help="Trials of this sweep: its number, name or @last. Runs that it is linked to count.",
        autocompletion=sweeps,
    ),
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Repeatable: all hold.", autocompletion=tags)
]
AfterOption = Annotated[
    str | None, typer.Option("--after", metavar=_DATE, help="Run on or after: 2024-01-31, or 7d, 2w, 12h ago.")
]
BeforeOption = Annotated[str | None, typer.Option("--before", metavar=_DATE, help="Run before.")]
PeriodStartOption = Annotated[
    str | None, typer.Option("--period-start", metavar=_DATE, help="Tested on data from this day on, none earlier.")
]
PeriodEndOption = Annotated[
    str | None, typer.Option("--period-end", metavar=_DATE, help="Tested on data up to this day, none later.")
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        help="An expression over columns, metrics, params.NAME and tag.NAME:"
        ' "sharpe_ratio > 1 and params.fast_period between 5 and 20".',
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Archived runs too.")]
SortOption = Annotated[str, typer.Option("--sort", help="Any metric or date; best first.")]
AscOption = Annotated[bool, typer.Option("--asc", help="Smallest first.")]
DescOption = Annotated[bool, typer.Option("--desc", help="Largest first.")]


def filters(**given: Any) -> Filters:
    """The options' words as values. Raises ConfigError for a tag or a date that cannot be read."""
    from ntrader.moments import parse_end, parse_moment
    from storage.conditions import Filters

    moments: dict[str, Any] = {
        name: parse_moment(given[name]) if given.get(name) else None for name in ("after", "before", "period_start")
    }
    return Filters(
        strategies=tuple(strategy_name(text) for text in given.get("strategy") or ()),
        strategy_type=given.get("strategy_type"),
        symbols=tuple(given.get("symbol") or ()),
        statuses=tuple(status.value for status in given.get("status") or ()),
        data_source=given.get("data_source"),
        sweep=given.get("sweep"),
        tags=tuple(_tag(text) for text in given.get("tag") or ()),
        period_end=parse_end(given["period_end"]) if given.get("period_end") else None,
        where=given.get("where"),
        archived=bool(given.get("all_")),
        **moments,
    )


def order(sort: str, *, asc: bool, desc: bool) -> Order:
    """Raises ConfigError where both directions are asked for."""
    from ntrader.errors import ConfigError
    from storage.search import Order

    if asc and desc:
        raise ConfigError("--asc and --desc cannot both be had", hint="Leave one of them out.")
    chosen = Order(sort, desc if asc or desc else None)
    _ = chosen.resolved
    return chosen


def strategy_name(text: str) -> str:
    """The name a strategy's runs are recorded under."""
    from ntrader.strategies.registry import recorded_name

    return recorded_name(text)


def assignments(words: Sequence[str]) -> dict[str, str]:
    """`k=v` words. Raises ConfigError for one that is none."""
    return dict(_tag(word) for word in words)


def _tag(text: str) -> tuple[str, str]:
    from ntrader.errors import ConfigError

    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"the tag {text!r} is not KEY=VALUE", hint="Write it like team=fx.")
    return key.strip(), value.strip()
