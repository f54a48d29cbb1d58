"""`ntrader data impact`: a changed catalog, a removed file, and nothing at all."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from ntrader.config import RunConfig
from ntrader.data.catalog import add_bars
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.load import load_bars
from ntrader.settings import Settings
from storage import recording
from tests import factories
from tests.cli.conftest import Here

BARS = dataclasses.replace(factories.bars([(10.0, 11.0, 9.0, 10.0)] * 10), symbol="MINE")


def saved(settings: Settings, **data: Any) -> str:
    """A run on these data, by its id: recorded with the bars that there are now."""
    config: RunConfig = factories.run_config(data=data)
    bars = load_bars(config.data, settings.home)
    run = factories.new_run(config=config)
    recording.start_run(settings, run)
    done = factories.execution()
    prints = dataclasses.replace(done.fingerprints, data=data_fingerprint(bars))
    done = dataclasses.replace(done, fingerprints=prints, first_bar=int(bars.times[0]), last_bar=int(bars.times[-1]))
    recording.save_success(settings, run.run_id, done, factories.metrics_of(done))
    return str(run.run_id)


@pytest.fixture
def stocked(environment: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """The database of the session, and a home with a catalog of our own."""
    monkeypatch.setenv("NTRADER_HOME", str(tmp_path))
    add_bars(tmp_path, BARS)
    return dataclasses.replace(environment, home=tmp_path)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.csv"
    file.write_text("date,open,high,low,close,volume\n2010-05-03,10,11,9,10,5\n2010-05-04,10,11,9,10,5\n")
    return file


def change_catalog(home: Path) -> None:
    close = BARS.close.copy()
    close[-1] = 10.5
    add_bars(home, dataclasses.replace(BARS, close=close), replace=True)


def test_nothing_was_run(here: Here, stocked: Settings) -> None:
    answer = here("data", "impact")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines()[-1] == "0 runs on 0 data sets: all unchanged"


def test_all_unchanged(here: Here, stocked: Settings, prices: Path) -> None:
    saved(stocked, symbol="MINE", source="catalog", venue="SIM")
    saved(stocked, symbol="MINE", source="catalog", venue="SIM")
    saved(stocked, symbol="AAPL", source="sample", venue="XNAS", start="2010-01-01")
    saved(stocked, symbol="CSV", source="csv", venue="SIM", path=str(prices))
    answer = here("data", "impact")
    assert (answer.code, answer.out) == (0, "")
    assert answer.err.splitlines()[-1] == "4 runs on 3 data sets: all unchanged"
    assert "Reading what runs were fed" in answer.err
    assert here("data", "impact", "--json").out == "[]\n"


def test_a_changed_catalog_and_a_removed_file(here: Here, stocked: Settings, prices: Path) -> None:
    saved(stocked, symbol="MINE", source="catalog", venue="SIM")
    newest = saved(stocked, symbol="MINE", source="catalog", venue="SIM")
    saved(stocked, symbol="MINE", source="catalog", venue="SIM", end="2020-01-05")
    lost = saved(stocked, symbol="CSV", source="csv", venue="SIM", path=str(prices))
    change_catalog(stocked.home)
    prices.unlink()

    answer = here("data", "impact", "--format", "csv")

    assert answer.code == 6
    gone, changed = csv.DictReader(io.StringIO(answer.out))
    assert gone == {
        "symbol": "CSV", "source": "csv", "timeframe": "1-DAY", "start": "2010-05-03", "end": "2010-05-04",
        "runs": "1", "newest_run": lost, "state": "gone", "message": f"data file {prices} does not exist",
    }  # fmt: skip
    assert (changed["symbol"], changed["source"], changed["start"], changed["end"]) == (
        "MINE", "catalog", "2020-01-01", "2020-01-10",
    )  # fmt: skip
    assert (changed["runs"], changed["newest_run"], changed["state"], changed["message"]) == (
        "2", newest, "changed", "",
    )  # fmt: skip
    assert answer.err.splitlines()[-1] == "3 of 4 runs, on 2 of 3 data sets, would see other bars today"


def test_a_line_a_run(here: Here, stocked: Settings) -> None:
    runs = [saved(stocked, symbol="MINE", source="catalog", venue="SIM") for _ in range(2)]
    saved(stocked, symbol="AAPL", source="sample", venue="XNAS")
    change_catalog(stocked.home)
    answer = here("data", "impact", "--runs", "--json")
    assert answer.code == 6
    found = json.loads(answer.out)
    assert [(run["run_id"], run["state"], run["end"]) for run in found] == [
        (run_id, "changed", "2020-01-10") for run_id in runs
    ]


def test_only_one_symbol(here: Here, stocked: Settings) -> None:
    saved(stocked, symbol="MINE", source="catalog", venue="SIM")
    saved(stocked, symbol="AAPL", source="sample", venue="XNAS")
    change_catalog(stocked.home)
    answer = here("data", "impact", "--symbol", "AAPL")
    assert (answer.code, answer.out, answer.err.splitlines()[-1]) == (0, "", "1 run on 1 data set: all unchanged")
    assert here("data", "impact", "--symbol", "MINE").code == 6


def test_table_markdown_and_a_file(here: Here, stocked: Settings, tmp_path: Path) -> None:
    run_id = saved(stocked, symbol="MINE", source="catalog", venue="SIM")
    report = tmp_path / "report.md"
    assert here("data", "impact", "-o", str(report), "--format", "md").code == 0
    assert len(report.read_text().splitlines()) == 2, "a heading, and no older answer"
    change_catalog(stocked.home)
    heading, _, row = here("data", "impact").out.splitlines()
    assert heading.split()[:3] == ["symbol", "source", "timeframe"]
    assert row.split() == ["MINE", "catalog", "1-DAY", "2020-01-01", "2020-01-10", "1", run_id, "changed", "-"]
    assert here("data", "impact", "-o", str(report), "--format", "md").out == ""
    assert f"| {run_id} | changed | - |" in report.read_text()
