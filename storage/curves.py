"""Equity curves as numpy columns, and fills: to the bit and to the nanosecond, which rows and datetimes are not."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ntrader.results import EquityCurve, Fill
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


def read_fills(settings: Settings, run_id: UUID) -> tuple[Fill, ...] | None:
    """In the order they happened; None where they were not stored (before revision 004)."""
    with reading(settings) as connection:
        row = connection.execute(
            "SELECT array_send(f.steps) AS steps, array_send(f.quantities) AS quantities,"
            " array_send(f.prices) AS prices, array_send(f.fees) AS fees, f.sides, f.order_types"
            " FROM fills f JOIN backtest_runs r ON r.id = f.backtest_run_id WHERE r.run_id = %s",
            [run_id],
            binary=True,
        ).fetchone()
    if row is None:
        return None
    moments = times(decode(row["steps"])).tolist()
    numbers = [decode(row[name]).tolist() for name in ("quantities", "prices", "fees")]
    rows = zip(moments, row["sides"], *numbers, row["order_types"], strict=True)
    return tuple(Fill(*each) for each in rows)
