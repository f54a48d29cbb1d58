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
    again = digests.get(frozenset())
    if again is None:
        return Cause((), False, "Not proven: run once more with equal inputs, it failed.")
    if again != new:
        return Cause((), True, "The run is not repeatable: with equal inputs it came out differently once more.")
    if not moved:
        return Cause((), True, f"No input moved: {_UNCOVERED}.")
    put_back = max(digests, key=len)
    left = frozenset(moved) - put_back
    fewest = next((each for each in sorted(digests, key=_by_size) if digests[each] == original), None)
    if fewest is None:
        return _left_over(left, put_back, kept, digests)
    if len(fewest) > 1:
        return _restored_by_all(fewest, digests)
    return _restored_by_one(fewest, put_back - fewest, left, original, new, digests)


def _restored_by_one(
    one: Factors, other: Factors, left: Factors, original: str, new: str, digests: Mapping[Factors, str | None]
) -> Cause:
    """Putting this one back brings the original back. The `other` had no part in it if changing `one` without it gives
    the new result; of what is `left`, which cannot be put back, nobody knows that."""
    name, both = _named(one), _ordered(one | other)
    back = f"with the original {name} the original result comes back"
    without = digests[other]
    if without == new:
        if left:
            return Cause(_ordered(one), True, f"Caused by {name}: {back}, whatever else has moved.")
        return Cause(_ordered(one), True, f"Caused by {name} alone: {back}, and with the changed {name} alone the new"
                     " one comes out.")  # fmt: skip
    if without is None:
        return Cause(_ordered(one), True, f"Caused by {name}: {back}. Whether a change of {_named(other)} matters too"
                     f" cannot be told: with the original {_named(other)} alone it does not run here.")  # fmt: skip
    if without == original:
        return Cause(both, True, f"Caused by {_named(both)} together: with either as it was the original result comes"
                     " back.")  # fmt: skip
    return Cause(both, True, f"Caused by {_named(both)}: {back}; with the changed {name}, a change of {_named(other)}"
                 " matters too.")  # fmt: skip


def _restored_by_all(all_: Factors, digests: Mapping[Factors, str | None]) -> Cause:
    """Putting one of these back is not enough, or could not be tried."""
    names, shown = _named(all_), _shown(digests)
    if shown == all_:
        return Cause(_ordered(all_), True, f"Caused by {names} together: only with all of them as they were the"
                     " original result comes back.")  # fmt: skip
    back = f"with the original {names} the original result comes back"
    if shown:
        return Cause(_ordered(shown), True, f"Caused by {_named(shown)}: {back}, and a change of"
                     f" {_named(all_ - shown)} alone has no effect.")  # fmt: skip
    return Cause(_ordered(all_), False, f"Caused by {' or '.join(_ordered(all_))}: {back}, and with one of them alone"
                 " it does not run here.")  # fmt: skip


def _left_over(left: Factors, put_back: Factors, kept: Collection[str], digests: Mapping[Factors, str | None]) -> Cause:
    """What could be put back does not explain it, or not alone."""
    shown = _shown(digests)
    too = f" A change of {_named(shown)} matters too." if shown else ""
    if digests[put_back] is None:
        return Cause(_ordered(shown), False, f"Not proven: with the original {_named(put_back)} it does not run here."
                     f"{too.replace(' too', '')}")  # fmt: skip
    but = f"with the original {_named(put_back)} the result still differs, " if put_back else ""
    if not left:
        return Cause((), True, f"Not one of the inputs alone: {but}and {_UNCOVERED}.")
    names = " or ".join(_ordered(left))
    if len(left) == 1:
        return Cause(_ordered(left | shown), True, f"Caused by {names}: {but}the run is repeatable, and {names} is the"
                     f" only input that is not as it was.{too}")  # fmt: skip
    lost = [factor for factor in _ordered(left) if factor in REPLACEABLE and factor not in kept]
    why = f" The original {_named(lost)} cannot be had." if lost else ""
    return Cause(_ordered(left | shown), False, f"Caused by {names}: which of them cannot be told here.{why}{too}")


def _shown(digests: Mapping[Factors, str | None]) -> Factors:
    """The factors of which two replays that differ in nothing else show that they matter."""
    pairs = ((each, each - {factor}, factor) for each in digests for factor in each)
    return frozenset(
        factor
        for more, fewer, factor in pairs
        if digests[more] is not None and digests[fewer] is not None and digests[more] != digests[fewer]
    )


def _by_size(chosen: Factors) -> tuple[int, list[int]]:
    return len(chosen), [FACTORS.index(factor) for factor in _ordered(chosen)]


def _named(factors: Collection[str]) -> str:
    return " and ".join(_ordered(factors))


def _ordered(factors: Collection[str]) -> tuple[str, ...]:
    return tuple(factor for factor in FACTORS if factor in factors)
