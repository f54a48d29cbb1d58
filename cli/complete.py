"""What the shell offers at TAB. A completion never speaks, never fails, and starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Names, Run IDs, @last and @best:SWEEP, each with what it is."""
    from storage.known import recent_runs, runs_that_begin

    found = [("@last", "the newest run"), *_asked(recent_runs)]
    if incomplete.startswith("@b"):
        found = [(f"@best:{name}", f"the best trial of {what}") for name, what in sweeps("")]
    if len(incomplete) >= 4 and set(incomplete.lower()) <= set("0123456789abcdef-"):
        found += _asked(lambda connection: runs_that_begin(connection, incomplete))
    return [pair for pair in dict(found).items() if pair[0].startswith(incomplete)]


def sweeps(incomplete: str) -> list[tuple[str, str]]:
    """Numbers, names and @last, each with what it is."""
    from storage.known import recent_sweeps

    found = [("@last", "the newest sweep"), *_asked(recent_sweeps)]
    return [pair for pair in dict(found).items() if pair[0].lower().startswith(incomplete.lower())]


def strategies(incomplete: str) -> list[str]:
    """Keys of the known strategies, and the names of those that have runs."""
    from ntrader.strategies.registry import STRATEGIES
    from storage.known import distinct

    names = _asked(lambda connection: distinct(connection, "strategy_name"))
    return _fitting([*(entry.key for entry in STRATEGIES), *names], incomplete)


def symbols(incomplete: str) -> list[str]:
    from storage.known import distinct

    return _fitting(_asked(lambda connection: distinct(connection, "instrument_symbol")), incomplete)


def tags(incomplete: str) -> list[str]:
    from storage.known import recent_tags

    return _fitting(_asked(recent_tags), incomplete)


def _asked(question: Callable[[Any], list[Any]]) -> list[Any]:
    """The answer of the database; nothing where there is none, because a person is in the middle of a word."""
    import psycopg

    from ntrader.errors import NtraderError
    from ntrader.settings import load_settings
    from storage.known import connect_if_there

    try:
        connection = connect_if_there(load_settings())
        if connection is None:
            return []
        with connection:
            return question(connection)
    except (NtraderError, psycopg.Error, OSError):
        return []


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.lower().startswith(incomplete.lower())]
