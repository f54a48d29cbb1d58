"""Recorded runs in Python and notebooks: many as a DataFrame (`search_runs`), one with all it has (`load_run`).

A layer of its own above storage, here because this is where people look. Nothing in the project imports it.
"""

from __future__ import annotations

import difflib
import html
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from itertools import batched
from numbers import Integral
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from ntrader.config import RunConfig, build_config
from ntrader.errors import ConfigError, NotFoundError
from ntrader.metrics import NANOSECONDS_PER_DAY, daily_equity, daily_points, point_returns
from ntrader.moments import end_of_day, parse_end, parse_moment
from ntrader.results import EquityCurve, Floats, Times
from ntrader.settings import Settings, load_settings
from ntrader.strategies.registry import recorded_name
from storage.columns import exported
from storage.conditions import Filters
from storage.curves import read_curve
from storage.fields import COUNTS, FIELDS, METRICS
from storage.runs import StoredRun, get_run, get_trades, streamed_runs
from storage.search import Order

Words = str | Iterable[str] | None
Moment = str | date | None

STATUSES = ("running", "success", "failed", "interrupted")

_BATCH = 10_000
_TEXT = pd.StringDtype(na_value=np.nan)
_TIME = pd.DatetimeTZDtype("us", "UTC")
_DTYPES: dict[str, Any] = {"number": "float64", "text": _TEXT, "time": _TIME, "uuid": _TEXT, "boolean": "bool"}
_TRADE: dict[str, Any] = {
    "trade_number": "int64",
    "side": _TEXT,
    "quantity": "float64",
    "entry_time": _TIME,
    "entry_price": "float64",
    "exit_time": _TIME,
    "exit_price": "float64",
    "fees": "float64",
    "pnl": "float64",
}
_SPREAD = ("parameters", "tags")
_PLAIN = [name for name in exported() if name not in METRICS and name not in _SPREAD]


