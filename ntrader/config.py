"""RunConfig: the complete input of one backtest. If changing something could change the result, it is a field here.

A person asks with a `RunRequest` (a YAML file, overrides, or both); `read_request` merges the two into plain data
and `build_config` validates it. Completing the strategy's parameters with their defaults needs the strategy's
class and is done by `ntrader.resolve`, in the process that has the engine loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import reprlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from ntrader.data.bars import parse_timeframe
from ntrader.errors import ConfigError
from ntrader.forms import AMOUNT, DATE, FORM, STRATEGY
from ntrader.yaml_file import read_yaml

SCHEMA_VERSION: Final = 1

# Times are nanoseconds in 64 bits, which end in 2262.
_FIRST_YEAR, _LAST_YEAR = 1900, 2199
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_VENUE = re.compile(r"[A-Za-z0-9_]{1,32}")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")

Source = Literal["auto", "sample", "csv", "catalog", "synthetic"]


def _moment(value: object) -> object:
    """A bare date stays a date (the whole day); a time gets a zone: UTC unless it says otherwise."""
    if value is None:
        return None
    written = value
    if isinstance(value, str):
        text = value.strip()
        try:
            value = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(_not_a_date(written)) from None
    if not isinstance(value, date):
        raise ValueError(_not_a_date(written))
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"the year of {written!s} is not between {_FIRST_YEAR} and {_LAST_YEAR}")
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def _not_a_date(value: object) -> str:
    return f"{reprlib.repr(value)} is not a date; write it like 2012-12-31 or 2012-12-31T15:30"


def _timeframe(text: str) -> str:
    try:
        return str(parse_timeframe(text))
    except ConfigError as error:
        raise ValueError(f"{error.message}. {error.hint}") from None


def _number_as_text(value: object) -> object:
    """Symbols such as 600519 are text, whatever YAML takes them for."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _venue(text: str) -> str:
    """Nautilus splits what it makes of a venue at `.` and `-`."""
    if not _VENUE.fullmatch(text):
        raise ValueError(f"{text!r} is not a venue; write it with letters, digits and _, like XNAS")
    return text


def _without_sign(number: float) -> float:
    """-0.0 and 0.0 mean the same and must read the same."""
    return number + 0.0


