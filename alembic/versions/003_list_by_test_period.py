"""Lists of the runs of a test period: by the quarter in which it begins and the month in which it ends."""

import sqlalchemy as sa
from alembic import op

revision = "003_list_by_test_period"
down_revision = "002_make_history_fast"
branch_labels = None
depends_on = None

BEGAN = (
    "COALESCE(date_trunc('quarter'::text, timezone('UTC'::text, start_date)),"
    " '0001-01-01 00:00:00'::timestamp without time zone)"
)
ENDED = (
    "COALESCE(date_trunc('month'::text, timezone('UTC'::text, end_date)),"
    " '9999-12-01 00:00:00'::timestamp without time zone)"
)
ORDERS = {
    "newest": "created_at",
    "by_sharpe_ratio": "sharpe_ratio",
    "by_total_return": "total_return",
    "by_max_drawdown": "max_drawdown",
}


PERIOD = ("start_date", "end_date", "execution_status")
KIND = ("strategy_name", "instrument_symbol", "created_at")
STRATEGY, SYMBOL, _ = KIND


def upgrade() -> None:
    for name, column in ORDERS.items():
        spans = (BEGAN, ENDED, f"{column} DESC NULLS LAST", "id DESC")
        _create_index(f"period_{name}", *spans, *PERIOD)
    _replace_lists(PERIOD, PERIOD)


def downgrade() -> None:
    for name in ORDERS:
        op.drop_index(f"ix_backtest_runs_period_{name}", "backtest_runs")
    _replace_lists((), ("start_date", "end_date"))


def _replace_lists(period: tuple[str, ...], of_newest: tuple[str, ...]) -> None:
    """The lists of all runs, of a strategy, of a symbol and of both, with the period behind the order."""
    newest = ("created_at DESC NULLS LAST", "id DESC")
    _replace_index("newest", *newest, *of_newest)
    for kinds in ((STRATEGY,), (SYMBOL,), (STRATEGY, SYMBOL)):
        _replace_index("_".join(kinds), *kinds, *newest, *period)
    for name, column in list(ORDERS.items())[1:]:
        for kinds in ((), (STRATEGY,), (SYMBOL,)):
            rest = [kind for kind in KIND if kind not in kinds]
            ranked = (*kinds, f"{column} DESC NULLS LAST", "id DESC", *rest)
            _replace_index("_".join([*kinds, name]), *ranked, *period)


def _replace_index(name: str, *columns: str) -> None:
    op.drop_index(f"ix_backtest_runs_{name}", "backtest_runs")
    _create_index(name, *columns)


def _create_index(name: str, *columns: str) -> None:
    parts = [sa.literal_column(column) if " " in column else column for column in columns]
    op.create_index(f"ix_backtest_runs_{name}", "backtest_runs", ["archived", *parts])