def search_runs(
    where: str | None = None,
    *,
    strategy: Words = None,
    strategy_type: str | None = None,
    symbol: Words = None,
    status: Words = None,
    data_source: str | None = None,
    sweep: int | str | None = None,
    tags: Mapping[str, str] | None = None,
    after: Moment = None,
    before: Moment = None,
    period_start: Moment = None,
    period_end: Moment = None,
    sort: str = "created_at",
    descending: bool | None = None,
    limit: int | None = 1000,
    archived: bool = False,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """The runs for which all that is given holds, a row each, as they are in one moment.

    `where` is an expression as `ntrader history list --where` takes it; strategies go by key, name or import path,
    moments by text (`2024-01-31`, `7d`), date or datetime (UTC unless it says otherwise). `after` and `before` are
    about when a run was made, the period about its data; a day as `period_end` is included whole. `descending`
    None means best first, `limit` None all, `archived` True archived ones too. A sweep goes by its number, its name or
    `@last`, and brings along the runs that trials of it are linked to.

    Columns are those of storage, `metrics.*`, `params.*` and `tags.*`; the latter two as far as there are any.
    Fractions, not percent; times in UTC. Raises ConfigError for what cannot be understood, DatabaseError.
    """
    filters = Filters(
        strategies=tuple(recorded_name(word) for word in _words("strategy", strategy)),
        strategy_type=strategy_type,
        symbols=_words("symbol", symbol),
        statuses=_statuses(status),
        data_source=data_source,
        sweep=sweep,
        tags=tuple((str(key), str(value)) for key, value in (tags or {}).items()),
        after=_moment("after", after),
        before=_moment("before", before),
        period_start=_moment("period_start", period_start),
        period_end=_end("period_end", period_end),
        where=where,
        archived=archived,
    )
    _require_limit(limit)
    columns = [*_PLAIN, *METRICS, *_SPREAD]
    with streamed_runs(settings or load_settings(), columns, filters, Order(sort, descending), limit) as (_, rows):
        frames = [_frame(columns, batch) for batch in batched(rows, _BATCH, strict=False)]
    return _spread(pd.concat(frames, ignore_index=True) if frames else _frame(columns, ()))


def load_run(reference: str | UUID, settings: Settings | None = None) -> Run:
    """The run named by its id or the first characters of it, `@last`, `@last~1`, `@best:SWEEP` or its name.

    Raises NotFoundError, or AmbiguousError listing the candidates.
    """
    settings = settings or load_settings()
    return Run(get_run(settings, str(reference)), settings)


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One recorded run. `record` is all of its row; curve and trades are read when first asked for, and kept."""

    record: StoredRun
    settings: Settings

    @property
    def run_id(self) -> str:
        return str(self.record.run_id)

    @property
    def status(self) -> str:
        """`running`, `success`, `failed` or `interrupted`, as it was when the run was loaded."""
        return self.record.execution_status

    @property
    def name(self) -> str | None:
        return self.record.name

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.record.tags)

    @property
    def notes(self) -> str | None:
        return self.record.notes

    @property
    def params(self) -> dict[str, Any]:
        """The strategy's parameters, defaults included."""
        return dict(self.record.config_snapshot["strategy"]["parameters"])

    @property
    def metrics(self) -> dict[str, Any]:
        """By name; None where a number is not defined. Empty for a run without a result."""
        return asdict(self.record.metrics) if self.record.metrics else {}

    @cached_property
    def config(self) -> RunConfig:
        """Raises ConfigError where the snapshot is of another version."""
        return build_config(self.record.config_snapshot, origin=f"run {self.run_id}")

    @cached_property
    def equity(self) -> pd.Series[float]:
        """Account equity at the close of each bar, in account currency, as it was simulated: to the bit and to the
        nanosecond. Empty for a run without a result."""
        index = _instants(self._curve.times).tz_localize("UTC").rename("time")
        return pd.Series(self._curve.equity, index, name="equity")

    @cached_property
    def returns(self) -> pd.Series[float]:
        """Daily returns as fractions, from which the metrics were computed, by day (UTC, without a zone).

        The first is over the initial capital. Empty for a run without a result, or once equity was zero or less.
        """
        daily = daily_equity(self._curve)
        returns: Floats = point_returns(daily_points(float(self.record.initial_capital), daily))
        # As in `ntrader.metrics`: a bar that closes at midnight belongs to the day it ends.
        days = (daily.times[: len(returns)] - 1) // NANOSECONDS_PER_DAY * NANOSECONDS_PER_DAY
        name = f"{self.record.strategy_name} {self.record.instrument_symbol}"
        return pd.Series(returns, _instants(days).rename("date"), name=name)

    @cached_property
    def trades(self) -> pd.DataFrame:
        """The closed trades in the order they closed; times to the microsecond, UTC."""
        rows = get_trades(self.settings, self.record.run_id)
        return pd.DataFrame(
            {name: pd.Series([getattr(row, name) for row in rows], dtype=kind) for name, kind in _TRADE.items()}
        )

    @cached_property
    def _curve(self) -> EquityCurve:
        curve = read_curve(self.settings, self.record.run_id)
        if curve is None and self.status == "success":
            raise NotFoundError(f"run {self.run_id} was deleted meanwhile", hint="search_runs() shows what there is.")
        return curve or EquityCurve(np.empty(0, dtype=np.int64), np.empty(0))

    def __repr__(self) -> str:
        said = self._said()
        title = f"{said['run_id'][:8]} {said['status']}: {said['strategy']} on {said['symbol']}"
        rest = ("name", "period", "total_return", "sharpe_ratio", "max_drawdown", "trades", "error")
        return f"<Run {', '.join([title, *(f'{name} {said[name]}' for name in rest if name in said)])}>"

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in self._said().items())
        return f"<table>{''.join(rows)}</table>"

    def _said(self) -> dict[str, str]:
        record, metrics = self.record, self.metrics
        numbers = ((name, metrics.get(name)) for name in ("total_return", "sharpe_ratio", "max_drawdown"))
        said = {
            "run_id": self.run_id,
            "status": self.status,
            "strategy": record.strategy_name,
            "symbol": record.instrument_symbol,
            "name": record.name,
            "period": _period(record),
            "params": ", ".join(f"{name}={value}" for name, value in self.params.items()),
            **{name: None if number is None else f"{number:.4f}" for name, number in numbers},
            "trades": str(metrics["total_trades"]) if metrics else None,
            "error": record.error_message,
        }
        return {name: value for name, value in said.items() if value}


