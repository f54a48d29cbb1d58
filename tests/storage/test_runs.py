"""Finding runs: in order, by every name they have, and without those that died unnoticed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from ntrader.errors import AmbiguousError, NotFoundError
from ntrader.settings import Settings
from storage import database, leases, recording, runs
from storage.rows import Failure
from storage.runs import StoredRun
from tests import factories

PROJECT = Path(__file__).resolve().parents[2]
A_RUN = UUID("abcd1234-5678-4abc-8def-0123456789ab")
ELSEWHERE = "elsewhere|boot|pid:[1]/4242/1"


@pytest.fixture
def settings(cleared: Settings) -> Settings:
    """A database without a run."""
    return cleared


def start(settings: Settings, run_id: UUID | None = None, **changes: object) -> UUID:
    """A running run of this process; `changes` are columns of its row."""
    run = factories.new_run(run_id=run_id or uuid4())
    recording.start_run(settings, run)
    for name, value in changes.items():
        execute(settings, f"UPDATE backtest_runs SET {name} = %s WHERE run_id = %s", value, run.run_id)
    return run.run_id


def execute(settings: Settings, statement: str, *values: object) -> None:
    with database.connect(settings) as connection:
        connection.execute(statement, values)


def listed(settings: Settings, limit: int = 100) -> list[UUID]:
    return [run.run_id for run in page(settings, limit)]


def page(settings: Settings, limit: int = 100) -> list[StoredRun]:
    """The first page of all runs, newest first."""
    return runs.list_runs(settings, limit).runs


def status_of(settings: Settings, run_id: UUID) -> str:
    return runs.get_run(settings, str(run_id)).execution_status


# -- lists ---------------------------------------------------------------------------------------------------


def test_no_run_is_an_empty_list(settings: Settings) -> None:
    assert page(settings) == []


def test_the_newest_come_first(settings: Settings) -> None:
    first, second, third = (start(settings) for _ in range(3))
    oldest = start(settings, created_at="2001-01-01T00:00:00Z")
    assert listed(settings) == [third, second, first, oldest]


def test_of_runs_of_the_same_instant_the_later_row_comes_first(settings: Settings) -> None:
    ids = [start(settings, created_at="2026-01-01T00:00:00Z") for _ in range(4)]
    assert listed(settings) == ids[::-1]
    assert listed(with_options(settings, "enable_indexscan=off", "enable_bitmapscan=off")) == ids[::-1]


def with_options(settings: Settings, *options: str) -> Settings:
    words = "%20".join(f"-c%20{option.replace('=', '%3D')}" for option in options)
    return replace(settings, database_url=f"{settings.database_url}&options={words}")


def test_a_list_has_a_limit(settings: Settings) -> None:
    ids = [start(settings) for _ in range(3)]
    assert listed(settings, 2) == ids[:0:-1]
    assert listed(settings, 3) == listed(settings, 4) == ids[::-1]


def test_a_list_shows_every_state_and_metrics_of_successes_only(settings: Settings) -> None:
    running, failed, succeeded = (start(settings) for _ in range(3))
    recording.save_failure(settings, failed, Failure("failed", "DataError", "no bars", None))
    execution = factories.execution()
    recording.save_success(settings, succeeded, execution, factories.metrics_of(execution))

    found = {run.run_id: run for run in page(settings)}

    states = {run_id: (run.execution_status, run.metrics is not None) for run_id, run in found.items()}
    assert states == {running: ("running", False), failed: ("failed", False), succeeded: ("success", True)}
    assert found[failed].error_message == "no bars"
    assert found[succeeded] == runs.get_run(settings, str(succeeded))


# -- one run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", [str(A_RUN), str(A_RUN).upper(), A_RUN.hex, f"  {A_RUN}\n", "abcd", "ABCD1234",
                                       "abcd1234-", "abcd1234-56", "abcd-1234", "abcd12345678", A_RUN.hex[:31],
                                       "@last~1"])  # fmt: skip
def test_a_run_has_many_names(settings: Settings, reference: str) -> None:
    start(settings, A_RUN)
    start(settings, UUID(int=A_RUN.int ^ 1 << 127))
    assert runs.get_run(settings, reference).run_id == A_RUN


def test_last_counts_back_from_the_newest(settings: Settings) -> None:
    first, second, third = (start(settings) for _ in range(3))
    found = [runs.get_run(settings, name).run_id for name in ("@last", "@last~0", "@last~1", "@last~2")]
    assert found == [third, third, second, first]


@pytest.mark.parametrize("reference", ["@last~3", "@last~999999999", "dead", "dead-beef", str(UUID(int=0)), "f" * 32])
def test_a_run_that_is_not_there_is_not_found(settings: Settings, reference: str) -> None:
    for _ in range(3):
        start(settings, UUID(int=uuid4().int & (1 << 120) - 1))
    with pytest.raises(NotFoundError, match=f"^there is no run {reference}$") as caught:
        runs.get_run(settings, reference)
    assert caught.value.hint == "`ntrader history list` shows what there is."


def test_last_of_no_runs_is_not_found(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="there is no run @last"):
        runs.get_run(settings, "@last")


@pytest.mark.parametrize("reference", ["a", "abc", "a-b-c"])
def test_a_short_prefix_is_refused(shared: Settings, reference: str) -> None:
    with pytest.raises(NotFoundError, match=f"'{reference}' is too short") as caught:
        runs.get_run(shared, reference)
    assert "at least 4 characters" in (caught.value.hint or "")


@pytest.mark.parametrize("reference", ["", "-", "wxyz", "SMA Crossover", "@first", "@last~", "@last~-1", "last",
                                       "abcd%", "abcd' OR true --", f"{A_RUN}0", "\uff10" * 4, "abcd\x00"])  # fmt: skip
def test_what_is_no_name_is_refused(shared: Settings, reference: str) -> None:
    with pytest.raises(NotFoundError, match="names no run") as caught:
        runs.get_run(shared, reference)
    assert "@last" in (caught.value.hint or "")


def test_a_prefix_of_several_runs_lists_them(settings: Settings) -> None:
    near, nearer = UUID("abcd1234" + "0" * 24), UUID("abcd1235" + "f" * 24)
    start(settings, near, created_at="2026-03-04T05:06:07Z")
    start(settings, nearer)
    with pytest.raises(AmbiguousError, match="'abcd123' fits more than one run") as caught:
        runs.get_run(with_options(settings, "timezone=Asia/Tokyo"), "abcd123")
    assert f"\n  {near}  2026-03-04 05:06  SMA Crossover TEST" in caught.value.message
    assert str(nearer) in caught.value.message
    assert caught.value.hint == "Give more characters."
    assert runs.get_run(settings, "abcd1235").run_id == nearer


def test_a_prefix_covers_all_that_begins_with_it_and_nothing_else(settings: Settings) -> None:
    inside = [UUID("abcd" + digit * 28) for digit in "0f"]
    for run_id in [UUID("abcc" + "f" * 28), *inside, UUID("abce" + "0" * 28)]:
        start(settings, run_id)
    with pytest.raises(AmbiguousError) as caught:
        runs.get_run(settings, "abcd")
    assert [line.split()[0] for line in caught.value.message.splitlines()[1:]] == [str(run_id) for run_id in inside]


def test_a_prefix_of_very_many_runs_lists_three(settings: Settings) -> None:
    for number in range(5):
        start(settings, UUID(int=A_RUN.int + number))
    with pytest.raises(AmbiguousError) as caught:
        runs.get_run(settings, "abcd")
    assert len(caught.value.message.splitlines()) == 1 + 3


# -- the dead ------------------------------------------------------------------------------------------------


START_AND_SLEEP = """
import sys, time
from uuid import UUID
from ntrader.settings import load_settings
from storage import recording
from tests import factories
recording.start_run(load_settings(), factories.new_run(run_id=UUID(sys.argv[1])))
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture
def elsewhere(environment: Settings) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started A_RUN and works on it."""
    command = [sys.executable, "-c", START_AND_SLEEP, str(A_RUN)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_whose_process_was_killed_is_interrupted(environment: Settings, elsewhere: subprocess.Popen[str]) -> None:
    assert status_of(environment, A_RUN) == "running"
    elsewhere.kill()
    elsewhere.wait()

    (run,) = page(environment)

    assert (run.execution_status, run.error_type) == ("interrupted", "Interrupted")
    assert run.error_message == "the process that ran it ended without a word"
    assert run.finished_at is not None
    assert run.execution_duration_seconds is None
    assert runs.get_run(environment, "@last") == run


def test_a_run_whose_number_now_belongs_to_another_process_is_interrupted(settings: Settings) -> None:
    machine, pid, started = leases.owner().split("/")
    reused = start(settings, lease_owner=f"{machine}/{pid}/{int(started or 0) - 1}")
    assert status_of(settings, reused) == "interrupted"


def test_a_living_owner_keeps_its_run_even_past_its_lease(settings: Settings) -> None:
    """A laptop slept for an hour: the process goes on, and renews the lease half a minute later."""
    fresh = start(settings)
    late = start(settings, lease_expires_at="2001-01-01T00:00:00Z")
    assert status_of(settings, fresh) == status_of(settings, late) == "running"


def test_a_run_of_another_machine_lives_as_long_as_its_lease(settings: Settings) -> None:
    leased = start(settings, lease_owner=ELSEWHERE)
    expired = start(settings, lease_owner=ELSEWHERE, lease_expires_at="2001-01-01T00:00:00Z")
    assert status_of(settings, expired) == "interrupted"
    assert status_of(settings, leased) == "running"


def test_a_run_without_an_owner_lives_as_long_as_its_lease(settings: Settings) -> None:
    expired = start(settings, lease_owner=None, lease_expires_at="2001-01-01T00:00:00Z")
    endless = start(settings, lease_owner=None, lease_expires_at=None)
    assert status_of(settings, expired) == "interrupted"
    assert status_of(settings, endless) == "running"


def test_finished_runs_are_not_asked_for_their_owner(settings: Settings) -> None:
    execution = factories.execution()
    run_id = start(settings, lease_owner=ELSEWHERE, lease_expires_at="2001-01-01T00:00:00Z")
    recording.save_success(settings, run_id, execution, factories.metrics_of(execution))
    assert status_of(settings, run_id) == "success"


def test_the_dead_are_counted_once(settings: Settings) -> None:
    start(settings)
    for _ in range(3):
        start(settings, lease_owner=ELSEWHERE, lease_expires_at="2001-01-01T00:00:00Z")
    assert [runs.sweep_dead_runs(settings) for _ in range(2)] == [3, 0]


def test_a_lease_renewed_at_the_last_moment_counts(settings: Settings) -> None:
    """Another listing found the lease expired, and waits for the row that its owner is just renewing."""
    run_id = start(settings, lease_owner=ELSEWHERE, lease_expires_at="2001-01-01T00:00:00Z")
    with database.connect(settings, autocommit=False) as owner:
        owner.execute("UPDATE backtest_runs SET lease_expires_at = now() + interval '1 hour'")
        command = [sys.executable, "-c", "from ntrader.settings import load_settings; from storage import runs; "
                   "print(runs.sweep_dead_runs(load_settings()))"]  # fmt: skip
        environment = {**os.environ, "DATABASE_URL": settings.database_url or ""}
        listing = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
        wait_until_blocked(settings)
        owner.commit()
        assert listing.communicate(timeout=30)[0] == "0\n"
    assert status_of(settings, run_id) == "running"


def wait_until_blocked(settings: Settings) -> None:
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    deadline = time.monotonic() + 30
    with database.connect(settings) as connection:
        while connection.execute(query).fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_role_that_may_only_read_sees_the_dead_as_they_are(settings: Settings) -> None:
    run_id = start(settings, lease_owner=ELSEWHERE, lease_expires_at="2001-01-01T00:00:00Z")
    reader = f"reader_{uuid4().hex[:8]}"
    execute(settings, f"CREATE ROLE {reader} LOGIN")
    execute(settings, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
    read_only = replace(settings, database_url=(settings.database_url or "").replace("ntrader@", f"{reader}@"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(read_only, "DELETE FROM backtest_runs")

    (run,) = page(read_only)

    assert (run.run_id, run.execution_status) == (run_id, "running")
    assert runs.get_run(read_only, "@last") == run
    assert status_of(settings, run_id) == "interrupted"
    execute(settings, f"DROP OWNED BY {reader}")
    execute(settings, f"DROP ROLE {reader}")


def test_a_server_that_only_reads_lists_too(settings: Settings) -> None:
    start(settings, lease_owner=ELSEWHERE, lease_expires_at="2001-01-01T00:00:00Z")
    (run,) = page(with_options(settings, "default_transaction_read_only=on"))
    assert run.execution_status == "running"


# -- light ---------------------------------------------------------------------------------------------------


LIST_AND_GET = """
import sys
from ntrader.settings import load_settings
from storage import runs
from storage.conditions import Filters
from storage.search import Order
(run,) = runs.list_runs(load_settings(), 10).runs
assert runs.get_run(load_settings(), "@last") == run
heavy = {"sqlalchemy", "sqlmodel", "alembic", "pydantic", "numpy", "pandas", "prefect", "nautilus_trader"}
print(run.run_id, sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_reading_loads_nothing_heavy(environment: Settings) -> None:
    execution, run_id = factories.execution(), start(environment)
    recording.save_success(environment, run_id, execution, factories.metrics_of(execution))
    command = [sys.executable, "-c", LIST_AND_GET]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout == f"{run_id} []\n", done.stderr
