"""Lists of the runs of a test period: by the year in which it begins and the month in which it ends."""

import sqlalchemy as sa
from alembic import op

revision = "003_list_by_test_period"
down_revision = "002_make_history_fast"
branch_labels = None
depends_on = None

BEGAN = "coalesce(date_trunc('year', timezone('UTC', start_date)), '0001-01-01'::timestamp)"
ENDED = "coalesce(date_trunc('month', timezone('UTC', end_date)), '9999-12-01'::timestamp)"
ORDERS = {
    "newest": "created_at",
    "by_sharpe_ratio": "sharpe_ratio",
    "by_total_return": "total_return",
    "by_max_drawdown": "max_drawdown",
}


def upgrade() -> None:
    for name, column in ORDERS.items():
        order = [sa.literal_column(part) for part in (BEGAN, ENDED, f"{column} DESC NULLS LAST", "id DESC")]
        behind = ("start_date", "end_date", "execution_status")
        op.create_index(f"ix_backtest_runs_period_{name}", "backtest_runs", ["archived", *order, *behind])


def downgrade() -> None:
    for name in ORDERS:
        op.drop_index(f"ix_backtest_runs_period_{name}", "backtest_runs")
