"""What became of the trials of a sweep, as little of it as an analysis of many of them needs."""

from __future__ import annotations

from dataclasses import dataclass

from ntrader.sweeps.points import Point


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial, how far it is, and its `value` of some metric: None where that is not defined or there is no run.
    `observations` is the number of daily returns behind it."""

    point: Point
    state: str
    reason: str | None = None
    value: float | None = None
    observations: int | None = None

    @property
    def number(self) -> int:
        return self.point.number

    @property
    def done(self) -> bool:
        return self.state in {"success", "failed"}
