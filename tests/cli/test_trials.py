"""`ntrader sweep show` as one types it, and the other commands that name a sweep."""

from __future__ import annotations

import csv
import io
import json

import pytest

from cli.trials import axis_text
from ntrader.settings import Settings
from storage.labels import delete_runs
from storage.sweeps import finish_sweep, retry_failed
from tests.cli.conftest import Here
from tests.cli.test_standings import stripped, table
from tests.flows.stored import tamper
from tests.storage.sweeps import carried_out, run_ids, stored, written

SEARCH = {
    "params": {"fast_period": {"range": [5, 20, 5]}, "risk_percent": {"uniform": [0.5, 3.0]}},
    "symbols": ["TEST", "OTHER"],
    "periods": [{"start": "2020-01-01", "end": "2020-06-30"}, {"start": "2020-07-01"}],
    "constraints": ["fast_period < slow_period"],
    "sampler": "random",
    "seed": 7,
    "budget": {"trials": 4, "wall": "2h"},
    "timeout": "30s",
}


def section(text: str, title: str) -> list[str]:
    """The lines below the title, up to the next blank one."""
    lines = text.splitlines()
    begin = lines.index(title) + 1
    end = next((number for number in range(begin, len(lines)) if not lines[number]), len(lines))
    return lines[begin:end]


def pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(name, value.strip()) for name, _, value in (line.strip().partition("  ") for line in lines)]


# The sweep


def test_a_sweep_says_what_it_is_and_what_it_searches(here: Here, environment: Settings) -> None:
    stored(environment, [0.1, 0.2, "exception", None], name="everything", **SEARCH)

    answer = here("sweep", "show", "everything")

    assert answer.code == 0
    assert answer.out.splitlines()[0] == "Sweep 1: everything"
    assert dict(pairs(answer.out.splitlines()[2:11])) == {
        "Strategy": "SMA Crossover", "State": "interrupted", "Trials": "3 of 4", "Succeeded": "2", "Failed": "1",
        "Objective": "total_return (maximize)", "Sampler": "random", "Time": "0.0 s", "Best verified": "no",
    }  # fmt: skip
    assert pairs(section(answer.out, "Search space")) == [
        ("symbol", "TEST, OTHER"),
        ("period", "2020-01-01 to 2020-06-30, 2020-07-01 to the last bar"),
        ("fast_period", "5, 10, 15, 20"),
        ("risk_percent", "0.5 to 3.0"),
        ("such that", "fast_period < slow_period"),
        ("seed", "7"),
        ("at most", "4 trials"),
        ("at most", "2:00:00 a sitting"),
        ("timeout", "30 s a trial"),
    ]
    assert dict(pairs(section(answer.out, "The same for all"))) == {"timeframe": "1-DAY", "slow_period": "500"}


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ({"range": [5, 50, 5]}, "5 to 50 by 5 (10 values)"),
        ({"range": [3, -3, -2]}, "3, 1, -1, -3"),
        ({"range": [3, -5, -2]}, "3 to -5 by -2 (5 values)"),
        ({"range": [1, 1_000_000, 1]}, "1 to 1,000,000 (1,000,000 values)"),
        ({"values": [50, 100.5, "fast", True, None]}, "50, 100.5, fast, true, -"),
        ({"values": ["a\nb"]}, "a\\nb"),
        ({"values": list(range(13))}, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (13 values)"),
        ({"uniform": [0.5, 3.0]}, "0.5 to 3.0"),
        ({"log_uniform": [0.001, 1.0]}, "0.001 to 1.0, logarithmic"),
    ],
)
def test_an_axis_can_be_read(axis: dict[str, object], said: str) -> None:
    assert axis_text(axis) == said


def test_drawn_values_are_rounded_in_tables_only(here: Here, environment: Settings) -> None:
    stored(environment, [0.1], params={"fast_period": {"uniform": [1.0, 9.0]}}, sampler="random", budget={"trials": 1})
    tamper(environment, """UPDATE trials SET point = '{"number": 0, "values": {"fast_period": 4.123456789012345}}'""")
    lines = section(here("sweep", "show", "1", "--trials").out, "Trials")
    assert stripped(table("\n".join(lines)))[0][2] == "4.12346"
    (row,) = csv.DictReader(io.StringIO(here("sweep", "show", "1", "--format", "csv").out))
    assert row["params.fast_period"] == "4.123456789012345"


# Rankings


