"""Stored runs again, without saving anything: does each still come out the same to the bit?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import State, flow
from prefect.states import Failed

from flows.ready import ready
from ntrader import progress
from ntrader.errors import DriftError, NtraderError
from ntrader.settings import Settings
from ntrader.summary import verification_summary
from ntrader.verdict import Verdict, judge
from storage.conditions import Filters
from storage.originals import read_original
from storage.patience import patiently
from storage.runs import StoredRun, get_runs, list_runs
from tasks.label import label_flow_run, tags_of
from tasks.load_config import load_stored_config
from tasks.publish import publish_summary
from tasks.run_backtest import run_backtest


@dataclass(frozen=True, slots=True)
class Checked:
    """A run and its verdict, or why it could not be run again."""

    run_id: UUID
    strategy_name: str
    instrument_symbol: str
    verdict: Verdict | None
    error: str | None = None

    @property
    def holds(self) -> bool:
        return self.verdict is not None and self.verdict.identical


@flow(name="verify", validate_parameters=True)
def verify(runs: list[str]) -> list[Checked]:
    """Run each again from its stored config and compare the results bit by bit.

    Args:
        runs: The runs to verify: Run IDs, beginnings of them, @last, or names.
    """
    settings = ready()
    stored = get_runs(settings, runs)
    label_flow_run(f"Verify {len(stored)} run{'' if len(stored) == 1 else 's'}", tags_of(stored))
    checked = []
    for number, run in enumerate(stored, start=1):
        progress.report(f"Verifying {number:,} of {len(stored):,}")
        checked.append(check(settings, run))
    table = [
        (str(each.run_id), each.strategy_name, each.instrument_symbol, each.verdict, each.error) for each in checked
    ]
    publish_summary(verification_summary(table), f"{len(checked)} runs verified", "verification", return_state=True)
    return checked


@flow(name="verify-recent", validate_parameters=True)
def verify_recent(last: int = 20) -> list[Checked] | State[Any]:
    """Run the newest successful runs again; fail where one does not come out the same.

    The flow run's state is then called Drifted, so that drift can be told from a failure of another kind.

    Args:
        last: How many of the newest.
    """
    found = list_runs(ready(), max(last, 1), Filters(statuses=("success",))).runs
    label_flow_run(f"Verify the newest {len(found)} run{'' if len(found) == 1 else 's'}", tags_of(found))
    checked = verify([str(run.run_id) for run in found]) if found else []
    drifted = [each for each in checked if not each.holds]
    if drifted:
        return _drift(checked, drifted)
    return checked


def _drift(checked: list[Checked], drifted: list[Checked]) -> State[Any]:
    error = DriftError(
        f"{len(drifted)} of {len(checked)} runs do not come out the same: "
        + ", ".join(str(each.run_id)[:8] for each in drifted),
        hint="`ntrader reproduce RUN` looks for the cause.",
    )
    return Failed(name="Drifted", message=f"{error.message}. {error.hint}", data=error)


def check(settings: Settings, run: StoredRun) -> Checked:
    who = (run.run_id, run.strategy_name, run.instrument_symbol)
    try:
        original = patiently(lambda: read_original(settings, run))
        config = load_stored_config(original.config_snapshot, with_kept_code=False)
        return Checked(*who, judge(original, run_backtest(config, settings.home)))
    except NtraderError as error:
        return Checked(*who, None, error.message)
