"""`ntrader history`: what was run. Light on purpose: neither Prefect nor the engine is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import (
    UNDEFINED,
    Format,
    day,
    moment,
    money,
    number,
    percent,
    run_document,
    say,
    say_json,
    say_pairs,
    say_table,
    seconds,
    talk,
)

if TYPE_CHECKING:
    from storage.runs import StoredRun

app = typer.Typer(help="List and show recorded runs.", no_args_is_help=True, rich_markup_mode=None)

FormatOption = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs.")] = 20,
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
) -> None:
    """The newest runs, newest first."""
    from ntrader.settings import load_settings
    from storage.runs import list_runs

    runs = list_runs(load_settings(), limit)
    if json_output or format_ is Format.json:
        say_json({"runs": [run_document(run) for run in runs]})
        return
    if not runs:
        talk("No runs yet. Start one: ntrader run-backtest --strategy sma_crossover --symbol AAPL")
        return
    _say_list(runs)


@app.command()
def show(
    reference: Annotated[str, typer.Argument(metavar="RUN", help="Run ID, its first 4 or more characters, or @last.")],
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
) -> None:
    """Everything about one run."""
    from ntrader.settings import load_settings
    from storage.runs import get_run

    run = get_run(load_settings(), reference)
    if json_output or format_ is Format.json:
        say_json(run_document(run))
        return
    _say_run(run)


def _say_list(runs: list[StoredRun]) -> None:
    say_table(
        [
            ("Run ID", "left"),
            ("Date/Time", "left"),
            ("Strategy", "left"),
            ("Symbol", "left"),
            ("Return", "right"),
            ("Sharpe", "right"),
            ("Max DD", "right"),
            ("Status", "left"),
        ],
        [
            [
                str(run.run_id)[:8],
                moment(run.created_at),
                run.strategy_name,
                run.instrument_symbol,
                percent(run.total_return),
                number(run.sharpe_ratio),
                percent(run.max_drawdown),
                run.execution_status,
            ]
            for run in runs
        ],
    )


def _say_run(run: StoredRun) -> None:
    say(f"Run {run.run_id}")
    _section("Strategy Configuration", _strategy(run))
    _section("Execution Context", _context(run))
    if run.metrics is not None:
        say("\nPerformance Metrics")
        for title, pairs in _performance(run).items():
            say(f"\n  {title}")
            say_pairs(pairs, indent="    ")
    if run.error_message:
        _section("Error", [("Type", run.error_type or UNDEFINED), ("Message", run.error_message)])
        if run.error_traceback:
            say(f"\n{run.error_traceback.rstrip()}")


def _section(title: str, pairs: list[tuple[str, str]]) -> None:
    say(f"\n{title}")
    say_pairs(pairs)


def _strategy(run: StoredRun) -> list[tuple[str, str]]:
    parameters: dict[str, Any] = run.config_snapshot["strategy"]["parameters"]
    return [
        ("Strategy", run.strategy_name),
        ("Type", run.strategy_type),
        ("Path", run.strategy_path),
        ("Config file", run.config_path or UNDEFINED),
        *((name, UNDEFINED if value is None else str(value)) for name, value in parameters.items()),
    ]


def _context(run: StoredRun) -> list[tuple[str, str]]:
    data, venue = run.config_snapshot["data"], run.config_snapshot["venue"]
    fees = venue["fees"]
    return [
        ("Status", run.execution_status),
        ("Instrument", run.instrument_symbol),
        ("Data", f"{run.data_source}, {data['timeframe']} bars"),
        ("Period", f"{day(run.start_date)} to {day(run.end_date)}"),
        ("Initial capital", money(run.initial_capital, venue["currency"])),
        ("Account", f"{venue['account_type']}, leverage {venue['leverage']:g}"),
        ("Fills at", {"next_open": "next open", "close": "close of the signal's bar"}[venue["fill_timing"]]),
        ("Fees", fees["model"] if fees["model"] == "none" else f"{fees['model']}, {fees['rate']:g}"),
        ("Slippage", percent(venue["slippage"], 3)),
        ("Started", f"{moment(run.started_at)} UTC"),
        ("Duration", seconds(run.execution_duration_seconds)),
        ("Run key", run.run_key or UNDEFINED),
        ("Result digest", run.result_digest or UNDEFINED),
        *(("Warning", warning) for warning in run.warnings),
    ]


def _performance(run: StoredRun) -> dict[str, list[tuple[str, str]]]:
    metrics = run.metrics
    assert metrics is not None
    return {
        "Returns": [
            ("Total return", percent(metrics.total_return)),
            ("CAGR", percent(metrics.cagr)),
            ("Final balance", money(metrics.final_balance, run.config_snapshot["venue"]["currency"])),
        ],
        "Risk Metrics": [
            ("Sharpe ratio", number(metrics.sharpe_ratio)),
            ("Sortino ratio", number(metrics.sortino_ratio)),
            ("Max drawdown", percent(metrics.max_drawdown)),
            ("Max drawdown on", day(metrics.max_drawdown_date)),
            ("Calmar ratio", number(metrics.calmar_ratio)),
            ("Volatility", percent(metrics.volatility)),
        ],
        "Trading Statistics": [
            ("Trades", f"{metrics.total_trades:,}"),
            ("Winning", f"{metrics.winning_trades:,}"),
            ("Losing", f"{metrics.losing_trades:,}"),
            ("Win rate", percent(metrics.win_rate)),
            ("Profit factor", number(metrics.profit_factor)),
            ("Expectancy", number(metrics.expectancy)),
            ("Average win", number(metrics.avg_win)),
            ("Average loss", number(metrics.avg_loss)),
        ],
    }
