"""The page of a sweep: its rows read, analysed and written down."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cli.formats import destination, json_text
from cli.output import cell, talk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ntrader.settings import Settings
    from ntrader.sweeps.analysis import Analysis
    from ntrader.sweeps.outcomes import Outcome
    from ntrader.sweeps.report import Facts, TopRun
    from storage.sweeps import StoredSweep

# From here on digits after the point say nothing, and those before it are hard to count.
_LARGE = 1e9


def write_report(
    reference: str, output: Path | None, *, top: int, json_output: bool, duration: Callable[[float], str]
) -> None:
    """Write the page or, as JSON, its numbers."""
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings

    if output is None and not json_output:
        raise ConfigError("there is no file to write the page to", hint="Write -o sweep.html, or --json for numbers.")
    facts, analysis, runs = _read(load_settings(), reference, top)
    with destination(output) as stream:
        if json_output:
            from ntrader.sweeps.report_data import report_document

            stream.write(json_text(report_document(facts, analysis, runs)) + "\n")
        else:
            from ntrader.sweeps.report import Style, sweep_page
            from storage.fields import FRACTIONS

            stream.write(sweep_page(facts, analysis, runs, Style(_value, duration, FRACTIONS)))
    if output is not None and str(output) != "-":
        talk(f"{'Numbers' if json_output else 'Page'} written to {output}.")


def _read(settings: Settings, reference: str, top: int) -> tuple[Facts, Analysis, Mapping[int, TopRun]]:
    from ntrader.sweeps.analysis import analyse
    from ntrader.sweeps.points import space_of
    from ntrader.sweeps.report import TopRun
    from storage import sweeps as stored

    sweep = stored.get_sweep(settings, reference)
    outcomes = stored.outcomes(settings, sweep.id, sweep.objective)
    ranked = stored.ranking(settings, sweep.id, sweep.objective, sweep.direction, top)
    facts = _facts(sweep, outcomes)
    config = facts.config
    analysis = analyse(
        outcomes, space_of(config).axes, objective=config.objective, direction=config.direction,
        grid=config.sampler == "grid", annualization=config.base.annualization, top=top,
    )  # fmt: skip
    runs = {trial.trial_number: TopRun(trial.run_id, trial.metrics) for trial in ranked if trial.run_id is not None}
    return facts, analysis, runs


def _facts(sweep: StoredSweep, outcomes: list[Outcome]) -> Facts:
    from ntrader.sweeps.config import build_sweep
    from ntrader.sweeps.report import Facts

    failed = Counter(outcome.reason for outcome in outcomes if outcome.state == "failed")
    return Facts(
        id=sweep.id,
        name=sweep.name,
        config=build_sweep(sweep.config_snapshot, origin=f"sweep {sweep.id}"),
        strategy_name=sweep.strategy_name,
        state=sweep.state,
        sampler_version=sweep.sampler_version,
        planned=sweep.trials,
        success=sum(outcome.state == "success" for outcome in outcomes),
        linked=sweep.counts.linked,
        failed={reason or "unknown": count for reason, count in failed.items()},
        seconds=sweep.seconds,
        verified=sweep.verified,
        best_linked=sweep.best_linked,
        created_at=sweep.created_at,
        finished_at=sweep.finished_at,
    )


def _value(name: str, value: object) -> str:
    if isinstance(value, float) and abs(value) >= _LARGE:
        return f"{value:.4g}"
    return cell(name, value)
