"""Sweeps written down, found again, counted and ranked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier
from uuid import uuid4

import pytest

from ntrader.config import sha256
from ntrader.errors import AmbiguousError, ConfigError, DatabaseError, NotFoundError
from ntrader.settings import Settings
from ntrader.sweeps.config import Period
from ntrader.sweeps.points import Planned, Point
from storage import sweeps as stored
from storage import trials
from storage.leases import owner
from storage.sweeps import Counts, StoredSweep
from storage.trials import Finished, Portion
from tests.storage.trials import (
    change,
    expire,
    failed,
    new_sweep,
    numbers,
    planned,
    prints,
    runs,
    states,
    succeeded,
    table,
    written,
)

_salts = (f"salt {number}" for number in count())
ELSEWHERE = "another machine|a boot|a namespace/1/1"


def done(settings: Settings, trials_: int, *finished: Finished, **changes: object) -> int:
    """A sweep of so many trials, of which some are finished; each of these is made for the sweep by its number."""
    sweep_id = written(settings, trials_, **changes)
    save(settings, sweep_id, *finished)
    return sweep_id


def save(settings: Settings, sweep_id: int, *finished: Finished) -> None:
    chunk_id = uuid4()
    trials.reserve(settings, sweep_id, chunk_id, owner(), Portion(1000))
    for trial in finished:
        object.__setattr__(trial.run, "sweep_id", sweep_id)
    trials.save(settings, chunk_id, finished)


# -- written down --------------------------------------------------------------------------------------------


def test_a_sweep_comes_back_as_it_was_written(shared: Settings) -> None:
    new = new_sweep(2, name="Mine", config_path="a.yaml", sampler="tpe", sampler_version="optuna 5", rerun=True,
                    direction="minimize", objective="volatility", flow_run_id=uuid4())  # fmt: skip
    period = Period(start="2020-01-01")
    points = [Point(0, {"a": 1, "b": 0.1, "c": "x", "d": True, "e": None}, "AAPL", "1-HOUR", period),
              Point(1, {"a": 10**15, "b": 1e-300, "c": "naïve 😀", "d": False, "e": [1, {"f": 2.5}]})]  # fmt: skip
    plan = [Planned(point, prints(point).run_key) for point in points]

    sweep_id = stored.create_sweep(shared, new, [plan[:1], plan[1:]])

    found = stored.get_sweep(shared, str(sweep_id))
    assert {name: getattr(found, name) for name in new.__slots__} == {n: getattr(new, n) for n in new.__slots__}
    assert found.counts == Counts(waiting=2)
    assert (found.state, found.seconds, found.best_trial, found.verified) == ("waiting", 0.0, None, None)
    assert stored.waiting_points(shared, sweep_id, -1, 10) == points
    assert [row["run_key"] for row in table(shared, sweep_id)] == [each.run_key for each in plan]


def test_a_sweep_is_written_with_all_of_its_trials_or_not_at_all(shared: Settings) -> None:
    before = stored.list_sweeps(shared, 1)

    def interrupted() -> Iterator[list[Planned]]:
        yield [planned(number) for number in range(3)]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored.create_sweep(shared, new_sweep(3), interrupted())
    with pytest.raises(DatabaseError):
        stored.create_sweep(shared, new_sweep(3), [[planned(0), planned(0)]])
    assert stored.list_sweeps(shared, 1) == before


@pytest.mark.parametrize(
    "changes",
    [{"fingerprint": "short"}, {"direction": "up"}, {"sampler": "guess"}, {"trials": 0}],
    ids=["fingerprint", "direction", "sampler", "no trials"],
)
def test_what_no_sweep_can_be_is_refused(shared: Settings, changes: dict[str, object]) -> None:
    with pytest.raises(DatabaseError, match="ck_sweeps"):
        stored.create_sweep(shared, new_sweep(**{"trials": 1, **changes}), [])


def test_what_a_sweep_is_made_of_cannot_be_changed(shared: Settings) -> None:
    sweep_id = written(shared, 1)
    for assignment in ("fingerprint = repeat('0', 64)", "trials = 7", "config_snapshot = '{}'", "rerun = true"):
        with pytest.raises(DatabaseError, match="cannot be changed"):
            change(shared, f"UPDATE sweeps SET {assignment} WHERE id = %s", [sweep_id])


def test_a_trial_that_has_succeeded_before_is_that_run(shared: Settings) -> None:
    salt = next(_salts)
    first = done(shared, 3, succeeded(0, 0, salt), failed(0, 1), salt=salt)
    made = runs(shared, first)

    second = written(shared, 4, salt=salt)

    assert states(shared, second) == ["success", "waiting", "waiting", "waiting"]
    assert [(row["run_id"], row["linked"]) for row in table(shared, second)] == [
        (made[0]["id"], True),
        *[(None, False)] * 3,
    ]
    assert runs(shared, second) == []
    assert stored.count_trials(shared, second) == Counts(waiting=3, success=1, linked=1)


def test_of_several_runs_the_newest_is_linked_and_a_rerun_links_none(shared: Settings) -> None:
    salt = next(_salts)
    done(shared, 1, succeeded(0, 0, salt), salt=salt)
    again = done(shared, 1, succeeded(0, 0, salt), salt=salt, rerun=True)
    assert len(runs(shared, again)) == 1
    assert table(shared, written(shared, 1, salt=salt))[0]["run_id"] == runs(shared, again)[0]["id"]


def test_trials_of_one_run_key_can_be_one_run(shared: Settings) -> None:
    salt = next(_salts)
    done(shared, 1, succeeded(0, 0, salt), salt=salt)
    key = planned(0, salt).run_key
    twice = [Planned(Point(number, {"fast_period": number}), key) for number in range(2)]
    sweep_id = stored.create_sweep(shared, new_sweep(2), [twice])
    assert states(shared, sweep_id) == ["success", "success"]
    assert len({row["run_id"] for row in table(shared, sweep_id)}) == 1
    assert stored.count_known(shared, [key, key, "0" * 64]) == 1


# -- further trials, and trials planned anew -----------------------------------------------------------------


def test_a_batch_that_two_processes_add_at_once_is_added_once(shared: Settings) -> None:
    sweep_id = stored.create_sweep(shared, new_sweep(8), [[planned(0), planned(1)]])
    at_once = Barrier(2)

    def add(_: int) -> int:
        at_once.wait()
        return stored.add_trials(shared, sweep_id, [planned(number) for number in range(2, 6)], link=True)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(add, range(2))) == [0, 4]
    assert len(states(shared, sweep_id)) == 6


def test_a_batch_that_does_not_follow_the_last_trial_is_not_added(shared: Settings) -> None:
    sweep_id = stored.create_sweep(shared, new_sweep(8), [[planned(0), planned(1)]])
    for first in (0, 1, 3):
        batch = [planned(number) for number in range(first, first + 3)]
        assert stored.add_trials(shared, sweep_id, batch, link=True) == 0
    assert stored.add_trials(shared, sweep_id, [], link=True) == 0
    assert len(states(shared, sweep_id)) == 2


def test_waiting_trials_are_planned_anew_and_linked(shared: Settings) -> None:
    old, new = next(_salts), next(_salts)
    done(shared, 2, succeeded(0, 0, new), succeeded(0, 1, new), salt=new)
    sweep_id = done(shared, 5, succeeded(0, 0, old), failed(0, 1), salt=old)
    chunk_id = uuid4()
    trials.reserve(shared, sweep_id, chunk_id, owner(), Portion(1))
    before = table(shared, sweep_id)
    change(shared, "UPDATE trials SET crashes = 1 WHERE sweep_id = %s AND trial_number = 4", [sweep_id])

    stored.plan_again(shared, sweep_id, [planned(number, new) for number in range(5)], link=True)

    after = table(shared, sweep_id)
    assert after[:3] == before[:3]  # a success, a failure and one that is being run
    assert [row["run_key"] for row in after[3:]] == [planned(number, new).run_key for number in (3, 4)]
    assert [row["state"] for row in after[3:]] == ["waiting", "waiting"]
    assert after[4]["crashes"] == 1
    trials.give_back(shared, chunk_id)
    stored.retry_failed(shared, sweep_id)
    stored.plan_again(shared, sweep_id, [planned(1, new)], link=False)
    assert states(shared, sweep_id)[1] == "waiting"
    stored.plan_again(shared, sweep_id, [planned(1, new)], link=True)
    assert (table(shared, sweep_id)[1]["state"], table(shared, sweep_id)[1]["linked"]) == ("success", True)


def test_points_that_wait_come_in_slices(shared: Settings) -> None:
    sweep_id = done(shared, 6, succeeded(0, 2))
    slices, last = [], -1
    while points := stored.waiting_points(shared, sweep_id, last, 2):
        slices.append(numbers(points))
        last = points[-1].number
    assert slices == [[0, 1], [3, 4], [5]]


# -- state ---------------------------------------------------------------------------------------------------


def state(settings: Settings, sweep_id: int) -> str:
    return stored.get_sweep(settings, str(sweep_id)).state


def test_the_state_of_a_sweep(shared: Settings) -> None:
    sweep_id, chunk_id = written(shared, 2), uuid4()
    assert state(shared, sweep_id) == "waiting"
    trials.reserve(shared, sweep_id, chunk_id, owner(), Portion(1))
    assert state(shared, sweep_id) == "running"
    expire(shared, chunk_id)
    assert state(shared, sweep_id) == "interrupted"
    trials.give_back(shared, chunk_id)
    stored.finish_sweep(shared, sweep_id, None)
    assert state(shared, sweep_id) == "out of time"
    save(shared, sweep_id, succeeded(0, 0), failed(0, 1))
    assert state(shared, sweep_id) == "finished"
    stored.begin_sitting(shared, sweep_id, None)
    assert state(shared, sweep_id) == "interrupted"


def test_a_sweep_whose_process_is_dead_does_not_run(shared: Settings) -> None:
    sweep_id, chunk_id = written(shared, 1), uuid4()
    machine = owner().partition("/")[0]
    trials.reserve(shared, sweep_id, chunk_id, f"{machine}/4194303/1", Portion(1))
    assert state(shared, sweep_id) == "interrupted"
    change(shared, "UPDATE trials SET lease_owner = %s WHERE chunk_id = %s", [ELSEWHERE, chunk_id])
    assert state(shared, sweep_id) == "running"


def test_an_unfinished_sweep_is_found_by_its_fingerprint(shared: Settings) -> None:
    mark = sha256(next(_salts))
    first = written(shared, 1, fingerprint=mark)
    assert found(shared, mark) == first
    save(shared, first, failed(0, 0))
    assert found(shared, mark) == first  # nobody has said that it is finished
    stored.finish_sweep(shared, first, None)
    assert found(shared, mark) is None
    stored.retry_failed(shared, first)
    assert found(shared, mark) == first
    rerun = written(shared, 1, fingerprint=mark, rerun=True)
    assert (found(shared, mark), found(shared, mark, rerun=True)) == (first, rerun)
    newest = written(shared, 1, fingerprint=mark)
    assert found(shared, mark) == newest
    save(shared, newest, succeeded(0, 0))
    stored.finish_sweep(shared, newest, 0)
    assert found(shared, mark) is None  # the newest decides
    assert found(shared, sha256("another")) is None


def found(settings: Settings, fingerprint: str, *, rerun: bool = False) -> int | None:
    sweep = stored.find_unfinished(settings, fingerprint, rerun=rerun)
    return sweep.id if sweep else None


def test_what_came_of_a_sweep_is_remembered(shared: Settings) -> None:
    sweep_id, flow_run_id = written(shared, 3), uuid4()
    stored.begin_sitting(shared, sweep_id, flow_run_id)
    for _ in range(2):
        stored.add_seconds(shared, sweep_id, 1.5)
    stored.finish_sweep(shared, sweep_id, 2)
    at = stored.get_sweep(shared, str(sweep_id)).finished_at
    stored.finish_sweep(shared, sweep_id, 1)
    stored.mark_verified(shared, sweep_id, 2, identical=False)  # no longer the best
    stored.mark_verified(shared, sweep_id, 1, identical=True)
    sweep = stored.get_sweep(shared, str(sweep_id))
    assert (sweep.seconds, sweep.best_trial, sweep.verified, sweep.flow_run_id) == (3.0, 1, True, flow_run_id)
    assert sweep.finished_at == at is not None
    stored.begin_sitting(shared, sweep_id, None)
    assert stored.get_sweep(shared, str(sweep_id)).flow_run_id == flow_run_id


def test_failed_trials_wait_again_and_their_runs_stay(shared: Settings) -> None:
    sweep_id = done(shared, 3, succeeded(0, 0), failed(0, 1), failed(0, 2, "killed"))
    stored.finish_sweep(shared, sweep_id, 0)
    stored.mark_verified(shared, sweep_id, 0, identical=True)
    change(shared, "UPDATE trials SET crashes = 2 WHERE sweep_id = %s AND trial_number = 2", [sweep_id])

    assert stored.retry_failed(shared, sweep_id) == 2

    sweep = stored.get_sweep(shared, str(sweep_id))
    assert (sweep.best_trial, sweep.verified, sweep.finished_at) == (None, None, None)
    assert sweep.counts == Counts(waiting=2, success=1)
    assert [row["crashes"] for row in table(shared, sweep_id)] == [0, 0, 0]
    save(shared, sweep_id, succeeded(0, 1), failed(0, 2))
    assert [(row["trial_number"], row["execution_status"]) for row in runs(shared, sweep_id)] == [
        (0, "success"), (1, "failed"), (1, "success"), (2, "failed"), (2, "failed"),
    ]  # fmt: skip
    assert stored.retry_failed(shared, sweep_id) == 1


def test_where_nothing_has_failed_nothing_changes(shared: Settings) -> None:
    sweep_id = done(shared, 1, succeeded(0, 0))
    stored.finish_sweep(shared, sweep_id, 0)
    assert stored.retry_failed(shared, sweep_id) == 0
    assert state(shared, sweep_id) == "finished"


# -- named ---------------------------------------------------------------------------------------------------


def test_a_sweep_is_named_by_number_place_and_name(settings: Settings) -> None:
    first = written(settings, 1, name="SMA periods")
    second = written(settings, 1)
    for reference, sweep_id in ((str(first), first), (f" {second} ", second), ("@last", second), ("@last~0", second),
                                ("@last~1", first), ("SMA periods", first)):  # fmt: skip
        assert stored.get_sweep(settings, reference).id == sweep_id
    assert numbers_of(stored.list_sweeps(settings, 10)) == [second, first]
    assert numbers_of(stored.list_sweeps(settings, 1)) == [second]


@pytest.mark.parametrize(
    "reference",
    ["999999", "9" * 30, "-1", "@last~99999", "@last~" + "9" * 30, "@last~x", "@best", "no such name", "", " ", "\x00",
     "a\x00b", "1; DROP TABLE sweeps", "%s", "\uff11" * 3],
    ids=["number", "huge number", "negative", "too far back", "far too far back", "no place", "at", "name", "empty",
         "blank", "NUL", "NUL inside", "SQL", "placeholder", "full-width digits"],
)  # fmt: skip
def test_what_is_not_there_is_said_to_be_so(shared: Settings, reference: str) -> None:
    with pytest.raises(NotFoundError, match="there is no sweep") as caught:
        stored.get_sweep(shared, reference)
    assert "ntrader sweep list" in (caught.value.hint or "")


def test_a_name_that_fits_two_lists_them(shared: Settings) -> None:
    name = next(_salts)
    both = [written(shared, 1, name=name) for _ in range(2)]
    with pytest.raises(AmbiguousError) as caught:
        stored.get_sweep(shared, name)
    assert all(f"\n  {sweep_id}  " in caught.value.message for sweep_id in both)


def numbers_of(sweeps: list[StoredSweep]) -> list[int]:
    return [sweep.id for sweep in sweeps]


# -- ranked --------------------------------------------------------------------------------------------------


def test_the_best_come_first_and_equal_ones_by_number(shared: Settings) -> None:
    values = [0.5, None, 2.0, -1.0, 2.0, float("1e-300")]
    finished = [succeeded(0, number, sharpe=value) for number, value in enumerate(values)]
    sweep_id = done(shared, 8, *finished, failed(0, 6))
    ranked = stored.ranking(shared, sweep_id, "sharpe_ratio", "maximize")
    assert [(trial.trial_number, trial.metrics["sharpe_ratio"]) for trial in ranked] == [
        (2, 2.0), (4, 2.0), (0, 0.5), (5, 1e-300), (3, -1.0),
    ]  # fmt: skip
    assert [t.trial_number for t in stored.ranking(shared, sweep_id, "sharpe_ratio", "minimize", 2)] == [3, 5]
    assert [trial.point.values for trial in ranked[:1]] == [{"fast_period": 2}]
    assert ranked[0].run_id == runs(shared, sweep_id)[2]["run_id"]


@pytest.mark.parametrize("metric", ["no_such_metric", "config_snapshot", "sharpe_ratio; --", ""])
def test_an_unknown_metric_ranks_nothing(shared: Settings, metric: str) -> None:
    with pytest.raises(ConfigError, match="cannot be ranked"):
        stored.ranking(shared, 1, metric, "maximize")


def test_a_linked_trial_is_ranked_like_its_own(shared: Settings) -> None:
    salt = next(_salts)
    done(shared, 2, succeeded(0, 0, salt, sharpe=1.0), succeeded(0, 1, salt, sharpe=2.0), salt=salt)
    again = written(shared, 2, salt=salt)
    ranked = stored.ranking(shared, again, "sharpe_ratio", "maximize")
    assert [(trial.trial_number, trial.linked) for trial in ranked] == [(1, True), (0, True)]


def test_trials_as_a_table(shared: Settings) -> None:
    sweep_id = done(shared, 4, succeeded(0, 0), failed(0, 2, "timeout"))
    table_ = stored.all_trials(shared, sweep_id)
    assert [(trial.trial_number, trial.state, trial.reason) for trial in table_] == [
        (0, "success", None), (1, "waiting", None), (2, "failed", "timeout"), (3, "waiting", None),
    ]  # fmt: skip
    assert table_[0].result_digest == sha256("result 0")
    assert table_[1].run_id is None
    assert table_[2].error_message == "trial 2 went wrong"
    assert stored.failed_trials(shared, sweep_id) == [table_[2]]


def test_objectives_by_number(shared: Settings) -> None:
    sweep_id = done(shared, 4, succeeded(0, 0, sharpe=0.25), failed(0, 1), succeeded(0, 3, sharpe=None))
    known = stored.objectives(shared, sweep_id, "sharpe_ratio")
    assert [(number, each[1], each[2]) for number, each in known.items()] == [
        (0, "success", 0.25), (1, "failed", None), (2, "waiting", None), (3, "success", None),
    ]  # fmt: skip
    assert known[3][0] == Point(3, {"fast_period": 3})


def test_the_time_of_a_trial_is_the_middle_of_the_latest(shared: Settings) -> None:
    salt = next(_salts)
    finished = [succeeded(0, number, salt) for number in range(12)]
    for trial in finished:
        object.__setattr__(trial, "seconds", 10.0 if trial.run.trial_number == 3 else 0.5)
    where = (finished[0].run.config.strategy.path, finished[0].run.config.data.symbol, 4)
    change(shared, "DELETE FROM backtest_runs WHERE %s::text IS NULL OR trial_number IS NOT NULL", [""])
    sweep_id = done(shared, 12, *finished[:9], salt=salt)
    assert stored.recorded_seconds(shared, *where) is None  # too few to say
    save(shared, sweep_id, *finished[9:])
    assert stored.recorded_seconds(shared, *where) == 0.5
    assert stored.recorded_seconds(shared, where[0], where[1], 400) is None
    assert stored.recorded_seconds(shared, "other:Strategy", where[1], 4) is None


def test_a_run_that_is_deleted_leaves_its_trial(shared: Settings) -> None:
    sweep_id = done(shared, 2, succeeded(0, 0), failed(0, 1))
    change(shared, "DELETE FROM backtest_runs WHERE sweep_id = %s", [sweep_id])
    assert states(shared, sweep_id) == ["success", "failed"]
    assert [trial.run_id for trial in stored.all_trials(shared, sweep_id)] == [None, None]
    assert stored.ranking(shared, sweep_id, "sharpe_ratio", "maximize") == []
    assert stored.objectives(shared, sweep_id, "sharpe_ratio")[0][1:] == ("success", None)
