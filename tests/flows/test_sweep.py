"""The sweep flow on real parts: Prefect server, PostgreSQL, worker processes. Each trial once, each what it would be by
itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from flows.backtest import backtest
from ntrader.config import RunRequest
from ntrader.data.bars import Bars
from ntrader.data.catalog import add_bars
from ntrader.errors import Interruption, NtraderError
from ntrader.settings import Settings
from ntrader.sweeps import standing
from ntrader.sweeps.standing import Standing
from storage import sweeps as stored
from storage.database import connect
from storage.leases import owner
from storage.sweeps import Counts
from storage.trials import Portion, reserve
from tasks import open_sweep
from tasks.chunk import Watched
from tasks.sitting import Share
from tests import factories
from tests.flows.stored import Own, make_own
from tests.flows.sweeping import begin, everything, made, opened, request, resume, row_ids, run, scripted
from tests.storage.trials import runs, states, table

pytestmark = pytest.mark.usefixtures("prefect_api")

YEARS = 365 * 11 + 3  # days from 2009 to 2020, where made-up bars begin


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.chdir(tmp_path)
    return make_own(tmp_path)


def by_itself(settings: Settings, wanted: RunRequest) -> dict[str, Any]:
    """What `run-backtest` stores of it."""
    run_id = backtest(wanted).run.run_id
    with connect(settings) as connection:
        row = connection.execute("SELECT id FROM backtest_runs WHERE run_id = %s", [run_id]).fetchone()
    assert row is not None
    return everything(settings, row["id"])


def trials(settings: Settings, sweep_id: int) -> list[dict[str, Any]]:
    return [everything(settings, row) for row in row_ids(settings, sweep_id) if row]


def waves(symbol: str) -> Bars:
    """A year of bars from 2009 that go up and down."""
    closes = [100.0 + (day * 7) % 31 - (day * 5) % 17 for day in range(366)]
    bars = factories.bars([(a, max(a, b) + 1, min(a, b) - 1, b) for a, b in pairwise(closes)])
    return dataclasses.replace(bars, symbol=symbol, times=bars.times - YEARS * factories.DAY)


# -- a trial is the run that it would be by itself -----------------------------------------------------------


def test_over_symbols_of_two_sources_periods_and_whole_numbers_for_others(environment: Settings, home: Path) -> None:
    add_bars(home, waves("SWEPT"))  # at SIM, in the catalog; AAPL is at XNAS, in the sample
    symbols, periods, fast = ["SWEPT", "AAPL"], [("2009-02-01", "2009-04-30"), ("2009-04-01", None)], [3, 5]
    base = {"start": None, "end": None, "initial_capital": 50_000}

    outcome = run(
        {
            "symbols": symbols,
            "periods": [{"start": start, "end": end} for start, end in periods],
            "params": {"fast_period": fast, "risk_percent": [1]},
        },
        request(**base, parameters={"slow_period": 8}),
    )

    assert outcome.sweep.counts == Counts(success=8)
    assert trials(environment, outcome.sweep.id) == [
        by_itself(environment, request(
            **{**base, "start": start, "end": end}, symbol=symbol,
            parameters={"slow_period": 8, "fast_period": period, "risk_percent": 1},
        ))
        for symbol, (start, end), period in product(symbols, periods, fast)
    ]  # fmt: skip
    assert sum(len(trial["trades"]) for trial in trials(environment, outcome.sweep.id)) > 20


def test_over_timeframes_and_both_directions(environment: Settings) -> None:
    base = {"symbol": "WALK", "source": "synthetic", "account_type": "MARGIN", "start": "2020-01-01",
            "end": "2020-03-31", "seed": 3, "fill_timing": "close"}  # fmt: skip
    outcome = run(
        {"timeframes": ["1-DAY", "4-HOUR"], "params": {"allow_short": [True, False], "lookback": [4]}},
        request(**base, strategy="momentum"),
    )
    assert trials(environment, outcome.sweep.id) == [
        by_itself(environment, request(
            **base, strategy="momentum", timeframe=timeframe, parameters={"allow_short": short, "lookback": 4}
        ))
        for timeframe, short in product(["1-DAY", "4-HOUR"], [True, False])
    ]  # fmt: skip


def test_over_a_file_with_a_relative_path(own: Own, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    base = own.request(data_path="bars.csv")
    first = run({"params": {"limit": [99, 101]}, "budget": {"trials": 1}}, base)
    alone = [by_itself(environment, own.request(parameters={"limit": limit})) for limit in (99, 101)]
    assert trials(environment, first.sweep.id) == alone[:1]
    again = run({"params": {"limit": [99, 101]}}, base)
    assert trials(environment, again.sweep.id) == alone
    assert again.sweep.counts.linked == 2  # to the trial of the first, and to the second run by itself


# -- again ---------------------------------------------------------------------------------------------------

FOUR = {"params": {"fast_period": [3, 5], "slow_period": [8, 13]}}


def test_the_same_again_runs_nothing_and_a_rerun_everything(environment: Settings) -> None:
    first = run(FOUR)
    assert (first.sweep.counts, made(environment)) == (Counts(success=4), 4)

    again = run({**FOUR, "name": "other", "timeout": "50s", "budget": {"wall": "1h"}})
    assert again.sweep.id != first.sweep.id
    assert (again.sweep.counts, made(environment)) == (Counts(success=4, linked=4), 4)
    assert row_ids(environment, again.sweep.id) == row_ids(environment, first.sweep.id)
    assert again.best and first.best and again.best.run_id == first.best.run_id

    wider = run({"params": {"fast_period": [3, 5], "slow_period": [8, 13, 21]}})
    assert (wider.sweep.counts, made(environment)) == (Counts(success=6, linked=4), 6)

    rerun = run(FOUR, rerun=True)
    assert (rerun.sweep.counts, made(environment)) == (Counts(success=4), 10)
    assert trials(environment, rerun.sweep.id) == trials(environment, first.sweep.id)


def test_one_bar_changed_and_every_trial_is_another(own: Own, environment: Settings) -> None:
    search = {"params": {"limit": [99, 101, 103]}}
    run(search, own.request())
    own.data.rows["2020-03-05"][3] -= 0.01
    own.data.write()
    assert run(search, own.request()).sweep.counts == Counts(success=3)
    assert made(environment) == 6


def test_what_was_left_is_finished_by_starting_it_again(own: Own, environment: Settings) -> None:
    """With other code, other limits of time, and as the rerun that it was."""
    search = {"params": {"limit": [99, 100, 101, 102]}}
    run(search, own.request())
    left = begin(environment, search, own.request(), trials=1, rerun=True)
    assert states(environment, left) == ["success", *["waiting"] * 3]
    first = table(environment, left)[0]

    own.change("inner/steps.py", "1.0", "2.0")
    done = run({**search, "timeout": "9s", "budget": {"wall": "2h"}}, own.request(), rerun=True)

    assert (done.sweep.id, done.resumed, done.sweep.state) == (left, True, "finished")
    assert done.sweep.counts == Counts(success=4)
    found = runs(environment, left)
    codes = [row["code_fingerprint"] for row in found]
    assert codes[0] != codes[1] == codes[2] == codes[3]
    assert [row["run_key"] for row in table(environment, left)] == [row["run_key"] for row in found]
    assert table(environment, left)[0] == first


def test_a_finished_sweep_is_resumed_without_running_anything(environment: Settings) -> None:
    first = run(FOUR)
    outcome = resume(first.sweep.id, verify_best=True)
    assert (outcome.sweep.id, outcome.sweep.state, made(environment)) == (first.sweep.id, "finished", 4)
    assert outcome.sweep.verified is True
    assert outcome.best == first.best


# -- whatever a strategy does --------------------------------------------------------------------------------


def test_a_trial_that_fails_is_a_failed_run_and_harms_no_other(environment: Settings, tmp_path: Path) -> None:
    what = {
        "buy 10": (None, None, None),
        "raise": ("exception", "StrategyError", "bar 3 went wrong"),
        "exit": ("exception", "SystemExit", "3"),
        "exhaust": ("memory", "OutOfMemory", "MemoryError"),
        "kill": ("killed", "EngineKilledError", "SIGKILL, 2 times"),
        "leave": ("killed", "EngineKilledError", "exit code 7, 2 times"),
        "kill once": (None, None, None),
        "hang": ("timeout", "TrialTimeout", "stopped after 1.5 s, the timeout of a trial"),
        "print": (None, None, None),
        "leak": (None, None, None),
        "sell 10": (None, None, None),
    }
    marker = str(tmp_path / "killed")
    base = scripted(account_type="MARGIN", parameters={"marker": marker})
    scripts = [{"3": words} for words in what]

    outcome = run({"params": {"script": scripts}, "timeout": "1.5s", "objective": "total_return"}, base)

    found = table(environment, outcome.sweep.id)
    assert [row["reason"] for row in found] == [reason for reason, _, _ in what.values()]
    assert [row["state"] for row in found] == ["failed" if reason else "success" for reason, _, _ in what.values()]
    failures = {row["trial_number"]: row for row in runs(environment, outcome.sweep.id)}
    assert len(failures) == len(what) == len(runs(environment, outcome.sweep.id))
    for number, (_, kind, message) in enumerate(what.values()):
        row = failures[number]
        assert row["execution_status"] == ("failed" if kind else "success")
        assert row["error_type"] == kind
        assert (message or "") in (row["error_message"] or "")
        assert row["run_key"] == found[number]["run_key"]
    assert found[6]["crashes"] == 1
    alone = [by_itself(environment, base.model_copy(update={"parameters": {"marker": marker, "script": {"3": words}}}))
             for words in ("buy 10", "sell 10")]  # fmt: skip
    assert [everything(environment, found[number]["run_id"]) for number in (0, 10)] == alone


def test_what_the_strategy_refuses_together_is_a_failed_trial(environment: Settings) -> None:
    outcome = run({"params": {"fast_period": [8, 5], "slow_period": [8, 13]}})
    assert outcome.sweep.counts == Counts(success=3, failed=1)
    first, *others = runs(environment, outcome.sweep.id)
    assert (first["trial_number"], first["error_type"]) == (0, "RefusedParametersError")
    assert first["error_message"] == "SMA Crossover: fast_period 8 must be below slow_period 8"
    assert first["parameters"] == others[0]["parameters"] | {"slow_period": 8}
    assert stored.failed_trials(environment, outcome.sweep.id)[0].reason == "exception"


def test_failed_trials_can_be_run_again(environment: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "mended"
    scripts = [{"3": "buy 10"}, {"3": "raise until mended"}, {"3": "raise"}]
    first = run({"params": {"script": scripts}}, scripted(parameters={"marker": str(marker)}))
    assert states(environment, first.sweep.id) == ["success", "failed", "failed"]
    marker.touch()

    assert stored.retry_failed(environment, first.sweep.id) == 2
    again = resume(first.sweep.id)

    assert states(environment, again.sweep.id) == ["success", "success", "failed"]
    tries = [(row["trial_number"], row["execution_status"]) for row in runs(environment, first.sweep.id)]
    assert tries == [(0, "success"), (1, "failed"), (1, "success"), (2, "failed"), (2, "failed")]


def test_many_that_kill_their_process_one_after_another_do_not_end_the_sweep(environment: Settings) -> None:
    """Nor that the first does, with which its time is estimated."""
    scripts = [{"2": "kill"}, {"3": "kill"}, {"4": "kill"}, {"5": "buy 10"}]
    outcome = run({"params": {"script": scripts}}, scripted(), workers=1)
    assert states(environment, outcome.sweep.id) == ["failed", "failed", "failed", "success"]


@pytest.mark.parametrize("word", ["exit", "hang"])
def test_a_first_trial_that_does_not_come_to_an_end(
    word: str, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_sweep, "_LONGEST_PROBE", 1.0)
    outcome = run({"params": {"script": [{"2": word}, {"2": "buy 10"}]}, "timeout": "1s"}, scripted(), workers=1)
    assert states(environment, outcome.sweep.id) == ["failed", "success"]
    assert outcome.estimate.seconds is None


def test_loading_bars_counts_for_no_trial(environment: Settings) -> None:
    """Those of the second period take longer to come than a trial may."""
    base = request(strategy="tests.scripted:Scripted", symbol="WALK", source="synthetic", timeframe="1-MINUTE")
    periods = [{"start": "2000-01-01", "end": "2000-01-01"}, {"start": "2000-01-01", "end": "2000-04-30"}]
    parameters = {"market_only": True, "script": {"3": "raise"}}
    search = {"periods": periods, "params": {"marker": ["x"]}, "timeout": "0.4s"}
    outcome = run(search, base.model_copy(update={"parameters": parameters}), workers=1)
    assert table(environment, outcome.sweep.id)[0]["reason"] == "exception"


# -- refused -------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown parameter": ({"params": {"fast_perod": [3]}}, {}, "no parameter 'fast_perod'"),
    "empty axis": ({"params": {"fast_period": []}}, {}, "empty"),
    "refused by the strategy at every point": (
        {"params": {"fast_period": [20, 30], "slow_period": [10, 20]}}, {}, "20 must be below slow_period 10",
    ),
    "value of a wrong type": ({"params": {"fast_period": [3, "x"]}}, {}, "fast_period"),
    "value twice": ({"params": {"fast_period": [3, 3.0]}}, {}, "3.0 twice"),
    "symbol twice": ({"symbols": ["AAPL", "AAPL"]}, {}, "AAPL twice"),
    "impossible constraint": ({**FOUR, "constraints": ["fast_period > slow_period"]}, {}, "none of the 4 points"),
    "unknown name in a constraint": ({**FOUR, "constraints": ["fast < slow_period"]}, {}, "fast"),
    "nothing to vary": ({}, {}, "Name what to vary"),
    "symbol without bars": ({"symbols": ["AAPL", "NOPE"]}, {}, "NOPE"),
    "period without bars for one of two symbols": (
        {"symbols": ["AAPL", "SHORT"], "periods": [{"start": "2009-02-01", "end": "2009-03-01"},
                                                   {"start": "2008-01-01", "end": "2008-06-30"}]}, {}, "SHORT",
    ),
    "short sales with CASH for one value": ({"params": {"allow_short": [False, True]}}, {}, "margin account"),
    "unknown objective": ({**FOUR, "objective": "sharp_ratio"}, {}, "sharpe_ratio"),
    "tpe without a budget": ({**FOUR, "sampler": "tpe"}, {}, "budget.trials"),
    "unknown strategy": (FOUR, {"strategy": "no_such_strategy"}, "no_such_strategy"),
    "symbol without bars in the base": (FOUR, {"symbol": "NOPE"}, "NOPE"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    kind: str, environment: Settings, home: Path
) -> None:
    search, base, words = REFUSED[kind]
    if "SHORT" in str(search):
        add_bars(home, waves("SHORT"), replace=True)
    with pytest.raises(NtraderError) as caught:
        run(search, request(**base))
    assert words in f"{caught.value.message} {caught.value.hint}"
    with connect(environment) as connection:
        for name in ("sweeps", "trials", "backtest_runs"):
            assert connection.execute(f"SELECT count(*) AS n FROM {name}").fetchone() == {"n": 0}


# -- budgets and samplers ------------------------------------------------------------------------------------


def test_a_budget_of_trials(environment: Settings) -> None:
    outcome = run({**FOUR, "budget": {"trials": 3}})
    assert outcome.sweep.counts == Counts(success=3)
    assert [row["point"]["values"]["slow_period"] for row in table(environment, outcome.sweep.id)] == [8, 13, 8]


def test_a_budget_of_time_ends_a_sweep_that_can_go_on(environment: Settings) -> None:
    scripts = [{"3": f"sleep 0.15; buy {number}"} for number in range(1, 31)]
    out_of_time = run({"params": {"script": scripts}, "budget": {"wall": 1.5}}, scripted())
    assert out_of_time.sweep.state == "out of time"
    assert 0 < out_of_time.sweep.counts.success < 30

    done = run({"params": {"script": scripts}}, scripted())

    assert (done.sweep.id, done.sweep.state, done.sweep.counts.success) == (out_of_time.sweep.id, "finished", 30)
    assert len(runs(environment, done.sweep.id)) == 30


TPE = {
    "params": {"fast_period": {"int_uniform": [2, 30]}, "risk_percent": {"uniform": [0.5, 3.0]}},
    "sampler": "tpe",
    "batch": 6,
    "budget": {"trials": 20},
    "seed": 3,
}


def points_and_digests(settings: Settings, sweep_id: int) -> list[tuple[object, object]]:
    return [(trial.point, trial.result_digest) for trial in stored.all_trials(settings, sweep_id)]


def test_tpe_is_the_same_with_one_worker_with_four_and_interrupted(environment: Settings) -> None:
    base = request(end="2008-03-31")
    one = run(TPE, base, workers=1)
    expected = points_and_digests(environment, one.sweep.id)
    assert len(expected) == 20
    assert len({str(point) for point, _ in expected}) == 20

    four = run(TPE, base, workers=4, rerun=True)
    assert points_and_digests(environment, four.sweep.id) == expected

    left = begin(environment, TPE, base, trials=2, rerun=True)
    assert begin(environment, {**TPE, "timeout": "9s"}, base, trials=3, rerun=True) == left
    with interrupted_at(12), pytest.raises(Interruption):
        run(TPE, base, rerun=True)
    assert stored.get_sweep(environment, str(left)).state == "interrupted"
    assert run(TPE, base, rerun=True).sweep.id == left
    assert points_and_digests(environment, left) == expected
    assert len(runs(environment, left)) == 20


@contextmanager
def interrupted_at(done: int) -> Iterator[None]:
    """As by Ctrl-C when so many trials are done."""

    def listener(each: Standing) -> None:
        if each.done >= done:
            raise Interruption(2)

    standing.listen(listener)
    try:
        yield
    finally:
        standing.listen(None)


# -- seen ----------------------------------------------------------------------------------------------------


def test_how_far_it_is_can_be_followed_here_and_in_prefect(environment: Settings) -> None:
    heard: list[Standing] = []
    expected: list[int] = []
    standing.listen(heard.append, lambda sweep_id, estimate: expected.append(estimate.trials))
    try:
        outcome = run(FOUR, verify_best=True)
    finally:
        standing.listen(None)

    assert expected == [4]
    assert [each.done for each in heard] == sorted(each.done for each in heard)
    assert (heard[0].done, heard[-1].done, {each.total for each in heard}) == (0, 4, {4})
    assert outcome.best is not None
    assert (heard[-1].best, heard[-1].best_trial) == (outcome.best.metrics["sharpe_ratio"], outcome.best.trial_number)
    assert outcome.sweep.verified is True
    assert outcome.checked is not None and outcome.checked.holds
    with get_client(sync_client=True) as client:
        assert outcome.sweep.flow_run_id is not None
        flow_run = client.read_flow_run(outcome.sweep.flow_run_id)
        assert f"sweep:{outcome.sweep.id}" in flow_run.tags
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]))
        )
    assert sorted(str(artifact.type) for artifact in artifacts) == ["image", "markdown", "progress", "table"]
    assert next(artifact.data for artifact in artifacts if artifact.type == "progress") == 100


def test_a_chunk_that_is_handed_out_again_runs_what_it_holds(environment: Settings) -> None:
    """As Dask does with the chunk of a worker that it has lost: what that one took would be nobody's for minutes."""
    opening = opened(environment, {"params": {"fast_period": {"range": [5, 20, 5]}}})
    chunk_id, watched = uuid4(), Watched()
    held = reserve(environment, opening.sweep_id, chunk_id, owner(), Portion(2))

    report = watched.run(environment, opening.sitting, Share(Portion(1), 60), lambda *_: None, chunk_id)
    watched.stop()

    assert (report.saved, [trial.number for trial in held]) == (2, [0, 1])
    assert states(environment, opening.sweep_id) == ["success", "success", "waiting", "waiting"]
