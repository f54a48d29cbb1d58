"""What was left behind by processes that ended without a word, marked as what it is: runs and trials in our tables, and
flow runs that Prefect's server believes to be running. Importing this module does not import Prefect.

A flow run is touched only where there is proof. On this machine its process can be looked at. Elsewhere it is over
when our own tables say so (a lease that ran out), or when neither it nor its worker has given a sign of life for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

from ntrader.settings import Settings
from storage.abandoned import SILENT_SECONDS, ended_flow_runs, put_in_order
from storage.leases import exists, is_alive, is_of_former_boot
from tasks import server
from tasks.flow_runs import FlowRun, unfinished
from tasks.prefect_api import PrefectApi

# A flow run that a worker has taken begins within this time, on the slowest machine.
BEGIN_SECONDS: Final = 600
# Deployed flows say every three minutes that they live: Prefect's default.
_HEARTBEAT: Final = "prefect.flow-run.heartbeat"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A flow run that is over though its state says otherwise, and how that is known."""

    flow_run: FlowRun
    reason: str


@dataclass(frozen=True, slots=True)
class Mended:
    """What was put in order: runs marked interrupted, trials given back, flow runs marked crashed (or cancelled, where
    that had been asked for)."""

    runs: int
    trials: int
    flow_runs: list[Stuck]

    def sentences(self) -> list[str]:
        """What a person is told; empty where there was nothing to do."""
        said = []
        if self.runs:
            said.append(f"Marked interrupted: {_count(self.runs, 'run')} whose process ended without a word.")
        if self.trials:
            said.append(f"Given back: {_count(self.trials, 'trial')}; `ntrader sweep resume` runs them.")
        return said + [f"Marked as over in Prefect: {each.flow_run.name}: {each.reason}." for each in self.flow_runs]


def mend(settings: Settings) -> Mended:
    """Put our tables in order, then Prefect's, as far as a server is there. Starts nothing.

    Raises DatabaseError or ServiceError where one of them cannot be asked.
    """
    ordered = put_in_order(settings)
    api = reachable(settings)
    ended = [each for each in find_stuck(settings, api) if _end(api, each)] if api else []
    return Mended(ordered.runs, ordered.trials, ended)


def reachable(settings: Settings) -> PrefectApi | None:
    """Prefect's API as it is configured; None for a local server that does not run."""
    if settings.prefect_api_url:
        return PrefectApi(settings.prefect_api_url)
    state = server.running_server(settings.home)
    return PrefectApi(state.api_url) if state else None


def find_stuck(settings: Settings, api: PrefectApi) -> list[Stuck]:
    """Flow runs of ours that are proved to be over. Changes nothing."""
    found = unfinished(api)
    if not found:
        return []
    evidence = _Evidence(settings, api)
    ended = _ended_by_our_tables(settings, found)
    judged = ((run, "its lease has run out" if run.id in ended else evidence.against(run)) for run in found)
    return [Stuck(run, reason) for run, reason in judged if reason]


def _ended_by_our_tables(settings: Settings, found: Iterable[FlowRun]) -> set[UUID]:
    """What can be looked at here needs no lease: that also runs out while a laptop sleeps."""
    unseen = [run.id for run in found if is_alive(run.process or "") is None and _age(run) > SILENT_SECONDS]
    return ended_flow_runs(settings, unseen)


class _Evidence:
    """What is known of flow runs besides what they say themselves; asked for once, and only where it is needed."""

    def __init__(self, settings: Settings, api: PrefectApi) -> None:
        self._api = api
        self._server = None if settings.prefect_api_url else server.running_server(settings.home)
        self._workers: Callable[[str], dict[str, bool]] = cache(self._read_workers)

    def against(self, run: FlowRun) -> str | None:
        """Why it is over; None where that cannot be proved."""
        if run.claimed:
            return self._of_process(run, run.process or "")
        return self._of_worker(run)

    def _of_process(self, run: FlowRun, process: str) -> str | None:
        alive = is_alive(process)
        if alive:
            return None
        if alive is False:
            return f"process {process.split('/')[1]} of this machine, which ran it, has ended"
        if self._server is not None and self._server.is_loopback and is_of_former_boot(process):
            return "this machine has been restarted since it began"
        if run.worker and not self._is_online(run) and self._is_silent(run):
            return (
                f"there was no sign of life from it, nor from worker {run.worker}, for {SILENT_SECONDS // 60} minutes"
            )
        return None

    def _of_worker(self, run: FlowRun) -> str | None:
        """A flow that has not begun: its worker is responsible for it."""
        pid = run.process or ""
        if (
            not run.worker
            or _age(run) < BEGIN_SECONDS
            or self._is_online(run)
            or (pid.isdecimal() and exists(int(pid)))
        ):
            return None
        return f"worker {run.worker}, which was to begin it, is gone"

    def _is_online(self, run: FlowRun) -> bool:
        return run.pool is None or self._workers(run.pool).get(run.worker or "", False)

    def _read_workers(self, pool: str) -> dict[str, bool]:
        found = self._api.pages(f"/work_pools/{pool}/workers/filter", {})
        return {row["name"]: row["status"] == "ONLINE" for row in found}

    def _is_silent(self, run: FlowRun) -> bool:
        """It used to say that it lives, and has not for long, though the server was there to hear it."""
        if self._server is not None and _seconds_since(self._server.started_at) < SILENT_SECONDS:
            return False
        last = self._last_heartbeat(run)
        return last is not None and _seconds_since(last) > SILENT_SECONDS

    def _last_heartbeat(self, run: FlowRun) -> str | None:
        wanted: dict[str, Any] = {
            "event": {"name": [_HEARTBEAT]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
            "occurred": {"since": (datetime.now(UTC) - timedelta(days=7)).isoformat()},
            "order": "DESC",
        }
        events = self._api.post("/events/filter", {"filter": wanted, "limit": 1})["events"]
        return events[0]["occurred"] if events else None


def _end(api: PrefectApi, stuck: Stuck) -> bool:
    """Crashed, or Cancelled where that was asked for; and with it the task runs that it had begun. False where it has
    come to its own end in the meantime."""
    run = stuck.flow_run
    if api.get(f"/flow_runs/{run.id}")["state"]["type"] != run.kind:
        return False
    kind, name = ("CANCELLED", "Cancelled") if run.kind == "CANCELLING" else ("CRASHED", "Crashed")
    state = {"type": kind, "name": name, "message": f"Marked by ntrader: {stuck.reason}."}
    answer = api.post(f"/flow_runs/{run.id}/set_state", {"state": state})
    if answer["status"] != "ACCEPT":  # rules that are made for flows that can answer
        api.post(f"/flow_runs/{run.id}/set_state", {"state": state, "force": True})
    begun = {"flow_runs": {"id": {"any_": [str(run.id)]}}, "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    for task_run in list(api.pages("/task_runs/filter", begun)):
        api.post(f"/task_runs/{task_run['id']}/set_state", {"state": state, "force": True})
    return True


def _age(run: FlowRun) -> float:
    return (datetime.now(UTC) - run.since).total_seconds()


def _seconds_since(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
