"""`ntrader run-backtest`, as a process of its own on real parts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import psycopg
import pytest

from ntrader.results import Metrics
from ntrader.settings import Settings
from storage.models import BacktestRun
from storage.runs import get_run, list_runs
from tests.cli.conftest import Here, finish

Command = Callable[..., subprocess.Popen[str]]
MAIN_JOB = [
    "run-backtest",
    "--strategy",
    "sma_crossover",
    "--config",
    "config/strategies/sma_crossover.yaml",
    "--symbol",
    "AAPL",
    "--start-date",
    "2008-01-01",
    "--end-date",
    "2012-12-31",
    "--initial-capital",
    "100000",
]


def test_the_main_job_says_what_came_of_it(command: Command, environment: Settings, tmp_path: Path) -> None:
    answer = finish(command(*MAIN_JOB, TMPDIR=str(tmp_path)))

    assert answer.code == 0
    (run,) = list_runs(environment, 10).runs
    lines = answer.out.splitlines()
    assert lines[0] == "SMA Crossover on AAPL 2008-01-01 to 2012-12-31"
    for words in ("Total return", "Sharpe ratio", "Max drawdown", "Trades", "Win rate", "Duration"):
        assert any(line.strip().startswith(words) for line in lines)
    assert lines[-2:] == ["Results saved to database!", f"Run ID: {run.run_id}"]
    assert "Running ..." in answer.err
    assert run.config_path == "config/strategies/sma_crossover.yaml"
    assert not list(tmp_path.iterdir())


def test_json_is_one_document_with_the_columns_of_the_tables(
    command: Command, environment: Settings, here: Here
) -> None:
    answer = finish(command(*MAIN_JOB, "--json", "--set", "fast_period=5"))

    document = json.loads(answer.out)
    unstored = {"id"}
    assert set(document) == (set(BacktestRun.model_fields) - unstored) | {"metrics"}
    assert list(document)[:4] == ["run_id", "execution_status", "run_key", "result_digest"]
    assert list(document["metrics"]) == [field.name for field in fields(Metrics)]
    assert document["config_snapshot"]["strategy"]["parameters"]["fast_period"] == 5
    listed = json.loads(here("history", "list", "--json").out)["runs"]
    assert listed == [document]
    assert json.loads(here("history", "show", "@last", "--json").out) == document | {"linked_by": []}


def test_flags_alone_are_enough(command: Command) -> None:
    answer = finish(command("run-backtest", "--strategy", "Momentum", "--symbol", "MSFT"))

    assert answer.code == 0
    assert answer.out.startswith("Momentum on MSFT 2005-03-01 to 2013-03-01")


def test_a_failed_run_is_recorded_and_ends_with_4(command: Command, environment: Settings) -> None:
    answer = finish(command("run-backtest", "--strategy", "sma_crossover", "--symbol", "APPL", "--json"))

    assert answer.code == 4
    document = json.loads(answer.out)
    assert document["execution_status"] == "failed"
    assert document["metrics"] is None
    assert "'APPL' is not in the sample" in answer.err
    assert "Did you mean AAPL?" in answer.err
    assert "Traceback" not in answer.err
    assert get_run(environment, document["run_id"]).error_type == "DataNotFoundError"


def test_dates_outside_the_data_say_what_there_is(command: Command) -> None:
    answer = finish(command("run-backtest", "-s", "momentum", "--symbol", "IBM", "--start-date", "2019-01-01"))

    assert answer.code == 4
    assert "from 2005-03-01 to 2013-03-01" in answer.err
    assert answer.out.startswith("Run ID: ")


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_not_saving_says_so(command: Command, environment: Settings, how: str) -> None:
    words, variables = (["--no-persist"], {}) if how == "flag" else ([], {"ENABLE_BACKTEST_PERSISTENCE": "false"})

    answer = finish(command(*MAIN_JOB, *words, **variables))

    assert answer.code == 0
    assert "NOT saved" in answer.err
    assert "saved to database" not in answer.out
    assert "Run ID" not in answer.out
    assert list_runs(environment, 10).runs == []


def test_a_strategy_of_ones_own_runs_by_its_import_path(command: Command, tmp_path: Path) -> None:
    """The README's example, word for word."""
    readme = Path("README.md").read_text()
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "mine.py").write_text(readme.split("```python\n# my_package/mine.py")[1].split("```")[0])
    config = tmp_path / "mine.yaml"
    config.write_text(readme.split("```yaml\n")[1].split("```")[0])

    answer = finish(command("run-backtest", "--config", str(config), PYTHONPATH=str(tmp_path)))

    assert answer.code == 0, answer.err
    assert answer.out.startswith("MyStrategy on MSFT")


