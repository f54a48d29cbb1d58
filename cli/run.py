"""`ntrader run-backtest`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from cli.detached import Deploy, Detach, require_saving, submit
from cli.output import (
    complain,
    moment,
    number,
    percent,
    progress_line,
    run_document,
    say,
    say_json,
    say_pairs,
    seconds,
    talk,
)

if TYPE_CHECKING:
    from ntrader.config import RunRequest
    from ntrader.settings import Settings
    from storage.runs import StoredRun


def run_backtest(
    strategy: Annotated[
        str | None, typer.Option("--strategy", "-s", help="Key, name or import path (my_package.mine:MyStrategy).")
    ] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="YAML file; the options below win.")] = None,
    symbol: Annotated[str | None, typer.Option("--symbol", help="Instrument, such as AAPL.")] = None,
    start_date: Annotated[str | None, typer.Option("--start-date", help="First day (or UTC time), included.")] = None,
    end_date: Annotated[str | None, typer.Option("--end-date", help="Last day (or UTC time), included.")] = None,
    initial_capital: Annotated[str | None, typer.Option("--initial-capital", help="Cash at the start.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A strategy parameter; repeatable.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="sample, catalog, csv, synthetic or auto.")] = None,
    venue: Annotated[str | None, typer.Option("--venue", help="Venue, where a symbol has more than one.")] = None,
    timeframe: Annotated[str | None, typer.Option("--timeframe", help="Bar length: 1-DAY, 1-HOUR, 5-MINUTE.")] = None,
    data_file: Annotated[str | None, typer.Option("--csv", help="Read the bars from this CSV file.")] = None,
    account_type: Annotated[str | None, typer.Option("--account-type", help="CASH or MARGIN.")] = None,
    fill_timing: Annotated[
        str | None, typer.Option("--fill-timing", help="next_open (default) or close of the signal's bar.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Where an identical run has succeeded, return that one instead.")
    ] = False,
    no_persist: Annotated[bool, typer.Option("--no-persist", help="Do not save the run.")] = False,
    no_keep_data: Annotated[
        bool, typer.Option("--no-keep-data", help="Do not keep the bars: a later change can then not be shown.")
    ] = False,
    detach: Detach = False,
    deploy: Deploy = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run one backtest and record it.

    A config file, options, or both; what is not given keeps its default. Exit code 4 when the run failed; it is
    recorded all the same.
    """
    from ntrader.settings import load_settings

    settings = load_settings()
    request = base_request(
        config_path=config, strategy=strategy, set_=set_, symbol=symbol,
        source=source or ("csv" if data_file else None), venue=venue, timeframe=timeframe, data_path=data_file,
        start=start_date, end=end_date, initial_capital=initial_capital, account_type=account_type,
        fill_timing=fill_timing, seed=seed,
    )  # fmt: skip
    save = settings.persistence and not no_persist
    if skip_existing:
        found = _existing(settings, request)
        if found is not None:
            _say_existing(found, json_output=json_output)
            return
    if detach or deploy:
        require_saving(persistence=settings.persistence, no_persist=no_persist)
        _detach(settings, request, keep_data=not no_keep_data, json_output=json_output)
        return
    run, hint = _run(settings, request, save=save, keep_data=not no_keep_data)
    if save:
        _notice_duplicate(settings, run)
    if json_output:
        say_json(run_document(run))
    else:
        say_summary(run, saved=save)
    if not save:
        why = "--no-persist" if no_persist else "ENABLE_BACKTEST_PERSISTENCE=false"
        talk(f"Results were NOT saved ({why}).")
    if run.execution_status != "success":
        complain(f"run {run.run_id} {run.execution_status}: {run.error_message}", hint)
        raise typer.Exit(4)


def _detach(settings: Settings, request: RunRequest, *, keep_data: bool, json_output: bool) -> None:
    from flows.detach import detach_backtest

    submit(lambda: detach_backtest(settings, request, uuid4(), keep_data=keep_data), json_output=json_output)


def _existing(settings: Settings, request: RunRequest) -> StoredRun | None:
    from flows.launch import find_existing
    from ntrader import progress

    show, clear = progress_line()
    progress.listen(show)
    try:
        return find_existing(settings, request)
    finally:
        clear()


