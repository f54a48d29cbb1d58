"""Stored runs as a comparison takes them, and their curves in one question."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from ntrader.errors import ConfigError, NotFoundError
from ntrader.settings import Settings
from storage import recording
from storage.compared import compare_runs
from storage.curves import read_curve, read_curves
from tests import factories


def saved(settings: Settings, equity: list[float] | None = None) -> UUID:
    run = factories.new_run()
    recording.start_run(settings, run)
    done = factories.execution(factories.run_result(equity))
    recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    return run.run_id


def failed(settings: Settings) -> UUID:
    run = factories.new_run()
    recording.start_run(settings, run)
    recording.save_failure(settings, run.run_id, recording.Failure("failed", "StrategyError", "it broke", None))
    return run.run_id


def test_runs_come_with_all_that_is_compared(settings: Settings) -> None:
    good, bad = saved(settings), failed(settings)

    comparison, runs = compare_runs(settings, [str(bad), "@last~1"], str(good)[:8])

    assert [run.run_id for run in runs] == [run.run_id for run in comparison.runs] == [bad, good]
    assert comparison.baseline == 1
    first, second = comparison.runs
    assert (first.status, first.error, first.metrics) == ("failed", "StrategyError: it broke", None)
    assert first.fingerprints["data"] is None
    assert second.fingerprints == dict(zip(("config", "data", "code", "engine", "environment"),
                                           (letter * 64 for letter in "abcde"), strict=True))  # fmt: skip
    assert second.metrics is not None
    assert second.metrics["total_return"] == runs[1].metrics.total_return  # type: ignore[union-attr]


def test_the_number_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigError, match="1 run cannot"):
        compare_runs(Settings(home=Path("/nowhere"), database_url="postgresql://nowhere.invalid/x"), ["@last"])


def test_what_is_not_there_is_said(settings: Settings) -> None:
    run = str(saved(settings))

    with pytest.raises(NotFoundError):
        compare_runs(settings, [run, str(uuid4())])
    with pytest.raises(NotFoundError):
        compare_runs(settings, [run, "@last"], "nobody")


def test_curves_are_read_together(settings: Settings) -> None:
    runs = [saved(settings, [100_000.0, 100_000.1 + number]) for number in range(3)]
    bad = failed(settings)

    curves = read_curves(settings, [*runs, bad, uuid4()])

    assert [curves[run].equity.tolist() for run in runs] == [[100_000.0, 100_000.1 + number] for number in range(3)]
    assert len(curves) == 3
    assert read_curve(settings, bad) is None
    assert read_curves(settings, []) == {}
