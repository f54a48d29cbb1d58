"""`ntrader reproduce` and `ntrader verify` as one types them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage.runs import get_run, list_runs
from tests.cli.conftest import Answer, Here, finish
from tests.flows.stored import Own, make_own, tamper

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str, environment: Settings) -> Own:
    """A package of one's own in the current folder; commands that run in this process find the services there."""
    monkeypatch.chdir(tmp_path)
    return make_own(tmp_path)


@pytest.fixture
def first(own: Own, here: Here) -> str:
    """A stored run of it."""
    return run_of(own, here)


def run_of(own: Own, here: Here, *words: str) -> str:
    asked = ["run-backtest", "-s", own.strategy, "--symbol", "OWN", "--csv", str(own.data.path), "--json", *words]
    answer = here(*asked)
    assert answer.code == 0, answer.err
    return str(json.loads(answer.out)["run_id"])


def lines(answer: Answer) -> list[str]:
    return answer.out.splitlines()


# Identical


def test_a_reproduction_says_what_was_stored_and_that_it_is_identical(
    own: Own, first: str, here: Here, environment: Settings
) -> None:
    answer = here("reproduce", first)

    assert answer.code == 0, answer.err
    new = list_runs(environment, 10).runs[0]
    said = lines(answer)
    assert said[0] == f"Reproducing run {first}"
    assert "Stored Configuration" in said
    assert any(own.strategy in line for line in said)
    assert any(line.strip().startswith("Total return") for line in said)
    assert said[-2].startswith("identical: ")
    counts = [word for word in said[-2].replace(",", "").split() if word.isdigit()]
    assert len(counts) == 3
    assert said[-2].endswith("equity points")
    assert said[-1] == f"Run ID: {new.run_id}"
    assert str(new.reproduced_from_run_id) == first


def test_a_process_of_its_own_comes_to_the_same(own: Own, first: str, command: Command) -> None:
    answer = finish(command("reproduce", first[:8], "--json", PYTHONPATH=str(own.folder), PYTHONHASHSEED="12345"))

    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document["identical"] is True
    assert document["original"]["run_id"] == first
    assert document["result_digest"] == document["original"]["result_digest"]
    assert document["verdict"]["moved"] == []
    assert document["explanation"] is None


def test_what_changed_without_effect_is_said(own: Own, first: str, here: Here) -> None:
    own.change("rules.py", "from . import MARGIN", "from . import MARGIN  # ours")

    answer = here("reproduce", first)

    assert answer.code == 0
    assert "Code changed since, without effect on the result." in lines(answer)


def test_not_saving_is_said(own: Own, first: str, here: Here, environment: Settings) -> None:
    answer = here("reproduce", first, "--no-persist")

    assert answer.code == 0
    assert "The new run was NOT saved (--no-persist)." in answer.err
    assert "Run ID: " not in answer.out
    assert len(list_runs(environment, 10).runs) == 1


# Different


def test_another_line_of_code_is_shown_and_named(own: Own, first: str, here: Here) -> None:
    own.change("__init__.py", "MARGIN = 1.0", "MARGIN = 1.5")

    answer = here("reproduce", first)

    assert answer.code == 6
    said = lines(answer)
    assert "Inputs that moved: code" in said
    assert f"  code: {own.package} changed, 1 lines added, 1 removed" in said
    assert {"    -MARGIN = 1.0", "    +MARGIN = 1.5"} <= set(said)
    assert any(line.startswith("The first event that differs: ") for line in said)
    assert any(line.startswith("different: Caused by code alone: ") for line in said)
    assert said[-1].startswith("Run ID: ")


def test_another_bar_is_shown_and_named(own: Own, first: str, here: Here) -> None:
    day = max(own.data.rows, key=lambda each: own.data.rows[each][3])
    before = own.data.rows[day][3]
    own.data.rows[day][3] = round(before + 0.01, 2)
    own.data.write()

    answer = here("reproduce", first)

    assert answer.code == 6
    assert f"  data: 1 bar changed, on {day}" in lines(answer)
    assert f"close {before!r} -> close {own.data.rows[day][3]!r}" in answer.out
    assert "different: Caused by data alone: " in answer.out


