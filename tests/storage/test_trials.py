"""Trials while they are worked on: each belongs to one chunk at a time, and is saved once, whatever happens when."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from uuid import UUID, uuid4

import psycopg
import pytest

from ntrader.errors import DatabaseError
from ntrader.results import Inputs
from ntrader.settings import Settings
from storage import trials as stored
from storage.database import connect
from storage.leases import owner, owner_of
from storage.trials import Portion, Reserved
from tests import factories
from tests.storage.proxy import Proxy
from tests.storage.trials import change, expire, failed, numbers, runs, states, succeeded, table, written

ELSEWHERE = "another machine|a boot|a namespace/1/1"


def take(settings: Settings, sweep_id: int, limit: int = 100, **portion: int) -> tuple[UUID, list[Reserved]]:
    chunk_id = uuid4()
    return chunk_id, stored.reserve(settings, sweep_id, chunk_id, owner(), Portion(limit, **portion))


def dead_owner() -> str:
    """A process of this machine that is no more."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return owner_of(process.pid)


# -- reserving -----------------------------------------------------------------------------------------------


def test_trials_are_taken_in_the_order_of_their_numbers(shared: Settings) -> None:
    sweep_id = written(shared, 5)
    assert [numbers(take(shared, sweep_id, 2)[1]) for _ in range(4)] == [[0, 1], [2, 3], [4], []]
    assert states(shared, sweep_id) == ["running"] * 5


def test_what_is_taken_is_what_was_planned(shared: Settings) -> None:
    sweep_id = written(shared, 2)
    chunk_id, taken = take(shared, sweep_id)
    rows = table(shared, sweep_id)
    assert [trial.run_key for trial in taken] == [row["run_key"] for row in rows]
    assert [trial.point.values for trial in taken] == [{"fast_period": 0}, {"fast_period": 1}]
    assert [(row["chunk_id"], row["lease_owner"]) for row in rows] == [(chunk_id, owner())] * 2
    assert stored.reserved_by(shared, chunk_id) == taken


@pytest.mark.parametrize(
    ("limit", "shares", "least", "expected"),
    [
        (100, 1, 1, [10]),
        (4, 1, 1, [4, 4, 2]),
        (100, 4, 1, [3, 2, 2, 1, 1, 1]),
        (100, 4, 2, [3, 2, 2, 2, 1]),
        (1, 4, 1, [1] * 10),
        (3, 2, 100, [3, 3, 3, 1]),
    ],
    ids=["all", "limit", "shares", "not fewer than least", "one by one", "least above the limit"],
)
def test_the_last_portions_are_small(
    shared: Settings, limit: int, shares: int, least: int, expected: list[int]
) -> None:
    sweep_id = written(shared, 10)
    sizes = []
    while taken := take(shared, sweep_id, limit, shares=shares, least=least)[1]:
        sizes.append(len(taken))
    assert sizes == expected


def test_many_at_once_take_different_trials(shared: Settings) -> None:
    sweep_id, at_once = written(shared, 120), Barrier(6)

    def greedy(_: int) -> list[int]:
        at_once.wait()
        found: list[int] = []
        # An empty hand may only mean that others are choosing at this moment.
        while len(mine := numbers(take(shared, sweep_id, 7)[1])) or "waiting" in states(shared, sweep_id):
            found += mine
        return found

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(greedy, range(6)))
    assert sorted(number for each in taken for number in each) == list(range(120))


def test_of_another_sweep_nothing_is_taken(shared: Settings) -> None:
    first, second = written(shared, 2), written(shared, 3)
    assert len(take(shared, second)[1]) == 3
    assert states(shared, first) == ["waiting"] * 2


def test_a_trial_that_killed_its_process_comes_alone_and_first(shared: Settings) -> None:
    sweep_id = written(shared, 6)
    change(shared, "UPDATE trials SET crashes = 1 WHERE sweep_id = %s AND trial_number IN (2, 4)", [sweep_id])
    taken = [take(shared, sweep_id)[1] for _ in range(4)]
    assert [numbers(each) for each in taken] == [[2], [4], [0, 1, 3, 5], []]
    assert [trial.crashes for each in taken for trial in each] == [1, 1, 0, 0, 0, 0]


