"""Bars that go past the venue change nothing. The witness is the engine that plays out every bar: whatever is ordered,
the same events come at the same moments, and the same fills at the same prices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntrader.config import RunConfig
from ntrader.data.bars import Bars
from ntrader.engine import build_events, simulate, simulate_events
from ntrader.errors import EngineStoppedError, StrategyError
from ntrader.results import RunResult
from ntrader.strategies.loader import complete_parameters, load_strategy, sees_only_bars
from ntrader.strategies.registry import strategy_path
from tests import factories, orders

Told = tuple[RunResult, list[tuple[int, int, str, str]]]
SCRIPTS = st.dictionaries(
    st.integers(0, 40).map(str), st.lists(st.sampled_from(orders.ACTIONS), min_size=1, max_size=2), max_size=12
)


def walk(count: int, seed: int, *, step: float = 0.01) -> Bars:
    """Opens that jump a little away from the close before, highs and lows around them."""
    random = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(random.normal(0, step, count)))
    opens = np.concatenate(([100.0], closes[:-1])) * np.exp(random.normal(0, step / 3, count))
    spread = np.abs(random.normal(0, step / 2, (2, count)))
    highs = np.maximum(opens, closes) * (1 + spread[0])
    lows = np.minimum(opens, closes) * (1 - spread[1])
    rows = np.round(np.column_stack((opens, highs, lows, closes)), 4)
    return factories.bars([tuple(row) for row in rows.tolist()])


def ordered(script: dict[str, list[str]], *, name: str = "OnlyBars", **more: Any) -> RunConfig:
    venue = more.pop("venue", {"account_type": "MARGIN", "slippage": 0.001})
    capital = more.pop("capital", 1_000_000)
    parameters = {"script": script, "on_fill": [], "market_only": False, "breaks": "", **more}
    return factories.run_config(
        strategy={"path": f"tests.orders:{name}", "parameters": parameters}, venue=venue, initial_capital=capital
    )


def both(config: RunConfig, bars: Bars) -> tuple[Told, Told]:
    """Past the venue where that can be, and played out."""
    events = build_events(config, bars)
    assert events.quiet is not None
    return told(config, events), told(config, replace(events, quiet=None))


def told(config: RunConfig, events: Any) -> Told:
    orders.heard.clear()
    return simulate_events(config, events), list(orders.heard)


def require_equal(config: RunConfig, bars: Bars) -> RunResult:
    (quiet, heard), (full, heard_in_full) = both(config, bars)
    assert heard == heard_in_full
    assert (quiet.fills, quiet.notes, quiet.trades) == (full.fills, full.notes, full.trades)
    assert np.array_equal(quiet.equity_curve.equity, full.equity_curve.equity)
    return quiet


@settings(max_examples=150, deadline=None)
@given(SCRIPTS, st.lists(st.sampled_from(orders.ACTIONS[:12]), max_size=2), st.integers(0, 1_000))
@example({"1": ["buy"], "2": ["sell"], "3": ["buy"], "4": ["sell"]}, [], 1)
@example({"39": ["buy"], "40": ["sell"], "stop": ["buy"]}, ["stop_below"], 2)
@example({"0": ["buy", "limit_below"], "5": ["cancel"], "6": ["move"]}, ["bracket"], 3)
def test_orders_of_every_kind_fare_alike(script: dict[str, list[str]], on_fill: list[str], seed: int) -> None:
    require_equal(ordered(script, on_fill=on_fill), walk(40, seed))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 40).map(str), st.lists(st.sampled_from(orders.ACTIONS[:3]), min_size=1), max_size=15
    ),
    st.sampled_from(["CASH", "MARGIN"]),
    st.sampled_from([900, 3_000, 1_000_000]),
    st.integers(0, 1_000),
)
def test_market_orders_fare_alike_also_where_the_money_is_short(
    script: dict[str, list[str]], account: str, capital: int, seed: int
) -> None:
    """A risk check looks at the last tick: those that are denied are the same, and so is where the engine stops."""
    config = ordered(script, market_only=True, venue={"account_type": account}, capital=capital)
    events = build_events(config, walk(40, seed))
    ends = []
    for each in (events, replace(events, quiet=None)):
        try:
            result, heard = told(config, each)
            ends.append((result.fills, result.notes, heard))
        except EngineStoppedError as error:
            ends.append((str(error), (), list(orders.heard)))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("strategy", ["sma_crossover", "mean_reversion", "momentum"])
@pytest.mark.parametrize("sizing", [{"risk_percent": 5.0, "atr_multiple": 1.0}, {"trade_size": 20}])
@pytest.mark.parametrize("account", ["CASH", "MARGIN"])
def test_the_three_strategies_fare_alike(strategy: str, sizing: dict[str, Any], account: str) -> None:
    path = strategy_path(strategy)
    given = sizing | ({"allow_short": True} if account == "MARGIN" else {})
    parameters = complete_parameters(load_strategy(path), given)
    fills = 0
    for seed in range(4):
        config = factories.run_config(
            strategy={"path": path, "parameters": parameters}, venue={"account_type": account, "slippage": 0.0005}
        )
        fills += len(require_equal(config, walk(600, seed, step=0.02)).fills)
    assert fills > 20


def test_where_no_order_is_a_bar_costs_one_event() -> None:
    config = ordered({"1": ["buy"], "2": ["limit_below"], "20": ["cancel"]})
    events = build_events(config, factories.flat_bars([100.0] * 40))
    assert events.quiet is not None
    played_out = []
    seen = type(events).ticks

    def ticks(self: Any, number: int) -> list[Any]:
        played_out.append(number)
        return seen(self, number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(events), "ticks", ticks)
        simulate_events(config, events)

    # The first, those after an order and those at which an answer was due: a limit that nothing reaches is none.
    assert set(played_out) == {0, 1, 2, 20}


def test_orders_at_the_close_of_their_bar_are_played_out() -> None:
    config = ordered({}, venue={"fill_timing": "close"})
    assert build_events(config, walk(10, 1)).quiet is None


def test_a_promise_is_one_class_alone() -> None:
    assert [sees_only_bars(ordered({}, name=name)) for name in ("PlayedOut", "OnlyBars", "Heir")] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("ticks", "subscribed to ticks"),
        ("bars", "subscribed to bars that the engine makes"),
        ("alarm", "sent an order between two of them"),
    ],
)
def test_a_promise_that_is_broken_is_an_error(how: str, words: str) -> None:
    with pytest.raises(StrategyError, match=f"promised to see only bars and {words}"):
        simulate(ordered({}, breaks=how), walk(10, 1))
    simulate(ordered({}, breaks=how, name="PlayedOut"), walk(10, 1))


def test_progress_counts_bars_that_go_past_the_venue() -> None:
    seen: list[tuple[int, int]] = []

    simulate(ordered({"3": ["buy"]}), walk(30_000, 1, step=0.001), lambda done, total: seen.append((done, total)))

    assert seen
    assert all(0 <= done <= total == 30_000 for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
