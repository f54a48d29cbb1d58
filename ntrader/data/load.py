"""The bars a DataConfig asks for, from wherever they are. Imports neither pandas nor Nautilus."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ntrader.config import DataConfig, SyntheticConfig, first_moment, last_moment
from ntrader.data import catalog, sample, synthetic
from ntrader.data.bars import Bars, Timeframe, parse_timeframe
from ntrader.data.checks import check, check_since_1970
from ntrader.data.csv_file import read_csv
from ntrader.data.entries import DataEntry, time_label
from ntrader.errors import AmbiguousError, ConfigError, DataNotFoundError

# The venue of bars from a file, where nobody named one.
CSV_VENUE = "SIM"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHOWN_SYMBOLS = 20
_COLUMNS = ("times", "open", "high", "low", "close", "volume")


def available(home: Path) -> tuple[DataEntry, ...]:
    """Every series of the sample and of the catalog."""
    return (*sample.entries(), *catalog.list_entries(home))


def resolve_source(config: DataConfig, home: Path) -> DataConfig:
    """The config with source, venue and the walk of synthetic data filled in, as far as that is clear.

    With `auto` a path means csv, a walk means synthetic; otherwise the sample or the catalog, whichever has
    the symbol in this timeframe. Where neither has it the config comes back unchanged, and loading will say
    so. Raises AmbiguousError listing the candidates where there is more than one.
    """
    if config.source == "csv" or (config.source == "auto" and config.path):
        return _filled(config, source="csv", venue=config.venue or CSV_VENUE)
    if config.source == "synthetic" or (config.source == "auto" and config.synthetic):
        _require_period(config)
        walk = config.synthetic or SyntheticConfig()
        return _filled(config, source="synthetic", venue=config.venue or synthetic.VENUE, synthetic=walk)
    matches = _matches(config, _series_of(config, home))
    if len(matches) > 1:
        raise AmbiguousError(
            f"there is more than one series of {config.symbol}: {'; '.join(map(str, matches))}",
            hint="Choose one with --source or --venue.",
        )
    return _filled(config, source=matches[0].source, venue=matches[0].venue) if matches else config


def load_bars(config: DataConfig, home: Path) -> Bars:
    """The checked bars that close from `start` to `end`, both included; `notes` say what is missing.

    Raises DataNotFoundError if there are none and says what there is, BadDataError for bars no engine should
    be fed, ConfigError for synthetic bars without both ends, AmbiguousError as `resolve_source` does.
    """
    config = resolve_source(config, home)
    return of_period(load_series(config, home), config)


def load_series(config: DataConfig, home: Path) -> Bars:
    """All checked bars of the source of a resolved config; synthetic ones are drawn for its period only.

    Raises as `load_bars` does.
    """
    bars = _load(config, home)
    check(bars)
    return bars


def of_period(series: Bars, config: DataConfig) -> Bars:
    """Of what `load_series` returned, the bars that close from `start` to `end`. Raises as `load_bars` does."""
    bars = series if config.source == "synthetic" else _cut(series, config)
    check_since_1970(bars)
    return bars


def _filled(config: DataConfig, **values: object) -> DataConfig:
    return config.model_copy(update=values)


def _series_of(config: DataConfig, home: Path) -> list[DataEntry]:
    """What the sources asked for have of the symbol."""
    entries: list[DataEntry] = []
    if config.source in ("auto", "sample"):
        entries += [entry for entry in sample.entries() if entry.symbol == config.symbol]
    if config.source in ("auto", "catalog"):
        entries += catalog.list_entries(home, config.symbol)
    return entries


def _matches(config: DataConfig, entries: Iterable[DataEntry]) -> list[DataEntry]:
    timeframe = parse_timeframe(config.timeframe)
    return [entry for entry in entries if entry.timeframe == timeframe and config.venue in (None, entry.venue)]


def _load(config: DataConfig, home: Path) -> Bars:
    timeframe = parse_timeframe(config.timeframe)
    if config.source == "csv":
        path = Path(config.path or "").expanduser()
        venue = config.venue or CSV_VENUE
        return read_csv(path, symbol=config.symbol, venue=venue, timeframe=timeframe, stamp=config.stamp)
    if config.source == "synthetic":
        return _generate(config, timeframe)
    matches = _matches(config, _series_of(config, home))
    if not matches:
        raise _not_found(config, home)
    return sample.read(config.symbol) if matches[0].source == "sample" else catalog.read(home, matches[0])


def _require_period(config: DataConfig) -> tuple[datetime, datetime]:
    if config.start is None or config.end is None:
        raise ConfigError(
            "synthetic data needs a start and an end",
            hint="Add --start-date and --end-date, such as 2020-01-01 and 2020-12-31.",
        )
    return first_moment(config.start), last_moment(config.end)


def _generate(config: DataConfig, timeframe: Timeframe) -> Bars:
    start, end = _require_period(config)
    return synthetic.generate(
        config.synthetic or SyntheticConfig(),
        symbol=config.symbol,
        venue=config.venue or synthetic.VENUE,
        timeframe=timeframe,
        start=_nanoseconds(start),
        end=_nanoseconds(end),
    )


def _not_found(config: DataConfig, home: Path) -> DataNotFoundError:
    places = "the sample or the catalog" if config.source == "auto" else f"the {config.source}"
    series = _series_of(config, home)
    if series:
        wanted = f"{config.symbol} has no {config.timeframe} bars" + (f" on {config.venue}" if config.venue else "")
        return DataNotFoundError(f"{wanted} in {places}; there are: {'; '.join(map(str, series))}")
    known = [entry for entry in available(home) if config.source in ("auto", entry.source)]
    return DataNotFoundError(
        f"{config.symbol!r} is not in {places}",
        hint=_suggestion(config.symbol, sorted({e.symbol for e in known})),
    )


def _suggestion(symbol: str, known: Sequence[str]) -> str:
    if not known:
        return "There are no bars yet; `ntrader data import` brings them in, or give a file with --csv."
    by_capitals = {name.upper(): name for name in known}
    near = difflib.get_close_matches(symbol.upper(), by_capitals, n=3, cutoff=0.5)
    rest = f" and {len(known) - _SHOWN_SYMBOLS:,} more" if len(known) > _SHOWN_SYMBOLS else ""
    listed = f"There are {', '.join(known[:_SHOWN_SYMBOLS])}{rest}."
    return f"Did you mean {' or '.join(by_capitals[name] for name in near)}? {listed}" if near else listed


def _cut(bars: Bars, config: DataConfig) -> Bars:
    """The bars of the period. Raises DataNotFoundError, saying what period there is, if none are left."""
    first = _nanoseconds(first_moment(config.start)) if config.start else int(bars.times[0])
    last = _nanoseconds(last_moment(config.end)) if config.end else int(bars.times[-1])
    begin, stop = bars.times.searchsorted(first, "left"), bars.times.searchsorted(last, "right")
    if begin >= stop:
        raise DataNotFoundError(
            f"{config.symbol} has no {config.timeframe} bars {_period(config)}; "
            f"it has {config.timeframe} bars from {_label(bars, 0)} to {_label(bars, -1)} ({bars.origin})"
        )
    columns = {name: getattr(bars, name)[begin:stop] for name in _COLUMNS}
    return dataclasses.replace(bars, **columns, notes=(*bars.notes, *_uncovered(bars, config)))


def _uncovered(bars: Bars, config: DataConfig) -> list[str]:
    """What of the period lies before or after all the bars there are; a bare date counts as a whole day."""
    notes = []
    length = bars.timeframe.nanoseconds
    # A daily bar closes one microsecond before midnight.
    opened = int(bars.times[0]) - length + (1_000 if bars.timeframe.daily else 0)
    if config.start and opened > _nanoseconds(last_moment(config.start)):
        notes.append(f"bars were asked for from {config.start}, and the first there is: {_label(bars, 0)}")
    # What would follow the last bar: with a moment as the end, the next bar; with a date, anything that day.
    follows = int(bars.times[-1]) + (length if isinstance(config.end, datetime) else 1)
    if config.end and follows <= _nanoseconds(first_moment(config.end)):
        notes.append(f"bars were asked for to {config.end}, and the last there is: {_label(bars, -1)}")
    return notes


def _period(config: DataConfig) -> str:
    parts = [f"from {config.start}" if config.start else "", f"to {config.end}" if config.end else ""]
    return " ".join(part for part in parts if part)


def _label(bars: Bars, row: int) -> str:
    return time_label(int(bars.times[row]), bars.timeframe)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND * 1_000
