"""Prefect's HTTP API without Prefect, whose import takes longer than most questions.

Understands what a server may want before it answers: a login (PREFECT_API_AUTH_STRING or PREFECT_API_KEY, as Prefect's
own client does) and a token against forged requests.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from ntrader.errors import ServiceError
from ntrader.settings import mask_url

TIMEOUT: Final = 10.0
# What the server gives at once, by its default settings.
PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class PrefectApi:
    """`url` ends in /api; `timeout` in seconds, for one answer."""

    url: str
    timeout: float = TIMEOUT

    def get(self, path: str) -> Any:
        """The answer's JSON. Raises ServiceError where there is none."""
        return self._ask(path, None, {})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The same for a question that has a body, as most of Prefect's have."""
        try:
            return self._ask(path, body, {})
        except _TokenWantedError:
            return self._ask(path, body, self._token())

    def pages(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        offset = 0
        while True:
            found = self.post(path, {**body, "limit": PAGE, "offset": offset})
            yield from found
            if len(found) < PAGE:
                return
            offset += PAGE

    def release(self) -> str | None:
        """The server's version; None where it does not say, because it wants a login first or does not answer."""
        try:
            found = self.get("/admin/version")
        except (ServiceError, ValueError):
            return None
        return found if isinstance(found, str) else None

    def _ask(self, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url.rstrip("/") + path, data, {"Content-Type": "application/json", **_login(), **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, ValueError) as error:
            raise ServiceError(
                f"the Prefect server at {self._shown} does not answer: {getattr(error, 'reason', error)}"
            ) from error
        return json.loads(text) if text else None

    def _refused(self, error: urllib.error.HTTPError) -> ServiceError:
        said = error.read(500).decode(errors="replace")
        if error.code == HTTPStatus.FORBIDDEN and "CSRF" in said:
            return _TokenWantedError(said)
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return LoginWantedError(self._shown)
        return ServiceError(f"the Prefect server at {self._shown} answered {error.code}: {said}")

    def _token(self) -> dict[str, str]:
        client = str(uuid4())
        token = self.get(f"/csrf-token?client={client}")["token"]
        return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}

    @property
    def _shown(self) -> str:
        return mask_url(self.url) if "@" in self.url else self.url


class LoginWantedError(ServiceError):
    """The server lets nobody in without a login, or not with this one."""

    def __init__(self, shown: str) -> None:
        super().__init__(
            f"the Prefect server at {shown} wants a login, or another one",
            hint="Set PREFECT_API_AUTH_STRING to user:password, as it is in the server's PREFECT_SERVER_API_AUTH_STRING.",
        )


def has_login() -> bool:
    return bool(_login())


class _TokenWantedError(ServiceError):
    """The server takes nothing without a token of its own."""


def _login() -> dict[str, str]:
    if text := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    return {}