def test_trials_are_ranked_by_the_objective_and_named_as_runs(here: Here, environment: Settings) -> None:
    sweep_id = stored(environment, [0.1, 0.3, "exception", 0.2])
    runs = run_ids(environment, sweep_id)

    answer = here("sweep", "show", str(sweep_id), "--top", "2")

    lines = section(answer.out, "Ranked by total_return, maximize")
    rows = stripped(table("\n".join(lines)))
    assert [row[:4] for row in rows] == [["1", "1", "10", "30.00%"], ["2", "3", "20", "20.00%"]]
    assert [row[-1] for row in rows] == [runs[1][:8], runs[3][:8]]
    assert here("history", "show", rows[0][-1]).out.splitlines()[0] == f"Run {runs[1]}"
    assert answer.err == "Showing 2 of 3 successful trials. More: --top 3\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), [2, 1, 0]),
        (("--by", "total_return"), [2, 1, 0]),
        (("--by", "volatility"), [0, 1, 2]),
        (("--by", "final_balance"), [2, 1, 0]),
        (("--by", "sharpe"), [2, 1, 0]),
    ],
)
def test_each_metric_is_ranked_best_first(
    here: Here, environment: Settings, words: tuple[str, ...], expected: list[int]
) -> None:
    """Without fees and alike in all but its last day: the more it gains the more it moves."""
    stored(environment, [0.1, 0.2, 0.3])
    document = json.loads(here("sweep", "show", "@last", "--json", *words).out)
    assert [trial["trial_number"] for trial in document["trials"]] == expected


def test_the_direction_is_the_sweeps_own_for_its_objective_only(here: Here, environment: Settings) -> None:
    stored(environment, [0.1, 0.2], direction="minimize")
    for words, expected in (((), [0, 1]), (("--by", "final_balance"), [1, 0])):
        found = json.loads(here("sweep", "show", "@last", "--json", *words).out)
        assert [trial["trial_number"] for trial in found["trials"]] == expected


def test_noise_is_held_against_the_best_sharpe_ratio(here: Here, environment: Settings) -> None:
    stored(environment, [0.1, 0.2, 0.3], objective="sharpe_ratio")
    assert "pure noise" in here("sweep", "show", "1").err
    assert here("sweep", "show", "1", "--by", "cagr").err == ""


def test_a_metric_that_is_none_and_two_questions_at_once_are_refused(here: Here, environment: Settings) -> None:
    stored(environment, [0.1])
    answer = here("sweep", "show", "1", "--by", "sharp_ratio")
    assert answer.code == 2
    assert "Did you mean sharpe_ratio?" in answer.err
    assert here("sweep", "show", "1", "--failed", "--trials").code == 2
    assert here("sweep", "show", "2").code == 3


