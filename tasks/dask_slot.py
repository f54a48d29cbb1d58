"""What a Dask worker does for a sweep: one chunk a thread, each with an engine process of its own that stays warm.

Reaches neither Prefect nor Dask. Settings are this machine's: where its database and its data are.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ntrader.errors import ConfigError, NtraderError
from ntrader.settings import Settings, load_settings
from tasks.chunk import Watched
from tasks.sitting import ChunkReport, Share, Sitting, require_same_sweep, told_from_afar

# An engine process that nobody has asked for anything for so long is ended.
IDLE_SECONDS: Final = 300.0
_GOODBYE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A chunk to run. `chunk_id` is the flow's, so that it can give back what a lost worker holds; `created_at` tells
    its sweep from one with the same number in another database."""

    sitting: Sitting
    created_at: datetime
    chunk_id: UUID
    share: Share


@dataclass(frozen=True, slots=True)
class _Idle:
    watched: Watched
    since: float


_lock = threading.Lock()
_idle: list[_Idle] = []
_active: dict[UUID, Watched] = {}
_stopped: set[UUID] = set()
_looking = False


def run(job: Job) -> ChunkReport | NtraderError:
    """Run a chunk. An error of ours is the answer: raised, Dask would write it into the logs of all concerned."""
    try:
        with told_from_afar():
            return _run(job)
    except NtraderError as error:
        return error


def unfit() -> NtraderError | None:
    """Why no chunk can be run here, if so."""
    try:
        with told_from_afar():
            _require_fit(load_settings())
    except NtraderError as error:
        return error
    return None


async def stop(chunk_ids: list[UUID]) -> None:
    """End these chunks, which save what they have if they can do so in a moment, and the engine processes that have
    nothing to do. Dask awaits it beside what else its worker has to do."""
    with _lock:
        _stopped.update(chunk_ids)
        busy = [_active[chunk_id] for chunk_id in chunk_ids if chunk_id in _active]
        idle = [idle.watched for idle in _idle]
        _idle.clear()
    for watched in busy:
        watched.call_back()
    deadline = time.monotonic() + _GOODBYE_SECONDS
    while any(watched in _active.values() for watched in busy) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    for watched in busy + idle:
        watched.stop()


def _run(job: Job) -> ChunkReport:
    settings = load_settings()
    _require_fit(settings)
    require_same_sweep(settings, job.sitting.sweep_id, job.created_at)
    watched = _take(job.chunk_id)
    try:
        return watched.run(settings, job.sitting, job.share, _unheard, job.chunk_id)
    finally:
        _put_back(job.chunk_id, watched)


def _require_fit(settings: Settings) -> None:
    if multiprocessing.current_process().daemon:
        raise ConfigError(
            "the Dask worker may not start processes, because Dask's nanny has made it a daemon",
            hint="Start it with DASK_DISTRIBUTED__WORKER__DAEMON=False in its environment, or with --no-nanny.",
        )
    if settings.embedded:
        raise ConfigError(
            "the Dask worker has no DATABASE_URL, and the embedded PostgreSQL of another machine cannot be reached",
            hint="Give every machine the same DATABASE_URL, of a PostgreSQL that all of them reach.",
        )


def _take(chunk_id: UUID) -> Watched:
    with _lock:
        found = _idle.pop().watched if _idle else Watched()
        if chunk_id in _stopped:
            found.stop()
        _active[chunk_id] = found
        return found


def _put_back(chunk_id: UUID, watched: Watched) -> None:
    with _lock:
        _active.pop(chunk_id, None)
        _stopped.discard(chunk_id)
        if watched.stopped.is_set():
            watched.worker.kill()
            return
        _idle.append(_Idle(watched, time.monotonic()))
        _look_in(IDLE_SECONDS)


def _look_in(seconds: float) -> None:
    """Unless somebody does already: end after so many seconds what has been idle for too long."""
    global _looking
    if not _looking:
        _looking = True
        timer = threading.Timer(seconds, _end_idle)
        timer.daemon = True
        timer.start()


def _end_idle() -> None:
    global _looking
    with _lock:
        _looking = False
        limit = time.monotonic() - IDLE_SECONDS
        old = [idle for idle in _idle if idle.since <= limit]
        _idle[:] = [idle for idle in _idle if idle.since > limit]
        if _idle:
            _look_in(_idle[0].since - limit)
    for idle in old:
        idle.watched.worker.kill()


def _unheard(_number: int, _done: int) -> None:
    """The flow counts trials by chunks."""
