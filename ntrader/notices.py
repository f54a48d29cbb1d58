"""Whom to tell what: the address of a notification, its kind, and how it may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ntrader.errors import ConfigError

# What one may be told of, and what that is.
OCCASIONS: Final = {
    "failure": "a flow run of a deployment has failed, crashed or taken too long",
    "drift": "recorded runs do not come out the same any more",
    "finished": "what a schedule had started is done",
    "late": "a flow run waits though its time has come: no worker takes it",
}
KINDS: Final = ("webhook", "slack", "email")

_SLACK: Final = re.compile(r"https://hooks\.slack(-gov)?\.com/")
_MAIL: Final = ("mailto", "mailtos")
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_EXAMPLES: Final = (
    "Examples: https://hooks.example.com/night, https://hooks.slack.com/services/T0/B0/XYZ,"
    " mailtos://user:password@smtp.example.com?to=desk@example.com."
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a notification goes. `url` holds secrets; `shown` does not."""

    kind: str
    url: str

    @property
    def shown(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/***"


def read_address(url: str, kind: str | None = None) -> Address:
    """The address that a person gives; without a kind its beginning tells. Raises ConfigError, showing nothing of what
    may be secret in it."""
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the URL cannot be read: {error}", hint=_EXAMPLES) from None
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"there is no kind of notification {kind!r}", hint=f"Known: {', '.join(KINDS)}.")
    found = kind or _kind(url, scheme)
    fits = scheme in (_MAIL if found == "email" else ("http", "https"))
    if not scheme or not host:
        raise ConfigError("the address of a notification is a URL, and what is given is none", hint=_EXAMPLES)
    if not fits:
        raise ConfigError(f"a notification by {found} needs another URL than {scheme}://...", hint=_EXAMPLES)
    return Address(found, url)


def _kind(url: str, scheme: str) -> str:
    if _SLACK.match(url):
        return "slack"
    return "email" if scheme in _MAIL else "webhook"


def read_occasions(words: list[str]) -> tuple[str, ...]:
    """In the order they are explained; raises ConfigError for another word."""
    unknown = [word for word in words if word not in OCCASIONS]
    if unknown:
        raise ConfigError(f"nobody can be told of {unknown[0]!r}", hint=f"Known: {', '.join(OCCASIONS)}.")
    return tuple(word for word in OCCASIONS if word in words)


def read_name(name: str) -> str:
    """As Prefect wants the name of a block."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a notification", hint="Use small letters, digits and single dashes."
        )
    return name
