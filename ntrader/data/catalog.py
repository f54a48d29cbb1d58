"""The data catalog: Nautilus' ParquetDataCatalog under `NTRADER_HOME/catalog`.

It is written by Nautilus, so that any Nautilus program can use it, and read here without: listing and reading
need only pyarrow. What Nautilus writes is `data/bar/<bar type>/<first>_<last>.parquet`, the folder's name
without the slashes of the bar type; the schema's metadata has the bar type in full and the precisions. Prices
and volumes are integers of 8 or 16 bytes, scaled by 1e9 or 1e16 as Nautilus was built. Only bars of last
prices made elsewhere (`-LAST-EXTERNAL`) are ours; others in the catalog are left alone.
"""

from __future__ import annotations

import dataclasses
import glob
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ntrader.data.bars import Bars, Timeframe, parse_timeframe
from ntrader.data.checks import check, check_since_1970
from ntrader.data.csv_file import Stamp, read_csv
from ntrader.data.entries import DataEntry, time_label
from ntrader.errors import BadDataError, ConfigError, DataNotFoundError

# What Nautilus' own queries of the catalog can find again: other characters break their SQL or their globs.
_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._/^-]*")
_VENUE = re.compile(r"[A-Z0-9_]+")
_BAR_TYPE = re.compile(r"(?P<symbol>.+)\.(?P<venue>[^.]+)-(?P<timeframe>\d+-[A-Z]+)-LAST-EXTERNAL")
_PRICES = ("open", "high", "low", "close")
_COLUMNS = (*_PRICES, "volume")
_LEAST_PRECISION, _MOST_PRECISION = 2, 9
_DECIMALS_BY_WORDS = {1: 9, 2: 16}


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did.

    `rows` counts the file's bars, `added` those at new times, `changed` the stored bars that were replaced or
    removed; `notes` are what a person should know. `entry` is the whole series as it now is.
    """

    entry: DataEntry
    rows: int
    added: int
    changed: int
    price_precision: int
    notes: tuple[str, ...]


class _Series(NamedTuple):
    symbol: str
    venue: str
    timeframe: Timeframe

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe} bars on {self.venue}"


@dataclass(frozen=True, slots=True)
class _File:
    """One Parquet file of bars, known by its footer. Precisions are numbers of decimals."""

    path: Path
    series: _Series | None
    rows: int
    first: int
    last: int
    price_precision: int
    size_precision: int


def import_csv(
    home: Path,
    path: Path,
    symbol: str,
    venue: str,
    timeframe: Timeframe,
    *,
    price_precision: int | None = None,
    stamp: Stamp = "open",
    currency: str = "USD",
    replace: bool = False,
) -> ImportSummary:
    """Read a CSV file and add its bars to the catalog: `read_csv`, then `add_bars`."""
    _require_storable(symbol, venue)
    bars = read_csv(path, symbol=symbol, venue=venue, timeframe=timeframe, stamp=stamp)
    return add_bars(home, bars, price_precision=price_precision, currency=currency, replace=replace)


def add_bars(
    home: Path,
    bars: Bars,
    *,
    price_precision: int | None = None,
    currency: str = "USD",
    replace: bool = False,
) -> ImportSummary:
    """Add bars, and their instrument as an equity of whole shares, to the catalog.

    Prices keep the decimals they have (2 to 9) unless `price_precision` says otherwise. Bars may be added before,
    after and between stored ones. Over the period of the new bars, stored bars that differ or are not among them
    stop the import, unless `replace` lets the new ones win. One import at a time per series.

    Raises ConfigError for what the catalog cannot hold, BadDataError for bars that contradict the stored ones.
    """
    _require_storable(bars.symbol, bars.venue)
    precision = _precision(bars) if price_precision is None else price_precision
    if not 0 <= precision <= _MOST_PRECISION:
        raise ConfigError(f"price precision {precision} is not one of 0 to {_MOST_PRECISION}")
    new = _rounded(bars, precision)
    check(new)
    check_since_1970(new)
    series = _Series(bars.symbol, bars.venue, bars.timeframe)
    files = _files_beside(home, series)
    stored = _read(files, series)
    contradicted = _contradicted(stored, new)
    if contradicted.size and not replace:
        raise _contradiction(series, contradicted)
    merged = _merged(stored, new)
    _write(
        home,
        merged,
        currency,
        price_precision=max([precision, *(file.price_precision for file in files)]),
        size_precision=max([0, *(file.size_precision for file in files)]),
    )
    return ImportSummary(
        entry=_entry(series, len(merged), int(merged.times[0]), int(merged.times[-1])),
        rows=len(new),
        added=int((~np.isin(new.times, stored.times)).sum()),
        changed=int(contradicted.size),
        price_precision=precision,
        notes=(*bars.notes, *_rounding_notes(bars, new, precision)),
    )


def list_entries(home: Path, symbol: str | None = None) -> tuple[DataEntry, ...]:
    """The series in the catalog, of one symbol or all, sorted. Imports no Nautilus.

    Raises BadDataError naming a file that cannot be read.
    """
    entries = [
        _entry(series, sum(f.rows for f in files), min(f.first for f in files), max(f.last for f in files))
        for series, files in _files(home, symbol).items()
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.symbol, entry.venue, entry.timeframe.nanoseconds)))


def read(home: Path, entry: DataEntry) -> Bars:
    """All bars of a series that `list_entries` told of, unchecked. Raises DataNotFoundError if it is gone."""
    series = _Series(entry.symbol, entry.venue, entry.timeframe)
    files = _files(home, entry.symbol).get(series)
    if not files:
        raise DataNotFoundError(f"the catalog no longer has {series}")
    return _read(files, series)


def _entry(series: _Series, rows: int, first: int, last: int) -> DataEntry:
    return DataEntry("catalog", series.symbol, series.venue, series.timeframe, rows, first, last)


def _require_storable(symbol: str, venue: str) -> None:
    if not _SYMBOL.fullmatch(symbol):
        raise ConfigError(
            f"the catalog cannot hold the symbol {symbol!r}",
            hint="It may have letters, digits and . - _ / ^, and begins with a letter, a digit or ^.",
        )
    if not _VENUE.fullmatch(venue):
        raise ConfigError(
            f"the catalog cannot hold the venue {venue!r}",
            hint="Write it in capital letters, digits and _, such as XNAS.",
        )


# Finding and reading


def _files(home: Path, symbol: str | None = None) -> dict[_Series, list[_File]]:
    folders = "*" if symbol is None else f"{glob.escape(_folder_name(symbol))}.*"
    found: dict[_Series, list[_File]] = defaultdict(list)
    for path in sorted(_bar_folder(home).glob(f"{folders}/*.parquet")):
        file = _footer(path)
        if file.series and file.rows and symbol in (None, file.series.symbol):
            found[file.series].append(file)
    return found


def _bar_folder(home: Path) -> Path:
    return home / "catalog" / "data" / "bar"


def _folder_name(text: str) -> str:
    """As Nautilus' `urisafe_identifier` has it."""
    return text.replace("/", "")


