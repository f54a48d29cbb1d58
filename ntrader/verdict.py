"""Whether a run came out as before: identical to the bit, or where the results part and which inputs moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ntrader.digest import result_digest
from ntrader.divergence import Divergence, ReturnDifference, first_divergence, return_difference
from ntrader.results import Execution, Fingerprints, RunResult

# What a run depends on, in the order in which causes are looked for. The config is not among them: it is the stored
# one, by construction.
FACTORS = ("data", "code", "engine", "environment")


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """A stored success, with its result as far as it is stored: without fills where the run is older than those."""

    run_id: UUID
    config_snapshot: dict[str, Any]
    fingerprints: Fingerprints
    result_digest: str
    result: RunResult
    has_fills: bool

    @property
    def is_whole(self) -> bool:
        """Whether what is stored is what was hashed when the run was saved."""
        return not self.has_fills or result_digest(self.result) == self.result_digest


@dataclass(frozen=True, slots=True)
class Verdict:
    """`fills`, `trades` and `points` count those of the new result. `moved` are the FACTORS whose fingerprints differ;
    `divergence` and `returns` are None where the results are identical."""

    identical: bool
    fills: int
    trades: int
    points: int
    moved: tuple[str, ...]
    divergence: Divergence | None = None
    returns: ReturnDifference | None = None


def judge(original: Original, execution: Execution) -> Verdict:
    """Digests decide; the rest says where to look."""
    result = execution.result
    identical = execution.result_digest == original.result_digest
    return Verdict(
        identical=identical,
        fills=len(result.fills),
        trades=len(result.trades),
        points=len(result.equity_curve),
        moved=moved(original.fingerprints, execution.fingerprints),
        divergence=None if identical else _divergence(original, result),
        returns=None if identical else return_difference(original.result, result),
    )


def moved(original: Fingerprints, new: Fingerprints) -> tuple[str, ...]:
    return tuple(factor for factor in FACTORS if getattr(original, factor) != getattr(new, factor))


def _divergence(original: Original, new: RunResult) -> Divergence | None:
    if original.has_fills:
        return first_divergence(original.result, new)
    without = RunResult(new.initial_capital, new.equity_curve, (), (), new.open_quantity, new.bars)
    return first_divergence(original.result, without)
