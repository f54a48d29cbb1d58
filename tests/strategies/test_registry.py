"""Strategies by key, name or import path, and what is said about the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ntrader.errors import UnknownStrategyError
from ntrader.strategies.loader import load_strategy
from ntrader.strategies.registry import STRATEGIES, find_entry, identity, strategy_path

SMA = "ntrader.strategies.sma_crossover:SMACrossover"


@pytest.mark.parametrize(
    "text",
    [
        "sma_crossover",
        "SMA_CROSSOVER",
        "sma-crossover",
        "SMA Crossover",
        "sma crossover",
        " sma_crossover ",
        SMA,
        SMA.lower(),
    ],
)
def test_a_strategy_is_found_by_any_of_its_names(text: str) -> None:
    assert strategy_path(text) == SMA


@pytest.mark.parametrize("entry", STRATEGIES, ids=lambda entry: entry.key)
def test_every_entry_can_be_loaded_and_is_named_as_it_says(entry: object) -> None:
    found = load_strategy(entry.path)  # type: ignore[attr-defined]
    assert (found.name, found.strategy_type) == (entry.name, entry.strategy_type)  # type: ignore[attr-defined]


def test_no_two_entries_share_a_name() -> None:
    names = [name.lower() for entry in STRATEGIES for name in (entry.key, entry.name, entry.path)]
    assert len(set(names)) >= len(STRATEGIES) * 2
    assert all(find_entry(name) == entry for entry in STRATEGIES for name in (entry.key, entry.name, entry.path))


@pytest.mark.parametrize("text", ["my_package.mine:MyStrategy", " my_package.mine:MyStrategy "])
def test_an_import_path_is_taken_as_it_is(text: str) -> None:
    assert strategy_path(text) == "my_package.mine:MyStrategy"


@pytest.mark.parametrize("text", ["sma_crosover", "SMA-CROSSOVRE", "Sma Crossovers", "crossover"])
def test_a_slip_suggests_the_nearest_key(text: str) -> None:
    with pytest.raises(UnknownStrategyError, match="there is no strategy ") as caught:
        strategy_path(text)
    assert (caught.value.hint or "").startswith("Did you mean 'sma_crossover'?")


@pytest.mark.parametrize("text", ["xyz", "", "my_package.mine.MyStrategy"])
def test_anything_else_lists_what_there_is_and_how_to_name_ones_own(text: str) -> None:
    with pytest.raises(UnknownStrategyError) as caught:
        strategy_path(text)
    assert caught.value.hint == (
        "Known: sma_crossover, mean_reversion, momentum. Your own: --strategy my_package.mine:MyStrategy."
    )


def test_a_known_strategy_is_recorded_by_name_and_type() -> None:
    assert identity(SMA) == ("SMA Crossover", "trend_following")


def test_a_strategy_of_ones_own_is_recorded_by_its_class() -> None:
    assert identity("my_package.mine:MyStrategy") == ("MyStrategy", "custom")


def test_listing_them_does_not_load_the_engine() -> None:
    program = "import sys, ntrader.strategies.registry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()
    assert not {"nautilus_trader", "pandas", "numpy"} & {name.partition(".")[0] for name in loaded}
