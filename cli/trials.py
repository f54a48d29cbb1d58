"""`ntrader sweep show`: a sweep, its search space and its trials. As light as the lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.formats import UNDEFINED, Format, printable, text, write_document
from cli.output import cell, heading, number, say, say_pairs, say_table, talk
from cli.standings import (
    FormatOption,
    JsonOption,
    OutputOption,
    Which,
    duration,
    list_,
    measured,
    say_sweep,
    status,
    sweep_document,
    write_documents,
)

if TYPE_CHECKING:
    from storage.sweeps import StoredSweep, StoredTrial

# Axes that are no parameters.
_OTHERS = ("symbol", "timeframe", "period")
_TOP = 10
_FEW, _VALUES = 4, 12
_METRICS = ("total_return", "sharpe_ratio", "max_drawdown", "total_trades")


def show(
    sweep: Which,
    by: Annotated[
        str | None, typer.Option("--by", metavar="METRIC", help="Rank by this one, not by the sweep's objective.")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", "-n", min=1, help="How many trials; by default 10.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The trials that failed, and why.")] = False,
    trials: Annotated[bool, typer.Option("--trials", help="All trials, in the order of their numbers.")] = False,
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """A sweep, its search space and its best trials.

    Each trial is a run: `history show` shows it by its Run ID.
    """
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage import sweeps as stored

    if failed + trials + (by is not None) > 1:
        raise ConfigError("--by, --failed and --trials are one question each", hint="Ask for one of them.")
    settings = load_settings()
    found = stored.get_sweep(settings, sweep)
    column = stored.ranking_column(by or found.objective)
    ranked = None if failed or trials else column
    if failed:
        rows = stored.failed_trials(settings, found.id, top)
    elif trials:
        rows = stored.all_trials(settings, found.id)[:top]
    else:
        rows = stored.ranking(settings, found.id, column, _direction(found, column), top or _TOP)
    format_ = Format.json if json_output else format_
    if format_ is Format.table and output is None:
        say_sweep(found)
        _say_space(found)
        if failed:
            _say_failed(found, rows)
        else:
            _say_trials(found, rows, column, ranked=ranked is not None)
    elif format_ is Format.json:
        shown = [trial_document(trial) for trial in rows]
        write_document({"sweep": sweep_document(found), "ranked_by": ranked, "trials": shown}, output)
    else:
        write_documents([_flat(trial) for trial in rows], _names(found), format_, output)
    _say_rest(found, rows, ranked, failed=failed)


def register(app: typer.Typer) -> None:
    """Add what looks at sweeps to `ntrader sweep`."""
    app.command("list")(list_)
    app.command("status")(status)
    app.command("show")(show)


def trial_document(trial: StoredTrial) -> dict[str, Any]:
    values = {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}
    return values | {"point": trial.point.snapshot()}


def place(trial: StoredTrial) -> list[tuple[str, Any]]:
    """Where in the search space it is: what varies, by name."""
    point = trial.point
    others = [(name, getattr(point, name)) for name in _OTHERS]
    return [(name, value) for name, value in others if value is not None] + sorted(point.values.items())


# The search space


def _say_space(sweep: StoredSweep) -> None:
    snapshot = sweep.config_snapshot
    search, data = snapshot["sweep"], snapshot["data"]
    axes = search.get("params", {})
    say("\nSearch space")
    say_pairs(
        [
            *(
                (name, ", ".join(map(str, search[f"{name}s"])))
                for name in ("symbol", "timeframe")
                if f"{name}s" in search
            ),
            *([("period", ", ".join(map(_period, search["periods"])))] if "periods" in search else []),
            *((name, axis_text(axis)) for name, axis in sorted(axes.items())),
            *(("such that", constraint) for constraint in search.get("constraints", [])),
            *_limits(search),
        ]
    )
    fixed = {name: value for name, value in snapshot["strategy"]["parameters"].items() if name not in axes}
    say("\nThe same for all")
    say_pairs(
        [
            *([("symbol", data["symbol"])] if "symbols" not in search else []),
            *([("timeframe", data["timeframe"])] if "timeframes" not in search else []),
            *([("period", _period(data))] if "periods" not in search else []),
            *((name, text(value)) for name, value in sorted(fixed.items()) if value is not None),
        ]
    )


def _limits(search: dict[str, Any]) -> list[tuple[str, str]]:
    budget = search.get("budget", {})
    limits = [
        ("seed", str(search["seed"]) if search["sampler"] != "grid" else None),
        ("at most", f"{budget['trials']:,} trials" if budget.get("trials") else None),
        ("at most", f"{_length(budget['wall'])} a sitting" if budget.get("wall") else None),
        ("timeout", f"{_length(search['timeout'])} a trial" if search.get("timeout") else None),
    ]
    return [(name, value) for name, value in limits if value is not None]


def _length(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else duration(seconds)


def axis_text(axis: dict[str, Any]) -> str:
    """The canonical form of an axis (`ntrader.sweeps.axes`), for reading: `5 to 50 by 5 (10 values)`."""
    ((kind, value),) = axis.items()
    if kind == "range":
        first, last, step = value
        if (last - first) // step < _FEW:
            return ", ".join(map(str, range(first, last + step, step)))
        steps = "" if step == 1 else f" by {step}"
        return f"{first:,} to {last:,}{steps} ({(last - first) // step + 1:,} values)"
    if kind == "values":
        shown = ", ".join(printable(text(each)) or UNDEFINED for each in value[:_VALUES])
        return shown if len(value) <= _VALUES else f"{shown}, ... ({len(value):,} values)"
    return f"{value[0]} to {value[1]}{', logarithmic' if kind == 'log_uniform' else ''}"


def _period(data: dict[str, Any]) -> str:
    start, end = data.get("start"), data.get("end")
    return f"{start or 'the first bar'} to {end or 'the last bar'}"


# Trials


def _direction(sweep: StoredSweep, column: str) -> str:
    """The sweep's own for its objective; of any other metric the usual best first."""
    from storage.fields import LESS_IS_BETTER

    if column == sweep.objective:
        return sweep.direction
    return "minimize" if column in LESS_IS_BETTER else "maximize"


