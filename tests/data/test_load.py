"""From a DataConfig to bars, whatever the source, and what is said when there are none."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ntrader.config import DataConfig, SyntheticConfig
from ntrader.data import sample
from ntrader.data.bars import Bars
from ntrader.data.catalog import add_bars, list_entries
from ntrader.data.fingerprint import data_fingerprint
from ntrader.data.load import available, load_bars, resolve_source
from ntrader.errors import AmbiguousError, BadDataError, ConfigError, DataNotFoundError, NtraderError
from tests import factories

# From 2020-01-01T00:30 to 2020-01-04T00:00.
HALF_HOURS = factories.bars([(10.0, 11.0, 9.0, 10.0)] * 48 * 3, timeframe="30-MINUTE")
HALF_HOURS = dataclasses.replace(HALF_HOURS, times=HALF_HOURS.times + 1_000)


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose catalog has IBM (also in the sample), MINE on two venues, and half hours of HALF and AAPL."""
    home = tmp_path_factory.mktemp("home")
    daily = factories.bars([(10.0, 11.0, 9.0, 10.0)] * 10)
    for symbol, venue, bars in (
        ("IBM", "XNYS", daily),
        ("MINE", "XNAS", daily),
        ("MINE", "XETR", daily),
        ("HALF", "SIM", HALF_HOURS),
        ("AAPL", "XNAS", HALF_HOURS),
    ):
        add_bars(home, dataclasses.replace(bars, symbol=symbol, venue=venue))
    return home


def config(**values: Any) -> DataConfig:
    return DataConfig.model_validate({"symbol": "AAPL"} | values)


def closes(bars: Bars) -> tuple[str, str]:
    first, last = bars.times[[0, -1]].astype("datetime64[ns]").astype("datetime64[us]").astype(str)
    return first, last


def refusal(kind: type[NtraderError], home: Path, **values: Any) -> str:
    with pytest.raises(kind) as caught:
        load_bars(config(**values), home)
    return f"{caught.value.message} | {caught.value.hint}"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.csv"
    rows = "".join(f"2010-05-{day:02},10,11,9,10,5\n" for day in range(3, 8))
    file.write_text("date,open,high,low,close,volume\n" + rows)
    return file


# Which source


@pytest.mark.parametrize("symbol, venue", sample.VENUES.items())
def test_auto_finds_the_sample(tmp_path: Path, symbol: str, venue: str) -> None:
    resolved = resolve_source(config(symbol=symbol), tmp_path)
    assert (resolved.source, resolved.venue) == ("sample", venue)


def test_auto_finds_the_catalog(stocked: Path) -> None:
    resolved = resolve_source(config(symbol="HALF", timeframe="30m"), stocked)
    assert (resolved.source, resolved.venue) == ("catalog", "SIM")
    assert len(load_bars(resolved, stocked)) == len(HALF_HOURS)


def test_the_timeframe_decides_between_the_sample_and_the_catalog(stocked: Path) -> None:
    assert resolve_source(config(timeframe="1-DAY"), stocked).source == "sample"
    assert resolve_source(config(timeframe="30-MINUTE"), stocked).source == "catalog"


def test_the_venue_decides_between_two_series(stocked: Path) -> None:
    assert resolve_source(config(symbol="MINE", venue="XETR"), stocked).source == "catalog"
    assert load_bars(config(symbol="MINE", venue="XETR"), stocked).venue == "XETR"


@pytest.mark.parametrize(
    "values, listed",
    [
        ({"symbol": "IBM"}, ["IBM 1-DAY on XNYS (sample), 2005-03-01", "IBM 1-DAY on XNYS (catalog), 2020-01-01"]),
        ({"symbol": "MINE"}, ["MINE 1-DAY on XETR (catalog)", "MINE 1-DAY on XNAS (catalog)"]),
        ({"symbol": "MINE", "source": "catalog"}, ["MINE 1-DAY on XETR (catalog)", "MINE 1-DAY on XNAS (catalog)"]),
    ],
)
def test_two_series_that_fit_are_listed(stocked: Path, values: dict[str, Any], listed: list[str]) -> None:
    with pytest.raises(AmbiguousError) as caught:
        resolve_source(config(**values), stocked)
    assert all(text in caught.value.message for text in listed)
    assert "--source" in (caught.value.hint or "") and "--venue" in (caught.value.hint or "")
    with pytest.raises(AmbiguousError):
        load_bars(config(**values), stocked)


@pytest.mark.parametrize("source", ["sample", "catalog"])
def test_a_named_source_is_not_ambiguous(stocked: Path, source: str) -> None:
    resolved = resolve_source(config(symbol="IBM", source=source), stocked)
    assert (resolved.source, resolved.venue) == (source, "XNYS")
    assert len(load_bars(resolved, stocked)) == (2015 if source == "sample" else 10)


