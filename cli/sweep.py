"""`ntrader sweep run | resume | retry | verify`: the working half. cli/standings.py and cli/trials.py look."""

from __future__ import annotations

import random
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.detached import Deploy, Detach, submit
from cli.formats import Format
from cli.output import complain, number, progress_line, say, say_json, say_pairs, talk
from cli.reproduce import DIFFERENT, say_checked
from cli.run import base_request
from cli.standings import Which, duration, say_sweep, standing_line, sweep_document
from cli.sweep_report import write_report
from cli.trials import place, register, trial_document

if TYPE_CHECKING:
    from flows.sweep import SweepOutcome
    from flows.verify import Checked
    from ntrader.settings import Settings
    from ntrader.sweeps.request import SearchRequest
    from ntrader.sweeps.runner import RunnerConfig
    from ntrader.sweeps.standing import Estimate
    from storage.standings import Listed
    from storage.sweeps import StoredSweep, StoredTrial

_FAILED = 4
# So many trials are verified where nobody says how many.
_VERIFIED = 5

app = typer.Typer(help="Run many trials over a search space; each is a run like any other.", no_args_is_help=True)

Workers = Annotated[
    int | None,
    typer.Option("--workers", "-w", min=1, help="Worker processes; by default one a core. Of each shard."),
]
RunnerKind = Annotated[
    str | None, typer.Option("--runner", help="Where trials run: local (default), dask or prefect (a work pool).")
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster, such as tcp://host:8786.")
]
Shards = Annotated[
    int | None, typer.Option("--shards", min=1, help="Shards on a work pool; by default one a worker of the pool.")
]
Deployment = Annotated[
    str | None, typer.Option("--deployment", metavar="NAME", help="What a shard is a run of; by default sweep-shard.")
]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not run the best trial once more by itself at the end.")
]
NoKeepData = Annotated[
    bool, typer.Option("--no-keep-data", help="Do not keep the bars: a later change can then not be shown.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


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
    runner: RunnerKind = None,
    scheduler: Scheduler = None,
    shards: Shards = None,
    deployment: Deployment = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what to expect of it, and run nothing.")] = False,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run trials anew that have succeeded before.")] = False,
    no_verify: NoVerify = False,
    no_keep_data: NoKeepData = False,
    detach: Detach = False,
    deploy: Deploy = False,
    json_output: Json = False,
) -> None:
    """Run a sweep and record every trial.

    A trial that has been run before is not run again. A sweep that was interrupted goes on where it was when it is
    started again. Exit code 4 when no trial succeeded, 6 when the best one does not come out the same once more.
    """
    from flows import launch
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings

    where = _where(runner, scheduler, shards, deployment)
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
    if estimate and (detach or deploy):
        raise ConfigError("--estimate runs nothing that could be submitted", hint="Leave out --detach, or --estimate.")
    if estimate:
        with _shown():
            found = launch.foresee_sweep(settings, request, search, workers=workers)
        _say_estimate(found, json_output=json_output)
        return
    if detach or deploy:
        from flows.detach import detach_sweep

        submit(
            lambda: detach_sweep(
                settings, request, search, workers=workers, rerun=rerun, keep_data=not no_keep_data,
                verify_best=not no_verify, runner=where if any((runner, scheduler, shards, deployment)) else None,
            ),
            json_output=json_output,
        )  # fmt: skip
        return
    outcome = _carried_on(
        settings,
        lambda: launch.launch_sweep(
            settings, request, search, workers=workers, rerun=rerun, keep_data=not no_keep_data,
            verify_best=not no_verify, runner=where,
        ),
    )  # fmt: skip
    say_outcome(outcome.sweep, outcome.best, outcome.checked, json_output=json_output)


@app.command("resume")
def resume(
    sweep: Which,
    workers: Workers = None,
    runner: RunnerKind = None,
    scheduler: Scheduler = None,
    shards: Shards = None,
    deployment: Deployment = None,
    no_verify: NoVerify = False,
    no_keep_data: NoKeepData = False,
    detach: Detach = False,
    deploy: Deploy = False,
    json_output: Json = False,
) -> None:
    """Run the trials of a sweep that have not been run yet. Two at once share them."""
    where = _where(runner, scheduler, shards, deployment)
    if detach or deploy:
        from flows.detach import detach_resumption
        from ntrader.settings import load_settings

        settings = load_settings()
        submit(
            lambda: detach_resumption(
                settings, sweep, workers=workers, keep_data=not no_keep_data, verify_best=not no_verify,
                runner=where if any((runner, scheduler, shards, deployment)) else None,
            ),
            json_output=json_output,
        )  # fmt: skip
        return
    _resume(sweep, workers, where, no_verify=no_verify, no_keep_data=no_keep_data, json_output=json_output)


