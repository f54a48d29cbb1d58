"""What a run consumed, kept once by its content: source text, bars, engine and environment; and the fills."""

import sqlalchemy as sa
from alembic import op

revision = "004_keep_inputs"
down_revision = "003_list_by_test_period"
branch_labels = None
depends_on = None

TABLES = ("kept_contents", "kept_data", "fills")


def upgrade() -> None:
    op.create_table(
        "kept_contents",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name=op.f("ck_kept_contents_digest")),
        sa.CheckConstraint("kind IN ('source', 'document', 'bars')", name=op.f("ck_kept_contents_kind")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_kept_contents")),
    )
    op.create_table(
        "kept_data",
        sa.Column("data_fingerprint", sa.Text(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("venue", sa.Text(), nullable=False),
        sa.Column("timeframe", sa.Text(), nullable=False),
        sa.Column("bars", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.ARRAY(sa.Text()), nullable=True),
        sa.Column("days", sa.ARRAY(sa.Date()), nullable=True),
        sa.Column("day_digests", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("data_fingerprint ~ '^[0-9a-f]{64}$'", name=op.f("ck_kept_data_data_fingerprint")),
        sa.CheckConstraint("(chunks IS NULL) = (days IS NOT NULL)", name=op.f("ck_kept_data_either")),
        sa.CheckConstraint("8 * cardinality(days) = length(day_digests)", name=op.f("ck_kept_data_days")),
        sa.PrimaryKeyConstraint("data_fingerprint", name=op.f("pk_kept_data")),
    )
    op.create_table(
        "fills",
        sa.Column("backtest_run_id", sa.BigInteger(), nullable=False),
        sa.Column("fills", sa.Integer(), nullable=False),
        sa.Column("steps", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("sides", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("quantities", sa.ARRAY(sa.Double()), nullable=False),
        sa.Column("prices", sa.ARRAY(sa.Double()), nullable=False),
        sa.Column("fees", sa.ARRAY(sa.Double()), nullable=False),
        sa.Column("order_types", sa.ARRAY(sa.Text()), nullable=False),
        sa.CheckConstraint(
            "fills = ALL (ARRAY[cardinality(steps), cardinality(sides), cardinality(quantities),"
            " cardinality(prices), cardinality(fees), cardinality(order_types)])",
            name=op.f("ck_fills_fills"),
        ),
        sa.ForeignKeyConstraint(
            ["backtest_run_id"], ["backtest_runs.id"], name=op.f("fk_fills_backtest_run_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("backtest_run_id", name=op.f("pk_fills")),
    )  # fmt: skip
    for table in ("kept_contents", "fills"):
        op.execute(
            f"CREATE TRIGGER {table}_are_immutable BEFORE UPDATE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(f"CREATE TRIGGER {table}_stay_whole BEFORE TRUNCATE ON {table} EXECUTE FUNCTION refuse_change()")
    op.execute(
        "CREATE TRIGGER fills_stay BEFORE DELETE ON fills"
        " FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