def _say_existing(run: StoredRun, *, json_output: bool) -> None:
    if json_output:
        say_json(run_document(run))
    else:
        say_summary(run, saved=False)
        say("Found in the database; nothing was run.")
        say(f"Run ID: {run.run_id}")
    talk(f"An identical run succeeded on {moment(run.created_at)} UTC.")


def _notice_duplicate(settings: Settings, run: StoredRun) -> None:
    """Equal inputs promise equal results: say that it had been run before, and above all if it came out otherwise."""
    from storage.runs import find_by_run_key

    before = find_by_run_key(settings, run.run_key, other_than=run.run_id) if run.run_key else None
    if before is None or before.metrics is None:
        return
    found = f"return {percent(before.metrics.total_return)}, Sharpe {number(before.metrics.sharpe_ratio)}"
    talk(f"An identical run succeeded on {moment(before.created_at)} UTC ({str(before.run_id)[:8]}): {found}.")
    if before.result_digest != run.result_digest:
        talk(
            "Warning: the inputs are identical and the result is NOT. Something random is in the strategy, or it reads"
            " what no fingerprint covers."
        )


def _run(settings: Settings, request: RunRequest, *, save: bool, keep_data: bool) -> tuple[StoredRun, str | None]:
    """Run it and read it back: what is printed is what was committed. With a failed run comes advice, if any."""
    from flows.launch import launch_backtest
    from ntrader import progress
    from ntrader.errors import Interruption, NtraderError
    from storage.runs import find_run, get_run

    run_id = uuid4()
    show, clear = progress_line()
    progress.listen(show)
    try:
        outcome = launch_backtest(settings, request, run_id, save=save, keep_data=keep_data)
    except Interruption:
        clear()
        if save and find_run(settings, run_id):
            talk(f"Run {run_id} is recorded as interrupted.")
        raise
    except NtraderError as error:
        clear()
        run = find_run(settings, run_id) if save else None
        if run is None or run.finished_at is None:
            raise
        if run.execution_status == "success":
            talk(f"Warning: the run is saved, but {error.message}")
        return run, error.hint
    finally:
        clear()
    if save:
        return get_run(settings, str(run_id)), None
    from storage.recording import unsaved_run

    return unsaved_run(outcome.run, outcome.execution, outcome.metrics, outcome.seconds), None


_OPTIONS = {"start": "start-date", "end": "end-date", "config_path": "config", "data_path": "csv", "parameters": "set"}


def base_request(*, set_: list[str] | None, **values: Any) -> RunRequest:
    """What the options ask for; those that were not given ask for nothing."""
    from pydantic import ValidationError

    from ntrader.config import RunRequest, describe
    from ntrader.errors import ConfigError

    values["parameters"] = _parameters(set_ or [])
    try:
        return RunRequest(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"--{_OPTIONS.get(setting, setting).replace('_', '-')}: {problem}" for setting, problem in describe(error)
        ]
        raise ConfigError("\n".join(lines)) from None


def _parameters(assignments: list[str]) -> dict[str, Any]:
    from ntrader.errors import ConfigError
    from ntrader.yaml_file import parse_value

    values = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.strip():
            raise ConfigError(f"--set {assignment!r} is not NAME=VALUE", hint="Write it like --set fast_period=5.")
        values[name.strip().replace("-", "_")] = parse_value(text)
    return values


def say_summary(run: StoredRun, *, saved: bool) -> None:
    if run.metrics is None:
        if saved:
            say(f"Run ID: {run.run_id}")
        return
    metrics, timing = run.metrics, run.config_snapshot["venue"]["fill_timing"]
    period = f"{moment(run.start_date)[:10]} to {moment(run.end_date)[:10]}" if run.start_date and run.end_date else ""
    say(f"{run.strategy_name} on {run.instrument_symbol} {period}".rstrip())
    say()
    say_pairs(
        [
            ("Total return", percent(metrics.total_return)),
            ("Sharpe ratio", number(metrics.sharpe_ratio)),
            ("Max drawdown", percent(metrics.max_drawdown)),
            ("Trades", f"{metrics.total_trades:,}"),
            ("Win rate", percent(metrics.win_rate)),
            ("Duration", seconds(run.execution_duration_seconds)),
            *([("Fills at", "close of the signal's own bar")] if timing == "close" else []),
        ]
    )
    for warning in run.warnings:
        talk(f"Warning: {warning}")
    say()
    if saved:
        say("Results saved to database!")
        say(f"Run ID: {run.run_id}")
