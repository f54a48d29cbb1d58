"""From an import path to a strategy object: any Nautilus Strategy whose config is a StrategyConfig will do."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from nautilus_trader.common.config import msgspec_decoding_hook, msgspec_encoding_hook
from nautilus_trader.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy

from ntrader.errors import ConfigError, StrategyError, UnknownStrategyError
from ntrader.strategies.registry import identity

if TYPE_CHECKING:
    from ntrader.config import RunConfig
    from ntrader.data.bars import Bars

# Filled in by ntrader for each run; everything else a config class declares is a parameter.
_GIVEN = {"instrument_id", "bar_type"}
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
        return tuple(f for f in msgspec.structs.fields(self.config) if f.name not in _BASE | _GIVEN)


def load_strategy(path: str) -> StrategyClass:
    """Import `package.module:Class`; the current folder is searched too.

    Raises UnknownStrategyError when module or class are not there, StrategyError when importing it raises.
    """
    module_name, _, class_name = path.partition(":")
    module = _import(module_name, path)
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        names = [name for name, value in vars(module).items() if _is_strategy(value)]
        near = difflib.get_close_matches(class_name, names, n=1) or names
        raise UnknownStrategyError(
            f"module {module_name} has no Nautilus Strategy named {class_name!r}",
            hint=f"Did you mean {module_name}:{near[0]}?" if near else None,
        )
    name, kind = identity(path)
    return StrategyClass(
        path=path,
        name=name,
        strategy_type=kind,
        strategy=found,
        config=_config_class(found),
    )


def parameters_of(strategy: StrategyClass) -> tuple[Parameter, ...]:
    """The declared parameters, in the order of the config class."""
    hints = typing.get_type_hints(strategy.config, include_extras=True)
    return tuple(_parameter(field, hints[field.name]) for field in strategy.fields)


def complete_parameters(strategy: StrategyClass, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters as plain JSON data: the given ones validated, the others at their defaults.

    Raises ConfigError for an unknown, missing or unfit parameter.
    """
    known = [field.name for field in strategy.fields]
    unknown = [name for name in given if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
        raise ConfigError(f"{strategy.name} has no parameter {unknown[0]!r}", hint=hint)
    config = _convert(strategy, given, "NONE.NONE", "NONE.NONE-1-DAY-LAST-EXTERNAL")
    plain = msgspec.to_builtins(config, enc_hook=msgspec_encoding_hook)
    return {name: plain[name] for name in known}


def build_strategy(config: RunConfig, bars: Bars) -> Strategy:
    """A fresh strategy for one run, with the instrument and bar type of `bars`."""
    strategy = load_strategy(config.strategy.path)
    instrument_id = f"{bars.symbol}.{bars.venue}"
    bar_type = f"{instrument_id}-{bars.timeframe}-LAST-EXTERNAL"
    return strategy.strategy(config=_convert(strategy, config.strategy.parameters, instrument_id, bar_type))


def sends_only_market_orders(config: RunConfig) -> bool:
    """Whether the strategy promises to leave no order resting, so that highs and lows need not be played out."""
    promise = getattr(load_strategy(config.strategy.path).strategy, "sends_only_market_orders", None)
    return bool(promise and promise(config.strategy.parameters))


def _import(module_name: str, path: str) -> Any:
    if not module_name or not path.partition(":")[2]:
        raise UnknownStrategyError(f"{path!r} is not an import path", hint="Write it like my_package.mine:MyStrategy.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UnknownStrategyError(
                f"there is no module {error.name!r} for strategy {path!r}",
                hint="Install the package, or run ntrader in the folder that holds it.",
            ) from None
        raise _broken(module_name, error) from error
    except Exception as error:
        raise _broken(module_name, error) from error


def _broken(module_name: str, error: Exception) -> StrategyError:
    return StrategyError(
        f"importing {module_name} raised {type(error).__name__}: {error}", traceback_text=traceback.format_exc()
    )


def _is_strategy(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Strategy) and value is not Strategy


def _config_class(strategy: type[Strategy]) -> type[StrategyConfig]:
    """The type that `__init__` asks for, else `<Class>Config` beside the class, else no parameters at all."""
    try:
        hints = typing.get_type_hints(strategy.__init__)
    except (NameError, TypeError):
        hints = {}
    candidates = [*hints.values(), getattr(sys.modules[strategy.__module__], f"{strategy.__name__}Config", None)]
    for candidate in candidates:
        for kind in (candidate, *typing.get_args(candidate)):
            if isinstance(kind, type) and issubclass(kind, StrategyConfig):
                return kind
    return StrategyConfig


def _convert(strategy: StrategyClass, given: dict[str, Any], instrument_id: str, bar_type: str) -> StrategyConfig:
    values = dict(given)
    for name, value in (("instrument_id", instrument_id), ("bar_type", bar_type)):
        if name in strategy.config.__struct_fields__:
            values[name] = value
    try:
        return msgspec.convert(values, type=strategy.config, dec_hook=msgspec_decoding_hook)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{strategy.name}: {_problem(str(error))}") from None


def _problem(message: str) -> str:
    """msgspec's `Expected int, got str - at $.fast_period` with the parameter's name in front."""
    text, _, where = message.partition(" - at `$.")
    return f"parameter {where.rstrip('`')}: {text}" if where else text


def _parameter(field: Any, hint: Any) -> Parameter:
    metas = [item for item in typing.get_args(hint) if isinstance(item, msgspec.Meta)]
    kind = typing.get_args(hint)[0] if metas else hint
    required = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
    default = None if required else field.default
    if field.default is msgspec.NODEFAULT and not required:
        default = field.default_factory()
    return Parameter(
        name=field.name,
        type=getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind),
        default=default,
        required=required,
        description=next((meta.description for meta in metas if meta.description), ""),
    )
