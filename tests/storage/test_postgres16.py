"""PostgreSQL 16 is the oldest that is promised to work: the migrations, a save and a read run on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage import database, migrations, recording, runs
from tests import factories
from tests.conftest import dispose_engines
from tests.storage.conftest import Server


@pytest.fixture
def settings16(postgres16: Server, home: Path) -> Iterator[Settings]:
    """An empty database on PostgreSQL 16, reached over TCP with a password."""
    owner = Settings(home=home, database_url=postgres16.url())
    with database.connect(owner) as connection:
        connection.execute("DROP DATABASE IF EXISTS sixteen")
        connection.execute("CREATE DATABASE sixteen")
    yield replace(owner, database_url=postgres16.url("sixteen"))
    dispose_engines()


def test_it_is_version_16(settings16: Settings) -> None:
    with database.connect(settings16) as connection:
        assert connection.info.server_version // 10_000 == 16


def test_up_down_up_and_nothing_to_migrate(settings16: Settings) -> None:
    migrations.upgrade(settings16)
    migrations.check(settings16)
    migrations.downgrade(settings16, "base")
    assert migrations.current(settings16) is None
    migrations.upgrade(settings16)
    assert migrations.current(settings16) == database.HEAD


def test_a_run_is_saved_and_read(settings16: Settings) -> None:
    migrations.upgrade(settings16)
    run, execution = factories.new_run(), factories.execution()
    recording.start_run(settings16, run)
    recording.save_success(settings16, run.run_id, execution, factories.metrics_of(execution))

    (stored,) = runs.list_runs(settings16, 10).runs

    assert stored == runs.get_run(settings16, "@last")
    assert (stored.run_id, stored.execution_status) == (run.run_id, "success")
    assert stored.config_snapshot == run.config.snapshot()
    assert stored.metrics is not None
    assert stored.metrics.sharpe_ratio == factories.metrics_of(execution).sharpe_ratio
