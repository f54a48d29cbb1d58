"""Synthetic bars: the same for everyone, in order, and moving as the config says."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntrader.config import SyntheticConfig
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.checks import check
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.synthetic import generate
from ntrader.errors import ConfigError, DataNotFoundError

DAY = 86_400 * 10**9
YEAR_2020 = 18_262 * DAY


def bars(days: int = 365, timeframe: str = "1-DAY", **walk: float) -> Bars:
    frame, config = parse_timeframe(timeframe), SyntheticConfig.model_validate(walk)
    end = YEAR_2020 + days * DAY - 1_000
    return generate(config, symbol="X", venue="SYNTH", timeframe=frame, start=YEAR_2020, end=end)


def test_daily_bars_close_on_each_weekday() -> None:
    made = bars()
    days = made.times.astype("datetime64[ns]").astype("datetime64[us]").astype(str).tolist()
    weekdays = np.arange("2020-01-01", "2020-12-31", dtype="datetime64[D]")
    weekdays = weekdays[(weekdays.astype(np.int64) + 3) % 7 < 5]  # day 0, 1970-01-01, was a Thursday
    assert days == [f"{day}T23:59:59.999999" for day in weekdays]


def test_short_bars_run_day_and_night() -> None:
    made = bars(days=3, timeframe="5-MINUTE")
    assert len(made) == 3 * 288 - 1, "the last one would close after the end"
    assert made.times[0] == YEAR_2020 + 300 * 10**9, "the first one opens at the start"
    assert set(np.diff(made.times).tolist()) == {300 * 10**9}


@settings(max_examples=30)
@example(0, 1e-4, -5.0, 5.0, "1d")
@given(
    st.integers(0, 2**63), st.floats(1e-4, 1e6), st.floats(-5, 5), st.floats(0, 5), st.sampled_from(["1d", "1h", "15m"])
)
def test_any_walk_passes_the_checks(seed: int, price: float, drift: float, volatility: float, timeframe: str) -> None:
    made = bars(days=30, timeframe=timeframe, seed=seed, start_price=price, drift=drift, volatility=volatility)
    check(made)
    for column in (made.open, made.high, made.low, made.close):
        assert np.array_equal(column, np.round(column, 4))
        assert column.flags.c_contiguous and column.flags.writeable
    assert np.array_equal(made.volume, np.rint(made.volume))


def test_the_seed_decides() -> None:
    assert data_fingerprint(bars(seed=7)) == data_fingerprint(bars(seed=7))
    assert data_fingerprint(bars(seed=7)) != data_fingerprint(bars(seed=8))


def test_another_process_makes_the_same_bars() -> None:
    code = (
        "from ntrader.config import SyntheticConfig; from ntrader.data.bars import parse_timeframe\n"
        "from ntrader.data.synthetic import generate; from ntrader.data.fingerprint import data_fingerprint\n"
        f"print(data_fingerprint(generate(SyntheticConfig(seed=7), symbol='X', venue='SYNTH',"
        f" timeframe=parse_timeframe('1d'), start={YEAR_2020}, end={YEAR_2020 + 365 * DAY - 1_000})))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == data_fingerprint(bars(seed=7))


def test_a_later_end_only_adds_bars() -> None:
    short, long = bars(days=100), bars(days=365)
    for name in ("times", "open", "high", "low", "close", "volume"):
        assert np.array_equal(getattr(short, name), getattr(long, name)[: len(short)])


@pytest.mark.parametrize("timeframe, days, bars_a_year", [("1-DAY", 40 * 365, 252.0), ("4-HOUR", 4 * 365, 2191.5)])
def test_returns_move_as_much_as_asked(timeframe: str, days: int, bars_a_year: float) -> None:
    made = bars(days=days, timeframe=timeframe, seed=3, volatility=0.3, drift=0.0, start_price=1e5)
    returns = np.diff(np.log(made.close))
    assert np.std(returns) * np.sqrt(bars_a_year) == pytest.approx(0.3, rel=0.03)


def test_without_volatility_the_drift_is_what_is_left() -> None:
    made = bars(days=3650, drift=0.08, volatility=0.0, start_price=1000.0)
    assert np.log(made.close[-1] / 1000) == pytest.approx(0.08 * len(made) / 252, abs=1e-6)
    assert made.high.tolist() == made.close.tolist()


def test_the_drift_is_of_the_expected_price_not_of_the_typical_one() -> None:
    logs = [np.log(bars(seed=seed, volatility=1.0, drift=0.0).close[-1] / 100) for seed in range(100)]
    assert np.mean(logs) == pytest.approx(-0.5, abs=0.25)


def test_too_many_bars_are_refused_before_they_are_made() -> None:
    with pytest.raises(ConfigError, match="31,535,999 synthetic 1-SECOND bars are too many"):
        bars(days=365, timeframe="1-SECOND")


def test_a_weekend_has_no_daily_bars() -> None:
    saturday = YEAR_2020 + 3 * DAY
    with pytest.raises(DataNotFoundError):
        generate(
            SyntheticConfig(),
            symbol="X",
            venue="SYNTH",
            timeframe=parse_timeframe("1d"),
            start=saturday,
            end=saturday + 2 * DAY - 1_000,
        )
