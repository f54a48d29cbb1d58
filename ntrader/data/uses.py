"""What bars recorded runs were fed: a value between the database and those who look at the bars again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, eq=False)
class DataUse:
    """Runs that asked for the same bars, in the same words, and got the same ones.

    `data` is the data section of their configs, `fingerprint` that of the bars they were fed. `start` and `end` are
    the first and the last bar's close, aware UTC. `newest` is the Run ID of the one recorded last; `run_ids` are those
    of all `runs`, oldest first, or empty where nobody asked for them.
    """

    fingerprint: str
    data: dict[str, Any]
    symbol: str
    source: str
    start: datetime | None
    end: datetime | None
    runs: int
    newest: UUID
    run_ids: tuple[UUID, ...] = ()
