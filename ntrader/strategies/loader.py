"""From an import path to a strategy object: any Nautilus Strategy whose config is a StrategyConfig will do."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import reprlib
import sys
import traceback
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import msgspec
from nautilus_trader.common.config import msgspec_decoding_hook, msgspec_encoding_hook
from nautilus_trader.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from ntrader.config import plain_number
from ntrader.errors import (
    BrokenStrategyError,
    ConfigError,
    NtraderError,
    RefusedParametersError,
    StrategyError,
    UnknownStrategyError,
)
from ntrader.sources import remember
from ntrader.strategies.registry import identity

if TYPE_CHECKING:
    from ntrader.config import RunConfig
    from ntrader.data.bars import Bars

# Filled in by ntrader for each run; everything else a config class declares is a parameter.
_GIVEN = {"instrument_id", "bar_type"}
# How msgspec names the field that does not fit.
_PATH = " - at $"
_BASE = set(StrategyConfig.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a strategy as `ntrader strategy show` lists it; `default` is None when it is required."""

    name: str
    type: str
    default: object
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class StrategyClass:
    """A strategy's class with the config class that types and validates its parameters."""

    path: str
    name: str
    strategy_type: str
    strategy: type[Strategy]
    config: type[StrategyConfig]

    @property
    def fields(self) -> tuple[Any, ...]:
        return _declared(self.config)


# What is looked up in annotations takes a millisecond: once a class, not once a trial.
@lru_cache(maxsize=64)
def _declared(config: type[StrategyConfig]) -> tuple[Any, ...]:
    return tuple(f for f in msgspec.structs.fields(config) if f.name not in _BASE | _GIVEN)


def load_strategy(path: str) -> StrategyClass:
    """Import `package.module:Class`; the current folder is searched too.

    Raises UnknownStrategyError when module or class are not there, BrokenStrategyError when importing it raises.
    """
    module_name, _, class_name = (part.strip() for part in path.partition(":"))
    module = _import(module_name, path)
    found = getattr(module, class_name, None)
    if not _is_strategy(found):
        names = [name for name, value in vars(module).items() if _is_strategy(value)]
        near = difflib.get_close_matches(class_name, names, n=1) or names
        raise UnknownStrategyError(
            f"module {module_name} has no Nautilus Strategy named {class_name!r}",
            hint=f"Did you mean {module_name}:{near[0]}?" if near else None,
        )
    name, kind = identity(path)
    config = _config_class(found)  # type: ignore[arg-type]  # mypy takes a class of Any for not hashable
    return StrategyClass(path=path, name=name, strategy_type=kind, strategy=found, config=config)


def parameters_of(strategy: StrategyClass) -> tuple[Parameter, ...]:
    """The declared parameters, in the order of the config class."""
    hints = typing.get_type_hints(strategy.config, include_extras=True)
    return tuple(_parameter(field, hints[field.name]) for field in strategy.fields)


