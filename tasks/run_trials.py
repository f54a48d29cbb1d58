"""run-trials: a chunk of trials as a task run, in one of several warm worker processes; and what else runs chunks."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.settings import Settings
from ntrader.sweeps.runner import RunnerConfig
from tasks.chunk import Watched
from tasks.open_sweep import Opening
from tasks.sitting import ChunkReport, Share, Sitting

Tell = Callable[[int, int], None]

# For the trial at hand and for saving what there is.
_GOODBYE_SECONDS: Final = 3.0


class Runner(Protocol):
    """Whatever runs chunks: `width` of them at a time, which may change, in `processes` processes all in all."""

    width: int
    processes: int

    def get_ready(self, sitting: Sitting) -> None:
        """There will be trials of this sweep to run: whatever takes a while may begin."""

    def begin(self, opening: Opening, tell: Tell) -> None:
        """What follows is for this sweep; `tell(number, done)` says what a chunk is at, where that can be known."""

    def submit(self, share: Share) -> None:
        """Begin a chunk."""

    def next(self, seconds: float) -> ChunkReport | None:
        """The next chunk that is over, or news of one that is not; None where there is nothing within so many seconds.
        Raises what the chunk raised."""

    def stop(self) -> None:
        """End all chunks: what is done is saved if that takes but a moment, everything else is given back."""


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_runner(settings: Settings, config: RunnerConfig, workers: int | None) -> Runner:
    """Ready for a sweep to begin. `workers` are processes here, chunks at a time on a cluster (by default as many as
    it has threads), or processes a shard.

    Raises ConfigError or ServiceError where nothing could run there.
    """
    if config.kind == "dask":
        from tasks.dask_runner import DaskRunner

        return DaskRunner(settings, config.scheduler or "", workers)
    if config.kind == "prefect":
        from tasks.shards import ShardRunner

        return ShardRunner(settings, config, workers, default_workers())
    return LocalRunner(settings, workers or default_workers())


@task(name="run-trials", cache_policy=NO_CACHE)
def run_trials(settings: Settings, sitting: Sitting, watched: Watched, share: Share, tell: Tell) -> ChunkReport:
    """Not tried again: what a chunk leaves behind is free for the next one."""
    return watched.run(settings, sitting, share, tell)


class LocalRunner:
    """Worker processes of this machine. To be used inside a flow, whose task runner has as many threads."""

    def __init__(self, settings: Settings, width: int) -> None:
        self.width = self.processes = width
        self._settings = settings
        self._all: list[Watched] = []
        self._idle: list[Watched] = []
        self._over: queue.SimpleQueue[tuple[Watched, Any]] = queue.SimpleQueue()

    def get_ready(self, sitting: Sitting) -> None:
        self._start()
        for watched in self._all:
            watched.get_ready(self._settings, sitting)

    def begin(self, opening: Opening, tell: Tell) -> None:
        self._sitting, self._tell = opening.sitting, tell
        if not self._all:
            self._start()

    def _start(self) -> None:
        self._all = [Watched() for _ in range(self.width)]
        self._idle = list(self._all)
        for watched in self._all:
            watched.worker.start()

    def submit(self, share: Share) -> None:
        watched = self._idle.pop()
        future = run_trials.submit(self._settings, self._sitting, watched, share, self._tell)
        future.add_done_callback(lambda done: self._over.put((watched, done)))

    def next(self, seconds: float) -> ChunkReport | None:
        try:
            watched, future = self._over.get(timeout=seconds)
        except queue.Empty:
            return None
        self._idle.append(watched)
        report: ChunkReport = future.result()
        return report

    def stop(self) -> None:
        busy = len(self._all) - len(self._idle)
        try:
            for watched in self._all:
                watched.call_back()
            deadline = time.monotonic() + _GOODBYE_SECONDS
            while busy and (left := deadline - time.monotonic()) > 0:
                with suppress(queue.Empty):
                    self._over.get(timeout=left)
                    busy -= 1
        finally:  # also where somebody does not want to wait so long
            for watched in self._all:
                watched.stop()
