"""One chunk of trials in a worker of its own, watched: its lease is renewed, a trial that takes too long is stopped,
and what a dead worker leaves behind is put in order. Reaches no Prefect: it is what a worker of a Dask cluster does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from ntrader.background import every
from ntrader.errors import EngineKilledError, NtraderError
from ntrader.settings import Settings
from ntrader.worker import Worker
from storage import trials as stored
from storage.leases import RENEW_SECONDS
from storage.patience import patiently
from tasks.trials import COME_BACK, LOADING, ChunkReport, Share, Sitting

# Once may be the machine's doing; a trial that was alone and has done it again is the culprit.
MOST_CRASHES: Final = 2
_WATCH_SECONDS: Final = 0.1

Tell = Callable[[int, int], None]


class Watched:
    """A worker and what it is at, seen from the process that started it."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.stopped = threading.Event()
        self._trial = LOADING
        self._since = time.monotonic()
        self._overdue = False

    def call_back(self) -> None:
        """Ask it to finish the trial at hand, save what it has, and begin nothing new."""
        self.stopped.set()
        self.worker.signal(COME_BACK)

    def stop(self) -> None:
        """End it now: what it has not saved is given back."""
        self.stopped.set()
        self.worker.kill()

    def run(
        self, settings: Settings, sitting: Sitting, share: Share, tell: Tell, chunk_id: UUID | None = None
    ) -> ChunkReport:
        """Run one chunk. A worker that dies is answered for: the trial it was at counts a crash, its others wait.

        Whoever may lose sight of this process names the chunk, to be able to give back what it holds. Raises what the
        worker raises.
        """
        chunk_id = chunk_id or uuid4()
        killed_before = _out_of_memory_kills()
        self._begin(LOADING)

        def on_progress(number: int, done: int) -> None:
            if self.stopped.is_set() and number == LOADING:  # the call began just after everything was to end
                raise EngineKilledError("stopped")
            self._begin(number)
            tell(number, done)

        try:
            with self._watched(settings, chunk_id, sitting.sweep.timeout):
                report: ChunkReport = self.worker.call(
                    "tasks.trials:run_chunk", settings, sitting, chunk_id, share, on_progress=on_progress
                )
        except EngineKilledError as error:
            if not self.stopped.is_set():
                memory = _out_of_memory_kills() > killed_before
                self._answer_for(settings, sitting, chunk_id, error, memory=memory)
                return ChunkReport(crashed=True)
            self._give_back(settings, chunk_id)
            return ChunkReport()
        except BaseException:
            self._give_back(settings, chunk_id)
            raise
        return report

    def _begin(self, number: int) -> None:
        self._trial, self._since = number, time.monotonic()

    @contextmanager
    def _watched(self, settings: Settings, chunk_id: UUID, timeout: float | None) -> Iterator[None]:
        def renew() -> None:
            # A lease lasts for many renewals: one that fails is made up for by the next.
            with suppress(NtraderError):
                stored.renew(settings, [chunk_id])

        def look() -> None:
            if self._trial >= 0 and timeout is not None and time.monotonic() - self._since > timeout:
                self._overdue = True
                self.worker.kill()

        self._overdue = False
        with ExitStack() as stack:
            stack.enter_context(every(RENEW_SECONDS, renew))
            if timeout is not None:
                stack.enter_context(every(_WATCH_SECONDS, look))
            yield

    def _answer_for(
        self, settings: Settings, sitting: Sitting, chunk_id: UUID, error: EngineKilledError, *, memory: bool
    ) -> None:
        number = self._trial
        if number < 0:
            patiently(lambda: stored.give_back(settings, chunk_id))
            return
        if self._overdue:
            seconds = sitting.sweep.timeout or 0
            text = f"stopped after {seconds:g} s, the timeout of a trial"
            self._record(settings, sitting, chunk_id, "timeout", text)
            return
        crashes = patiently(lambda: stored.count_crash(settings, chunk_id, number))
        if crashes >= MOST_CRASHES:
            reason = "memory" if memory else "killed"
            self._record(settings, sitting, chunk_id, reason, f"{error.message}, {crashes} times")
        else:
            patiently(lambda: stored.give_back(settings, chunk_id))

    def _record(self, settings: Settings, sitting: Sitting, chunk_id: UUID, reason: str, text: str) -> None:
        number = self._trial
        patiently(
            lambda: self.worker.call("tasks.trials:record_failure", settings, sitting, chunk_id, number, reason, text)
        )

    def _give_back(self, settings: Settings, chunk_id: UUID) -> None:
        # Whoever comes next finds the owner dead, or the lease run out.
        with suppress(NtraderError):
            stored.give_back(settings, chunk_id)


def _out_of_memory_kills() -> int:
    """How often the kernel has killed a process for want of memory, on this machine or in this container."""
    found = 0
    for file in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError, ValueError, IndexError):
            lines = [line.split() for line in Path(file).read_text().splitlines()]
            found += sum(int(value) for name, value in lines if name == "oom_kill")
    return found