# -- saving --------------------------------------------------------------------------------------------------


def test_runs_with_all_that_is_theirs_and_the_state_of_the_trials_are_saved_together(shared: Settings) -> None:
    sweep_id = written(shared, 4)
    chunk_id, _ = take(shared, sweep_id)
    done = [succeeded(sweep_id, 0), failed(sweep_id, 1, "memory"), succeeded(sweep_id, 2, sharpe=None)]

    assert stored.save(shared, chunk_id, done) == {0, 1, 2}

    rows = table(shared, sweep_id)
    assert [row["state"] for row in rows] == ["success", "failed", "success", "waiting"]
    assert [row["reason"] for row in rows] == [None, "memory", None, None]
    assert {row["chunk_id"] for row in rows} == {row["lease_owner"] for row in rows} == {None}
    found = runs(shared, sweep_id)
    assert [row["id"] for row in found] == [row["run_id"] for row in rows[:3]]
    assert [row["run_id"] for row in found] == [trial.run.run_id for trial in done]
    assert [row["execution_status"] for row in found] == ["success", "failed", "success"]
    assert [(row["metrics"], row["curves"], row["fills"], row["trades"]) for row in found] == [
        (1, 1, 1, 1),
        (0, 0, 0, 0),
        (1, 1, 1, 1),
    ]
    assert [row["sharpe_ratio"] for row in found] == [1.0, None, None]
    assert found[1]["error_message"] == "trial 1 went wrong"
    assert not any(row["linked"] for row in rows)


def test_a_repeated_save_finds_its_own(shared: Settings) -> None:
    sweep_id = written(shared, 3)
    chunk_id, _ = take(shared, sweep_id)
    done = [succeeded(sweep_id, 0), failed(sweep_id, 1)]
    stored.save(shared, chunk_id, done)
    before = (table(shared, sweep_id), runs(shared, sweep_id))

    assert stored.save(shared, chunk_id, done) == {0, 1}

    assert (table(shared, sweep_id), runs(shared, sweep_id)) == before


@pytest.mark.parametrize("answered", [False, True], ids=["the COMMIT is lost", "its answer is lost"])
def test_a_save_whose_connection_breaks_is_repeated_without_doubling(
    shared: Settings, proxied: tuple[Settings, Proxy], answered: bool
) -> None:
    far, proxy = proxied
    sweep_id = written(far, 3)
    chunk_id, _ = take(far, sweep_id)
    done = [succeeded(sweep_id, 0), failed(sweep_id, 1)]

    proxy.break_at_commit(deliver=answered)
    with pytest.raises(DatabaseError) as caught:
        stored.save(far, chunk_id, done)
    assert caught.value.transient
    assert states(far, sweep_id) == (["success", "failed", "waiting"] if answered else ["running"] * 3)

    assert stored.save(far, chunk_id, done) == {0, 1}
    assert states(far, sweep_id) == ["success", "failed", "waiting"]
    assert [row["run_id"] for row in runs(far, sweep_id)] == [trial.run.run_id for trial in done]


def test_all_or_nothing_is_saved(shared: Settings) -> None:
    sweep_id = written(shared, 4)
    chunk_id, _ = take(shared, sweep_id)
    good = succeeded(sweep_id, 0)
    last_in_the_transaction = succeeded(sweep_id, 1, max_drawdown=0.5)  # which is never above 0

    with pytest.raises(DatabaseError, match="max_drawdown"):
        stored.save(shared, chunk_id, [good, last_in_the_transaction])

    assert runs(shared, sweep_id) == []
    assert states(shared, sweep_id) == ["running"] * 4
    assert stored.save(shared, chunk_id, [good]) == {0}


def test_what_is_not_finished_is_kept_if_so_wished(shared: Settings) -> None:
    sweep_id = written(shared, 3)
    chunk_id, _ = take(shared, sweep_id)
    stored.save(shared, chunk_id, [succeeded(sweep_id, 0)], give_back=False)
    assert states(shared, sweep_id) == ["success", "running", "running"]
    assert numbers(stored.reserved_by(shared, chunk_id)) == [1, 2]