def test_bars_that_were_not_kept_are_named_by_their_days(own: Own, here: Here) -> None:
    run = run_of(own, here, "--no-keep-data")
    day = max(own.data.rows, key=lambda each: own.data.rows[each][3])
    own.data.rows[day][3] = round(own.data.rows[day][3] + 0.01, 2)
    own.data.write()

    answer = here("reproduce", run)

    assert answer.code == 6
    assert f"  data: other bars on {day}; the original ones were not kept" in lines(answer)
    assert "different: Caused by data: " in answer.out
    refused = here("reproduce", run, "--with-original-data")
    assert refused.code == 3
    assert "were not kept" in refused.err


def test_a_difference_is_one_json_document(own: Own, first: str, here: Here) -> None:
    own.change("__init__.py", "MARGIN = 1.0", "MARGIN = 1.5")

    answer = here("reproduce", first, "--json")

    assert answer.code == 6
    document = json.loads(answer.out)
    assert document["identical"] is False
    assert document["verdict"]["moved"] == ["code"]
    assert document["verdict"]["divergence"]["kind"] == "fill"
    assert document["explanation"]["cause"]["factors"] == ["code"]
    assert document["explanation"]["cause"]["proven"] is True
    (module,) = document["explanation"]["code"]["modules"]
    assert module["module"] == own.package


# What cannot be run as it is, and what to do


def test_a_strategy_that_is_gone_ends_with_2_and_runs_from_what_was_kept(own: Own, first: str, here: Here) -> None:
    shutil.rmtree(own.folder / own.package)

    answer = here("reproduce", first)

    assert answer.code == 2
    assert "Stored Configuration" in answer.out
    assert f"the strategy of run {first} cannot be run any more: there is no module" in answer.err
    assert "add --with-original-code" in answer.err
    assert "Traceback" not in answer.err
    again = here("reproduce", first, "--with-original-code")
    assert (again.code, "identical: " in again.out) == (0, True)
    shown = here("history", "show", first, "--code")
    assert shown.code == 0
    assert f"# {own.package}.mine" in shown.out
    assert "class Mine(Strategy):" in shown.out
    assert f"# {own.package}.inner.steps" in shown.out
    assert "ntrader.engine" not in shown.out


def test_a_parameter_that_is_gone_ends_with_2(own: Own, first: str, here: Here) -> None:
    own.file("mine.py").write_text(own.file("mine.py").read_text().replace("limit", "bound"))

    answer = here("reproduce", first)

    assert answer.code == 2
    assert "has no parameter 'limit'" in answer.err
    assert "--with-original-code" in answer.err


def test_bars_that_are_gone_end_with_4_and_run_from_what_was_kept(
    own: Own, first: str, here: Here, environment: Settings
) -> None:
    own.data.path.unlink()

    answer = here("reproduce", first)

    assert answer.code == 4
    assert str(own.data.path) in answer.err
    assert "add --with-original-data" in answer.err
    failed = list_runs(environment, 10).runs[0]
    assert (failed.execution_status, str(failed.reproduced_from_run_id)) == ("failed", first)
    again = here("reproduce", first, "--with-original-data")
    assert (again.code, "identical: " in again.out) == (0, True)
    refused = here("reproduce", str(failed.run_id))
    assert refused.code == 2
    assert "is failed and has no result to compare with" in refused.err


def test_a_result_that_was_tampered_with_ends_with_5(own: Own, first: str, here: Here, environment: Settings) -> None:
    tamper(environment, "UPDATE equity_curves SET equity[3] = equity[3] + 0.01")

    answer = here("reproduce", first)

    assert answer.code == 5
    assert "is not the one that was saved" in answer.err


