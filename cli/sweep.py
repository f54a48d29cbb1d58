"""`ntrader sweep`: run many trials, look at them, go on with them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import complain, number, say, say_json, say_pairs, talk
from cli.run import base_request
from cli.sweep_report import write_report

if TYPE_CHECKING:
    from flows.sweep import SweepOutcome
    from ntrader.settings import Settings
    from ntrader.sweeps.standing import Estimate, Standing
    from storage.sweeps import StoredSweep

app = typer.Typer(help="Run many trials over a search space; each is a run like any other.", no_args_is_help=True)

Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, help="Worker processes; by default one a core.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not run the best trial once more by itself at the end.")
]
NoKeepData = Annotated[
    bool, typer.Option("--no-keep-data", help="Do not keep the bars: a later change can then not be shown.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Which = Annotated[str, typer.Argument(metavar="SWEEP", help="Its number, its name, @last or @last~1.")]


@app.command("run")
def run(
    file: Annotated[str | None, typer.Argument(help="YAML file with a section `sweep`; the options below win.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", "-s", help="Key, name or import path.")] = None,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="Instrument; several are an axis. Repeatable.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=AXIS", help="5:50:5, 50,100,200 or 0.5..3.0. Repeatable."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter that does not vary.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option("--constraint", help="Such as 'fast_period < slow_period'. Repeatable.")
    ] = None,
    objective: Annotated[str | None, typer.Option("--objective", help="The metric to rank by.")] = None,
    direction: Annotated[str | None, typer.Option("--direction", help="maximize or minimize it.")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="grid (default), random or tpe.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the sampler.")] = None,
    trials: Annotated[int | None, typer.Option("--trials", help="Run at most so many.")] = None,
    wall: Annotated[str | None, typer.Option("--wall", help="Stop after so long, such as 30m or 2h.")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Stop a trial after so long.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What to call the sweep.")] = None,
    start_date: Annotated[str | None, typer.Option("--start-date", help="First day (or UTC time), included.")] = None,
    end_date: Annotated[str | None, typer.Option("--end-date", help="Last day (or UTC time), included.")] = None,
    period: Annotated[
        list[str] | None,
        typer.Option("--period", metavar="START..END", help="A test period; several are an axis. Repeatable."),
    ] = None,
    timeframe: Annotated[
        list[str] | None, typer.Option("--timeframe", help="Bar length; several are an axis. Repeatable.")
    ] = None,
    initial_capital: Annotated[str | None, typer.Option("--initial-capital", help="Cash at the start.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="sample, catalog, csv, synthetic or auto.")] = None,
    venue: Annotated[str | None, typer.Option("--venue", help="Venue, where a symbol has more than one.")] = None,
    data_file: Annotated[str | None, typer.Option("--csv", help="Read the bars from this CSV file.")] = None,
    account_type: Annotated[str | None, typer.Option("--account-type", help="CASH or MARGIN.")] = None,
    fill_timing: Annotated[
        str | None, typer.Option("--fill-timing", help="next_open (default) or close of the signal's bar.")
    ] = None,
    workers: Workers = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what to expect of it, and run nothing.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run trials anew that have succeeded before.")] = False,
    no_verify: NoVerify = False,
    no_keep_data: NoKeepData = False,
    json_output: Json = False,
) -> None:
    """Run a sweep and record every trial.

    A trial that has been run before is not run again. A sweep that was interrupted goes on where it was when it is
    started again. Exit code 4 when no trial succeeded, 6 when the best one does not come out the same once more.
    """
    from flows import launch
    from ntrader.settings import load_settings

    settings = load_settings()
    symbols, timeframes = symbol or [], timeframe or []
    request = base_request(
        config_path=file, strategy=strategy, set_=set_, symbol=symbols[0] if len(symbols) == 1 else None,
        source=source or ("csv" if data_file else None), venue=venue,
        timeframe=timeframes[0] if len(timeframes) == 1 else None, data_path=data_file, start=start_date,
        end=end_date, initial_capital=initial_capital, account_type=account_type, fill_timing=fill_timing,
    )  # fmt: skip
    search = _search(
        params=dict(map(_axis, param or [])), symbols=symbols if len(symbols) > 1 else None,
        timeframes=timeframes if len(timeframes) > 1 else None, periods=[*map(_period, period or [])] or None,
        constraints=constraint, objective=objective, direction=direction, sampler=sampler, seed=seed, name=name,
        timeout=timeout, budget={"trials": trials, "wall": wall},
    )  # fmt: skip
    with _shown():
        if estimate:
            found = launch.foresee_sweep(settings, request, search, workers=workers)
        else:
            outcome = _carried_on(
                settings,
                lambda: launch.launch_sweep(
                    settings, request, search, workers=workers, rerun=rerun, keep_data=not no_keep_data,
                    verify_best=not no_verify,
                ),
            )  # fmt: skip
    if estimate:
        _say_estimate(found, json_output=json_output)
    else:
        _say_outcome(outcome, json_output=json_output)


@app.command("resume")
def resume(
    sweep: Which,
    workers: Workers = None,
    no_verify: NoVerify = False,
    no_keep_data: NoKeepData = False,
    json_output: Json = False,
) -> None:
    """Run the trials of a sweep that have not been run yet. Two at once share them."""
    _resume(sweep, workers, no_verify=no_verify, no_keep_data=no_keep_data, json_output=json_output)


@app.command("retry")
def retry(
    sweep: Which,
    failed: Annotated[bool, typer.Option("--failed", help="Run the failed trials again.")] = False,
    workers: Workers = None,
    no_verify: NoVerify = False,
    no_keep_data: NoKeepData = False,
    json_output: Json = False,
) -> None:
    """Run failed trials again; their failed runs stay in the history."""
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage.sweeps import get_sweep, retry_failed

    if not failed:
        raise ConfigError("nothing is named that should be tried again", hint="Write --failed.")
    settings = load_settings()
    found = get_sweep(settings, sweep)
    count = retry_failed(settings, found.id)
    talk(f"{count:,} failed trial{'' if count == 1 else 's'} of sweep {found.id} to run again.")
    if count:
        _resume(str(found.id), workers, no_verify=no_verify, no_keep_data=no_keep_data, json_output=json_output)


@app.command("report")
def report(
    sweep: Which,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="Write the page to this file.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="So many of the best trials.")] = 20,
    json_output: Annotated[bool, typer.Option("--json", help="The numbers as JSON instead of the page.")] = False,
) -> None:
    """Write a page about a sweep: where the good trials lie, and what luck alone would have found. It opens offline."""
    write_report(sweep, output, top=top, json_output=json_output, duration=_duration)


def _resume(sweep: str, workers: int | None, *, no_verify: bool, no_keep_data: bool, json_output: bool) -> None:
    from flows import launch
    from ntrader.settings import load_settings

    settings = load_settings()
    with _shown():
        outcome = _carried_on(
            settings,
            lambda: launch.launch_resumption(
                settings, sweep, workers=workers, keep_data=not no_keep_data, verify_best=not no_verify
            ),
        )
    _say_outcome(outcome, json_output=json_output)


def _carried_on(settings: Settings, work: Callable[[], SweepOutcome]) -> SweepOutcome:
    """What was not finished says how to go on."""
    from ntrader.errors import Interruption, NtraderError
    from storage.sweeps import get_sweep

    try:
        return work()
    except (Interruption, NtraderError) as error:
        number = getattr(error, "sweep_id", None)
        if number is not None:
            sys.stderr.write("\r\x1b[2K" if sys.stderr.isatty() else "")
            try:
                counts = get_sweep(settings, str(number)).counts
                talk(
                    f"Sweep {number}: {counts.done:,} trials are saved,"
                    f" {counts.waiting + counts.running:,} are not run."
                )
            except NtraderError:
                talk(f"Sweep {number}: what was saved is saved.")
            talk(f"Go on with: ntrader sweep resume {number}")
        raise


@contextmanager
def _shown() -> Iterator[None]:
    from cli.output import progress_line
    from ntrader import progress
    from ntrader.sweeps import standing

    show, clear = progress_line("trials")
    progress.listen(show)
    standing.listen(_standing_line())
    try:
        yield
    finally:
        standing.listen(None)
        clear()


def _standing_line() -> Callable[[Standing], None]:
    """Written over on a terminal; elsewhere a line now and then."""
    live = sys.stderr.isatty()
    last, due = "", 0.0

    def show(standing: Standing) -> None:
        nonlocal last, due
        text = _standing_text(standing)
        if live:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
        elif text != last and time.monotonic() >= due:
            talk(text)
            due = time.monotonic() + 10
        last = text

    return show


def _standing_text(standing: Standing) -> str:
    parts = [f"{standing.done:,} of {standing.total:,} trials"]
    if standing.linked:
        parts.append(f"{standing.linked:,} there before")
    if standing.failed:
        parts.append(f"{standing.failed:,} failed")
    if standing.rate:
        parts.append(f"{standing.rate:,.1f}/s")
    if standing.eta is not None and standing.done < standing.total:
        parts.append(f"{_duration(standing.eta)} to go")
    if standing.best is not None:
        parts.append(f"best {standing.best:,.4g} (trial {standing.best_trial})")
    if standing.waiting_for_database:
        parts.append("waiting for the database")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"


def _search(**values: Any) -> dict[str, Any]:
    """Only what was given."""
    budget = {name: value for name, value in values.pop("budget").items() if value is not None}
    given = {name: value for name, value in values.items() if value not in (None, {}, [])}
    return given | ({"budget": budget} if budget else {})


def _axis(text: str) -> tuple[str, dict[str, Any]]:
    from ntrader.sweeps.axes import parse_param

    name, axis = parse_param(text)
    return name.replace("-", "_"), axis.canonical()


def _period(text: str) -> dict[str, str]:
    from ntrader.errors import ConfigError

    start, dots, end = (part.strip() for part in text.partition(".."))
    if not dots:
        raise ConfigError(f"--period {text!r} is not START..END", hint="Write it like 2008-01-01..2010-12-31.")
    return {name: value for name, value in (("start", start), ("end", end)) if value}


def _say_estimate(estimate: Estimate, *, json_output: bool) -> None:
    import dataclasses

    if json_output:
        say_json(dataclasses.asdict(estimate))
        return
    say_pairs(_expected(estimate))


def _expected(estimate: Estimate) -> list[tuple[str, str]]:
    how = "by recorded trials" if estimate.recorded else "by a probe"
    time_ = "unknown" if estimate.seconds is None else f"{_duration(estimate.seconds)} ({how})"
    return [
        ("Trials", f"{estimate.trials:,}"),
        ("Already stored", f"{estimate.stored:,}"),
        ("Workers", f"{estimate.workers}"),
        ("Time", time_),
        ("Memory", f"{estimate.memory / 1e9:.1f} GB"),
        ("Best Sharpe of noise", number(estimate.noise)),
    ]


def _say_outcome(outcome: SweepOutcome, *, json_output: bool) -> None:
    sweep, best, checked = outcome.sweep, outcome.best, outcome.checked
    if json_output:
        say_json(_document(sweep) | {"best": _trial_document(best) if best else None, "verified": sweep.verified})
    else:
        _say_sweep(sweep)
        if best is not None:
            say()
            say(f"Best trial: {best.trial_number}")
            say_pairs(
                [
                    (sweep.objective, number(best.metrics[sweep.objective], 4)),
                    *((name, str(value)) for name, value in _place(best)),
                    ("Run ID", str(best.run_id)),
                ]
            )
        noise = outcome.estimate.noise
        if noise is not None and sweep.objective == "sharpe_ratio":
            talk(f"The best Sharpe ratio of so many trials of pure noise would be about {number(noise)}.")
    if checked is not None and checked.verdict is None:
        talk(f"Warning: the best trial could not be run once more: {checked.error}")
    if checked is not None and checked.verdict is not None and not checked.holds:
        complain(
            f"the best trial does not come out the same when it is run by itself (run {checked.run_id})",
            f"`ntrader reproduce {str(checked.run_id)[:8]}` looks for the cause.",
        )
        raise typer.Exit(6)
    if not sweep.counts.success:
        complain(f"no trial of sweep {sweep.id} succeeded", f"`ntrader sweep show {sweep.id} --failed` says why.")
        raise typer.Exit(4)


def _say_sweep(sweep: StoredSweep) -> None:
    counts = sweep.counts
    say(f"Sweep {sweep.id}{f': {sweep.name}' if sweep.name else ''}")
    say()
    say_pairs(
        [
            ("Strategy", sweep.strategy_name),
            ("State", sweep.state),
            ("Trials", f"{counts.done:,} of {sweep.trials:,}"),
            ("Succeeded", f"{counts.success:,}" + (f", {counts.linked:,} there before" if counts.linked else "")),
            ("Failed", f"{counts.failed:,}"),
            ("Objective", f"{sweep.objective} ({sweep.direction})"),
            ("Sampler", (sweep.sampler_version and f"{sweep.sampler} ({sweep.sampler_version})") or sweep.sampler),
            ("Time", _duration(sweep.seconds)),
            ("Best verified", {True: "identical", False: "DIFFERENT", None: "no"}[sweep.verified]),
        ]
    )


def _place(trial: Any) -> list[tuple[str, Any]]:
    point = trial.point
    others = [(name, getattr(point, name)) for name in ("symbol", "timeframe", "period")]
    return [(name, value) for name, value in others if value is not None] + sorted(point.values.items())


def _document(sweep: StoredSweep) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(sweep) | {"state": sweep.state}


def _trial_document(trial: Any) -> dict[str, Any]:
    import dataclasses

    values = {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}
    return values | {"point": trial.point.snapshot()}