def test_a_path_means_csv(tmp_path: Path, prices: Path) -> None:
    resolved = resolve_source(config(path=str(prices)), tmp_path)
    assert (resolved.source, resolved.venue) == ("csv", "SIM")
    assert resolve_source(config(path=str(prices), venue="XNAS"), tmp_path).venue == "XNAS"
    bars = load_bars(resolved, tmp_path)
    assert (bars.symbol, bars.venue, len(bars), bars.origin) == ("AAPL", "SIM", 5, str(prices))


def test_a_tilde_in_a_path_is_the_home_of_the_user(
    tmp_path: Path, prices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(prices.parent))
    assert len(load_bars(config(source="csv", path="~/prices.csv"), tmp_path)) == 5


def test_a_walk_means_synthetic_and_all_of_it_is_written_out(tmp_path: Path) -> None:
    period = {"start": "2020-01-01", "end": "2020-12-31"}
    resolved = resolve_source(config(synthetic={"seed": 3}, **period), tmp_path)
    assert (resolved.source, resolved.venue) == ("synthetic", "SYNTH")
    assert resolve_source(config(source="synthetic", **period), tmp_path).synthetic == SyntheticConfig()


@pytest.mark.parametrize("values", [{"symbol": "NOPE"}, {"timeframe": "1-HOUR"}, {"venue": "XETR"}])
def test_what_nobody_has_comes_back_unchanged(stocked: Path, values: dict[str, Any]) -> None:
    asked = config(**values)
    assert resolve_source(asked, stocked) == asked


@pytest.mark.parametrize(
    "values",
    [
        {"symbol": "MSFT", "start": "2010-01-01"},
        {"symbol": "HALF", "timeframe": "30m"},
        {"source": "synthetic", "start": "2020-01-01", "end": "2020-02-01"},
    ],
)
def test_resolving_changes_no_bar(stocked: Path, values: dict[str, Any]) -> None:
    resolved = resolve_source(config(**values), stocked)
    assert resolve_source(resolved, stocked) == resolved
    assert data_fingerprint(load_bars(config(**values), stocked)) == data_fingerprint(load_bars(resolved, stocked))


# Which period


def test_both_ends_are_included(tmp_path: Path) -> None:
    bars = load_bars(config(start="2010-01-04", end="2010-12-31"), tmp_path)
    assert closes(bars) == ("2010-01-04T23:59:59.999999", "2010-12-31T23:59:59.999999")
    assert len(bars) == 252
    assert bars.notes == ()


@pytest.mark.parametrize(
    "start, end, first, last",
    [
        ("2020-01-02", "2020-01-02", "2020-01-02T00:00:00", "2020-01-02T23:30:00"),
        ("2020-01-02T09:30", "2020-01-02T16:00", "2020-01-02T09:30:00", "2020-01-02T16:00:00"),
        ("2020-01-02T09:31", "2020-01-02T15:59", "2020-01-02T10:00:00", "2020-01-02T15:30:00"),
        ("2020-01-02T09:30-05:00", None, "2020-01-02T14:30:00", "2020-01-04T00:00:00"),
    ],
)
def test_moments_cut_by_the_close(stocked: Path, start: str, end: str | None, first: str, last: str) -> None:
    bars = load_bars(config(symbol="HALF", timeframe="30m", start=start, end=end), stocked)
    assert closes(bars) == (f"{first}.000000", f"{last}.000000")


def test_cut_columns_are_what_the_engine_takes(tmp_path: Path) -> None:
    bars = load_bars(config(start="2010-01-04", end="2010-12-31"), tmp_path)
    for name in ("times", "open", "high", "low", "close", "volume"):
        column = getattr(bars, name)
        assert len(column) == 252
        assert column.flags.c_contiguous and column.flags.writeable


@pytest.mark.parametrize(
    "values, notes",
    [
        ({}, ()),
        ({"start": "2005-03-01", "end": "2013-03-01"}, ()),
        ({"start": "2005-02-28"}, ("bars were asked for from 2005-02-28, and the first there is: 2005-03-01",)),
        ({"end": "2013-03-02"}, ("bars were asked for to 2013-03-02, and the last there is: 2013-03-01",)),
        ({"end": "2013-03-02T12:00"}, ()),
        (
            {"end": "2013-03-03T12:00"},
            ("bars were asked for to 2013-03-03 12:00:00+00:00, and the last there is: 2013-03-01",),
        ),
    ],
)
def test_what_of_the_period_is_missing_is_noted(tmp_path: Path, values: dict[str, Any], notes: tuple[str, ...]) -> None:
    assert load_bars(config(**values), tmp_path).notes == notes


def test_notes_of_short_bars(stocked: Path) -> None:
    def notes(**period: str) -> tuple[str, ...]:
        return load_bars(config(symbol="HALF", timeframe="30m", **period), stocked).notes

    assert notes(start="2020-01-01", end="2020-01-03") == ()
    assert notes(start="2020-01-01T00:00", end="2020-01-04T00:29") == ()
    assert len(notes(start="2019-12-31T23:59", end="2020-01-04T00:30")) == 2
    assert len(notes(start="2019-12-31", end="2020-01-05")) == 2
    assert len(notes(start="2020-01-01", end="2020-01-04")) == 0, "the bar that closes at midnight is of that day"


