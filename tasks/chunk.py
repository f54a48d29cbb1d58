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
from ntrader.mark import Mark
from ntrader.settings import Settings
from ntrader.sweeps.points import points
from ntrader.worker import Worker, preload
from storage import trials as stored
from storage.leases import RENEW_SECONDS
from storage.patience import patiently
from tasks.sitting import COME_BACK, LOADING, ChunkReport, Share, Sitting

# Once may be the machine's doing; a trial that was alone and has done it again is the culprit.
MOST_CRASHES: Final = 2
_WATCH_SECONDS: Final = 0.1

Tell = Callable[[int, int], None]


class Watched:
    """A worker and what it is at, seen from the process that started it."""

    def __init__(self) -> None:
        preload("tasks.trials")
        # The number of the trial it is at, or what else.
        self._mark = Mark()
        self.worker = Worker(self._mark)
        self.stopped = threading.Event()
        self._overdue: int | None = None

    def get_ready(self, settings: Settings, sitting: Sitting) -> None:
        """Have it prepare for trials of this sweep, from a thread that nobody waits for: the first chunk does, and
        meets what goes wrong here itself."""

        def prepare() -> None:
            with suppress(NtraderError):
                self.worker.call("tasks.trials:get_ready", settings, sitting, next(points(sitting.sweep)))

        threading.Thread(target=prepare, daemon=True, name="ntrader-get-ready").start()

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
        self._mark.write(LOADING)

        def on_progress(number: int, done: int) -> None:
            if self.stopped.is_set() and number == LOADING:  # the call began just after everything was to end
                raise EngineKilledError("stopped")
            tell(number, done)

        try:
            with self._watched(settings, chunk_id, sitting.sweep.timeout):
                report: ChunkReport = self.worker.call(
                    "tasks.trials:run_chunk", settings, sitting, chunk_id, share, on_progress=on_progress
                )
        except EngineKilledError as error:
            if self.stopped.is_set():
                self._give_back(settings, chunk_id)
                return ChunkReport()
            memory = _out_of_memory_kills() > killed_before
            return self._answer_for(settings, sitting, chunk_id, error, memory=memory)
        except BaseException:
            self._give_back(settings, chunk_id)
            raise
        return report

    @contextmanager
    def _watched(self, settings: Settings, chunk_id: UUID, timeout: float | None) -> Iterator[None]:
        def renew() -> None:
            # A lease lasts for many renewals: one that fails is made up for by the next.
            with suppress(NtraderError):
                stored.renew(settings, [chunk_id])

        def look() -> None:
            number, since = self._mark.read()
            if number >= 0 and timeout is not None and time.monotonic() - since > timeout and self._overdue is None:
                self._overdue = number
                self.worker.kill()

        self._overdue = None
        with ExitStack() as stack:
            stack.enter_context(every(RENEW_SECONDS, renew))
            if timeout is not None:
                stack.enter_context(every(_WATCH_SECONDS, look))
            yield

    def _answer_for(
        self, settings: Settings, sitting: Sitting, chunk_id: UUID, error: EngineKilledError, *, memory: bool
    ) -> ChunkReport:
        """Put in order what a dead worker left behind."""
        number = self._mark.read()[0] if self._overdue is None else self._overdue
        held = self._patiently(lambda: stored.reserved_by(settings, chunk_id))
        found = next((trial for trial in held if trial.number == number), None)
        if found is None:
            self._patiently(lambda: stored.give_back(settings, chunk_id))
            return ChunkReport(crashed=True, stillborn=number < 0)
        if self._overdue is not None:
            text = f"stopped after {sitting.sweep.timeout or 0:g} s, the timeout of a trial"
            return self._record(settings, sitting, chunk_id, number, "timeout", text)
        crashes = found.crashes + 1
        self._patiently(lambda: stored.note_crash(settings, chunk_id, number, crashes))
        if crashes >= MOST_CRASHES:
            text = f"{error.message}, {crashes} times"
            return self._record(settings, sitting, chunk_id, number, "memory" if memory else "killed", text)
        self._patiently(lambda: stored.give_back(settings, chunk_id))
        return ChunkReport(crashed=True)

    def _record(
        self, settings: Settings, sitting: Sitting, chunk_id: UUID, number: int, reason: str, text: str
    ) -> ChunkReport:
        """In a worker, which has the engine; where that dies as well, the trial is for the next one to answer for."""
        target = "tasks.trials:record_failure"
        try:
            self._patiently(lambda: self.worker.call(target, settings, sitting, chunk_id, number, reason, text))
        except EngineKilledError:
            self._patiently(lambda: stored.give_back(settings, chunk_id))
            return ChunkReport(crashed=True)
        return ChunkReport(saved=1, failed=1, crashed=True)

    def _patiently[T](self, action: Callable[[], T]) -> T:
        return patiently(action, stop=self.stopped)

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
