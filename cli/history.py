"""`ntrader history`: what was run. Light on purpose: neither Prefect nor the engine is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import annotate, complete
from cli.annotate import RunArgument
from cli.filters import (
    AfterOption,
    AllOption,
    AscOption,
    BeforeOption,
    DescOption,
    PeriodEndOption,
    PeriodStartOption,
    SortOption,
    SourceOption,
    StatusOption,
    StrategyOption,
    SweepOption,
    SymbolOption,
    TagOption,
    TypeOption,
    WhereOption,
    filters,
    order,
    strategy_name,
)
from cli.formats import UNDEFINED, Format, destination, printable, text, write
from cli.output import (
    cell,
    day,
    heading,
    moment,
    money,
    number,
    parameters_text,
    percent,
    run_document,
    say,
    say_json,
    say_pairs,
    say_table,
    seconds,
    talk,
    terminal_width,
)

if TYPE_CHECKING:
    from ntrader.settings import Settings
    from storage.conditions import Filters
    from storage.runs import RunPage, RunTable, StoredRun
    from storage.standings import Place

app = typer.Typer(
    help="List, find, show, annotate and export recorded runs.", no_args_is_help=True, rich_markup_mode=None
)
annotate.register(app)

FormatOption = Annotated[Format, typer.Option("--format", help="How to write the answer.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns", help="Comma-separated: any column or metric, params.NAME, tag.NAME, parameters, config_snapshot."
    ),
]
_SHOWN = ("run_id", "created_at", "strategy_name", "instrument_symbol", "total_return", "sharpe_ratio",
          "max_drawdown", "execution_status")  # fmt: skip
_SHOWN_LINKS = 5
_FIRST_RUN = "No runs yet. Start one: ntrader run-backtest --strategy sma_crossover --symbol AAPL"


@app.command("list")
def list_(
    limit: Annotated[str, typer.Option("--limit", "-n", help="How many runs, at most.")] = "20",
    strategy: StrategyOption = None,
    strategy_type: TypeOption = None,
    symbol: SymbolOption = None,
    status: StatusOption = None,
    data_source: SourceOption = None,
    sweep: SweepOption = None,
    tag: TagOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    period_start: PeriodStartOption = None,
    period_end: PeriodEndOption = None,
    where: WhereOption = None,
    sort: SortOption = "created_at",
    asc: AscOption = False,
    desc: DescOption = False,
    columns: ColumnsOption = None,
    all_: AllOption = False,
    page_token: Annotated[str | None, typer.Option("--page-token", help="Printed below the page before.")] = None,
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Runs, newest first; all filters hold at once."""
    from ntrader.settings import load_settings
    from storage.runs import list_runs, tabulate_runs

    wanted = filters(
        strategy=strategy, strategy_type=strategy_type, symbol=symbol, status=status, data_source=data_source,
        sweep=sweep, tag=tag, after=after, before=before, period_start=period_start, period_end=period_end,
        where=where, all_=all_,
    )  # fmt: skip
    ranked, rows = order(sort, asc=asc, desc=desc), _limit(limit)
    settings = load_settings()
    if (json_output or format_ is Format.json) and columns is None:
        page = list_runs(settings, rows, wanted, ranked, page_token)
        with destination(output) as stream:
            stream.write(_json(_page_document([run_document(run) for run in page.runs], page)))
        _say_more(settings, wanted, page, len(page.runs), quiet=True)
        return
    names = columns.split(",") if columns is not None else _columns(ranked.resolved[0])
    table = tabulate_runs(settings, names, wanted, ranked, rows, page_token)
    if json_output or format_ is Format.json:
        documents = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        with destination(output) as stream:
            stream.write(_json(_page_document(documents, table)))
    elif format_ is Format.table and output is None:
        _say_runs(table)
    else:
        with destination(output) as stream:
            write(format_, stream, table.columns, table.rows)
    _say_more(settings, wanted, table, len(table.rows), quiet=format_ is not Format.table)