def test_a_period_without_bars_tells_of_the_one_there_is(tmp_path: Path) -> None:
    said = refusal(DataNotFoundError, tmp_path, start="2014-01-01", end="2014-12-31")
    assert "AAPL has no 1-DAY bars from 2014-01-01 to 2014-12-31" in said
    assert "1-DAY bars from 2005-03-01 to 2013-03-01 (sample)" in said
    assert "from 2014-01-01; it has" in refusal(DataNotFoundError, tmp_path, start="2014-01-01")
    assert "bars to 2000-01-01; it has" in refusal(DataNotFoundError, tmp_path, end="2000-01-01")


def test_a_weekend_has_no_bars(tmp_path: Path) -> None:
    assert "no 1-DAY bars" in refusal(DataNotFoundError, tmp_path, start="2010-05-08", end="2010-05-09")


# What is not there


@pytest.mark.parametrize("asked", ["aapl", "APPL", "AAPLE"])
def test_an_unknown_symbol_names_its_neighbours_and_what_there_is(tmp_path: Path, asked: str) -> None:
    said = refusal(DataNotFoundError, tmp_path, symbol=asked)
    assert f"'{asked}' is not in the sample or the catalog" in said
    assert "Did you mean AAPL? There are AAPL, GOOG, IBM, MSFT." in said


def test_symbols_of_the_catalog_are_named_too(stocked: Path) -> None:
    assert "Did you mean HALF?" in refusal(DataNotFoundError, stocked, symbol="HALFF")
    said = refusal(DataNotFoundError, stocked, symbol="HALFF", source="sample")
    assert "not in the sample |" in said and "HALF?" not in said


def test_a_missing_timeframe_or_venue_tells_of_the_ones_there_are(stocked: Path) -> None:
    said = refusal(DataNotFoundError, stocked, timeframe="5m")
    assert "AAPL has no 5-MINUTE bars in the sample or the catalog; there are: AAPL 1-DAY on XNAS (sample)" in said
    assert "AAPL 30-MINUTE on XNAS (catalog)" in said
    assert "AAPL has no 1-DAY bars on XETR" in refusal(DataNotFoundError, stocked, venue="XETR")


def test_an_empty_catalog_says_how_to_fill_it(tmp_path: Path) -> None:
    assert "ntrader data import" in refusal(DataNotFoundError, tmp_path, source="catalog")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    assert "nope.csv does not exist" in refusal(DataNotFoundError, tmp_path, path="nope.csv")


@pytest.mark.parametrize("period", [{}, {"start": "2020-01-01"}, {"end": "2020-01-01"}])
def test_synthetic_bars_need_both_ends(tmp_path: Path, period: dict[str, str]) -> None:
    assert "--start-date and --end-date" in refusal(ConfigError, tmp_path, source="synthetic", **period)


def test_bad_bars_in_the_catalog_are_refused(tmp_path: Path) -> None:
    add_bars(tmp_path, dataclasses.replace(factories.flat_bars([1.0, 2.0, 3.0]), symbol="A"))
    entry = list_entries(tmp_path)[0]
    folder = next((tmp_path / "catalog/data/bar").iterdir())
    twin = next(folder.iterdir())
    twin.with_name("again.parquet").write_bytes(twin.read_bytes())
    assert list_entries(tmp_path)[0].rows == 2 * entry.rows
    assert "A in the catalog, bar 2 (2020-01-01): has the same time" in refusal(BadDataError, tmp_path, symbol="A")


def test_bars_before_1970_can_be_left_out(tmp_path: Path, prices: Path) -> None:
    rows = "1969-12-30,10,11,9,10,5\n1969-12-31,10,11,9,10,5\n1970-01-02,10,11,9,10,5\n"
    prices.write_text("date,open,high,low,close,volume\n" + rows)
    assert "2 bars are from before 1970" in refusal(BadDataError, tmp_path, path=str(prices))
    assert len(load_bars(config(path=str(prices), start="1970-01-01"), tmp_path)) == 1


# What it costs


def test_available_lists_the_sample_and_the_catalog(stocked: Path) -> None:
    entries = available(stocked)
    assert [entry.symbol for entry in entries] == ["AAPL", "GOOG", "IBM", "MSFT", "AAPL", "HALF", "IBM", "MINE", "MINE"]
    assert [entry.source for entry in entries] == ["sample"] * 4 + ["catalog"] * 5
    assert [entry.rows for entry in entries] == [2015] * 4 + [144, 144, 10, 10, 10]


def test_listing_and_loading_import_neither_pandas_nor_nautilus(stocked: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ntrader.config import DataConfig\n"
        "from ntrader.data.load import available, load_bars\n"
        "light = not {'pyarrow', 'pandas', 'nautilus_trader'} & set(sys.modules)\n"
        f"home = Path({str(stocked)!r}); available(home); load_bars(DataConfig(symbol='MSFT'), home)\n"
        "load_bars(DataConfig(symbol='HALF', timeframe='30m'), home)\n"
        "print(light, {'pandas', 'nautilus_trader'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "True set()"