def test_a_worker_that_was_given_up_and_comes_late_changes_nothing(shared: Settings) -> None:
    sweep_id = written(shared, 3)
    late, _ = take(shared, sweep_id)
    expire(shared, late)
    next_, taken = take(shared, sweep_id)
    assert numbers(taken) == [0, 1, 2]

    assert stored.save(shared, late, [succeeded(sweep_id, number) for number in range(3)]) == set()
    stored.give_back(shared, late)
    stored.note_crash(shared, late, 0, 1)
    stored.renew(shared, [late])
    assert runs(shared, sweep_id) == []
    assert [(row["chunk_id"], row["crashes"]) for row in table(shared, sweep_id)] == [(next_, 0)] * 3

    ours = [succeeded(sweep_id, number) for number in range(3)]
    assert stored.save(shared, next_, ours) == {0, 1, 2}
    assert stored.save(shared, late, [succeeded(sweep_id, number) for number in range(3)]) == set()
    assert [row["run_id"] for row in runs(shared, sweep_id)] == [trial.run.run_id for trial in ours]


def test_a_worker_of_which_a_part_was_taken_over_saves_the_rest(shared: Settings) -> None:
    sweep_id = written(shared, 4)
    late, _ = take(shared, sweep_id)
    expire(shared, late)
    other, taken = take(shared, sweep_id, 2)
    assert numbers(taken) == [0, 1]
    assert stored.save(shared, late, [succeeded(sweep_id, number) for number in range(4)]) == {2, 3}
    assert states(shared, sweep_id) == ["running", "running", "success", "success"]
    assert stored.save(shared, other, [succeeded(sweep_id, number) for number in (0, 1)]) == {0, 1}
    assert [row["trial_number"] for row in runs(shared, sweep_id)] == [0, 1, 2, 3]


def test_two_that_save_the_same_trial_at_once_save_it_once(shared: Settings) -> None:
    sweep_id, at_once = written(shared, 20), Barrier(2)
    first, _ = take(shared, sweep_id)
    expire(shared, first)
    second, _ = take(shared, sweep_id)

    def save(chunk_id: UUID) -> set[int]:
        at_once.wait()
        return stored.save(shared, chunk_id, [succeeded(sweep_id, number) for number in range(20)])

    with ThreadPoolExecutor(2) as pool:
        saved = list(pool.map(save, (first, second)))
    assert saved == [set(), set(range(20))]
    assert len(runs(shared, sweep_id)) == 20


def test_what_the_trials_consumed_is_kept_once(settings: Settings) -> None:
    sweep_id, bars = written(settings, 2), factories.flat_bars([10.0, 11.0, 12.0])
    inputs = Inputs({"strategy": "text"}, {"code": "{}"}, bars)
    fingerprint = "f" * 64
    for number in range(2):
        chunk_id, _ = take(settings, sweep_id, 1)
        stored.save(settings, chunk_id, [succeeded(sweep_id, number)], [(fingerprint, inputs)])
    with connect(settings) as connection:
        kinds = connection.execute("SELECT kind FROM kept_contents ORDER BY kind").fetchall()
        data = connection.execute("SELECT data_fingerprint, bars FROM kept_data").fetchall()
    assert [row["kind"] for row in kinds] == ["bars", "document", "source"]
    assert data == [{"data_fingerprint": fingerprint, "bars": 3}]


def test_a_trial_that_has_succeeded_cannot_be_changed(shared: Settings) -> None:
    sweep_id = written(shared, 1)
    chunk_id, _ = take(shared, sweep_id)
    stored.save(shared, chunk_id, [succeeded(sweep_id, 0)])
    for assignment in ("state = 'waiting'", "state = 'failed', reason = 'killed'", "point = '{}'", "trial_number = 7"):
        with pytest.raises(DatabaseError, match=r"cannot be changed"):
            change(shared, f"UPDATE trials SET {assignment} WHERE sweep_id = %s", [sweep_id])


