"""SweepConfig: the complete input of one sweep: a base run, a search space and how points are drawn from it.

A sweep's file is a run's file with a section `sweep` more. `read_sweep` lays overrides over it, `build_sweep` validates
it, and `ntrader.sweeps.points.check_sweep` says whether the space can be searched, all before anything runs.
"""

from __future__ import annotations

import calendar
import dataclasses
import difflib
import math
import re
import reprlib
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from ntrader.config import (
    FrozenModel,
    Moment,
    RunConfig,
    RunRequest,
    Symbol,
    Timeframe,
    build_config,
    canonical_json,
    describe,
    first_moment,
    last_moment,
    lay_over,
    settings_of,
    sha256,
)
from ntrader.errors import ConfigError
from ntrader.results import Metrics
from ntrader.sweeps.axes import Axis, Choices, as_axis
from ntrader.sweeps.constraints import parse_constraint

LESS_IS_BETTER: Final = frozenset({"volatility", "kurtosis", "losing_trades"})
OBJECTIVES: Final = tuple(
    field.name for field in dataclasses.fields(Metrics) if field.name not in {"max_drawdown_date"}
)
# More points than this are a slip, unless a budget says how many are wanted.
LARGEST_GRID: Final = 1_000_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_LENGTH = re.compile(r"(\d{1,5})(y|mo|w|d)")
_LONGEST = {"y": 200, "mo": 2_400, "w": 10_000, "d": 70_000}
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def _seconds(written: object) -> object:
    """`90`, `"90s"`, `"5m"`, `"2h"`, `"1d"` in seconds."""
    if written is None:
        return None
    match = _DURATION.fullmatch(str(written).strip().lower())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{reprlib.repr(written)} is not a length of time; write it like 30s, 5m, 2h or 1d")
    return seconds


def _length(written: str | None) -> str | None:
    if written is None:
        return None
    match = _LENGTH.fullmatch(written)
    if not match or not 0 < int(match[1]) <= _LONGEST[match[2]]:
        raise ValueError(f"{reprlib.repr(written)} is not a length of time; write it like 3y, 6mo, 26w or 90d")
    return f"{int(match[1])}{match[2]}"


def _before(day: date, count: int, unit: str) -> date:
    """So many years, months, weeks or days earlier; of a month that is too short its last day."""
    if unit in ("d", "w"):
        return day - timedelta(days=count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 - count * (12 if unit == "y" else 1)
    year, month = months // 12, months % 12 + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def _listed(written: object) -> object:
    """One thing is short for a list of one thing; an empty list is a mistake."""
    if isinstance(written, list | tuple) and not written:
        raise ValueError("the list is empty")
    return written if isinstance(written, list | tuple) else [written]


def _distinct[T](values: tuple[T, ...]) -> tuple[T, ...]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"has {value} twice")
    return values


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError(f"{reprlib.repr(text)} has a control character in it")
    return text


def _name(text: str) -> str:
    if text.startswith("@") or text.isdecimal():
        raise ValueError(f"{reprlib.repr(text)} is no name, but the number of a sweep, or @last")
    return _printable(text)


def _constraint(text: str) -> str:
    """Spelled in one way for one meaning."""
    try:
        return parse_constraint(text).text
    except ConfigError as error:
        raise ValueError(f"{error.message}. {error.hint}" if error.hint else error.message) from None


def _objective(name: str) -> str:
    if name not in OBJECTIVES:
        near = difflib.get_close_matches(name, OBJECTIVES, n=1)
        rest = f"did you mean {near[0]}?" if near else f"known: {', '.join(OBJECTIVES)}"
        raise ValueError(f"unknown metric {reprlib.repr(name)}; {rest}")
    return name


Seconds = Annotated[float, BeforeValidator(_seconds)]
Instrument = Annotated[Symbol, Field(min_length=1, max_length=64), AfterValidator(_printable)]


class Period(FrozenModel):
    """A test period; without `start` or `end`, all there is on that side. Both ends are included.

    With `last` it is as long as that and ends with the newest bar there is when the sweep is opened: the form of a
    sweep that is run again and again. What is stored has both ends.
    """

    start: Moment | None = None
    end: Moment | None = None
    last: Annotated[str | None, AfterValidator(_length)] = Field(default=None, description="Such as 3y, 6mo, 26w, 90d")

    @model_validator(mode="after")
    def _consistent(self) -> Period:
        if self.last is not None and (self.start or self.end):
            raise ValueError("a period has either `last` or a start and an end")
        if self.start is None and self.end is None and self.last is None:
            raise ValueError("a period needs a start, an end or both, or last")
        if self.start and self.end and first_moment(self.start) > last_moment(self.end):
            raise ValueError(f"start {self.start} is after end {self.end}")
        return self

    def ending(self, newest: date) -> Period:
        """The same with both ends, where it is one of the form `last`, over data whose newest bar is of that day."""
        if self.last is None:
            return self
        match = _LENGTH.fullmatch(self.last)
        assert match is not None
        return Period(start=_before(newest, int(match[1]), match[2]) + timedelta(days=1), end=newest)

    def __str__(self) -> str:
        return f"last {self.last}" if self.last else f"{self.start or ''}..{self.end or ''}"


