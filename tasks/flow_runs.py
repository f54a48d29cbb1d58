"""Flow runs of ours that are not over, as Prefect's server has them. Importing this module does not import Prefect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from tasks.pool import POOL
from tasks.prefect_api import PrefectApi

# The one that was submitted or begun last: its run need not be there yet.
LAST: Final = "@last"
_UNFINISHED: Final = ["PENDING", "RUNNING", "CANCELLING"]
_WORKER_LABEL: Final = "prefect.worker.name"


@dataclass(frozen=True, slots=True)
class FlowRun:
    """`state` is the name of its state, `kind` the state's type, `since` when it came into it. `process` is who runs
    it: an owner as in `storage.leases` once the flow has begun, before that the pid that a worker has written down.
    `worker` and `pool` are None where no worker has taken it."""

    id: UUID
    name: str
    state: str
    kind: str
    since: datetime
    process: str | None
    worker: str | None
    pool: str | None

    @property
    def claimed(self) -> bool:
        return "/" in (self.process or "")

    def document(self, ui_url: str) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "name": self.name,
            "state": self.state,
            "since": self.since,
            "worker": self.worker,
            "url": f"{ui_url}/runs/flow-run/{self.id}",
        }


def unfinished(api: PrefectApi) -> list[FlowRun]:
    """Those that are running, about to run, or being cancelled, the oldest first; those of others on the same server
    are left out. Raises ServiceError."""
    wanted = {"flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}, "sort": "EXPECTED_START_TIME_ASC"}
    found = (_read(row) for row in api.pages("/flow_runs/filter", wanted))
    return [run for run in found if run.claimed or run.pool == POOL]


def waiting(api: PrefectApi) -> int:
    """How many wait in our work pool for a worker to take them: their time has come."""
    due = {"before_": datetime.now(UTC).isoformat()}
    return _count(api, {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": due})


def late(api: PrefectApi) -> int:
    """How many have waited there for so long that the server calls them late."""
    return _count(api, {"state": {"name": {"any_": ["Late"]}}})


def _count(api: PrefectApi, wanted: dict[str, Any]) -> int:
    """Of those in our work pool."""
    found: int = api.post("/flow_runs/count", {"work_pools": {"name": {"any_": [POOL]}}, "flow_runs": wanted})
    return found


def _read(row: dict[str, Any]) -> FlowRun:
    return FlowRun(
        UUID(row["id"]),
        row["name"],
        row["state"]["name"],
        row["state"]["type"],
        datetime.fromisoformat(row["state"]["timestamp"]).astimezone(UTC),
        row["infrastructure_pid"],
        (row["labels"] or {}).get(_WORKER_LABEL),
        row["work_pool_name"],
    )