@app.command()
def strategy(
    name: Annotated[
        str, typer.Argument(metavar="STRATEGY", help="Name, key or import path.", autocompletion=complete.strategies)
    ],
    limit: Annotated[str, typer.Option("--limit", "-n", help="How many runs, the newest.")] = "50",
    symbol: SymbolOption = None,
    tag: TagOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    where: WhereOption = None,
    all_: AllOption = False,
    page_token: Annotated[str | None, typer.Option("--page-token", help="For the runs before these.")] = None,
    json_output: JsonOption = False,
) -> None:
    """One strategy's runs in time, which parameters were tried, and how the metrics moved."""
    from ntrader.settings import load_settings
    from storage.labels import count_deleted
    from storage.runs import list_runs

    settings = load_settings()
    wanted = filters(strategy=[name], symbol=symbol, tag=tag, after=after, before=before, where=where, all_=all_)
    page = list_runs(settings, _limit(limit), wanted, token=page_token)
    runs = page.runs[::-1]
    deleted = count_deleted(settings, wanted.strategies, wanted.symbols)
    if json_output:
        document = _page_document([run_document(run) for run in runs], page)
        say_json({"strategy": strategy_name(name), **document, "deleted_runs": deleted, "parameters": _tried(runs)})
    elif runs:
        _say_strategy(runs)
    if runs and not json_output and deleted:
        talk(f"{deleted:,} more {'was' if deleted == 1 else 'were'} deleted; as trials they keep counting.")
    _say_more(settings, wanted, page, len(runs), quiet=json_output)


