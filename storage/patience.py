"""Waiting for a database that is away for a while: it restarts, fails over, or is being started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from ntrader.errors import DatabaseError

# Longer than a restart, a failover or a person's coffee; after that somebody should look.
PATIENCE_SECONDS: Final = 900.0


def patiently[T](action: Callable[[], T], on_wait: Callable[[], object] | None = None) -> T:
    """What `action` returns, tried again for as long as the database may come back by itself.

    `on_wait` is called before each further try. Raises what `action` raises: at once what trying again cannot help,
    anything else after a quarter of an hour. `action` must be one that may be repeated.
    """

    def announce(_state: object) -> None:
        if on_wait:
            on_wait()

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, DatabaseError) and error.transient),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(PATIENCE_SECONDS),
        before_sleep=announce,
        reraise=True,
    )
    return retrying(action)