def _files_beside(home: Path, series: _Series) -> list[_File]:
    """The files in the folder that the series has or will have.

    EUR/USD and EURUSD share one folder: Nautilus would mix them. Raises ConfigError if it is taken.
    """
    folder = _bar_folder(home) / _folder_name(f"{series.symbol}.{series.venue}-{series.timeframe}-LAST-EXTERNAL")
    files = [_footer(path) for path in sorted(folder.glob("*.parquet"))]
    other = next((file.series for file in files if file.series != series), None)
    if other:
        raise ConfigError(
            f"the catalog keeps {series.symbol!r} and {other.symbol!r} in one folder, and it has {other}",
            hint=f"Import it as {other.symbol!r}, or under another venue.",
        )
    return files


def _footer(path: Path) -> _File:
    try:
        footer = _parquet().read_metadata(path)
        noted = {key.decode(): value.decode() for key, value in footer.metadata.items() if key != b"ARROW:schema"}
        place = footer.schema.names.index("ts_init")
        groups = [footer.row_group(group).column(place).statistics for group in range(footer.num_row_groups)]
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(path, error) from None
    return _File(
        path=path,
        series=_parse_bar_type(noted.get("bar_type", path.parent.name)),
        rows=footer.num_rows,
        first=_cut(min((group.min for group in groups), default=0)),
        last=_cut(max((group.max for group in groups), default=0)),
        price_precision=int(noted.get("price_precision", _MOST_PRECISION)),
        size_precision=int(noted.get("size_precision", _MOST_PRECISION)),
    )


