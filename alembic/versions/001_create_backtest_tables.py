"""Runs, their metrics, equity curves and trades; finished runs are immutable."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "001_create_backtest_tables"
down_revision = None
branch_labels = None
depends_on = None

IMMUTABLE = """
CREATE FUNCTION refuse_change_of_finished_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fixed record := NEW;
BEGIN
    -- Labels are a person's words about a run, and the original of a reproduction may be deleted.
    fixed.tags := OLD.tags;
    fixed.notes := OLD.notes;
    fixed.reproduced_from_run_id := OLD.reproduced_from_run_id;
    IF fixed *<> OLD THEN -- to the bit: 0 and -0, 1.0 and 1.00 are equal to <>
        RAISE EXCEPTION 'run % is finished (%) and cannot be changed', OLD.run_id, OLD.execution_status
            USING ERRCODE = 'restrict_violation', HINT = 'Only tags and notes of a finished run may change.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER finished_runs_are_immutable BEFORE UPDATE ON backtest_runs
    FOR EACH ROW WHEN (OLD.execution_status <> 'running') EXECUTE FUNCTION refuse_change_of_finished_run();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % can neither be changed nor removed by themselves', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
"""
RESULT_TABLES = ("performance_metrics", "equity_curves", "trades")


def _finite(table: str, *columns: str) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(f"{name} NOT IN ('NaN', 'Infinity', '-Infinity')", name=op.f(f"ck_{table}_{name}_finite"))
        for name in columns
    ]


def upgrade() -> None:
    op.create_table(
        "backtest_runs",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_name", sa.Text(), nullable=False),
        sa.Column("strategy_type", sa.Text(), nullable=False),
        sa.Column("strategy_path", sa.Text(), nullable=False),
        sa.Column("config_path", sa.Text(), nullable=True),
        sa.Column("instrument_symbol", sa.Text(), nullable=False),
        sa.Column("data_source", sa.Text(), nullable=False),
        sa.Column("start_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("initial_capital", sa.Numeric(), nullable=False),
        sa.Column("execution_status", sa.Text(), nullable=False),
        sa.Column("execution_duration_seconds", sa.Double(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_traceback", sa.Text(), nullable=True),
        sa.Column("config_snapshot", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("config_fingerprint", sa.Text(), nullable=True),
        sa.Column("data_fingerprint", sa.Text(), nullable=True),
        sa.Column("code_fingerprint", sa.Text(), nullable=True),
        sa.Column("engine_fingerprint", sa.Text(), nullable=True),
        sa.Column("environment_fingerprint", sa.Text(), nullable=True),
        sa.Column("run_key", sa.Text(), nullable=True),
        sa.Column("result_digest", sa.Text(), nullable=True),
        sa.Column("reproduced_from_run_id", sa.BigInteger(), nullable=True),
        sa.Column("sweep_id", sa.BigInteger(), nullable=True),
        sa.Column("trial_number", sa.Integer(), nullable=True),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column(
            "tags",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("warnings", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("total_return", sa.Double(), nullable=True),
        sa.Column("final_balance", sa.Double(), nullable=True),
        sa.Column("cagr", sa.Double(), nullable=True),
        sa.Column("sharpe_ratio", sa.Double(), nullable=True),
        sa.Column("sortino_ratio", sa.Double(), nullable=True),
        sa.Column("max_drawdown", sa.Double(), nullable=True),
        sa.Column("calmar_ratio", sa.Double(), nullable=True),
        sa.Column("volatility", sa.Double(), nullable=True),
        sa.Column("win_rate", sa.Double(), nullable=True),
        sa.Column("profit_factor", sa.Double(), nullable=True),
        sa.Column("total_trades", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(execution_status = 'running') = (finished_at IS NULL)", name=op.f("ck_backtest_runs_finished")
        ),
        *_finite(
            "backtest_runs",
            "cagr",
            "calmar_ratio",
            "execution_duration_seconds",
            "final_balance",
            "initial_capital",
            "max_drawdown",
            "profit_factor",
            "sharpe_ratio",
            "sortino_ratio",
            "total_return",
            "volatility",
            "win_rate",
        ),
        sa.CheckConstraint(
            "execution_status <> 'failed' OR error_message IS NOT NULL", name=op.f("ck_backtest_runs_failed_says_why")
        ),
        sa.CheckConstraint(
            "execution_status <> 'success' OR result_digest IS NOT NULL",
            name=op.f("ck_backtest_runs_success_has_digest"),
        ),
        sa.CheckConstraint(
            "execution_status <> 'success' OR run_key IS NOT NULL", name=op.f("ck_backtest_runs_success_has_run_key")
        ),
        sa.CheckConstraint(
            "execution_status IN ('running', 'success', 'failed', 'interrupted')",
            name=op.f("ck_backtest_runs_execution_status"),
        ),
        sa.CheckConstraint("initial_capital > 0", name=op.f("ck_backtest_runs_initial_capital")),
        sa.CheckConstraint("start_date <= end_date", name=op.f("ck_backtest_runs_period")),
        sa.ForeignKeyConstraint(
            ["reproduced_from_run_id"],
            ["backtest_runs.id"],
            name=op.f("fk_backtest_runs_reproduced_from_run_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backtest_runs")),
        sa.UniqueConstraint("run_id", name=op.f("uq_backtest_runs_run_id")),
    )
    op.create_index(
        "ix_backtest_runs_flow_run_id",
        "backtest_runs",
        ["flow_run_id"],
        unique=False,
        postgresql_where=sa.text("flow_run_id IS NOT NULL"),
    )
    op.create_index(
        "ix_backtest_runs_newest",
        "backtest_runs",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC"), "strategy_name", "instrument_symbol"],
        unique=False,
    )
    op.create_index(
        "ix_backtest_runs_reproduced_from_run_id",
        "backtest_runs",
        ["reproduced_from_run_id"],
        unique=False,
        postgresql_where=sa.text("reproduced_from_run_id IS NOT NULL"),
    )
    op.create_index(
        "ix_backtest_runs_run_key",
        "backtest_runs",
        ["run_key"],
        unique=False,
        postgresql_where=sa.text("execution_status = 'success'"),
    )
    op.create_index(
        "ix_backtest_runs_running",
        "backtest_runs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("execution_status = 'running'"),
    )
    op.create_table(
        "equity_curves",
        sa.Column("backtest_run_id", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("times", sa.LargeBinary(), nullable=False),
        sa.Column("equity", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("points >= 0", name=op.f("ck_equity_curves_points")),
        sa.ForeignKeyConstraint(
            ["backtest_run_id"], ["backtest_runs.id"], name=op.f("fk_equity_curves_backtest_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("backtest_run_id", name=op.f("pk_equity_curves")),
    )
    op.create_table(
        "performance_metrics",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("backtest_run_id", sa.BigInteger(), nullable=False),
        sa.Column("total_return", sa.Double(), nullable=True),
        sa.Column("final_balance", sa.Double(), nullable=True),
        sa.Column("cagr", sa.Double(), nullable=True),
        sa.Column("sharpe_ratio", sa.Double(), nullable=True),
        sa.Column("sortino_ratio", sa.Double(), nullable=True),
        sa.Column("max_drawdown", sa.Double(), nullable=True),
        sa.Column("max_drawdown_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("calmar_ratio", sa.Double(), nullable=True),
        sa.Column("volatility", sa.Double(), nullable=True),
        sa.Column("total_trades", sa.Integer(), nullable=False),
        sa.Column("winning_trades", sa.Integer(), nullable=False),
        sa.Column("losing_trades", sa.Integer(), nullable=False),
        sa.Column("win_rate", sa.Double(), nullable=True),
        sa.Column("profit_factor", sa.Double(), nullable=True),
        sa.Column("expectancy", sa.Double(), nullable=True),
        sa.Column("avg_win", sa.Double(), nullable=True),
        sa.Column("avg_loss", sa.Double(), nullable=True),
        sa.Column("skewness", sa.Double(), nullable=True),
        sa.Column("kurtosis", sa.Double(), nullable=True),
        sa.Column("return_observations", sa.Integer(), nullable=False),
        *_finite(
            "performance_metrics",
            "avg_loss",
            "avg_win",
            "cagr",
            "calmar_ratio",
            "expectancy",
            "final_balance",
            "kurtosis",
            "max_drawdown",
            "profit_factor",
            "sharpe_ratio",
            "skewness",
            "sortino_ratio",
            "total_return",
            "volatility",
            "win_rate",
        ),
        sa.CheckConstraint("avg_loss <= 0", name=op.f("ck_performance_metrics_avg_loss")),
        sa.CheckConstraint(
            "least(total_trades, winning_trades, losing_trades, return_observations) >= 0",
            name=op.f("ck_performance_metrics_counts"),
        ),
        sa.CheckConstraint("max_drawdown <= 0", name=op.f("ck_performance_metrics_max_drawdown")),
        sa.CheckConstraint("win_rate BETWEEN 0 AND 1", name=op.f("ck_performance_metrics_win_rate")),
        sa.CheckConstraint(
            "winning_trades + losing_trades <= total_trades", name=op.f("ck_performance_metrics_trades")
        ),
        sa.ForeignKeyConstraint(
            ["backtest_run_id"],
            ["backtest_runs.id"],
            name=op.f("fk_performance_metrics_backtest_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_performance_metrics")),
        sa.UniqueConstraint("backtest_run_id", name=op.f("uq_performance_metrics_backtest_run_id")),
    )
    op.create_table(
        "trades",
        sa.Column("backtest_run_id", sa.BigInteger(), nullable=False),
        sa.Column("trade_number", sa.Integer(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Double(), nullable=False),
        sa.Column("entry_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("entry_price", sa.Double(), nullable=False),
        sa.Column("exit_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("exit_price", sa.Double(), nullable=False),
        sa.Column("fees", sa.Double(), nullable=False),
        sa.Column("pnl", sa.Double(), nullable=False),
        *_finite("trades", "entry_price", "exit_price", "fees", "pnl", "quantity"),
        sa.CheckConstraint("side IN ('long', 'short')", name=op.f("ck_trades_side")),
        sa.CheckConstraint("entry_time <= exit_time", name=op.f("ck_trades_times")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_trades_quantity")),
        sa.ForeignKeyConstraint(
            ["backtest_run_id"], ["backtest_runs.id"], name=op.f("fk_trades_backtest_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("backtest_run_id", "trade_number", name=op.f("pk_trades")),
    )
    # Compressed already: PostgreSQL must not try again.
    op.execute("ALTER TABLE equity_curves ALTER times SET STORAGE EXTERNAL, ALTER equity SET STORAGE EXTERNAL")
    op.execute(IMMUTABLE)
    for table in RESULT_TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_are_immutable BEFORE UPDATE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        # They go with their run (the cascade works from inside a trigger), never by themselves.
        op.execute(
            f"CREATE TRIGGER {table}_stay BEFORE DELETE ON {table}"
            " FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f"CREATE TRIGGER {table}_stay_whole BEFORE TRUNCATE ON {table} EXECUTE FUNCTION refuse_change()")


def downgrade() -> None:
    for table in (*RESULT_TABLES, "backtest_runs"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change_of_finished_run(), refuse_change()")
