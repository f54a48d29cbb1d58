"""Stored runs as a comparison takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ntrader.comparison import FINGERPRINTS, ComparedRun, Comparison, check_number, compare
from ntrader.settings import Settings
from storage.runs import StoredRun, get_runs


def compare_runs(
    settings: Settings, references: Sequence[str], baseline: str | None = None
) -> tuple[Comparison, list[StoredRun]]:
    """The runs named as `get_run` takes them, compared, and the runs themselves in the same order.

    Raises ConfigError as `ntrader.comparison.compare` does, NotFoundError and AmbiguousError as `get_run` does.
    """
    check_number(len(references))
    found = get_runs(settings, [*references, *([] if baseline is None else [baseline])])
    runs = found[: len(references)]
    return compare([compared(run) for run in runs], None if baseline is None else found[-1].run_id), runs


def compared(run: StoredRun) -> ComparedRun:
    return ComparedRun(
        run_id=run.run_id,
        name=run.name,
        status=run.execution_status,
        strategy_name=run.strategy_name,
        symbol=run.instrument_symbol,
        start=run.start_date,
        end=run.end_date,
        created_at=run.created_at,
        error=": ".join(filter(None, (run.error_type, run.error_message))) or None,
        config=run.config_snapshot,
        metrics=asdict(run.metrics) if run.metrics else None,
        fingerprints={name: getattr(run, f"{name}_fingerprint") for name in (*FINGERPRINTS, "config")},
        result_digest=run.result_digest,
    )