def _period(record: StoredRun) -> str | None:
    if record.start_date is None or record.end_date is None:
        return None
    return f"{record.start_date:%Y-%m-%d} to {record.end_date:%Y-%m-%d}"


def _instants(times: Times) -> pd.DatetimeIndex:
    """From nanoseconds since 1970."""
    return pd.DatetimeIndex(times.view("datetime64[ns]"))


# What is asked for


def _words(name: str, given: Words) -> tuple[str, ...]:
    """An empty list is refused: it would mean all runs, which nobody means by it."""
    if given is None:
        return ()
    words = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else []
    if not words or not all(isinstance(word, str) for word in words):
        raise ConfigError(
            f"{name} is {reprlib.repr(given)}, neither a text nor a list of texts", hint="Leave it out for all runs."
        )
    return tuple(str(word) for word in words)


def _statuses(given: Words) -> tuple[str, ...]:
    words = _words("status", given)
    for word in words:
        if word not in STATUSES:
            near = difflib.get_close_matches(word, STATUSES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(STATUSES)}."
            raise ConfigError(f"there is no status {word!r}", hint=hint)
    return words


def _moment(name: str, given: Moment) -> datetime | None:
    if given is None or isinstance(given, str):
        return None if given is None else parse_moment(given)
    try:
        if isinstance(given, datetime):
            # pandas' Timestamp is one too, but with nanoseconds, and its NaT, which has no date.
            moment = datetime.combine(given.date(), given.timetz())
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        return datetime.combine(given, time(), UTC)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} is {given!r}, which is no date", hint="Give a date, or text like 7d.") from None


def _end(name: str, given: Moment) -> datetime | None:
    if isinstance(given, str):
        return parse_end(given)
    moment = _moment(name, given)
    return moment if moment is None or isinstance(given, datetime) else end_of_day(moment)


def _require_limit(limit: int | None) -> None:
    if limit is not None and not (isinstance(limit, Integral) and 0 < limit < 2**63):
        raise ConfigError(f"limit is {limit!r}, not a whole number above 0", hint="None means all runs.")


# What comes back


def _frame(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Types go by the column and never by what happens to be in it, so that frames can be joined."""
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pd.DataFrame({_title(name): _column(name, cells) for name, cells in zip(columns, values, strict=True)})


def _title(name: str) -> str:
    return f"metrics.{name}" if name in METRICS else name


def _column(name: str, cells: Sequence[Any]) -> pd.Series[Any]:
    if name in _SPREAD:
        return pd.Series([cell or {} for cell in cells], dtype="object")
    if name == "warnings":
        return pd.Series([tuple(cell) for cell in cells], dtype="object")
    kind = FIELDS.get(name, "uuid")
    if kind == "uuid":
        cells = [None if cell is None else str(cell) for cell in cells]
    return pd.Series(cells, dtype="Int64" if name in COUNTS else _DTYPES[kind])


def _spread(frame: pd.DataFrame) -> pd.DataFrame:
    """A column for each parameter and each tag that any run has."""
    parameters, tags = (frame.pop(name).tolist() for name in _SPREAD)
    params = {f"params.{name}": _guessed(cells) for name, cells in _by_key(parameters).items()}
    labels = {f"tags.{name}": pd.Series(cells, dtype=_TEXT) for name, cells in _by_key(tags).items()}
    return pd.concat([frame, pd.DataFrame(params | labels, frame.index)], axis=1)


def _by_key(mappings: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = sorted({key for mapping in mappings for key in mapping})
    return {key: [mapping.get(key) for mapping in mappings] for key in keys}


def _guessed(cells: list[Any]) -> pd.Series[Any]:
    """Typed where all values are alike: whole numbers, numbers, texts, booleans; else as they are."""
    kinds = {type(cell) for cell in cells if cell is not None}
    dtype: Any = "object"
    if kinds == {str}:
        dtype = _TEXT
    elif kinds == {bool}:
        dtype = "boolean"
    elif kinds == {int}:
        dtype = "Int64"
    elif kinds in ({float}, {int, float}):
        dtype = "float64"
    try:
        guessed: pd.Series[Any] = pd.Series(cells, dtype=dtype)
    except OverflowError:  # a whole number of more than 64 bits
        guessed = pd.Series(cells, dtype="object")
    return guessed
