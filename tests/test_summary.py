"""The Markdown that Prefect's pages show of a run."""

from __future__ import annotations

from uuid import UUID

from ntrader.results import Metrics
from ntrader.summary import markdown_summary, title
from tests.factories import execution, run_config

RUN = UUID("1f3a9c2e-0000-4000-8000-000000000000")
CONFIG = run_config(
    strategy={"path": "x:Y", "parameters": {"fast_period": 5, "trade_size": None}},
    data={"symbol": "AAPL", "venue": "XNAS", "start": "2008-01-01"},
)


def summary(metrics: Metrics, *, saved: bool = True) -> str:
    return markdown_summary(RUN, "SMA Crossover", CONFIG, execution(), metrics, saved=saved)


def test_a_run_is_titled_readably_and_by_its_id() -> None:
    assert title(RUN, "SMA Crossover", CONFIG) == f"SMA Crossover AAPL {RUN}"


def test_a_summary_names_what_ran_and_what_came_out() -> None:
    lines = summary(Metrics(total_return=0.12345, final_balance=112_345.0, total_trades=7)).splitlines()
    assert lines[0] == "## SMA Crossover on AAPL"
    assert "2008-01-01 to last bar, 1-DAY, 4 bars, fills at the next open. fast_period 5." in lines
    assert "| Final balance | 112,345.00 |" in lines
    assert "| Trades | 7 |" in lines
    assert f"Run ID `{RUN}`" in lines


def test_a_strategy_without_parameters_has_none_listed() -> None:
    text = markdown_summary(RUN, "Mine", run_config(), execution(), Metrics(), saved=True)
    assert "first bar to last bar, 1-DAY, 4 bars, fills at the next open." in text.splitlines()


def test_what_is_not_defined_is_said_not_to_be() -> None:
    assert "| Sharpe ratio | not defined |" in summary(Metrics())


def test_a_run_that_was_not_saved_says_so() -> None:
    assert f"Run ID `{RUN}` (not saved)" in summary(Metrics(), saved=False)
