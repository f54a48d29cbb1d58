"""What processes that were killed left behind, found and marked as what it is, in our tables and in Prefect's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling, Completed, Pending, Running, State

from flows.launch import prefect_at
from ntrader.settings import Settings
from storage import local, recording, trials
from storage.database import connect
from storage.leases import owner
from storage.rows import Failure
from storage.runs import get_run
from storage.trials import Portion
from tasks import reaper, server
from tasks.deployments import read_deployment
from tests import factories
from tests.cli.conftest import start
from tests.storage.trials import change, states, written

ELSEWHERE = "another-machine|boot|pid:[1]/17/4711"
FOR_AN_HOUR = 3600.0


@flow(name="nothing")
def nothing() -> None:
    """Never run: its flow runs are made to look as if somebody else's process had begun them."""


@task(name="nothing")
def no_task() -> None:
    """The same."""


@pytest.fixture
def watched(environment: Settings, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with an empty database, and the session's server as one of somebody's own."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    with prefect_at(prefect_server):
        yield Settings(home=environment.home, database_url=environment.database_url, prefect_api_url=prefect_server)


def left_behind(settings: Settings, process: str, state: State | None = None, since: float = FOR_AN_HOUR) -> UUID:
    """A flow run that is running, so it says, in that process."""
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(nothing, name="left behind")
        client.set_flow_run_state(flow_run.id, state or Running(), force=True)
        client.update_flow_run(flow_run.id, infrastructure_pid=process)
    age(settings, flow_run.id, since)
    return flow_run.id


def age(settings: Settings, flow_run_id: UUID, seconds: float) -> None:
    """As if it had been in its state for so long already: only the server's own tables can be told so."""
    with psycopg.connect(local.conninfo(settings.home, server.DATABASE), autocommit=True) as connection:
        connection.execute(
            "UPDATE flow_run_state SET timestamp = timestamp - %s * interval '1 second' WHERE flow_run_id = %s",
            [seconds, flow_run_id],
        )


def recorded(settings: Settings, flow_run_id: UUID, lease: float, lease_owner: str = ELSEWHERE) -> UUID:
    """A run of a flow run, whose lease ends in so many seconds."""
    run = factories.new_run(flow_run_id=flow_run_id)
    recording.start_run(settings, run)
    change(
        settings,
        "UPDATE backtest_runs SET lease_owner = %s, lease_expires_at = now() + %s * interval '1 s' WHERE run_id = %s",
        [lease_owner, lease, run.run_id],
    )
    return run.run_id


def predate(settings: Settings, statement: str, wanted: object) -> None:
    """What the database lets nobody change, for a history that took long."""
    with connect(settings) as connection, connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(statement, [wanted])


def read(flow_run_id: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(flow_run_id)


def told(flow_run_id: UUID) -> tuple[str | None, str | None]:
    """The name and the message of its state."""
    state = read(flow_run_id).state
    return (state.name, state.message) if state else (None, None)


def stuck(settings: Settings) -> dict[UUID, str]:
    api = reaper.reachable(settings)
    assert api is not None
    return {each.flow_run.id: each.reason for each in reaper.find_stuck(settings, api)}


def finish(flow_run_id: UUID) -> None:
    """For the next test to find nothing of it."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Completed(), force=True)


def eventually[T](find: Callable[[], T | None], seconds: float = 60) -> T:
    deadline = time.monotonic() + seconds
    while (found := find()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def claimed(name: str) -> FlowRun | None:
    """The flow run of that flow that says which process it is. A busy server is asked again."""
    with suppress(PrefectHTTPStatusError), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[name])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Running"]))),
        )
        return next((run for run in runs if "/" in (run.infrastructure_pid or "")), None)
    return None


def test_a_sweep_that_is_killed_while_it_plans_is_known(watched: Settings) -> None:
    """It has written nothing yet: its table is locked. No worker had started it, so nobody else noticed."""
    reaper.mend(watched)  # what other tests have left behind on this server
    with connect(watched) as connection, connection.transaction():
        connection.execute("LOCK TABLE sweeps IN EXCLUSIVE MODE")
        process = start("sweep", "run", "-s", "momentum", "--symbol", "AAPL", "-p", "lookback=5:9:2", "-w", "1")
        flow_run = eventually(lambda: claimed("sweep"))
        assert stuck(watched) == {}
        process.kill()
        process.communicate()

    assert stuck(watched) == {flow_run.id: f"process {process.pid} of this machine, which ran it, has ended"}
    mended = reaper.mend(watched)

    assert [each.flow_run.id for each in mended.flow_runs] == [flow_run.id]
    state = read(flow_run.id).state
    assert state is not None
    assert (state.name, state.message) == (
        "Crashed",
        f"Marked by ntrader: process {process.pid} of this machine, which ran it, has ended.",
    )
    assert stuck(watched) == {}
    assert reaper.mend(watched).sentences() == []


# What runs elsewhere, where nobody can look


def test_a_run_whose_lease_has_run_out_and_its_flow_run_are_over(watched: Settings) -> None:
    reaper.mend(watched)  # what other tests have left behind on this server
    flow_run_id = left_behind(watched, ELSEWHERE)
    run_id = recorded(watched, flow_run_id, lease=-1)

    mended = reaper.mend(watched)

    assert (mended.runs, mended.trials, [each.flow_run.id for each in mended.flow_runs]) == (1, 0, [flow_run_id])
    assert mended.sentences() == [
        "Marked interrupted: 1 run whose process ended without a word.",
        "Marked as over in Prefect: left behind: its lease has run out.",
    ]
    run = get_run(watched, str(run_id))
    assert (run.execution_status, run.error_message) == (
        "interrupted", "the process that ran it ended without a word"
    )  # fmt: skip
    assert told(flow_run_id) == ("Crashed", "Marked by ntrader: its lease has run out.")


def test_a_run_whose_lease_has_not_run_out_goes_on(watched: Settings) -> None:
    flow_run_id = left_behind(watched, ELSEWHERE)
    run_id = recorded(watched, flow_run_id, lease=60)

    assert reaper.mend(watched).sentences() == []
    assert get_run(watched, str(run_id)).execution_status == "running"
    assert told(flow_run_id)[0] == "Running"
    finish(flow_run_id)


def test_a_flow_run_that_has_just_written_its_interruption_down_ends_by_itself(watched: Settings) -> None:
    flow_run_id = left_behind(watched, ELSEWHERE)
    run_id = recorded(watched, flow_run_id, lease=60)
    recording.save_failure(watched, run_id, Failure("interrupted", "Interrupted", "interrupted by SIGTERM", None))

    assert stuck(watched) == {}
    predate(watched, "UPDATE backtest_runs SET finished_at = now() - interval '61 s' WHERE run_id = %s", run_id)
    assert stuck(watched) == {flow_run_id: "its lease has run out"}
    finish(flow_run_id)


def test_a_sweep_that_nobody_works_on_is_given_back_and_its_flow_run_is_over(watched: Settings) -> None:
    flow_run_id = left_behind(watched, ELSEWHERE)
    sweep_id = written(watched, 3, flow_run_id=flow_run_id)
    trials.reserve(watched, sweep_id, uuid4(), ELSEWHERE, Portion(2))
    predate(watched, "UPDATE sweeps SET created_at = now() - interval '1 h' WHERE id = %s", sweep_id)
    lease = "UPDATE trials SET lease_expires_at = now() + %s * interval '1 s' WHERE sweep_id = %s AND state = 'running'"

    change(watched, lease, [60, sweep_id])
    assert reaper.mend(watched).sentences() == []
    change(watched, lease, [-1, sweep_id])
    mended = reaper.mend(watched)

    assert states(watched, sweep_id) == ["waiting"] * 3
    assert mended.sentences() == [
        "Given back: 2 trials; `ntrader sweep resume` runs them.",
        "Marked as over in Prefect: left behind: its lease has run out.",
    ]
    assert told(flow_run_id)[0] == "Crashed"


# What runs on this machine, or did


def test_one_whose_process_lives_is_left_alone_however_old_its_lease(watched: Settings) -> None:
    """A laptop that has slept."""
    flow_run_id = left_behind(watched, owner())
    run_id = recorded(watched, flow_run_id, lease=-FOR_AN_HOUR, lease_owner=owner())

    assert reaper.mend(watched).sentences() == []
    assert get_run(watched, str(run_id)).execution_status == "running"
    assert told(flow_run_id)[0] == "Running"
    finish(flow_run_id)


def test_of_another_process_with_the_same_number_nothing_is_believed(watched: Settings) -> None:
    machine, pid, _ = owner().split("/")
    flow_run_id = left_behind(watched, f"{machine}/{pid}/1", since=0)

    reaper.mend(watched)

    assert told(flow_run_id) == (
        "Crashed", f"Marked by ntrader: process {pid} of this machine, which ran it, has ended."
    )  # fmt: skip


def test_one_that_was_being_cancelled_is_cancelled_and_its_tasks_with_it(watched: Settings) -> None:
    machine, pid, _ = owner().split("/")
    flow_run_id = left_behind(watched, f"{machine}/{pid}/1", Cancelling())
    with get_client(sync_client=True) as client:
        begun, done = (
            client.create_task_run(no_task, flow_run_id, dynamic_key=str(uuid4()), state=state())
            for state in (Running, Completed)
        )

    reaper.mend(watched)

    assert told(flow_run_id)[0] == "Cancelled"
    with get_client(sync_client=True) as client:
        names = [client.read_task_run(each.id).state_name for each in (begun, done)]
    assert names == ["Cancelled", "Completed"]


@pytest.mark.usefixtures("deployments")
def test_one_that_its_worker_has_not_begun_before_it_was_gone(watched: Settings) -> None:
    with get_client(sync_client=True) as client:
        deployment = read_deployment(client, "backtest/backtest")
        flow_run = client.create_flow_run_from_deployment(deployment.id, name="taken")
        client.update_flow_run_labels(flow_run.id, {"prefect.worker.name": "nobody-knows"})
        client.set_flow_run_state(flow_run.id, Pending(), force=True)

    assert flow_run.id not in stuck(watched)
    age(watched, flow_run.id, FOR_AN_HOUR)
    assert stuck(watched) == {flow_run.id: "worker nobody-knows, which was to begin it, is gone"}
    reaper.mend(watched)
    assert told(flow_run.id)[0] == "Crashed"


def test_what_is_not_ours_is_left_alone(watched: Settings) -> None:
    """Another's flow run on the same server: no process that we know the look of, no work pool of ours."""
    flow_run_id = left_behind(watched, "4711")

    assert reaper.mend(watched).flow_runs == []
    assert told(flow_run_id)[0] == "Running"
    finish(flow_run_id)


def test_without_a_server_our_tables_are_put_in_order(environment: Settings, tmp_path: Path) -> None:
    run_id = recorded(environment, uuid4(), lease=-1)

    mended = reaper.mend(Settings(home=tmp_path, database_url=environment.database_url))

    assert (mended.runs, mended.flow_runs) == (1, [])
    assert get_run(environment, str(run_id)).execution_status == "interrupted"
