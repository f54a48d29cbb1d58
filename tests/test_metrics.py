"""Metrics against arithmetic done by hand, empyrical and scipy on real prices, and the laws they obey."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader import metrics
from ntrader.metrics import daily_equity, daily_returns, measure
from ntrader.results import EquityCurve, Floats, Metrics, RunResult, Trade

SECOND = 10**9
DAY = 86_400 * SECOND
FIRST = 20_089  # 2025-01-01, counted from 1970


def close_of(day: int) -> int:
    """When a daily bar closes: 23:59:59.999999 UTC."""
    return (day + 1) * DAY - 1000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def trade(pnl: float, price: float = 100.0) -> Trade:
    return Trade("long", 1.0, 0, price, DAY, price, 0.0, pnl)


def run(
    equity: Sequence[float] | Floats,
    *,
    initial: float = 100.0,
    times: Sequence[int] | None = None,
    pnl: Sequence[float] = (),
) -> RunResult:
    """A run of one bar a day, unless `times` says otherwise."""
    stamps = [close_of(FIRST + i) for i in range(len(equity))] if times is None else times
    curve = EquityCurve(np.array(stamps, dtype=np.int64), np.array(equity, dtype=np.float64))
    return RunResult(float(initial), curve, (), tuple(trade(each) for each in pnl), 0.0, len(equity))


def close(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-12, abs=0)


# By hand


def test_small_run_by_hand() -> None:
    # initial 100, then   110        99         99        118.8
    # returns             +0.10      -0.10      0         +0.20       mean 0.20 / 4 = 0.05
    # minus the mean      +0.05      -0.15      -0.05     +0.15
    # squares sum to 0.0025 + 0.0225 + 0.0025 + 0.0225 = 0.05
    found = measure(run([110.0, 99.0, 99.0, 118.8]), 252)
    deviation = math.sqrt(0.05 / 3)  # n - 1 = 3
    assert found.return_observations == 4
    assert found.volatility == close(deviation * math.sqrt(252))
    assert found.sharpe_ratio == close(0.05 / deviation * math.sqrt(252))
    # losing days: one of -0.10; the mean of the squares is over all four days: 0.01 / 4 = 0.0025, root 0.05
    assert found.sortino_ratio == close(0.05 / 0.05 * math.sqrt(252))
    # peak 110 -> 99: 99 / 110 - 1 = -0.1, first reached on the second day
    assert found.max_drawdown == close(-0.1)
    assert found.max_drawdown_date == close_of(FIRST + 1)
    assert found.total_return == close(0.188)
    assert found.final_balance == 118.8
    # first day to fourth day: 3 calendar days
    assert found.cagr == close(1.188 ** (365.25 / 3) - 1)
    assert found.calmar_ratio == close((1.188 ** (365.25 / 3) - 1) / 0.1)
    # m2 = 0.05 / 4 = 0.0125; m3 = (0.05^3 - 0.15^3 - 0.05^3 + 0.15^3) / 4 = 0
    assert found.skewness == pytest.approx(0.0, abs=1e-12)
    # m4 = 2 * (0.05^4 + 0.15^4) / 4 = 2 * (0.00000625 + 0.00050625) / 4 = 0.00025625; / 0.0125^2 = 0.00015625
    assert found.kurtosis == close(0.00025625 / 0.00015625)


def test_skewness_by_hand() -> None:
    # returns 0, 0, +0.3: mean 0.1, minus the mean -0.1, -0.1, +0.2
    # m2 = (0.01 + 0.01 + 0.04) / 3 = 0.02, m3 = (-0.001 - 0.001 + 0.008) / 3 = 0.002
    # m4 = (0.0001 + 0.0001 + 0.0016) / 3 = 0.0006
    found = measure(run([100.0, 100.0, 130.0]), 252)
    assert found.skewness == close(0.002 / 0.02**1.5)  # 1 / sqrt(2)
    assert found.kurtosis == close(0.0006 / 0.02**2)  # 1.5


def test_kurtosis_of_a_normal_is_3_not_0() -> None:
    returns = np.random.default_rng(1).normal(0.001, 0.01, 200_000)
    assert metrics.kurtosis(returns) == pytest.approx(3.0, abs=0.05)
    assert metrics.skewness(returns) == pytest.approx(0.0, abs=0.05)


def test_annualization_scales_ratios_by_its_root_and_nothing_else() -> None:
    result = run([101.0, 99.0, 103.0, 102.0])
    stocks, crypto, plain = (asdict(measure(result, days)) for days in (252, 365, 1))
    for name in ("sharpe_ratio", "sortino_ratio", "volatility"):
        assert stocks[name] == close(plain[name] * math.sqrt(252))
        assert crypto[name] == close(plain[name] * math.sqrt(365))
        del stocks[name], crypto[name]
    assert stocks == crypto


def test_the_initial_capital_is_the_point_before_the_first_day() -> None:
    # 100 -> 90 -> 99: 90 is 10 % below the capital, although the curve by itself only rises
    result = run([90.0, 99.0])
    assert daily_returns(100.0, result.equity_curve) == pytest.approx([-0.1, 0.1], rel=1e-12)
    found = measure(result, 252)
    assert found.max_drawdown == close(-0.1)
    assert found.max_drawdown_date == close_of(FIRST)
    assert found.total_return == close(-0.01)
    assert found.return_observations == 2


def test_first_of_equal_troughs_dates_the_drawdown() -> None:
    found = measure(run([100.0, 80.0, 90.0, 80.0, 120.0]), 252)
    assert found.max_drawdown == close(-0.2)
    assert found.max_drawdown_date == close_of(FIRST + 1)


def test_drawdown_is_measured_from_the_highest_peak_so_far() -> None:
    # 150 -> 120 is -20 %; 100 -> 90 is only -10 %, and 120 is above the capital
    found = measure(run([90.0, 150.0, 120.0, 130.0]), 252)
    assert found.max_drawdown == close(-0.2)
    assert found.max_drawdown_date == close_of(FIRST + 2)


def test_cagr_counts_calendar_days_not_bars() -> None:
    # Three bars over 731 days (2023-01-02 to 2025-01-02): 1.21 in 731 / 365.25 years
    days = [19_359, 19_700, 20_090]
    result = run([100.0, 105.0, 121.0], times=[close_of(day) for day in days])
    assert measure(result, 252).cagr == close(1.21 ** (365.25 / 731) - 1)


def test_losing_run() -> None:
    found = measure(run([95.0, 90.25, 81.225], pnl=[-5.0, -4.75]), 252)
    # returns -0.05, -0.05, -0.10: mean -0.2 / 3; downside sqrt((0.0025 + 0.0025 + 0.01) / 3) = sqrt(0.005)
    assert found.sortino_ratio == close(-0.2 / 3 / math.sqrt(0.005) * math.sqrt(252))
    assert found.sharpe_ratio is not None and found.sharpe_ratio < 0
    assert found.total_return == close(-0.18775)
    assert found.max_drawdown == close(-0.18775)
    assert found.cagr is not None and found.cagr < 0
    assert found.calmar_ratio is not None and found.calmar_ratio < 0
    assert (found.win_rate, found.profit_factor, found.avg_win) == (0.0, 0.0, None)
    assert found.avg_loss == close(-4.875)


def test_trades_by_hand() -> None:
    # won 30 + 10 = 40, lost 5 + 15 = 20, one break-even; 20 over 5 trades
    found = measure(run([120.0], pnl=[30.0, -5.0, 0.0, 10.0, -15.0]), 252)
    assert (found.total_trades, found.winning_trades, found.losing_trades) == (5, 2, 2)
    assert found.win_rate == 0.4
    assert found.profit_factor == 2.0
    assert found.expectancy == 4.0
    assert found.avg_win == 20.0
    assert found.avg_loss == -10.0


# The odd runs


def test_flat_run_has_no_risk_and_so_no_ratios() -> None:
    found = measure(run([100.0] * 20), 252)
    assert found == Metrics(
        total_return=0.0,
        final_balance=100.0,
        cagr=0.0,
        max_drawdown=0.0,
        volatility=0.0,
        return_observations=20,
    )


def test_one_bar_run_has_a_return_and_nothing_that_needs_two() -> None:
    found = measure(run([90.0]), 252)
    assert found == Metrics(
        total_return=found.total_return,
        final_balance=90.0,
        max_drawdown=found.max_drawdown,
        max_drawdown_date=close_of(FIRST),
        return_observations=1,
    )
    assert found.total_return == found.max_drawdown == close(-0.1)


def test_one_day_of_many_bars_has_no_growth_rate_either() -> None:
    times = [at(f"2025-01-02T{hour:02}:00") for hour in (15, 16, 17)]
    found = measure(run([100.0, 120.0, 110.0], times=times), 252)
    assert (found.cagr, found.return_observations) == (None, 1)
    assert found.total_return == close(0.1)


def test_no_bars_nothing_known() -> None:
    assert measure(run([]), 252) == Metrics()


@pytest.mark.parametrize(("growth", "days"), [(1.001, 500), (1.03, 2000), (100.7, 100)])
def test_constant_growth_has_volatility_zero_whatever_rounding_says(growth: float, days: int) -> None:
    equity = 100_000.0 * np.cumprod(np.full(days, growth))
    result = run(equity, initial=100_000.0)
    assert np.std(daily_returns(100_000.0, result.equity_curve), ddof=1) > 0  # or this test tests nothing
    found = measure(result, 252)
    assert found.volatility == 0.0
    assert (found.sharpe_ratio, found.skewness, found.kurtosis) == (None, None, None)
    assert found.sortino_ratio is None  # no losing day


def test_constant_loss_has_a_sortino_ratio_but_no_sharpe_ratio() -> None:
    found = measure(run(100.0 * np.cumprod(np.full(500, 0.999))), 252)
    assert found.sharpe_ratio is None
    assert found.sortino_ratio == pytest.approx(-math.sqrt(252), rel=1e-9)


def test_one_cent_in_a_hundred_million_is_not_noise() -> None:
    equity = [1e8] * 200 + [1e8 + 0.01] * 50
    found = measure(run(equity, initial=1e8), 252)
    assert found.sharpe_ratio is not None
    # one return x = 1e-10 among n = 250: mean / std = (x / n) / (x / sqrt(n)) = 1 / sqrt(n)
    assert found.sharpe_ratio == pytest.approx(math.sqrt(252 / 250), rel=1e-6)


def test_open_position_moves_equity_without_any_trade() -> None:
    found = measure(run([100.0, 110.0, 105.0]), 252)
    assert (found.total_trades, found.winning_trades, found.losing_trades) == (0, 0, 0)
    trade_numbers = (found.win_rate, found.profit_factor, found.expectancy, found.avg_win, found.avg_loss)
    assert trade_numbers == (None,) * 5
    assert found.total_return == close(0.05)
    assert found.sharpe_ratio is not None


@pytest.mark.parametrize("low", [0.0, -50.0])
def test_bankrupt_run_keeps_only_what_still_means_something(low: float) -> None:
    found = measure(run([100.0, 200.0, low, 20.0], pnl=[-80.0]), 252)
    assert found == Metrics(
        total_return=found.total_return,
        final_balance=20.0,
        max_drawdown=found.max_drawdown,
        max_drawdown_date=close_of(FIRST + 2),
        total_trades=1,
        losing_trades=1,
        win_rate=0.0,
        profit_factor=0.0,
        expectancy=-80.0,
        avg_loss=-80.0,
    )
    assert found.total_return == close(-0.8)
    assert found.max_drawdown == close(low / 200 - 1)


def test_more_than_everything_can_be_lost() -> None:
    found = measure(run([100.0, -150.0]), 252)
    assert found.total_return == found.max_drawdown == close(-2.5)
    assert found.cagr is None and found.calmar_ratio is None
    assert len(daily_returns(100.0, run([100.0, -150.0]).equity_curve)) == 0


def test_all_trades_break_even() -> None:
    found = measure(run([100.0], pnl=[0.0, 0.0, -0.0]), 252)
    assert (found.total_trades, found.winning_trades, found.losing_trades) == (3, 0, 0)
    assert (found.win_rate, found.expectancy) == (0.0, 0.0)
    assert (found.profit_factor, found.avg_win, found.avg_loss) == (None, None, None)


def test_break_even_but_for_rounding_is_break_even() -> None:
    # 100 shares from 20.1 to 20.3 with 20 of fees: nothing is left, in floats -2.3e-13
    pnl = (20.3 * 100 - 20.1 * 100) - 20.0
    assert pnl < 0  # or this test tests nothing
    even = Trade("long", 100.0, 0, 20.1, DAY, 20.3, 20.0, pnl)
    cent = Trade("long", 100.0, 0, 20.1, DAY, 20.3, 20.01, -0.01)
    assert metrics.trade_pnl([even, cent]).tolist() == [0.0, -0.01]
    result = RunResult(100.0, run([100.0]).equity_curve, (), (even,), 0.0, 1)
    assert measure(result, 252).losing_trades == 0


def test_no_losses_no_profit_factor() -> None:
    found = measure(run([130.0], pnl=[10.0, 20.0]), 252)
    assert (found.profit_factor, found.avg_loss) == (None, None)
    assert (found.win_rate, found.avg_win, found.expectancy) == (1.0, 15.0, 15.0)


@pytest.mark.parametrize(
    ("result", "undefined"),
    [
        (run([1e-300, 1e300]), {"sharpe_ratio", "volatility", "cagr", "skewness", "kurtosis"}),
        (run([1e300, 1e-300], initial=1e-300), {"sharpe_ratio", "volatility"}),
        (run([100.0, 1e10]), {"cagr", "calmar_ratio"}),  # 1e8 ** 365.25
        (run([100.0, 1e200, 1.0]), {"sharpe_ratio", "volatility", "skewness"}),  # squares overflow
        (run([math.nan, 100.0]), {"sharpe_ratio", "cagr", "max_drawdown"}),
        (run([100.0, math.nan]), {"total_return", "final_balance", "max_drawdown", "sharpe_ratio"}),
        (run([100.0, math.inf, 110.0]), {"cagr", "calmar_ratio", "sharpe_ratio", "max_drawdown"}),
        (run([100.0, math.inf]), {"total_return", "final_balance", "cagr", "sharpe_ratio"}),
        (run([100.0, 110.0], initial=0.0), {"total_return", "max_drawdown", "cagr", "sharpe_ratio"}),
        (run([100.0], pnl=[1e308, 1e308]), {"expectancy", "avg_win"}),
        (run([100.0], pnl=[1e300, -1e-10]), {"profit_factor"}),
    ],
)
def test_what_no_float_can_hold_is_none(result: RunResult, undefined: set[str]) -> None:
    found = asdict(measure(result, 252))
    assert {name for name in undefined if found[name] is None} == undefined
    assert_plain_and_finite(found)


# Days


def test_the_last_point_of_each_utc_day_counts() -> None:
    times = [
        at("2025-01-02T14:30"), at("2025-01-02T20:59"), at("2025-01-02T21:00"),
        at("2025-01-03T14:30"),
        at("2025-01-06T09:00"), at("2025-01-06T23:59:59"),
    ]  # fmt: skip
    curve = EquityCurve(np.array(times), np.array([1.0, 500.0, 110.0, 99.0, 1000.0, 118.8]))
    daily = daily_equity(curve)
    assert daily.equity.tolist() == [110.0, 99.0, 118.8]
    assert daily.times.tolist() == [times[2], times[3], times[5]]
    found = measure(RunResult(100.0, curve, (), (), 0.0, 6), 252)
    assert found.return_observations == 3
    assert found.max_drawdown == close(-0.1)  # 110 -> 99; 500 and 1000 within a day do not count
    assert found.max_drawdown_date == times[3]
    assert found.cagr == close(1.188 ** (365.25 / 4) - 1)  # 2 to 6 January


def test_a_bar_that_closes_at_midnight_belongs_to_the_day_it_ends() -> None:
    times = [at("2025-01-02T23:00"), at("2025-01-03T00:00"), at("2025-01-03T01:00"), at("2025-01-04T00:00")]
    daily = daily_equity(EquityCurve(np.array(times), np.array([1.0, 2.0, 3.0, 4.0])))
    assert daily.equity.tolist() == [2.0, 4.0]
    assert daily.times.tolist() == [times[1], times[3]]


def test_days_are_utc_whatever_the_machine_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    # 18:30 and 19:30 in New York on one evening are 23:30 and 00:30 UTC: two days
    curve = EquityCurve(np.array([at("2025-01-02T23:30"), at("2025-01-03T00:30")]), np.array([1.0, 2.0]))
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert len(daily_equity(curve)) == 2
    finally:
        monkeypatch.undo()
        time.tzset()


def test_days_before_1970_and_the_empty_curve() -> None:
    noons = [at(f"{date}T12:00") for date in ("1969-12-30", "1969-12-31", "1970-01-01")]
    old = EquityCurve(np.array(noons), np.ones(3))
    assert len(daily_equity(old)) == 3
    empty = EquityCurve(np.array([], dtype=np.int64), np.array([]))
    assert len(daily_equity(empty)) == len(daily_returns(100.0, empty)) == 0


def test_daily_equity_of_a_daily_curve_is_that_curve() -> None:
    curve = run([1.0, 2.0, 3.0]).equity_curve
    again = daily_equity(curve)
    assert again.times.tolist() == curve.times.tolist()
    assert again.equity.tolist() == curve.equity.tolist()


# Witnesses: empyrical and scipy on real prices

Segment = tuple[str, str, float]  # first and last date, shares of AAPL (negative: sold short)
SEGMENTS: list[Segment] = [
    ("2005-03-01", "2013-03-01", 100.0),  # all that no split interrupts
    ("2008-01-01", "2009-03-31", 100.0),  # the crisis
    ("2012-09-01", "2013-03-01", 150.0),  # a fall by a third, nearly all capital invested
    ("2009-04-01", "2011-12-31", -80.0),  # short through a rise: losing
    ("2005-03-01", "2005-03-31", 1000.0),  # a month
]


def buy_and_hold(first: str, last: str, quantity: float) -> RunResult:
    """AAPL bought (or sold short) at the period's first close, for a fee of 50, with 100,000 of capital."""
    prices: dict[str, list[Any]] = importlib.import_module("bokeh_sampledata.stocks").AAPL
    rows = [row for row in zip(prices["date"], prices["close"], strict=True) if first <= row[0] <= last]
    equity = [100_000.0 - 50.0 + quantity * (price - rows[0][1]) for _, price in rows]
    days = [at(date) // DAY for date, _ in rows]
    return run(equity, initial=100_000.0, times=[close_of(day) for day in days])


@pytest.fixture(scope="module")
def empyrical() -> Any:
    return importlib.import_module("empyrical")


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("annualization", [252, 365])
def test_empyrical_agrees_on_real_prices(empyrical: Any, segment: Segment, annualization: int) -> None:
    result = buy_and_hold(*segment)
    found = measure(result, annualization)
    series = result.equity_curve
    returns = np.diff(np.concatenate(([result.initial_capital], series.equity)))
    returns /= np.concatenate(([result.initial_capital], series.equity[:-1]))
    # empyrical counts years as observations / annualization, we by the calendar: hand it the number of
    # observations in a calendar year of this period and its years are ours, the rest of its formula its own.
    days = (series.times[-1] // DAY) - (series.times[0] // DAY)
    a_year = len(returns) * 365.25 / float(days)
    expected = {
        "sharpe_ratio": empyrical.sharpe_ratio(returns, annualization=annualization),
        "sortino_ratio": empyrical.sortino_ratio(returns, annualization=annualization),
        "volatility": empyrical.annual_volatility(returns, annualization=annualization),
        "max_drawdown": empyrical.max_drawdown(returns),
        "total_return": empyrical.cum_returns_final(returns),
        "cagr": empyrical.annual_return(returns, annualization=a_year),
        "calmar_ratio": empyrical.calmar_ratio(returns, annualization=a_year),
    }
    actual = {name: getattr(found, name) for name in expected}
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found.return_observations == len(returns) > 20


@pytest.mark.parametrize("segment", SEGMENTS)
def test_scipy_agrees_on_skewness_and_kurtosis(segment: Segment) -> None:
    stats: Any = importlib.import_module("scipy.stats")
    result = buy_and_hold(*segment)
    returns = daily_returns(result.initial_capital, result.equity_curve)
    found = measure(result, 252)
    assert found.skewness == pytest.approx(stats.skew(returns, bias=True), rel=1e-9)
    assert found.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False, bias=True), rel=1e-9)


