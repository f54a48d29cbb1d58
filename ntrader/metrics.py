"""What a run is worth: one pure function a measure, on numpy columns, and `measure` for all of them.

Everything about returns comes from the *daily* curve: the last marked-to-market equity of each UTC day. The
initial capital is the point before it, so the first return is E_1 / initial capital - 1 and a run over n days
has n returns. `points` below are that series: the initial capital, then the equity at the end of each day.

A bar belongs to the day it ends, and times are closes: the bar from 23:00 to 24:00, stamped 00:00 of the day
after, is the last of its day, not the first of the next.

Undefined is None, never NaN or infinite: a ratio over nothing, a spread of one observation, an overflow. Once
equity is zero or less at the end of any day, E_t / E_(t-1) says nothing any more: such a run has no returns
and no growth rate, while its total return and drawdown still stand, and can be below -1. The risk-free rate
is 0 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ntrader.results import EquityCurve, Floats, Metrics, RunResult, Times, Trade

NANOSECONDS_PER_DAY = 86_400 * 10**9
DAYS_PER_YEAR = 365.25

# What is smaller than this, relative to the amounts it comes from, is rounding and counts as zero. Every
# equity carries a relative error of a few eps (cash + quantity x price, rounded at each step), and so does
# E_t / E_(t-1): returns meant to be equal differ by that much, as does a trade meant to break even from 0.
# 16 eps are 3.6e-15. A single cent gained in a run of n days on an account of 1e9 spreads by 1e-11 / sqrt(n),
# which stays above that for 7 million days: no movement of real money is taken for noise.
NOISE = 16 * float(np.finfo(np.float64).eps)

# What overflows or divides by nothing ends as None; numpy need not warn about it as well.
_quiet = np.errstate(all="ignore")


def measure(result: RunResult, annualization: int) -> Metrics:
    """All metrics of a finished run. `annualization` is the number of daily returns a year: 252 or 365."""
    initial = result.initial_capital
    daily = daily_equity(result.equity_curve)
    points = daily_points(initial, daily)
    returns = point_returns(points)
    growth = cagr(points, calendar_days(daily.times))
    falls = drawdowns(points)
    drawdown = max_drawdown(falls)
    spread = _spread(returns)
    return replace(
        _measure_trades(trade_pnl(result.trades)),
        total_return=total_return(points),
        final_balance=final_balance(daily),
        cagr=growth,
        sharpe_ratio=_sharpe_ratio(spread, annualization),
        sortino_ratio=sortino_ratio(returns, annualization),
        max_drawdown=drawdown,
        max_drawdown_date=max_drawdown_date(falls, daily.times),
        calmar_ratio=calmar_ratio(growth, drawdown),
        volatility=_volatility(spread, annualization),
        skewness=_skewness(spread),
        kurtosis=_kurtosis(spread),
        return_observations=len(returns),
    )


def _measure_trades(pnl: Floats) -> Metrics:
    return Metrics(
        total_trades=len(pnl),
        winning_trades=int(np.count_nonzero(pnl > 0)),
        losing_trades=int(np.count_nonzero(pnl < 0)),
        win_rate=win_rate(pnl),
        profit_factor=profit_factor(pnl),
        expectancy=expectancy(pnl),
        avg_win=avg_win(pnl),
        avg_loss=avg_loss(pnl),
    )


# The daily series


def daily_equity(curve: EquityCurve) -> EquityCurve:
    """The last point of each UTC day that has any, with its own time. A daily curve comes back as it is."""
    day = _days(curve.times)
    last = np.ones(len(day), dtype=np.bool_)
    last[:-1] = day[1:] != day[:-1]
    return curve if last.all() else EquityCurve(curve.times[last], curve.equity[last])


def daily_points(initial_capital: float, daily: EquityCurve) -> Floats:
    """The initial capital, then each point of a daily curve, in account currency."""
    return np.concatenate((np.array([initial_capital], dtype=np.float64), daily.equity))


def daily_returns(initial_capital: float, curve: EquityCurve) -> Floats:
    """Daily returns, as fractions, of a curve with any number of points a day; see `point_returns`."""
    return point_returns(daily_points(initial_capital, daily_equity(curve)))


@_quiet
def point_returns(points: Floats) -> Floats:
    """Simple returns E_t / E_(t-1) - 1 as fractions, the first from the initial capital. They are all finite.

    Where returns mean nothing there are none, the array is empty: equity zero, negative or not finite at any
    point, or a step too large for a float.
    """
    returns: Floats = points[1:] / points[:-1]
    returns -= 1
    return returns if _solvent(points) and np.isfinite(returns).all() else np.empty(0)


def calendar_days(times: Times) -> int:
    """Calendar days from the first bar's day to the last bar's; 0 for a run within one day.

    This dates the initial capital to the first bar's day. It cannot be at work before: the first signal is
    given at the first bar's close, so a daily run's first return is that of cash (less the fees of a fill).
    """
    day = _days(times)
    return int(day[-1] - day[0]) if len(day) else 0


# The whole run


def final_balance(daily: EquityCurve) -> float | None:
    """Equity at the last bar in account currency, open positions marked to market. None without a bar."""
    return _finite(float(daily.equity[-1])) if len(daily) else None


def total_return(points: Floats) -> float | None:
    """E_n / E_0 - 1, a fraction; below -1 when more than everything was lost. None without a bar."""
    if len(points) < 2 or not points[0] > 0:
        return None
    return _finite(float(points[-1]) / float(points[0]) - 1)


def cagr(points: Floats, days: int) -> float | None:
    """Compound annual growth rate (E_n / E_0) ** (365.25 / days) - 1, a fraction; `days` are calendar days.

    None when less than a day lies between the first and the last bar, or when equity was zero or less.
    """
    if days <= 0 or not _solvent(points):
        return None
    try:
        return _finite((float(points[-1]) / float(points[0])) ** (DAYS_PER_YEAR / days) - 1)
    except OverflowError:
        return None


# Risk


def volatility(returns: Floats, annualization: int) -> float | None:
    """Standard deviation of the returns (n - 1 in the denominator) a year: std(r) * sqrt(A), a fraction.

    0.0 for returns that are all the same. None for fewer than two returns.
    """
    return _volatility(_spread(returns), annualization)


@_quiet
def drawdowns(points: Floats) -> Floats:
    """E / cummax(E) - 1 at each point, as fractions <= 0; the initial capital is the first peak.

    Below -1 where equity is below zero. Empty without a bar or without capital to begin with.
    """
    if len(points) < 2 or not points[0] > 0:
        return np.empty(0)
    falls = np.maximum.accumulate(points)
    np.divide(points, falls, out=falls)
    falls -= 1
    return falls


def max_drawdown(drawdowns: Floats) -> float | None:
    """The deepest fall below an earlier peak, a fraction <= 0; 0.0 if it never fell. None without bars."""
    return _finite(float(np.min(drawdowns))) if len(drawdowns) else None


def max_drawdown_date(drawdowns: Floats, times: Times) -> int | None:
    """When the maximum drawdown was first reached, in ns since 1970. None if equity never fell.

    `times` are those of the days: one less than there are drawdowns, whose first is the initial capital's, 0.
    """
    if not max_drawdown(drawdowns):
        return None
    return int(times[int(np.argmin(drawdowns)) - 1])


def skewness(returns: Floats) -> float | None:
    """Skewness of the daily returns, from population moments: m3 / m2 ** 1.5 (no small-sample correction).

    As the probabilistic and deflated Sharpe ratios want it; see `kurtosis`. None where `kurtosis` is.
    """
    return _skewness(_spread(returns))


def kurtosis(returns: Floats) -> float | None:
    """Kurtosis of the daily returns, from population moments and *not* excess: m4 / m2 ** 2, a normal has 3.

    It is the gamma_4 of Bailey and Lopez de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio
    Management 40 (2014): Var(SR) = (1 - gamma_3 SR + (gamma_4 - 1) / 4 SR ** 2) / (T - 1), which for normal
    returns must give Lo's (2002) 1 + SR ** 2 / 2 above T - 1, so gamma_4 is 3 there. SR is that of a single
    observation, `sharpe_ratio(returns, 1)`. None for fewer than two returns or returns all the same.
    """
    return _kurtosis(_spread(returns))


# Return for risk


def sharpe_ratio(returns: Floats, annualization: int) -> float | None:
    """mean(r) / std(r) * sqrt(A), std with n - 1 in the denominator (Sharpe 1994, risk-free rate 0), a year.

    None for fewer than two returns or returns that are all the same.
    """
    return _sharpe_ratio(_spread(returns), annualization)


@_quiet
def sortino_ratio(returns: Floats, annualization: int) -> float | None:
    """mean(r) / sqrt(mean(min(r, 0) ** 2)) * sqrt(A), a year: the mean in the root is over all n days.

    Sortino and Price (1994) with a target of 0. None for fewer than two returns or without a losing day.
    """
    if len(returns) < 2:
        return None
    downside = _above_noise(math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2))), returns)
    if not downside:
        return None
    return _finite(float(np.mean(returns)) / downside * math.sqrt(annualization))


def calmar_ratio(growth: float | None, drawdown: float | None) -> float | None:
    """cagr / |max_drawdown| over the whole run. None without a growth rate or without a drawdown."""
    return None if growth is None or not drawdown else _finite(growth / abs(drawdown))


# Closed trades: `pnl` is what each realised after fees, in account currency. A trade of 0 is break-even,
# neither won nor lost, and counts in the number of trades (and so in win_rate and expectancy) only.


def trade_pnl(trades: Sequence[Trade]) -> Floats:
    """What each trade realised after fees, in account currency; 0.0 where that is but rounding of its value.

    Without it (20.3 x 100 - 20.1 x 100) - 20 of fees would be a losing trade of 2e-13.
    """
    pnl = np.array([trade.pnl for trade in trades], dtype=np.float64)
    value = np.array([trade.quantity * (trade.entry_price + trade.exit_price) for trade in trades])
    pnl[np.abs(pnl) <= NOISE * np.abs(value)] = 0.0
    return pnl


def win_rate(pnl: Floats) -> float | None:
    """Winning trades as a fraction of all trades, break-even ones included. None without trades."""
    return int(np.count_nonzero(pnl > 0)) / len(pnl) if len(pnl) else None


@_quiet
def profit_factor(pnl: Floats) -> float | None:
    """Gross profit / gross loss; 0.0 when nothing was won. None without a losing trade."""
    loss = -float(np.sum(pnl[pnl < 0]))
    return _finite(float(np.sum(pnl[pnl > 0])) / loss) if loss else None


def expectancy(pnl: Floats) -> float | None:
    """Mean profit or loss of a trade in account currency, break-even trades included. None without trades."""
    return _mean(pnl)


def avg_win(pnl: Floats) -> float | None:
    """Mean profit of the winning trades in account currency. None without one."""
    return _mean(pnl[pnl > 0])


def avg_loss(pnl: Floats) -> float | None:
    """Mean loss of the losing trades in account currency, below 0. None without one."""
    return _mean(pnl[pnl < 0])


# What they share


def _days(times: Times) -> Times:
    """Days since 1970 UTC; midnight, the close of a bar, still belongs to the day it ends."""
    days: Times = (times - 1) // NANOSECONDS_PER_DAY
    return days


def _solvent(points: Floats) -> bool:
    return bool((points > 0).all() and np.isfinite(points).all())


@dataclass(frozen=True, slots=True, eq=False)
class _Spread:
    """How returns lie around their mean: what four measures need, worked out once. `scores` are (r - mean) / population
    std, whose powers stay in range where powers of the returns would not; there are none where `deviation`, with n - 1
    in its denominator, is None (fewer than two or too large returns) or 0.0 (but rounding)."""

    mean: float
    deviation: float | None
    scores: Floats


_NO_SPREAD = _Spread(0.0, None, np.empty(0))


@_quiet
def _spread(returns: Floats) -> _Spread:
    observations = len(returns)
    if observations < 2:
        return _NO_SPREAD
    # As numpy's own mean and std do it, to the bit.
    mean = float(np.add.reduce(returns)) / observations
    scores = returns - mean
    variance = float(np.add.reduce(np.square(scores))) / (observations - 1)
    deviation = _finite(_above_noise(math.sqrt(variance), returns))
    if not deviation:
        return _Spread(mean, deviation, np.empty(0))
    scores /= deviation * math.sqrt((observations - 1) / observations)
    return _Spread(mean, deviation, scores)


def _volatility(spread: _Spread, annualization: int) -> float | None:
    return None if spread.deviation is None else _finite(spread.deviation * math.sqrt(annualization))


def _sharpe_ratio(spread: _Spread, annualization: int) -> float | None:
    return _finite(spread.mean / spread.deviation * math.sqrt(annualization)) if spread.deviation else None


@_quiet
def _skewness(spread: _Spread) -> float | None:
    scores = spread.scores
    return _mean(scores * scores * scores)


@_quiet
def _kurtosis(spread: _Spread) -> float | None:
    return _mean(np.square(np.square(spread.scores)))


def _above_noise(spread: float, returns: Floats) -> float:
    return spread if spread > NOISE * (1 + float(np.max(np.abs(returns)))) else 0.0


@_quiet
def _mean(values: Floats) -> float | None:
    return _finite(float(np.mean(values))) if len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
