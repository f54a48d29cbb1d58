"""`ntrader compare` as one types it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from ntrader.results import EquityCurve, RunResult
from ntrader.settings import Settings
from storage import recording
from storage.runs import get_run
from tests import factories
from tests.cli.conftest import Here

PATH = "ntrader.strategies.sma_crossover:SMACrossover"


def config(symbol: str = "TEST", **parameters: object) -> object:
    return factories.run_config(
        strategy={"path": PATH, "parameters": parameters}, data={"symbol": symbol, "venue": "SIM"}
    )


def saved(settings: Settings, equity: list[float] | None = None, *, digest: str = "1", **changes: object) -> str:
    """A successful run by its id."""
    run = factories.new_run(**changes)
    recording.start_run(settings, run)
    done = factories.execution(factories.run_result(equity, (factories.trade(),)), result_digest=digest * 64)
    recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    return str(run.run_id)


def failed(settings: Settings, status: str = "failed", message: str = "it broke") -> str:
    run = factories.new_run()
    recording.start_run(settings, run)
    if status != "running":
        recording.save_failure(settings, run.run_id, recording.Failure(status, "StrategyError", message, "trace"))
    return str(run.run_id)


@pytest.fixture
def pair(environment: Settings) -> tuple[str, str]:
    """Two runs that differ in one parameter: +2 % and +5 %."""
    return (
        saved(environment, [101_000.0, 100_000.0, 102_000.0], config=config(fast_period=10)),
        saved(environment, [101_000.0, 102_000.0, 105_000.0], config=config(fast_period=20), digest="2"),
    )


# The table


def test_a_comparison_reads_like_the_layout(here: Here, pair: tuple[str, str]) -> None:
    here("history", "name", pair[0], "golden")

    answer = here("compare", "golden", pair[1][:8])

    assert (answer.code, answer.err) == (0, "")
    titles = ["Identity", "Configuration Differences", "Performance", "Best Performer", "Cause"]
    assert [line for line in answer.out.splitlines() if line in titles] == titles
    squeezed = re.sub(" +", " ", answer.out)
    assert f"golden (baseline) {pair[0]} SMA Crossover TEST 2020-01-01 to 2020-01-03 success" in squeezed
    assert "\nstrategy.parameters.fast_period 10 20\n" in squeezed
    assert "venue.fees.rate" not in squeezed
    assert "\nTotal return 2.00% *5.00%\n" in squeezed
    assert f"\nTotal return {pair[1][:8]} 5.00%\n" in squeezed
    assert answer.out.endswith("\nCause\n\nThe results differ; caused by fast_period: 10 -> 20\n")
    assert "delta" not in answer.out


def test_deltas_are_against_the_baseline(here: Here, pair: tuple[str, str]) -> None:
    answer = here("compare", *pair, "--baseline", "@last")

    squeezed = re.sub(" +", " ", answer.out)
    assert "\nTotal return 2.00% -3.00 pp *5.00%\n" in squeezed
    assert "\nFinal balance 102,000.00 -3,000.00 *105,000.00\n" in squeezed
    assert "\nTrades 1 +0 1\n" in squeezed
    assert "caused by fast_period: 20 -> 10" in squeezed
    assert f"{pair[1][:8]} (baseline)" in squeezed


def test_all_shows_what_is_the_same(here: Here, pair: tuple[str, str]) -> None:
    squeezed = re.sub(" +", " ", here("compare", *pair, "--all").out)

    assert "\nConfiguration in Common\n" in squeezed
    assert "\nvenue.fees.rate 0.0\n" in squeezed
    assert "\ndata.start -\n" in squeezed


def test_a_third_run_gets_a_line_of_its_own(here: Here, environment: Settings, pair: tuple[str, str]) -> None:
    third = saved(environment, [101_000.0, 100_000.0, 102_000.0], config=config(fast_period=10))

    lines = here("compare", *pair, third).out.splitlines()[-2:]

    base = pair[0][:8]
    assert lines == [
        f"{pair[1][:8]} against {base}: The results differ; caused by fast_period: 10 -> 20",
        f"{third[:8]} against {base}: The results are identical to the bit, and so are all inputs",
    ]


def test_a_run_that_is_not_deterministic_is_said_loudly(here: Here, environment: Settings) -> None:
    answer = here("compare", saved(environment), saved(environment, digest="2"))

    assert answer.code == 0
    assert "THE RESULTS DIFFER, AND NO INPUT DOES" in answer.out
    assert "equal inputs, and different results" in answer.err


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_run_without_a_result_is_shown_as_what_it_is(
    here: Here, environment: Settings, status: str, tmp_path: Path
) -> None:
    good, bad = saved(environment), failed(environment, status, "first\nsecond \x1b[31mred")

    for words in ((good, bad), (bad, good), (bad, good, "--baseline", bad), (bad, failed(environment, status))):
        answer = here("compare", *words, "--significance", "--plot", str(tmp_path / "page.html"))
        assert answer.code == 0
        assert f"({status})" in answer.out
        assert ("it broke" in answer.out or "first\\nsecond \\x1b[31mred" in answer.out) is (status != "running")
        assert "\x1b" not in answer.out
        assert "too few" in answer.out
        document = json.loads(here("compare", *words, "--json").out)
        assert status in [run["execution_status"] for run in document["runs"]]


def test_undefined_metrics_are_dashes(here: Here, environment: Settings) -> None:
    """No trade, one day: most of the metrics are not defined."""
    runs = []
    for equity in ([100_000.0], [100_001.0]):
        run = factories.new_run()
        recording.start_run(environment, run)
        done = factories.execution(factories.run_result(equity))
        recording.save_success(environment, run.run_id, done, factories.metrics_of(done))
        runs.append(str(run.run_id))

    squeezed = re.sub(" +", " ", here("compare", *runs, "--baseline", runs[0]).out)

    assert "\nSharpe ratio - - -\n" in squeezed
    assert "\nWin rate - -\n" in squeezed
    assert "\nMax drawdown all equal 0.00%\n" in squeezed


def test_what_does_not_match_is_warned_of(here: Here, environment: Settings) -> None:
    runs = [saved(environment, config=config("AAPL")), saved(environment, config=config("ÅÄÖ 数"), digest="2")]

    answer = here("compare", *runs, "--json")

    assert answer.err == f"Warning: The symbols do not match: AAPL ({runs[0][:8]}); ÅÄÖ 数 ({runs[1][:8]}).\n"
    assert json.loads(answer.out)["warnings"] == [answer.err.removeprefix("Warning: ").strip()]


# Which runs


def test_runs_are_named_in_any_way(here: Here, pair: tuple[str, str]) -> None:
    name = "Größe 数 <b>&"
    assert here("history", "name", pair[0], name).code == 0

    for words in ((name, "@last"), (pair[0], pair[1][:6]), ("@last~1", "@last")):
        answer = here("compare", *words, "--json")
        assert [run["run_id"] for run in json.loads(answer.out)["runs"]] == list(pair)
    assert name in here("compare", *pair).out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "Missing argument"),
        (("@last",), 2, "1 run cannot be compared"),
        (("@last",) * 11, 2, "11 runs are too many"),
        (("@last", "@last"), 2, "named more than once"),
        (("@last", "@last~1", "--baseline", "@last~2"), 2, "is not among the runs compared"),
        (("@last", "@last~1", "--baseline", "nobody"), 3, "'nobody' names no run"),
        (("@last", "ffff"), 3, "there is no run ffff"),
        (("@last", "00000000-0000-4000-8000-00000000000"), 3, "fits more than one run"),
        (("@last", "@last~9"), 3, "there is no run @last~9"),
        (("@last", "ab"), 3, "too short"),
        (("@last", "@last~1", "--plot", "-"), 2, "has no file"),
        (("@last", "@last~1", "--plot", "x", "-o", "./x"), 2, "both say"),
        (("@last", "@last~1", "--plot", "/nowhere/at/all.html"), 2, "there is no folder /nowhere/at"),
        (("@last", "@last~1", "-o", "/nowhere/at/all.txt"), 2, "there is no folder /nowhere/at"),
        (("@last", "@last~1", "-o", "/"), 2, "is a folder"),
    ],
)
def test_what_cannot_be_compared(
    here: Here, environment: Settings, words: tuple[str, ...], code: int, said: str
) -> None:
    for number in range(3):
        saved(environment, run_id=UUID(f"00000000-0000-4000-8000-00000000000{number}"))

    answer = here("compare", *words)

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "unexpected" not in answer.err


# As data


def test_json_has_everything_to_the_bit(here: Here, environment: Settings, pair: tuple[str, str]) -> None:
    document = json.loads(here("compare", *pair, "--format", "json").out)

    runs = [get_run(environment, reference) for reference in pair]
    assert document["baseline"] == pair[0]
    assert [run["config_snapshot"] for run in document["runs"]] == [run.config_snapshot for run in runs]
    assert document["differences"] == {"strategy.parameters.fast_period": [10, 20]}
    assert document["settings"]["venue.fees.rate"] == [0.0, 0.0]
    sharpes = [run.metrics.sharpe_ratio for run in runs if run.metrics]
    assert None not in sharpes
    assert document["metrics"]["sharpe_ratio"] == {
        "values": sharpes,
        "deltas": [0.0, sharpes[1] - sharpes[0]],  # type: ignore[operator]
        "best": [pair[1]],
    }
    (verdict,) = document["verdicts"]
    assert verdict["run_id"] == pair[1]
    assert verdict["results"] == "differ"
    assert verdict["cause"] == {"name": "strategy.parameters.fast_period", "before": 10, "after": 20}
    assert "significance" not in document


def test_rows_have_a_column_for_each_run(here: Here, environment: Settings, pair: tuple[str, str]) -> None:
    labels = [reference[:8] for reference in pair]

    rows = list(csv.DictReader(io.StringIO(here("compare", *pair, "--format", "csv").out)))

    values = {(row["section"], row["name"]): [row[label] for label in labels] for row in rows}
    assert values["run", "run_id"] == list(pair)
    assert values["config", "strategy.parameters.fast_period"] == ["10", "20"]
    assert ("config", "venue.fees.rate") not in values
    runs = [get_run(environment, reference) for reference in pair]
    returns = [float(text) for text in values["metric", "total_return"]]
    assert returns == [run.metrics.total_return for run in runs if run.metrics]
    whole = here("compare", *pair, "--format", "csv", "--all", "--baseline", pair[0]).out
    with_deltas = {row["name"]: row for row in csv.DictReader(io.StringIO(whole))}
    assert float(with_deltas["total_return"][f"{labels[1]} delta"]) == returns[1] - returns[0]
    assert with_deltas["venue.fees.rate"][labels[0]] == "0.0"
    lines = here("compare", *pair, "--format", "md").out.splitlines()
    assert lines[0] == f"| section | name | {labels[0]} | {labels[1]} |"


@pytest.mark.parametrize("format_", ["table", "json", "csv", "md", "ndjson"])
def test_a_file_has_what_stdout_would(here: Here, pair: tuple[str, str], tmp_path: Path, format_: str) -> None:
    path = tmp_path / "comparison"

    answer = here("compare", *pair, "--format", format_, "-o", str(path))

    assert (answer.code, answer.out) == (0, "")
    assert path.read_text() == here("compare", *pair, "--format", format_).out


# What needs the curves


@pytest.fixture
def long_pair(environment: Settings) -> tuple[str, str]:
    """200 days of noise, and the same with 1 % more on each."""
    returns = np.random.default_rng(1).normal(0, 0.01, 200)
    runs = []
    for number, shift in enumerate((0.0, 0.01)):
        result = factories.run_result(list(100_000 * np.cumprod(1 + returns + shift)))
        run = factories.new_run(config=config(fast_period=5 + number))
        recording.start_run(environment, run)
        done = factories.execution(result, result_digest=str(number) * 64)
        recording.save_success(environment, run.run_id, done, factories.metrics_of(done))
        runs.append(str(run.run_id))
    return runs[0], runs[1]


def test_significance_says_how_sure_one_can_be(here: Here, long_pair: tuple[str, str]) -> None:
    answer = here("compare", *long_pair, "--significance")

    squeezed = re.sub(" +", " ", answer.out)
    assert "Mean return a year +252.00 pp +252.00 pp to +252.00 pp yes" in squeezed
    assert f"{long_pair[1][:8]} 200 " in squeezed
    assert here("compare", *long_pair, "--significance").out == answer.out
    (found,) = json.loads(here("compare", *long_pair, "--significance", "--json").out)["significance"]
    assert (found["run_id"], found["common_days"]) == (long_pair[1], 200)
    assert found["mean_return"]["difference"] == pytest.approx(2.52)
    assert found["mean_return"]["distinguishable"] is True


def test_equal_runs_are_not_distinguishable(here: Here, environment: Settings) -> None:
    equity = list(100_000 * np.cumprod(1 + np.random.default_rng(1).normal(0, 0.01, 60)))
    runs = [saved(environment, equity) for _ in range(2)]

    out = here("compare", *runs, "--significance").out

    assert out.count("not distinguishable") == 2
    assert "+0.00 pp to +0.00 pp" in out


def test_too_few_days_are_a_line_and_no_error(here: Here, pair: tuple[str, str]) -> None:
    answer = here("compare", *pair, "--significance")

    assert answer.code == 0
    assert "3 common days with returns are too few; it takes 30" in answer.out


def test_a_page_stands_alone_and_runs_nobodys_script(here: Here, long_pair: tuple[str, str], tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    assert here("history", "name", long_pair[0], name).code == 0
    page = tmp_path / "a b" / "page.html"
    page.parent.mkdir()

    answer = here("compare", name, "@last", "--significance", "--plot", str(page))

    assert answer.code == 0
    assert answer.err == f"Page written to {page}.\n"
    assert "caused by fast_period: 5 -&gt; 6" in page.read_text()
    assert "<script>alert" not in page.read_text()
    assert list(page.parent.iterdir()) == [page]


def test_an_intraday_run_and_one_that_lost_everything_are_drawn(
    here: Here, environment: Settings, tmp_path: Path
) -> None:
    runs = []
    for equity in ([100_000.0, 50_000.0, -1.0], [100_000.0, 100_100.0, 100_200.0]):
        result = factories.run_result(equity)
        times = factories.START + np.arange(1, 4, dtype=np.int64) * 3_600_000_000_000
        result = replace(result, equity_curve=EquityCurve(times, result.equity_curve.equity))
        assert isinstance(result, RunResult)
        run = factories.new_run()
        recording.start_run(environment, run)
        done = factories.execution(result)
        recording.save_success(environment, run.run_id, done, factories.metrics_of(done))
        runs.append(str(run.run_id))

    assert here("compare", *runs, "--plot", str(tmp_path / "page.html"), "--significance").code == 0


def test_comparing_loads_neither_prefect_nor_the_engine(environment: Settings, pair: tuple[str, str]) -> None:
    heavy = ("flows", "tasks", "prefect", "nautilus_trader", "pandas", "numpy", "scipy", "plotly", "arch", "sqlalchemy",
             "sqlmodel", "pydantic")  # fmt: skip
    program = (
        "import sys\n"
        "from cli.main import main\n"
        "try:\n"
        f"    main(['compare', *{pair!r}, '--baseline', '@last', '--all'])\n"
        "except SystemExit as end:\n"
        f"    print(end.code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)

    assert done.stderr.splitlines()[-1] == "0 []"
    assert "caused by fast_period" in done.stdout
