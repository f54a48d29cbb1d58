"""Saving runs into a real PostgreSQL, and reading them back to the bit."""

from __future__ import annotations

from ntrader.settings import Settings
from storage import recording, runs
from tests import factories


def test_a_success_is_read_back_to_the_bit(settings: Settings) -> None:
    run, execution = factories.new_run(), factories.execution()
    metrics = factories.metrics_of(execution)

    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, metrics)

    stored = runs.get_run(settings, str(run.run_id))
    assert stored.execution_status == "success"
    assert stored.metrics is not None
    assert stored.metrics.sharpe_ratio == metrics.sharpe_ratio
    assert stored.sharpe_ratio == metrics.sharpe_ratio
    assert stored.config_snapshot == run.config.snapshot()
