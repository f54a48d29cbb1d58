"""Sweeps as people look at them. (The trials themselves are in the tests of storage.sweeps.)"""

from __future__ import annotations

import os
from uuid import UUID, uuid4

import pytest

from ntrader.errors import ConfigError, NotFoundError
from ntrader.settings import Settings
from storage import leases, standings, sweeps, trials
from storage.labels import delete_runs
from storage.standings import Holder, Place
from storage.trials import Portion
from tests.flows.stored import tamper
from tests.storage.sweeps import carried_out, finish, run_ids, stored, written


def state(settings: Settings, sweep_id: int) -> str:
    return standings.look_at(settings, str(sweep_id)).sweep.state


# -- lists ---------------------------------------------------------------------------------------------------


def test_the_newest_come_first_each_with_the_best_in_its_own_direction(settings: Settings) -> None:
    numbers = [
        stored(settings, [0.1, 0.3, 0.2]),
        stored(settings, [0.1, 0.3, 0.2], direction="minimize"),
        stored(settings, ["exception"]),
        stored(settings, [0.1, None]),
    ]
    found, total = standings.sweeps_page(settings, 10)
    assert total == 4
    assert [(each.sweep.id, each.best_trial) for each in found] == [*zip(numbers[::-1], [0, None, 0, 1], strict=True)]
    assert [each.best_value for each in found] == [pytest.approx(0.1), None, pytest.approx(0.1), pytest.approx(0.3)]


def test_a_page_says_how_many_there_are(settings: Settings) -> None:
    last = [stored(settings, [0.1]) for _ in range(3)][-1]
    found, total = standings.sweeps_page(settings, 2)
    assert ([each.sweep.id for each in found], total) == ([last, last - 1], 3)


def test_where_the_best_run_is_deleted_the_next_one_is_best(settings: Settings) -> None:
    sweep_id = stored(settings, [0.1, 0.3, 0.2])
    delete_runs(settings, [run_ids(settings, sweep_id)[1]])
    listed = standings.look_at(settings, str(sweep_id))
    assert (listed.best_value, listed.best_trial) == (pytest.approx(0.2), 2)
    assert sorted(standings.trials_with_runs(settings, sweep_id)) == [0, 2]


def test_a_finished_sweep_is_not_among_the_unfinished(settings: Settings) -> None:
    stored(settings, [0.1])
    waiting = written(settings, 2)
    assert [each.sweep.id for each in standings.unfinished_sweeps(settings)] == [waiting]


# -- states --------------------------------------------------------------------------------------------------


def test_the_states_of_a_sweep(settings: Settings) -> None:
    sweep_id = written(settings, 3)
    seen = [state(settings, sweep_id)]
    chunk = uuid4()
    trials.reserve(settings, sweep_id, chunk, leases.owner(), Portion(1))
    seen.append(state(settings, sweep_id))
    trials.give_back(settings, chunk)
    carried_out(settings, sweep_id, [0.1])
    seen.append(state(settings, sweep_id))
    finish(settings, sweep_id)
    seen.append(state(settings, sweep_id))
    carried_out(settings, sweep_id, [0.1, "killed"])
    seen.append(state(settings, sweep_id))
    assert seen == ["waiting", "running", "interrupted", "out of time", "finished"]


def test_a_process_that_is_gone_runs_nothing_though_its_lease_has_not_run_out(settings: Settings) -> None:
    sweep_id = written(settings, 4)
    child = os.fork()
    if child == 0:
        os._exit(0)
    dead = leases.owner_of(child)
    os.waitpid(child, 0)
    trials.reserve(settings, sweep_id, uuid4(), dead, Portion(3))
    machine, pid = leases.describe(leases.owner())

    found = standings.look_at(settings, str(sweep_id))
    assert found.sweep.state == "interrupted"
    assert found.holders == (Holder(machine, str(child), 3, alive=False, expired=False),)

    trials.reserve(settings, sweep_id, uuid4(), leases.owner(), Portion(1))
    found = standings.look_at(settings, str(sweep_id))
    assert found.sweep.state == "running"
    assert Holder(machine, pid, 1, alive=True, expired=False) in found.holders
    assert pid == str(os.getpid())


def test_a_process_elsewhere_is_known_by_its_lease(settings: Settings) -> None:
    sweep_id = written(settings, 1)
    trials.reserve(settings, sweep_id, uuid4(), "far|boot|pid:[1]/77/123", Portion(1))
    found = standings.look_at(settings, str(sweep_id))
    assert (found.sweep.state, found.holders) == ("running", (Holder("far", "77", 1, alive=None, expired=False),))

    tamper(settings, "UPDATE trials SET lease_expires_at = now() - interval '1 s'")
    found = standings.look_at(settings, str(sweep_id))
    assert (found.sweep.state, found.holders) == ("interrupted", (Holder("far", "77", 1, alive=None, expired=True),))


def test_what_was_verified_is_forgotten_when_another_trial_is_best(settings: Settings) -> None:
    sweep_id = written(settings, 2)
    carried_out(settings, sweep_id, [0.1])
    finish(settings, sweep_id)
    sweeps.mark_verified(settings, sweep_id, 0, identical=True)
    finish(settings, sweep_id)
    assert sweeps.get_sweep(settings, str(sweep_id)).verified is True
    carried_out(settings, sweep_id, [0.2])
    finish(settings, sweep_id)
    found = sweeps.get_sweep(settings, str(sweep_id))
    assert (found.best_trial, found.verified) == (1, None)


# -- runs ----------------------------------------------------------------------------------------------------


def test_a_run_is_the_trial_it_was_made_for_and_those_that_found_it(settings: Settings) -> None:
    first = stored(settings, [0.1, 0.2], keys=["a", "b"], name="the first")
    second = stored(settings, [None, None], keys=["c", "b"])
    third = stored(settings, [None], keys=["b"], name="the third")
    run_id = UUID(run_ids(settings, first)[1])

    assert standings.places(settings, run_id) == [
        Place(first, "the first", 1, False), Place(second, None, 1, True), Place(third, "the third", 0, True),
    ]  # fmt: skip
    assert standings.places(settings, UUID(int=0)) == []
    assert standings.trials_with_runs(settings, third) == {0: run_id}


# -- rankings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "column"), [("return", "total_return"), ("Sharpe", "sharpe_ratio"),
                                                ("duration", "execution_duration_seconds")])  # fmt: skip
def test_trials_are_ranked_by_any_metric(settings: Settings, metric: str, column: str) -> None:
    sweep_id = stored(settings, [0.1, 0.3, "exception", 0.2])
    ranked = sweeps.ranking(settings, sweep_id, metric, "maximize")
    assert sweeps.ranking_column(metric) == column
    expected = [0, 1, 3] if column.startswith("execution") else [1, 3, 0]
    assert [trial.trial_number for trial in ranked] == expected


@pytest.mark.parametrize("metric", ["created_at", "sharp_ratio", "run_id; DROP TABLE trials", ""])
def test_by_what_is_no_metric_nothing_is_ranked(settings: Settings, metric: str) -> None:
    with pytest.raises(ConfigError, match="trials cannot be ranked by") as caught:
        sweeps.ranking(settings, 1, metric, "maximize")
    assert caught.value.hint


def test_there_is_no_such_sweep(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="there is no sweep '7'"):
        standings.look_at(settings, "7")
