"""The cause of a difference, in worlds where the result is a known function of data, code, engine and environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntrader.diagnosis import Cause, Factors, conclude, plan
from ntrader.verdict import FACTORS

# What came out where these have changed and the others are as they were; None where it does not run.
World = Callable[[Factors], str | None]
NOTHING: Factors = frozenset()


def subsets(names: Iterator[str] | tuple[str, ...] | Factors) -> list[Factors]:
    ordered = [name for name in FACTORS if name in tuple(names)]
    return [frozenset(chosen) for size in range(len(ordered) + 1) for chosen in combinations(ordered, size)]


def diagnose(world: World, moved: Factors, kept: Factors) -> Cause:
    """As `flows.reproduce` does it. Both ends of the change are runs that succeeded."""
    original, new = world(NOTHING), world(moved)
    assert original is not None
    assert new is not None
    digests = {back: world(moved - back) for back in plan(moved, kept)}
    return conclude(moved, kept, original, new, digests)


def matters(world: World, moved: Factors, factor: str) -> bool:
    """Whether there is a state in which changing nothing but this changes what comes out."""
    return any(world(state) != world(state | {factor}) for state in subsets(moved - {factor}))


def check(world: World, moved: Factors, kept: Factors) -> Cause:
    """What must hold of every conclusion, in every world."""
    cause = diagnose(world, moved, kept)
    assert set(cause.factors) <= moved
    assert list(cause.factors) == [name for name in FACTORS if name in cause.factors]
    if cause.proven:
        # In a world of nothing but these four inputs something is always to blame.
        assert cause.factors, cause
        assert all(matters(world, moved, factor) for factor in cause.factors), cause
    if " alone: " in cause.sentence:
        (factor,) = cause.factors
        assert world(moved - {factor}) == world(NOTHING)
        assert world(frozenset({factor})) == world(moved)
    if "with either as it was" in cause.sentence:
        assert all(world(moved - {factor}) == world(NOTHING) for factor in cause.factors)
    if "cannot be had" in cause.sentence:
        assert not {"data", "code"} & moved <= kept
    return cause


def changing(*terms: str) -> World:
    """A result made of parts: each term ("data", "data+code") adds its own part once all in it have changed."""
    wanted = [(term, frozenset(term.split("+"))) for term in terms]
    return lambda state: " ".join(["r", *(term for term, needs in wanted if needs <= state)])


KEPT = subsets(("data", "code"))


@pytest.mark.parametrize("moved", subsets(FACTORS)[1:], ids=lambda each: "+".join(sorted(each)))
def test_no_world_makes_it_name_a_factor_that_is_no_cause(moved: Factors) -> None:
    """Every set of terms is tried: as parts of the result, and cancelling each other, which gives every function."""
    terms = subsets(moved)[1:]
    for chosen in product((False, True), repeat=len(terms)):
        active = [term for term, there in zip(terms, chosen, strict=True) if there]
        if not active:
            continue

        def parts(state: Factors, active: list[Factors] = active) -> str:
            return "".join("1" if term <= state else "0" for term in active)

        table = {state: str(sum(term <= state for term in active) % 2) for state in subsets(moved)}
        for kept in KEPT:
            check(parts, moved, kept)
            if table[moved] != table[NOTHING]:
                check(table.__getitem__, moved, kept)


@given(st.data())
def test_runs_that_fail_prove_nothing(data: st.DataObject) -> None:
    """Any of four outcomes in any state, failing among them; the two ends differ."""
    moved = data.draw(st.sampled_from(subsets(FACTORS)[1:]))
    outcomes = st.sampled_from(["a", "b", "c", None])
    table = {state: data.draw(outcomes) for state in subsets(moved)} | {NOTHING: "a", moved: "b"}

    cause = diagnose(table.__getitem__, moved, data.draw(st.sampled_from(KEPT)))

    if cause.proven:
        for factor in cause.factors:
            states = subsets(moved - {factor})
            pairs = [(table[state], table[state | {factor}]) for state in states]
            assert any(one != other and None not in (one, other) for one, other in pairs), cause


CASES: dict[str, tuple[World, str, str, tuple[str, ...], bool, str]] = {
    # world, moved, kept, factors, proven, words
    "data": (changing("data"), "data", "data", ("data",), True, "Caused by data alone: with the original data the"
             " original result comes back, and with the changed data alone the new one comes out."),
    "data, not kept": (changing("data"), "data", "", ("data",), True, "Caused by data: the run is repeatable, and data"
                       " is the only input that is not as it was."),
    "data, code moved too": (changing("data"), "data code", "data code", ("data",), True, "Caused by data alone"),
    "code, data moved too": (changing("code"), "data code", "data code", ("code",), True, "Caused by code alone"),
    "data, code lost": (changing("data"), "data code", "data", ("data",), True, "Caused by data: with the original"
                        " data the original result comes back, whatever else has moved."),
    "code, data kept, code lost": (changing("code"), "data code", "data", ("code",), True,
                                   "Caused by code: with the original data the result still differs"),
    "both, each for itself": (changing("data", "code"), "data code", "data code", ("data", "code"), True,
                              "Caused by data and code together: only with all of them"),
    "both, only together": (changing("data+code"), "data code", "data code", ("data", "code"), True,
                            "Caused by data and code together: with either as it was"),
    "data, and code with it": (changing("data", "data+code"), "data code", "data code", ("data", "code"), True,
                               "with the changed data, a change of code matters too"),
    "nothing kept": (changing("data"), "data code", "", ("data", "code"), False,
                     "Caused by data or code: which of them cannot be told here. The original data and code cannot be"
                     " had."),
    "engine": (changing("engine"), "engine", "data code", ("engine",), True, "Caused by engine: the run is"),
    "engine, data moved too": (changing("engine"), "data engine", "data", ("engine",), True,
                               "Caused by engine: with the original data the result still differs"),
    "engine and data": (changing("engine", "data"), "data engine", "data", ("data", "engine"), True,
                        "A change of data matters too."),
    "engine or environment": (changing("environment"), "engine environment", "", ("engine", "environment"), False,
                              "Caused by engine or environment: which of them cannot be told here."),
    "data, engine moved too": (changing("data"), "data engine", "data", ("data",), True, "whatever else has moved"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_sentence_says_what_was_seen(name: str) -> None:
    world, moved, kept, factors, proven, words = CASES[name]

    cause = check(world, frozenset(moved.split()), frozenset(kept.split()))

    assert (cause.factors, cause.proven) == (factors, proven)
    assert words in cause.sentence


def test_the_replays_are_every_combination_of_what_moved_and_was_kept() -> None:
    assert plan(["data", "code", "engine"], ["data", "code"]) == subsets(("data", "code"))
    assert plan(["data", "engine"], ["data", "code"]) == [NOTHING, frozenset({"data"})]
    assert plan(["engine"], ["data", "code"]) == [NOTHING]


def test_a_run_that_is_not_repeatable_is_said_to_be_so() -> None:
    cause = conclude(["data"], ["data"], "old", "new", {NOTHING: "newer", frozenset({"data"}): "old"})

    assert cause == Cause((), True, "The run is not repeatable: with equal inputs it came out differently once more.")


def test_a_replay_that_fails_does_not_pass_for_another_result() -> None:
    assert conclude(["data"], [], "old", "new", {NOTHING: None}) == Cause(
        (), False, "Not proven: run once more with equal inputs, it failed."
    )


def test_what_no_fingerprint_covers_is_named_as_that() -> None:
    assert "No input moved" in conclude([], [], "old", "new", {NOTHING: "new"}).sentence
    left = conclude(["data"], ["data"], "old", "new", {NOTHING: "new", frozenset({"data"}): "other"})
    assert left.factors == ()
    assert "something that no fingerprint covers" in left.sentence


FAILING = {
    # with the original data, with the original code, with both
    ("old", None, "old"): (("data",), True, "Whether a change of code matters too cannot be told"),
    (None, "old", "old"): (("code",), True, "Whether a change of data matters too cannot be told"),
    (None, "new", "old"): (("data",), True, "a change of code alone has no effect"),
    (None, None, "old"): (("data", "code"), False, "with one of them alone it does not run here"),
    (None, "other", "old"): (("data", "code"), True, "only with all of them"),
    ("new", "new", None): ((), False, "Not proven: with the original data and code it does not run here."),
    ("other", "new", None): (("data",), False, "A change of data matters."),
}


@pytest.mark.parametrize("results", FAILING, ids=str)
def test_what_does_not_run_leaves_a_doubt(results: tuple[str | None, str | None, str | None]) -> None:
    factors, proven, words = FAILING[results]
    digests = dict(zip(plan(["data", "code"], ["data", "code"]), ("new", *results), strict=True))

    cause = conclude(["data", "code"], ["data", "code"], "old", "new", digests)

    assert (cause.factors, cause.proven) == (factors, proven)
    assert words in cause.sentence
