"""The commands that start nothing: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ntrader.settings import Settings
from storage import recording
from storage.database import HEAD
from tests import factories
from tests.cli.conftest import Here


def a_success(settings: Settings) -> str:
    run, execution = factories.new_run(), factories.execution()
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, factories.metrics_of(execution))
    return str(run.run_id)


def a_failure(settings: Settings) -> str:
    run = factories.new_run()
    recording.start_run(settings, run)
    recording.save_failure(
        settings, run.run_id, recording.Failure("failed", "StrategyError", "it broke", "Traceback: x")
    )
    return str(run.run_id)


def test_an_empty_history_says_what_to_do(here: Here) -> None:
    answer = here("history", "list")

    assert answer.code == 0
    assert answer.out == ""
    assert "No runs yet" in answer.err


def test_the_list_is_newest_first_with_rounded_numbers(here: Here, environment: Settings) -> None:
    first, second = a_success(environment), a_failure(environment)

    lines = here("history", "list").out.splitlines()

    assert re.split(r" {2,}", lines[0].rstrip()) == [
        "Run ID",
        "Date/Time (UTC)",
        "Strategy",
        "Symbol",
        "Return",
        "Sharpe",
        "Max DD",
        "Status",
        "Parameters",
    ]
    assert lines[2].startswith(second[:8])
    assert " failed " in lines[2]
    assert lines[3].startswith(first[:8])
    assert "2.00%" in lines[3]
    assert "-1.49%" in lines[3]


def test_the_list_can_be_short(here: Here, environment: Settings) -> None:
    for _ in range(3):
        a_failure(environment)

    assert len(json.loads(here("history", "list", "-n", "2", "--json").out)["runs"]) == 2


def test_show_has_every_section(here: Here, environment: Settings) -> None:
    run_id = a_success(environment)

    answer = here("history", "show", run_id[:8])

    headings = ["Strategy Configuration", "Execution Context", "Performance Metrics", "Returns", "Risk Metrics"]
    positions = [answer.out.index(f"{heading}\n") for heading in [*headings, "Trading Statistics"]]
    assert positions == sorted(positions)
    assert answer.out.startswith(f"Run {run_id}\n")
    assert "next open" in answer.out


def test_show_of_a_failure_has_error_and_stack_trace(here: Here, environment: Settings) -> None:
    answer = here("history", "show", a_failure(environment))

    assert "it broke" in answer.out
    assert "Traceback: x" in answer.out
    assert "Performance Metrics" not in answer.out


@pytest.mark.parametrize("reference", ["@last", "abcd", "no such run", "00000000-0000-0000-0000-000000000000"])
def test_a_run_that_is_not_there_ends_with_3(here: Here, reference: str) -> None:
    answer = here("history", "show", reference)

    assert answer.code == 3
    assert answer.out == ""
    assert answer.err.startswith("Error: ")


@pytest.mark.parametrize(
    "words",
    [
        ("histroy",),
        ("history", "lst"),
        ("history", "list", "--limit", "x"),
        ("history", "list", "-n", "0"),
        ("history", "show"),
    ],
)
def test_a_slip_of_the_keyboard_ends_with_2(here: Here, words: tuple[str, ...]) -> None:
    answer = here(*words)

    assert answer.code == 2
    assert answer.out == ""
    assert answer.err


def test_strategies_are_listed_and_shown(here: Here) -> None:
    listed = json.loads(here("strategy", "list", "--json").out)["strategies"]
    assert {(entry["key"], entry["strategy_type"]) for entry in listed} == {
        ("sma_crossover", "trend_following"),
        ("mean_reversion", "mean_reversion"),
        ("momentum", "momentum"),
    }

    shown = json.loads(here("strategy", "show", "SMA Crossover", "--json").out)
    defaults = {parameter["name"]: parameter["default"] for parameter in shown["parameters"]}
    assert (defaults["fast_period"], defaults["slow_period"], defaults["risk_percent"]) == (10, 50, 2.0)
    assert all(parameter["description"] for parameter in shown["parameters"])


def test_a_table_of_strategies_is_for_reading(here: Here) -> None:
    assert "RSI Mean Reversion" in here("strategy", "list").out
    assert "fast_period" in here("strategy", "show", "sma_crossover").out


def test_data_are_imported_listed_and_checked(environment: Settings, here: Here, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("Date,Open,High,Low,Close,Volume\n2020-01-02,10,11,9,10.5,100\n2020-01-03,10.5,12,10,11,200\n")

    imported = here("data", "import", "--csv", str(path), "--symbol", "CLITEST", "--venue", "XTEST")
    listed = here("data", "list")
    checked = here("data", "check", "--symbol", "CLITEST")

    assert imported.code == 0, imported.err
    assert "2 bars read, 2 added" in imported.out
    assert "CLITEST" in listed.out
    assert "AAPL" in listed.out
    assert "2 bars, no bad rows, 0 gaps" in checked.out


def test_bad_data_are_refused_with_4(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("Date,Open,High,Low,Close\n2020-01-02,10,9,9,10.5\n")

    answer = here("data", "check", "--csv", str(path))

    assert answer.code == 4
    assert f"{path}, line 2" in answer.err


def test_the_schema_is_reported_and_checked(here: Here, environment: Settings) -> None:
    assert here("db", "current").out == f"{HEAD}\n"
    assert here("db", "check").code == 0
    assert here("db", "upgrade").code == 0


def test_a_schema_that_is_behind_ends_with_5(here: Here, environment: Settings) -> None:
    from storage import migrations

    migrations.downgrade(environment, "base")

    for words in (("history", "list"), ("history", "show", "@last"), ("db", "check")):
        answer = here(*words)
        assert answer.code == 5
        assert "ntrader db upgrade" in answer.err
    assert here("db", "upgrade").code == 0
    assert here("history", "list").code == 0


def test_a_database_that_is_down_ends_with_5(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/runs")

    answer = here("history", "list")

    assert answer.code == 5
    assert "secret" not in answer.err


def test_a_setting_that_does_not_fit_ends_with_2(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_POOL_SIZE", "many")

    answer = here("history", "list")

    assert answer.code == 2
    assert "DB_POOL_SIZE must be a whole number, got 'many'" in answer.err


def test_debug_shows_the_traceback(here: Here) -> None:
    assert "Traceback" in here("history", "show", "@last", "--debug").err


def test_status_masks_the_password(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db.example/runs")

    answer = here("status")

    assert answer.code == 0
    assert "me:***@db.example" in answer.out
    assert "secret" not in answer.out + answer.err


def test_status_says_where_the_database_does_not_answer(
    here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@127.0.0.1:9/runs")
    dead = json.loads(here("status", "--json").out)["services"][0]
    monkeypatch.setenv("DATABASE_URL", environment.database_url or "")
    alive = json.loads(here("status", "--json").out)["services"][0]

    assert (dead["state"], dead["version"]) == ("not answering", None)
    assert alive["state"] == "yours"
    assert int(alive["version"].split(".")[0]) >= 16


def test_version_and_help_need_nothing(here: Here) -> None:
    assert here("--version").out.startswith("ntrader ")
    assert "run-backtest" in here("--help").out


def test_a_home_that_cannot_be_made_is_said(here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("NTRADER_HOME", str(tmp_path / "file" / "home"))

    answer = here("history", "list")

    assert answer.code == 5
    assert str(tmp_path / "file") in answer.err
    assert "Traceback" not in answer.err


def test_colours_stay_out_of_pipes(here: Here, environment: Settings) -> None:
    a_success(environment)

    assert "\x1b" not in here("history", "list").out
    assert os.linesep in here("history", "list").out


def test_echoed_sql_stays_out_of_the_data(here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_ECHO", "true")
    from ntrader.settings import load_settings

    a_failure(load_settings())

    answer = here("history", "list", "--json")

    assert len(json.loads(answer.out)["runs"]) == 1
    assert "INSERT INTO backtest_runs" not in answer.out


def test_the_first_command_of_all_may_be_a_look(
    environment: Settings, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded database is created and migrated by whichever command comes first."""
    monkeypatch.delenv("DATABASE_URL")

    answer = here("history", "list")

    assert answer.code == 0
    assert "No runs yet" in answer.err
