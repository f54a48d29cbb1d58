"""`ntrader history` as one types it: finding, showing, labelling, deleting and exporting runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pyarrow.parquet
import pytest

from cli.narrow import narrowed
from ntrader.config import build_config
from ntrader.errors import ConfigError
from ntrader.settings import Settings
from ntrader.yaml_file import dump_yaml, read_yaml
from storage import recording
from storage.fields import SORTABLE
from storage.runs import get_run
from tests import factories
from tests.cli.conftest import Here


def saved(settings: Settings, equity: list[float] | None = None, *, status: str = "success", **changes: object) -> str:
    """A run in the database, by its id."""
    run = factories.new_run(**changes)
    recording.start_run(settings, run)
    if status == "success":
        done = factories.execution(factories.run_result(equity, trades=(factories.trade(),)))
        recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    else:
        failure = recording.Failure(status, "StrategyError", "it broke", "Traceback: x")
        recording.save_failure(settings, run.run_id, failure)
    return str(run.run_id)


def configured(symbol: str = "TEST", **parameters: object) -> object:
    return factories.run_config(
        strategy={"path": "ntrader.strategies.sma_crossover:SMACrossover", "parameters": parameters},
        data={"symbol": symbol, "venue": "SIM"},
    )


def ids(text: str) -> list[str]:
    return [run["run_id"] for run in json.loads(text)["runs"]]


# Lists


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["failed", "ibm", "aapl"]),
        (("--symbol", "AAPL"), ["aapl"]),
        (("--symbol", "AAPL", "--symbol", "IBM"), ["ibm", "aapl"]),
        (("--strategy", "sma_crossover"), ["failed", "ibm", "aapl"]),
        (("--strategy", "SMA Crossover", "--status", "failed"), ["failed"]),
        (("--strategy", "momentum"), []),
        (("--strategy-type", "trend_following", "--sort", "sharpe_ratio"), ["ibm", "aapl", "failed"]),
        (("--sort", "total_return", "--asc"), ["aapl", "ibm", "failed"]),
        (("--where", "params.fast_period between 5 and 7"), ["aapl"]),
        (("--where", "not params.fast_period = 5"), ["ibm"]),
        (("--after", "1h"), ["failed", "ibm", "aapl"]),
        (("--before", "1h"), []),
        (("--data-source", "auto", "--limit", "1"), ["failed"]),
        (("--period-end", "2019-12-31"), []),
    ],
)
def test_filters_and_order(here: Here, environment: Settings, words: tuple[str, ...], expected: list[str]) -> None:
    runs = {
        "aapl": saved(environment, [100_000, 101_000, 100_500], config=configured("AAPL", fast_period=5)),
        "ibm": saved(environment, [100_000, 109_000, 109_500], config=configured("IBM", fast_period=9)),
        "failed": saved(environment, status="failed", config=configured("MSFT")),
    }

    answer = here("history", "list", "--json", *words)

    assert answer.code == 0
    assert ids(answer.out) == [runs[name] for name in expected]


@pytest.mark.parametrize("column", SORTABLE)
def test_every_metric_and_date_sorts(here: Here, environment: Settings, column: str) -> None:
    saved(environment)

    assert here("history", "list", "--sort", column).code == 0


def test_pages_say_how_to_go_on(here: Here, environment: Settings) -> None:
    runs = [saved(environment) for _ in range(5)]

    first = here("history", "list", "-n", "2", "--sort", "sharpe_ratio", "--columns", "run_id", "--format", "csv")
    token = re.search(r"--page-token (\S+)", first.err)
    assert token
    assert "Showing 2 of 5 runs" in first.err
    rest = here("history", "list", "-n", "9", "--sort", "sharpe_ratio", "--columns", "run_id", "--format", "csv",
                "--page-token", token[1])  # fmt: skip

    assert [*first.out.split()[1:], *rest.out.split()[1:]] == runs[::-1]
    assert rest.err == ""


def test_a_token_of_another_list_is_refused(here: Here, environment: Settings) -> None:
    for _ in range(3):
        saved(environment)
    token = json.loads(here("history", "list", "-n", "1", "--json").out)["next_page_token"]

    answer = here("history", "list", "--page-token", token, "--sort", "sharpe_ratio")

    assert answer.code == 2
    assert "another order" in answer.err


@pytest.mark.parametrize("limit", ["0", "-5", "2.5", "NaN", "inf", "many", "", "1e99"])
def test_a_limit_that_is_none_is_refused(here: Here, limit: str) -> None:
    answer = here("history", "list", "--limit", limit)

    assert answer.code == 2
    assert "--limit" in answer.err


@pytest.mark.parametrize("limit", ["1e9", "1_000_000", "1000000000000"])
def test_a_limit_may_be_as_large_as_one_likes(here: Here, environment: Settings, limit: str) -> None:
    run = saved(environment)

    assert ids(here("history", "list", "--limit", limit, "--json").out) == [run]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE backtest_runs; --", "%(v0)s %s {}", "Ünïcödé ☃", "NaN", '"', "\\", "\x00", "\udc80"]
)
@pytest.mark.parametrize(
    "option", ["--strategy", "--strategy-type", "--symbol", "--data-source", "--tag", "--where", "--columns", "--sort"]
)
def test_no_text_does_harm(here: Here, environment: Settings, option: str, text: str) -> None:
    saved(environment)

    answer = here("history", "list", option, f"k={text}" if option == "--tag" else text)

    assert answer.code in {0, 2}
    assert "unexpected" not in answer.err
    assert "refused" not in answer.err
    assert len(ids(here("history", "list", "--json").out)) == 1


def test_columns_are_ones_own(here: Here, environment: Settings) -> None:
    run = saved(environment, config=configured(fast_period=7))
    here("history", "tag", run, "team=fx")

    answer = here("history", "list", "--columns", "params.fast_period,tag.team,metrics.sharpe_ratio", "--json")

    (row,) = json.loads(answer.out)["runs"]
    assert row["params.fast_period"] == 7
    assert row["tag.team"] == "fx"
    assert row["sharpe_ratio"] == get_run(environment, run).metrics.sharpe_ratio  # type: ignore[union-attr]


def test_parameters_are_shown_where_there_is_room(
    here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(environment, config=configured(fast_period=7))

    monkeypatch.setenv("COLUMNS", "300")
    assert "fast_period=7" in here("history", "list").out
    monkeypatch.setenv("COLUMNS", "80")
    assert "fast_period" not in here("history", "list").out


def test_an_unknown_strategy_or_symbol_is_told_from_an_empty_list(here: Here, environment: Settings) -> None:
    saved(environment, config=configured("AAPL"))

    assert "Did you mean 'AAPL'?" in here("history", "list", "--symbol", "APPL").err
    assert "Did you mean 'SMA Crossover'?" in here("history", "list", "--strategy", "SMA Crosover").err
    assert "--all" in here("history", "list", "--status", "failed").err


def test_both_directions_are_one_too_many(here: Here) -> None:
    assert here("history", "list", "--asc", "--desc").code == 2


# One strategy


def test_a_strategys_runs_stand_in_time_with_what_was_tried(here: Here, environment: Settings) -> None:
    runs = [saved(environment, config=configured(fast_period=fast, slow_period=50)) for fast in (5, 10, 7)]

    answer = here("history", "strategy", "sma_crossover")

    lines = answer.out.splitlines()
    assert lines[0] == "SMA Crossover"
    assert [line[:8] for line in lines[4:7]] == [run[:8] for run in runs]
    assert "fast_period" in lines[2]
    assert "slow_period" not in lines[2]
    assert "  fast_period  5, 7, 10" in lines
    document = json.loads(here("history", "strategy", "sma_crossover", "--json").out)
    assert ids(json.dumps(document)) == runs
    assert document["parameters"] == {"fast_period": {"values": 3, "tried": [5, 7, 10]}}


def test_a_strategys_deleted_runs_still_count(here: Here, environment: Settings) -> None:
    saved(environment)
    assert here("history", "delete", saved(environment), "--yes").code == 0

    assert "1 more was deleted" in here("history", "strategy", "SMA Crossover").err
    assert json.loads(here("history", "strategy", "SMA Crossover", "--json").out)["deleted_runs"] == 1


# One run


def test_the_config_that_is_shown_runs_again_unchanged(here: Here, environment: Settings, tmp_path: Path) -> None:
    run = saved(environment, config=configured("600519", when="15:30", exponent="1e5", no="no", rate=1e-05, off=None))

    (tmp_path / "again.yaml").write_text(here("history", "show", run, "--config").out)

    again = build_config(read_yaml(tmp_path / "again.yaml"))
    assert again.snapshot() == get_run(environment, run).config_snapshot


@pytest.mark.parametrize("word", ["1e5", "007", "on", "~", "2024-01-31", "1:30", "0x10", "<<", "=", "", " a", "é", "'"])
def test_text_stays_text_in_yaml(tmp_path: Path, word: str) -> None:
    (tmp_path / "one.yaml").write_text(dump_yaml({"word": word, "list": [word, word]}))

    assert read_yaml(tmp_path / "one.yaml") == {"word": word, "list": [word, word]}


def test_trades_and_equity_are_exact(here: Here, environment: Settings) -> None:
    run = saved(environment, [100_000.0, 100_000.1 + 0.2])

    (trade,) = csv.DictReader(io.StringIO(here("history", "show", run, "--trades", "--format", "csv").out))
    equity = json.loads(here("history", "show", run, "--equity", "--json").out)

    assert (trade["side"], float(trade["pnl"]), trade["exit_time"]) == ("long", 99.0, "2020-01-03T00:00:00+00:00")
    assert [point["equity"] for point in equity] == [100_000.0, 100_000.1 + 0.2]
    assert equity[0]["time"] == "2020-01-01T23:59:59.999999+00:00"


def test_a_failed_run_has_no_curve_and_says_so(here: Here, environment: Settings) -> None:
    run = saved(environment, status="failed")

    answer = here("history", "show", run, "--equity", "--format", "csv")

    assert (answer.code, answer.out) == (0, "time,equity\n")
    assert "has no equity curve" in answer.err
    assert "Traceback: x" in here("history", "show", run).out


@pytest.mark.parametrize("format_", ["json", "ndjson", "csv", "md"])
def test_a_run_goes_to_a_file(here: Here, environment: Settings, tmp_path: Path, format_: str) -> None:
    run = saved(environment)

    assert here("history", "show", run, "--format", format_, "-o", str(tmp_path / "run")).out == ""

    assert run in (tmp_path / "run").read_text()


# Labels


def test_a_name_finds_the_run(here: Here, environment: Settings) -> None:
    run = saved(environment)

    assert here("history", "name", run[:8], "The golden one").out == "The golden one\n"

    assert json.loads(here("history", "show", "The golden one", "--json").out)["run_id"] == run
    assert here("history", "name", run, "--clear").out == ""
    assert here("history", "show", "The golden one").code == 3


def test_tags_come_and_go(here: Here, environment: Settings) -> None:
    run = saved(environment)
    here("history", "tag", run, "team=fx", "desk=london")

    assert here("history", "tag", run, "team=macro", "--remove", "desk").out == "team=macro\n"
    assert ids(here("history", "list", "--tag", "team=macro", "--json").out) == [run]


def test_a_note_is_kept(here: Here, environment: Settings) -> None:
    run = saved(environment)
    here("history", "note", run, "Looks", "good;", "'quoted' -- ☃")

    assert here("history", "note", run).out == "Looks good; 'quoted' -- ☃\n"
    assert here("history", "note", run, "--clear").out == ""


def test_archived_runs_leave_the_list_and_come_back(here: Here, environment: Settings) -> None:
    run, other = saved(environment), saved(environment)

    assert here("history", "archive", run).code == 0
    assert ids(here("history", "list", "--json").out) == [other]
    assert ids(here("history", "list", "--all", "--json").out) == [other, run]
    assert here("history", "unarchive", run).code == 0
    assert ids(here("history", "list", "--json").out) == [other, run]


def test_deleting_asks_and_a_dry_run_only_tells(
    here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(environment)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    assert "1 trades" in here("history", "delete", run, "--dry-run").err
    refused = here("history", "delete", run)
    assert refused.code == 2
    assert "--yes" in refused.err
    assert ids(here("history", "list", "--json").out) == [run]
    assert here("history", "delete", run, "--yes").code == 0
    assert here("history", "show", run).code == 3


def test_a_running_run_is_not_deleted(here: Here, environment: Settings) -> None:
    run = factories.new_run()
    recording.start_run(environment, run)

    answer = here("history", "delete", str(run.run_id), "--yes")

    assert answer.code == 2
    assert "is running" in answer.err


# Export


@pytest.mark.parametrize("format_", ["csv", "json", "ndjson", "parquet"])
def test_an_export_has_every_run_and_every_digit(
    here: Here, environment: Settings, tmp_path: Path, format_: str
) -> None:
    good = saved(environment, [100_000, 101_000.1, 100_500.7])
    bad = saved(environment, status="failed")
    path = tmp_path / "runs"

    answer = here("history", "export", "--format", format_, "-o", str(path), "--sort", "created_at", "--asc")

    assert (answer.code, answer.out) == (0, "")
    assert "2 runs exported" in answer.err
    rows = read_back(path, format_)
    assert [row["run_id"] for row in rows] == [good, bad]
    metrics = get_run(environment, good).metrics
    assert metrics
    assert float(rows[0]["sharpe_ratio"]) == metrics.sharpe_ratio
    assert int(rows[0]["total_trades"]) == 1
    assert rows[1]["sharpe_ratio"] in {None, ""}


def read_back(path: Path, format_: str) -> list[dict[str, str]]:
    if format_ == "csv":
        return list(csv.DictReader(io.StringIO(path.read_text())))
    if format_ == "json":
        return list(json.loads(path.read_text()))
    if format_ == "ndjson":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return list(pyarrow.parquet.read_table(path).to_pylist())


def test_an_export_that_fails_leaves_no_file(here: Here, environment: Settings, tmp_path: Path) -> None:
    saved(environment)

    assert here("history", "export", "-o", str(tmp_path / "runs.csv"), "--where", "nonsense > 1").code == 2
    assert here("history", "export", "-o", str(tmp_path / "no" / "runs.csv")).code == 2
    assert here("history", "export", "--format", "parquet").code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_export_to_nowhere_in_particular_goes_to_stdout(here: Here, environment: Settings) -> None:
    run = saved(environment)

    assert here("history", "export", "--columns", "run_id,params.fast_period").out == (
        f"run_id,params.fast_period\n{run},\n"
    )


# The shell


def test_the_shell_is_told_runs_names_tags_and_strategies(
    here: Here, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(environment)
    here("history", "tag", run, "team=fx")
    here("history", "name", saved(environment, config=configured("IBM")), "golden")

    def offered(line: str) -> list[str]:
        monkeypatch.setenv("_NTRADER_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        return here().out.split("\n")[:-1]

    assert "list" in offered("ntrader history l")
    assert offered("ntrader history show gol") == ["golden"]
    assert offered(f"ntrader history show {run[:6]}") == [run]
    assert offered("ntrader history list --tag te") == ["team=fx"]
    assert offered("ntrader history list --strategy sma") == ["sma_crossover"]
    assert offered("ntrader history list --strategy S") == ["SMA Crossover"]
    assert offered("ntrader history list --symbol I") == ["IBM"]


def test_completion_is_silent_without_a_database(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("_NTRADER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "ntrader history show x")
    monkeypatch.setenv("COMP_CWORD", "3")

    answer = here()

    assert (answer.out.strip(), answer.err) == ("", "")


# What keeps it quick


def test_only_the_command_that_was_asked_for_is_built() -> None:
    from cli.main import app

    slim = narrowed(app, ["history", "list", "--json"])

    assert slim.registered_commands == []
    (group,) = slim.registered_groups
    assert group.typer_instance is not None
    assert [command.name for command in group.typer_instance.registered_commands] == ["list"]
    assert len(app.registered_groups) > 1
    assert narrowed(app, ["histroy"]) is app
    assert narrowed(app, ["--help"]) is app


def test_a_misspelt_command_is_still_explained(here: Here) -> None:
    assert here("histroy").code == 2
    assert "'list'" in here("history", "lst").err


# The same run again


def test_an_identical_run_is_noticed_and_a_different_result_is_shouted(
    environment: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.run import _notice_duplicate

    first, second = saved(environment), saved(environment)
    _notice_duplicate(environment, get_run(environment, second))
    assert f"({first[:8]}): return 2.00%" in capsys.readouterr().err

    run, done = factories.new_run(), factories.execution(result_digest="1" * 64)
    recording.start_run(environment, run)
    recording.save_success(environment, run.run_id, done, factories.metrics_of(done))
    _notice_duplicate(environment, get_run(environment, str(run.run_id)))
    assert "the result is NOT" in capsys.readouterr().err


def test_the_direction_of_a_page_is_part_of_its_token(environment: Settings) -> None:
    from storage.runs import list_runs
    from storage.search import Order

    for _ in range(3):
        saved(environment)
    token = list_runs(environment, 1, order=Order("sharpe_ratio", True)).next_page_token

    with pytest.raises(ConfigError, match="another order"):
        list_runs(environment, 1, order=Order("sharpe_ratio", False), token=token)


def test_a_list_in_a_pipe_does_not_load_rich(environment: Settings) -> None:
    import subprocess
    import sys

    saved(environment)
    program = (
        "import sys\nfrom cli.main import main\ntry:\n    main(['history', 'list'])\nexcept SystemExit:\n"
        "    print([name for name in ('rich', 'pydantic', 'numpy', 'sqlalchemy', 'pyarrow') if name in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ, timeout=60
    )

    assert done.stderr == "[]\n"
