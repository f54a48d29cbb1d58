"""The canary flow on real parts: stored runs, kept bars and code, and the verdict on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.backtest import backtest
from flows.canary import canary
from ntrader.config import RunRequest
from ntrader.settings import Settings
from storage.runs import list_runs
from tests import engines

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(autouse=True)
def _same_engine(home: Path) -> None:
    engines.stand_in(home)


def recorded(keep_data: bool = True, **changes: Any) -> str:
    values = {"strategy": "mean_reversion", "symbol": "AAPL", "start": "2008-01-01", "end": "2009-12-31"}
    return str(backtest(RunRequest(**(values | changes)), keep_data=keep_data).run.run_id)


def scripted(script: dict[str, str], **parameters: Any) -> str:
    return recorded(strategy="tests.scripted:Scripted", parameters={"script": script, **parameters})


def test_with_the_same_engine_every_run_is_unchanged(environment: Settings) -> None:
    runs = [recorded(strategy=strategy) for strategy in ("sma_crossover", "mean_reversion", "momentum")]

    found = canary(engines.HERE, runs)

    assert [each.outcome for each in found.runs] == ["unchanged"] * 3
    assert [str(each.run_id) for each in found.runs] == runs
    assert (found.nautilus, found.besides) == (engines.HERE, {})
    assert len(list_runs(environment, 10).runs) == 3  # nothing was saved
    for each in found.runs:
        assert each.verdict is not None
        assert (each.also_moved, each.verdict.moved) == ((), ())
        assert each.verdict.fills > 0


def test_with_the_other_engine_the_first_difference_is_named(
    other_engine: engines.Making, environment: Settings
) -> None:
    runs = [recorded(), recorded(strategy="sma_crossover")]

    moved, unchanged = canary(engines.OTHER, runs).runs

    assert (moved.outcome, unchanged.outcome) == ("moved", "unchanged")
    assert moved.verdict is not None
    assert moved.verdict.divergence is not None
    assert moved.verdict.divergence.kind == "fill"
    assert moved.also_moved == unchanged.also_moved == ()
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["canary"])), limit=1, sort="CREATED_DESC"
        )
    assert f"## nautilus_trader {engines.OTHER}" in str(artifact.data)
    assert f"| `{runs[0][:8]}` | RSI Mean Reversion | AAPL | moved |" in str(artifact.data)


def test_a_run_that_crashes_or_raises_fails_alone(environment: Settings, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    marker.touch()
    crashing = scripted({"3": "kill once"}, marker=str(marker))
    fine = recorded()
    marker.unlink()

    failed, unchanged = canary(engines.HERE, [crashing, fine]).runs

    assert (failed.outcome, unchanged.outcome) == ("failed", "unchanged")
    assert failed.error == "the process that ran the backtest was killed by SIGKILL"


def csv_of(folder: Path, close: float) -> str:
    path = folder / "bars.csv"
    days = "".join(f"2020-01-{day:02},100,100,100,{100 if day < 20 else close}\n" for day in range(6, 28))
    path.write_text("date,open,high,low,close\n" + days.replace("100,100,100,90", "100,100,90,90"))
    return str(path)


@pytest.mark.parametrize("kept", [True, False])
def test_bars_are_those_that_were_kept_and_otherwise_it_says_that_they_are_not(
    kept: bool, environment: Settings, tmp_path: Path
) -> None:
    asked = {"symbol": "X", "source": "csv", "data_path": csv_of(tmp_path, 100), "start": None, "end": None}
    script = {"strategy": "tests.scripted:Scripted", "parameters": {"script": {"3": "buy 5"}}}
    run = recorded(keep_data=kept, **asked, **script)
    csv_of(tmp_path, 90)

    (found,) = canary(engines.HERE, [run]).runs

    assert (found.outcome, found.also_moved) == (("unchanged", ()) if kept else ("moved", ("data",)))


def test_a_strategy_that_is_gone_runs_from_the_text_that_was_kept(
    environment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "short_lived.py"
    module.write_text(Path("tests/scripted.py").read_text())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = recorded(strategy="short_lived:Scripted", parameters={"script": {"3": "buy 5", "7": "sell 5"}})
    module.unlink()

    (found,) = canary(engines.HERE, [run]).runs

    assert found.outcome == "unchanged"
    assert found.verdict is not None
    assert found.verdict.fills == 2


def test_a_run_without_a_result_is_said_to_have_none(environment: Settings) -> None:
    with pytest.raises(Exception, match="bar 3 went wrong"):
        scripted({"3": "raise"})
    (failed_run,) = list_runs(environment, 10).runs

    (found,) = canary(engines.HERE, [str(failed_run.run_id)]).runs

    assert found.outcome == "failed"
    assert "is failed and has no result to compare with" in str(found.error)