@app.command("retry")
def retry(
    sweep: Which,
    failed: Annotated[bool, typer.Option("--failed", help="Run the failed trials again.")] = False,
    workers: Workers = None,
    runner: RunnerKind = None,
    scheduler: Scheduler = None,
    shards: Shards = None,
    deployment: Deployment = None,
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
    where = _where(runner, scheduler, shards, deployment)
    settings = load_settings()
    found = get_sweep(settings, sweep)
    count = retry_failed(settings, found.id)
    talk(f"{count:,} failed trial{'' if count == 1 else 's'} of sweep {found.id} to run again.")
    if count:
        _resume(str(found.id), workers, where, no_verify=no_verify, no_keep_data=no_keep_data, json_output=json_output)


@app.command("verify")
def verify(
    sweep: Which,
    trials: Annotated[
        int | None,
        typer.Option("--trials", "-n", min=1, help="How many: the best, and others at random. 5 by default."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All successful trials.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Choose the same others again.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="How the verdicts are written.")] = Format.table,
    json_output: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of stdout.")] = None,
) -> None:
    """Run trials again, each by itself: do they come out the same?

    To the bit, as `ntrader verify` does, and without saving anything.

    Exit code 6 if one does not, 4 if one cannot be run.
    """
    from flows.launch import launch_verification
    from ntrader import progress
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage.standings import look_at

    if trials is not None and all_:
        raise ConfigError("--trials and --all do not go together", hint="Leave one of them out.")
    settings = load_settings()
    listed = look_at(settings, sweep)
    chosen = _chosen(settings, listed, None if all_ else trials or _VERIFIED, seed)
    show, clear = progress_line()
    progress.listen(show)
    try:
        checked = launch_verification(settings, [str(run_id) for run_id in chosen])
    finally:
        clear()
    _remember(settings, listed, chosen, checked)
    say_checked(checked, Format.json if json_output else format_, output, chosen)
    if any(each.verdict is not None and not each.holds for each in checked):
        talk("`ntrader reproduce RUN` looks for the cause.")
        raise typer.Exit(DIFFERENT)
    if not all(each.holds for each in checked):
        raise typer.Exit(_FAILED)


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
    write_report(sweep, output, top=top, json_output=json_output, duration=duration)


def _chosen(settings: Settings, listed: Listed, count: int | None, seed: int | None) -> dict[UUID, int]:
    """The best trial and others at random, in the order of their numbers: number by Run ID; None means all."""
    from ntrader.errors import NotFoundError
    from storage.standings import trials_with_runs

    sweep = listed.sweep
    runs = trials_with_runs(settings, sweep.id)
    if not runs:
        hint = f"`ntrader sweep status {sweep.id}` says how far it is."
        raise NotFoundError(f"sweep {sweep.id} has no successful trial", hint=hint)
    best = [listed.best_trial] if listed.best_trial is not None else []
    others = [number for number in runs if number not in best]
    wanted = len(runs) if count is None else count
    if wanted - len(best) < len(others):
        seed = secrets.randbelow(2**32) if seed is None else seed
        others = random.Random(seed).sample(others, max(wanted - len(best), 0))
        talk(f"{wanted:,} of {len(runs):,} trials, chosen with --seed {seed}.")
    return {runs[number]: number for number in sorted([*best, *others])}


def _remember(settings: Settings, listed: Listed, chosen: dict[UUID, int], checked: Sequence[Checked]) -> None:
    """What became of the best trial belongs to the sweep."""
    from storage.sweeps import mark_verified

    for each in checked:
        number = chosen[each.run_id]
        if number == listed.best_trial and each.verdict is not None:
            mark_verified(settings, listed.sweep.id, number, identical=each.holds)


def _where(runner: str | None, scheduler: str | None, shards: int | None, deployment: str | None) -> RunnerConfig:
    from ntrader.settings import load_settings
    from ntrader.sweeps.runner import choose_runner

    return choose_runner(load_settings(), runner, scheduler=scheduler, shards=shards, deployment=deployment)


def _resume(
    sweep: str, workers: int | None, where: RunnerConfig, *, no_verify: bool, no_keep_data: bool, json_output: bool
) -> None:
    from flows import launch
    from ntrader.settings import load_settings

    settings = load_settings()
    outcome = _carried_on(
        settings,
        lambda: launch.launch_resumption(
            settings, sweep, workers=workers, keep_data=not no_keep_data, verify_best=not no_verify, runner=where
        ),
    )
    say_outcome(outcome.sweep, outcome.best, outcome.checked, json_output=json_output)


def _carried_on(settings: Settings, work: Callable[[], SweepOutcome]) -> SweepOutcome:
    """What was not finished says how to go on."""
    with _shown() as heard:
        try:
            return work()
        except BaseException:
            if heard.sweep_id is not None:
                _say_how_far(settings, heard.sweep_id)
            raise


def _say_how_far(settings: Settings, sweep_id: int) -> None:
    from ntrader.errors import NtraderError
    from storage.sweeps import get_sweep

    sys.stderr.write("\r\x1b[2K" if sys.stderr.isatty() else "")
    try:
        sweep = get_sweep(settings, str(sweep_id))
    except NtraderError:
        talk(f"Sweep {sweep_id}: what was saved is saved.")
    else:
        left = sweep.trials - sweep.counts.done
        talk(f"Sweep {sweep_id}: {sweep.counts.done:,} trials are saved, {left:,} are not run.")
    talk(f"Go on with: ntrader sweep resume {sweep_id}")


@dataclass(slots=True)
class _Heard:
    """The sweep that is being worked on, once it is known."""

    sweep_id: int | None = None

    def expected(self, sweep_id: int, estimate: Estimate) -> None:
        self.sweep_id = sweep_id
        _say_expected(sweep_id, estimate)


@contextmanager
def _shown() -> Iterator[_Heard]:
    from ntrader import progress
    from ntrader.sweeps import standing

    heard = _Heard()
    show, clear = progress_line("trials")
    progress.listen(show)
    standing.listen(standing_line(), heard.expected)
    try:
        yield heard
    finally:
        standing.listen(None)
        clear()


def _say_expected(sweep_id: int, estimate: Estimate) -> None:
    new = estimate.trials - estimate.stored
    parts = [f"{estimate.trials:,} trials"]
    if estimate.stored:
        parts.append(f"{estimate.stored:,} of them stored already")
    if new and estimate.seconds is not None:
        parts.append(f"about {duration(estimate.seconds)} with {estimate.workers} workers")
    if new:
        parts.append(f"{estimate.memory / 1e9:.1f} GB")
    if estimate.noise is not None:
        parts.append(f"pure noise would show a best Sharpe of {number(estimate.noise)}")
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K")
    talk(f"Sweep {sweep_id}: {', '.join(parts)}.")


def _search(**values: Any) -> SearchRequest:
    """Only what was given."""
    from ntrader.sweeps.request import read_search

    return read_search({name: value for name, value in values.items() if value is not None})


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
    time_ = "unknown" if estimate.seconds is None else f"{duration(estimate.seconds)} ({how})"
    return [
        ("Trials", f"{estimate.trials:,}"),
        ("Already stored", f"{estimate.stored:,}"),
        ("Workers", f"{estimate.workers}"),
        ("Time", time_),
        ("Memory", f"{estimate.memory / 1e9:.1f} GB"),
        ("Best Sharpe of noise", number(estimate.noise)),
    ]


def say_outcome(sweep: StoredSweep, best: StoredTrial | None, checked: Checked | None, *, json_output: bool) -> None:
    """Raises typer.Exit where not all is well with it."""
    if json_output:
        say_json(sweep_document(sweep) | {"best": trial_document(best) if best else None, "verified": sweep.verified})
    else:
        say_sweep(sweep)
        if best is not None:
            say()
            say(f"Best trial: {best.trial_number}")
            say_pairs(
                [
                    (sweep.objective, number(best.metrics[sweep.objective], 4)),
                    *((name, str(value)) for name, value in place(best)),
                    ("Run ID", str(best.run_id)),
                ]
            )
    if checked is not None and checked.verdict is None:
        talk(f"Warning: the best trial could not be run once more: {checked.error}")
    if checked is not None and checked.verdict is not None and not checked.holds:
        complain(
            f"the best trial does not come out the same when it is run by itself (run {checked.run_id})",
            f"`ntrader reproduce {str(checked.run_id)[:8]}` looks for the cause.",
        )
        raise typer.Exit(DIFFERENT)
    if not sweep.counts.success:
        complain(f"no trial of sweep {sweep.id} succeeded", f"`ntrader sweep show {sweep.id} --failed` says why.")
        raise typer.Exit(_FAILED)


register(app)
