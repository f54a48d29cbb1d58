"""Round trips against arithmetic done by hand, and the laws that any fills obey."""

from __future__ import annotations

from dataclasses import astuple
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.results import Fill, Trade
from ntrader.trades import round_trips


def fills(*rows: tuple[str, float, float, float] | tuple[str, float, float]) -> list[Fill]:
    """(side, quantity, price, fee) at times 1, 2, 3..."""
    return [
        Fill(time, side, quantity, price, fee[0] if fee else 0.0, "MARKET")
        for time, (side, quantity, price, *fee) in enumerate(rows, start=1)
    ]


def only(*rows: tuple[str, float, float, float] | tuple[str, float, float]) -> Trade:
    trades, still_open = round_trips(fills(*rows))
    assert still_open == 0
    (trade,) = trades
    return trade


def test_no_fills_make_no_trades() -> None:
    assert round_trips([]) == ((), 0.0)


def test_a_long_trade() -> None:
    trade = only(("buy", 10, 100.0, 1.0), ("sell", 10, 110.0, 1.5))
    assert trade == Trade("long", 10, 1, 100.0, 2, 110.0, fees=2.5, pnl=97.5)


def test_a_short_trade() -> None:
    trade = only(("sell", 10, 100.0, 1.0), ("buy", 10, 90.0, 1.5))
    assert trade == Trade("short", 10, 1, 100.0, 2, 90.0, fees=2.5, pnl=97.5)


def test_a_losing_short_trade() -> None:
    assert only(("sell", 10, 100.0), ("buy", 10, 101.5)).pnl == -15.0


def test_scaling_in_and_out_averages_the_prices() -> None:
    trade = only(
        ("buy", 10, 100.0, 1.0), ("buy", 30, 120.0, 1.0), ("sell", 20, 130.0, 1.0), ("buy", 10, 125.0, 1.0),
        ("sell", 30, 110.0, 1.0),
    )  # fmt: skip
    # In: 1000 + 3600 + 1250 for 50; out: 2600 + 3300 for 50; most held at once: 40.
    assert trade == Trade("long", 40, 1, 117.0, 5, 118.0, fees=5.0, pnl=45.0)


def test_a_flip_closes_one_trade_and_opens_the_next_with_the_fee_shared_by_quantity() -> None:
    trades, still_open = round_trips(fills(("buy", 10, 100.0, 1.0), ("sell", 40, 110.0, 4.0), ("buy", 30, 105.0, 3.0)))
    assert still_open == 0
    assert trades == (
        Trade("long", 10, 1, 100.0, 2, 110.0, fees=2.0, pnl=98.0),
        Trade("short", 30, 2, 110.0, 3, 105.0, fees=6.0, pnl=144.0),
    )


def test_a_fee_that_cannot_be_shared_evenly_is_shared_whole() -> None:
    first, second = round_trips(fills(("buy", 1, 1.0), ("sell", 3, 1.0, 0.01), ("buy", 2, 1.0)))[0]
    assert (first.fees, second.fees) == (0.01 / 3, 0.02 / 3)
    assert first.pnl + second.pnl == pytest.approx(-0.01, abs=1e-17)


def test_a_position_still_open_is_no_trade_and_its_quantity_is_signed() -> None:
    trades, still_open = round_trips(
        fills(("buy", 10, 100.0), ("sell", 10, 110.0), ("sell", 7, 120.0), ("buy", 2, 1.0))
    )
    assert [trade.pnl for trade in trades] == [100.0]
    assert still_open == -5.0
    assert round_trips(fills(("buy", 3, 1.0)))[1] == 3.0


@pytest.mark.parametrize(
    "rows",
    [
        (("buy", 1_000_000, 123.4567), ("sell", 333_333, 123.4567), ("sell", 666_667, 123.4567)),
        (("buy", 1, 0.1), ("buy", 1, 0.2), ("sell", 2, 0.15)),
        (("sell", 3, 0.1), ("buy", 1, 0.1), ("buy", 1, 0.1), ("buy", 1, 0.1)),
        (("buy", 10, 100.0, 0.1), ("sell", 10, 100.03, 0.2)),
    ],
)
def test_a_break_even_trade_is_exactly_zero(rows: tuple[tuple[str, float, float], ...]) -> None:
    assert only(*rows).pnl == 0.0


def test_fractional_quantities_become_flat() -> None:
    trade = only(("buy", 0.1, 10.0), ("buy", 0.2, 10.0), ("sell", 0.3, 11.0))
    assert astuple(trade) == ("long", 0.3, 1, 10.0, 3, 11.0, 0.0, 0.3)


def test_a_price_of_zero_or_below_is_a_price() -> None:
    assert only(("buy", 2, 0.0), ("sell", 2, -3.5)).pnl == -7.0


CENTS = st.integers(1, 10**7).map(lambda number: number / 10_000)
FILLS = st.lists(
    st.tuples(st.sampled_from(["buy", "sell"]), CENTS, CENTS, st.integers(0, 10**4).map(lambda number: number / 100)),
    max_size=30,
)


@given(FILLS)
def test_what_trades_earned_and_what_is_open_is_all_the_cash_there_was(
    rows: list[tuple[str, float, float, float]],
) -> None:
    """Fills that come back to flat move as much cash as their trades earned, whatever way they took."""
    _, still_open = round_trips(fills(*rows))
    if still_open:
        rows = [*rows, ("sell" if still_open > 0 else "buy", abs(still_open), 50.0, 0.0)]
    trades, rest = round_trips(fills(*rows))
    cash = sum(
        (1 if side == "sell" else -1) * exact(quantity) * exact(price) - exact(fee)
        for side, quantity, price, fee in rows
    )
    assert rest == 0.0
    assert sum(trade.pnl for trade in trades) == pytest.approx(float(cash), abs=1e-6)
    assert sum(trade.fees for trade in trades) == pytest.approx(sum(row[3] for row in rows))


@given(FILLS)
def test_the_open_quantity_is_what_was_bought_less_what_was_sold(rows: list[tuple[str, float, float, float]]) -> None:
    held = sum((1 if side == "buy" else -1) * exact(quantity) for side, quantity, *_ in rows)
    assert round_trips(fills(*rows))[1] == float(held)


@given(FILLS)
def test_trades_follow_each_other_in_time(rows: list[tuple[str, float, float, float]]) -> None:
    trades, _ = round_trips(fills(*rows))
    times = [time for trade in trades for time in (trade.entry_time, trade.exit_time)]
    assert times == sorted(times)
    assert all(trade.entry_time < trade.exit_time for trade in trades)


@given(FILLS)
def test_a_mirrored_market_mirrors_the_sides_and_the_profit(rows: list[tuple[str, float, float, float]]) -> None:
    free = [(side, quantity, price, 0.0) for side, quantity, price, _ in rows]
    mirrored = [("sell" if side == "buy" else "buy", *rest) for side, *rest in free]
    trades, still_open = round_trips(fills(*free))
    others, other_open = round_trips(fills(*mirrored))  # type: ignore[arg-type]
    assert other_open == -still_open
    assert [(trade.pnl, trade.quantity) for trade in others] == [(-trade.pnl, trade.quantity) for trade in trades]
    assert not {(one.side, other.side) for one, other in zip(trades, others, strict=True)} & {
        ("long", "long"),
        ("short", "short"),
    }


def exact(number: float) -> Fraction:
    """The decimal number that the float stands for."""
    return Fraction(str(number))
