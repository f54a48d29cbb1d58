"""Which input changed a result: found by putting the original ones back, one at a time, and running again.

What cannot be put back (another engine, another machine) is named only where nothing else is left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations

from ntrader.verdict import FACTORS

# What can be put back here, where it was kept.
REPLACEABLE = ("data", "code")

Factors = frozenset[str]

_UNCOVERED = "the strategy depends on something that no fingerprint covers"


@dataclass(frozen=True, slots=True)
class Cause:
    """`factors` account for the change: each of them is needed. `proven` says whether replays show it, or only that
    nothing else is known. `sentence` is for a person."""

    factors: tuple[str, ...]
    proven: bool
    sentence: str


def plan(moved: Collection[str], kept: Collection[str]) -> list[Factors]:
    """The replays that tell, each by the factors taken from the original: every combination of what has moved and was
    kept, and the new run once more, which shows whether it is repeatable."""
    there = [factor for factor in REPLACEABLE if factor in moved and factor in kept]
    return [frozenset(chosen) for size in range(len(there) + 1) for chosen in combinations(there, size)]


def conclude(
    moved: Collection[str], kept: Collection[str], original: str, new: str, digests: Mapping[Factors, str | None]
) -> Cause:
    """From the result digests of the original, of the new run and of the replays planned; None for one that failed."""
    if digests.get(frozenset()) != new:
        return Cause((), True, "The run is not repeatable: with equal inputs it came out differently once more.")
    if not moved:
        return Cause((), True, f"No input moved: {_UNCOVERED}.")
    put_back = max(digests, key=len)
    fewest = next((each for each in sorted(digests, key=len) if digests[each] == original), None)
    if fewest:
        return _restored(fewest, put_back, new, digests)
    return _left_over(moved, put_back, kept, digests)


def _restored(fewest: Factors, put_back: Factors, new: str, digests: Mapping[Factors, str | None]) -> Cause:
    """Putting these back brings the original back. The rest had no part in it if changing these alone gives the new
    result."""
    names, others = _named(fewest), put_back - fewest
    if len(fewest) > 1:
        return Cause(_ordered(fewest), True, f"Caused by {names} together: only with all of them as they were the"
                     " original result comes back.")  # fmt: skip
    if digests.get(others) == new:
        return Cause(_ordered(fewest), True, f"Caused by {names} alone: with the original {names} the original result"
                     f" comes back, and with the changed {names} alone the new one comes out.")  # fmt: skip
    return Cause(_ordered(put_back), True, f"Caused by {names}: with the original {names} the original result comes"
                 f" back; with the changed {names}, a change of {_named(others)} matters too.")  # fmt: skip


def _left_over(
    moved: Collection[str], put_back: Factors, kept: Collection[str], digests: Mapping[Factors, str | None]
) -> Cause:
    """What could be put back does not explain it."""
    if digests[put_back] is None:
        return Cause((), False, f"Not proven: with the original {_named(put_back)} it does not run here.")
    left = [factor for factor in _ordered(moved) if factor not in put_back]
    lost = [factor for factor in left if factor in REPLACEABLE and factor not in kept]
    but = f"with the original {_named(put_back)} the result still differs, " if put_back else ""
    if not left:
        return Cause((), True, f"Not one of the inputs alone: {but}and {_UNCOVERED}.")
    if len(left) == 1:
        return Cause(tuple(left), True, f"Caused by {left[0]}: {but}the run is repeatable, and {left[0]} is the only"
                     " input that is not as it was.")  # fmt: skip
    why = f" The original {_named(lost)} was not kept." if lost else ""
    return Cause(tuple(left), False, f"Caused by {' or '.join(left)}: which of them cannot be told here.{why}")


def _named(factors: Collection[str]) -> str:
    return " and ".join(_ordered(factors))


def _ordered(factors: Collection[str]) -> tuple[str, ...]:
    return tuple(factor for factor in FACTORS if factor in factors)
