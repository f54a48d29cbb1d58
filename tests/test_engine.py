"""When and at which price orders fill, worked out by hand from the bars; and that no run ends early in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ntrader.config import RunConfig
from ntrader.data.bars import Bars
from ntrader.digest import result_digest
from ntrader.engine import build_events, simulate, simulate_events
from ntrader.errors import EngineStoppedError, StrategyError
from ntrader.results import RunResult
from tests import factories

# open, high, low, close
BARS = factories.bars(
    [
        (100, 101, 99, 100),
        (102, 104, 101, 103),
        (104, 106, 103, 105),
        (106, 107, 90, 95),
        (94, 96, 92, 93),
        (80, 85, 78, 84),
    ]
)


def scripted(
    script: dict[str, str], *, venue: dict[str, Any] | None = None, capital: float = 10_000, **more: Any
) -> RunConfig:
    return factories.run_config(
        strategy={"path": "tests.scripted:Scripted", "parameters": {"script": script, **more}},
        venue=venue or {},
        initial_capital=capital,
    )


def fills(result: RunResult) -> list[tuple[str, float, float]]:
    return [(fill.side, fill.quantity, fill.price) for fill in result.fills]


def bar_of(bars: Bars, time: int) -> int:
    """The number of the bar, from 1, in which a moment lies."""
    return int(np.searchsorted(bars.times, time, side="left")) + 1


def test_a_signal_fills_at_the_next_open() -> None:
    result = simulate(scripted({"1": "buy 10", "3": "sell 10"}), BARS)

    assert fills(result) == [("buy", 10, 102), ("sell", 10, 106)]
    assert [bar_of(BARS, fill.time) for fill in result.fills] == [2, 4]


def test_a_daily_fill_is_dated_to_the_day_it_happened_on() -> None:
    """Daily bars are stamped at the last microsecond of their day; their open is that day's midnight."""
    result = simulate(scripted({"1": "buy 10", "3": "sell 10"}), BARS)

    days = [str(np.datetime64(fill.time, "ns").astype("datetime64[D]")) for fill in result.fills]
    assert days == ["2020-01-02", "2020-01-04"]
    assert [np.datetime64(int(time), "ns").astype("datetime64[D]") for time in BARS.times[[1, 3]]] == [
        np.datetime64(day) for day in days
    ]


def test_a_signal_fills_at_its_own_close_where_that_is_chosen() -> None:
    config = scripted({"1": "buy 10", "3": "sell 10"}, venue={"fill_timing": "close"})

    result = simulate(config, BARS)

    assert fills(result) == [("buy", 10, 100), ("sell", 10, 105)]
    assert [fill.time for fill in result.fills] == [BARS.times[0], BARS.times[2]]


@pytest.mark.parametrize("fill_timing", ["next_open", "close"])
def test_market_orders_fill_alike_when_highs_and_lows_are_not_played_out(fill_timing: str) -> None:
    script = {"1": "buy 10", "3": "sell 25", "4": "buy 15"}
    venue = {"fill_timing": fill_timing, "account_type": "MARGIN", "slippage": 0.001}

    whole = simulate(scripted(script, venue=venue), BARS)
    fast = simulate(scripted(script, venue=venue, market_only=True), BARS)

    assert result_digest(fast) == result_digest(whole)


def test_an_order_on_the_last_bar_never_fills() -> None:
    assert simulate(scripted({"6": "buy 10"}), BARS).fills == ()


def test_a_stop_inside_a_bar_fills_at_its_price() -> None:
    result = simulate(scripted({"1": "buy 10; sell 10 stop 98"}), BARS)

    assert fills(result) == [("buy", 10, 102), ("sell", 10, 98)]
    assert bar_of(BARS, result.fills[1].time) == 4


def test_a_stop_that_is_jumped_over_fills_at_the_open() -> None:
    result = simulate(scripted({"1": "buy 10; sell 10 stop 88"}), BARS)

    assert fills(result) == [("buy", 10, 102), ("sell", 10, 80)]


def test_a_stop_sent_on_the_entry_fill_protects_the_entry_bar() -> None:
    """Bar 4 opens at 106 and falls to 90: the entry fills at its open, the stop inside the same bar."""
    result = simulate(scripted({"3": "buy 10"}, on_fill="sell 10 stop 100"), BARS)

    assert fills(result) == [("buy", 10, 106), ("sell", 10, 100)]
    assert [bar_of(BARS, fill.time) for fill in result.fills] == [4, 4]


def test_a_limit_below_the_market_fills_at_its_price_when_reached() -> None:
    result = simulate(scripted({"1": "buy 10 limit 91"}), BARS)

    assert fills(result) == [("buy", 10, 91)]
    assert bar_of(BARS, result.fills[0].time) == 4


