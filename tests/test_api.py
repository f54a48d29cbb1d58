"""Runs as people have them in a notebook: frames with the types they should have, series that other tools accept."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import empyrical
import numpy as np
import pandas as pd
import pytest

from ntrader import api
from ntrader.api import Run, load_run, search_runs
from ntrader.config import RunConfig
from ntrader.errors import AmbiguousError, ConfigError, NotFoundError
from ntrader.results import EquityCurve, Metrics, RunResult
from ntrader.settings import Settings
from storage import database, labels, models, recording, runs
from storage.fields import COUNTS
from storage.rows import Failure
from tests import factories
from tests.factories import DAY, START

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
FAILURE = Failure("failed", "StrategyError", "it <b>broke</b>", "Traceback: it broke")
PLAIN = [
    *("run_id", "name", "execution_status", "strategy_name", "strategy_type", "strategy_path", "config_path"),
    *("instrument_symbol", "data_source", "start_date", "end_date", "initial_capital", "execution_duration_seconds"),
    *("error_type", "error_message", "config_fingerprint", "data_fingerprint", "code_fingerprint"),
    *("engine_fingerprint", "environment_fingerprint", "run_key", "result_digest", "sweep_id", "trial_number"),
    *(
        "flow_run_id",
        "warnings",
        "reproduced_from_run_id",
        "notes",
        "archived",
        "created_at",
        "started_at",
        "finished_at",
    ),
]
METRICS = [f"metrics.{field.name}" for field in fields(Metrics)]
KINDS = {
    **dict.fromkeys(("run_id", "name", "notes", "reproduced_from_run_id", "flow_run_id", "strategy_name"), "str"),
    **dict.fromkeys(("created_at", "finished_at", "end_date", "metrics.max_drawdown_date"), "datetime64[us, UTC]"),
    **dict.fromkeys(("initial_capital", "execution_duration_seconds", "metrics.sharpe_ratio"), "float64"),
    **dict.fromkeys(("sweep_id", "trial_number", "metrics.total_trades", "metrics.return_observations"), "Int64"),
    "archived": "bool",
    "warnings": "object",
}


@pytest.fixture(autouse=True)
def _settings(environment: Settings) -> Settings:
    """An empty database, which the environment names."""
    return environment


@pytest.fixture(scope="module")
def quantstats() -> Iterator[ModuleType]:
    import quantstats

    yield quantstats


@pytest.fixture(scope="module")
def pyfolio() -> Iterator[ModuleType]:
    with pytest.warns(UserWarning, match="zipline"):
        import pyfolio
    yield pyfolio


def save(settings: Settings, result: RunResult | None = None, *, metrics: Metrics | None = None, **changes: Any) -> str:
    """The id of a successful run; `parameters`, `symbol`, `source`, `period`, `capital` are of its config."""
    parameters, capital = changes.pop("parameters", {}), changes.pop("capital", 100_000)
    data = {"symbol": changes.pop("symbol", "TEST"), "source": changes.pop("source", "sample"), "venue": "SIM"}
    data |= dict(zip(("start", "end"), changes.pop("period", ()), strict=False))
    strategy = {"path": "ntrader.strategies.sma_crossover:SMACrossover", "parameters": parameters}
    config = factories.run_config(strategy=strategy, data=data, initial_capital=capital)
    run = factories.new_run(config=config, **changes)
    execution = factories.execution(result)
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, metrics or factories.metrics_of(execution))
    return str(run.run_id)


def fail(settings: Settings, **changes: Any) -> str:
    run = factories.new_run(**changes)
    recording.start_run(settings, run)
    recording.save_failure(settings, run.run_id, FAILURE)
    return str(run.run_id)


def made_at(settings: Settings, moment: str) -> str:
    """The id of a run that began then; it is still running, because a finished one cannot be changed."""
    run = factories.new_run()
    recording.start_run(settings, run)
    with database.connect(settings) as connection:
        connection.execute("UPDATE backtest_runs SET created_at = %s WHERE run_id = %s", [moment, run.run_id])
    return str(run.run_id)


def walk(*, days: int = 500, a_day: int = 1, capital: float = 100_000.0) -> RunResult:
    """Equity that wanders, from the capital on, `a_day` points a day."""
    random = np.random.default_rng(1)
    equity = capital * np.cumprod(1 + random.normal(0.001 / a_day, 0.01 / a_day**0.5, days * a_day))
    times = START + DAY // a_day * np.arange(1, days * a_day + 1, dtype=np.int64)
    return RunResult(capital, EquityCurve(times, equity), (), (factories.trade(),), 0.0, len(times))


def found(*args: Any, **options: Any) -> list[str]:
    return search_runs(*args, **options)["run_id"].tolist()


def test_it_needs_neither_prefect_nor_the_engine_nor_an_orm() -> None:
    heavy = ("flows", "tasks", "cli", "prefect", "nautilus_trader", "sqlalchemy", "sqlmodel", "alembic", "typer")
    program = f"import sys, ntrader.api; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


# -- many runs -----------------------------------------------------------------------------------------------


def test_no_run_is_a_frame_with_all_columns_that_do_not_depend_on_runs() -> None:
    frame = search_runs()

    assert list(frame.columns) == [*PLAIN, *METRICS]
    assert len(frame) == 0
    assert {name: str(frame[name].dtype) for name in KINDS} == KINDS


def test_columns_have_the_same_types_with_runs_and_without(environment: Settings) -> None:
    none = search_runs().dtypes
    fail(environment)
    only_failed = search_runs().dtypes
    save(environment)
    pd.testing.assert_series_equal(none, only_failed)
    pd.testing.assert_series_equal(none, search_runs().dtypes)


def test_a_row_is_what_is_stored(environment: Settings) -> None:
    run_id = save(environment, flow_run_id=uuid4(), config_path="a.yaml", period=("2020-01-01", "2020-12-31"))
    labels.set_name(environment, run_id, "golden-cross")
    stored = runs.get_run(environment, run_id)

    frame = search_runs()
    row = frame.iloc[0]

    assert frame.index.equals(pd.RangeIndex(1))
    assert row["run_id"] == run_id
    assert row["name"] == "golden-cross"
    assert row["flow_run_id"] == str(stored.flow_run_id)
    assert row["initial_capital"] == float(stored.initial_capital)
    assert row["warnings"] == ()
    assert not row["archived"]
    for name in ("execution_status", "config_path", "result_digest", "created_at", "finished_at", "end_date"):
        assert row[name] == getattr(stored, name), name
    for field in fields(Metrics):
        value = getattr(stored.metrics, field.name)
        assert row[f"metrics.{field.name}"] == value or (value is None and pd.isna(row[f"metrics.{field.name}"]))


def test_undefined_numbers_are_nan_and_counts_that_are_not_there_are_na(environment: Settings) -> None:
    fail(environment)
    save(environment, metrics=Metrics(total_trades=3))

    frame = search_runs(sort="created_at", descending=False)

    assert np.isnan(frame["metrics.sharpe_ratio"].to_numpy()).all()
    assert frame["metrics.total_trades"].tolist() == [pd.NA, 3]
    assert frame["sweep_id"].isna().all()
    assert frame["metrics.max_drawdown_date"].isna().all()
    assert frame.loc[0, "error_message"] == FAILURE.message


def test_counts_are_the_whole_numbers_of_storage() -> None:
    frame = search_runs()
    assert {name.removeprefix("metrics.") for name in frame if str(frame[name].dtype) == "Int64"} == COUNTS


def test_every_parameter_has_a_column_of_its_own_type(environment: Settings) -> None:
    first = {"n": 5, "x": 1, "s": "a", "b": True, "m": 1, "l": [1], "big": 2**70, "none": None, "dot.ted": 1}
    save(environment, parameters=first)
    save(environment, parameters={"n": None, "x": 0.5, "m": "1", "only_here": 7})

    frame = search_runs(descending=False)

    kinds = {"n": "Int64", "x": "float64", "s": "str", "b": "boolean", "m": "object", "l": "object", "big": "object",
             "none": "object", "dot.ted": "Int64", "only_here": "Int64"}  # fmt: skip
    params = frame[[name for name in frame if name.startswith("params.")]]
    assert {name.removeprefix("params."): str(kind) for name, kind in params.dtypes.items()} == kinds
    assert list(params.columns) == sorted(params.columns)
    assert params.iloc[0]["params.big"] == 2**70
    assert params["params.m"].tolist() == [1, "1"]
    assert params["params.n"].tolist() == [5, pd.NA]
    assert params["params.x"].tolist() == [1.0, 0.5]
    assert params.iloc[0]["params.l"] == [1]


def test_every_tag_has_a_column(environment: Settings) -> None:
    tagged, other = save(environment), save(environment)
    labels.set_tags(environment, [tagged], {"team": "fx", "a=b": "%s"}, [])

    frame = search_runs().set_index("run_id")

    assert frame.loc[tagged, ["tags.team", "tags.a=b"]].tolist() == ["fx", "%s"]
    assert frame.loc[other, ["tags.team", "tags.a=b"]].isna().all()
    assert frame["tags.team"].dtype == "str"


def test_warnings_are_kept(environment: Settings) -> None:
    run = factories.new_run()
    recording.start_run(environment, run)
    execution = factories.execution(notes=("one", "two"))
    recording.save_success(environment, run.run_id, execution, factories.metrics_of(execution))

    assert search_runs()["warnings"].tolist() == [("one", "two")]
    assert search_runs().drop_duplicates().shape[0] == 1


@pytest.mark.parametrize("strategy", ["sma_crossover", "SMA Crossover", "sma-crossover", ["momentum", "sma_crossover"],
                                      "ntrader.strategies.sma_crossover:SMACrossover"])  # fmt: skip
def test_a_strategy_goes_by_key_name_or_path(environment: Settings, strategy: str | list[str]) -> None:
    wanted = save(environment)
    save(environment, strategy_name="Other")
    assert found(strategy=strategy) == [wanted]


def test_a_strategy_of_ones_own_goes_by_its_class(environment: Settings) -> None:
    wanted = save(environment, strategy_name="Mine", strategy_type="custom")
    save(environment)
    assert found(strategy="my_package.mine:Mine") == found(strategy="Mine") == [wanted]


def test_filters(environment: Settings) -> None:
    aapl = save(environment, symbol="AAPL", parameters={"fast_period": 5})
    ibm = save(environment, symbol="IBM", source="synthetic", strategy_type="other")
    failed = fail(environment)
    labels.set_tags(environment, [ibm], {"team": "fx", "n": "1"}, [])

    assert found() == [failed, ibm, aapl]
    assert found(symbol="AAPL") == [aapl]
    assert found(symbol=["AAPL", "IBM"]) == [ibm, aapl]
    assert found(symbol=pd.Series(["AAPL", "IBM"])) == [ibm, aapl]
    assert found(status="failed") == [failed]
    assert found(status=("failed", "success"), symbol="IBM") == [ibm]
    assert found(data_source="synthetic") == [ibm]
    assert found(strategy_type="other") == [ibm]
    assert found(tags={"team": "fx", "n": "1"}) == [ibm]
    assert found(tags={"team": "fx", "n": "2"}) == []
    assert found("params.fast_period between 4 and 6") == [aapl]
    assert found(where="tag.team = 'fx'", status="failed") == []
    assert found(sweep=1) == []


def test_archived_runs_are_there_on_request(environment: Settings) -> None:
    run_id = save(environment)
    labels.set_archived(environment, [run_id], True)
    assert found() == []
    assert found(archived=True) == [run_id]


TOKYO = timezone(timedelta(hours=9))


def test_moments_are_text_dates_or_times(environment: Settings) -> None:
    before = made_at(environment, "2024-01-31T23:59:59.999999Z")
    after = made_at(environment, "2024-02-01T00:00:00Z")
    for moment in (
        *("2024-02-01", "2024-02-01T00:00", "2024-02-01T09:00+09:00", date(2024, 2, 1), datetime(2024, 2, 1)),
        *(datetime(2024, 2, 1, tzinfo=UTC), datetime(2024, 2, 1, 9, tzinfo=TOKYO), pd.Timestamp("2024-02-01")),
        pd.Timestamp("2024-02-01T09:00", tz="Asia/Tokyo"),
    ):
        assert (found(after=moment), found(before=moment)) == ([after], [before]), repr(moment)


def test_a_moment_may_be_so_long_ago(environment: Settings) -> None:
    made_at(environment, "2024-01-31T00:00:00Z")
    new = save(environment)
    assert found(after="7d") == [new]


def test_the_period_includes_its_last_day(environment: Settings) -> None:
    run_id = save(environment, period=("2020-01-01", "2020-12-31"))
    for day in ("2020-12-31", date(2020, 12, 31), datetime(2020, 12, 31, 23, 59, 59, 999_999)):
        assert found(period_end=day) == [run_id]
    for earlier in ("2020-12-30", date(2020, 12, 30), datetime(2020, 12, 31), "2020-12-31T00:00"):
        assert found(period_end=earlier) == []
    assert found(period_start=date(2020, 1, 1)) == [run_id]
    assert found(period_start=date(2020, 1, 2)) == []


def test_sorted_by_any_metric_best_first(environment: Settings) -> None:
    low, high = (save(environment, metrics=Metrics(sharpe_ratio=value)) for value in (0.5, 1.5))
    undefined = save(environment, metrics=Metrics())
    assert found(sort="metrics.sharpe_ratio") == [high, low, undefined]
    assert found(sort="sharpe", descending=False) == [low, high, undefined]
    assert found(sort="sharpe_ratio", limit=1) == found(sort="sharpe_ratio", limit=np.int64(1)) == [high]


@pytest.mark.parametrize(("limit", "rows"), [(None, 7), (1000, 7), (7, 7), (5, 5), (1, 1)])
def test_all_runs_come_in_batches_that_fit_together(
    environment: Settings, monkeypatch: pytest.MonkeyPatch, limit: int | None, rows: int
) -> None:
    ids = [save(environment, parameters={"n": number} if number % 2 else {"k": "x"}) for number in range(6)]
    ids.append(fail(environment))
    whole = search_runs(limit=limit)
    monkeypatch.setattr(api, "_BATCH", 2)

    frame = search_runs(limit=limit)

    assert frame["run_id"].tolist() == ids[::-1][:rows]
    pd.testing.assert_frame_equal(frame, whole)
    assert isinstance(frame.index, pd.RangeIndex)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"status": "succes"}, "there is no status 'succes'"),
        ({"status": []}, r"status is \[\], neither a text nor a list of texts"),
        ({"symbol": 600519}, "symbol is 600519, neither a text nor a list of texts"),
        ({"strategy": ["momentum", None]}, r"strategy is \['momentum', None\]"),
        ({"limit": 0}, "limit is 0"),
        ({"limit": -1}, "limit is -1"),
        ({"limit": 2.5}, "limit is 2.5, not a whole number above 0"),
        ({"limit": 2**70}, "limit is 1180591620717411303424"),
        ({"sort": "beauty"}, "runs cannot be sorted by 'beauty'"),
        ({"where": "sharp > 1"}, "sharp"),
        ({"after": "yesterday"}, "'yesterday' is not a date"),
        ({"before": 5}, "before is 5, which is no date"),
        ({"period_end": pd.NaT}, "period_end is NaT, which is no date"),
        ({"period_start": datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))}, "which is no date"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        search_runs(**options)
    assert caught.value.hint


def test_statuses_are_those_of_the_table() -> None:
    assert api.STATUSES == models.STATUSES


def test_settings_may_be_given(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = save(environment)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    assert found(settings=environment) == [run_id]
    assert load_run(run_id, environment).run_id == run_id


# -- one run -------------------------------------------------------------------------------------------------


def test_a_run_goes_by_every_name_it_has(environment: Settings) -> None:
    run_id = save(environment, run_id=UUID("abcd1234-5678-4abc-8def-0123456789ab"))
    labels.set_name(environment, run_id, "golden-cross")
    for reference in (run_id, UUID(run_id), run_id[:8], "@last", "golden-cross"):
        assert load_run(reference).run_id == run_id
    with pytest.raises(NotFoundError):
        load_run("no-such-name")
    save(environment, run_id=UUID("abcd1234-0000-4abc-8def-0123456789ab"))
    with pytest.raises(AmbiguousError):
        load_run("abcd1234")


def test_what_a_run_says_of_itself(environment: Settings) -> None:
    parameters = {"fast_period": 5, "slow_period": 20}
    run_id = save(environment, parameters=parameters, symbol="AAPL", capital=Decimal("50000.5"))
    labels.set_name(environment, run_id, "golden-cross")
    labels.set_tags(environment, [run_id], {"team": "fx"}, [])
    labels.set_note(environment, run_id, "a note")

    run = load_run(run_id)

    assert (run.status, run.name, run.tags, run.notes) == ("success", "golden-cross", {"team": "fx"}, "a note")
    assert run.params == parameters
    assert list(run.metrics) == [field.name for field in fields(Metrics)]
    assert run.metrics["total_return"] == pytest.approx(0.02)
    assert isinstance(run.config, RunConfig)
    assert run.config.snapshot() == run.record.config_snapshot
    assert run.config.initial_capital == Decimal("50000.5")
    assert run.record == runs.get_run(environment, run_id)


def test_a_run_cannot_be_changed(environment: Settings) -> None:
    run = load_run(save(environment, parameters={"fast_period": 5}))
    with pytest.raises(FrozenInstanceError):
        run.record = run.record  # type: ignore[misc]
    for mine in (run.params, run.tags, run.metrics):
        mine["fast_period"] = "mine"
    assert (run.params, run.tags) == ({"fast_period": 5}, {})
    assert "fast_period" not in run.metrics


def test_equity_is_exact(environment: Settings) -> None:
    values = np.array([-0.0, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, 1e23, -1.0])
    times = np.array([-1, 0, 1, 1_600_000_000_123_456_789, 2**62, 2**63 - 2, 2**63 - 1])
    result = RunResult(100_000.0, EquityCurve(times, values), (), (), 0.0, len(values))

    equity = load_run(save(environment, result, metrics=Metrics())).equity

    assert equity.to_numpy().tobytes() == values.tobytes()
    assert equity.index.asi8.tolist() == times.tolist()
    assert (str(equity.index.dtype), equity.index.name, equity.name) == ("datetime64[ns, UTC]", "time", "equity")


def test_trades_are_the_table(environment: Settings) -> None:
    trades = (factories.trade(), factories.trade(side="short", exit_time=START + 3 * DAY, pnl=-1 / 3))

    frame = load_run(save(environment, factories.run_result(trades=trades))).trades

    assert list(frame.columns) == [name for name in models.TradeRow.model_fields if name != "backtest_run_id"]
    assert frame["trade_number"].tolist() == [1, 2]
    assert frame["side"].tolist() == ["long", "short"]
    assert frame["pnl"].tolist() == [99.0, -1 / 3]
    assert frame["exit_time"].tolist() == [pd.Timestamp("2020-01-03", tz="UTC"), pd.Timestamp("2020-01-04", tz="UTC")]
    assert {str(kind) for kind in frame.dtypes} == {"int64", "str", "float64", "datetime64[us, UTC]"}


def test_returns_are_dated_by_the_day_they_were_made_in(environment: Settings) -> None:
    hourly = START + DAY // 24 * np.arange(1, 49, dtype=np.int64)  # the last bar of a day closes at midnight
    equity = np.r_[np.full(24, 110.0), np.full(24, 99.0)]
    result = RunResult(100.0, EquityCurve(hourly, equity), (), (), 0.0, 48)

    returns = load_run(save(environment, result, capital=100)).returns

    assert returns.index.tolist() == [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-02")]
    assert returns.to_numpy() == pytest.approx([0.1, -0.1])
    assert returns.name == "SMA Crossover TEST"


def test_nothing_is_read_before_it_is_asked_for_and_then_once(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, read = save(environment), []
    for name in ("read_curve", "get_trades"):
        original = getattr(api, name)
        monkeypatch.setattr(api, name, lambda *given, of=original, name=name: [read.append(name), of(*given)][1])
    run = load_run(run_id)
    assert read == []
    for _ in range(2):
        assert len(run.equity) == len(run.returns) == 4
        assert len(run.trades) == 1
        assert run.config is run.config
    assert read == ["read_curve", "get_trades"]


def test_a_run_without_a_result_has_nothing_of_the_right_types(environment: Settings) -> None:
    whole = load_run(save(environment))
    running = factories.new_run()
    recording.start_run(environment, running)
    for run_id in (fail(environment), str(running.run_id)):
        run = load_run(run_id)
        assert (run.metrics, len(run.equity), len(run.returns), len(run.trades)) == ({}, 0, 0, 0)
        pd.testing.assert_series_equal(run.equity, whole.equity.iloc[:0])
        pd.testing.assert_series_equal(run.returns, whole.returns.iloc[:0])
        pd.testing.assert_frame_equal(run.trades, whole.trades.iloc[:0])
        assert run.config.data.symbol == "TEST"


def test_a_ruined_run_has_no_returns(environment: Settings) -> None:
    run = load_run(save(environment, factories.run_result([100_000.0, -1.0, 5.0])))
    assert (len(run.equity), len(run.returns)) == (3, 0)
    assert run.returns.index.dtype == "datetime64[ns]"
    assert run.metrics["return_observations"] == 0


def test_a_run_deleted_meanwhile_is_an_error_and_no_empty_curve(environment: Settings) -> None:
    run = load_run(save(environment))
    labels.delete_runs(environment, [run.run_id])
    with pytest.raises(NotFoundError, match="deleted meanwhile"):
        _ = run.equity


def test_a_run_shows_what_matters(environment: Settings) -> None:
    run = load_run(save(environment, parameters={"fast_period": 5}, period=("2020-01-01", "2020-12-31")))
    assert repr(run) == (
        f"<Run {run.run_id[:8]} success: SMA Crossover on TEST, period 2020-01-01 to 2020-12-31, total_return 0.0200,"
        f" sharpe_ratio {run.metrics['sharpe_ratio']:.4f}, max_drawdown -0.0149, trades 1>"
    )
    page = run._repr_html_()
    for shown in (run.run_id, "fast_period=5", "0.0200"):
        assert f"<td>{shown}</td>" in page


def test_what_people_wrote_is_no_markup(environment: Settings) -> None:
    run = load_run(fail(environment))
    assert "it &lt;b&gt;broke&lt;/b&gt;" in run._repr_html_()
    assert repr(run).endswith("failed: SMA Crossover on TEST, error it <b>broke</b>>")


# -- tools of others: what they compute from the returns is what is stored -----------------------------------


@pytest.fixture(params=[1, 24], ids=["daily", "hourly"])
def run(environment: Settings, request: pytest.FixtureRequest) -> Iterator[Run]:
    """A run whose returns must be as they were when all is done."""
    run = load_run(save(environment, walk(a_day=request.param)))
    before = run.returns.copy()
    yield run
    pd.testing.assert_series_equal(run.returns, before)


def test_empyrical_agrees(run: Run) -> None:
    measured = {
        "total_return": empyrical.cum_returns_final(run.returns),
        "sharpe_ratio": empyrical.sharpe_ratio(run.returns),
        "sortino_ratio": empyrical.sortino_ratio(run.returns),
        "max_drawdown": empyrical.max_drawdown(run.returns),
        "volatility": empyrical.annual_volatility(run.returns),
    }
    assert len(run.returns) == run.metrics["return_observations"] == 500
    assert measured == pytest.approx({name: run.metrics[name] for name in measured}, rel=1e-9)
    assert len(empyrical.aggregate_returns(run.returns, "monthly")) == 17


def test_quantstats_agrees(run: Run, quantstats: ModuleType) -> None:
    stats = quantstats.stats
    measured = {
        "total_return": stats.comp(run.returns),
        "sharpe_ratio": stats.sharpe(run.returns),
        "sortino_ratio": stats.sortino(run.returns),
        "max_drawdown": stats.max_drawdown(run.returns),
        "volatility": stats.volatility(run.returns),
    }
    assert measured == pytest.approx({name: run.metrics[name] for name in measured}, rel=1e-9)


def test_quantstats_compares_two_runs(environment: Settings, run: Run, quantstats: ModuleType) -> None:
    """It takes a benchmark without a zone only: one reason why returns have none."""
    other = load_run(save(environment, walk(), symbol="OTHER"))
    report = quantstats.reports.metrics(run.returns, benchmark=other.returns, mode="full", display=False)
    assert report.shape[1] == 2
    assert quantstats.stats.r_squared(other.returns, other.returns) == pytest.approx(1)


def test_pyfolio_agrees(run: Run, pyfolio: ModuleType) -> None:
    table = pyfolio.timeseries.perf_stats(run.returns, factor_returns=run.returns)
    names = {
        "Cumulative returns": "total_return",
        "Annual volatility": "volatility",
        "Sharpe ratio": "sharpe_ratio",
        "Sortino ratio": "sortino_ratio",
        "Max drawdown": "max_drawdown",
        "Skew": "skewness",
    }
    for theirs, ours in names.items():
        assert table[theirs] == pytest.approx(run.metrics[ours], rel=1e-9), theirs
    assert table["Kurtosis"] + 3 == pytest.approx(run.metrics["kurtosis"], rel=1e-9)
    assert table["Beta"] == pytest.approx(1)


def test_pyfolio_finds_interesting_times_once_the_days_have_a_zone(run: Run, pyfolio: ModuleType) -> None:
    """The one thing any of the three wants otherwise; docs/python.md says so."""
    ranges = pyfolio.timeseries.extract_interesting_date_ranges
    assert not ranges(run.returns)
    assert ranges(run.returns.tz_localize("UTC"))


# -- the page ------------------------------------------------------------------------------------------------


def test_every_example_of_the_page_runs(environment: Settings, quantstats: ModuleType, pyfolio: ModuleType) -> None:
    for fast_period in (5, 10, 20):
        parameters = {"fast_period": fast_period, "slow_period": 50, "risk_percent": 2.0}
        run_id = save(environment, walk(), parameters=parameters, symbol="AAPL")
    labels.set_name(environment, run_id, "golden-cross")
    namespace: dict[str, Any] = {}

    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

    assert len(examples) > 4
    for example in examples:
        exec(compile(example, PAGE.name, "exec"), namespace)