class Budget(FrozenModel):
    """When a sweep has done enough: after so many trials, or so much time (seconds, or like 30m, 2h)."""

    trials: int | None = Field(default=None, ge=1, le=10_000_000)
    wall: Seconds | None = None


class SweepConfig(FrozenModel):
    """A base run, a search space and a sampler. Equal fingerprints promise equal trials, in the same order
    (a tpe sweep's given equal results)."""

    base: RunConfig
    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)] | None = None
    params: dict[str, Annotated[Axis, PlainValidator(as_axis)]] = Field(
        default_factory=dict, description="Parameters of the strategy, each with its axis"
    )
    symbols: Annotated[tuple[Instrument, ...], BeforeValidator(_listed), AfterValidator(_distinct)] = ()
    timeframes: Annotated[tuple[Timeframe, ...], BeforeValidator(_listed), AfterValidator(_distinct)] = ()
    periods: Annotated[tuple[Period, ...], BeforeValidator(_listed), AfterValidator(_distinct)] = ()
    constraints: Annotated[
        tuple[Annotated[str, AfterValidator(_constraint)], ...], BeforeValidator(_listed), AfterValidator(_distinct)
    ] = ()
    objective: Annotated[str, AfterValidator(_objective)] = Field(
        default="sharpe_ratio", description="The metric by which trials are ranked and a tpe sampler is led"
    )
    direction: Literal["maximize", "minimize"] = Field(
        default="maximize", description="By default minimize where less of the objective is better"
    )
    sampler: Literal["grid", "random", "tpe"] = "grid"
    seed: int = Field(default=0, ge=0, lt=2**32)
    budget: Budget = Budget()
    timeout: Seconds | None = Field(default=None, description="Longest a trial may take, in seconds or like 30s, 5m")
    batch: int = Field(
        default=8, ge=1, le=10_000, description="Trials that a tpe sampler asks for at once, however many workers"
    )

    @field_validator("params")
    @classmethod
    def _named(cls, params: dict[str, Axis]) -> dict[str, Axis]:
        if "symbol" in params:
            raise ValueError("symbol is the instrument; list them under symbols")
        return params

    @model_validator(mode="before")
    @classmethod
    def _one_period(cls, written: Any) -> Any:
        """`period` is short for a list of one."""
        if not isinstance(written, dict) or "period" not in written:
            return written
        if "periods" in written:
            raise ValueError("give either period or periods")
        return {("periods" if key == "period" else key): value for key, value in written.items()}

    @model_validator(mode="before")
    @classmethod
    def _direction_of_the_objective(cls, written: Any) -> Any:
        if isinstance(written, dict) and written.get("objective") in LESS_IS_BETTER:
            return {"direction": "minimize", **written}
        return written

    @model_validator(mode="after")
    def _searchable(self) -> SweepConfig:
        if not (self.params or self.symbols or self.timeframes or self.periods):
            raise ValueError("there is nothing to vary; give params, symbols, timeframes or periods")
        if self.symbols and (self.base.data.path or self.base.data.source == "csv"):
            raise ValueError("symbols cannot vary with a csv file, which holds one instrument")
        if self.sampler == "grid":
            _require_grid(self)
        elif self.budget.trials is None:
            raise ValueError(f"sampler {self.sampler} needs budget.trials: how many points to try")
        return self

    def snapshot(self) -> dict[str, Any]:
        """The sweep as plain JSON data, in the form of a file: what is stored and loaded again by `build_sweep`."""
        limits = {"wall": self.budget.wall, "trials": self.budget.trials}
        section = {
            **self._search(),
            "name": self.name,
            "timeout": self.timeout,
            "seed": self.seed,
            "batch": self.batch,
            "budget": limits,
        }
        return {**self.base.snapshot(), "sweep": _without_empty(section)}

    @property
    def fingerprint(self) -> str:
        """sha256 of what decides which trials there are, what each of them runs and how they are ranked.

        Not the name, the limits of time, what the axes overlay in the base, or what the sampler does not use.
        """
        base = self.base.snapshot()
        parameters = base["strategy"]["parameters"]
        base["strategy"]["parameters"] = {key: value for key, value in parameters.items() if key not in self.params}
        varied = {"symbol": self.symbols, "timeframe": self.timeframes, "start": self.periods, "end": self.periods}
        base["data"] = {key: value for key, value in base["data"].items() if not varied.get(key)}
        search = {**self._search(), "constraints": sorted(self.constraints), "trials": self.budget.trials}
        if self.sampler != "grid":
            search["seed"] = self.seed
        if self.sampler == "tpe":
            search["batch"] = self.batch
        return sha256(canonical_json({"base": base, "search": _without_empty(search)}))

    def _search(self) -> dict[str, Any]:
        return {
            "params": {name: axis.canonical() for name, axis in self.params.items()},
            "symbols": list(self.symbols),
            "timeframes": list(self.timeframes),
            "periods": [_without_empty(period.model_dump(mode="json")) for period in self.periods],
            "constraints": list(self.constraints),
            "objective": self.objective,
            "direction": self.direction,
            "sampler": self.sampler,
        }


