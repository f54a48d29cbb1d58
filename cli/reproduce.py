"""`ntrader reproduce` and `ntrader verify`: a stored run again, and whether it came out the same to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid4

import typer

from cli import complete
from cli.detached import Deploy, Detach, require_saving, submit
from cli.formats import UNDEFINED, Format, destination, write
from cli.output import (
    cell,
    percent,
    progress_line,
    run_document,
    say,
    say_json,
    say_pairs,
    say_table,
    talk,
)

if TYPE_CHECKING:
    from flows.reproduce import Explanation, Reproduction
    from flows.verify import Checked
    from ntrader.differences import BarValues
    from ntrader.divergence import Divergence
    from ntrader.settings import Settings
    from storage.runs import StoredRun

RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Run IDs, beginnings of them, @last, @best:SWEEP, or names.", autocompletion=complete.runs),
]
SweepOption = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="SWEEP",
        help="All successful trials of this sweep: its number, name or @last.",
        autocompletion=complete.sweeps,
    ),
]
DIFFERENT = 6
_METRICS = (
    *("total_return", "cagr", "final_balance", "sharpe_ratio", "sortino_ratio", "max_drawdown", "calmar_ratio"),
    *("volatility", "total_trades", "win_rate", "profit_factor", "expectancy"),
)
_SHOWN_BARS, _SHOWN_LINES, _SHOWN_DAYS = 10, 60, 10


def reproduce(
    run: Annotated[
        str,
        typer.Argument(
            help="Run ID, the beginning of one, @last, @best:SWEEP, or a name.", autocompletion=complete.runs
        ),
    ],
    with_original_data: Annotated[
        bool, typer.Option("--with-original-data", help="Use the bars that were kept, not those there are now.")
    ] = False,
    with_original_code: Annotated[
        bool, typer.Option("--with-original-code", help="Use the source text that was kept, not what there is now.")
    ] = False,
    no_persist: Annotated[bool, typer.Option("--no-persist", help="Do not save the new run.")] = False,
    detach: Detach = False,
    deploy: Deploy = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a stored run again, and prove that the result is the same, or name the cause.

    The config is the stored one; no file is read. The new run is saved and linked to the original. Exit code 6 when the
    results differ.
    """
    from ntrader.settings import load_settings
    from storage.runs import get_run

    settings = load_settings()
    original = get_run(settings, run)
    if detach or deploy:
        require_saving(persistence=settings.persistence, no_persist=no_persist)
        _detach(settings, original, data=with_original_data, code=with_original_code, json_output=json_output)
        return
    if not json_output:
        _say_original(original)
    save = settings.persistence and not no_persist
    found = _reproduce(settings, original, save=save, data=with_original_data, code=with_original_code)
    if json_output:
        say_json(_document(found))
    else:
        _say_reproduction(found)
    if not save:
        talk(f"The new run was NOT saved ({'--no-persist' if no_persist else 'ENABLE_BACKTEST_PERSISTENCE=false'}).")
    if not found.verdict.identical:
        raise typer.Exit(DIFFERENT)


def _detach(settings: Settings, original: StoredRun, *, data: bool, code: bool, json_output: bool) -> None:
    from flows.detach import detach_reproduction

    submit(
        lambda: detach_reproduction(settings, str(original.run_id), uuid4(), original_data=data, original_code=code),
        json_output=json_output,
    )


def verify(
    runs: RunsArgument = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="The newest N successful runs.")] = None,
    sweep: SweepOption = None,
    format_: Annotated[Format, typer.Option("--format", help="How the verdicts are written.")] = Format.table,
    json_output: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")] = None,
) -> None:
    """Run stored runs again without saving anything: do they still come out the same to the bit?

    Exit code 6 if any does not.
    """
    from flows.launch import launch_verification
    from ntrader import progress
    from ntrader.settings import load_settings

    settings = load_settings()
    wanted = chosen(settings, runs or [], last, sweep)
    show, clear = progress_line()
    progress.listen(show)
    try:
        checked = launch_verification(settings, wanted)
    finally:
        clear()
    say_checked(checked, Format.json if json_output else format_, output)
    if not all(each.holds for each in checked):
        talk("`ntrader reproduce RUN` looks for the cause.")
        raise typer.Exit(DIFFERENT)


