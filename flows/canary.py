"""Stored runs again with another version of Nautilus, without saving anything: which results would move?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import flow

from flows.ready import ready
from ntrader import progress
from ntrader.canary import Canary, Description
from ntrader.differences import diff_environment
from ntrader.environments import environment
from ntrader.errors import NtraderError
from ntrader.fingerprints import environment as environment_here
from ntrader.settings import Settings
from ntrader.summary import canary_summary
from ntrader.verdict import Original, Verdict, judge
from storage import kept
from storage.originals import read_original
from storage.runs import StoredRun, get_runs
from tasks.label import label_flow_run, tags_of
from tasks.publish import publish_summary
from tasks.replay_run import replay_run

# It is what one wants to differ.
_THE_ENGINE = "libraries.nautilus-trader"


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run with the other engine, or why it did not run there. `also_moved` are inputs besides the engine that are not
    those of the original: as long as there are any, a moved result may be their doing."""

    run_id: UUID
    strategy_name: str
    instrument_symbol: str
    verdict: Verdict | None
    also_moved: tuple[str, ...] = ()
    error: str | None = None

    @property
    def outcome(self) -> str:
        if self.verdict is None:
            return "failed"
        return "unchanged" if self.verdict.identical else "moved"


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """`nautilus` is the version that ran; `besides` is (here, there) for what else differs between the two
    environments, by name."""

    nautilus: str
    besides: dict[str, tuple[Any, Any]]
    runs: list[Replayed]


@flow(name="canary", validate_parameters=True)
def canary(nautilus: str, runs: list[str]) -> CanaryReport:
    """Run each again from its stored config with another version of Nautilus, over the bars and with the code that were
    kept, and compare the results bit by bit.

    Args:
        nautilus: The version, such as 1.230.0; its environment is made if it is not there.
        runs: The runs: Run IDs, beginnings of them, @last, or names.
    """
    settings = ready(engine=False)
    stored = get_runs(settings, runs)
    what = f"{len(stored)} run{'' if len(stored) == 1 else 's'}"
    label_flow_run(f"Canary nautilus_trader {nautilus}, {what}", [f"nautilus:{nautilus}", *tags_of(stored)])
    with environment(settings.home, nautilus) as place, Canary(place, settings.home) as engine:
        progress.report(f"Starting nautilus_trader {nautilus}")
        there = engine.describe()
        replayed = []
        for number, run in enumerate(stored, start=1):
            stage = f"Replaying {number:,} of {len(stored):,}"
            replayed.append(_replay(settings, engine, there, run, stage))
    found = CanaryReport(there.nautilus, _besides(environment_here(), there.environment), replayed)
    rows = [(str(it.run_id), it.strategy_name, it.instrument_symbol, it.outcome, it.error) for it in replayed]
    description = f"{len(rows)} runs with nautilus_trader {there.nautilus}"
    publish_summary(canary_summary(there.nautilus, rows), description, "canary", return_state=True)
    return found


def _replay(settings: Settings, engine: Canary, there: Description, run: StoredRun, stage: str) -> Replayed:
    who = (run.run_id, run.strategy_name, run.instrument_symbol)
    try:
        original = read_original(settings, run)
        bars = kept.read_bars(settings, original.fingerprints.data)
        sources = kept.read_sources(settings, original.fingerprints.code)
        verdict = judge(original, replay_run(engine, original.config_snapshot, bars, sources, stage))
        return Replayed(*who, verdict, _also_moved(settings, original, verdict, there))
    except NtraderError as error:
        return Replayed(*who, None, error=error.message)


def _also_moved(settings: Settings, original: Original, verdict: Verdict, there: Description) -> tuple[str, ...]:
    """The environment's fingerprint holds the version of Nautilus too, and says nothing here."""
    then = _environment_of(settings, original)
    same = then is not None and not _besides(then, there.environment)
    return tuple(
        factor for factor in verdict.moved if factor in ("data", "code") or (factor == "environment" and not same)
    )


def _environment_of(settings: Settings, original: Original) -> dict[str, Any] | None:
    fingerprint = original.fingerprints.environment
    found: dict[str, Any] | None = kept.read_documents(settings, [fingerprint]).get(fingerprint)
    return found


def _besides(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: pair for name, pair in diff_environment(before, after).items() if name != _THE_ENGINE}