def test_trials_as_rows(here: Here, environment: Settings) -> None:
    sweep_id = stored(environment, [1 / 3, "memory", 0.1])
    answer = here("sweep", "show", "1", "--trials", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [(row["trial_number"], row["state"], row["params.fast_period"], row["reason"]) for row in rows] == [
        ("0", "success", "5", ""), ("1", "failed", "10", "memory"), ("2", "success", "15", ""),
    ]  # fmt: skip
    assert [row["run_id"] for row in rows] == run_ids(environment, sweep_id)
    assert float(rows[0]["total_return"]) == pytest.approx(1 / 3, rel=1e-15)
    assert rows[1]["error_message"] == "it broke: memory\nand so on"
    assert answer.err == ""


def test_a_trial_says_whether_it_was_there_before(here: Here, environment: Settings) -> None:
    stored(environment, [0.1], keys=["a"])
    stored(environment, [None, None], keys=["a"])
    lines = section(here("sweep", "show", "2", "--trials").out, "Trials")
    assert [row[1] for row in stripped(table("\n".join(lines)))] == ["there before", "waiting"]
    assert "1, 1 there before" in here("sweep", "show", "2").out


def test_failed_trials_say_why(here: Here, environment: Settings) -> None:
    sweep_id = stored(environment, [0.1, "timeout", "killed"])
    answer = here("sweep", "show", "1", "--failed", "--top", "1")
    (row,) = stripped(table("\n".join(section(answer.out, "Failed trials"))))
    assert row == ["1", "10", "timeout", run_ids(environment, sweep_id)[1][:8], "it broke: timeout"]
    assert answer.err.splitlines() == [
        "Showing 1 of 2 failed trials.",
        "More of one: ntrader history show RUN. To run them again: ntrader sweep retry 1 --failed",
    ]


def test_where_there_is_nothing_yet_that_is_said(here: Here, environment: Settings) -> None:
    stored(environment, [None, None])
    assert here("sweep", "show", "1").err == "No trial has a total_return yet.\n"
    assert here("sweep", "show", "1", "--failed").err == "No trial has failed.\n"
    heading, *rows = here("sweep", "show", "1", "--format", "csv").out.splitlines()
    assert (heading.split(",")[:3], rows) == (["trial_number", "state", "linked"], [])


def test_a_trial_whose_run_is_gone_is_still_counted(here: Here, environment: Settings) -> None:
    sweep_id = stored(environment, [0.1, 0.2])
    delete_runs(environment, run_ids(environment, sweep_id))
    assert "Trials         2 of 2" in here("sweep", "show", "1").out
    lines = section(here("sweep", "show", "1", "--trials").out, "Trials")
    assert [row[-1] for row in stripped(table("\n".join(lines)))] == ["-", "-"]


# Other commands


def test_lists_of_runs_take_a_sweep_by_any_name(here: Here, environment: Settings) -> None:
    first = run_ids(environment, stored(environment, [0.1, "exception"], keys=["a"], name="the first"))
    second_id = written(environment, 2, keys=["a"], name="the second")
    carried_out(environment, second_id, [0.3])
    second = run_ids(environment, second_id)
    assert second[0] == first[0]

    for word, expected in (("1", first), ("the first", first), ("@last", second), ("2", second)):
        listed = here("history", "list", "--sweep", word, "--columns", "run_id", "--format", "csv")
        assert listed.out.split()[1:] == sorted(expected, key=[*first, *second].index)[::-1], word
        exported = here("history", "export", "--sweep", word, "--columns", "run_id", "--asc", "--limit", "1")
        assert exported.out.split()[1:] == [min(expected, key=[*first, *second].index)]
    assert here("history", "list", "--sweep", "the third").code == 3
    assert here("verify", "--sweep", "the third").code == 3
    assert here("canary", "--nautilus", "1.230.0", "--sweep", "the third").code == 3


def test_a_run_names_the_sweeps_that_it_belongs_to(here: Here, environment: Settings) -> None:
    first = stored(environment, [0.1, "exception"], keys=["a"], name="the first")
    for _ in range(7):
        stored(environment, [None], keys=["a"])
    own, failed = run_ids(environment, first)

    context = pairs(section(here("history", "show", own).out, "Execution Context"))

    assert [pair for pair in context if pair[0] in {"Sweep", "Linked by"}] == [
        ("Sweep", "1 (the first), trial 0"),
        *(("Linked by", f"sweep {number}, trial 0") for number in range(2, 7)),
        ("Linked by", "2 more"),
    ]
    document = json.loads(here("history", "show", own, "--json").out)
    assert (document["sweep_id"], document["trial_number"]) == (first, 0)
    assert document["linked_by"] == [{"sweep_id": number, "trial_number": 0} for number in range(2, 9)]

    retry_failed(environment, first)
    assert "1, trial 1, which was to be run again since" in here("history", "show", failed).out


def test_a_best_trial_that_was_there_before_is_not_run_once_more(here: Here, environment: Settings) -> None:
    stored(environment, [0.1], keys=["a"])
    again = written(environment, 1, keys=["a"])
    finish_sweep(environment, again, best_trial=0)

    said = dict(pairs(here("sweep", "show", str(again)).out.splitlines()[2:11]))

    assert said["Best verified"] == "not again, it was there before"


def test_a_run_of_no_sweep_names_none(here: Here, environment: Settings) -> None:
    from tests.cli.test_history import saved

    run = saved(environment)
    assert "Sweep" not in here("history", "show", run).out
    assert json.loads(here("history", "show", run, "--json").out)["linked_by"] == []


def test_the_best_trial_is_named_wherever_a_run_is(here: Here, environment: Settings) -> None:
    runs = run_ids(environment, stored(environment, [0.1, 0.3, 0.2], name="the first"))
    assert here("history", "show", "@best:1").out.splitlines()[0] == f"Run {runs[1]}"
    here("history", "name", "@best:the first", "golden")
    assert json.loads(here("history", "show", "golden", "--json").out)["run_id"] == runs[1]
    compared = json.loads(here("compare", "@best:@last", runs[0], "--json").out)
    assert [run["run_id"] for run in compared["runs"]] == [runs[1], runs[0]]


def test_a_file_of_a_sweep_is_no_run(here: Here) -> None:
    answer = here("run-backtest", "--config", "config/sweeps/sma_grid.yaml")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "Error: config/sweeps/sma_grid.yaml describes a sweep, not a single run",
        "Run it with `ntrader sweep run config/sweeps/sma_grid.yaml`.",
    ]


def test_the_shell_is_told_sweeps(here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(environment, [0.1], name="golden")

    def offered(line: str) -> list[str]:
        monkeypatch.setenv("_NTRADER_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        return here().out.split("\n")[:-1]

    assert offered("ntrader sweep show ") == ["@last", "1", "golden"]
    assert offered("ntrader sweep resume g") == ["golden"]
    assert offered("ntrader history list --sweep @") == ["@last"]
    assert offered("ntrader history show @b") == ["@best:@last", "@best:1", "@best:golden"]
