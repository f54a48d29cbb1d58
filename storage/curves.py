"""Equity curves as numpy columns: to the bit and to the nanosecond, which rows and datetimes are not."""

from __future__ import annotations

from uuid import UUID

from ntrader.results import EquityCurve
from ntrader.settings import Settings
from storage.arrays import decode, times
from storage.database import reading


def read_curve(settings: Settings, run_id: UUID) -> EquityCurve | None:
    """The curve as it was saved; None where the run has none."""
    with reading(settings) as connection:
        row = connection.execute(
            "SELECT array_send(c.steps) AS steps, array_send(c.equity) AS equity"
            " FROM equity_curves c JOIN backtest_runs r ON r.id = c.backtest_run_id WHERE r.run_id = %s",
            [run_id],
            binary=True,
        ).fetchone()
    return EquityCurve(times(decode(row["steps"])), decode(row["equity"])) if row else None
