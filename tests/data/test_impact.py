"""Which uses of data are no longer what they were, whatever has happened to the source."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ntrader import progress
from ntrader.config import DataConfig
from ntrader.data import impact
from ntrader.data.catalog import add_bars
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.impact import find_impacts
from ntrader.data.load import load_bars
from ntrader.data.uses import DataUse
from tests import factories

BARS = dataclasses.replace(factories.bars([(10.0, 11.0, 9.0, 10.0)] * 10), symbol="MINE")
SAMPLE = {"symbol": "AAPL", "source": "sample", "venue": "XNAS"}
CATALOG = {"symbol": "MINE", "source": "catalog", "venue": "SIM"}
SYNTHETIC = {"symbol": "X", "source": "synthetic", "venue": "SYNTH", "synthetic": {"seed": 1}}


def use(home: Path, data: dict[str, Any], **values: Any) -> DataUse:
    """As it would be recorded today."""
    config = DataConfig.model_validate(data)
    known = {"fingerprint": data_fingerprint(load_bars(config, home))} if "fingerprint" not in values else {}
    start = datetime(2020, 1, 1, tzinfo=UTC)
    fields: dict[str, Any] = {"start": start, "end": start, "runs": 1, "newest": UUID(int=1)}
    snapshot = config.model_dump(mode="json")
    return DataUse(data=snapshot, symbol=config.symbol, source=config.source, **(fields | known | values))


def states(uses: list[DataUse], home: Path) -> list[tuple[str, str, str | None]]:
    return [(found.use.symbol, found.state, found.message) for found in find_impacts(uses, home)]


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.csv"
    rows = "".join(f"2010-05-{day:02},10,11,9,10,5\n" for day in range(3, 8))
    file.write_text("date,open,high,low,close,volume\n" + rows)
    return file


def csv(file: Path, **values: Any) -> dict[str, Any]:
    return {"symbol": "CSV", "source": "csv", "venue": "SIM", "path": str(file), **values}


def test_nothing_changed(tmp_path: Path, prices: Path) -> None:
    add_bars(tmp_path, BARS)
    period = {"start": "2020-01-02", "end": "2020-01-06"}
    wanted = [SAMPLE, SAMPLE | {"start": "2010-01-01"}, CATALOG, CATALOG | period, SYNTHETIC | period, csv(prices)]
    assert find_impacts([use(tmp_path, data) for data in wanted], tmp_path) == ()
    assert find_impacts([], tmp_path) == ()


def test_a_changed_catalog_matters_to_the_periods_it_changed_in(tmp_path: Path) -> None:
    add_bars(tmp_path, BARS)
    early = use(tmp_path, CATALOG | {"end": "2020-01-05"}, newest=UUID(int=1))
    late = use(tmp_path, CATALOG | {"start": "2020-01-06"}, newest=UUID(int=2))
    whole = use(tmp_path, CATALOG, newest=UUID(int=3), end=datetime(2020, 1, 2, tzinfo=UTC))
    volume = BARS.volume.copy()
    volume[-1] += 1
    add_bars(tmp_path, dataclasses.replace(BARS, volume=volume), replace=True)
    found = find_impacts([late, early, whole], tmp_path)
    assert [(item.use.newest.int, item.state) for item in found] == [(2, "changed"), (3, "changed")]


def test_runs_from_before_and_after_a_change(tmp_path: Path, prices: Path) -> None:
    before = use(tmp_path, csv(prices), newest=UUID(int=1))
    prices.write_text(prices.read_text() + "2010-05-10,10,11,9,10,5\n")
    after = use(tmp_path, csv(prices), newest=UUID(int=2))
    (found,) = find_impacts([after, before], tmp_path)
    assert (found.use, found.state, found.message) == (before, "changed", None)


def test_a_removed_file(tmp_path: Path, prices: Path) -> None:
    uses = [use(tmp_path, csv(prices)), use(tmp_path, csv(prices, start="2010-05-04")), use(tmp_path, SAMPLE)]
    prices.unlink()
    assert states(uses, tmp_path) == [("CSV", "gone", f"data file {prices} does not exist")] * 2


def test_a_removed_series_and_a_period_without_bars(tmp_path: Path, prices: Path) -> None:
    add_bars(tmp_path, BARS)
    uses = [use(tmp_path, CATALOG), use(tmp_path, csv(prices, end="2010-05-03"))]
    shutil.rmtree(tmp_path / "catalog")
    header, *rows = prices.read_text().splitlines(keepends=True)
    prices.write_text("".join([header, *rows[1:]]))
    mine, other = reversed(states(uses, tmp_path))
    assert mine == ("MINE", "gone", "'MINE' is not in the catalog")
    assert other[:2] == ("CSV", "gone")
    assert "has no 1-DAY bars to 2010-05-03" in str(other[2])


def test_what_cannot_be_read(tmp_path: Path, prices: Path) -> None:
    bad = use(tmp_path, csv(prices))
    old = dataclasses.replace(use(tmp_path, SAMPLE), data={"symbol": "AAPL", "source": "sample", "lookback": 5})
    none = dataclasses.replace(use(tmp_path, SAMPLE), data={}, symbol="NONE")
    prices.write_text("date,open,high,low,close,volume\n2010-05-03,10,9,11,10,5\n")
    found = {symbol: (state, str(message)) for symbol, state, message in states([none, bad, old], tmp_path)}
    assert {state for state, _ in found.values()} == {"unreadable"}
    assert "high 9 is below low 11" in found["CSV"][1]
    assert "does not fit this version of ntrader: lookback: unknown setting" in found["AAPL"][1]
    assert "symbol: is missing" in found["NONE"][1]


def test_synthetic_bars_depend_on_the_walk(tmp_path: Path) -> None:
    period = {"start": "2020-01-02", "end": "2020-02-06"}
    one = use(tmp_path, SYNTHETIC | period)
    longer = use(tmp_path, SYNTHETIC | period | {"end": "2020-03-06"})
    other = dataclasses.replace(one, data=one.data | {"synthetic": one.data["synthetic"] | {"seed": 2}})
    assert states([one, longer], tmp_path) == []
    assert states([one, longer, other], tmp_path) == [("X", "changed", None)]


def test_a_series_is_read_once_and_progress_is_told(
    tmp_path: Path, prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [f"2010-05-{day:02}" for day in range(3, 8)]
    uses = [use(tmp_path, csv(prices, start=day), runs=2) for day in days] + [use(tmp_path, SAMPLE)]
    read: list[str] = []
    told: list[tuple[str, int, int]] = []
    load = impact.load_series
    monkeypatch.setattr(impact, "load_series", lambda config, home: read.append(config.symbol) or load(config, home))
    monkeypatch.setattr(progress, "_listener", lambda *words: told.append(words))
    assert find_impacts([uses[-1], *uses[:-1]], tmp_path) == ()
    assert sorted(read) == ["AAPL", "CSV"]
    assert [(words[0], words[2]) for words in told] == [("Comparing bars", 11)] * 6
    assert [words[1] for words in told] == sorted(words[1] for words in told)