def say_checked(
    checked: Sequence[Checked], format_: Format, output: Path | None, trials: Mapping[UUID, int] | None = None
) -> None:
    """A row a run; with `trials` the number of each among those of its sweep."""
    rows = [[*([trials[each.run_id]] if trials else []), *_checked_row(each)] for each in checked]
    columns = [*(["Trial"] if trials else []), "Run ID", "Strategy", "Symbol", "Verdict", "Moved", "First difference"]
    if format_ is Format.table and output is None:
        short = [[str(value)[:8] if name == "Run ID" else str(value) for name, value in zip(columns, row, strict=True)]
                 for row in rows]  # fmt: skip
        say_table([(name, "right" if name == "Trial" else "left") for name in columns], short)
    else:
        with destination(output) as stream:
            write(format_, stream, [_key(name) for name in columns], rows)
    holding = sum(each.holds for each in checked)
    talk(f"{holding:,} of {len(checked):,} identical.")


def chosen(settings: Settings, runs: list[str], last: int | None, sweep: str | None) -> list[str]:
    from ntrader.errors import ConfigError, NotFoundError
    from storage.conditions import Filters
    from storage.runs import list_runs

    given = [name for name, there in (("RUN", runs), ("--last", last), ("--sweep", sweep)) if there]
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given)} do not go together" if given else "no run is named",
            hint="Name runs, or give --last N, or --sweep SWEEP.",
        )
    if runs:
        return list(dict.fromkeys(runs))
    found = list_runs(settings, last or 1_000_000, Filters(statuses=("success",), sweep=sweep)).runs
    if not found:
        raise NotFoundError("there is no successful run", hint="`ntrader history list` shows what there is.")
    return [str(run.run_id) for run in found]


def _checked_row(checked: Checked) -> list[Any]:
    verdict = checked.verdict
    who = [str(checked.run_id), checked.strategy_name, checked.instrument_symbol]
    if verdict is None:
        return [*who, "not run", UNDEFINED, checked.error]
    said = "identical" if verdict.identical else "different"
    return [*who, said, ", ".join(verdict.moved) or UNDEFINED, place(verdict.divergence)]


def place(first: Divergence | None) -> str:
    """`fill 12 at 2009-03-10 00:00:00 UTC`."""
    return f"{first.kind} {first.number:,} at {_time(first.time)}" if first else UNDEFINED


def _key(heading: str) -> str:
    return heading.lower().replace(" ", "_")


def _reproduce(settings: Settings, original: StoredRun, *, save: bool, data: bool, code: bool) -> Reproduction:
    from flows.launch import launch_reproduction
    from ntrader import progress
    from ntrader.errors import Interruption
    from storage.runs import find_run

    run_id = uuid4()
    show, clear = progress_line()
    progress.listen(show)
    try:
        return launch_reproduction(
            settings, str(original.run_id), run_id, save=save, original_data=data, original_code=code
        )
    except Interruption:
        clear()
        run = find_run(settings, run_id) if save else None
        if run is not None:
            # Once the result is saved, only the search for the cause can be interrupted.
            talk(f"Run {run_id} is recorded as {run.execution_status}.")
        raise
    finally:
        clear()


def _say_original(run: StoredRun) -> None:
    say(f"Reproducing run {run.run_id}")
    say()
    say("Stored Configuration")
    say_pairs([(name, cell(name, value)) for name, value in _flat(_settings(run)) if value is not None])
    say()


def _settings(run: StoredRun) -> dict[str, Any]:
    """In the order of the config file, not in that of PostgreSQL."""
    from ntrader.config import build_config
    from ntrader.errors import ConfigError

    try:
        return build_config(run.config_snapshot).snapshot()
    except ConfigError:
        return run.config_snapshot


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", str(value) if isinstance(value, int | float) else value))
    return pairs


def _say_reproduction(found: Reproduction) -> None:
    from ntrader.comparison_report import TITLES
    from ntrader.summary import verdict_line

    before, after = found.original.metrics, found.metrics
    rows = [
        [TITLES[name], cell(name, getattr(before, name)), cell(name, getattr(after, name))]
        for name in _METRICS
        if before is not None
    ]
    say_table([("Metric", "left"), ("Original", "right"), ("Reproduction", "right")], rows)
    say()
    if found.explanation is not None:
        _say_explanation(found, found.explanation)
    elif found.verdict.moved:
        say(f"{' and '.join(found.verdict.moved).capitalize()} changed since, without effect on the result.")
    line = verdict_line(found.verdict)
    say(
        line
        if found.verdict.identical
        else f"{line}: {found.explanation.cause.sentence}"
        if found.explanation
        else line
    )
    if found.saved:
        say(f"Run ID: {found.run.run_id}")