def test_the_real_runs_are_what_they_are_said_to_be() -> None:
    found = [measure(buy_and_hold(*segment), 252) for segment in SEGMENTS]
    signs = [math.copysign(1, each.total_return or 0) for each in found]
    assert signs == [1, -1, -1, -1, -1]
    # AAPL from 702.10 on 2012-09-19 to 430.47 on 2013-03-01, the lowest close of this period
    assert found[2].max_drawdown_date == close_of(at("2013-03-01") // DAY)


# Laws

money = st.integers(1, 10**6)
equities = st.lists(money, min_size=1, max_size=30)
pnls = st.lists(st.integers(-1000, 1000), max_size=20)
anything = st.floats(allow_nan=True, allow_infinity=True)


def assert_plain_and_finite(found: dict[str, Any]) -> None:
    """Python's own ints and floats, or None: a numpy scalar is no JSON, NaN sorts above everything in SQL."""
    for name, value in found.items():
        assert type(value) in (int, float, type(None)), (name, type(value))
        assert value is None or math.isfinite(value), (name, value)


@given(st.lists(anything, max_size=12), anything, st.lists(anything, max_size=6), st.integers(1, 366))
def test_never_nan_never_infinite_never_a_warning(
    equity: list[float], initial: float, pnl: list[float], annualization: int
) -> None:
    with np.errstate(all="raise"):  # warnings would be errors
        found = measure(run(equity, initial=initial, pnl=pnl), annualization)
    assert_plain_and_finite(asdict(found))


@given(equities, money, pnls)
def test_none_exactly_where_undefined(equity: list[int], initial: int, pnl: list[int]) -> None:
    """What is undefined is decided here in exact arithmetic, from whole amounts of money."""
    found = measure(run(equity, initial=initial, pnl=pnl), 252)
    points = [initial, *equity]
    returns = [Fraction(after, before) - 1 for before, after in pairwise(points)]
    varied = len(set(returns)) > 1
    fell = any(each < 0 for each in returns)
    assert (found.sharpe_ratio is not None) == varied
    assert (found.skewness is not None) == (found.kurtosis is not None) == varied
    assert (found.volatility is not None) == (len(returns) > 1)
    assert (found.volatility or 0) > 0 or not varied
    assert (found.sortino_ratio is not None) == (fell and len(returns) > 1)
    assert (found.max_drawdown_date is not None) == fell
    assert found.max_drawdown is not None and (found.max_drawdown < 0) == fell
    # e ** 709.8 is no float any more: growth by 7 in a day overflows; stay clear of that edge by e ** 40
    exponent = math.log(equity[-1] / initial) * 365.25 / max(len(equity) - 1, 1)
    if not 670 < exponent < 710:
        assert (found.cagr is not None) == (len(equity) > 1 and exponent < 700)
        assert (found.calmar_ratio is not None) == (found.cagr is not None and fell)
    assert (found.profit_factor is not None) == (found.avg_loss is not None) == any(x < 0 for x in pnl)
    assert (found.avg_win is not None) == any(x > 0 for x in pnl)
    assert (found.win_rate is not None) == (found.expectancy is not None) == bool(pnl)


@given(equities, money)
def test_drawdown_of_a_solvent_run_is_between_minus_one_and_zero(equity: list[int], initial: int) -> None:
    found = measure(run(equity, initial=initial), 252)
    assert found.max_drawdown is not None and -1 <= found.max_drawdown <= 0
    # no pair of points, earlier and later, falls deeper, and one falls as deep
    points = [initial, *equity]
    deepest = min(low / high - 1 for i, high in enumerate(points) for low in points[i:])
    assert found.max_drawdown == close(deepest)


@given(equities, money, pnls, st.integers(-20, 20))
def test_the_unit_of_money_is_no_matter(equity: list[int], initial: int, pnl: list[int], power: int) -> None:
    """Amounts scaled by a power of two, which floats do exactly: ratios are equal to the bit."""
    unit = 2.0**power

    def measured(unit: float) -> dict[str, Any]:
        result = run([each * unit for each in equity], initial=initial * unit)
        trades = tuple(trade(x * unit, price=100.0 * unit) for x in pnl)
        return asdict(measure(replace(result, trades=trades), 252))

    expected, actual = measured(1.0), measured(unit)
    for name in ("final_balance", "expectancy", "avg_win", "avg_loss"):
        expected[name] = None if expected[name] is None else expected[name] * unit
    assert actual == expected


@given(equities, money, st.data())
def test_points_before_the_last_of_a_day_do_not_matter(equity: list[int], initial: int, data: Any) -> None:
    daily = run(equity, initial=initial)
    times: list[int] = []
    values: list[float] = []
    closes = daily.equity_curve.times.tolist()
    for last, value in zip(closes, map(float, equity), strict=True):
        for seconds in sorted(data.draw(st.sets(st.integers(1, 86_399), max_size=3)), reverse=True):
            times.append(last - seconds * SECOND)
            values.append(data.draw(st.floats(-1e6, 1e6)))
        times.append(last)
        values.append(value)
    assert measure(run(values, initial=initial, times=times), 252) == measure(daily, 252)


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=50))
def test_kurtosis_is_at_least_one_more_than_skewness_squared(values: list[float]) -> None:
    returns = np.array(values)
    skewness, kurtosis = metrics.skewness(returns), metrics.kurtosis(returns)
    if skewness is not None and kurtosis is not None:
        assert kurtosis >= (skewness**2 + 1) * (1 - 1e-9)


