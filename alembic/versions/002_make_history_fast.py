"""History at a million runs: every metric beside the run, an index for each list, curves that SQL can read, views."""

import struct
import zlib

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "002_make_history_fast"
down_revision = "001_create_backtest_tables"
branch_labels = None
depends_on = None

COPIED = {
    "max_drawdown_date": sa.DateTime(timezone=True),
    "winning_trades": sa.Integer(),
    "losing_trades": sa.Integer(),
    "expectancy": sa.Double(),
    "avg_win": sa.Double(),
    "avg_loss": sa.Double(),
    "skewness": sa.Double(),
    "kurtosis": sa.Double(),
    "return_observations": sa.Integer(),
}
FINITE = ("expectancy", "avg_win", "avg_loss", "skewness", "kurtosis")
SORTABLE = (
    *("total_return", "final_balance", "cagr", "sharpe_ratio", "sortino_ratio", "max_drawdown", "max_drawdown_date"),
    *("calmar_ratio", "volatility", "total_trades", "winning_trades", "losing_trades", "win_rate", "profit_factor"),
    *("expectancy", "avg_win", "avg_loss", "skewness", "kurtosis", "return_observations"),
    *("started_at", "finished_at", "start_date", "end_date", "execution_duration_seconds", "initial_capital"),
)
RANKED_WITHIN = ("sharpe_ratio", "total_return", "max_drawdown")
NEWEST = {
    "strategy_name": ("strategy_name",),
    "instrument_symbol": ("instrument_symbol",),
    "strategy_name_instrument_symbol": ("strategy_name", "instrument_symbol"),
    "strategy_type": ("strategy_type",),
    "data_source": ("data_source",),
}

MUTABLE = """
CREATE OR REPLACE FUNCTION refuse_change_of_finished_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    fixed record := NEW;
BEGIN
    -- Labels are a person's words about a run, and the original of a reproduction may be deleted.
    fixed.name := OLD.name;
    fixed.tags := OLD.tags;
    fixed.notes := OLD.notes;
    fixed.archived := OLD.archived;
    fixed.reproduced_from_run_id := OLD.reproduced_from_run_id;
    fixed.parameters := OLD.parameters; -- generated, and not yet there
    IF fixed *<> OLD THEN -- to the bit: 0 and -0, 1.0 and 1.00 are equal to <>
        RAISE EXCEPTION 'run % is finished (%) and cannot be changed', OLD.run_id, OLD.execution_status
            USING ERRCODE = 'restrict_violation',
                  HINT = 'Only name, tags, notes and archived of a finished run may change.';
    END IF;
    RETURN NEW;
END $$;
"""
MUTABLE_BEFORE = """
CREATE OR REPLACE FUNCTION refuse_change_of_finished_run() RETURNS trigger LANGUAGE plpgsql AS $$
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
"""
TOMBSTONES = """
CREATE FUNCTION remember_deleted_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_runs (run_id, strategy_name, instrument_symbol, execution_status, sweep_id, config_fingerprint,
                              run_key, total_return, sharpe_ratio, return_observations, created_at)
    VALUES (OLD.run_id, OLD.strategy_name, OLD.instrument_symbol, OLD.execution_status, OLD.sweep_id,
            OLD.config_fingerprint, OLD.run_key, OLD.total_return, OLD.sharpe_ratio, OLD.return_observations,
            OLD.created_at)
    ON CONFLICT (run_id) DO NOTHING; -- restored from a backup and deleted again, it was still one trial
    RETURN NULL;
END $$;
CREATE TRIGGER deleted_runs_are_remembered AFTER DELETE ON backtest_runs
    FOR EACH ROW EXECUTE FUNCTION remember_deleted_run();
CREATE TRIGGER backtest_runs_stay_whole BEFORE TRUNCATE ON backtest_runs EXECUTE FUNCTION refuse_change();
CREATE TRIGGER deleted_runs_are_immutable BEFORE UPDATE ON deleted_runs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER deleted_runs_stay BEFORE DELETE ON deleted_runs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER deleted_runs_stay_whole BEFORE TRUNCATE ON deleted_runs EXECUTE FUNCTION refuse_change();
"""
# For `alembic upgrade --sql`: a script cannot unpack what revision 001 packed.
NOT_BY_SQL = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM equity_curves) THEN
        RAISE EXCEPTION 'equity curves cannot be converted by SQL alone: use `ntrader db upgrade`';
    END IF;
END $$
"""
# The type of a strategy follows from its name, and much else goes together: the planner should know.
STATISTICS = """
CREATE STATISTICS backtest_runs_kinds (dependencies, mcv)
    ON strategy_name, strategy_type, data_source, execution_status FROM backtest_runs