def _cut(time: int) -> int:
    """To microseconds: brokers close days at 23:59:59.999999999, we and PostgreSQL at .999999."""
    return time // 1_000 * 1_000


def _parse_bar_type(text: str) -> _Series | None:
    """The series of `AAPL.XNAS-1-DAY-LAST-EXTERNAL`; None for bars that are not ours."""
    match = _BAR_TYPE.fullmatch(text)
    try:
        return _Series(match["symbol"], match["venue"], parse_timeframe(match["timeframe"])) if match else None
    except ConfigError:
        return None


def _read(files: list[_File], series: _Series) -> Bars:
    tables = [_table(file) for file in files]
    times = np.concatenate([np.zeros(0, np.int64), *(table["ts_init"] for table in tables)])
    order = np.argsort(times, kind="stable")
    columns: dict[str, Any] = {
        name: np.concatenate([np.zeros(0), *(table[name] for table in tables)])[order] for name in _COLUMNS
    }
    return Bars(*series, times=times[order] // 1_000 * 1_000, **columns, origin=f"{series.symbol} in the catalog")


def _table(file: _File) -> dict[str, NDArray[Any]]:
    try:
        # Not read_table: it takes a folder with an "=" in its name for a partition.
        table = _parquet().ParquetFile(file.path).read(columns=[*_COLUMNS, "ts_init"])
        columns = {name: _decoded(table[name], file.price_precision) for name in _PRICES}
        columns["volume"] = _decoded(table["volume"], file.size_precision)
        return {**columns, "ts_init": _words(table["ts_init"])[:, 0]}
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(file.path, error) from None


def _decoded(column: Any, precision: int) -> NDArray[np.float64]:
    """Scaled integers of 8 or 16 bytes as the floats nearest to the decimals they stand for."""
    words = _words(column)
    number = words[:, 0].astype(np.float64)
    if words.shape[1] == 2:
        number = words[:, 1] * 2.0**64 + words[:, 0].view("<u8")
    # Through the whole number of last decimals: dividing the scaled number itself can miss by one bit.
    return np.rint(number / 10.0 ** (_DECIMALS_BY_WORDS[words.shape[1]] - precision)) / 10.0**precision


def _words(column: Any) -> NDArray[np.int64]:
    """The column's bytes as rows of 8-byte words. Arrow's own to_numpy would import pandas."""
    width = column.type.bit_width // 8
    raw = b"".join(chunk.buffers()[1][chunk.offset * width :][: len(chunk) * width] for chunk in column.chunks)
    return np.frombuffer(raw, "<i8").reshape(-1, width // 8)


def _parquet() -> Any:
    import pyarrow.parquet

    return pyarrow.parquet


def _unreadable(path: Path, error: Exception) -> BadDataError:
    return BadDataError(
        f"{path}: not a Parquet file of bars: {error}", hint="Remove the file and import its data again."
    )


# Merging and writing


def _precision(bars: Bars) -> int:
    """The fewest decimals, from 2 to 9, that hold every price unchanged; 9 if none do."""
    for precision in range(_LEAST_PRECISION, _MOST_PRECISION):
        if all(np.array_equal(_round(getattr(bars, name), precision), getattr(bars, name)) for name in _PRICES):
            return precision
    return _MOST_PRECISION


def _round(values: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    # The same arithmetic as in _decoded, so that what is read is what was written.
    return np.rint(values * 10.0**decimals) / 10.0**decimals


def _rounded(bars: Bars, precision: int) -> Bars:
    prices: dict[str, Any] = {name: _round(getattr(bars, name), precision) for name in _PRICES}
    return dataclasses.replace(bars, **prices, volume=np.rint(bars.volume))


def _rounding_notes(bars: Bars, new: Bars, precision: int) -> list[str]:
    prices = np.logical_or.reduce([getattr(bars, name) != getattr(new, name) for name in _PRICES])
    volumes = bars.volume != new.volume
    notes = []
    if prices.any():
        notes.append(f"prices of {prices.sum():,} bars were rounded to {precision} decimals")
    if volumes.any():
        notes.append(f"volumes of {volumes.sum():,} bars were rounded to whole shares")
    return notes


def _contradicted(stored: Bars, new: Bars) -> NDArray[np.int64]:
    """Times of the stored bars, within the period of the new ones, that those lack or have otherwise."""
    within = (stored.times >= new.times[0]) & (stored.times <= new.times[-1])
    twins = np.searchsorted(new.times, stored.times[within])
    same = new.times[twins] == stored.times[within]
    for name in _COLUMNS:
        same &= getattr(new, name)[twins] == getattr(stored, name)[within]
    contradicted: NDArray[np.int64] = stored.times[within][~same]
    return contradicted


def _contradiction(series: _Series, times: NDArray[np.int64]) -> BadDataError:
    first = time_label(int(times[0]), series.timeframe)
    return BadDataError(
        f"the import would change or drop {times.size:,} of the stored {series}, the first at {first}",
        hint="With --replace the new bars win over the period they cover.",
    )


def _merged(stored: Bars, new: Bars) -> Bars:
    outside = (stored.times < new.times[0]) | (stored.times > new.times[-1])
    times = np.concatenate([stored.times[outside], new.times])
    order = np.argsort(times)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(stored, name)[outside], getattr(new, name)])[order] for name in _COLUMNS
    }
    return dataclasses.replace(new, times=times[order], **columns)


