"""Waiting for a database that is away for a while: it restarts, fails over, or is being started."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Final

from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from ntrader.errors import DatabaseError

# Longer than a restart, a failover or a person's coffee; after that somebody should look.
PATIENCE_SECONDS: Final = 900.0


def patiently[T](action: Callable[[], T], on_wait: Callable[[], object] | None = None, stop: Event | None = None) -> T:
    """What `action` returns, tried again for as long as the database may come back by itself.

    `on_wait` is called before each further try. Raises what `action` raises: at once what trying again cannot help, or
    when `stop` is set, anything else after a quarter of an hour. `action` must be one that may be repeated.
    """
    given_up = stop or Event()

    def announce(_state: object) -> None:
        if on_wait:
            on_wait()

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, DatabaseError) and error.transient),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(PATIENCE_SECONDS) | stop_when_event_set(given_up),
        before_sleep=announce,
        sleep=sleep_using_event(given_up),
        reraise=True,
    )
    return retrying(action)