def test_a_second_success_of_a_trial_is_refused_by_the_database_itself(shared: Settings) -> None:
    sweep_id = written(shared, 2)
    chunk_id, _ = take(shared, sweep_id)
    stored.save(shared, chunk_id, [succeeded(sweep_id, 0), succeeded(sweep_id, 1)])
    with connect(shared) as connection:
        connection.execute("SET session_replication_role = replica")  # what else would be in the way
        with pytest.raises(psycopg.errors.UniqueViolation, match="ix_backtest_runs_trial"):
            connection.execute("UPDATE backtest_runs SET trial_number = 0 WHERE sweep_id = %s", [sweep_id])


# -- given back, renewed, reclaimed --------------------------------------------------------------------------


def test_what_is_given_back_waits(shared: Settings) -> None:
    sweep_id = written(shared, 3)
    mine, _ = take(shared, sweep_id, 2)
    other, _ = take(shared, sweep_id)
    stored.give_back(shared, mine)
    assert states(shared, sweep_id) == ["waiting", "waiting", "running"]
    assert stored.reserved_by(shared, mine) == []
    assert numbers(stored.reserved_by(shared, other)) == [2]


def test_a_lease_that_is_renewed_does_not_run_out(shared: Settings) -> None:
    sweep_id = written(shared, 2)
    renewed, _ = take(shared, sweep_id, 1)
    other, _ = take(shared, sweep_id, 1)
    expire(shared, renewed)
    expire(shared, other)
    stored.renew(shared, [renewed])
    assert numbers(take(shared, sweep_id)[1]) == [1]
    before = table(shared, sweep_id)[0]["lease_expires_at"]
    stored.renew(shared, [renewed])
    assert table(shared, sweep_id)[0]["lease_expires_at"] > before


def test_trials_of_dead_processes_and_of_leases_that_have_run_out_wait_again(shared: Settings) -> None:
    sweep_id = written(shared, 5)
    chunks = [take(shared, sweep_id, 1)[0] for _ in range(5)]
    owners = [dead_owner(), owner(), ELSEWHERE, ELSEWHERE, owner_of(os.getppid())]
    for chunk_id, each in zip(chunks, owners, strict=True):
        change(shared, "UPDATE trials SET lease_owner = %s WHERE chunk_id = %s", [each, chunk_id])
    expire(shared, chunks[3])

    assert stored.reclaim(shared, sweep_id) == 2

    assert states(shared, sweep_id) == ["waiting", "running", "running", "waiting", "running"]
    assert stored.reclaim(shared, sweep_id) == 0


def test_reclaiming_leaves_other_sweeps_alone(shared: Settings) -> None:
    mine, other = written(shared, 1), written(shared, 1)
    chunk_id, _ = take(shared, other)
    expire(shared, chunk_id)
    assert stored.reclaim(shared, mine) == 0
    assert states(shared, other) == ["running"]


def test_of_a_crash_the_others_of_the_chunk_wait_again(shared: Settings) -> None:
    sweep_id = written(shared, 3)
    chunk_id, _ = take(shared, sweep_id)
    for _ in range(2):  # a repeated call counts nothing twice
        stored.note_crash(shared, chunk_id, 1, 1)
    assert states(shared, sweep_id) == ["waiting", "running", "waiting"]
    assert [row["crashes"] for row in table(shared, sweep_id)] == [0, 1, 0]
    assert stored.save(shared, chunk_id, [failed(sweep_id, 1, "killed")]) == {1}


def test_more_crashes_than_the_column_can_hold_are_that_many(shared: Settings) -> None:
    sweep_id = written(shared, 1)
    chunk_id, _ = take(shared, sweep_id)
    stored.note_crash(shared, chunk_id, 0, 1_000_000)
    assert table(shared, sweep_id)[0]["crashes"] == 1000


def test_an_error_in_the_middle_leaves_no_connection_in_a_transaction(settings: Settings) -> None:
    sweep_id = written(settings, 2)
    chunk_id, _ = take(settings, sweep_id)
    trial = succeeded(sweep_id, 0)
    broken = replace(trial, run=replace(trial.run, strategy_name="a\x00b"))
    with pytest.raises(DatabaseError):
        stored.save(settings, chunk_id, [broken])
    assert stored.save(settings, chunk_id, [trial]) == {0}
    with connect(settings) as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        ).fetchone()
    assert row == {"n": 0}