def _write(home: Path, bars: Bars, currency: str, *, price_precision: int, size_precision: int) -> None:
    """Put the series into one file: Nautilus writes it aside, then it takes the place of the old ones."""
    root = (home / "catalog").absolute()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=root) as aside:
        _write_with_nautilus(Path(aside), bars, currency, price_precision, size_precision)
        for written in sorted(Path(aside).glob("data/*/*/*.parquet")):
            place = root / written.relative_to(aside)
            place.parent.mkdir(parents=True, exist_ok=True)
            written.replace(place)
            for old in set(place.parent.glob("*.parquet")) - {place}:
                old.unlink()


def _write_with_nautilus(root: Path, bars: Bars, currency: str, price_precision: int, size_precision: int) -> None:
    from nautilus_trader.model.data import Bar, BarType
    from nautilus_trader.model.identifiers import InstrumentId, Symbol
    from nautilus_trader.model.instruments import Equity
    from nautilus_trader.model.objects import Currency, Price, Quantity
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    instrument_id = InstrumentId.from_str(f"{bars.symbol}.{bars.venue}")
    times = bars.times.astype(np.uint64)
    try:
        instrument = Equity(
            instrument_id=instrument_id,
            raw_symbol=Symbol(bars.symbol),
            currency=Currency.from_str(currency),
            price_precision=price_precision,
            price_increment=Price(10.0**-price_precision, price_precision),
            lot_size=Quantity.from_int(1),
            ts_event=0,
            ts_init=0,
        )
        objects = Bar.from_raw_arrays_to_list(
            BarType.from_str(f"{instrument_id}-{bars.timeframe}-LAST-EXTERNAL"),
            price_precision,
            size_precision,
            *(getattr(bars, name) for name in _COLUMNS),
            times,
            times,
        )
    except (ValueError, OverflowError) as error:
        raise BadDataError(f"{bars.origin}: the catalog cannot hold these bars: {error}") from None
    catalog = ParquetDataCatalog(root)
    catalog.write_data([instrument])
    catalog.write_data(objects)
