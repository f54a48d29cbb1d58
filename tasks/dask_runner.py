"""Chunks on a Dask cluster: a task a chunk, by Dask's own client, as many at a time as its workers have threads."""

from __future__ import annotations

import gc
import logging
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from ntrader.errors import ConfigError, NtraderError, RunError, ServiceError
from ntrader.settings import Settings
from storage import trials as stored
from storage.patience import patiently
from storage.sweeps import get_sweep
from tasks import dask_slot
from tasks.dask_slot import Job
from tasks.sitting import ChunkReport, Share

if TYPE_CHECKING:
    from distributed import Client, Future

    from tasks.open_sweep import Opening
    from tasks.sitting import Sitting

_CONNECT_SECONDS: Final = 10.0
# Workers of a cluster that has just been started, or that are started anew by whatever watches over them.
_FIRST_WORKER_SECONDS: Final = 10.0
_NO_WORKERS_SECONDS: Final = 120.0
_LOOK_SECONDS: Final = 1.0
_RESULT_SECONDS: Final = 30.0
_INSTALL = "Install the same ntrader, with its extra `dask`, on every machine of the cluster, the scheduler's too."


class DaskRunner:
    """A cluster with workers that can run chunks. They may come and go.

    Dask itself gives the chunk of a lost worker to another one, which finds the trials it held by the chunk's id.
    """

    def __init__(self, settings: Settings, address: str, most: int | None) -> None:
        """Raises ServiceError where nobody answers, ConfigError where a worker could run nothing."""
        self._settings = settings
        self._address = address
        self._most = most
        self._out: dict[UUID, Future[Any]] = {}
        self._over: queue.SimpleQueue[UUID] = queue.SimpleQueue()
        self._client = _connect(address)
        try:
            self._wait_for_a_worker()
            self._require_fit()
            self.width = self._slots()
        except BaseException:
            self._client.close(timeout=1)
            raise
        self.processes = self.width
        self._looked = self._last_worker = time.monotonic()

    def get_ready(self, sitting: Sitting) -> None:
        """Its processes are there, or start by themselves."""

    def begin(self, opening: Opening, tell: Callable[[int, int], None]) -> None:
        self._sitting = opening.sitting
        self._created_at = get_sweep(self._settings, str(opening.sweep_id)).created_at

    def submit(self, share: Share) -> None:
        chunk_id = uuid4()
        job = Job(self._sitting, self._created_at, chunk_id, share)
        future = self._client.submit(dask_slot.run, job, key=f"ntrader-chunk-{chunk_id}", pure=False)
        self._out[chunk_id] = future
        future.add_done_callback(lambda _future: self._over.put(chunk_id))

    def next(self, seconds: float) -> ChunkReport | None:
        self._look()
        try:
            chunk_id = self._over.get(timeout=seconds)
        except queue.Empty:
            return None
        return self._report(chunk_id, self._out.pop(chunk_id))

    def stop(self) -> None:
        try:
            with suppress(Exception):  # what the cluster does not hear any more it finds out by itself
                self._client.cancel([*self._out.values()], force=True)
                self._client.run(dask_slot.stop, [*self._out], on_error="ignore")
        finally:  # also where somebody does not want to wait so long
            for chunk_id in self._out:
                self._give_back(chunk_id)
            self._out.clear()
            with suppress(Exception):
                self._client.close(timeout=1)

    def _report(self, chunk_id: UUID, future: Future[Any]) -> ChunkReport:
        from distributed import CancelledError, KilledWorker
        from distributed import TimeoutError as Unanswered

        try:
            answer = future.result(timeout=_RESULT_SECONDS)
        except (KilledWorker, Unanswered):
            patiently(lambda: stored.give_back(self._settings, chunk_id))
            return ChunkReport(crashed=True, stillborn=True)
        except CancelledError:  # the scheduler was lost, and with it every task
            patiently(lambda: stored.give_back(self._settings, chunk_id))
            return ChunkReport()
        except Exception as error:
            self._give_back(chunk_id)
            text = f"{type(error).__name__}: {error}"
            raise RunError(f"a chunk failed on the Dask cluster {self._address}: {text}", hint=_INSTALL) from error
        if isinstance(answer, NtraderError):
            self._name_worker(answer, future)
            raise answer
        report: ChunkReport = answer
        return report

    def _name_worker(self, error: NtraderError, future: Future[Any]) -> None:
        """Whose answer it is: a machine may have several workers, and only one of them something wrong with it."""
        with suppress(Exception):  # it may have gone meanwhile
            ((address,),) = self._client.who_has([future]).values()
            name = self._client.scheduler_info(n_workers=-1)["workers"][address]["id"]
            worker = address if name == address else f"{name} ({address})"
            error.message = f"the Dask worker {worker} {error.message}"
            error.args = (error.message,)

    def _look(self) -> None:
        """Whether scheduler and workers are still there, and how many slots they have."""
        if self._client.status == "closed":
            raise ServiceError(
                f"the Dask scheduler {self._address} does not answer any more", hint="Start it and its workers again."
            )
        if self._client.status != "running" or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        with suppress(OSError):
            slots = self._slots()
            self.width = max(1, slots)
            self._looked = time.monotonic()
            if slots:
                self._last_worker = self._looked
        if time.monotonic() - self._last_worker > _NO_WORKERS_SECONDS:
            raise _without_workers(self._address, _NO_WORKERS_SECONDS)

    def _slots(self) -> int:
        slots: int = sum(self._client.nthreads().values())
        return min(slots, self._most) if self._most else slots

    def _wait_for_a_worker(self) -> None:
        from distributed import TimeoutError as Unanswered

        try:
            self._client.wait_for_workers(1, timeout=_FIRST_WORKER_SECONDS)
        except Unanswered:
            raise _without_workers(self._address, _FIRST_WORKER_SECONDS) from None

    def _require_fit(self) -> None:
        """Before anything is written down. A worker that comes later is looked at with its first chunk."""
        if self._settings.embedded:
            raise ConfigError(
                "a sweep on a Dask cluster needs DATABASE_URL: its workers cannot reach the embedded PostgreSQL",
                hint="Give every machine the same DATABASE_URL, of a PostgreSQL that all of them reach.",
            )
        try:
            # As a task too: its scheduler must know the function as well.
            answers = [self._client.submit(dask_slot.unfit, pure=False).result(timeout=_RESULT_SECONDS)]
            answers += self._client.run(dask_slot.unfit, on_error="raise").values()
        except Exception as error:
            text = f"the Dask cluster {self._address} does not know what it is to run: {error}"
            raise ConfigError(text, hint=_INSTALL) from error
        for answer in answers:
            if answer is not None:
                raise answer

    def _give_back(self, chunk_id: UUID) -> None:
        # What is not given back waits again when its lease has run out.
        with suppress(NtraderError):
            stored.give_back(self._settings, chunk_id)


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError(
            "the runner dask needs the package distributed", hint="Install it with `pip install 'ntrader[dask]'`."
        ) from None
    # It logs what we say ourselves, and more.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, name="ntrader")
    except (OSError, ValueError, TypeError) as error:
        reason = str(error)
    # What is left of the client closes itself when it is collected. Now: were that while another client starts, in the
    # thread that holds the lock which both need, they would wait for one another for ever.
    gc.collect()
    raise ServiceError(
        f"no Dask scheduler answers at {address}", hint=f"Is it the address that `dask scheduler` prints? ({reason})"
    )


def _without_workers(address: str, seconds: float) -> ServiceError:
    return ServiceError(
        f"no worker has been connected to the Dask scheduler {address} for {seconds:g} s",
        hint=f"Start one on each machine: dask worker {address} --no-nanny",
    )
