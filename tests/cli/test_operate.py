"""What a desk does all day, on the stack that `ntrader up` starts: a database, a Prefect server, a worker, all real."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort

from cli.main import main
from flows.launch import prefect_at
from ntrader.settings import Settings
from storage import local
from storage.database import connect
from storage.leases import exists
from storage.runs import StoredRun, get_run
from storage.sweeps import StoredSweep, get_sweep
from tasks import pool, server
from tasks.prefect_api import PrefectApi
from tests.cli.conftest import Answer, Here, finish, start
from tests.conftest import dispose_engines
from tests.smtp import mailbox

# Of the server, for schedules that are changed to be seen soon.
SOON = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1"}
HANG = """
strategy: tests.scripted:Scripted
parameters: {{script: {{"3": "hang"}}, marker: {marker}}}
data: {{symbol: AAPL}}
"""
NIGHTLY = """
strategy: sma_crossover
data: {{symbol: ACME, source: csv, path: {file}}}
sweep:
  name: nightly
  params: {{fast_period: [5, 10]}}
  periods: [{{start: 2020-01-01, end: 2020-06-30}}, {{last: 6mo}}]
"""


@dataclass
class Stack:
    """What was started, where it is reached, and whom it has told what."""

    settings: Settings
    folder: Path
    mail_port: int
    told: list[dict[str, str]] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def url(self) -> str:
        state = server.running_server(self.home)
        assert state is not None
        return state.api_url

    @property
    def api(self) -> PrefectApi:
        return PrefectApi(self.url)

    def flow_run(self, flow_run_id: object) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/flow_runs/{flow_run_id}")
        return found

    def state(self, flow_run_id: object) -> str:
        return str(self.flow_run(flow_run_id)["state_name"])

    def cancel(self, flow_run_id: object) -> None:
        """As the button in Prefect's pages does."""
        self.api.post(f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def told_of(self, words: str) -> dict[str, str]:
        """The notification with these words in its subject, once it has come."""
        return wait(lambda: next((each for each in self.told if words in each["subject"]), None))


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    home, folder = Path(tempfile.mkdtemp(prefix="nt-up-")), Path(tempfile.mkdtemp(prefix="nt-desk-"))
    with webhook() as (url, told), mailbox() as box:
        done(finish(start("up", NTRADER_HOME=str(home), **SOON), timeout=200))
        words = [word for occasion in ("failure", "drift", "finished") for word in ("--on", occasion)]
        done(finish(start("notify", "add", url, *words, NTRADER_HOME=str(home))))
        yield Stack(Settings(home=home), folder, box.port, told, box.letters)
    dispose_engines()
    pool.stop_worker(home)
    server.stop_server(home)
    local.stop(home)
    shutil.rmtree(home)
    shutil.rmtree(folder)


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its address, and what it has been told."""
    told: list[dict[str, str]] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/desk?key=secret", told
        found.shutdown()


@pytest.fixture
def here(stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """A command in this process, as a person has it who has run `ntrader up`."""
    monkeypatch.setenv("NTRADER_HOME", str(stack.home))
    monkeypatch.chdir(stack.folder)

    def run(*words: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        return Answer(int(ended.value.code or 0), captured.out, captured.err)

    return run


def done(answer: Answer) -> Answer:
    assert answer.code == 0, answer.out + answer.err
    return answer


def wait[T](look: Callable[[], T], seconds: float = 90) -> T:
    """Until there is something, which is returned."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r}"
        time.sleep(0.1)
    return found


def submitted(answer: Answer) -> tuple[str, str]:
    """Run ID and flow run, as they are printed with --json."""
    said = json.loads(done(answer).out)
    return said["run_id"], said["flow_run_id"]


# From the command line to the worker


def test_all_of_it_runs_and_a_second_up_finds_it_there(stack: Stack, here: Here) -> None:
    before = json.loads(done(here("status", "--json")).out)
    again = done(here("up"))
    after = json.loads(done(here("status", "--json")).out)

    assert [(each["name"], each["state"]) for each in before["services"]] == [
        ("embedded PostgreSQL", "running"), ("Prefect server", "running"), ("Prefect worker", "running"),
    ]  # fmt: skip
    assert [each["pid"] for each in after["services"]] == [each["pid"] for each in before["services"]]
    assert "Deployments: backtest/backtest, sweep/sweep" in again.err
    assert stack.home.as_posix() in again.out


def test_a_wrong_address_to_listen_on_costs_nobody_the_server(stack: Stack, here: Here) -> None:
    answer = here("up", "--host", "999.1.2.3")

    assert (answer.code, answer.err.splitlines()[-2]) == (
        5,
        "Error: 999.1.2.3 is no address: Name or service not known",
    )
    assert stack.api.get("/health") is True


def test_a_backtest_is_submitted_followed_and_found_again(stack: Stack, here: Here) -> None:
    answer = done(here("run-backtest", "-s", "sma_crossover", "--symbol", "AAPL", "--detach"))
    page, run_id = re.findall(r"^  (?:Flow run|Run ID) +(\S+)$", answer.out, re.MULTILINE)
    flow_run_id = page.rpartition("/")[2]
    watched = done(here("watch", "@last"))

    assert page == f"{stack.url.removesuffix('/api')}/runs/flow-run/{flow_run_id}"
    assert f"ntrader watch {run_id[:8]}" in answer.err
    assert watched.out.splitlines()[-1] == f"Run ID: {run_id}"
    assert "UTC  Running" in watched.err
    run = get_run(stack.settings, run_id)
    assert (run.execution_status, str(run.run_id), str(run.flow_run_id)) == ("success", run_id, flow_run_id)
    wait(lambda: stack.state(flow_run_id) == "Completed")
    flow_run = stack.flow_run(flow_run_id)
    assert flow_run["parameters"]["run_id"] == run_id
    assert {f"run:{run_id}", "strategy:SMA Crossover", "symbol:AAPL"} <= set(flow_run["tags"])
    assert set(artifacts(stack, flow_run_id)) == {"backtest-summary", "backtest-metrics", "backtest-equity"}
    assert run_id in artifacts(stack, flow_run_id)["backtest-summary"]


@pytest.mark.long
def test_a_reproduction_is_submitted_and_its_verdict_is_told(stack: Stack, here: Here) -> None:
    first, _ = submitted(here("run-backtest", "-s", "momentum", "--symbol", "MSFT", "--detach", "--json"))
    # Not the run that was there last: its own is not there yet.
    assert done(here("watch", "@last")).out.splitlines()[-1] == f"Run ID: {first}"
    original = get_run(stack.settings, first)
    run_id, flow_run_id = submitted(here("reproduce", str(original.run_id), "--detach", "--json"))
    watched = done(here("watch", run_id))

    run = get_run(stack.settings, run_id)
    assert (run.reproduced_from_run_id, str(run.flow_run_id)) == (original.run_id, flow_run_id)
    assert f"Identical to run {str(original.run_id)[:8]}" in watched.err
    wait(lambda: stack.state(flow_run_id) == "Completed")
    assert "Identical" in "".join(artifacts(stack, flow_run_id).values())


def artifacts(stack: Stack, flow_run_id: str) -> dict[str, str]:
    """By key, as its page shows them."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
    found = stack.api.post("/artifacts/filter", wanted)
    return {each["key"].rpartition("-" + flow_run_id)[0] or each["key"]: str(each["data"]) for each in found}


# By the clock


@pytest.mark.long
def test_each_night_is_a_new_sweep_and_what_was_there_is_not_run_again(stack: Stack, here: Here) -> None:
    (stack.folder / "nightly.yaml").write_text(NIGHTLY.format(file=stack.folder / "acme.csv"))
    bars(stack.folder / "acme.csv", 400)
    flow_run_id = submitted(here("sweep", "run", "nightly.yaml", "--detach", "--json"))[1]
    by_hand = done(here("watch", flow_run_id))
    first = get_sweep(stack.settings, "@last")
    assert "Sweep" in by_hand.out
    assert (first.state, str(first.flow_run_id), first.counts.success) == ("finished", flow_run_id, 4)

    added = done(here("schedule", "add", "nightly.yaml", "--cron", "30 2 * * 1-5", "--timezone", "Europe/London"))
    assert "Schedule nightly: a sweep, 30 2 * * 1-5 Europe/London" in added.out
    done(finish(start("sweep", "run", str(stack.folder / "nightly.yaml"), NTRADER_HOME=str(stack.home))))
    same = get_sweep(stack.settings, "@last")
    bars(stack.folder / "acme.csv", 401)
    next_day = night(stack, "nightly")

    assert (same.counts.linked, made(stack, same)) == (4, 0)
    assert (next_day.counts.linked, made(stack, next_day)) == (2, 2)
    assert next_day.fingerprint != first.fingerprint
    assert next_day.verified is not False
    told = stack.told_of(f"Sweep {next_day.id}")
    assert told["subject"].endswith("is done")
    assert f"/runs/flow-run/{next_day.flow_run_id}" in told["body"]

    (listed,) = [each for each in schedules(here) if each["name"] == "nightly"]
    assert (listed["state"], listed["last_state"], listed["last_sweep_id"]) == ("active", "Completed", next_day.id)
    assert listed["last_flow_run_id"] == str(next_day.flow_run_id)
    done(here("schedule", "pause", "nightly"))
    assert [each["next"] for each in schedules(here) if each["name"] == "nightly"] == [[]]
    done(here("schedule", "resume", "nightly"))
    assert all(each["next"] for each in schedules(here) if each["name"] == "nightly")
    done(here("schedule", "remove", "nightly"))
    assert "nightly" not in [each["name"] for each in schedules(here)]
    assert get_sweep(stack.settings, str(next_day.id)).state == "finished"


def night(stack: Stack, name: str) -> StoredSweep:
    """What a schedule makes of its next time, which is brought forward."""
    with prefect_at(stack.url), get_client(sync_client=True) as client:
        client.update_work_pool("ntrader", WorkPoolUpdate(is_paused=True))
        deployment = client.read_deployment_by_name(f"sweep/{name}")
        flow_run = wait(lambda: brought_forward(client, deployment))
        planned_yesterday(stack, flow_run.id)
        client.update_work_pool("ntrader", WorkPoolUpdate(is_paused=False))
    wait(lambda: stack.state(flow_run.id) == "Completed")
    assert flow_run.auto_scheduled
    sweep = get_sweep(stack.settings, "@last")
    assert sweep.flow_run_id == flow_run.id
    return sweep


def brought_forward(client: SyncPrefectClient, deployment: DeploymentResponse) -> FlowRun | None:
    """The flow run that Prefect makes for a schedule whose time is in a moment; None where it was too late for that."""
    due = datetime.now(UTC) + timedelta(seconds=5)
    soon = IntervalSchedule(interval=timedelta(days=1), anchor_date=due)
    client.update_deployment_schedule(deployment.id, deployment.schedules[0].id, schedule=soon)
    while datetime.now(UTC) < due:
        for flow_run in client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC):
            if flow_run.deployment_id == deployment.id and flow_run.expected_start_time == due:
                return flow_run
        time.sleep(0.2)
    return None


def planned_yesterday(stack: Stack, flow_run_id: UUID) -> None:
    """As schedules are. Of a flow run that was planned within five minutes Prefect tells a quarter of an hour late: it
    waits for word of that planning, which it never gives."""
    with psycopg.connect(local.conninfo(stack.home, server.DATABASE), autocommit=True) as connection:
        connection.execute(
            "UPDATE flow_run_state SET timestamp = timestamp - interval '1 day' WHERE flow_run_id = %s", [flow_run_id]
        )


def made(stack: Stack, sweep: StoredSweep) -> int:
    """How many runs a sweep has made by itself."""
    with connect(stack.settings) as connection:
        row = connection.execute("SELECT count(*) AS n FROM backtest_runs WHERE sweep_id = %s", [sweep.id]).fetchone()
    assert row is not None
    return int(row["n"])


def schedules(here: Here) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done(here("schedule", "list", "--json")).out)["schedules"]
    return found


def bars(file: Path, days: int, changed: int | None = None) -> None:
    """So many days of a price that goes up and down; on one of them another than was reported at first."""
    lines = ["timestamp,open,high,low,close,volume"]
    for day in range(days):
        price = 100 + day % 40 + (day % 7) / 10 + (5 if day == changed else 0)
        lines.append(f"{date(2020, 1, 1) + timedelta(days=day)},{price},{price + 1},{price - 1},{price},1000")
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.long
def test_results_that_have_drifted_are_told(stack: Stack, here: Here) -> None:
    """By webhook and by mail: a bar of the nightly sweep's file, whose runs are above, is another now."""
    url = f"mailto://127.0.0.1:{stack.mail_port}?from=ntrader@desk.example&to=night@desk.example"
    assert "mailto://127.0.0.1" in done(here("notify", "add", url, "--on", "drift")).err
    bars(stack.folder / "acme.csv", 401, changed=60)
    with prefect_at(stack.url), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("verify-recent/verify-recent")
        flow_run = client.create_flow_run_from_deployment(deployment.id, parameters={"last": 20})

    told = stack.told_of("results have drifted")

    assert stack.state(flow_run.id) == "Drifted"
    assert re.match(r"2 of \d+ runs do not come out the same: ", told["body"])
    assert "ntrader reproduce RUN" in told["body"]
    assert f"/runs/flow-run/{flow_run.id}" in told["body"]
    (letter,) = wait(lambda: stack.letters)
    assert "night@desk.example" in letter
    assert "results have drifted" in letter


# Stopped from outside


@pytest.fixture
def hanging(stack: Stack, here: Here, tmp_path: Path) -> tuple[StoredRun, str]:
    """A run at the worker's whose strategy waits for ever, and its flow run."""
    run_id, flow_run_id = hang(here, tmp_path / "begun")
    wait((tmp_path / "begun").exists)
    return get_run(stack.settings, run_id), flow_run_id


def hang(here: Here, marker: Path) -> tuple[str, str]:
    """Submit such a run, which makes the marker when it has begun to wait."""
    config = marker.with_suffix(".yaml")
    config.write_text(HANG.format(marker=marker))
    return submitted(here("run-backtest", "-c", str(config), "--detach", "--json"))


def process_of(stack: Stack, flow_run_id: str) -> int:
    """Of the flow run, as it has written it down."""
    return int(stack.flow_run(flow_run_id)["infrastructure_pid"].split("/")[1])


def test_a_run_that_is_cancelled_says_so_and_one_whose_process_is_killed_is_marked_and_told(
    stack: Stack, here: Here, tmp_path: Path
) -> None:
    """Both at once, for each takes its time to begin."""
    cancelled, killed = (hang(here, tmp_path / name) for name in ("cancelled", "killed"))
    wait(lambda: (tmp_path / "cancelled").exists() and (tmp_path / "killed").exists())
    processes = [process_of(stack, flow_run_id) for _, flow_run_id in (cancelled, killed)]
    going_on = {each["id"] for each in json.loads(here("status", "--json").out)["flow_runs"]}
    assert going_on == {cancelled[1], killed[1]}

    stack.cancel(cancelled[1])
    os.kill(processes[1], signal.SIGKILL)

    wait(lambda: (stack.state(cancelled[1]), stack.state(killed[1])) == ("Cancelled", "Crashed"))
    runs = [get_run(stack.settings, run_id) for run_id, _ in (cancelled, killed)]
    assert [(run.execution_status, run.error_message) for run in runs] == [
        ("interrupted", "interrupted by SIGTERM"),
        ("interrupted", "the process that ran it ended without a word"),
    ]
    wait(lambda: not any(map(exists, processes)))
    watched = here("watch", cancelled[0])
    assert (watched.code, "interrupted by SIGTERM" in watched.err) == (4, True)
    assert f"/runs/flow-run/{killed[1]}" in stack.told_of(f"{killed[0]}: Crashed")["body"]
    assert cancelled[0] not in str(stack.told)
    assert "none going on" in here("doctor").out


# Told


def test_notifications_are_kept_where_the_server_finds_them(stack: Stack, here: Here) -> None:
    address = "https://hooks.slack.com/services/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"
    done(here("notify", "add", address, "--on", "drift", "--on", "finished"))
    listed = {each["name"]: each for each in json.loads(here("notify", "list", "--json").out)["notifications"]}
    documents = {
        each["name"]: (each["block_type"]["slug"], each["data"])
        for each in stack.api.post("/block_documents/filter", {})
    }
    automations = stack.api.post("/automations/filter", {"automations": {"tags": {"all_": ["notify:slack"]}}})

    assert (listed["slack"]["kind"], listed["slack"]["occasions"]) == ("slack", ["drift", "finished"])
    assert listed["slack"]["shown"] == "https://hooks.slack.com/***"
    assert (listed["webhook"]["kind"], listed["webhook"]["shown"]) == ("webhook", shown_webhook(listed))
    slug, data = documents["ntrader-slack"]
    assert (slug, set(data)) == ("slack-webhook", {"url", "notify_type", "allow_private_urls"})
    assert "XYZ" not in str(data)
    assert documents["ntrader-webhook"][0] == "custom-webhook"
    assert "key=secret" not in json.dumps(documents["ntrader-webhook"][1])
    subjects = {each["name"]: each["actions"][0]["subject"] for each in automations}
    assert subjects == {
        "ntrader notify slack: drift": "ntrader: {{ flow_run.name }}: results have drifted",
        "ntrader notify slack: finished": "ntrader: {{ flow_run.name }} is done",
        "ntrader notify slack: test": "ntrader: a test of notification slack",
    }
    done(here("notify", "remove", "slack"))
    assert "slack" not in here("notify", "list").out


def shown_webhook(listed: dict[str, Any]) -> str:
    return re.sub(r"/desk.*", "/***", listed["webhook"]["shown"])


# The long ones: sweeps, and all that can be killed


SLOW = 12


@pytest.fixture
def slow(stack: Stack, here: Here, tmp_path: Path) -> tuple[int, str]:
    """A sweep of half a second a trial that is at work at the worker's: its number, and its flow run."""
    scripts = [{"3": f"sleep 0.5; buy {number}"} for number in range(1, SLOW + 1)]
    raw = {
        "strategy": "tests.scripted:Scripted",
        "parameters": {"marker": str(tmp_path)},
        "data": {"symbol": "AAPL", "start": "2008-01-01", "end": "2008-02-28"},
        "sweep": {"params": {"script": scripts}},
    }
    config = tmp_path / "slow.yaml"
    config.write_text(json.dumps(raw))
    words = ("sweep", "run", str(config), "--workers", "1", "--no-verify", "--detach", "--json")
    flow_run_id = submitted(here(*words))[1]
    sweep_id = wait(lambda: sweep_of(stack, flow_run_id))
    wait(lambda: get_sweep(stack.settings, str(sweep_id)).counts.working)
    return sweep_id, flow_run_id


def sweep_of(stack: Stack, flow_run_id: str) -> int | None:
    """Its number, once the flow run says so."""
    tags = stack.flow_run(flow_run_id)["tags"]
    return next((int(tag.partition(":")[2]) for tag in tags if tag.startswith("sweep:")), None)


def all_once(stack: Stack, sweep_id: int) -> bool:
    """Every trial has succeeded, and has been run once."""
    sweep = get_sweep(stack.settings, str(sweep_id))
    return (sweep.state, sweep.counts.success, made(stack, sweep)) == ("finished", SLOW, SLOW)


@pytest.mark.long
def test_a_sweep_that_is_cancelled_keeps_what_it_has(stack: Stack, slow: tuple[int, str], here: Here) -> None:
    sweep_id, flow_run_id = slow
    process = process_of(stack, flow_run_id)

    stack.cancel(flow_run_id)

    wait(lambda: stack.state(flow_run_id) == "Cancelled")
    sweep = get_sweep(stack.settings, str(sweep_id))
    assert (sweep.state, sweep.counts.running, sweep.counts.failed) == ("interrupted", 0, 0)
    assert 0 < sweep.counts.success == made(stack, sweep) < SLOW
    wait(lambda: not exists(process))
    answer = here("watch", f"sweep:{sweep_id}")
    assert (answer.code, f"ntrader sweep resume {sweep_id}" in answer.err) == (4, True)

    flow_run_id = submitted(here("sweep", "resume", str(sweep_id), "--no-verify", "--detach", "--json"))[1]
    done(here("watch", flow_run_id))
    assert all_once(stack, sweep_id)


@pytest.mark.long
def test_a_sweep_whose_process_is_killed_goes_on(stack: Stack, slow: tuple[int, str], here: Here) -> None:
    sweep_id, flow_run_id = slow

    os.kill(process_of(stack, flow_run_id), signal.SIGKILL)

    wait(lambda: stack.state(flow_run_id) == "Crashed")
    mended = here("doctor", "--mend")
    assert (mended.code, get_sweep(stack.settings, str(sweep_id)).counts.running) == (0, 0)
    assert "Given back: " in mended.err
    words = ("sweep", "run", str(sweep_file(stack, sweep_id)), "--workers", "2", "--no-verify")
    done(finish(start(*words, NTRADER_HOME=str(stack.home))))
    assert all_once(stack, sweep_id)


def sweep_file(stack: Stack, sweep_id: int) -> Path:
    """What a sweep was started with."""
    with connect(stack.settings) as connection:
        row = connection.execute("SELECT config_path FROM sweeps WHERE id = %s", [sweep_id]).fetchone()
    assert row is not None
    return Path(row["config_path"])


@pytest.mark.long
def test_a_sweep_is_finished_though_the_server_is_killed_meanwhile(
    stack: Stack, slow: tuple[int, str], here: Here
) -> None:
    sweep_id, flow_run_id = slow
    before, worker = server.running_server(stack.home), pool.running_worker(stack.home)
    assert before is not None

    os.kill(before.pid, signal.SIGKILL)
    wait(lambda: get_sweep(stack.settings, str(sweep_id)).counts.success > SLOW // 2)
    done(here("up"))

    after = server.running_server(stack.home)
    assert after is not None
    assert (after.pid != before.pid, after.api_url) == (True, before.api_url)
    assert pool.running_worker(stack.home) == worker
    wait(lambda: stack.state(flow_run_id) == "Completed")
    assert all_once(stack, sweep_id)


@pytest.mark.long
def test_a_worker_that_is_killed_leaves_its_sweep_alone(stack: Stack, slow: tuple[int, str], here: Here) -> None:
    sweep_id, flow_run_id = slow
    worker = pool.running_worker(stack.home)
    assert worker is not None

    os.kill(worker.pid, signal.SIGKILL)
    wait(lambda: not worker.lives)
    assert "Mark" not in done(here("up")).err

    wait(lambda: stack.state(flow_run_id) == "Completed")
    assert all_once(stack, sweep_id)


@pytest.mark.long
def test_what_is_killed_together_with_its_worker_and_the_server_is_found_by_the_next_up_and_told(
    stack: Stack, hanging: tuple[StoredRun, str], here: Here
) -> None:
    run, flow_run_id = hanging
    worker, former, process = (
        pool.running_worker(stack.home),
        server.running_server(stack.home),
        process_of(stack, flow_run_id),
    )
    assert worker is not None
    assert former is not None
    for pid in (worker.pid, process, former.pid):
        os.kill(pid, signal.SIGKILL)
    wait(lambda: not worker.lives and not exists(process) and not former.process.lives)

    answer = done(here("up"))

    assert f"process {process} of this machine, which ran it, has ended" in answer.err
    assert "Marked interrupted: 1 run" in answer.err
    assert stack.state(flow_run_id) == "Crashed"
    assert get_run(stack.settings, str(run.run_id)).execution_status == "interrupted"
    assert stack.told_of(f"{run.run_id}: Crashed")


@pytest.mark.long
def test_of_one_schedule_no_two_are_at_work(stack: Stack, here: Here, tmp_path: Path) -> None:
    marker, config = tmp_path / "begun", tmp_path / "hang.yaml"
    config.write_text(HANG.format(marker=marker))
    done(here("schedule", "add", str(config), "--cron", "0 0 1 1 *"))
    with prefect_at(stack.url), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("backtest/hang")
        first = wait(lambda: brought_forward(client, deployment))
        wait(marker.exists)
        second = wait(lambda: brought_forward(client, deployment))
    assert second.id != first.id

    wait(lambda: stack.state(second.id) == "Cancelled")

    assert stack.state(first.id) == "Running"
    stack.cancel(first.id)
    wait(lambda: stack.state(first.id) == "Cancelled")
    done(here("schedule", "remove", "hang"))


@pytest.mark.long
def test_a_notification_is_tried(stack: Stack) -> None:
    sent = finish(start("notify", "test", "webhook", NTRADER_HOME=str(stack.home)), timeout=90)

    assert (sent.code, sent.err.splitlines()[-1]) == (0, "Sent: webhook.")
    assert stack.told_of("a test of notification webhook")["body"] == "Whoever reads this will be told."


@pytest.mark.long
def test_down_waits_for_nobody_and_lets_them_write_it_down(
    stack: Stack, hanging: tuple[StoredRun, str], here: Here, tmp_path: Path
) -> None:
    """Also what has outlived its worker. The last one: nothing runs after it."""
    outlives, worker = hanging[1], pool.running_worker(stack.home)
    assert worker is not None
    os.kill(worker.pid, signal.SIGKILL)
    wait(lambda: not worker.lives)
    done(here("up"))
    ordinary = hang(here, tmp_path / "ordinary")[1]
    wait((tmp_path / "ordinary").exists)
    names = [stack.flow_run(each)["name"] for each in (outlives, ordinary)]
    refused = here("down")
    assert (refused.code, [name in refused.err for name in names]) == (2, [True, True])

    stopped = done(here("down", "--force"))

    assert stopped.err.startswith("Stopped: Prefect worker, Prefect server, embedded PostgreSQL.\nInterrupted: ")
    assert [name in stopped.err for name in names] == [True, True]
    dispose_engines()
    runs = [get_run(stack.settings, name.rpartition(" ")[2]) for name in names]
    assert {(run.execution_status, run.error_message) for run in runs} == {("interrupted", "interrupted by SIGTERM")}
    with psycopg.connect(local.conninfo(stack.home, server.DATABASE)) as connection:
        states = connection.execute(
            "SELECT state_name FROM flow_run WHERE id = ANY(%s)", [[UUID(outlives), UUID(ordinary)]]
        ).fetchall()
    assert states == [("Crashed",), ("Crashed",)]
