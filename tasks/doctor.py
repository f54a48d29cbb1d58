"""The doctor's look at the Prefect server: asked by plain HTTP, so that Prefect need not be loaded."""

from __future__ import annotations

from ntrader.errors import NtraderError, ServiceError
from ntrader.settings import Settings, mask_url
from storage import doctor
from storage.doctor import Finding, Verdict
from tasks import flow_runs, pool, reaper, server
from tasks.prefect_api import LoginWantedError, PrefectApi, has_login

_TIMEOUT = 3.0


def examine(settings: Settings) -> list[Finding]:
    """Every check of what ntrader needs, in the order in which to mend things."""
    return [
        *doctor.examine(settings),
        Finding.of("Prefect server", _prefect(settings)),
        Finding.of("Flow runs", _flow_runs(settings)),
    ]


def _prefect(settings: Settings) -> Verdict:
    if settings.prefect_api_url:
        return _theirs(settings.prefect_api_url)
    state = server.running_server(settings.home)
    if state is not None:
        return doctor.ok(f"Prefect{_version(state.api_url)} at {state.ui_url}")
    pid = server.hung_server(settings.home)
    if pid is not None:
        return doctor.warning(f"process {pid} does not answer", "Run `ntrader down`: the next run starts a new one.")
    return doctor.ok("not running: starts when needed")


def _theirs(api_url: str) -> Verdict:
    try:
        server.require_answer(api_url)
        return doctor.ok(f"Prefect{_version(api_url)} at {mask_url(api_url)}")
    except ServiceError as error:
        return doctor.wrong(error.message, error.hint or "")


def _version(api_url: str) -> str:
    """` 3.8.8`; empty where the server does not say. Raises LoginWantedError where it wants another login."""
    try:
        found = PrefectApi(api_url, _TIMEOUT).get("/admin/version")
    except LoginWantedError:
        # Prefect's own profile may have the login, or the key for its cloud, which are not looked up here.
        if has_login():
            raise
        return ", which wants a login,"
    except (ServiceError, ValueError):
        return ""
    return f" {found}" if isinstance(found, str) else ""


def _flow_runs(settings: Settings) -> Verdict:
    api = reaper.reachable(settings)
    if api is None:
        return doctor.skipped("the Prefect server does not run")
    try:
        stuck = reaper.find_stuck(settings, api)
        waiting = flow_runs.late(api)
        going_on = len(flow_runs.unfinished(api)) - len(stuck)
    except NtraderError as error:
        return doctor.skipped(error.message)
    if stuck:
        return doctor.warning(
            "; ".join(f"{each.flow_run.name} is {each.flow_run.state} in Prefect, but {each.reason}" for each in stuck),
            "`ntrader doctor --mend` marks them as over.",
        )
    if waiting and pool.running_worker(settings.home) is None:
        return doctor.warning(f"{waiting:,} wait for a worker though their time has come", "Run `ntrader up`.")
    return doctor.ok(f"{going_on} going on" if going_on else "none going on")
