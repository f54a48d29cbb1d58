"""RunConfig: the complete input of one backtest. If changing something could change the result, it is a field here.

A person asks with a `RunRequest` (a YAML file, overrides, or both); `read_request` merges the two into plain data
and `build_config` validates it. Completing the strategy's parameters with their defaults needs the strategy's
class and is done by `ntrader.resolve`, in the process that has the engine loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ntrader.data.bars import parse_timeframe
from ntrader.errors import ConfigError

SCHEMA_VERSION = 1

Source = Literal["auto", "sample", "csv", "catalog", "synthetic"]


def _moment(value: object) -> object:
    """A bare date stays a date (the whole day); a time gets a zone: UTC unless it says otherwise."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = date.fromisoformat(text) if len(text) <= 10 else datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a date; write it like 2012-12-31 or 2012-12-31T15:30") from None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


Moment = Annotated[datetime | date, BeforeValidator(_moment)]
Timeframe = Annotated[str, AfterValidator(lambda text: str(parse_timeframe(text)))]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class StrategyConfig(_Frozen):
    """Which strategy, by its registered key or import path `package.module:Class`, and its parameters."""

    path: str = Field(description="A strategy's key (sma_crossover) or import path (my_package.mine:MyStrategy)")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Parameters that differ from the defaults")


class SyntheticConfig(_Frozen):
    """A seeded geometric random walk, for trying things where no prices are at hand."""

    seed: int = Field(default=0, ge=0)
    start_price: float = Field(default=100.0, gt=0)
    drift: float = Field(default=0.05, description="Expected return a year, a fraction")
    volatility: float = Field(default=0.2, ge=0, le=5, description="Standard deviation of returns a year, a fraction")


class DataConfig(_Frozen):
    """Which bars. Without `start` or `end`, all there are on that side; both ends are included."""

    symbol: str = Field(min_length=1, max_length=64, description="Instrument symbol, such as AAPL")
    source: Source = Field(default="auto", description="Where the bars come from; auto looks in sample and catalog")
    venue: str | None = Field(default=None, description="Venue of the instrument, such as XNAS")
    timeframe: Timeframe = Field(default="1-DAY", description="Length of a bar: 1-DAY, 1-HOUR, 5-MINUTE")
    path: str | None = Field(default=None, description="File for the csv source")
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


class FeesConfig(_Frozen):
    """Commission charged at each fill, rounded half up to the account currency's smallest unit."""

    model: Literal["none", "per_share", "percent", "fixed"] = "none"
    rate: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Per share, fraction of value, or per fill")
    minimum: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Smallest commission of one fill")


class VenueConfig(_Frozen):
    """The account and how orders are filled."""

    account_type: Literal["CASH", "MARGIN"] = "CASH"
    leverage: float = Field(default=1.0, ge=1, le=1000, description="MARGIN only")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3,5}$")
    fill_timing: Literal["next_open", "close"] = Field(
        default="next_open", description="A signal on a bar trades at the next bar's open, or at its own close"
    )
    slippage: Fraction = Field(default=0.0, description="Fraction of the price lost at each market fill")
    fees: FeesConfig = FeesConfig()

    @model_validator(mode="after")
    def _cash_has_no_leverage(self) -> VenueConfig:
        if self.account_type == "CASH" and self.leverage != 1:
            raise ValueError(f"leverage {self.leverage:g} needs account_type MARGIN")
        return self


class InstrumentConfig(_Frozen):
    """How the instrument trades. Equities trade whole shares; prices are rounded to `price_precision` decimals."""

    price_precision: int = Field(default=4, ge=0, le=9)


class RunConfig(_Frozen):
    """The complete input of one backtest; equal configs, data, code, engine and environment give equal results."""

    schema_version: Literal[1] = SCHEMA_VERSION
    strategy: StrategyConfig
    data: DataConfig
    instrument: InstrumentConfig = InstrumentConfig()
    venue: VenueConfig = VenueConfig()
    initial_capital: Decimal = Field(default=Decimal(100_000), gt=0, le=Decimal(10) ** 12, allow_inf_nan=False)
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


class RunRequest(_Frozen):
    """What a person asks for: a config file, overrides, or both. Overrides win."""

    config_path: str | None = Field(
        default=None, description="A YAML file such as config/strategies/sma_crossover.yaml"
    )
    strategy: str | None = Field(default=None, description="A strategy's key, name or import path")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Strategy parameters to override")
    symbol: str | None = None
    source: Source | None = None
    venue: str | None = None
    timeframe: str | None = None
    data_path: str | None = None
    start: Moment | None = Field(default=None, description="First day, included")
    end: Moment | None = Field(default=None, description="Last day, included")
    initial_capital: Decimal | None = None
    account_type: Literal["CASH", "MARGIN"] | None = None
    fill_timing: Literal["next_open", "close"] | None = None
    seed: int | None = None


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
    """The config file, if any, with the request's overrides laid over it, as plain data for `build_config`."""
    raw = _long_form(read_yaml(Path(request.config_path))) if request.config_path else {}
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
        raise ConfigError("\n".join(_problems(error, origin)), hint=_missing_hint(error)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError with file and line where it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist", hint=_similar_files(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise ConfigError(f"{path}: expected a mapping of settings at the top, found {found}")
    return data


def _long_form(raw: dict[str, Any]) -> dict[str, Any]:
    """`strategy: sma_crossover` beside `parameters: {...}` is short for `strategy: {path: ..., parameters: ...}`."""
    strategy = raw.get("strategy")
    if not isinstance(strategy, str):
        return raw
    rest = {key: value for key, value in raw.items() if key != "parameters"}
    return {**rest, "strategy": {"path": strategy, "parameters": raw.get("parameters") or {}}}


def _merge(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        if isinstance(value, dict):
            inner = merged.get(key)
            if inner is None or isinstance(inner, dict):
                merged[key] = _merge(inner or {}, value)
        elif value is not None:
            merged[key] = value
    return {key: value for key, value in merged.items() if value is not None and value != {}}


def _problems(error: ValidationError, origin: str) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"] if part not in ("datetime", "date")) or "config"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown setting{_nearest(item['loc'])}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] != "value_error":
            message = f"{message}, got {item['input']!r}"
        lines.append(f"{origin}: {where}: {message}" if item["type"] != "missing" else f"{origin}: {where} {message}")
    return list(dict.fromkeys(lines))


def _nearest(location: tuple[str | int, ...]) -> str:
    models: dict[str, type[BaseModel]] = {
        "strategy": StrategyConfig,
        "data": DataConfig,
        "venue": VenueConfig,
        "instrument": InstrumentConfig,
        "fees": FeesConfig,
        "synthetic": SyntheticConfig,
    }
    model = models.get(str(location[-2]), RunConfig) if len(location) > 1 else RunConfig
    near = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(model.model_fields)}"


def _missing_hint(error: ValidationError) -> str | None:
    missing = {".".join(map(str, item["loc"])) for item in error.errors() if item["type"] == "missing"}
    if {"strategy", "strategy.path"} & missing:
        return "Name a strategy with --strategy, or a file with --config; `ntrader strategy list` shows them."
    if {"data", "data.symbol"} & missing:
        return "Name an instrument with --symbol; `ntrader data list` shows what there is."
    return None


def _similar_files(path: Path) -> str | None:
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix in {".yaml", ".yml"}]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else None