def test_orders_fill_whole_however_thin_the_volume() -> None:
    thin = factories.bars([(100, 101, 99, 100), (102, 104, 101, 103), (104, 106, 90, 105)], volume=4)
    stopped = simulate(scripted({"1": "buy 50; sell 50 stop 95"}), thin)
    limited = simulate(scripted({"1": "buy 50 limit 91"}), thin)
    at_close = simulate(scripted({"1": "buy 50"}, venue={"fill_timing": "close"}), thin)

    assert fills(stopped) == [("buy", 50, 102), ("sell", 50, 95)]
    assert fills(limited) == [("buy", 50, 91)]
    assert fills(at_close) == [("buy", 50, 100)]


def test_bars_without_volume_can_be_traded() -> None:
    silent = factories.bars([(100, 101, 99, 100), (102, 104, 101, 103), (104, 106, 90, 105)], volume=0)

    assert fills(simulate(scripted({"1": "buy 5; sell 5 stop 95"}), silent)) == [("buy", 5, 102), ("sell", 5, 95)]


def test_minute_bars_that_touch_fill_at_the_next_open_too() -> None:
    minutes = factories.bars([(10, 11, 9, 10), (12, 13, 11, 12), (14, 15, 13, 14)], timeframe="1-MINUTE")

    assert fills(simulate(scripted({"1": "buy 10", "2": "sell 10"}), minutes)) == [("buy", 10, 12), ("sell", 10, 14)]


@pytest.mark.parametrize(
    ("fees", "expected"),
    [
        ({"model": "none"}, [0.0, 0.0]),
        ({"model": "per_share", "rate": 0.005}, [0.05, 0.05]),
        ({"model": "per_share", "rate": 0.005, "minimum": 1}, [1.0, 1.0]),
        ({"model": "proportional", "rate": 0.001}, [1.02, 1.06]),
        ({"model": "proportional", "rate": 0.00125}, [1.28, 1.33]),  # 1.275 and 1.325, half up
        ({"model": "fixed", "rate": 2.5}, [2.5, 2.5]),
    ],
)
def test_fees_are_charged_once_a_fill(fees: dict[str, Any], expected: list[float]) -> None:
    result = simulate(scripted({"1": "buy 10", "3": "sell 10"}, venue={"fees": fees}), BARS)

    assert [fill.fee for fill in result.fills] == expected
    assert result.equity_curve.equity[-1] == pytest.approx(10_000 + 10 * (106 - 102) - sum(expected), abs=1e-9)


def test_slippage_costs_a_fraction_of_the_price_on_both_sides() -> None:
    result = simulate(scripted({"1": "buy 10", "3": "sell 10"}, venue={"slippage": 0.01}), BARS)

    assert fills(result) == [("buy", 10, 103.02), ("sell", 10, 104.94)]


def test_slippage_costs_a_stop_as_well() -> None:
    """Through its price inside a bar: 98 less one percent. Jumped over: the open less one percent."""
    inside = simulate(scripted({"1": "buy 10; sell 10 stop 98"}, venue={"slippage": 0.01}), BARS)
    jumped = simulate(scripted({"1": "buy 10; sell 10 stop 88"}, venue={"slippage": 0.01}), BARS)

    assert inside.fills[1].price == pytest.approx(97.02)
    assert jumped.fills[1].price == pytest.approx(79.2)


def test_a_limit_that_waited_loses_nothing_to_slippage() -> None:
    assert fills(simulate(scripted({"1": "buy 10 limit 91"}, venue={"slippage": 0.01}), BARS)) == [("buy", 10, 91)]


def test_equity_is_cash_plus_position_at_each_close() -> None:
    result = simulate(scripted({"1": "buy 10", "3": "sell 10"}), BARS)

    # 10,000; then 10 shares from 102 at closes 103 and 105; then sold at 106.
    assert result.equity_curve.equity.tolist() == [10_000, 10_010, 10_030, 10_040, 10_040, 10_040]
    assert (result.equity_curve.times == BARS.times).all()


def test_an_open_position_is_marked_to_market_and_is_no_trade() -> None:
    result = simulate(scripted({"1": "buy 10"}), BARS)

    assert result.trades == ()
    assert result.open_quantity == 10
    assert result.equity_curve.equity[-1] == 10_000 - 1_020 + 840


def test_a_short_gains_when_prices_fall() -> None:
    result = simulate(scripted({"1": "sell 10", "5": "buy 10"}, venue={"account_type": "MARGIN"}), BARS)

    assert [trade.side for trade in result.trades] == ["short"]
    assert result.trades[0].pnl == 10 * (102 - 80)
    assert result.equity_curve.equity.tolist() == [10_000, 9_990, 9_970, 10_070, 10_090, 10_220]


