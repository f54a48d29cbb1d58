"""A stored success as a reproduction needs it: its config, its fingerprints and its result."""

from __future__ import annotations

from ntrader.errors import ConfigError, DatabaseError
from ntrader.results import EquityCurve, Fill, Fingerprints, RunResult
from ntrader.settings import Settings
from ntrader.trades import round_trips
from ntrader.verdict import Original
from storage.curves import read_curve, read_fills
from storage.runs import StoredRun


def read_original(settings: Settings, run: StoredRun) -> Original:
    """Raises ConfigError for a run that has no result, DatabaseError for one that is not as it was saved."""
    if run.result_digest is None or run.run_key is None:
        why = f": {run.error_message}" if run.error_message else ""
        show = f"`ntrader history show {str(run.run_id)[:8]} --config > again.yaml`"
        raise ConfigError(
            f"run {run.run_id} is {run.execution_status} and has no result to compare with{why}",
            hint=f"{show} and `ntrader run-backtest --config again.yaml` run it anew.",
        )
    curve, fills = read_curve(settings, run.run_id), read_fills(settings, run.run_id)
    if curve is None:
        raise DatabaseError(f"run {run.run_id} has no equity curve", hint="Restore it from a backup.")
    original = Original(
        run_id=run.run_id,
        config_snapshot=run.config_snapshot,
        fingerprints=_fingerprints(run),
        result_digest=run.result_digest,
        result=_result(run, curve, fills),
        has_fills=fills is not None,
    )
    if not original.is_whole:
        raise DatabaseError(
            f"the stored result of run {run.run_id} is not the one that was saved: its digest differs",
            hint="Somebody changed it in the database: restore it from a backup.",
        )
    return original


def _fingerprints(run: StoredRun) -> Fingerprints:
    parts = {name: getattr(run, f"{name}_fingerprint") for name in ("config", "data", "code", "engine", "environment")}
    return Fingerprints(**parts, run_key=run.run_key or "")


def _result(run: StoredRun, curve: EquityCurve, fills: tuple[Fill, ...] | None) -> RunResult:
    trades, open_quantity = round_trips(fills or ())
    return RunResult(float(run.initial_capital), curve, fills or (), trades, open_quantity, bars=len(curve))
