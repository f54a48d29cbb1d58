"""Whether a sweep that had its troubles is the same as one that was left in peace: nothing lost, nothing doubled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ntrader.settings import Settings
from storage.database import reading


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of so many `trials`: those without a successful run, those with more than one, those whose digests are equal; and
    all that is wrong."""

    trials: int
    lost: int
    doubled: int
    equal: int
    problems: list[str]


def compare(peace: Settings, troubled: Settings, trials: int) -> Comparison:
    """The one sweep in `troubled`, beside the one in `peace`; both have so many trials."""
    expected, found = _table(peace), _table(troubled)
    successes = _successes(troubled)
    problems = [
        f"trial {number} differs: {sorted(name for name in one if one[name] != found.get(number, {}).get(name))}"
        for number, one in expected.items()
        if one != found.get(number)
    ]
    if len(found) != trials or len(expected) != trials:
        problems.append(f"{len(found)} trials have a whole run, {len(expected)} in peace, {trials} are planned")
    return Comparison(
        trials,
        lost=sum(not successes.get(number) for number in range(trials)),
        doubled=sum(count > 1 for count in successes.values()),
        equal=sum(number in found and one["digest"] == found[number]["digest"] for number, one in expected.items()),
        problems=problems + _leftovers(troubled),
    )


def _table(settings: Settings) -> dict[int, dict[str, Any]]:
    """All that a trial is, by number; how it came about is left out."""
    with reading(settings) as connection:
        rows = connection.execute(
            "SELECT t.trial_number, t.point, t.state, t.reason, t.linked, t.run_key, r.run_key AS key_of_run,"
            " r.result_digest AS digest, r.config_snapshot, r.parameters, to_jsonb(m) - 'backtest_run_id' - 'id'"
            " AS metrics, c.equity, c.steps, f.prices, f.quantities FROM trials t"
            " JOIN backtest_runs r ON r.id = t.run_id JOIN performance_metrics m ON m.backtest_run_id = r.id"
            " JOIN equity_curves c ON c.backtest_run_id = r.id JOIN fills f ON f.backtest_run_id = r.id"
            " ORDER BY t.sweep_id, t.trial_number"
        ).fetchall()
    return {row["trial_number"]: row for row in rows}


def _successes(settings: Settings) -> dict[int, int]:
    """How many successful runs each trial has."""
    with reading(settings) as connection:
        rows = connection.execute(
            "SELECT trial_number, count(*) AS n FROM backtest_runs WHERE execution_status = 'success' GROUP BY 1"
        ).fetchall()
    return {row["trial_number"]: row["n"] for row in rows}


def _leftovers(settings: Settings) -> list[str]:
    """Each trial has one success, which is its own, and nobody works on one any more."""
    checks = {
        "sweeps too many": "SELECT count(*) - 1 FROM sweeps",
        "trials without exactly one success": "SELECT count(*) FROM trials t WHERE 1 <> (SELECT count(*)"
        " FROM backtest_runs r WHERE r.sweep_id = t.sweep_id AND r.trial_number = t.trial_number"
        " AND execution_status = 'success')",
        "runs of no trial": "SELECT count(*) FROM backtest_runs r WHERE execution_status = 'success' AND NOT EXISTS"
        " (SELECT FROM trials t WHERE t.run_id = r.id)",
        "runs that failed for another reason than kills": "SELECT count(*) FROM backtest_runs"
        " WHERE execution_status <> 'success' AND error_type <> 'EngineKilledError'",
        "trials that somebody holds": "SELECT count(*) FROM trials"
        " WHERE chunk_id IS NOT NULL OR lease_owner IS NOT NULL",
        "curves without a run": "SELECT (SELECT count(*) FROM equity_curves) - (SELECT count(*) FROM backtest_runs"
        " WHERE execution_status = 'success')",
        "runs whose bars are not kept": "SELECT count(*) FROM backtest_runs r WHERE NOT EXISTS"
        " (SELECT FROM kept_data k WHERE k.data_fingerprint = r.data_fingerprint)",
    }  # fmt: skip
    problems = []
    with reading(settings) as connection:
        for what, query in checks.items():
            row = connection.execute(query).fetchone()  # type: ignore[arg-type]
            count = next(iter(row.values())) if row else 0
            if count:
                problems.append(f"{count} {what}")
    return problems
