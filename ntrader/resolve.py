"""From what a person asked for to the complete RunConfig: nothing is left to a default that may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nautilus_trader.model.objects import Currency

from ntrader.config import DataConfig, RunConfig, RunRequest, build_config, read_request
from ntrader.data.load import resolve_source
from ntrader.errors import ConfigError
from ntrader.sources import reload_changed
from ntrader.strategies.loader import complete_parameters, load_strategy
from ntrader.strategies.registry import strategy_path


def restore(snapshot: dict[str, Any]) -> RunConfig:
    """The stored config, as it is, of a strategy that can be imported now and still takes its parameters.

    Raises ConfigError, UnknownStrategyError or BrokenStrategyError where it cannot be run any more.
    """
    config = build_config(snapshot, origin="the stored config")
    path = config.strategy.path
    reload_changed(path.partition(":")[0])
    complete_parameters(load_strategy(path), config.strategy.parameters)
    return config


def resolve(request: RunRequest, home: Path) -> RunConfig:
    """Validate everything that can be known before bars are loaded, and write every default out.

    Raises ConfigError, UnknownStrategyError or AmbiguousError (two sources have the symbol).
    """
    return complete(build_config(read_request(request), origin=request.config_path or "the request"), home)


def complete(config: RunConfig, home: Path) -> RunConfig:
    """The same of a config that has been read. Raises as `resolve` does."""
    path = strategy_path(config.strategy.path)
    reload_changed(path.partition(":")[0])
    parameters = complete_parameters(load_strategy(path), config.strategy.parameters)
    strategy = config.strategy.model_copy(update={"path": path, "parameters": parameters})
    completed = complete_around(config.model_copy(update={"strategy": strategy}), home)
    require_account(completed)
    return completed


def complete_around(config: RunConfig, home: Path) -> RunConfig:
    """All but the strategy and its parameters. Raises ConfigError and AmbiguousError."""
    if Currency.from_str(config.venue.currency, strict=True) is None:
        raise ConfigError(f"currency {config.venue.currency} is not one that Nautilus knows")
    return config.model_copy(update={"data": complete_data(config.data, home)})


def complete_data(data: DataConfig, home: Path) -> DataConfig:
    """With its source and venue, and where its file is whatever the current folder. Raises AmbiguousError."""
    data = resolve_source(data, home)
    return data.model_copy(update={"path": str(Path(data.path).expanduser().absolute())}) if data.path else data


def require_account(config: RunConfig) -> None:
    """Raises ConfigError where the account cannot do what the strategy's parameters ask of it."""
    if config.strategy.parameters.get("allow_short") is True and config.venue.account_type == "CASH":
        raise ConfigError(
            "allow_short needs a margin account, and account_type is CASH", hint="Add --account-type MARGIN."
        )
