"""One sweep as a benchmark runs it: from `launch_sweep` to its outcome, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise, product
from typing import Any

import numpy as np

from benchmarks import processes
from benchmarks.floor import PROCESSES, Pair
from benchmarks.processes import Spent, metered
from flows.launch import launch_sweep
from ntrader.background import every
from ntrader.config import RunRequest
from ntrader.settings import Settings
from ntrader.sweeps.axes import parse_param
from ntrader.sweeps.request import SearchRequest
from tasks.chunk import Watched
from tasks.sitting import LOADING, SAVING, ChunkReport

SIZING: dict[str, dict[str, Any]] = {"risk": {"risk_percent": 2.0}, "fixed": {"trade_size": 100}}
CAPITAL = 1_000_000
# 250 bars, over which a trial of `Plan.days` trades three times.
YEAR = date(2011, 3, 1), date(2012, 2, 24)


@dataclass(frozen=True)
class Case:
    """A grid over two periods, as `parse_param` reads them, on so many made-up bars, on those of a csv file, or on a
    year of real ones."""

    bars: int
    fast: str
    slow: str
    sizing: str = "risk"
    timeframe: str = "1-DAY"
    asked: float | None = None
    verify: bool = True
    capital: int = CAPITAL
    csv: str | None = None
    real: bool = False

    @property
    def pairs(self) -> tuple[Pair, ...]:
        fast, slow = (parse_param(f"x={axis}")[1].values for axis in (self.fast, self.slow))
        return tuple(product(fast, slow))

    @property
    def series(self) -> tuple[str, str]:
        """Symbol and source."""
        if self.real:
            return "AAPL", "sample"
        return "TEST", "csv" if self.csv else "synthetic"

    @property
    def period(self) -> tuple[date, date]:
        if self.real:
            return YEAR
        if self.timeframe == "1-DAY":
            first = date(2000, 1, 3)
            return first, np.busday_offset(first, self.bars - 1).astype("datetime64[D]").item()
        start = datetime(2020, 1, 1, tzinfo=UTC)
        return start, start + timedelta(minutes=self.bars)

    @property
    def request(self) -> RunRequest:
        symbol, source = self.series
        start, end = (None, None) if self.csv else self.period
        return RunRequest(
            strategy="sma_crossover", symbol=symbol, source=source, data_path=self.csv, timeframe=self.timeframe,
            start=start, end=end, parameters=SIZING[self.sizing], initial_capital=Decimal(self.capital),
        )  # fmt: skip

    @property
    def search(self) -> SearchRequest:
        axes = (
            parse_param(f"{name}={axis}") for name, axis in (("fast_period", self.fast), ("slow_period", self.slow))
        )
        return SearchRequest(params={name: axis.canonical() for name, axis in axes})

    @property
    def words(self) -> list[str]:
        """The same for the command line."""
        symbol, source = self.series
        start, end = (moment.isoformat() for moment in self.period)
        given = " ".join(f"--set {name}={value}" for name, value in SIZING[self.sizing].items())
        return (
            f"sweep run --strategy sma_crossover --symbol {symbol} --source {source} --timeframe {self.timeframe}"
            f" --start-date {start} --end-date {end} --initial-capital {self.capital} {given}"
            f" --param fast_period={self.fast} --param slow_period={self.slow} --workers {PROCESSES} --json"
            f"{'' if self.verify else ' --no-verify'}"
        ).split()

    def __str__(self) -> str:
        kind = "daily" if self.timeframe == "1-DAY" else "minute"
        sizing = "sized by risk, with stops" if self.sizing == "risk" else "fixed size, market orders only"
        return f"{len(self.pairs):,} trials on {self.bars:,} {kind} bars, {sizing}"


@dataclass
class Chunk:
    """What a worker did with one chunk: when the call began, when the worker was there, when it had reserved its trials
    and built its bars, when it began to save, and when it was done."""

    worker: int
    began: float
    there: float = 0.0
    first: float = 0.0
    saving: float = 0.0
    ended: float = 0.0
    report: ChunkReport | None = None

    def hear(self, number: int) -> None:
        now = time.perf_counter()
        if number == LOADING and not self.there:
            self.there = now
        elif number == SAVING:
            self.saving = now
        elif number >= 0 and not self.first:
            self.first = now


@dataclass
class Swept:
    """A sweep that was run: what it cost, what came out, and where the time of its workers went."""

    spent: Spent
    sweep_id: int
    linked: int
    verified: bool
    chunks: list[Chunk]
    began: float
    ended: float
    verifying: float
    samples: list[tuple[int, dict[str, int]]] = field(default_factory=list)

    def phases(self) -> dict[str, float]:
        """Seconds of wall time, those of workers divided by their number: they add up to the whole."""
        if not self.chunks:
            return {"opening": self.ended - self.began - self.verifying, "verifying": self.verifying}
        first, last = min(chunk.began for chunk in self.chunks), max(chunk.ended for chunk in self.chunks)
        workers = {chunk.worker for chunk in self.chunks}
        mine = [[chunk for chunk in self.chunks if chunk.worker == worker] for worker in workers]
        gaps = sum(later.began - earlier.ended for each in mine for earlier, later in pairwise(each))
        width = len(workers)
        return {
            "opening": first - self.began,
            "starting workers": sum((each[0].began - first) + waited(each[0]) for each in mine) / width,
            "reserving, building bars": sum(map(loading, self.chunks)) / width,
            "trials": sum(chunk.saving - chunk.first for chunk in self.chunks if chunk.first) / width,
            "saving": sum(chunk.ended - chunk.saving for chunk in self.chunks if chunk.saving) / width,
            "between chunks": (gaps + sum(waited(chunk) for each in mine for chunk in each[1:])) / width,
            "waiting for the last": sum(last - each[-1].ended for each in mine) / width,
            "verifying": self.verifying,
            "closing": self.ended - last - self.verifying,
        }

    @property
    def busy(self) -> float:
        """Seconds that trials took in their workers, all together."""
        return sum(chunk.report.busy for chunk in self.chunks if chunk.report)


def waited(chunk: Chunk) -> float:
    return (chunk.there or chunk.ended) - chunk.began


def loading(chunk: Chunk) -> float:
    return (chunk.first or chunk.ended) - (chunk.there or chunk.ended)


def sweep(settings: Settings, case: Case, *, workers: int = PROCESSES, step: int = 0) -> Swept:
    """Run the case; with `step`, and one worker, its memory is read each time it has done so many trials."""
    samples: list[tuple[int, dict[str, int]]] = []
    with watched(samples, step) as (chunks, verifying), metered(settings) as spent:
        began = time.perf_counter()
        outcome = launch(settings, case, workers)
        ended = time.perf_counter()
    counts = outcome.sweep.counts
    return Swept(spent, outcome.sweep.id, counts.linked, outcome.checked is not None, chunks, began, ended,
                 sum(verifying), samples)  # fmt: skip


def launch(settings: Settings, case: Case, workers: int = PROCESSES) -> Any:
    return launch_sweep(
        settings, case.request, case.search, workers=workers, rerun=False, keep_data=True, verify_best=case.verify
    )


@contextmanager
def watched(samples: list[tuple[int, dict[str, int]]], step: int) -> Iterator[tuple[list[Chunk], list[float]]]:
    """Look over the shoulder of the process that watches the workers."""
    from flows import sweep as flow

    chunks: list[Chunk] = []
    verifying: list[float] = []
    run, verify = Watched.run, flow._verified
    done_by: dict[int, int] = {}

    def run_and_note(self: Watched, settings: Settings, sitting: Any, share: Any, tell: Any) -> ChunkReport:
        chunk = Chunk(id(self), time.perf_counter())
        chunks.append(chunk)

        def hear(number: int, done: int) -> None:
            chunk.hear(number)
            tell(number, done)

        with sampled(self, samples, step):
            try:
                chunk.report = run(self, settings, sitting, share, hear)
            finally:
                chunk.ended = time.perf_counter()
            done_by[chunk.worker] = done_by.get(chunk.worker, 0) + chunk.report.saved
        if step and done_by[chunk.worker] % step == 0:
            samples.append((done_by[chunk.worker], processes.memory(processes.pid_of(self.worker))))
        return chunk.report

    def verify_and_note(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return verify(*arguments)
        finally:
            verifying.append(time.perf_counter() - began)

    Watched.run, flow._verified = run_and_note, verify_and_note  # type: ignore[method-assign]
    try:
        yield chunks, verifying
    finally:
        Watched.run, flow._verified = run, verify  # type: ignore[method-assign]


@contextmanager
def sampled(watched: Watched, samples: list[tuple[int, dict[str, int]]], step: int) -> Iterator[None]:
    """A single worker takes its trials in the order of their numbers."""

    def look() -> None:
        done = watched._mark.read()[0] // max(step, 1) * step
        if done > 0 and done not in dict(samples):
            samples.append((done, processes.memory(processes.pid_of(watched.worker))))

    with every(0.01, look) if step else nullcontext():
        yield