def complete_parameters(strategy: StrategyClass, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters as plain JSON data: the given ones validated, the others at their defaults.

    Equal values come out equal, however they were written: 2 for a float is 2.0, "0.50" for a Decimal is "0.5".
    Raises ConfigError for an unknown, missing or unfit parameter, RefusedParametersError where the strategy's own
    checks refuse them.
    """
    known = [field.name for field in strategy.fields]
    unknown = [name for name in given if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
        raise ConfigError(f"{strategy.name} has no parameter {unknown[0]!r}", hint=hint)
    missing = [field.name for field in strategy.fields if field.required and field.name not in given]
    if missing:
        raise ConfigError(f"{strategy.name} needs a value for {', '.join(missing)}")
    config = _convert(strategy, given, "NONE.NONE", "NONE.NONE-1-DAY-LAST-EXTERNAL")
    return {name: _plain(getattr(config, name), f"{strategy.name}: parameter {name}") for name in known}


def build_strategy(config: RunConfig, bars: Bars) -> Strategy:
    """A fresh strategy for one run, with the instrument and bar type of `bars`.

    Raises StrategyError when its constructor does.
    """
    found = load_strategy(config.strategy.path)
    instrument_id = f"{bars.symbol}.{bars.venue}"
    bar_type = f"{instrument_id}-{bars.timeframe}-LAST-EXTERNAL"
    typed = _convert(found, config.strategy.parameters, instrument_id, bar_type)
    try:
        return _construct(found.strategy, typed)
    except NtraderError:
        raise
    except Exception as error:
        raise StrategyError(
            f"constructing {found.name} raised {type(error).__name__}: {error}", traceback_text=traceback.format_exc()
        ) from error


def sends_only_market_orders(config: RunConfig) -> bool:
    """Whether the strategy promises to leave no order resting, so that highs and lows need not be played out."""
    promise = getattr(load_strategy(config.strategy.path).strategy, "sends_only_market_orders", None)
    return bool(promise and promise(config.strategy.parameters))


def sees_only_bars(config: RunConfig) -> bool:
    """Whether the strategy promises to decide by its bars and its own orders, asking nobody for a tick or a last price:
    then bars at which nothing can fill need not be played out (`ntrader.feed`).

    The promise is that of one class: what a subclass adds it does not know.
    """
    return vars(load_strategy(config.strategy.path).strategy).get("sees_only_bars") is True


def _import(module_name: str, path: str) -> Any:
    _require_import_path(module_name, path)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
        remember(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UnknownStrategyError(
                f"there is no module {error.name!r} for strategy {path!r}",
                hint="Install the package, or run ntrader in the folder that holds it.",
            ) from None
        raise _broken(module_name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(module_name, error) from error
    return module


def _require_import_path(module_name: str, path: str) -> None:
    class_name = path.partition(":")[2].strip() or "MyStrategy"
    dotted = module_name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
    if dotted != module_name or not dotted or not path.partition(":")[2].strip():
        example = f"{dotted or 'my_package.mine'}:{class_name}"
        raise UnknownStrategyError(f"{path!r} is not an import path", hint=f"Write it like {example}.")


def _broken(module_name: str, error: BaseException) -> BrokenStrategyError:
    return BrokenStrategyError(
        f"importing {module_name} raised {type(error).__name__}: {error}", traceback_text=traceback.format_exc()
    )


def _is_strategy(value: object) -> typing.TypeGuard[type[Strategy]]:
    return isinstance(value, type) and issubclass(value, Strategy) and value is not Strategy


@lru_cache(maxsize=64)
def _config_class(strategy: type[Strategy]) -> type[StrategyConfig]:
    """The type that `__init__` asks for, else `<Class>Config` beside the class, else what its base class has."""
    for kind in strategy.__mro__:
        if kind is Strategy:
            break
        beside = getattr(sys.modules.get(kind.__module__), f"{kind.__name__}Config", None)
        for candidate in (*_init_types(kind), beside):
            for part in (candidate, *typing.get_args(candidate)):
                if isinstance(part, type) and issubclass(part, StrategyConfig):
                    return part
    return StrategyConfig


def _init_types(kind: type) -> Iterator[Any]:
    """What the class's own constructor says it takes; nothing where its annotations cannot be looked up."""
    try:
        yield from typing.get_type_hints(vars(kind).get("__init__")).values()
    except (NameError, TypeError, AttributeError):
        return


def _construct(kind: type[Strategy], config: StrategyConfig) -> Strategy:
    """Call the constructor as it wants to be called: with `config`, with one argument of any name, or with none."""
    accepted = _accepted(kind)  # type: ignore[arg-type]  # the same
    if any(item.name == "config" or item.kind is inspect.Parameter.VAR_KEYWORD for item in accepted):
        return kind(config=config)
    return kind(config) if accepted else kind()


@lru_cache(maxsize=64)
def _accepted(kind: type[Strategy]) -> tuple[inspect.Parameter, ...]:
    """What the constructor takes besides `self`."""
    _, *accepted = inspect.signature(kind.__init__).parameters.values()
    return tuple(accepted)


def _convert(strategy: StrategyClass, given: dict[str, Any], instrument_id: str, bar_type: str) -> StrategyConfig:
    values = dict(given)
    for name, value in (("instrument_id", instrument_id), ("bar_type", bar_type)):
        if name in strategy.config.__struct_fields__:
            values[name] = value
    try:
        return msgspec.convert(values, type=strategy.config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        said = str(error).replace("`", "")
        # What `__post_init__` raises is of no single field.
        kind = ConfigError if _PATH in said else RefusedParametersError
        raise kind(f"{strategy.name}: {_problem(said, given)}") from None
    except Exception as error:  # from the config class's own checks
        raise RefusedParametersError(
            f"{strategy.name}: its parameters raised {type(error).__name__}: {error}"
        ) from error


def _decode(kind: type, value: Any) -> Any:
    """A quantity or price written as a number is what it looks like; Nautilus wants text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return msgspec_decoding_hook(kind, str(value) if number else value)


def _problem(message: str, given: dict[str, Any]) -> str:
    """msgspec's `Expected int, got str - at $.fast_period` with the parameter's name and value."""
    text, _, where = message.partition(f"{_PATH}.")
    if not where:
        return text
    if where in given:
        text = f"{text.partition(', got ')[0]}, got {reprlib.repr(given[where])}"
    return f"parameter {where}: {text[:1].lower()}{text[1:]}"


def _plain(value: Any, what: str) -> Any:
    """The value as JSON data. Raises ConfigError where it cannot be one."""
    try:
        return _normal(
            msgspec.to_builtins(value, builtin_types=(Decimal,), enc_hook=msgspec_encoding_hook, str_keys=True)
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be stored: {error}") from None


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _normal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(inner) for inner in value]
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} is not finite")
        return plain_number(value)
    # PostgreSQL's JSON has no -0.0: what is stored must be what is run.
    return value + 0.0 if isinstance(value, float) else value


def _parameter(field: Any, hint: Any) -> Parameter:
    default = None if field.required or field.default is msgspec.NODEFAULT else field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return Parameter(
        name=field.name,
        type=_readable(hint),
        default=_plain(default, f"the default of {field.name}"),
        required=field.required,
        description=next((meta.description for meta in _metas(hint) if meta.description), ""),
    )


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    for part in typing.get_args(hint):
        if isinstance(part, msgspec.Meta):
            yield part
        else:
            yield from _metas(part)


def _readable(hint: Any) -> str:
    """`int or none` rather than `typing.Optional[typing.Annotated[int, ...]]`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _readable(parts[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_readable, parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if hint is type(None):
        return "none"
    if hint is Ellipsis:
        return "..."
    name = getattr(origin or hint, "__name__", str(hint))
    return f"{name}[{', '.join(map(_readable, parts))}]" if parts else str(name)