def grid_size(sweep: SweepConfig) -> int | None:
    """How many points the space has before constraints; None where an axis is continuous."""
    sizes = [axis.size for axis in sweep.params.values() if isinstance(axis, Choices)]
    if len(sizes) < len(sweep.params):
        return None
    others = (sweep.symbols, sweep.timeframes, sweep.periods)
    return math.prod(sizes) * math.prod(len(values) or 1 for values in others)


def read_sweep(request: RunRequest, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The sweep's file, if any, with the request's overrides laid over the base run and `overrides` over the section
    `sweep`, as plain data for `build_sweep`. An axis or a list takes the place of the file's; None overrides nothing.

    Raises ConfigError where the file cannot be read.
    """
    raw = settings_of(request)
    section = raw.get("sweep", {})
    merged = lay_over({key: value for key, value in raw.items() if key != "sweep"}, request)
    return {**merged, "sweep": _laid_over(section, overrides or {})}


def build_sweep(raw: Mapping[str, Any], *, origin: str = "the request") -> SweepConfig:
    """Validate plain data, a run's with a section `sweep` more. Raises ConfigError naming each field that does not
    fit."""
    base = {key: value for key, value in raw.items() if key != "sweep"}
    section = raw.get("sweep")
    if not isinstance(section, dict) or not section:
        found = "is missing" if not section else f"must be a mapping of settings, got {reprlib.repr(section)}"
        raise ConfigError(f"{origin}: sweep: {found}", hint="Name what to vary, like --param fast_period=5:50:5.")
    if "base" in section:
        raise ConfigError(f"{origin}: sweep.base: unknown setting; the base run stands beside sweep, not in it")
    config = build_config(_with_a_symbol(base, section), origin=origin)
    try:
        return SweepConfig.model_validate({**section, "base": config})
    except ValidationError as error:
        problems = [(f"sweep.{where}" if where else "sweep", what) for where, what in describe(error, _SECTIONS)]
        raise ConfigError("\n".join(f"{origin}: {where}: {what}" for where, what in problems)) from None


_SECTIONS: dict[str, type[BaseModel]] = {"": SweepConfig, "budget": Budget, "periods": Period}


def _require_grid(sweep: SweepConfig) -> None:
    for name, axis in sweep.params.items():
        if not isinstance(axis, Choices):
            raise ValueError(
                f"a grid cannot take {name} from {axis.canonical()}; give a range or values, or sampler random or tpe"
            )
    size = grid_size(sweep) or 0
    if size > LARGEST_GRID and sweep.budget == Budget():
        raise ValueError(
            f"the grid has {size:,} points, more than {LARGEST_GRID:,}; "
            "give a budget, larger steps, or sampler random or tpe"
        )


def _with_a_symbol(base: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """A base run that leaves the symbol to the axis gets the first of it."""
    symbols, data = section.get("symbols"), base.get("data") or {}
    if not symbols or not isinstance(data, dict) or data.get("symbol") is not None:
        return base
    first = symbols[0] if isinstance(symbols, list | tuple) else symbols
    return {**base, "data": {**data, "symbol": first}}


def _laid_over(section: Any, overrides: Mapping[str, Any]) -> Any:
    if not isinstance(section, dict):
        return section
    merged = dict(section)
    for key, value in overrides.items():
        inner = merged.get(key)
        if isinstance(value, Mapping) and isinstance(inner, dict):
            merged[key] = {**inner, **{name: part for name, part in value.items() if part is not None}}
        elif value is not None:
            merged[key] = value
    return merged


def _without_empty(section: dict[str, Any]) -> dict[str, Any]:
    blank: tuple[object, ...] = (None, [], {})
    inner = {key: _without_empty(value) if key == "budget" else value for key, value in section.items()}
    return {key: value for key, value in inner.items() if value not in blank}
