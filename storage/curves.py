"""Equity curves as numpy columns: to the bit and to the nanosecond, which rows and datetimes are not."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ntrader.results import EquityCurve
from ntrader.settings import Settings
from storage.arrays import decode, times
from storage.database import reading


def read_curve(settings: Settings, run_id: UUID) -> EquityCurve | None:
    """The curve as it was saved; None where the run has none."""
    return read_curves(settings, [run_id]).get(run_id)


def read_curves(settings: Settings, run_ids: Sequence[UUID]) -> dict[UUID, EquityCurve]:
    """The curves of many runs by Run ID; a run that has none is not there."""
    with reading(settings) as connection:
        rows = connection.execute(
            "SELECT r.run_id, array_send(c.steps) AS steps, array_send(c.equity) AS equity"
            " FROM equity_curves c JOIN backtest_runs r ON r.id = c.backtest_run_id WHERE r.run_id = ANY(%s)",
            [list(run_ids)],
            binary=True,
        ).fetchall()
    return {row["run_id"]: EquityCurve(times(decode(row["steps"])), decode(row["equity"])) for row in rows}
