"""What runs were fed: grouped over any number of stretches, in a number of queries that does not grow with the runs."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

import psycopg
import pytest

from ntrader import progress
from ntrader.settings import Settings
from storage import database, impact, recording
from storage.impact import data_uses
from storage.rows import moment
from tests import factories


def saved(settings: Settings, fingerprint: str = "f", *, archived: bool = False, **data: Any) -> UUID:
    """A successful run on these data."""
    config = factories.run_config(data={"symbol": "TEST", "venue": "SIM", "source": "catalog"} | data)
    run = factories.new_run(config=config)
    recording.start_run(settings, run)
    done = factories.execution()
    done = dataclasses.replace(done, fingerprints=dataclasses.replace(done.fingerprints, data=fingerprint))
    recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    if archived:
        with database.connect(settings) as connection:
            connection.execute("UPDATE backtest_runs SET archived = true WHERE run_id = %s", [run.run_id])
    return run.run_id


def failed(settings: Settings) -> None:
    run = factories.new_run()
    recording.start_run(settings, run)
    recording.save_failure(settings, run.run_id, recording.Failure("failed", "StrategyError", "it broke", "Traceback"))


def test_no_runs(cleared: Settings) -> None:
    assert data_uses(cleared) == ()


@pytest.mark.parametrize("stretch", [1, 2, 20_000])
def test_runs_are_together_where_words_and_bars_are_equal(
    cleared: Settings, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    monkeypatch.setattr(impact, "_STRETCH", stretch)
    first = saved(cleared)
    other_bars = saved(cleared, "g")
    second = saved(cleared)
    failed(cleared)
    other_words = saved(cleared, start="2020-01-01")
    saved(cleared, archived=True)
    third = saved(cleared)

    found = {use.run_ids: use for use in data_uses(cleared, run_ids=True)}

    assert set(found) == {(first, second, third), (other_bars,), (other_words,)}
    use = found[first, second, third]
    curve = factories.execution()
    assert (use.runs, use.newest, use.fingerprint) == (3, third, "f")
    assert (use.symbol, use.source, use.data["start"]) == ("TEST", "catalog", None)
    assert (use.start, use.end) == (moment(curve.first_bar), moment(curve.last_bar))
    assert found[(other_words,)].data["start"] == "2020-01-01"


def test_ids_come_only_when_asked_for(cleared: Settings) -> None:
    run_id = saved(cleared)
    (use,) = data_uses(cleared)
    assert (use.run_ids, use.newest) == ((), run_id)


def test_only_the_symbols_named(cleared: Settings) -> None:
    for symbol in ("AAPL", "IBM", "MSFT"):
        saved(cleared, symbol=symbol)
    assert sorted(use.symbol for use in data_uses(cleared, ["IBM", "MSFT", "NONE"])) == ["IBM", "MSFT"]
    assert data_uses(cleared, ["NONE"]) == ()


def test_the_number_of_queries_does_not_grow_with_the_runs(cleared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    execute = psycopg.Connection.execute

    def counted(self: Any, query: Any, *values: Any, **options: Any) -> Any:
        asked.append(str(query))
        return execute(self, query, *values, **options)

    def queries() -> int:
        asked.clear()
        data_uses(cleared, run_ids=True)
        return len(asked)

    saved(cleared)
    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    few = queries()
    for number in range(12):
        saved(cleared, f"f{number % 5}")
    assert queries() == few


def test_progress_is_told_in_runs(cleared: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        saved(cleared)
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(impact, "_STRETCH", 2)
    monkeypatch.setattr(progress, "_listener", lambda *words: told.append(words))
    data_uses(cleared)
    assert told == [("Reading what runs were fed", done, 5) for done in (0, 2, 4, 5)]
