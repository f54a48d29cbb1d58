"""The tables. Nothing here validates: the core checks values, and PostgreSQL's constraints have the last word."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from storage import periods
from storage.fields import COUNTS, METRICS, RANKED_WITHIN, SORTABLE

STATUSES = ("running", "success", "failed", "interrupted")
TRIAL_STATES = ("waiting", "running", "success", "failed")
REASONS = ("exception", "timeout", "memory", "killed")
_FLOATS = tuple(name for name, kind in METRICS.items() if kind == "number" and name not in COUNTS)

# Alembic and `create_all` name constraints alike, so that a later migration can name what it changes.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


def _text(**options: Any) -> Any:
    return Field(default=None, sa_column=Column(Text, **options))


def _double() -> Any:
    return Field(default=None, sa_column=Column(Double))


def _count() -> Any:
    return Field(default=None, sa_column=Column(Integer))


def _moment(**options: Any) -> Any:
    return Field(default=None, sa_column=Column(DateTime(timezone=True), **options))


def finite(*columns: str) -> tuple[CheckConstraint, ...]:
    """NaN sorts above everything and infinity breaks every mean: undefined is NULL."""
    return tuple(
        CheckConstraint(f"{name} NOT IN ('NaN', 'Infinity', '-Infinity')", name=f"{name}_finite") for name in columns
    )


# Behind the order of a list, so that one of a test period reads past the others in the index, and fetches no row.
_PERIOD = ("start_date", "end_date", "execution_status")
_HELD_WITH_PERIOD = {"strategy_name", "instrument_symbol"}


def _newest(name: str, *columns: str, **options: Any) -> Index:
    """For lists by date, of one kind of run. `archived` leads: what was put away must not be waded through.

    NULLS LAST in every index and every list, also where there are no NULLs: otherwise one does not fit the other.
    """
    period = _PERIOD if set(columns) <= _HELD_WITH_PERIOD else ()
    return Index(
        f"ix_backtest_runs_{name}", "archived", *columns, text("created_at DESC NULLS LAST"), text("id DESC"), *period,
        **options,
    )  # fmt: skip


def _ranked(column: str, *first: str, **options: Any) -> Index:
    """For lists by `column`. What follows id is looked at inside the index, before a row is fetched."""
    name = "_".join([*first, "by", column])
    behind = [other for other in ("strategy_name", "instrument_symbol", "created_at") if other not in (*first, column)]
    if column in RANKED_WITHIN and set(first) <= _HELD_WITH_PERIOD:
        behind += _PERIOD
    return Index(
        f"ix_backtest_runs_{name}", "archived", *first, text(f"{column} DESC NULLS LAST"), text("id DESC"), *behind,
        **options,
    )  # fmt: skip


def _by_period(column: str) -> Index:
    """For the lists of a test period: see `storage.periods`."""
    name = "newest" if column == "created_at" else f"by_{column}"
    spans = [text(expression.format(table="")) for expression in (periods.BEGAN, periods.ENDED)]
    return Index(
        f"ix_backtest_runs_period_{name}", "archived", *spans, text(f"{column} DESC NULLS LAST"), text("id DESC"),
        *_PERIOD,
    )  # fmt: skip


class BacktestRun(SQLModel, table=True):
    """One execution. Immutable once it is no longer running, but for what people say of it: its name, tags and notes,
    and whether it is archived."""

    __tablename__ = "backtest_runs"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True, autoincrement=True))
    run_id: UUID = Field(unique=True)
    name: str | None = _text()
    strategy_name: str = _text(nullable=False)
    strategy_type: str = _text(nullable=False)
    strategy_path: str = _text(nullable=False)
    config_path: str | None = _text()
    instrument_symbol: str = _text(nullable=False)
    data_source: str = _text(nullable=False)
    start_date: datetime | None = _moment()
    end_date: datetime | None = _moment()
    initial_capital: Decimal = Field(sa_column=Column(Numeric, nullable=False))
    execution_status: str = _text(nullable=False)
    execution_duration_seconds: float | None = _double()
    error_type: str | None = _text()
    error_message: str | None = _text()
    error_traceback: str | None = _text()
    config_snapshot: dict[str, Any] = Field(sa_column=Column(JSONB(none_as_null=True), nullable=False))
    # What lists show and filters look at, without the rest of the snapshot.
    parameters: dict[str, Any] | None = Field(
        default=None,
        sa_column=Column(JSONB, Computed("config_snapshot #> '{strategy,parameters}'::text[]", persisted=True)),
    )
    config_fingerprint: str | None = _text()
    data_fingerprint: str | None = _text()
    code_fingerprint: str | None = _text()
    engine_fingerprint: str | None = _text()
    environment_fingerprint: str | None = _text()
    run_key: str | None = _text()
    result_digest: str | None = _text()
    reproduced_from_run_id: int | None = Field(
        default=None, sa_column=Column(BigInteger, ForeignKey("backtest_runs.id", ondelete="SET NULL"))
    )
    sweep_id: int | None = Field(default=None, sa_column=Column(BigInteger))
    trial_number: int | None = Field(default=None, sa_column=Column(Integer))
    flow_run_id: UUID | None = None
    tags: dict[str, str] = Field(
        default_factory=dict,
        sa_column=Column(JSONB(none_as_null=True), nullable=False, server_default=text("'{}'::jsonb")),
    )
    notes: str | None = _text()
    archived: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=text("false")))
    warnings: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default=text("'{}'"))
    )
    lease_owner: str | None = _text()
    lease_expires_at: datetime | None = _moment()
    total_return: float | None = _double()
    final_balance: float | None = _double()
    cagr: float | None = _double()
    sharpe_ratio: float | None = _double()
    sortino_ratio: float | None = _double()
    max_drawdown: float | None = _double()
    max_drawdown_date: datetime | None = _moment()
    calmar_ratio: float | None = _double()
    volatility: float | None = _double()
    total_trades: int | None = _count()
    winning_trades: int | None = _count()
    losing_trades: int | None = _count()
    win_rate: float | None = _double()
    profit_factor: float | None = _double()
    expectancy: float | None = _double()
    avg_win: float | None = _double()
    avg_loss: float | None = _double()
    skewness: float | None = _double()
    kurtosis: float | None = _double()
    return_observations: int | None = _count()
    created_at: datetime = _moment(nullable=False, server_default=text("now()"))
    started_at: datetime = _moment(nullable=False, server_default=text("now()"))
    finished_at: datetime | None = _moment()

    __table_args__ = (
        CheckConstraint(f"execution_status IN {STATUSES}", name="execution_status"),
        CheckConstraint("(execution_status = 'running') = (finished_at IS NULL)", name="finished"),
        CheckConstraint("execution_status <> 'failed' OR error_message IS NOT NULL", name="failed_says_why"),
        CheckConstraint("execution_status <> 'success' OR run_key IS NOT NULL", name="success_has_run_key"),
        CheckConstraint("execution_status <> 'success' OR result_digest IS NOT NULL", name="success_has_digest"),
        CheckConstraint("start_date <= end_date", name="period"),
        CheckConstraint("initial_capital > 0", name="initial_capital"),
        CheckConstraint("name !~ '^@|^[0-9a-fA-F-]*$' AND length(name) <= 200", name="name"),
        *finite(*_FLOATS, "execution_duration_seconds", "initial_capital"),
        Index("ix_backtest_runs_name", "name", unique=True, postgresql_where=text("name IS NOT NULL")),
        *(_by_period(name) for name in periods.ORDERS),
        _newest("newest"),
        _newest("strategy_name", "strategy_name"),
        _newest("instrument_symbol", "instrument_symbol"),
        _newest("strategy_name_instrument_symbol", "strategy_name", "instrument_symbol"),
        _newest("strategy_type", "strategy_type"),
        _newest("data_source", "data_source"),
        _newest("unsuccessful", "execution_status", postgresql_where=text("execution_status <> 'success'")),
        _newest("unsuccessful_strategy_name", "execution_status", "strategy_name",
                postgresql_where=text("execution_status <> 'success'")),
        _newest("sweep_id", "sweep_id", postgresql_where=text("sweep_id IS NOT NULL")),
        *(_ranked(name) for name in SORTABLE if name != "created_at"),
        *(_ranked(name, kind) for kind in ("strategy_name", "instrument_symbol") for name in RANKED_WITHIN),
        *(_ranked(name, "sweep_id", postgresql_where=text("sweep_id IS NOT NULL")) for name in RANKED_WITHIN),
        Index("ix_backtest_runs_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
        Index("ix_backtest_runs_parameters", "parameters", postgresql_using="gin",
              postgresql_ops={"parameters": "jsonb_path_ops"}),
        Index("ix_backtest_runs_running", "lease_expires_at", postgresql_where=text("execution_status = 'running'")),
        Index("ix_backtest_runs_run_key", "run_key", postgresql_where=text("execution_status = 'success'")),
        Index("ix_backtest_runs_reproduced_from_run_id", "reproduced_from_run_id",
              postgresql_where=text("reproduced_from_run_id IS NOT NULL")),
        Index("ix_backtest_runs_trial", "sweep_id", "trial_number", unique=True,
              postgresql_where=text("execution_status = 'success' AND trial_number IS NOT NULL")),
        Index("ix_backtest_runs_flow_run_id", "flow_run_id", postgresql_where=text("flow_run_id IS NOT NULL")),
    )  # fmt: skip


class PerformanceMetrics(SQLModel, table=True):
    """Numbers derived from a finished run; one row a successful run. Fractions, never percent."""

    __tablename__ = "performance_metrics"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True, autoincrement=True))
    backtest_run_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("backtest_runs.id", ondelete="CASCADE"), nullable=False, unique=True)
    )
    total_return: float | None = _double()
    final_balance: float | None = _double()
    cagr: float | None = _double()
    sharpe_ratio: float | None = _double()
    sortino_ratio: float | None = _double()
    max_drawdown: float | None = _double()
    max_drawdown_date: datetime | None = _moment()
    calmar_ratio: float | None = _double()
    volatility: float | None = _double()
    total_trades: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    winning_trades: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    losing_trades: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    win_rate: float | None = _double()
    profit_factor: float | None = _double()
    expectancy: float | None = _double()
    avg_win: float | None = _double()
    avg_loss: float | None = _double()
    skewness: float | None = _double()
    kurtosis: float | None = _double()
    return_observations: int = Field(default=0, sa_column=Column(Integer, nullable=False))

    __table_args__ = (
        CheckConstraint("max_drawdown <= 0", name="max_drawdown"),
        CheckConstraint("win_rate BETWEEN 0 AND 1", name="win_rate"),
        CheckConstraint("avg_loss <= 0", name="avg_loss"),
        CheckConstraint("winning_trades + losing_trades <= total_trades", name="trades"),
        CheckConstraint("least(total_trades, winning_trades, losing_trades, return_observations) >= 0", name="counts"),
        *finite(
            *("total_return", "final_balance", "cagr", "sharpe_ratio", "sortino_ratio", "max_drawdown"),
            *("calmar_ratio", "volatility", "win_rate", "profit_factor", "expectancy", "avg_win", "avg_loss"),
            *("skewness", "kurtosis"),
        ),
    )


class EquityCurveRow(SQLModel, table=True):
    """The equity curve of a run as two arrays, which PostgreSQL compresses and SQL can read (decision 5).

    `steps` are nanoseconds: the first point since 1970, each other since the one before.
    """

    __tablename__ = "equity_curves"

    backtest_run_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("backtest_runs.id", ondelete="CASCADE"), primary_key=True)
    )
    points: int = Field(sa_column=Column(Integer, nullable=False))
    steps: list[int] = Field(sa_column=Column(ARRAY(BigInteger), nullable=False))
    equity: list[float] = Field(sa_column=Column(ARRAY(Double), nullable=False))

    __table_args__ = (CheckConstraint("points = cardinality(steps) AND points = cardinality(equity)", name="points"),)


class TradeRow(SQLModel, table=True):
    """A closed round trip; `trade_number` counts from 1 in the order they closed."""

    __tablename__ = "trades"

    backtest_run_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("backtest_runs.id", ondelete="CASCADE"), primary_key=True)
    )
    trade_number: int = Field(sa_column=Column(Integer, primary_key=True))
    side: str = _text(nullable=False)
    quantity: float = Field(sa_column=Column(Double, nullable=False))
    entry_time: datetime = _moment(nullable=False)
    entry_price: float = Field(sa_column=Column(Double, nullable=False))
    exit_time: datetime = _moment(nullable=False)
    exit_price: float = Field(sa_column=Column(Double, nullable=False))
    fees: float = Field(sa_column=Column(Double, nullable=False))
    pnl: float = Field(sa_column=Column(Double, nullable=False))

    __table_args__ = (
        CheckConstraint("side IN ('long', 'short')", name="side"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("entry_time <= exit_time", name="times"),
        *finite("quantity", "entry_price", "exit_price", "fees", "pnl"),
    )


class FillsRow(SQLModel, table=True):
    """Every fill of a run in the order they happened, a column an array; `steps` as in `equity_curves`."""

    __tablename__ = "fills"

    backtest_run_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("backtest_runs.id", ondelete="CASCADE"), primary_key=True)
    )
    fills: int = Field(sa_column=Column(Integer, nullable=False))
    steps: list[int] = Field(sa_column=Column(ARRAY(BigInteger), nullable=False))
    sides: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    quantities: list[float] = Field(sa_column=Column(ARRAY(Double), nullable=False))
    prices: list[float] = Field(sa_column=Column(ARRAY(Double), nullable=False))
    fees: list[float] = Field(sa_column=Column(ARRAY(Double), nullable=False))
    order_types: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))

    __table_args__ = (
        CheckConstraint(
            "fills = ALL (ARRAY[cardinality(steps), cardinality(sides), cardinality(quantities),"
            " cardinality(prices), cardinality(fees), cardinality(order_types)])",
            name="fills",
        ),
    )


class KeptContent(SQLModel, table=True):
    """Something that runs consumed, stored once: source text by its sha256, the documents behind the code, engine and
    environment fingerprints by those, chunks of bars by their digest."""

    __tablename__ = "kept_contents"

    digest: str = Field(sa_column=Column(Text, primary_key=True))
    kind: str = _text(nullable=False)
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = _moment(nullable=False, server_default=text("now()"))

    __table_args__ = (
        CheckConstraint("digest ~ '^[0-9a-f]{64}$'", name="digest"),
        CheckConstraint("kind IN ('source', 'document', 'bars')", name="kind"),
    )


class KeptData(SQLModel, table=True):
    """The bars behind a data fingerprint: the digests of their chunks, or, where they were not to be kept, the first 8
    bytes of the fingerprint of each day."""

    __tablename__ = "kept_data"

    data_fingerprint: str = Field(sa_column=Column(Text, primary_key=True))
    symbol: str = _text(nullable=False)
    venue: str = _text(nullable=False)
    timeframe: str = _text(nullable=False)
    bars: int = Field(sa_column=Column(Integer, nullable=False))
    chunks: list[str] | None = Field(sa_column=Column(ARRAY(Text)))
    days: list[date] | None = Field(sa_column=Column(ARRAY(Date)))
    day_digests: bytes | None = Field(sa_column=Column(LargeBinary))
    created_at: datetime = _moment(nullable=False, server_default=text("now()"))

    __table_args__ = (
        CheckConstraint("data_fingerprint ~ '^[0-9a-f]{64}$'", name="data_fingerprint"),
        CheckConstraint("(chunks IS NULL) = (days IS NOT NULL)", name="either"),
        CheckConstraint("8 * cardinality(days) = length(day_digests)", name="days"),
    )


class Sweep(SQLModel, table=True):
    """A base run, a search space and a sampler; owns its trials. Sweeps of one `fingerprint` have the same trials."""

    __tablename__ = "sweeps"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True, autoincrement=True))
    name: str | None = _text()
    fingerprint: str = _text(nullable=False)
    strategy_name: str = _text(nullable=False)
    config_path: str | None = _text()
    config_snapshot: dict[str, Any] = Field(sa_column=Column(JSONB(none_as_null=True), nullable=False))
    objective: str = _text(nullable=False)
    direction: str = _text(nullable=False)
    sampler: str = _text(nullable=False)
    sampler_version: str | None = _text()
    # Of a sampler that learns the trials are written down as it asks for them: this many there will be at most.
    trials: int = Field(sa_column=Column(Integer, nullable=False))
    # Runs that there were before do not count: every trial is run anew.
    rerun: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=text("false")))
    flow_run_id: UUID | None = None
    best_trial: int | None = _count()
    verified: bool | None = Field(default=None, sa_column=Column(Boolean))
    seconds: float = Field(default=0.0, sa_column=Column(Double, nullable=False, server_default=text("0")))
    created_at: datetime = _moment(nullable=False, server_default=text("now()"))
    finished_at: datetime | None = _moment()

    __table_args__ = (
        CheckConstraint("fingerprint ~ '^[0-9a-f]{64}$'", name="fingerprint"),
        CheckConstraint("direction IN ('maximize', 'minimize')", name="direction"),
        CheckConstraint("sampler IN ('grid', 'random', 'tpe')", name="sampler"),
        CheckConstraint("trials > 0", name="trials"),
        CheckConstraint("seconds >= 0 AND seconds < 'Infinity'", name="seconds"),
        Index("ix_sweeps_fingerprint", "fingerprint"),
        Index("ix_sweeps_name", "name", postgresql_where=text("name IS NOT NULL")),
    )


class Trial(SQLModel, table=True):
    """One point of a sweep. `run_id` is the row of the run that it is: its own, or, where `linked`, one that there was
    before. A trial whose run has been deleted keeps its state."""

    __tablename__ = "trials"

    sweep_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True, autoincrement=False)
    )
    trial_number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    point: dict[str, Any] = Field(sa_column=Column(JSONB(none_as_null=True), nullable=False))
    run_key: str = _text(nullable=False)
    state: str = _text(nullable=False, server_default=text("'waiting'"))
    run_id: int | None = Field(
        default=None, sa_column=Column(BigInteger, ForeignKey("backtest_runs.id", ondelete="SET NULL"))
    )
    linked: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=text("false")))
    # Processes that were killed while they ran this trial.
    crashes: int = Field(default=0, sa_column=Column(SmallInteger, nullable=False, server_default=text("0")))
    reason: str | None = _text()
    chunk_id: UUID | None = None
    lease_owner: str | None = _text()
    lease_expires_at: datetime | None = _moment()

    __table_args__ = (
        CheckConstraint("trial_number >= 0", name="trial_number"),
        CheckConstraint(f"state IN {TRIAL_STATES}", name="state"),
        CheckConstraint("(state = 'running') = (chunk_id IS NOT NULL)", name="running_has_chunk"),
        CheckConstraint("(state = 'failed') = (reason IS NOT NULL)", name="failed_has_reason"),
        CheckConstraint(f"reason IN {REASONS}", name="reason"),
        # In the order in which they are taken: those that killed a process first, for they are to be alone.
        Index("ix_trials_open", "sweep_id", text("(crashes > 0) DESC"), "trial_number",
              postgresql_where=text("state IN ('waiting', 'running')")),
        Index("ix_trials_chunk_id", "chunk_id", postgresql_where=text("chunk_id IS NOT NULL")),
        Index("ix_trials_run_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
        Index("ix_trials_linked", "sweep_id", "run_id", postgresql_where=text("linked")),
    )  # fmt: skip


class DeletedRun(SQLModel, table=True):
    """What is left of a deleted run, written by a trigger: a trial that was made stays counted."""

    __tablename__ = "deleted_runs"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True, autoincrement=True))
    run_id: UUID = Field(unique=True)
    strategy_name: str = _text(nullable=False)
    instrument_symbol: str = _text(nullable=False)
    execution_status: str = _text(nullable=False)
    sweep_id: int | None = Field(default=None, sa_column=Column(BigInteger))
    config_fingerprint: str | None = _text()
    run_key: str | None = _text()
    total_return: float | None = _double()
    sharpe_ratio: float | None = _double()
    return_observations: int | None = _count()
    created_at: datetime = _moment(nullable=False)
    deleted_at: datetime = _moment(nullable=False, server_default=text("now()"))

    __table_args__ = (
        Index("ix_deleted_runs_strategy_name", "strategy_name", "instrument_symbol"),
        Index("ix_deleted_runs_sweep_id", "sweep_id", postgresql_where=text("sweep_id IS NOT NULL")),
    )
