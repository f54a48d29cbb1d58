"""A stored success as a reproduction needs it: its config, its fingerprints and its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntrader import trades
from ntrader.config import canonical_json, sha256
from ntrader.errors import BadDataError, ConfigError, DatabaseError
from ntrader.results import EquityCurve, Fill, Fingerprints, RunResult
from ntrader.settings import Settings
from ntrader.verdict import Original
from storage.curves import read_curve, read_fills
from storage.kept import read_sources
from storage.runs import StoredRun

_RESTORE = "Somebody changed it in the database: restore it from a backup."

_LARGEST_EXACT = 2**53


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
        config_snapshot=_config(run),
        fingerprints=_fingerprints(run),
        result_digest=run.result_digest,
        result=_result(run, curve, fills),
        has_fills=fills is not None,
    )
    if not original.is_whole and not _told_otherwise(settings, run):
        raise DatabaseError(
            f"the stored result of run {run.run_id} is not the one that was saved: its digest differs",
            hint=_RESTORE,
        )
    return original


def _told_otherwise(settings: Settings, run: StoredRun) -> bool:
    """Trades are told from the fills anew; a former ntrader may have told others, which its digest is over."""
    try:
        sources = read_sources(settings, run.code_fingerprint or "")
    except BadDataError:
        return False
    former = (sources or {}).get(trades.__name__)
    return former is not None and former != Path(trades.__file__).read_text(encoding="utf-8")


def _config(run: StoredRun) -> dict[str, Any]:
    """The stored one, if it is what was hashed: a later ntrader may well read other fields out of it."""
    for snapshot in (run.config_snapshot, _with_large_floats(run.config_snapshot)):
        if sha256(canonical_json(snapshot)) == run.config_fingerprint:
            return dict(snapshot)
    raise DatabaseError(
        f"the stored config of run {run.run_id} is not the one that was saved: its fingerprint differs",
        hint=_RESTORE,
    )


def _with_large_floats(value: Any) -> Any:
    """PostgreSQL writes 1e+16 as 10000000000000000, which is read as an integer."""
    if isinstance(value, dict):
        return {name: _with_large_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_large_floats(inner) for inner in value]
    large = isinstance(value, int) and abs(value) > _LARGEST_EXACT
    return float(value) if large else value


def _fingerprints(run: StoredRun) -> Fingerprints:
    parts = {name: getattr(run, f"{name}_fingerprint") for name in ("config", "data", "code", "engine", "environment")}
    return Fingerprints(**parts, run_key=run.run_key or "")


def _result(run: StoredRun, curve: EquityCurve, fills: tuple[Fill, ...] | None) -> RunResult:
    closed, open_quantity = trades.round_trips(fills or ())
    return RunResult(float(run.initial_capital), curve, fills or (), closed, open_quantity, bars=len(curve))
