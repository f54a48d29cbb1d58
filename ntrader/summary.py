"""A finished run in Markdown: what Prefect's pages show of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from ntrader.comparison_report import TITLES, UNDEFINED
from ntrader.config import RunConfig
from ntrader.results import Execution, Metrics
from ntrader.verdict import Verdict

_FRACTIONS: Final = frozenset({"total_return", "cagr", "max_drawdown", "volatility", "win_rate"})
_AMOUNTS: Final = frozenset({"final_balance", "expectancy", "avg_win", "avg_loss"})


def title(run_id: UUID, strategy_name: str, config: RunConfig) -> str:
    """`SMA Crossover AAPL 1f3a9c2e-...`: readable first, and unique by the Run ID."""
    return f"{strategy_name} {config.data.symbol} {run_id}"


def run_tags(run_id: UUID, strategy_name: str, config: RunConfig) -> list[str]:
    """What the flow run that makes a run is found by."""
    return [f"run:{run_id}", f"strategy:{strategy_name}", f"symbol:{config.data.symbol}"]


def markdown_summary(
    run_id: UUID,
    strategy_name: str,
    config: RunConfig,
    execution: Execution,
    metrics: Metrics,
    *,
    saved: bool,
    picture: str | None = None,
    page: str | None = None,
) -> str:
    """`picture` is the URI of the equity curve, `page` where Prefect shows the flow run."""
    period = f"{config.data.start or 'first bar'} to {config.data.end or 'last bar'}"
    rows = {
        "Total return": _fraction(metrics.total_return),
        "Sharpe ratio": _number(metrics.sharpe_ratio),
        "Max drawdown": _fraction(metrics.max_drawdown),
        "Trades": str(metrics.total_trades),
        "Win rate": _fraction(metrics.win_rate),
        "Final balance": _number(metrics.final_balance),
    }
    timing = {"next_open": "the next open", "close": "the close of the signal's bar"}[config.venue.fill_timing]
    given = [f"{name} {value}" for name, value in config.strategy.parameters.items() if value is not None]
    parameters = f" {', '.join(given)}." if given else ""
    return "\n".join(
        [
            f"## {strategy_name} on {config.data.symbol}",
            "",
            f"{period}, {config.data.timeframe}, {execution.result.bars:,} bars, fills at {timing}.{parameters}",
            "",
            "| Metric | Value |",
            "|---|---:|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            *([f"![Equity curve]({picture})", ""] if picture else []),
            f"Run ID `{run_id}`" + ("" if saved else " (not saved)"),
            "",
            *(_where_to_go_on(run_id) if saved else []),
            *([f"[This flow run]({page})", ""] if page else []),
            f"Run key `{execution.fingerprints.run_key}`, result digest `{execution.result_digest}`",
        ]
    )


def metrics_table(metrics: Metrics, currency: str) -> list[dict[str, str]]:
    """Every metric by its title, its value and the unit it is in."""
    found = []
    for name, shown in TITLES.items():
        value = getattr(metrics, name)
        if name == "max_drawdown_date":
            value = f"{datetime.fromtimestamp(value / 1e9, UTC):%Y-%m-%d}" if value else None
        text = f"{value:,.4f}" if isinstance(value, float) else UNDEFINED if value is None else f"{value}"
        found.append({"metric": shown, "value": text, "unit": _unit(name, currency)})
    return found


def _unit(name: str, currency: str) -> str:
    if name in _FRACTIONS:
        return "fraction"
    return currency if name in _AMOUNTS else ""


def _where_to_go_on(run_id: UUID) -> list[str]:
    short = str(run_id)[:8]
    asked = {"everything about it": "history show", "the same once more": "reproduce"}
    commands = (f"`ntrader {command} {short}` ({what})" for what, command in asked.items())
    return [f"On the command line: {', '.join(commands)}.", ""]


def verdict_line(verdict: Verdict) -> str:
    """`identical: 80 fills, 40 trades, 1,258 equity points`."""
    counts = [(verdict.fills, "fill"), (verdict.trades, "trade"), (verdict.points, "equity point")]
    listed = ", ".join(f"{number:,} {name}{'' if number == 1 else 's'}" for number, name in counts)
    return f"identical: {listed}" if verdict.identical else "different"


def verification_summary(rows: Sequence[tuple[str, str, str, Verdict | None, str | None]]) -> str:
    """Of (Run ID, strategy, symbol, verdict, why there is none)."""
    lines = ["| Run | Strategy | Symbol | Verdict |", "|---|---|---|---|"]
    for run_id, strategy, symbol, verdict, error in rows:
        said = verdict_line(verdict) if verdict else f"not run: {error}"
        lines.append(f"| `{run_id[:8]}` | {strategy} | {symbol} | {said.replace('|', '/')} |")
    return "\n".join(lines)


def canary_summary(nautilus: str, rows: Sequence[tuple[str, str, str, str, str | None]]) -> str:
    """Of (Run ID, strategy, symbol, outcome, why it failed)."""
    lines = [f"## nautilus_trader {nautilus}", "", "| Run | Strategy | Symbol | Result |", "|---|---|---|---|"]
    for run_id, strategy, symbol, outcome, error in rows:
        said = f"{outcome}: {error}" if error else outcome
        lines.append(f"| `{run_id[:8]}` | {strategy} | {symbol} | {' '.join(said.replace('|', '/').split())} |")
    return "\n".join(lines)


def sweep_summary(
    sweep_id: int, title: str, outcome: str, objective: str, best: Mapping[str, Any], best_run: UUID | None,
    holds: bool | None, picture: str | None,
) -> str:  # fmt: skip
    """`best` is the best trial's number, objective and point by name; `holds` whether it came out the same once more,
    None where nobody looked; `picture` the URI of a map of the search space."""
    lines = [f"## Sweep {sweep_id}: {title}", "", f"{outcome}."]
    if best:
        told = ", ".join(f"{name} {_plain(value)}" for name, value in best.items())
        again = {None: "", True: "; run once more, it came out the same", False: "; run once more, it **differed**"}
        lines += ["", f"Best by {objective}: {told}{again[holds]}"]
    if picture:
        lines += ["", f"![{objective} over the search space]({picture})"]
    shown = f", `ntrader history show {str(best_run)[:8]}` (the best run)" if best_run else ""
    return "\n".join([*lines, "", f"On the command line: `ntrader sweep show {sweep_id}`{shown}."])


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def reproduction_summary(original: UUID, run_id: UUID, verdict: Verdict, cause: str | None) -> str:
    lines = [f"## {verdict_line(verdict).capitalize()}", "", f"Original `{original}`, reproduction `{run_id}`"]
    if verdict.moved:
        lines += ["", f"Moved: {', '.join(verdict.moved)}"]
    return "\n".join([*lines, *(["", cause] if cause else [])])


def _fraction(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:,.2f}"