@given(equities, money, pnls)
def test_sums_that_must_add_up(equity: list[int], initial: int, pnl: list[int]) -> None:
    result = run(equity, initial=initial, pnl=pnl)
    found = measure(result, 252)
    returns = daily_returns(float(initial), result.equity_curve)
    assert float(np.prod(1 + returns)) - 1 == pytest.approx(found.total_return, rel=1e-9, abs=1e-9)
    assert found.winning_trades + found.losing_trades + pnl.count(0) == found.total_trades
    total = (found.avg_win or 0) * found.winning_trades + (found.avg_loss or 0) * found.losing_trades
    assert total == pytest.approx((found.expectancy or 0) * found.total_trades, abs=1e-6)


@given(equities, money)
def test_measuring_changes_nothing_and_repeats_to_the_bit(equity: list[int], initial: int) -> None:
    result = run(equity, initial=initial)
    before = (result.equity_curve.times.tobytes(), result.equity_curve.equity.tobytes())
    assert measure(result, 252) == measure(result, 252)
    assert (result.equity_curve.times.tobytes(), result.equity_curve.equity.tobytes()) == before


# Cost


def test_needs_numpy_alone() -> None:
    code = "import sys, ntrader.metrics; print(*sorted({'pandas', 'scipy', 'empyrical'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