"""
RUN_COLUMNS = """
    r.run_id, r.name, r.execution_status, r.strategy_name, r.strategy_type, r.strategy_path, r.config_path,
    r.instrument_symbol, r.data_source, r.start_date, r.end_date, r.initial_capital, r.parameters, r.tags, r.notes,
    r.archived, r.sweep_id, r.trial_number, r.total_return, r.final_balance, r.cagr, r.sharpe_ratio, r.sortino_ratio,
    r.max_drawdown, r.max_drawdown_date, r.calmar_ratio, r.volatility, r.total_trades, r.winning_trades,
    r.losing_trades, r.win_rate, r.profit_factor, r.expectancy, r.avg_win, r.avg_loss, r.skewness, r.kurtosis,
    r.return_observations, r.execution_duration_seconds, r.error_type, r.error_message, r.warnings, r.run_key,
    r.result_digest, r.config_fingerprint, r.data_fingerprint, r.code_fingerprint, r.engine_fingerprint,
    r.environment_fingerprint, r.flow_run_id, r.created_at, r.started_at, r.finished_at
"""
VIEWS = {
    "v_runs": f"""
        SELECT {RUN_COLUMNS}, original.run_id AS reproduced_from_run_id
        FROM backtest_runs r LEFT JOIN backtest_runs original ON original.id = r.reproduced_from_run_id
    """,
    "v_trades": """
        SELECT r.run_id, r.strategy_name, r.instrument_symbol, t.trade_number, t.side, t.quantity, t.entry_time,
               t.entry_price, t.exit_time, t.exit_price, t.fees, t.pnl
        FROM trades t JOIN backtest_runs r ON r.id = t.backtest_run_id
    """,
    # The last point of each UTC day, midnight being the end of one; returns from the initial capital on. None at all
    # where equity touched zero: a return on nothing is not defined (ntrader.metrics.point_returns says the same).
    "v_daily_returns": """
        SELECT r.run_id, r.strategy_name, r.instrument_symbol, d.day, d.equity,
               CASE WHEN d.solvent THEN d.equity / d.before - 1 END AS daily_return
        FROM backtest_runs r
        JOIN equity_curves c ON c.backtest_run_id = r.id
        CROSS JOIN LATERAL (
            SELECT day, equity, before,
                   -- A quotient beyond what a number can be would be an error, and one run's would be everybody's.
                   bool_and(CASE WHEN equity > 0 AND before > 0 THEN abs(log(equity) - log(before)) < 307
                            ELSE false END) OVER () AS solvent
            FROM (
                SELECT day, equity, lag(equity, 1, r.initial_capital::double precision) OVER (ORDER BY day) AS before
                FROM (
                    SELECT DISTINCT ON (day) day, equity
                    FROM (
                        SELECT ordinal, equity, date '1970-01-01'
                               + div(sum(step) OVER (ORDER BY ordinal) - 1, 86400000000000)::integer AS day
                        FROM unnest(c.steps, c.equity) WITH ORDINALITY AS point (step, equity, ordinal)
                    ) AS points
                    ORDER BY day, ordinal DESC
                ) AS last_of_day
            ) AS stepped
        ) AS d
    """,
}


def upgrade() -> None:
    _copy_metrics()
    _let_people_say_more()
    _create_indexes()
    _turn_curves_into_arrays()
    _create_tombstones()
    op.execute(STATISTICS)
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {name}")
    op.execute("DROP STATISTICS backtest_runs_kinds")
    op.execute("DROP TRIGGER deleted_runs_are_remembered ON backtest_runs")
    op.execute("DROP TRIGGER backtest_runs_stay_whole ON backtest_runs")
    op.execute("DROP FUNCTION remember_deleted_run()")
    op.drop_table("deleted_runs")
    _turn_curves_into_bytes()
    for name in (*NEWEST, "name", "unsuccessful", "unsuccessful_strategy_name", "sweep_id", "tags", "parameters"):
        op.drop_index(f"ix_backtest_runs_{name}", "backtest_runs")
    for name in SORTABLE:
        op.drop_index(f"ix_backtest_runs_by_{name}", "backtest_runs")
    for name in RANKED_WITHIN:
        op.drop_index(f"ix_backtest_runs_strategy_name_by_{name}", "backtest_runs")
        op.drop_index(f"ix_backtest_runs_instrument_symbol_by_{name}", "backtest_runs")
        op.drop_index(f"ix_backtest_runs_sweep_id_by_{name}", "backtest_runs")
    op.drop_index("ix_backtest_runs_newest", "backtest_runs")
    op.create_index(
        "ix_backtest_runs_newest",
        "backtest_runs",
        [sa.literal_column("created_at DESC"), sa.literal_column("id DESC"), "strategy_name", "instrument_symbol"],
    )
    op.execute(MUTABLE_BEFORE)
    for name in ("name", "archived", "parameters", *COPIED):
        op.drop_column("backtest_runs", name)


def _copy_metrics() -> None:
    for name, kind in COPIED.items():
        op.add_column("backtest_runs", sa.Column(name, kind, nullable=True))
    for name in FINITE:
        op.create_check_constraint(
            op.f(f"ck_backtest_runs_{name}_finite"),
            "backtest_runs",
            f"{name} NOT IN ('NaN', 'Infinity', '-Infinity')",
        )
    op.execute("ALTER TABLE backtest_runs DISABLE TRIGGER finished_runs_are_immutable")
    op.execute(
        f"UPDATE backtest_runs r SET {', '.join(f'{name} = m.{name}' for name in COPIED)}"
        " FROM performance_metrics m WHERE m.backtest_run_id = r.id"
    )
    op.execute("ALTER TABLE backtest_runs ENABLE TRIGGER finished_runs_are_immutable")


def _let_people_say_more() -> None:
    op.add_column("backtest_runs", sa.Column("name", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_backtest_runs_name"), "backtest_runs", "name !~ '^@|^[0-9a-fA-F-]*$' AND length(name) <= 200"
    )
    op.add_column("backtest_runs", sa.Column("archived", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column(
        "backtest_runs",
        sa.Column(
            "parameters",
            postgresql.JSONB(astext_type=sa.Text()),
            sa.Computed("config_snapshot #> '{strategy,parameters}'::text[]", persisted=True),
            nullable=True,
        ),
    )
    op.execute(MUTABLE)


def _create_indexes() -> None:
    newest = ["created_at DESC NULLS LAST", "id DESC"]
    op.drop_index("ix_backtest_runs_newest", "backtest_runs")
    _index("newest", "archived", *newest, "start_date", "end_date")
    for name, columns in NEWEST.items():
        _index(name, "archived", *columns, *newest)
    unsuccessful = sa.text("execution_status <> 'success'")
    _index("unsuccessful", "archived", "execution_status", *newest, postgresql_where=unsuccessful)
    _index("unsuccessful_strategy_name", "archived", "execution_status", "strategy_name", *newest,
           postgresql_where=unsuccessful)  # fmt: skip
    _index("sweep_id", "archived", "sweep_id", *newest, postgresql_where=sa.text("sweep_id IS NOT NULL"))
    _index("name", "name", unique=True, postgresql_where=sa.text("name IS NOT NULL"))
    for column in SORTABLE:
        _index(f"by_{column}", "archived", f"{column} DESC NULLS LAST", "id DESC",
               "strategy_name", "instrument_symbol", "created_at")  # fmt: skip
    for column in RANKED_WITHIN:
        ranked = (f"{column} DESC NULLS LAST", "id DESC")
        _index(f"strategy_name_by_{column}", "archived", "strategy_name", *ranked, "instrument_symbol", "created_at")
        _index(
            f"instrument_symbol_by_{column}", "archived", "instrument_symbol", *ranked, "strategy_name", "created_at"
        )
        _index(f"sweep_id_by_{column}", "archived", "sweep_id", *ranked, "strategy_name", "instrument_symbol",
               "created_at", postgresql_where=sa.text("sweep_id IS NOT NULL"))  # fmt: skip
    for column in ("tags", "parameters"):
        _index(column, column, postgresql_using="gin", postgresql_ops={column: "jsonb_path_ops"})


def _index(name: str, *columns: str, **options: object) -> None:
    parts = [sa.literal_column(column) if " " in column else column for column in columns]
    op.create_index(f"ix_backtest_runs_{name}", "backtest_runs", parts, **options)


def _create_tombstones() -> None:
    op.create_table(
        "deleted_runs",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("strategy_name", sa.Text(), nullable=False),
        sa.Column("instrument_symbol", sa.Text(), nullable=False),
        sa.Column("execution_status", sa.Text(), nullable=False),
        sa.Column("sweep_id", sa.BigInteger(), nullable=True),
        sa.Column("config_fingerprint", sa.Text(), nullable=True),
        sa.Column("run_key", sa.Text(), nullable=True),
        sa.Column("total_return", sa.Double(), nullable=True),
        sa.Column("sharpe_ratio", sa.Double(), nullable=True),
        sa.Column("return_observations", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_runs")),
        sa.UniqueConstraint("run_id", name=op.f("uq_deleted_runs_run_id")),
    )
    op.create_index("ix_deleted_runs_strategy_name", "deleted_runs", ["strategy_name", "instrument_symbol"])
    op.create_index(
        "ix_deleted_runs_sweep_id", "deleted_runs", ["sweep_id"], postgresql_where=sa.text("sweep_id IS NOT NULL")
    )
    op.execute(TOMBSTONES)


def _turn_curves_into_arrays() -> None:
    op.drop_constraint(op.f("ck_equity_curves_points"), "equity_curves", type_="check")
    op.add_column("equity_curves", sa.Column("steps", sa.ARRAY(sa.BigInteger()), nullable=True))
    op.alter_column("equity_curves", "equity", new_column_name="equity_bytes")
    op.add_column("equity_curves", sa.Column("equity", sa.ARRAY(sa.Double()), nullable=True))
    _rewrite(
        "SELECT backtest_run_id, times, equity_bytes FROM equity_curves",
        "UPDATE equity_curves SET steps = :first, equity = :second WHERE backtest_run_id = :id",
        lambda times, equity: (_words(times, "q", differences=True), _words(equity, "d")),
    )
    op.drop_column("equity_curves", "times")
    op.drop_column("equity_curves", "equity_bytes")
    op.alter_column("equity_curves", "steps", nullable=False)
    op.alter_column("equity_curves", "equity", nullable=False)
    op.create_check_constraint(
        op.f("ck_equity_curves_points"),
        "equity_curves",
        "points = cardinality(steps) AND points = cardinality(equity)",
    )


def _turn_curves_into_bytes() -> None:
    op.drop_constraint(op.f("ck_equity_curves_points"), "equity_curves", type_="check")
    op.add_column("equity_curves", sa.Column("times", sa.LargeBinary(), nullable=True))
    op.alter_column("equity_curves", "equity", new_column_name="equity_array")
    op.add_column("equity_curves", sa.Column("equity", sa.LargeBinary(), nullable=True))
    _rewrite(
        "SELECT backtest_run_id, steps, equity_array FROM equity_curves",
        "UPDATE equity_curves SET times = :first, equity = :second WHERE backtest_run_id = :id",
        lambda steps, equity: (_raw(_sums(steps), "q"), _raw(equity, "d")),
    )
    op.drop_column("equity_curves", "steps")
    op.drop_column("equity_curves", "equity_array")
    op.alter_column("equity_curves", "times", nullable=False)
    op.alter_column("equity_curves", "equity", nullable=False)
    op.create_check_constraint(op.f("ck_equity_curves_points"), "equity_curves", "points >= 0")
    op.execute("ALTER TABLE equity_curves ALTER times SET STORAGE EXTERNAL, ALTER equity SET STORAGE EXTERNAL")


def _rewrite(read, write, change) -> None:  # type: ignore[no-untyped-def]
    """Row by row: a curve is as long as its backtest."""
    if context.is_offline_mode():
        op.execute(NOT_BY_SQL)
        return
    op.execute("ALTER TABLE equity_curves DISABLE TRIGGER equity_curves_are_immutable")
    connection = op.get_bind()
    with connection.execute(sa.text(read).execution_options(yield_per=100)) as rows:
        for number, first, second in rows:
            new_first, new_second = change(first, second)
            connection.execute(sa.text(write), {"id": number, "first": new_first, "second": new_second})
    # What is checked only at the end of the transaction would keep the table from being altered.
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")
    op.execute("ALTER TABLE equity_curves ENABLE TRIGGER equity_curves_are_immutable")


def _words(data: bytes, kind: str, *, differences: bool = False) -> list[int] | list[float]:
    """What revision 001 stored: a byte that says how, then raw words or zlib over byte-shuffled differences."""
    body = bytes(data[1:])
    if data[0] == 0:
        words = list(struct.unpack(f"<{len(body) // 8}Q", body))
    else:
        planes = zlib.decompress(body)
        count = len(planes) // 8
        steps = struct.unpack(f"<{count}Q", b"".join(planes[number::count] for number in range(count)))
        words, total = [], 0
        for step in steps:
            total = (total + step) % 2**64
            words.append(total)
    values = list(struct.unpack(f"<{len(words)}{kind}", struct.pack(f"<{len(words)}Q", *words)))
    return [value - before for value, before in zip(values, [0, *values], strict=False)] if differences else values


def _sums(steps: list[int]) -> list[int]:
    total, sums = 0, []
    for step in steps:
        total += step
        sums.append(total)
    return sums


def _raw(values: list[int] | list[float], kind: str) -> bytes:
    return b"\x00" + struct.pack(f"<{len(values)}{kind}", *values)
