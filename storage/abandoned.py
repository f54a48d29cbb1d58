"""What processes that ended without a word leave behind, put in order; and which flow runs that shows to be over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ntrader.settings import Settings
from storage.database import only_looking
from storage.leases import LEASE_SECONDS
from storage.runs import mark_dead_runs
from storage.trials import reclaim

# A flow that has no lease at the moment may be about to take one: this long after the last it is not.
SILENT_SECONDS: Final = 3 * LEASE_SECONDS


@dataclass(frozen=True, slots=True)
class PutInOrder:
    """How many runs are `interrupted` now, and how many trials wait again."""

    runs: int
    trials: int


def put_in_order(settings: Settings) -> PutInOrder:
    """Runs and trials whose process of this machine has ended, or whose lease has run out, are nobody's any more."""
    with only_looking(settings) as connection:
        runs = mark_dead_runs(connection)
        rows = connection.execute("SELECT DISTINCT sweep_id FROM trials WHERE state = 'running'").fetchall()
    return PutInOrder(runs, sum(reclaim(settings, row["sweep_id"]) for row in rows))


def ended_flow_runs(settings: Settings, flow_runs: Sequence[UUID]) -> set[UUID]:
    """Those whose run was interrupted, or whose sweep nobody has held a lease of for a quarter of an hour."""
    if not flow_runs:
        return set()
    with only_looking(settings) as connection:
        rows = connection.execute(
            # A flow that writes its interruption down by itself has a moment left to live, and no lease any more.
            "SELECT flow_run_id FROM backtest_runs WHERE flow_run_id = ANY(%(wanted)s) AND trial_number IS NULL"
            " GROUP BY 1 HAVING bool_and(execution_status = 'interrupted'"
            " AND (finished_at < now() - interval '1 minute' OR lease_expires_at < now()))"
            " UNION ALL SELECT s.flow_run_id FROM sweeps s WHERE s.flow_run_id = ANY(%(wanted)s)"
            " AND s.finished_at IS NULL AND greatest(s.created_at,"
            " (SELECT max(lease_expires_at) - %(lease)s * interval '1 second' FROM trials t"
            "  WHERE t.sweep_id = s.id AND t.state = 'running'),"
            " (SELECT max(r.finished_at) FROM backtest_runs r WHERE r.sweep_id = s.id))"
            " < now() - %(silent)s * interval '1 second'",
            {"wanted": list(flow_runs), "lease": LEASE_SECONDS, "silent": SILENT_SECONDS},
        ).fetchall()
    return {row["flow_run_id"] for row in rows}
