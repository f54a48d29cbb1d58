"""The doctor on real servers, each with one thing wrong."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from ntrader.settings import Settings
from storage import database, doctor, leases, local, migrations, recording, trials
from storage.doctor import Finding, State
from storage.trials import Portion
from tests import factories
from tests.conftest import dispose_engines
from tests.storage import sweeps
from tests.storage.conftest import PASSWORD, Server, free_port


@pytest.fixture(autouse=True)
def _no_engine_left() -> Iterator[None]:
    yield
    dispose_engines()


@pytest.fixture
def at16(postgres16: Server, home: Path) -> Settings:
    """An empty database on a server with a password."""
    return Settings(home=home, database_url=postgres16.url())


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine(settings)}


def finding(settings: Settings, name: str) -> Finding:
    return findings(settings)[name]


def states(settings: Settings) -> dict[str, State]:
    return {name: found.state for name, found in findings(settings).items()}


def execute(settings: Settings, *statements: str) -> None:
    with database.connect(settings) as connection:
        for statement in statements:
            connection.execute(statement)


# -- nothing wrong -------------------------------------------------------------------------------------------


def test_a_database_in_order(settings: Settings) -> None:
    found = findings(settings)
    assert {name: each for name, each in found.items() if each.state is not State.ok} == {}
    assert found["Version"].found.startswith("PostgreSQL 18")
    assert found["Schema"].found == database.HEAD
    assert found["Statement timeout"].found == "a query is stopped after 30,000 ms"


def test_one_over_the_network(at16: Settings) -> None:
    execute(at16, "DROP DATABASE IF EXISTS healthy", "CREATE DATABASE healthy")
    settings = replace(at16, database_url=(at16.database_url or "").replace("/postgres", "/healthy"))
    migrations.upgrade(settings)
    found = findings(settings)
    assert {name for name, each in found.items() if each.state is not State.ok} == {"Data directory"}
    assert found["Data directory"].found == "the server is on another machine"
    assert found["Server"].found.startswith("127.0.0.1, port ")
    assert not any(PASSWORD in f"{each}" for each in found.values())


def test_looking_changes_nothing(empty: Settings) -> None:
    with database.connect(empty) as connection:
        session = doctor.Session(connection, empty)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            doctor._transaction(session, lambda each: each.rows("CREATE TABLE t (id int)"))
    findings(empty)
    assert migrations.current(empty) is None


def test_the_embedded_postgresql_is_started_and_not_migrated(embedded: Settings) -> None:
    migrations.downgrade(embedded, "base")
    dispose_engines()
    local.stop(embedded.home)
    found = findings(embedded)
    assert found["Server"].found.endswith("started just now")
    assert found["Schema"].state is State.ok
    assert found["Schema"].found.startswith("no tables yet; the next command that needs the tables")
    assert found["Tables"].state is State.skipped
    assert finding(embedded, "Server").found.endswith("running")
    assert migrations.current(embedded) is None


# -- no way in -----------------------------------------------------------------------------------------------


def turned_away(settings: Settings, door: str) -> Finding:
    """The one thing that is wrong, after making sure that what depends on it is skipped."""
    found = findings(settings)
    assert [name for name, each in found.items() if each.state is State.wrong] == [door]
    assert found["Schema"].state is State.skipped
    assert found["Schema"].found == f"needs {door}"
    assert found["Disk"].state is State.ok
    assert "S3cret" not in f"{found}"
    assert list(found) == list(findings(settings))
    return found[door]


def test_a_url_that_is_none(home: Path) -> None:
    found = turned_away(Settings(home=home, database_url="mysql://u:S3cret@h/d"), "DATABASE_URL")
    assert "not a PostgreSQL URL" in found.found
    assert "postgresql://user:password@host:5432/database" in found.fix


def test_a_server_that_is_down(home: Path) -> None:
    found = turned_away(Settings(home=home, database_url=f"postgresql://u:S3cret@127.0.0.1:{free_port()}/d"), "Server")
    assert found.found.endswith("Connection refused")
    assert "Is it running?" in found.fix


def test_a_host_that_nobody_knows(home: Path) -> None:
    found = turned_away(Settings(home=home, database_url="postgresql://u:S3cret@ntrader.invalid/d"), "Server")
    assert found.found.endswith("the host name is unknown")


def test_a_server_that_is_starting(home: Path) -> None:
    with closing(_says("the database system is starting up")) as server:
        port = server.getsockname()[1]
        found = turned_away(Settings(home=home, database_url=f"postgresql://u@127.0.0.1:{port}/d"), "Server")
    assert found.found.endswith("starting up")


def _says(message: str) -> socket.socket:
    """A server that answers each connection as PostgreSQL does while it starts, which takes it too short a time."""
    fields = b"SFATAL\0VFATAL\0C57P03\0M" + message.encode() + b"\0\0"
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.recv(8)  # SSLRequest or GSSENCRequest
                client.sendall(b"N")
                client.recv(1000)
                client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return server


def test_a_wrong_password(postgres16: Server, home: Path) -> None:
    found = turned_away(Settings(home=home, database_url=postgres16.url(password="S3cret too")), "Login")
    assert found.found.endswith("refused the password")
    assert found.fix == "Check user and password in DATABASE_URL."


def test_a_database_that_is_not_there(postgres16: Server, home: Path) -> None:
    settings = Settings(home=home, database_url=postgres16.url("nowhere"))
    found = turned_away(settings, "Database")
    assert "createdb" in found.fix
    assert (states(settings)["Server"], states(settings)["Login"]) == (State.ok, State.ok)


def test_a_server_that_is_full(postgres16: Server, at16: Settings) -> None:
    execute(at16, "DROP ROLE IF EXISTS lonely", "CREATE ROLE lonely LOGIN CONNECTION LIMIT 0")
    found = turned_away(replace(at16, database_url=postgres16.socket_url(user="lonely")), "Connections")
    assert found.found.endswith("has no connection left")
    assert "DB_POOL_SIZE" in found.fix


# -- the schema ----------------------------------------------------------------------------------------------


def test_no_tables(empty: Settings) -> None:
    found = findings(empty)
    assert (found["Schema"].state, found["Schema"].found) == (State.wrong, "the database has no ntrader tables yet")
    assert found["Schema"].fix == "Run `ntrader db upgrade`."
    assert found["Leftover tables"].state is State.ok
    assert {found[name].state for name in ("Tables", "Indexes", "Triggers", "Rights", "Runs")} == {State.skipped}


@pytest.mark.parametrize(
    ("revision", "said", "fix"),
    [
        ("000_before", "is at 000_before", "db upgrade"),
        ("999_after", "is at 999_after", "Upgrade ntrader"),
        ("a1b2c3d4", "another program's", "a database of its own"),
    ],
)
def test_another_revision(revision: str, said: str, fix: str, settings: Settings) -> None:
    execute(settings, f"UPDATE alembic_version SET version_num = '{revision}'")
    found = finding(settings, "Schema")
    assert found.state is State.wrong
    assert said in found.found
    assert fix in found.fix


def test_a_table_that_exists_already(empty: Settings) -> None:
    execute(empty, "CREATE TABLE trades (id int)")
    found = finding(empty, "Leftover tables")
    assert (found.state, found.found) == (State.wrong, "trades exist already, but no migration on record made them")
    assert "rename" in found.fix


@pytest.mark.parametrize(
    ("statement", "name", "said", "fix"),
    [
        ("DROP TABLE trades CASCADE", "Tables", "missing: trades", "Restore a backup"),
        ("ALTER TABLE trades DROP COLUMN fees CASCADE", "Tables", "missing: trades.fees", "Restore a backup"),
        ("DROP INDEX ix_backtest_runs_running", "Indexes", "missing: ix_backtest_runs_running",
         "CREATE INDEX ix_backtest_runs_running ON backtest_runs (lease_expires_at) WHERE"),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_backtest_runs_newest'::regclass", "Indexes",
         "not valid: ix_backtest_runs_newest", "REINDEX INDEX ix_backtest_runs_newest;"),
        ("ALTER TABLE backtest_runs DISABLE TRIGGER ALL", "Triggers",
         "disabled: backtest_runs_stay_whole, deleted_runs_are_remembered, finished_runs_are_immutable",
         "ALTER TABLE backtest_runs ENABLE TRIGGER finished_runs_are_immutable;"),
        ("ALTER TABLE deleted_runs DISABLE TRIGGER deleted_runs_stay", "Triggers", "disabled: deleted_runs_stay",
         "ALTER TABLE deleted_runs ENABLE TRIGGER deleted_runs_stay;"),
        ("DROP TRIGGER deleted_runs_are_remembered ON backtest_runs", "Triggers",
         "missing: deleted_runs_are_remembered", "Restore a backup"),
        ("DROP TRIGGER trades_stay ON trades", "Triggers", "missing: trades_stay", "Restore a backup"),
    ],
)  # fmt: skip
def test_tables_that_somebody_changed(statement: str, name: str, said: str, fix: str, settings: Settings) -> None:
    execute(settings, statement)
    found = finding(settings, name)
    assert (found.state, found.found) == (State.wrong, said)
    assert fix in found.fix


@pytest.mark.parametrize("mended", ["Indexes", "Triggers"])
def test_what_the_doctor_says_mends_it(mended: str, settings: Settings) -> None:
    execute(settings, "DROP INDEX ix_backtest_runs_newest", "ALTER TABLE trades DISABLE TRIGGER ALL")
    execute(settings, *finding(settings, mended).fix.rstrip(";").split(";"))
    assert finding(settings, mended).state is State.ok


# -- runs that are not saved ---------------------------------------------------------------------------------


def test_recording_that_is_off(settings: Settings) -> None:
    found = finding(replace(settings, persistence=False), "Recording")
    assert (found.state, found.fix) == (State.warning, "Unset ENABLE_BACKTEST_PERSISTENCE.")


@pytest.fixture
def reader(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """A role that may read runs and nothing else; its name has to be quoted."""
    assert settings.database_url
    role = f"reader-{uuid4().hex[:8]}"
    execute(settings, f'CREATE ROLE "{role}" LOGIN', f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    yield role, replace(settings, database_url=settings.database_url.replace("ntrader@", f"{role}@"))
    execute(settings, f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


def test_a_user_who_may_only_read(settings: Settings, reader: tuple[str, Settings]) -> None:
    role, theirs = reader
    found = findings(theirs)
    assert [name for name, each in found.items() if each.state is State.wrong] == ["Rights"]
    assert found["Rights"].found.startswith(f"{role} may not INSERT, UPDATE, USAGE in ")
    assert found["Data directory"].found == "the server does not tell this user where it is"

    execute(settings, *found["Rights"].fix.rstrip(";").split(";"))

    assert finding(theirs, "Rights").state is State.ok
    recording.start_run(theirs, factories.new_run())
    sweeps.stored(theirs, [0.1, "exception"])


def test_a_database_that_only_reads(settings: Settings) -> None:
    read_only = replace(settings, database_url=f"{settings.database_url}&options=-c%20default_transaction_read_only=on")
    found = finding(read_only, "Writing")
    assert (found.state, found.found) == (State.wrong, "default_transaction_read_only is on: runs are not saved")


# -- runs ----------------------------------------------------------------------------------------------------


def test_a_run_whose_process_is_gone(settings: Settings) -> None:
    child = os.fork()
    if child == 0:
        recording.start_run(settings, factories.new_run())
        os._exit(0)
    os.waitpid(child, 0)
    found = finding(settings, "Runs")
    assert (found.state, found.found) == (State.warning, "1 marked running, though what ran it is gone")
    assert finding(settings, "Runs") == found, "looking does not mark it"


def test_a_run_of_another_machine_whose_lease_is_out(settings: Settings) -> None:
    for _ in range(2):
        recording.start_run(settings, factories.new_run())
    execute(settings, "UPDATE backtest_runs SET lease_owner = 'elsewhere/1/1'")
    assert finding(settings, "Runs").found == "2 running"
    execute(settings, "UPDATE backtest_runs SET lease_expires_at = now() - interval '1 s'")
    assert finding(settings, "Runs").found == "2 marked running, though what ran them is gone"


def test_trials_whose_process_is_gone(settings: Settings) -> None:
    numbers = [sweeps.written(settings, 3) for _ in range(2)]
    assert finding(settings, "Sweeps") == Finding.of("Sweeps", doctor.ok("none left behind"))
    for number in numbers:
        trials.reserve(settings, number, uuid4(), leases.owner(), Portion(2))
    assert finding(settings, "Sweeps").found == "2 running"
    execute(settings, "UPDATE trials SET lease_owner = 'elsewhere/1/1', lease_expires_at = now() - interval '1 s'"
                      f" WHERE sweep_id = {numbers[1]} AND state = 'running'")  # fmt: skip
    found = finding(settings, "Sweeps")
    assert (found.state, found.found) == (
        State.warning,
        f"2 trials of sweep {numbers[1]} marked running, though what ran them is gone",
    )
    assert f"`ntrader sweep resume {numbers[1]}`" in found.fix


# -- slow queries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "state"), [(0, State.warning), (500, State.warning), (1000, State.ok)])
def test_the_statement_timeout(limit: int, state: State, settings: Settings) -> None:
    assert finding(replace(settings, db_statement_timeout=limit), "Statement timeout").state is state


def test_the_timeout_of_the_url_wins(settings: Settings) -> None:
    own = replace(settings, database_url=f"{settings.database_url}&options=-c%20statement_timeout=0")
    assert finding(own, "Statement timeout").state is State.warning


def test_tables_that_were_never_analysed_or_vacuumed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MANY_ROWS", 100)  # ten thousand real runs would take a minute
    execute(
        settings,
        "ALTER TABLE backtest_runs SET (autovacuum_enabled = false)",
        *_many_runs(200),
        "DELETE FROM backtest_runs WHERE id % 2 = 0",
        "SELECT pg_stat_force_next_flush()",
    )
    found = findings(settings)
    assert found["Statistics"].found == "never analysed: backtest_runs, deleted_runs; queries may be slow"
    assert found["Dead rows"].found == "backtest_runs: 50% of the rows are dead"

    execute(settings, found["Dead rows"].fix, "ANALYZE deleted_runs")

    assert {states(settings)[name] for name in ("Statistics", "Dead rows")} == {State.ok}


def _many_runs(count: int) -> list[str]:
    columns = ("run_id, strategy_name, strategy_type, strategy_path, instrument_symbol, data_source, initial_capital,"
               " execution_status, config_snapshot, lease_owner, lease_expires_at")  # fmt: skip
    values = "gen_random_uuid(), 's', 't', 'p', 'A', 'sample', 1, 'running', '{}', 'elsewhere/1/1', now() + '1 h'"
    return [f"INSERT INTO backtest_runs ({columns}) SELECT {values} FROM generate_series(1, {count})"]


def test_a_query_that_has_run_for_long(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LONG_QUERY_SECONDS", 0)
    with closing(database.connect(settings, autocommit=False)) as other:
        other.execute("SELECT 1")
        time.sleep(1)
        found = finding(settings, "Long queries")
        pid = other.info.backend_pid
        assert found.state is State.warning
        assert found.found.startswith(f"process {pid} (ntrader) is idle in transaction for ")
        execute(settings, found.fix.partition(": ")[2])
    assert finding(settings, "Long queries").state is State.ok


# -- room ----------------------------------------------------------------------------------------------------


def test_a_pool_larger_than_the_server(settings: Settings) -> None:
    found = finding(replace(settings, db_pool_size=500), "Connections")
    assert found.state is State.warning
    assert found.found.endswith("in use; one process of ntrader may take 510")
    assert finding(replace(settings, db_pool_size=500, db_max_overflow=-1), "Connections").state is State.ok


def test_a_server_nearly_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEARLY_FULL", 0)
    found = finding(settings, "Connections")
    assert (found.state, "max_connections" in found.fix) == (State.warning, True)


@pytest.mark.parametrize(("no_space", "state"), [(0, State.warning), (10**18, State.wrong)])
def test_little_space(no_space: int, state: State, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_SPACE", 10**18)
    monkeypatch.setattr(doctor, "NO_SPACE", no_space)
    found = findings(settings)
    assert {found["Disk"].state, found["Data directory"].state} == {state}


def test_a_home_that_is_not_there_yet(settings: Settings, tmp_path: Path) -> None:
    elsewhere = replace(settings, home=tmp_path / "not" / "yet")
    assert finding(elsewhere, "Disk").state is State.ok
    assert not elsewhere.home.exists()


def test_little_memory(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 10**18)
    assert finding(settings, "Memory").state is State.warning


# -- what no server here can be --------------------------------------------------------------------------------


@pytest.mark.parametrize(("major", "state"), [(15, State.wrong), (16, State.ok), (19, State.ok)])
def test_the_oldest_version(major: int, state: State) -> None:
    assert doctor._version_verdict(f"{major}.1", major).state is state


@pytest.mark.parametrize(("shift", "said"), [(100, "100 s behind"), (-100, "100 s ahead of")])
def test_clocks_that_differ(shift: int, said: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("storage.doctor.time.time", lambda: now() + shift)
    found = finding(settings, "Clock")
    assert found.state is State.warning
    assert said in found.found