def _say_trials(sweep: StoredSweep, trials: Sequence[StoredTrial], column: str, *, ranked: bool) -> None:
    if not trials:
        return
    axes = _axes(sweep)
    metrics = list(dict.fromkeys((column, *_METRICS)))
    say(f"\nRanked by {column}, {_direction(sweep, column)}" if ranked else "\nTrials")
    first = [("Place", "right"), ("Trial", "right")] if ranked else [("Trial", "right"), ("State", "left")]
    columns = [*first, *((name, "right") for name in axes), *((_title(name), "right") for name in metrics)]
    rows = [
        [
            *([str(number_), str(trial.trial_number)] if ranked else [str(trial.trial_number), _state(trial)]),
            *_cells(trial, axes),
            *(measured(name, _metric(trial, name)) for name in metrics),
            cell("run_id", trial.run_id),
        ]
        for number_, trial in enumerate(trials, start=1)
    ]
    say_table([*columns, ("Run ID", "left")], rows)


def _say_failed(sweep: StoredSweep, trials: Sequence[StoredTrial]) -> None:
    if not trials:
        return
    axes = _axes(sweep)
    say("\nFailed trials")
    say_table(
        [("Trial", "right"), *((name, "right") for name in axes), ("Reason", "left"), ("Run ID", "left"),
         ("Message", "left")],
        [
            [
                str(trial.trial_number), *_cells(trial, axes), trial.reason or UNDEFINED, cell("run_id", trial.run_id),
                printable((trial.error_message or UNDEFINED).partition("\n")[0]),
            ]
            for trial in trials
        ],
    )  # fmt: skip


def _say_rest(sweep: StoredSweep, trials: Sequence[StoredTrial], ranked: str | None, *, failed: bool) -> None:
    """How much of it this was, and how to go on: nothing is cut short in silence."""
    counts, shown = sweep.counts, len(trials)
    if failed and not counts.failed:
        talk("No trial has failed.")
    elif failed:
        if shown < counts.failed:
            talk(f"Showing {shown:,} of {counts.failed:,} failed trials.")
        talk(f"More of one: ntrader history show RUN. To run them again: ntrader sweep retry {sweep.id} --failed")
    elif ranked is None:
        planned = counts.waiting + counts.running + counts.done
        if shown < planned:
            talk(f"Showing {shown:,} of {planned:,} trials.")
    elif not trials:
        talk(f"No trial has a {ranked} yet.")
    else:
        if shown < counts.success:
            talk(f"Showing {shown:,} of {counts.success:,} successful trials. More: --top {counts.success}")
        _say_noise(sweep, trials[0], ranked)


def _say_noise(sweep: StoredSweep, best: StoredTrial, ranked: str) -> None:
    """What the best is to be held against."""
    from ntrader.noise import expected_best_sharpe

    if ranked != "sharpe_ratio":
        return
    observations = best.metrics["return_observations"] or 0
    annualization = sweep.config_snapshot.get("annualization", 252)
    noise = expected_best_sharpe(sweep.counts.done, observations, annualization)
    if noise is not None:
        talk(f"The best Sharpe ratio of so many trials of pure noise would be about {number(noise)}.")


def _axes(sweep: StoredSweep) -> list[str]:
    search = sweep.config_snapshot["sweep"]
    others = [name for name in _OTHERS if f"{name}s" in search]
    return [*others, *sorted(search.get("params", {}))]


def _cells(trial: StoredTrial, axes: Sequence[str]) -> list[str]:
    values = dict(place(trial))
    return [_value(values.get(name)) for name in axes]


def _value(value: Any) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:.6g}" if isinstance(value, float) else printable(text(value))


def _names(sweep: StoredSweep) -> list[str]:
    """The columns of trials that are written as rows."""
    from storage.fields import METRICS

    varied = [name if name in _OTHERS else f"params.{name}" for name in _axes(sweep)]
    first = ["trial_number", "state", "linked", "reason", "crashes", "run_id"]
    return [*first, *varied, *METRICS, "execution_duration_seconds", "result_digest", "error_message"]


def _flat(trial: StoredTrial) -> dict[str, Any]:
    params = {f"params.{name}": value for name, value in trial.point.values.items()}
    others = {name: getattr(trial.point, name) for name in _OTHERS}
    others["period"] = str(trial.point.period) if trial.point.period else None
    known = {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}
    return known | trial.metrics | params | others


def _state(trial: StoredTrial) -> str:
    return "there before" if trial.linked else trial.state


def _metric(trial: StoredTrial, name: str) -> Any:
    return trial.execution_duration_seconds if name == "execution_duration_seconds" else trial.metrics[name]


def _title(name: str) -> str:
    return heading(name)[0]
