"""config/postgres: owner, writer and reader on a server of its own. The writer runs backtests and sweeps, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from flows.backtest import backtest
from flows.launch import prefect_at
from flows.reproduce import reproduce
from flows.sweep import sweep
from ntrader.config import RunRequest
from ntrader.errors import DatabaseError
from ntrader.settings import Settings
from storage import database, labels, migrations, programs
from storage.runs import list_runs
from storage.sweeps import list_sweeps
from tests.conftest import dispose_engines
from tests.storage.conftest import Server, postgres16  # noqa: F401 - a fixture for here too

SCRIPTS = Path(__file__).parents[2] / "config" / "postgres"
OWNER, WRITER, READER = "keeper of runs", 'desk "one"', "analyst"
REFUSED = [
    "DELETE FROM backtest_runs",
    "DELETE FROM trials",
    "DELETE FROM sweeps",
    "TRUNCATE trades",
    "DROP TABLE trades",
    "ALTER TABLE trials ADD COLUMN mine int",
    "CREATE TABLE mine (id int)",
    "CREATE INDEX mine ON trials (state)",
    "CREATE TEMPORARY TABLE mine (id int)",
    "UPDATE performance_metrics SET total_return = 1",
    "UPDATE equity_curves SET points = 0",
    "UPDATE kept_contents SET content = ''",
    "UPDATE kept_data SET bars = 0",
    "INSERT INTO deleted_runs SELECT * FROM deleted_runs",
    "UPDATE alembic_version SET version_num = '001'",
    "SELECT setval('backtest_runs_id_seq', 1)",
    "ALTER TABLE backtest_runs DISABLE TRIGGER ALL",
    "CREATE ROLE mine",
]
REQUEST = {"strategy": "sma_crossover", "symbol": "AAPL", "start": "2010-01-01", "end": "2011-12-31"}


def psql(settings: Settings, script: str, **variables: str) -> None:
    found = programs.newest(settings)
    options = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
    with programs.way_to(settings, found) as (place, environment):
        done = found.run("psql", "-X", "-q", place, *options, "-f", str(SCRIPTS / script), environment=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.fixture
def roles(postgres16: Server, home: Path) -> Iterator[dict[str, Settings]]:  # noqa: F811
    """Settings by role, over a migrated database that the scripts made."""
    admin = Settings(home=home, database_url=postgres16.url())
    psql(admin, "owner.sql", owner=OWNER, database="desk")

    def as_role(name: str) -> Settings:
        user = "".join(f"%{ord(letter):02X}" for letter in name)
        return replace(admin, database_url=postgres16.socket_url("desk", user=user))

    try:
        migrations.upgrade(as_role(OWNER))
        for _ in range(2):  # again changes nothing
            psql(as_role(OWNER), "writer.sql", role=WRITER)
            psql(as_role(OWNER), "reader.sql", role=READER)
        yield {name: as_role(name) for name in (OWNER, WRITER, READER)}
    finally:
        dispose_engines()
        with database.connect(admin) as connection:
            connection.execute("DROP DATABASE desk WITH (FORCE)")
            for name in (WRITER, READER, OWNER):
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


def test_each_role_does_its_part_and_no_more(
    roles: dict[str, Settings], prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = roles[WRITER], roles[READER]
    assert writer.database_url
    monkeypatch.setenv("NTRADER_HOME", str(writer.home))
    monkeypatch.setenv("DATABASE_URL", writer.database_url)
    space = {"params": {"fast_period": [5, 10], "slow_period": [30]}}
    with prefect_at(prefect_server):
        run_id = backtest(RunRequest(**REQUEST)).run.run_id
        assert reproduce(str(run_id)).verdict.identical
        assert sweep(RunRequest(**REQUEST), space, workers=1).sweep.state == "finished"
    labels.set_archived(writer, [str(run_id)], True)

    assert len(list_runs(reader, 10).runs) == 3  # the archived one is left out
    assert [found.counts.success for found in list_sweeps(reader, 10)] == [2]
    for settings in (writer, reader):
        with database.connect(settings) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in REFUSED:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    with pytest.raises(DatabaseError, match="permission denied"):
        labels.delete_runs(writer, [str(run_id)])
    with pytest.raises(DatabaseError, match=r"read-only|permission denied"):
        labels.set_archived(reader, [str(run_id)], False)
    assert labels.delete_runs(roles[OWNER], ["@last"]) == 1