def test_what_a_strategy_prints_stays_out_of_the_data(command: Command, tmp_path: Path) -> None:
    config = tmp_path / "print.yaml"
    config.write_text('strategy: tests.scripted:Scripted\nparameters: {script: {"3": "print"}}\ndata: {symbol: AAPL}\n')

    answer = finish(command("run-backtest", "--config", str(config), "--json"))

    assert json.loads(answer.out)["execution_status"] == "success"
    assert "printed by the strategy" in answer.err


def test_a_database_that_is_down_stops_the_run_before_it_starts(command: Command) -> None:
    answer = finish(command(*MAIN_JOB, DATABASE_URL="postgresql://me:secret@127.0.0.1:1/runs"))

    assert answer.code == 5
    assert answer.out == ""
    assert "no connection to the database postgresql://me:***@127.0.0.1:1/runs: Connection refused" in answer.err
    assert "DATABASE_URL" in answer.err
    assert "secret" not in answer.err
    assert "Running" not in answer.err


def test_a_schema_that_is_missing_is_said_and_not_mended_in_somebody_elses_database(
    command: Command, environment: Settings
) -> None:
    assert environment.database_url
    with psycopg.connect(environment.database_url.replace("///", "//@/")) as connection:
        connection.execute("DROP TABLE alembic_version")

    answer = finish(command(*MAIN_JOB))

    assert answer.code == 5
    assert "ntrader db upgrade" in answer.err


BAD_REQUESTS = {
    "unknown strategy": (["--strategy", "sma_crosover", "--symbol", "AAPL"], "Did you mean 'sma_crossover'?"),
    "unknown parameter": ([*MAIN_JOB[1:], "--set", "fast_perod=3"], "Did you mean 'fast_period'?"),
    "unfit parameter": ([*MAIN_JOB[1:], "--set", "fast_period=abc"], "fast_period"),
    "fast above slow": ([*MAIN_JOB[1:], "--set", "fast_period=60"], "must be below slow_period 50"),
    "not an assignment": ([*MAIN_JOB[1:], "--set", "fast_period"], "NAME=VALUE"),
    "missing file": (["--config", "config/strategies/sma_crossovr.yaml"], "sma_crossover.yaml"),
    "reversed dates": (["-s", "momentum", "--symbol", "IBM", "--start-date", "2012-01-01", "--end-date", "2011-01-01"],
                       "start 2012-01-01 is after end 2011-01-01"),
    "bad date": (["-s", "momentum", "--symbol", "IBM", "--start-date", "2012-02-30"], "--start-date: '2012-02-30'"),
    "no capital": (["-s", "momentum", "--symbol", "IBM", "--initial-capital", "0"], "initial_capital"),
    "negative capital": (["-s", "momentum", "--symbol", "IBM", "--initial-capital", "-5"], "initial_capital"),
    "words for capital": (["-s", "momentum", "--symbol", "IBM", "--initial-capital", "lots"], "--initial-capital"),
    "nothing at all": ([], "ntrader strategy list"),
    "shorts in a cash account": ([*MAIN_JOB[1:], "--set", "allow_short=true"], "--account-type MARGIN"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_2_before_anything_runs(name: str, here: Here, environment: Settings) -> None:
    words, said = BAD_REQUESTS[name]

    answer = here("run-backtest", *words)

    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert "Opening the database" not in answer.err
    assert list_runs(environment, 10).runs == []


def test_bad_yaml_is_refused_with_file_and_line(here: Here, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("strategy: momentum\ndata: {symbol: AAPL\ninitial_capital: 5\n")

    answer = here("run-backtest", "--config", str(config))

    assert answer.code == 2
    assert f"{config}, line 3" in answer.err
