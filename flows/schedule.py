"""What is to be run again and again: checked as if it were run now, then left with Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows import launch
from flows.detach import checked_backtest, checked_sweep, sweep_parameters
from ntrader import progress
from ntrader.config import RunRequest, portable, settings_of, written_out
from ntrader.settings import Settings
from ntrader.signals import interruptible
from ntrader.sweeps.request import AS_IT_STANDS
from tasks import server

if TYPE_CHECKING:
    from tasks.schedules import Scheduled


def add_schedule(
    settings: Settings, file: str, *, cron: str, timezone: str, name: str | None, replace: bool
) -> Scheduled:
    """A sweep where the file has a section `sweep`, and a backtest otherwise. The file's content is kept with the
    schedule; a period of the form `last` is worked out anew at each run.

    Raises ConfigError before anything is left with Prefect.
    """
    with interruptible():
        request = RunRequest(config_path=file)
        raw = settings_of(request)
        server.prepare_client(settings)
        from tasks import schedules

        name = Path(file).stem if name is None else name
        schedules.check_name(name)
        schedules.check_cron(cron, timezone)
        if "sweep" in raw:
            checked_sweep(settings, request, AS_IT_STANDS)
            flow, parameters = "sweep", sweep_parameters(request, AS_IT_STANDS)
        else:
            checked_backtest(settings, request)
            flow, parameters = "backtest", {"request": written_out(portable(request))}
        with launch.reached(settings):
            progress.report("Leaving it with Prefect")
            return schedules.add(
                name, flow, parameters, cron=cron, timezone=timezone,
                description=f"{file}, by `ntrader schedule add`.", replace=replace,
            )  # fmt: skip


def list_schedules(settings: Settings) -> list[Scheduled]:
    """All there are, with their next times and what became of the last."""
    with interruptible(), launch.reached(settings):
        from tasks.schedules import list_all

        return list_all()


def pause_schedule(settings: Settings, name: str) -> Scheduled:
    """Raises NotFoundError."""
    return _set_active(settings, name, active=False)


def resume_schedule(settings: Settings, name: str) -> Scheduled:
    """Raises NotFoundError."""
    return _set_active(settings, name, active=True)


def remove_schedule(settings: Settings, name: str) -> None:
    """What it has run stays. Raises NotFoundError, and ConfigError for one of prefect.yaml."""
    with interruptible(), launch.reached(settings):
        from tasks.schedules import remove

        remove(name)


def _set_active(settings: Settings, name: str, *, active: bool) -> Scheduled:
    with interruptible(), launch.reached(settings):
        from tasks.schedules import set_active

        return set_active(name, active=active)
