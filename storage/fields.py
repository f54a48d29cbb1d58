"""What can be asked of a run: its columns by name and kind, which of them rank runs, and which way is best."""

from __future__ import annotations

from typing import Literal

Kind = Literal["number", "text", "time", "uuid", "boolean"]

METRICS: dict[str, Kind] = {
    "total_return": "number",
    "final_balance": "number",
    "cagr": "number",
    "sharpe_ratio": "number",
    "sortino_ratio": "number",
    "max_drawdown": "number",
    "max_drawdown_date": "time",
    "calmar_ratio": "number",
    "volatility": "number",
    "total_trades": "number",
    "winning_trades": "number",
    "losing_trades": "number",
    "win_rate": "number",
    "profit_factor": "number",
    "expectancy": "number",
    "avg_win": "number",
    "avg_loss": "number",
    "skewness": "number",
    "kurtosis": "number",
    "return_observations": "number",
}

FIELDS: dict[str, Kind] = {
    "run_id": "uuid",
    "name": "text",
    "execution_status": "text",
    "strategy_name": "text",
    "strategy_type": "text",
    "strategy_path": "text",
    "config_path": "text",
    "instrument_symbol": "text",
    "data_source": "text",
    "start_date": "time",
    "end_date": "time",
    "initial_capital": "number",
    "execution_duration_seconds": "number",
    "error_type": "text",
    "error_message": "text",
    "config_fingerprint": "text",
    "data_fingerprint": "text",
    "code_fingerprint": "text",
    "engine_fingerprint": "text",
    "environment_fingerprint": "text",
    "run_key": "text",
    "result_digest": "text",
    "sweep_id": "number",
    "trial_number": "number",
    "flow_run_id": "uuid",
    "notes": "text",
    "archived": "boolean",
    "created_at": "time",
    "started_at": "time",
    "finished_at": "time",
    **METRICS,
}

ALIASES = {
    "status": "execution_status",
    "strategy": "strategy_name",
    "symbol": "instrument_symbol",
    "source": "data_source",
    "sweep": "sweep_id",
    "duration": "execution_duration_seconds",
    "return": "total_return",
    "sharpe": "sharpe_ratio",
    "sortino": "sortino_ratio",
    "calmar": "calmar_ratio",
    "drawdown": "max_drawdown",
    "trades": "total_trades",
}

# Where a name that begins so is to be looked for.
PLACES: dict[str, Literal["params", "tag"]] = {
    "params": "params",
    "param": "params",
    "parameters": "params",
    "tag": "tag",
    "tags": "tag",
}

# What a list can be sorted by; each has an index that begins with it.
SORTABLE = (
    *("created_at", "started_at", "finished_at", "start_date", "end_date"),
    *("execution_duration_seconds", "initial_capital"),
    *METRICS,
)
# Where less is better. Drawdowns and average losses are negative: more is better.
LESS_IS_BETTER = frozenset({"volatility", "kurtosis", "losing_trades", "execution_duration_seconds"})
# Indexes of these begin with the strategy, the symbol or the sweep too: the best of one may lie deep in the ranking of
# all.
RANKED_WITHIN = ("sharpe_ratio", "total_return", "max_drawdown")
NEVER_NULL = frozenset({"created_at", "started_at", "initial_capital"})
# Whole numbers among the numbers.
COUNTS = frozenset(
    {"total_trades", "winning_trades", "losing_trades", "return_observations", "sweep_id", "trial_number"}
)
# Fractions, which people read in percent.
FRACTIONS = frozenset({"total_return", "cagr", "max_drawdown", "volatility", "win_rate"})


def column_name(text: str) -> str:
    """The column that `text` may mean, if there is one: `Sharpe` and `metrics.sharpe-ratio` are the same."""
    name = text.strip().lower().removeprefix("metrics.").replace("-", "_")
    return ALIASES.get(name, name)
