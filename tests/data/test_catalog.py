"""The data catalog in a folder of its own, with Nautilus as the witness of what is in it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from ntrader.data import sample
from ntrader.data.bars import Bars, parse_timeframe
from ntrader.data.catalog import ImportSummary, add_bars, import_csv, list_entries, read
from ntrader.data.csv_file import read_csv
from ntrader.data.entries import DataEntry
from ntrader.data.fingerprint import data_fingerprint
from ntrader.errors import BadDataError, ConfigError, DataNotFoundError
from tests import factories

DAY = parse_timeframe("1-DAY")
COLUMNS = ("times", "open", "high", "low", "close", "volume")
ROWS = [(10.0, 11.0, 9.0, 10.5), (10.5, 12.25, 10.0, 11.0), (11.0, 11.5, 10.5, 11.25), (11.25, 12.0, 11.0, 11.5)]
BARS = factories.bars(ROWS)


def part(bars: Bars, *rows: int) -> Bars:
    columns: dict[str, Any] = {name: getattr(bars, name)[list(rows)] for name in COLUMNS}
    return dataclasses.replace(bars, **columns)


def revised(bars: Bars, row: int) -> Bars:
    close = bars.close.copy()
    close[row] += 0.25
    return dataclasses.replace(bars, close=close)


def only(home: Path) -> DataEntry:
    entries = list_entries(home)
    assert len(entries) == 1
    return entries[0]


def assert_holds(home: Path, bars: Bars) -> None:
    stored = read(home, only(home))
    for name in COLUMNS:
        assert getattr(stored, name).tolist() == getattr(bars, name).tolist()
        assert getattr(stored, name).flags.c_contiguous and getattr(stored, name).flags.writeable


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def nautilus_bars(home: Path, bar_type: str) -> list[Bar]:
    return list(ParquetDataCatalog(home / "catalog").bars(bar_types=[bar_type]))


def test_nautilus_reads_what_was_imported(tmp_path: Path) -> None:
    bars = sample.read("IBM")
    add_bars(tmp_path, bars)
    seen = nautilus_bars(tmp_path, "IBM.XNYS-1-DAY-LAST-EXTERNAL")
    for name in ("open", "high", "low", "close", "volume"):
        # Through text: Nautilus' own float() of the quantity 4037800 is 4037799.9999999995.
        assert [float(str(getattr(bar, name))) for bar in seen] == getattr(bars, name).tolist()
    assert [bar.ts_init for bar in seen] == [bar.ts_event for bar in seen] == bars.times.tolist()
    instrument = ParquetDataCatalog(tmp_path / "catalog").instruments(instrument_ids=["IBM.XNYS"])[0]
    assert (instrument.price_precision, str(instrument.price_increment)) == (4, "0.0001")
    assert (str(instrument.quote_currency), str(instrument.lot_size)) == ("USD", "1")


def test_a_file_and_its_import_are_the_same_data(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    rows = "".join(
        f"2010-05-06 09:{minute},{minute}.1,{minute}.3333,{minute}.01,{minute}.2,7\n" for minute in range(10, 60)
    )
    file.write_text("time,open,high,low,close,volume\n" + rows)
    minute = parse_timeframe("1-MINUTE")
    summary = import_csv(tmp_path, file, "X", "XNAS", minute)
    entry = only(tmp_path)
    assert summary == ImportSummary(entry, rows=50, added=50, changed=0, price_precision=4, notes=())
    assert (entry.source, entry.symbol, entry.venue, entry.timeframe) == ("catalog", "X", "XNAS", minute)
    assert entry.rows == 50
    assert entry.period == "2010-05-06T09:11:00Z to 2010-05-06T10:00:00Z"
    direct = read_csv(file, symbol="X", venue="XNAS", timeframe=minute)
    assert data_fingerprint(read(tmp_path, entry)) == data_fingerprint(direct)


def test_an_import_passes_on_the_stamp_and_the_notes_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("time,open,high,low,close\n2010-05-06 09:30,10,11,9,10\n")
    summary = import_csv(tmp_path, file, "X", "XNAS", parse_timeframe("1m"), stamp="close")
    assert summary.entry.period == "2010-05-06T09:30:00Z to 2010-05-06T09:30:00Z"
    assert "no volume column" in summary.notes[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.lists(st.integers(1, 10**12), min_size=4, max_size=40), st.integers(0, 34_028_236_692_093))
def test_prices_come_back_to_the_bit(decimals: int, units: list[int], volume: int) -> None:
    closes = [float(f"{unit}e-{decimals}") for unit in units]
    home = Path(tempfile.mkdtemp())
    try:
        bars = dataclasses.replace(factories.flat_bars(closes), volume=np.full(len(closes), float(volume)))
        summary = add_bars(home, bars, price_precision=decimals)
        assert summary.notes == ()
        assert_holds(home, bars)
    finally:
        shutil.rmtree(home)


# Re-importing


def test_importing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    add_bars(tmp_path, BARS)
    before = files(tmp_path)
    summary = add_bars(tmp_path, BARS)
    assert (summary.rows, summary.added, summary.changed) == (4, 0, 0)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "first, then, added",
    [
        pytest.param((0, 1), (2, 3), 2, id="after"),
        pytest.param((2, 3), (0, 1), 2, id="before"),
        pytest.param((0, 1, 2), (1, 2, 3), 1, id="overlapping"),
        pytest.param((0, 3), (1, 2), 2, id="between"),
        pytest.param((1, 2), (0, 1, 2, 3), 2, id="around"),
    ],
)
def test_new_bars_join_the_stored_ones(
    tmp_path: Path, first: tuple[int, ...], then: tuple[int, ...], added: int
) -> None:
    add_bars(tmp_path, part(BARS, *first))
    summary = add_bars(tmp_path, part(BARS, *then))
    assert (summary.added, summary.changed, summary.entry.rows) == (added, 0, 4)
    assert_holds(tmp_path, BARS)
    assert summary.entry == only(tmp_path)
    assert len(nautilus_bars(tmp_path, "TEST.SIM-1-DAY-LAST-EXTERNAL")) == 4
    assert len(list((tmp_path / "catalog/data/bar").rglob("*.parquet"))) == 1


@pytest.mark.parametrize(
    "new, count, day",
    [
        pytest.param(revised(BARS, 2), 1, "2020-01-03", id="another price"),
        pytest.param(part(BARS, 0, 1, 3), 1, "2020-01-03", id="a bar less"),
        pytest.param(revised(part(BARS, 0, 3), 0), 3, "2020-01-01", id="both"),
    ],
)
def test_stored_bars_are_changed_only_if_asked_to(tmp_path: Path, new: Bars, count: int, day: str) -> None:
    add_bars(tmp_path, BARS)
    before = files(tmp_path)
    with pytest.raises(
        BadDataError, match=f"change or drop {count} of the stored TEST 1-DAY bars on SIM, the first at {day}"
    ) as caught:
        add_bars(tmp_path, new)
    assert "--replace" in (caught.value.hint or "")
    assert files(tmp_path) == before
    summary = add_bars(tmp_path, new, replace=True)
    assert summary.changed == count
    assert_holds(tmp_path, new)


def test_a_bar_less_is_noticed_beside_an_equal_one(tmp_path: Path) -> None:
    bars = factories.flat_bars([1.0, 1.0, 1.0])
    add_bars(tmp_path, bars)
    with pytest.raises(BadDataError, match="change or drop 1 "):
        add_bars(tmp_path, part(bars, 0, 2))


def test_replacing_leaves_bars_outside_the_new_period(tmp_path: Path) -> None:
    add_bars(tmp_path, BARS)
    new = revised(BARS, 1)
    add_bars(tmp_path, part(new, 1, 2), replace=True)
    assert_holds(tmp_path, new)


def test_finer_prices_keep_their_decimals_beside_coarser_ones(tmp_path: Path) -> None:
    add_bars(tmp_path, part(BARS, 0, 1))
    finer = dataclasses.replace(BARS, high=BARS.high + 0.00125)
    add_bars(tmp_path, part(finer, 2, 3))
    assert only(tmp_path).rows == 4
    assert read(tmp_path, only(tmp_path)).high.tolist() == [11.0, 12.25, 11.50125, 12.00125]
    add_bars(tmp_path, part(BARS, 0, 1))
    assert read(tmp_path, only(tmp_path)).high.tolist() == [11.0, 12.25, 11.50125, 12.00125]


def test_series_of_other_lengths_and_venues_are_kept_apart(tmp_path: Path) -> None:
    add_bars(tmp_path, BARS)
    add_bars(tmp_path, dataclasses.replace(BARS, venue="XNAS"))
    add_bars(tmp_path, factories.bars(ROWS, timeframe="5-MINUTE"))
    entries = list_entries(tmp_path)
    assert [(entry.venue, str(entry.timeframe)) for entry in entries] == [
        ("SIM", "5-MINUTE"),
        ("SIM", "1-DAY"),
        ("XNAS", "1-DAY"),
    ]
    assert [len(read(tmp_path, entry)) for entry in entries] == [4, 4, 4]


# Precision and limits


def test_prices_are_rounded_to_the_precision_asked_for_and_a_note_says_so(tmp_path: Path) -> None:
    fine = dataclasses.replace(BARS, high=BARS.high + np.array([0.001, 0, 0, 0.004]), volume=np.full(4, 10.6))
    summary = add_bars(tmp_path, fine, price_precision=2)
    assert summary.notes == (
        "prices of 2 bars were rounded to 2 decimals",
        "volumes of 4 bars were rounded to whole shares",
    )
    assert_holds(tmp_path, dataclasses.replace(BARS, volume=np.full(4, 11.0)))


def test_prices_that_round_to_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="open 0 is not above zero"):
        add_bars(tmp_path, factories.flat_bars([0.004]), price_precision=2)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("precision", [-1, 10])
def test_a_precision_nautilus_does_not_have_is_refused(tmp_path: Path, precision: int) -> None:
    with pytest.raises(ConfigError, match=f"price precision {precision} "):
        add_bars(tmp_path, BARS, price_precision=precision)


@pytest.mark.parametrize(
    "bars",
    [dataclasses.replace(BARS, volume=np.full(4, 1e14)), factories.flat_bars([1e15])],
    ids=["volume", "price"],
)
def test_numbers_too_large_for_nautilus_are_refused(tmp_path: Path, bars: Bars) -> None:
    with pytest.raises(BadDataError, match="cannot hold these bars"):
        add_bars(tmp_path, bars)
    assert files(tmp_path) == {}
    assert list((tmp_path / "catalog").iterdir()) == []


def test_bars_before_1970_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="before 1970"):
        add_bars(tmp_path, dataclasses.replace(BARS, times=BARS.times - 60 * 365 * DAY.nanoseconds))


def test_bad_bars_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="is outside"):
        add_bars(tmp_path, dataclasses.replace(BARS, close=BARS.close * 2))


# Symbols


@pytest.mark.parametrize(
    "symbol", ["EUR/USD", "BRK.B", "BRK-B", "BRK/B", "^GSPC", "ES_F", "0700.HK", "aapl", "BTCUSDT-PERP", "A-1-DAY"]
)
def test_odd_symbols_are_found_again_by_us_and_by_nautilus(tmp_path: Path, symbol: str) -> None:
    add_bars(tmp_path, dataclasses.replace(BARS, symbol=symbol))
    assert only(tmp_path).symbol == symbol
    assert list_entries(tmp_path, symbol) == list_entries(tmp_path)
    assert_holds(tmp_path, BARS)
    seen = nautilus_bars(tmp_path, f"{symbol}.SIM-1-DAY-LAST-EXTERNAL")
    assert len(seen) == 4
    assert seen[0].bar_type == BarType.from_str(f"{symbol}.SIM-1-DAY-LAST-EXTERNAL")


@pytest.mark.parametrize(
    "symbol", ["", " ", "A B", "ES=F", "A@B", "A&B", "A*", "A?", "[A]", "A'B", "ÄÖ", "A\nB", "../A", "/A", ".A", "A\\B"]
)
def test_symbols_the_catalog_cannot_hold_are_refused(tmp_path: Path, symbol: str) -> None:
    with pytest.raises(ConfigError, match="cannot hold the symbol"):
        add_bars(tmp_path, dataclasses.replace(BARS, symbol=symbol))
    assert files(tmp_path) == {}


@pytest.mark.parametrize("venue", ["", "X NAS", "X.NAS", "X-NAS", "X/NAS", "xnas"])
def test_venues_the_catalog_cannot_hold_are_refused(tmp_path: Path, venue: str) -> None:
    with pytest.raises(ConfigError, match="cannot hold the venue"):
        add_bars(tmp_path, dataclasses.replace(BARS, venue=venue))
    assert files(tmp_path) == {}


def test_symbols_that_nautilus_would_mix_are_kept_apart(tmp_path: Path) -> None:
    add_bars(tmp_path, dataclasses.replace(BARS, symbol="EUR/USD"))
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="'EURUSD' and 'EUR/USD' in one folder"):
        add_bars(tmp_path, dataclasses.replace(BARS, symbol="EURUSD"))
    assert files(tmp_path) == before
    assert list_entries(tmp_path, "EURUSD") == ()


def test_a_symbol_does_not_stand_for_longer_ones(tmp_path: Path) -> None:
    for symbol in ("BRK", "BRK.B", "BRKX"):
        add_bars(tmp_path, dataclasses.replace(BARS, symbol=symbol))
    assert [entry.symbol for entry in list_entries(tmp_path, "BRK")] == ["BRK"]
    assert [entry.symbol for entry in list_entries(tmp_path)] == ["BRK", "BRK.B", "BRKX"]


@pytest.mark.parametrize("name", ["with space", "ümläut", "100%#1", "[x]*"])
def test_the_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    add_bars(home, BARS)
    assert_holds(home, BARS)


# What others wrote


def test_there_need_be_no_catalog(tmp_path: Path) -> None:
    assert list_entries(tmp_path / "nowhere") == ()
    assert not (tmp_path / "nowhere").exists()


def test_a_series_that_is_gone_is_not_found(tmp_path: Path) -> None:
    add_bars(tmp_path, BARS)
    entry = only(tmp_path)
    shutil.rmtree(tmp_path / "catalog")
    with pytest.raises(DataNotFoundError, match="no longer has TEST 1-DAY bars on SIM"):
        read(tmp_path, entry)


def written_by_nautilus(home: Path, bar_type: str, times: list[int], price: float = 10.0, size: int = 0) -> None:
    (home / "catalog").mkdir(exist_ok=True)
    stamps = np.array(times, dtype=np.uint64)
    prices, volumes = np.full(len(times), price), np.full(len(times), 2.5)
    bars = Bar.from_raw_arrays_to_list(
        BarType.from_str(bar_type), 2, size, prices, prices, prices, prices, volumes, stamps, stamps
    )
    ParquetDataCatalog(home / "catalog").write_data(bars)


def test_several_files_of_one_series_are_one_series(tmp_path: Path) -> None:
    for times, price in (([300, 400], 3.0), ([100, 200], 1.0), ([500], 5.0)):
        written_by_nautilus(tmp_path, "A.SIM-1-MINUTE-LAST-EXTERNAL", [time * 10**9 for time in times], price)
    earliest = min((tmp_path / "catalog/data/bar").rglob("*.parquet"))
    earliest.rename(earliest.with_name("named otherwise.parquet"))
    entry = only(tmp_path)
    assert (entry.rows, entry.first, entry.last) == (5, 100 * 10**9, 500 * 10**9)
    bars = read(tmp_path, entry)
    assert bars.times.tolist() == [time * 10**9 for time in (100, 200, 300, 400, 500)]
    assert bars.close.tolist() == [1.0, 1.0, 3.0, 3.0, 5.0]
    assert bars.times.flags.c_contiguous and bars.times.flags.writeable


def test_more_rows_than_a_row_group_holds_are_read_in_order(tmp_path: Path) -> None:
    closes = [round(10 + number / 100, 2) for number in range(12_000)]
    bars = dataclasses.replace(factories.flat_bars(closes), times=np.arange(1, 12_001) * DAY.nanoseconds)
    add_bars(tmp_path, bars)
    file = next((tmp_path / "catalog/data/bar").rglob("*.parquet"))
    assert pq.read_metadata(file).num_row_groups > 1
    assert only(tmp_path).last == 12_000 * DAY.nanoseconds
    assert_holds(tmp_path, bars)


def test_times_are_cut_to_microseconds(tmp_path: Path) -> None:
    written_by_nautilus(tmp_path, "A.SIM-1-DAY-LAST-EXTERNAL", [DAY.nanoseconds - 1, 2 * DAY.nanoseconds - 1])
    entry = only(tmp_path)
    assert entry.first == DAY.nanoseconds - 1_000
    assert read(tmp_path, entry).times.tolist() == [DAY.nanoseconds - 1_000, 2 * DAY.nanoseconds - 1_000]


def test_symbols_of_others_are_no_patterns(tmp_path: Path) -> None:
    for symbol in ("A[1]", "A1"):
        written_by_nautilus(tmp_path, f"{symbol}.SIM-1-DAY-LAST-EXTERNAL", [DAY.nanoseconds])
        assert [entry.symbol for entry in list_entries(tmp_path, symbol)] == [symbol]
    assert list_entries(tmp_path, "*") == ()


def test_fractional_sizes_are_read(tmp_path: Path) -> None:
    written_by_nautilus(tmp_path, "BTC.SIM-1-DAY-LAST-EXTERNAL", [DAY.nanoseconds], size=1)
    assert read(tmp_path, only(tmp_path)).volume.tolist() == [2.5]


@pytest.mark.parametrize(
    "bar_type", ["A.SIM-1-MINUTE-BID-EXTERNAL", "A.SIM-1-MINUTE-LAST-INTERNAL", "A.SIM-100-TICK-LAST-EXTERNAL"]
)
def test_bars_that_are_not_ours_are_left_alone(tmp_path: Path, bar_type: str) -> None:
    written_by_nautilus(tmp_path, bar_type, [60 * 10**9])
    assert list_entries(tmp_path) == ()
    add_bars(tmp_path, BARS)
    assert only(tmp_path).symbol == "TEST"
    assert len(nautilus_bars(tmp_path, bar_type)) == 1


def test_catalogs_of_standard_precision_are_read(tmp_path: Path) -> None:
    """Nautilus writes 8 bytes scaled by 1e9 where it is built so (Windows)."""
    folder = tmp_path / "catalog/data/bar/EURUSD.SIM-1-DAY-LAST-EXTERNAL"
    folder.mkdir(parents=True)
    price = [int(number).to_bytes(8, "little") for number in (1_105_430_000, 1_105_440_000)]
    size = [int(number).to_bytes(8, "little") for number in (7_000_000_000, 0)]
    columns = {name: pa.array(price, pa.binary(8)) for name in ("open", "high", "low", "close")}
    columns |= {"volume": pa.array(size, pa.binary(8))}
    columns |= {name: pa.array([1_000, 2_000], pa.uint64()) for name in ("ts_event", "ts_init")}
    notes = {"bar_type": "EUR/USD.SIM-1-DAY-LAST-EXTERNAL", "price_precision": "5", "size_precision": "0"}
    pq.write_table(pa.table(columns).replace_schema_metadata(notes), folder / "a.parquet")
    bars = read(tmp_path, only(tmp_path))
    assert bars.symbol == "EUR/USD"
    assert (bars.close.tolist(), bars.volume.tolist()) == ([1.10543, 1.10544], [7.0, 0.0])


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    add_bars(tmp_path, BARS)
    entry = only(tmp_path)
    file = next((tmp_path / "catalog/data/bar").rglob("*.parquet"))
    whole = file.read_bytes()
    for damaged in (b"", b"not parquet", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(BadDataError, match="not a Parquet file of bars") as caught:
            list_entries(tmp_path)
        assert str(file) in caught.value.message
        with pytest.raises(BadDataError):
            read(tmp_path, entry)
