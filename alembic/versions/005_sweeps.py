"""Sweeps and their trials: what is to be run, who is at it, and the run that each trial became."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "005_sweeps"
down_revision = "004_keep_inputs"
branch_labels = None
depends_on = None

# What a sweep is stays; how far it is changes.
IMMUTABLE = """
CREATE FUNCTION refuse_change_of_sweep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fixed record := NEW;
BEGIN
    fixed.name := OLD.name;
    fixed.flow_run_id := OLD.flow_run_id;
    fixed.best_trial := OLD.best_trial;
    fixed.verified := OLD.verified;
    fixed.seconds := OLD.seconds;
    fixed.finished_at := OLD.finished_at;
    IF fixed *<> OLD THEN
        RAISE EXCEPTION 'what sweep % is made of cannot be changed', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER sweeps_are_immutable BEFORE UPDATE ON sweeps
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_sweep();

CREATE FUNCTION refuse_change_of_trial() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.point IS DISTINCT FROM OLD.point OR NEW.trial_number <> OLD.trial_number OR NEW.sweep_id <> OLD.sweep_id THEN
        RAISE EXCEPTION 'the point of trial % of sweep % cannot be changed', OLD.trial_number, OLD.sweep_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    -- A run of it may be deleted, which says nothing about the trial.
    IF OLD.state = 'success' AND (NEW.state <> 'success' OR NEW.run_id <> OLD.run_id) THEN
        RAISE EXCEPTION 'trial % of sweep % has succeeded and cannot be changed', OLD.trial_number, OLD.sweep_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER trials_are_immutable BEFORE UPDATE ON trials
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_trial();
CREATE TRIGGER trials_stay_whole BEFORE TRUNCATE ON trials EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sweeps_stay_whole BEFORE TRUNCATE ON sweeps EXECUTE FUNCTION refuse_change();
"""
METRICS = ("total_return", "final_balance", "cagr", "sharpe_ratio", "sortino_ratio", "max_drawdown",
           "max_drawdown_date", "calmar_ratio", "volatility", "total_trades", "winning_trades", "losing_trades",
           "win_rate", "profit_factor", "expectancy", "avg_win", "avg_loss", "skewness", "kurtosis",
           "return_observations")  # fmt: skip
TRIALS_VIEW = f"""
CREATE VIEW v_trials AS
    SELECT t.sweep_id, t.trial_number, t.state, t.reason, t.linked, t.crashes, t.point, t.run_key, r.run_id,
           r.strategy_name, r.instrument_symbol, r.start_date, r.end_date, r.parameters,
           {", ".join(f"r.{name}" for name in METRICS)},
           r.error_message, r.execution_duration_seconds, r.result_digest
    FROM trials t LEFT JOIN backtest_runs r ON r.id = t.run_id
"""


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("strategy_name", sa.Text(), nullable=False),
        sa.Column("config_path", sa.Text(), nullable=True),
        sa.Column("config_snapshot", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("objective", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("sampler", sa.Text(), nullable=False),
        sa.Column("sampler_version", sa.Text(), nullable=True),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("rerun", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("flow_run_id", sa.Uuid(), nullable=True),
        sa.Column("best_trial", sa.Integer(), nullable=True),
        sa.Column("verified", sa.Boolean(), nullable=True),
        sa.Column("seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("fingerprint ~ '^[0-9a-f]{64}$'", name=op.f("ck_sweeps_fingerprint")),
        sa.CheckConstraint("direction IN ('maximize', 'minimize')", name=op.f("ck_sweeps_direction")),
        sa.CheckConstraint("sampler IN ('grid', 'random', 'tpe')", name=op.f("ck_sweeps_sampler")),
        sa.CheckConstraint("trials > 0", name=op.f("ck_sweeps_trials")),
        sa.CheckConstraint("seconds >= 0 AND seconds < 'Infinity'", name=op.f("ck_sweeps_seconds")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_index("ix_sweeps_fingerprint", "sweeps", ["fingerprint"])
    op.create_index("ix_sweeps_name", "sweeps", ["name"], postgresql_where=sa.text("name IS NOT NULL"))
    op.create_table(
        "trials",
        sa.Column("sweep_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("trial_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("point", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("run_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=True),
        sa.Column("linked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("crashes", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("chunk_id", sa.Uuid(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("trial_number >= 0", name=op.f("ck_trials_trial_number")),
        sa.CheckConstraint("state IN ('waiting', 'running', 'success', 'failed')", name=op.f("ck_trials_state")),
        sa.CheckConstraint("(state = 'running') = (chunk_id IS NOT NULL)", name=op.f("ck_trials_running_has_chunk")),
        sa.CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name=op.f("ck_trials_failed_has_reason")),
        sa.CheckConstraint("reason IN ('exception', 'timeout', 'memory', 'killed')", name=op.f("ck_trials_reason")),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_trials_sweep_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["backtest_runs.id"], name=op.f("fk_trials_run_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("sweep_id", "trial_number", name=op.f("pk_trials")),
    )
    op.create_index(
        "ix_trials_open", "trials", ["sweep_id", sa.literal_column("(crashes > 0) DESC"), "trial_number"],
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )  # fmt: skip
    op.create_index("ix_trials_chunk_id", "trials", ["chunk_id"], postgresql_where=sa.text("chunk_id IS NOT NULL"))
    op.create_index("ix_trials_run_id", "trials", ["run_id"], postgresql_where=sa.text("run_id IS NOT NULL"))
    op.create_index("ix_trials_linked", "trials", ["sweep_id", "run_id"], postgresql_where=sa.text("linked"))
    op.create_index(
        "ix_backtest_runs_trial", "backtest_runs", ["sweep_id", "trial_number"], unique=True,
        postgresql_where=sa.text("execution_status = 'success' AND trial_number IS NOT NULL"),
    )  # fmt: skip
    op.execute(IMMUTABLE)
    op.execute(TRIALS_VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW v_trials")
    op.drop_index("ix_backtest_runs_trial", "backtest_runs")
    op.drop_table("trials")
    op.drop_table("sweeps")
    op.execute("DROP FUNCTION refuse_change_of_trial(), refuse_change_of_sweep()")