@app.command()
def show(
    reference: RunArgument,
    trades: Annotated[bool, typer.Option("--trades", help="The closed trades.")] = False,
    equity: Annotated[bool, typer.Option("--equity", help="The equity curve, a point a bar.")] = False,
    config: Annotated[
        bool, typer.Option("--config", help="The whole config, as YAML for run-backtest --config.")
    ] = False,
    code: Annotated[bool, typer.Option("--code", help="The strategy's source text as it was when it ran.")] = False,
    format_: FormatOption = Format.table,
    json_output: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Everything about one run."""
    from ntrader.errors import ConfigError
    from ntrader.settings import load_settings
    from storage.runs import get_run
    from storage.standings import places

    if trades + equity + config + code > 1:
        raise ConfigError("--trades, --equity, --config and --code are one question each", hint="Ask for one of them.")
    settings = load_settings()
    run = get_run(settings, reference)
    format_ = Format.json if json_output else format_
    if trades or equity:
        columns, rows = (_trades if trades else _equity)(settings, run)
        with destination(output) as stream:
            write(format_, stream, columns, rows)
        if not rows:
            talk(f"Run {run.run_id} ({run.execution_status}) has no {'closed trades' if trades else 'equity curve'}.")
    elif config or code:
        text_ = _config(run, format_) if config else _code(settings, run, format_)
        with destination(output) as stream:
            stream.write(text_)
    elif format_ is Format.table and output is None:
        _say_run(run, places(settings, run.run_id))
    else:
        _write_run(run, places(settings, run.run_id), format_, output)


@app.command()
def export(
    format_: Annotated[str, typer.Option("--format", help="csv, json, ndjson, md or parquet.")] = "csv",
    output: OutputOption = None,
    limit: Annotated[str | None, typer.Option("--limit", "-n", help="How many runs; all by default.")] = None,
    strategy: StrategyOption = None,
    strategy_type: TypeOption = None,
    symbol: SymbolOption = None,
    status: StatusOption = None,
    data_source: SourceOption = None,
    sweep: SweepOption = None,
    tag: TagOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    period_start: PeriodStartOption = None,
    period_end: PeriodEndOption = None,
    where: WhereOption = None,
    sort: SortOption = "created_at",
    asc: AscOption = False,
    desc: DescOption = False,
    columns: ColumnsOption = None,
    all_: AllOption = False,
) -> None:
    """All runs that fit, as they are in one moment, to a file or to stdout. Fractions and every digit."""
    from cli.export import export_runs
    from storage.columns import exported

    wanted = filters(
        strategy=strategy, strategy_type=strategy_type, symbol=symbol, status=status, data_source=data_source,
        sweep=sweep, tag=tag, after=after, before=before, period_start=period_start, period_end=period_end,
        where=where, all_=all_,
    )  # fmt: skip
    names = columns.split(",") if columns is not None else exported()
    rows = export_runs(
        format_, output, names, wanted, order(sort, asc=asc, desc=desc), None if limit is None else _limit(limit)
    )
    talk(f"{rows:,} runs exported{f' to {output}' if output else ''}.")


def _limit(text: str) -> int:
    """`20`, `10_000`, `1e6`. Raises ConfigError for what is no whole number above 0."""
    from decimal import Decimal, InvalidOperation

    from ntrader.errors import ConfigError

    try:
        value = Decimal(text.replace(",", "_"))
        if value == value.to_integral_value() and 0 < value < 2**62:
            return int(value)
    except (InvalidOperation, ValueError):
        pass
    raise ConfigError(f"--limit {text!r} is not a whole number above 0", hint="Write it like --limit 100.")


def _columns(sorted_by: str) -> list[str]:
    """What the table shows; what it is sorted by belongs to it."""
    extra = [] if sorted_by in _SHOWN else [sorted_by]
    return [*_SHOWN[:-1], *extra, _SHOWN[-1], "parameters"]


def _say_runs(table: RunTable) -> None:
    """Parameters last, and only where they fit."""
    if not table.rows:
        return
    rows = [[cell(name, value) for name, value in zip(table.columns, row, strict=True)] for row in table.rows]
    names = list(table.columns)
    if names[-1] == "parameters":
        widths = [max(map(len, column)) for column in zip(*([heading(name)[0] for name in names], *rows), strict=True)]
        if sum(widths) + 3 * len(widths) > terminal_width():
            names.pop()
            rows = [row[:-1] for row in rows]
    say_table([heading(name) for name in names], rows)


def _say_more(settings: Settings, wanted: Filters, page: RunPage | RunTable, shown: int, *, quiet: bool) -> None:
    """How much of it this was, and how to see the rest: nothing is cut short in silence."""
    if page.next_page_token is None and shown:
        if page.total > shown and not quiet:
            talk(f"Showing the last {shown:,} of {_total(page)} runs.")
        return
    if not shown:
        talk(_nothing(settings, wanted))
        return
    talk(f"Showing {shown:,} of {_total(page)} runs. More: --page-token {page.next_page_token}")


def _total(page: RunPage | RunTable) -> str:
    return f"{page.total:,}" if page.total_is_exact else f"about {page.total:,}"


def _nothing(settings: Settings, wanted: Filters) -> str:
    """Why there is nothing, as far as one can know, and what to do next."""
    from storage.known import anything, strategy_names, symbols

    if not anything(settings):
        return _FIRST_RUN
    for name, given, known in (
        ("strategy", wanted.strategies, strategy_names),
        ("symbol", wanted.symbols, symbols),
    ):
        for word in given:
            there = known(settings)
            if word not in there:
                return f"No runs of the {name} {word!r}.{_nearest(word, there)}"
    return "No runs fit these filters. Archived ones are listed with --all."


def _nearest(word: str, there: Sequence[str]) -> str:
    import difflib

    folded = {known.lower(): known for known in there}
    near = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    if near:
        return f" Did you mean {folded[near[0]]!r}?"
    return f" There are runs of: {', '.join(there[:10])}{', ...' if len(there) > 10 else ''}." if there else ""


def _page_document(runs: list[dict[str, Any]], page: RunPage | RunTable) -> dict[str, Any]:
    return {
        "runs": runs,
        "next_page_token": page.next_page_token,
        "total": page.total,
        "total_is_exact": page.total_is_exact,
    }


def _json(document: object) -> str:
    from cli.formats import plain

    return json.dumps(plain(document), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


# One strategy


def _tried(runs: list[StoredRun]) -> dict[str, dict[str, Any]]:
    """For each parameter that was given more than one value: the values, or their range where they are many."""
    tried = {}
    for name in dict.fromkeys(name for run in runs for name in _parameters(run)):
        values = {json.dumps(_parameters(run).get(name)): _parameters(run).get(name) for run in runs}
        if len(values) > 1:
            tried[name] = {"values": len(values), "tried": _sorted(list(values.values()))}
    return tried


def _sorted(values: list[Any]) -> list[Any]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values) if numbers else sorted(values, key=str)


def _parameters(run: StoredRun) -> dict[str, Any]:
    return dict(sorted(run.config_snapshot["strategy"]["parameters"].items()))


def _say_strategy(runs: list[StoredRun]) -> None:
    tried = _tried(runs)
    columns = [heading("run_id"), heading("created_at"), heading("instrument_symbol"),
               *((name, "right") for name in tried), heading("total_return"), heading("sharpe_ratio"),
               ("Change", "right"), heading("max_drawdown"), heading("execution_status")]  # fmt: skip
    rows: list[list[str]] = []
    before: float | None = None
    for run in runs:
        sharpe = run.metrics.sharpe_ratio if run.metrics else None
        change = None if sharpe is None or before is None else sharpe - before
        rows.append([
            cell("run_id", run.run_id), cell("created_at", run.created_at), run.instrument_symbol,
            *(text(_parameters(run).get(name)) or UNDEFINED for name in tried),
            percent(run.metrics.total_return if run.metrics else None), number(sharpe),
            UNDEFINED if change is None else f"{change:+,.2f}",
            percent(run.metrics.max_drawdown if run.metrics else None), run.execution_status,
        ])  # fmt: skip
        before = before if sharpe is None else sharpe
    say(runs[-1].strategy_name)
    say()
    say_table(columns, rows)
    _say_tried(tried, [run.metrics.sharpe_ratio for run in runs if run.metrics])


def _say_tried(tried: dict[str, dict[str, Any]], sharpes: Sequence[float | None]) -> None:
    if tried:
        say("\nParameters tried")
        say_pairs([(name, _values_text(entry["tried"])) for name, entry in tried.items()])
    known = sorted(sharpe for sharpe in sharpes if sharpe is not None)
    if known:
        say("\nSharpe ratio")
        middle = known[len(known) // 2] if len(known) % 2 else (known[len(known) // 2 - 1] + known[len(known) // 2]) / 2
        say_pairs([("Best", number(known[-1])), ("Median", number(middle)), ("Worst", number(known[0]))])


def _values_text(values: list[Any]) -> str:
    if len(values) <= 12:
        return ", ".join(text(value) or UNDEFINED for value in values)
    return f"{text(values[0])} to {text(values[-1])} ({len(values)} values)"


# One run


def _trades(settings: Settings, run: StoredRun) -> tuple[list[str], list[tuple[Any, ...]]]:
    from dataclasses import astuple, fields

    from storage.runs import StoredTrade, get_trades

    return [field.name for field in fields(StoredTrade)], [astuple(trade) for trade in get_trades(settings, run.run_id)]


def _equity(settings: Settings, run: StoredRun) -> tuple[list[str], list[tuple[Any, ...]]]:
    from storage.runs import get_equity

    return ["time", "equity"], [(point.time, point.equity) for point in get_equity(settings, run.run_id)]


def _config(run: StoredRun, format_: Format) -> str:
    from ntrader.config import build_config
    from ntrader.errors import ConfigError
    from ntrader.yaml_file import dump_yaml

    try:
        snapshot = build_config(run.config_snapshot).snapshot()
    except ConfigError:
        # Of a version with other settings: as it is, in the order that PostgreSQL keeps keys in.
        snapshot = run.config_snapshot
    return _json(snapshot) if format_ is Format.json else dump_yaml(snapshot)


def _code(settings: Settings, run: StoredRun, format_: Format) -> str:
    """The strategy and what it imports of its own; as JSON also the modules of ntrader that made the result."""
    from ntrader.errors import NotFoundError
    from storage.kept import read_sources

    sources = read_sources(settings, run.code_fingerprint) if run.code_fingerprint else None
    if sources is None:
        raise NotFoundError(f"the code of run {run.run_id} was not kept", hint="It is kept of every run that succeeds.")
    if format_ is Format.json:
        return _json(sources)
    strategy = run.strategy_path.partition(":")[0]
    shown = {name: text for name, text in sources.items() if name == strategy or not name.startswith("ntrader")}
    return "\n".join(f"# {name}\n{text.rstrip()}\n" for name, text in shown.items() if text.strip())


def _write_run(run: StoredRun, trials: Sequence[Place], format_: Format, output: Path | None) -> None:
    """One document as JSON, one line as ndjson, a row a field in the other formats."""
    linked = [{"sweep_id": trial.sweep_id, "trial_number": trial.trial_number} for trial in trials if trial.linked]
    document = run_document(run) | {"linked_by": linked}
    with destination(output) as stream:
        if format_ is Format.json:
            stream.write(_json(document))
        elif format_ is Format.ndjson:
            write(format_, stream, list(document), [tuple(document.values())])
        else:
            flat = {name: value for name, value in document.items() if name != "metrics"} | (document["metrics"] or {})
            write(format_, stream, ["field", "value"], list(flat.items()))


def _say_run(run: StoredRun, trials: Sequence[Place]) -> None:
    say(f"Run {run.run_id}{f'  {run.name}' if run.name else ''}")
    _section("Strategy Configuration", _strategy(run))
    _section("Execution Context", _context(run, trials))
    if run.metrics is not None:
        say("\nPerformance Metrics")
        for title, pairs in _performance(run).items():
            say(f"\n  {title}")
            say_pairs(pairs, indent="    ")
    if run.tags or run.notes or run.archived:
        _section("Labels", _labels(run))
    if run.error_message:
        _section("Error", [("Type", run.error_type or UNDEFINED), ("Message", run.error_message)])
        if run.error_traceback:
            say(f"\n{run.error_traceback.rstrip()}")


def _section(title: str, pairs: list[tuple[str, str]]) -> None:
    say(f"\n{title}")
    say_pairs(pairs)


def _labels(run: StoredRun) -> list[tuple[str, str]]:
    return [
        *([("Tags", parameters_text(run.tags))] if run.tags else []),
        *([("Notes", run.notes)] if run.notes else []),
        *([("Archived", "yes")] if run.archived else []),
    ]


def _strategy(run: StoredRun) -> list[tuple[str, str]]:
    parameters = _parameters(run)
    return [
        ("Strategy", run.strategy_name),
        ("Type", run.strategy_type),
        ("Path", run.strategy_path),
        ("Config file", run.config_path or UNDEFINED),
        *((name, UNDEFINED if value is None else str(value)) for name, value in parameters.items()),
    ]


def _context(run: StoredRun, trials: Sequence[Place]) -> list[tuple[str, str]]:
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
        *([("Reproduced from", str(run.reproduced_from_run_id))] if run.reproduced_from_run_id else []),
        *_sweeps(run, trials),
        ("Duration", seconds(run.execution_duration_seconds)),
        ("Run key", run.run_key or UNDEFINED),
        ("Result digest", run.result_digest or UNDEFINED),
        *(("Warning", warning) for warning in run.warnings),
    ]


def _sweeps(run: StoredRun, trials: Sequence[Place]) -> list[tuple[str, str]]:
    """The sweep that it was run for, and those that found it there."""
    own = [trial for trial in trials if not trial.linked]
    linked = [trial for trial in trials if trial.linked]
    lines = [("Sweep", _place(trial)) for trial in own]
    if run.sweep_id is not None and not own:
        lines.append(("Sweep", f"{run.sweep_id}, trial {run.trial_number}, which was to be run again since"))
    lines += [("Linked by", f"sweep {_place(trial)}") for trial in linked[:_SHOWN_LINKS]]
    if len(linked) > _SHOWN_LINKS:
        lines.append(("Linked by", f"{len(linked) - _SHOWN_LINKS:,} more"))
    return lines


def _place(trial: Place) -> str:
    return (
        f"{trial.sweep_id}{f' ({printable(trial.sweep_name)})' if trial.sweep_name else ''}, trial {trial.trial_number}"
    )


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