Moment = Annotated[datetime | date, BeforeValidator(_moment)]
Timeframe = Annotated[str, AfterValidator(_timeframe)]
Symbol = Annotated[str, BeforeValidator(_number_as_text)]
VenueName = Annotated[str, AfterValidator(_venue)]
Number = Annotated[float, AfterValidator(_without_sign)]


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_value(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(f"must not be {str(value).lower()}; if it is meant as text, put it in quotes")
        if isinstance(value, str) and _CONTROL.search(value):
            raise ValueError(f"{reprlib.repr(value)} has a control character in it")
        return value


class StrategyConfig(FrozenModel):
    """Which strategy, by its registered key or import path `package.module:Class`, and its parameters."""

    path: str = Field(description="A strategy's key (sma_crossover) or import path (my_package.mine:MyStrategy)")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters that differ from the defaults")

    @field_validator("parameters")
    @classmethod
    def _parameters_are_plain(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name, value in parameters.items():
            require_plain(name, value)
        return parameters


class SyntheticConfig(FrozenModel):
    """A seeded geometric random walk, for trying things where no prices are at hand."""

    seed: int = Field(default=0, ge=0)
    start_price: Number = Field(default=100.0, gt=0)
    drift: Number = Field(default=0.05, ge=-10, le=10, description="Expected return a year, a fraction")
    volatility: Number = Field(default=0.2, ge=0, le=5, description="Standard deviation of returns a year, a fraction")


class DataConfig(FrozenModel):
    """Which bars. Without `start` or `end`, all there are on that side; both ends are included."""

    symbol: Symbol = Field(min_length=1, max_length=64, description="Instrument symbol, such as AAPL")
    source: Source = Field(default="auto", description="Where the bars come from; auto looks in sample and catalog")
    venue: VenueName | None = Field(default=None, description="Venue of the instrument, such as XNAS")
    timeframe: Timeframe = Field(default="1-DAY", description="Length of a bar: 1-DAY, 1-HOUR, 5-MINUTE")
    path: str | None = Field(default=None, description="File for the csv source")
    stamp: Literal["open", "close"] = Field(
        default="open", description="Whether times in an intraday csv file are the open or the close of the bar"
    )
    start: Moment | None = Field(default=None, description="First day or moment (UTC), included")
    end: Moment | None = Field(default=None, description="Last day or moment (UTC), included")
    synthetic: SyntheticConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.start and self.end and first_moment(self.start) > last_moment(self.end):
            raise ValueError(f"start {self.start} is after end {self.end}")
        if self.source == "csv" and not self.path:
            raise ValueError("source csv needs a path")
        return self


class FeesConfig(FrozenModel):
    """Commission charged at each fill, rounded half up to the account currency's smallest unit."""

    model: Literal["none", "per_share", "proportional", "fixed"] = "none"
    rate: Number = Field(default=0.0, ge=0, description="Per share, fraction of value, or per fill")
    minimum: Number = Field(default=0.0, ge=0, description="Smallest commission of one fill")


class VenueConfig(FrozenModel):
    """The account and how orders are filled."""

    account_type: Literal["CASH", "MARGIN"] = "CASH"
    leverage: Number = Field(default=1.0, ge=1, le=1000, description="MARGIN only")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3,5}$")
    fill_timing: Literal["next_open", "close"] = Field(
        default="next_open", description="A signal on a bar trades at the next bar's open, or at its own close"
    )
    slippage: Number = Field(default=0.0, ge=0, lt=1, description="Fraction of the price lost at each market fill")
    fees: FeesConfig = FeesConfig()

    @model_validator(mode="after")
    def _cash_has_no_leverage(self) -> VenueConfig:
        if self.account_type == "CASH" and self.leverage != 1:
            raise ValueError(f"leverage {self.leverage:g} needs account_type MARGIN")
        return self


class InstrumentConfig(FrozenModel):
    """How the instrument trades. Equities trade whole shares; prices are rounded to `price_precision` decimals."""

    price_precision: int = Field(default=4, ge=0, le=9)


class RunConfig(FrozenModel):
    """The complete input of one backtest; equal configs, data, code, engine and environment give equal results."""

    schema_version: Literal[1] = SCHEMA_VERSION
    strategy: StrategyConfig
    data: DataConfig
    instrument: InstrumentConfig = InstrumentConfig()
    venue: VenueConfig = VenueConfig()
    initial_capital: Decimal = Field(default=Decimal(100_000), gt=0, le=Decimal(10) ** 12, decimal_places=9)
    annualization: int = Field(default=252, ge=1, le=366, description="Return observations a year: 252, 365 for crypto")
    seed: int = Field(default=0, ge=0, lt=2**32)

    def snapshot(self) -> dict[str, Any]:
        """The config as plain JSON data: what is stored, hashed and loaded again by `build_config`."""
        data: dict[str, Any] = self.model_dump(mode="json")
        data["initial_capital"] = plain_number(self.initial_capital)
        return data

    def canonical_json(self) -> str:
        """One text for one meaning: keys sorted, no spaces, numbers without trailing zeros."""
        return canonical_json(self.snapshot())


class FormModel(FrozenModel):
    """What people fill in. Written out, it holds what was filled in and nothing else."""

    model_config = FORM

    @model_serializer(mode="wrap")
    def _filled_in(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        blank: tuple[object, ...] = (None, [], {})
        return {name: value for name, value in handler(self).items() if value not in blank}


def _as_json(number: Decimal | None) -> int | float | str | None:
    """A number wherever JSON's numbers hold it exactly, for what expects one; else its digits."""
    if number is None or Decimal(str(float(number))) != number:
        return None if number is None else plain_number(number)
    return int(number) if number == number.to_integral_value() else float(number)


class RunRequest(FormModel):
    """What to run: strategy, symbol and dates are enough, or a config file. What is filled in wins over the file, and
    what is said nowhere has its default."""

    strategy: Annotated[str | None, STRATEGY] = Field(
        default=None, description="Its key, its name, or the import path of your own: my_package.mine:MyStrategy"
    )
    symbol: str | None = Field(
        default=None,
        description="Instrument, such as AAPL; the sample has AAPL, GOOG, IBM, MSFT from 2005-03-01 to 2013-03-01",
    )
    start: Annotated[Moment | None, DATE] = Field(
        default=None, title="First day", description="Included; blank: as far back as there are bars"
    )
    end: Annotated[Moment | None, DATE] = Field(
        default=None, title="Last day", description="Included; blank: up to the newest bar"
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        title="Strategy parameters",
        description='Those that differ from their defaults, such as {"fast_period": 10, "slow_period": 50}',
    )
    initial_capital: Annotated[Decimal | None, PlainSerializer(_as_json, when_used="json"), AMOUNT] = Field(
        default=None, description="Cash at the start, in the account's currency; 100,000 by default"
    )
    timeframe: str | None = Field(
        default=None, title="Length of a bar", description="1-DAY (the default), 1-HOUR, 5-MINUTE ..."
    )
    fill_timing: Literal["next_open", "close"] | None = Field(
        default=None,
        description="A signal on a bar trades at the next bar's open (next_open, the default) or at its own close",
    )
    account_type: Literal["CASH", "MARGIN"] | None = Field(
        default=None, description="CASH by default; selling short needs MARGIN"
    )
    source: Source | None = Field(
        default=None, title="Source of the bars", description="By default looked for in the sample and the catalog"
    )
    venue: str | None = Field(default=None, description="Such as XNAS, where a symbol has more than one")
    data_path: str | None = Field(
        default=None, title="CSV file", description="For the source csv: a path on the machine that runs it"
    )
    seed: int | None = Field(default=None, description="Of everything random; 0 by default")
    config_path: str | None = Field(
        default=None,
        title="Config file",
        description="Such as config/strategies/sma_crossover.yaml, on the machine that runs it",
    )
    config: dict[str, Any] | None = Field(
        default=None,
        title="Contents of a config file",
        description="Read in place of the file, which then need not be there; for settings that have no field above",
    )


def canonical_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def plain_number(number: Decimal) -> str:
    """`100000`, never `1E+5` or `100000.00`: the same amount is always the same text."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def first_moment(moment: date) -> datetime:
    """The first instant a start covers: midnight UTC of a bare date."""
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time.min, UTC)


def last_moment(moment: date) -> datetime:
    """The last instant an end covers: the last microsecond of a bare date."""
    return moment if isinstance(moment, datetime) else datetime.combine(moment, time.max, UTC)


def read_request(request: RunRequest) -> dict[str, Any]:
    """The config file, if any, with the request's overrides laid over it, as plain data for `build_config`.

    Raises ConfigError where the file is that of a sweep.
    """
    raw = settings_of(request)
    if "sweep" in raw:
        origin = request.config_path or "the request"
        raise ConfigError(
            f"{origin} describes a sweep, not a single run", hint=f"Run it with `ntrader sweep run {origin}`."
        )
    return lay_over(raw, request)


def settings_of(request: RunRequest) -> dict[str, Any]:
    """The settings that the request's file holds, or brings along, in their long form, blank ones left out.

    Raises ConfigError as `read_yaml` does.
    """
    if request.config is not None:
        return _long_form(_without_blanks(request.config))
    return _long_form(_without_blanks(read_yaml(Path(request.config_path)))) if request.config_path else {}


def portable(request: RunRequest) -> RunRequest:
    """The same for a process elsewhere: what the file says goes with it, and paths are whole. Raises ConfigError as
    `read_yaml` does."""
    raw = settings_of(request)
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("path"), str):
        raw = {**raw, "data": {**data, "path": _whole_path(data["path"])}}
    capital = request.initial_capital
    if isinstance(_as_json(capital), str):  # where a form wants a number, this one would be rounded
        raw, capital = {**raw, "initial_capital": _as_json(capital)}, None
    path = _whole_path(request.data_path) if request.data_path else None
    return request.model_copy(update={"config": raw or None, "data_path": path, "initial_capital": capital})


def written_out(request: FormModel) -> dict[str, Any]:
    """What was filled in, as plain JSON data."""
    found: dict[str, Any] = request.model_dump(mode="json")
    return found


def _whole_path(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def lay_over(raw: dict[str, Any], request: RunRequest) -> dict[str, Any]:
    """The request's overrides laid over settings in their long form."""
    overrides = {
        "strategy": {"path": request.strategy, "parameters": request.parameters},
        "data": {
            "symbol": request.symbol,
            "source": request.source,
            "venue": request.venue,
            "timeframe": request.timeframe,
            "path": request.data_path,
            "start": request.start,
            "end": request.end,
        },
        "venue": {"account_type": request.account_type, "fill_timing": request.fill_timing},
        "initial_capital": request.initial_capital,
        "seed": request.seed,
    }
    return _merge(raw, overrides)


def build_config(raw: dict[str, Any], *, origin: str = "the request") -> RunConfig:
    """Validate plain data into a RunConfig. Raises ConfigError naming each field that does not fit."""
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        lines = [f"{origin}: {where or 'config'}: {message}" for where, message in describe(error)]
        raise ConfigError("\n".join(lines), hint=_missing_hint(error)) from None


def _without_blanks(raw: dict[str, Any]) -> dict[str, Any]:
    """A setting left blank keeps its default, and so does a section; a parameter may be null on purpose."""
    return {
        key: _without_blanks(value) if isinstance(value, dict) and key not in ("parameters", "params") else value
        for key, value in raw.items()
        if value is not None
    }


def _long_form(raw: dict[str, Any]) -> dict[str, Any]:
    """`strategy: sma_crossover` beside `parameters: {...}` is short for `strategy: {path: ..., parameters: ...}`."""
    strategy = raw.get("strategy")
    if isinstance(strategy, dict):
        return raw
    parts = {"path": strategy, "parameters": raw.get("parameters")}
    rest = {key: value for key, value in raw.items() if key not in ("strategy", "parameters")}
    return {**rest, "strategy": {key: value for key, value in parts.items() if value is not None}}


def _merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides laid over the base; None overrides nothing, unless it is a parameter's value."""
    merged = dict(base)
    for key, value in overrides.items():
        inner = merged.get(key)
        if isinstance(value, dict):
            if inner is None or isinstance(inner, dict):
                merged[key] = {**(inner or {}), **value} if key == "parameters" else _merge(inner or {}, value)
        elif value is not None:
            merged[key] = value
    return {key: value for key, value in merged.items() if value != {}}


def require_plain(name: str, value: object) -> None:
    """Raises ValueError for what JSON, PostgreSQL or a second look cannot keep as it is."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; a parameter must be finite")
    if isinstance(value, str) and _UNSTORABLE.search(value):
        raise ValueError(f"{name} is {reprlib.repr(value)}, text that cannot be stored")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{name} has the key {key!r}, which is not text")
            require_plain(f"{name}.{key}", inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            require_plain(f"{name}[{number}]", inner)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"{name} is a {type(value).__name__}; a parameter is a number, text, list or mapping")


# What pydantic says, in words for somebody who has never heard of it, by the kind of error or its first word.
_WORDS = {
    "decimal_parsing": "must be a number",
    "decimal_type": "must be a number",
    "dict": "must be a mapping of settings",
    "finite": "must be a finite number",
    "float": "must be a number",
    "int": "must be a whole number",
    "invalid": "must be text",
    "model": "must be a mapping of settings",
    "string_pattern_mismatch": "must be a code such as USD",
    "string_type": "must be text; put it in quotes",
}


_SECTIONS: dict[str, type[BaseModel]] = {
    "": RunConfig,
    "strategy": StrategyConfig,
    "data": DataConfig,
    "data.synthetic": SyntheticConfig,
    "venue": VenueConfig,
    "venue.fees": FeesConfig,
    "instrument": InstrumentConfig,
}


def describe(error: ValidationError, sections: Mapping[str, type[BaseModel]] = _SECTIONS) -> list[tuple[str, str]]:
    """Each problem of a RunConfig or RunRequest as (setting, what is wrong with it), in words of our own.

    `sections` are the models by their place, the outermost at "": where to look for the name that was meant.
    """
    problems = []
    for item in error.errors(include_url=False):
        kind, message = item["type"], item["msg"].removeprefix("Value error, ")
        if kind == "extra_forbidden":
            message = f"unknown setting{_nearest(item['loc'], sections)}"
        elif kind == "missing":
            message = "is missing"
        elif kind != "value_error":
            message = f"{_plain_words(kind, message)}, got {reprlib.repr(item['input'])}"
        problems.append((".".join(str(part) for part in item["loc"]), " ".join(message.split())))
    return list(dict.fromkeys(problems))


def _plain_words(kind: str, message: str) -> str:
    known = _WORDS.get(kind) or _WORDS.get(kind.partition("_")[0])
    return known or re.sub(r"^(?:Input|String|Value|Decimal input) should ", "must ", message)


def _nearest(location: tuple[str | int, ...], sections: Mapping[str, type[BaseModel]]) -> str:
    name = str(location[-1])
    section = ".".join(part for part in location[:-1] if isinstance(part, str))
    fields = list(sections.get(section, sections[""]).model_fields)
    elsewhere = [f"{place}.{name}" for place, model in sections.items() if place and name in model.model_fields]
    near = elsewhere or difflib.get_close_matches(name, fields, n=1)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(fields)}"


def _missing_hint(error: ValidationError) -> str | None:
    missing = {".".join(map(str, item["loc"])) for item in error.errors() if item["type"] == "missing"}
    if {"strategy", "strategy.path"} & missing:
        return "Name a strategy with --strategy, or a file with --config; `ntrader strategy list` shows them."
    if {"data", "data.symbol"} & missing:
        return "Name an instrument with --symbol; `ntrader data list` shows what there is."
    return None
