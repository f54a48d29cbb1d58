"""A comparison as data: one JSON document, or a row for each fact, setting and metric. Every digit, fractions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cli.formats import plain
from cli.output import run_document
from ntrader.comparison import ABSENT, Comparison, InputDifference, Verdict
from ntrader.comparison_report import fingerprint_rows

if TYPE_CHECKING:
    from ntrader.significance import Interval, Significance
    from storage.runs import StoredRun


def document_text(
    comparison: Comparison, runs: Sequence[StoredRun], found: Mapping[int, Significance] | None = None
) -> str:
    """Everything as JSON; `found`, by position in the runs, is what --significance adds."""
    document = _document(comparison, runs, found)
    return json.dumps(plain(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def flat(comparison: Comparison, *, everything: bool, deltas: bool) -> tuple[list[str], list[list[Any]]]:
    """A row for each fact, setting and metric, a column for each run; every digit."""
    others = [number for number in range(len(comparison.runs)) if deltas and number != comparison.baseline]
    columns = ["section", "name", *comparison.labels, *(f"{comparison.labels[number]} delta" for number in others)]
    facts = ("run_id", "name", "strategy_name", "symbol", "start", "end", "status", "error", "created_at")
    names = {"symbol": "instrument_symbol", "start": "start_date", "end": "end_date", "status": "execution_status"}
    rows = [["run", names.get(fact, fact), *(getattr(run, fact) for run in comparison.runs)] for fact in facts]
    settings = (*comparison.settings, *fingerprint_rows(comparison))
    rows += [
        ["config", setting.name, *(None if value is ABSENT else value for value in setting.values)]
        for setting in settings
        if setting.differs or everything
    ]
    empty = [None] * len(others)
    rows = [[*row, *empty] for row in rows]
    rows += [
        ["metric", row.name, *row.values, *(row.deltas[number] for number in others)] for row in comparison.metrics
    ]
    return columns, rows


def _document(
    comparison: Comparison, runs: Sequence[StoredRun], found: Mapping[int, Significance] | None
) -> dict[str, Any]:
    """Everything, with every digit; deltas are from the baseline, best and runs by Run ID."""
    ids = [run.run_id for run in comparison.runs]
    settings = {setting.name: [_or_null(value) for value in setting.values] for setting in comparison.settings}
    differing = [setting.name for setting in comparison.settings if setting.differs]
    document: dict[str, Any] = {
        "baseline": ids[comparison.baseline],
        "labels": list(comparison.labels),
        "runs": [run_document(run) for run in runs],
        "settings": settings,
        "differences": {name: settings[name] for name in differing},
        "metrics": {
            row.name: {"values": row.values, "deltas": row.deltas, "best": [ids[number] for number in row.best]}
            for row in comparison.metrics
        },
        "verdicts": [_verdict_document(comparison, verdict) for verdict in comparison.verdicts],
        "warnings": comparison.warnings,
    }
    if found is not None:
        document["significance"] = [_significance_document(ids[number], each) for number, each in found.items()]
    return document


def _verdict_document(comparison: Comparison, verdict: Verdict) -> dict[str, Any]:
    return {
        "run_id": comparison.runs[verdict.run].run_id,
        "results": verdict.results,
        "inputs": [_input_document(found) for found in verdict.inputs],
        "without_effect": verdict.without_effect,
        "without_fingerprint": verdict.unknown,
        "cause": _input_document(verdict.cause) if verdict.cause else None,
        "sentence": verdict.sentence,
    }


def _input_document(found: InputDifference) -> dict[str, Any]:
    return {"name": found.name, "before": _or_null(found.before), "after": _or_null(found.after)}


def _or_null(value: Any) -> Any:
    return None if value is ABSENT else value


def _significance_document(run_id: UUID, found: Significance) -> dict[str, Any]:
    def interval(each: Interval | None) -> dict[str, Any] | None:
        if each is None:
            return None
        ends = {"difference": each.estimate, "low": each.low, "high": each.high}
        return ends | {"distinguishable": each.distinguishable}

    return {
        "run_id": run_id,
        "common_days": found.days,
        "block_days": found.block,
        "mean_return": interval(found.mean_return),
        "sharpe_ratio": interval(found.sharpe_ratio),
    }
