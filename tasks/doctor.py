"""The doctor's look at the Prefect server: asked by plain HTTP, so that Prefect need not be loaded."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request

from ntrader.errors import ServiceError
from ntrader.settings import Settings, mask_url
from storage import doctor
from storage.doctor import Finding, Verdict
from tasks import server

_TIMEOUT = 3.0


def examine(settings: Settings) -> list[Finding]:
    """Every check of what ntrader needs, in the order in which to mend things."""
    return [*doctor.examine(settings), Finding.of("Prefect server", _prefect(settings))]


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
    """` 3.8.8`; empty where the server does not say. Raises ServiceError where it wants another login."""
    request = urllib.request.Request(f"{api_url.rstrip('/')}/admin/version")
    if login := os.environ.get("PREFECT_API_AUTH_STRING"):
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            version = json.loads(answer.read(100))
            return f" {version}" if isinstance(version, str) else ""
    except urllib.error.HTTPError as error:
        # Prefect's own profile may have the login, or the key for its cloud, which are not looked up here.
        if login and error.code in server.NO_ENTRY:
            raise server.login_wanted(api_url) from error
        return ", which wants a login," if error.code in server.NO_ENTRY else ""
    except (OSError, ValueError):
        return ""
