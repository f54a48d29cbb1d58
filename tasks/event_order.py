"""The order in which Prefect's server looks at events, for a server that has been restarted.

It holds an event back until the one before it, of the same flow run, has come; for a quarter of an hour, if it does not
come. To a server that has just been started it never comes: it was told to the server before it. So whoever is to be
told that a flow run has crashed, or failed, hears of it then, and what crashes with the server is what matters most.

Named in PREFECT_SERVER_EVENTS_CAUSAL_ORDERING; Prefect imports it and looks for the class by this name.
"""

from __future__ import annotations

import time
from typing import Final
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent

# UUIDs of version 7 begin with the moment at which they were made: 48 bits of milliseconds (RFC 9562, section 5.7).
_WITH_TIME: Final = 7
_TIME_SHIFT: Final = 80


class CausalOrdering(memory.CausalOrdering):
    """Prefect's own, but it does not wait for events that are older than itself. One for each scope, as there."""

    def __init__(self, scope: str) -> None:
        if not hasattr(self, "_began"):
            self._began = time.time_ns() // 1_000_000
        super().__init__(scope)

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        """Raises EventArrivedEarly where the one that it follows is still to come."""
        if event.follows and _is_before(event.follows, self._began):
            return
        await super().wait_for_leader(event)


def _is_before(event_id: UUID, moment: int) -> bool:
    return event_id.version == _WITH_TIME and event_id.int >> _TIME_SHIFT < moment