def test_a_run_that_nobody_knows_ends_with_3(here: Here) -> None:
    assert here("reproduce", "12345678").code == 3
    assert here("verify", "12345678").code == 3


def test_the_code_of_a_run_without_any_is_not_found(own: Own, here: Here) -> None:
    own.data.path.write_text("date,open\n")
    here("run-backtest", "-s", own.strategy, "--symbol", "OWN", "--csv", str(own.data.path))

    answer = here("history", "show", "@last", "--code")

    assert answer.code == 3
    assert "was not kept" in answer.err


# Interrupted

# While the file is there, whoever asks for a step waits.
WAIT = """import time
from pathlib import Path


def step() -> float:
    while Path({marker!r}).exists():
        Path({marker!r}).with_suffix(".begun").touch()
        time.sleep(0.05)
    return 1.0
"""


def test_ctrl_c_leaves_the_new_run_interrupted(own: Own, command: Command, environment: Settings, here: Here) -> None:
    marker = own.folder / "hang"
    own.file("inner/steps.py").write_text(WAIT.format(marker=str(marker)))
    first = run_of(own, here)
    marker.touch()
    process = command("reproduce", first, PYTHONPATH=str(own.folder))
    begun = marker.with_suffix(".begun")
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    answer = finish(process, timeout=20)

    assert answer.code == 130
    assert "Traceback" not in answer.err
    new = list_runs(environment, 10).runs[0]
    assert (new.execution_status, new.error_message) == ("interrupted", "interrupted by SIGINT")
    assert str(new.reproduced_from_run_id) == first
    assert f"Run {new.run_id} is recorded as interrupted." in answer.err
    assert get_run(environment, first).execution_status == "success"


# Verify


def test_verify_lists_the_verdicts_and_ends_with_6_if_one_differs(own: Own, here: Here) -> None:
    runs = [run_of(own, here), run_of(own, here, "--set", "quantity=3")]
    same = here("verify", *runs)
    own.change("__init__.py", "MARGIN = 1.0", "MARGIN = 1.5")
    changed = here("verify", "--last", "2", "--json")

    assert same.code == 0
    assert "2 of 2 identical." in same.err
    assert all(run[:8] in same.out for run in runs)
    assert same.out.count("identical") == 2
    assert changed.code == 6
    assert "0 of 2 identical." in changed.err
    rows = json.loads(changed.out)
    assert {row["run_id"] for row in rows} == set(runs)
    assert {(row["verdict"], row["moved"]) for row in rows} == {("different", "code")}
    assert all(row["first_difference"] == "fill 2 at 2020-01-17 00:00:00 UTC" for row in rows)


def test_verify_as_csv_in_a_file(own: Own, first: str, here: Here) -> None:
    path = own.folder / "verdicts.csv"
    answer = here("verify", first, "--format", "csv", "-o", str(path))
    printed = here("verify", first, "--format", "csv")

    assert (answer.code, answer.out) == (0, "")
    (row,) = csv.DictReader(io.StringIO(path.read_text()))
    assert (row["run_id"], row["symbol"], row["verdict"]) == (first, "OWN", "identical")
    assert path.read_text() == printed.out


def test_verify_goes_on_after_a_run_that_cannot_be_run(own: Own, first: str, here: Here) -> None:
    other = json.loads(here("run-backtest", "-s", "momentum", "--symbol", "AAPL", "--json").out)["run_id"]
    shutil.rmtree(own.folder / own.package)

    answer = here("verify", first, other)

    assert answer.code == 6
    assert "1 of 2 identical." in answer.err
    assert "not run" in answer.out
    assert "there is no module" in answer.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [([], 2, "no run is named"), (["--last", "3"], 3, "no successful run"), (["abcd", "--last", "3"], 2, "together"),
     (["--last", "0"], 2, "--last")],
)  # fmt: skip
def test_verify_wants_to_know_what(words: list[str], code: int, said: str, here: Here) -> None:
    answer = here("verify", *words)

    assert answer.code == code
    assert said in answer.err
