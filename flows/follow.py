"""Follow what was submitted until it has ended: what Prefect says of the flow run, and the database of what it makes.

A run is over when the database says so: Prefect is asked how it gets there, and may be away for a while.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from flows import launch
from ntrader import progress
from ntrader.errors import NotFoundError, ServiceError
from ntrader.settings import Settings
from ntrader.signals import interruptible
from storage.patience import patiently
from storage.runs import StoredRun, find_run, get_run
from storage.standings import Listed, look_at
from tasks import server
from tasks.flow_runs import LAST

if TYPE_CHECKING:
    from tasks.deployments import FlowRunSeen

_POLL_SECONDS: Final = 0.5
# A server that is restarted is back within half a minute.
_PATIENCE_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is followed, as far as it is known: the flow run, the run or the sweep that it makes. `obstacles` say why it
    does not begin; `away` that Prefect's server does not answer at the moment."""

    flow_run: FlowRunSeen | None = None
    run: StoredRun | None = None
    sweep: Listed | None = None
    obstacles: tuple[str, ...] = ()
    away: bool = False

    @property
    def flow_run_id(self) -> UUID | None:
        if self.flow_run is not None:
            return self.flow_run.id
        if self.run is not None:
            return self.run.flow_run_id
        return self.sweep.sweep.flow_run_id if self.sweep else None

    @property
    def ended(self) -> bool:
        if self.run is not None and self.run.finished_at is not None:
            return True
        if self.flow_run is not None:
            return self.flow_run.ended
        # Nobody can say more of a sweep that was finished without Prefect, or before its server was made anew.
        return self.sweep is not None and self.sweep.sweep.finished_at is not None


def find_stored(settings: Settings, reference: str) -> Subject | None:
    """The run or, as `sweep:NUMBER` or `sweep:NAME`, the sweep, where the database knows it. Raises AmbiguousError."""
    kind, _, rest = reference.partition(":")
    if kind == "sweep" and rest:
        return Subject(sweep=look_at(settings, rest))
    with suppress(NotFoundError):
        run = get_run(settings, rest if kind == "run" and rest else reference)
        # The last that was begun may be one trial of many.
        if reference == LAST and run.sweep_id is not None:
            return Subject(sweep=look_at(settings, str(run.sweep_id)))
        return Subject(run=run)
    return None


def follow(settings: Settings, reference: str) -> Iterator[Subject]:
    """How it stands, now and whenever somebody looks again, up to its end.

    Raises NotFoundError or AmbiguousError, and ServiceError where Prefect's server has gone and nothing is in the
    database.
    """
    with interruptible():
        subject = None if reference == LAST and _has_server(settings) else find_stored(settings, reference)
        if subject is not None and subject.ended:
            yield subject
            return
        with launch.reached(settings):
            yield from _Following(settings, subject, reference).steps()


def _say_away() -> None:
    progress.report("Waiting for the database")


def _has_server(settings: Settings) -> bool:
    return settings.prefect_api_url is not None or server.running_server(settings.home) is not None


class _Following:
    def __init__(self, settings: Settings, subject: Subject | None, reference: str) -> None:
        from tasks.deployments import find_flow_run, flow_run_obstacles

        self._settings = settings
        self._heard = time.monotonic()
        if subject is None:
            found = find_flow_run(reference)
            subject = Subject(found, obstacles=tuple(flow_run_obstacles(found)))
        self._now = subject

    def steps(self) -> Iterator[Subject]:
        while True:
            self._now = self._looked()
            yield self._now
            if self._now.ended:
                return
            time.sleep(_POLL_SECONDS)

    def _looked(self) -> Subject:
        """Prefect first: what it says has ended is in the database by then."""
        flow_run, away = self._flow_run()
        run_id = self._now.run.run_id if self._now.run else flow_run and flow_run.run_id
        sweep_id = self._now.sweep.sweep.id if self._now.sweep else flow_run and flow_run.sweep_id
        return replace(
            self._now,
            flow_run=flow_run,
            run=(find_run(self._settings, run_id) if run_id else None) or self._now.run,
            sweep=patiently(lambda: look_at(self._settings, str(sweep_id)), _say_away) if sweep_id else None,
            away=away,
        )

    def _flow_run(self) -> tuple[FlowRunSeen | None, bool]:
        """And whether the server is away."""
        from httpx import HTTPError

        from tasks.deployments import read_flow_run

        known = self._now.flow_run_id
        if known is None:
            return None, False
        try:
            found = read_flow_run(known)
        except HTTPError as error:
            if time.monotonic() - self._heard > _PATIENCE_SECONDS and not self._now.run and not self._now.sweep:
                raise ServiceError(
                    f"the Prefect server has not answered for {_PATIENCE_SECONDS:.0f} seconds: {error}",
                    hint="`ntrader status` says whether it runs.",
                ) from error
            return self._now.flow_run, True
        self._heard = time.monotonic()
        return found, False