def _say_explanation(found: Reproduction, explanation: Explanation) -> None:
    verdict = found.verdict
    say(f"Inputs that moved: {', '.join(verdict.moved) or 'none'}")
    if explanation.data is not None or explanation.days:
        _say_data(explanation)
    if explanation.code is not None:
        _say_code(explanation)
    if explanation.engine is not None:
        old, new = explanation.engine
        say(f"  engine: nautilus_trader {old[0]} -> {new[0]}")
    for name, (old, new) in explanation.environment.items():
        say(f"  environment: {name} {old} -> {new}")
    for problem in explanation.damaged:
        say(f"  {problem}")
    say()
    if verdict.divergence is not None:
        _say_divergence(verdict.divergence)
    if verdict.returns is not None:
        returns = verdict.returns
        say(
            f"Daily returns differ on {returns.differing:,} of {returns.days:,} days"
            + (
                f", at most by {percent(returns.largest, 4)} on {_time(returns.largest_day)[:10]}."
                if returns.largest_day
                else "."
            )
        )
    say()


def _say_data(explanation: Explanation) -> None:
    if explanation.days:
        shown = ", ".join(explanation.days[:_SHOWN_DAYS])
        rest = len(explanation.days) - _SHOWN_DAYS
        more = f" and {rest:,} more" if rest > 0 else ""
        say(f"  data: other bars on {shown}{more}; the original ones were not kept")
    data = explanation.data
    if data is None:
        return
    counts = ((data.changed, "changed"), (data.added, "added"), (data.removed, "removed"))
    said = ", ".join(f"{number:,} bar{'' if number == 1 else 's'} {what}" for number, what in counts if number)
    if said:
        first, last = data.days[0], data.days[-1]
        say(f"  data: {said}, on {first if first == last else f'{len(data.days):,} days from {first} to {last}'}")
    for name, old, new in data.names:
        say(f"  data: {name} {old} -> {new}")
    for row in data.rows[:_SHOWN_BARS]:
        say(f"    {_time(row.time)}  {_bar(row.original, row.columns)} -> {_bar(row.new, row.columns)}")
    rest = data.changed + data.added + data.removed - _SHOWN_BARS
    if rest > 0:
        say(f"    ... and {rest:,} more")


def _bar(values: BarValues | None, columns: tuple[str, ...]) -> str:
    return "no bar" if values is None else ", ".join(f"{name} {getattr(values, name)!r}" for name in columns)


def _say_code(explanation: Explanation) -> None:
    code = explanation.code
    assert code is not None
    for module in code.modules:
        comments = ", in comments only" if module.only_comments else ""
        say(
            f"  code: {module.module} {module.kind}{comments}, {module.added:,} lines added, {module.removed:,} removed"
        )
        lines = module.diff.splitlines()
        for line in lines[:_SHOWN_LINES]:
            say(f"    {line}")
        if len(lines) > _SHOWN_LINES:
            say(f"    ... {len(lines) - _SHOWN_LINES:,} more lines")


def _lines(number: int) -> str:
    return f"{number:,} line{'' if number == 1 else 's'}"


def _say_divergence(divergence: Divergence) -> None:
    say(f"The first event that differs: {divergence.kind} {divergence.number:,} at {_time(divergence.time)}")
    say_pairs([("original", _event(divergence.original)), ("new", _event(divergence.new))])


def _event(event: Any) -> str:
    if event is None:
        return "none"
    if isinstance(event, float):
        return repr(event)
    what = f"{event.side} {event.quantity:g} at {event.price:g}, fee {event.fee:g}, {event.order_type}"
    return f"{what}, {_time(event.time)}"


def _time(nanoseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1_000)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _document(found: Reproduction) -> dict[str, Any]:
    return {
        "identical": found.verdict.identical,
        "original": run_document(found.original),
        "run_id": str(found.run.run_id) if found.saved else None,
        "result_digest": found.execution.result_digest,
        "metrics": dataclasses.asdict(found.metrics),
        "verdict": dataclasses.asdict(found.verdict),
        "explanation": dataclasses.asdict(found.explanation) if found.explanation else None,
    }
