"""run-trials: a chunk of trials as a task run, in one of several warm worker processes."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from prefect import task
from prefect.cache_policies import NO_CACHE

from ntrader.settings import Settings
from tasks.chunk import Watched
from tasks.trials import ChunkReport, Share, Sitting

Tell = Callable[[int, int], None]

# For the trial at hand and for saving what there is.
_GOODBYE_SECONDS: Final = 3.0


class Runner(Protocol):
    """Whatever runs chunks: `width` of them at a time."""

    width: int

    def submit(self, share: Share) -> None:
        """Begin a chunk."""

    def next(self, seconds: float) -> ChunkReport | None:
        """The next chunk that is over; None where none is within so many seconds. Raises what the chunk raised."""

    def stop(self) -> None:
        """End all chunks: what is done is saved if that takes but a moment, everything else is given back."""


@task(name="run-trials", cache_policy=NO_CACHE)
def run_trials(settings: Settings, sitting: Sitting, watched: Watched, share: Share, tell: Tell) -> ChunkReport:
    """Not tried again: what a chunk leaves behind is free for the next one."""
    return watched.run(settings, sitting, share, tell)


class LocalRunner:
    """Worker processes of this machine. To be used inside a flow, whose task runner has as many threads."""

    def __init__(self, settings: Settings, sitting: Sitting, width: int, tell: Tell) -> None:
        self.width = width
        self._settings = settings
        self._sitting = sitting
        self._tell = tell
        self._idle = [Watched() for _ in range(width)]
        self._all = list(self._idle)
        self._over: queue.SimpleQueue[tuple[Watched, Any]] = queue.SimpleQueue()
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