def test_a_flip_closes_one_trade_and_opens_the_next() -> None:
    result = simulate(scripted({"1": "buy 10", "3": "sell 30"}, venue={"account_type": "MARGIN"}), BARS)

    assert [(trade.side, trade.pnl) for trade in result.trades] == [("long", 40)]
    assert result.open_quantity == -20
    assert result.equity_curve.equity[-1] == 10_000 + 40 + 20 * (106 - 84)


def test_our_cash_agrees_with_the_accounts_of_nautilus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own ledger is the witness: its balance when flat is our last equity, to the cent."""
    from ntrader import engine

    balances = []
    dispose = engine._Engine.dispose

    def look_then_dispose(self: Any) -> None:
        account = self.kernel.portfolio.account(engine.Venue("SIM"))
        balances.append(account.balance_total(account.base_currency).as_double())
        dispose(self)

    monkeypatch.setattr(engine._Engine, "dispose", look_then_dispose)
    fees = {"model": "proportional", "rate": 0.0007}
    venue = {"account_type": "MARGIN", "slippage": 0.0011, "fees": fees}
    result = simulate(scripted({"1": "buy 7", "2": "sell 20", "3": "buy 3", "4": "buy 10"}, venue=venue), BARS)

    assert result.open_quantity == 0
    assert result.equity_curve.equity[-1] == pytest.approx(balances[0], abs=0.02)


@pytest.mark.parametrize("where", ["on_start", "on_stop"])
def test_a_strategy_that_raises_outside_bars_is_an_error(where: str) -> None:
    with pytest.raises(StrategyError, match=f"{where} went wrong"):
        simulate(scripted({}, raise_in=where), BARS)


def test_a_strategy_that_raises_on_a_bar_is_an_error_with_its_traceback() -> None:
    with pytest.raises(StrategyError, match="RuntimeError: bar 2 went wrong") as caught:
        simulate(scripted({"2": "raise"}), BARS)
    assert caught.value.traceback_text is not None
    assert "in obey" in caught.value.traceback_text


def test_an_order_that_costs_more_than_the_cash_is_denied_with_a_note() -> None:
    result = simulate(scripted({"3": "buy 1000"}), BARS)

    assert result.fills == ()
    assert len(result.notes) == 1
    assert result.notes[0].startswith("1 order denied: ")


def test_an_engine_that_stops_early_is_an_error_that_says_where() -> None:
    """On bar 3 the 95 shares cost 9,975 at the last price; the next open is 106: 10,070 of 10,000."""
    with pytest.raises(EngineStoppedError, match=r"stopped at bar 4 of 6 .*that left -70\.00 in cash"):
        simulate(scripted({"3": "buy 95"}), BARS)


def test_a_bankrupt_margin_account_is_played_to_the_end() -> None:
    rows = [(100, 100, 100, 100), (100, 100, 100, 100), (300, 300, 300, 300), (320, 320, 320, 320)]
    config = scripted({"1": "sell 100"}, venue={"account_type": "MARGIN", "leverage": 2}, capital=10_000)

    result = simulate(config, factories.bars(rows))

    assert result.equity_curve.equity.tolist() == [10_000, 10_000, -10_000, -12_000]


def test_a_resting_order_after_a_promise_of_none_is_refused() -> None:
    with pytest.raises(StrategyError, match="promised market orders only and sent a STOP_MARKET"):
        simulate(scripted({"1": "buy 1; sell 1 stop 90"}, market_only=True), BARS)


def test_one_bar_is_enough() -> None:
    result = simulate(scripted({"1": "buy 1"}), factories.flat_bars([100]))

    assert result.equity_curve.equity.tolist() == [10_000]


def test_the_same_events_serve_many_runs_without_a_trace() -> None:
    config = scripted({"1": "buy 10", "3": "sell 10"})
    events = build_events(config, BARS)

    digests = {result_digest(simulate_events(config, events)) for _ in range(3)}

    assert digests == {result_digest(simulate(config, BARS))}


def test_a_run_does_not_change_its_bars() -> None:
    before = BARS.close.copy(), BARS.times.copy()

    simulate(scripted({"1": "buy 10", "3": "sell 10"}), BARS)

    assert (BARS.close == before[0]).all()
    assert (BARS.times == before[1]).all()


def test_progress_counts_bars() -> None:
    seen: list[tuple[int, int]] = []
    many = factories.flat_bars([100.0 + number % 7 for number in range(30_000)])

    simulate(factories.run_config(), many, lambda done, total: seen.append((done, total)))

    assert seen
    assert all(0 <= done <= total == 30_000 for done, total in seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
