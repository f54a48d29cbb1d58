"""The order in which Prefect's server looks at events, with less patience than its own.

It holds an event back until the one before it, of the same flow run, has come; for a quarter of an hour, if it does not
come. Some never come: those that were told to the server before it was restarted, and that a schedule has planned a
run. So whoever is to be told that something has crashed together with the server, or that a schedule's run is done,
would be told a quarter of an hour later. Events of one server overtake each other by moments.

Named in PREFECT_SERVER_EVENTS_CAUSAL_ORDERING; Prefect imports it and looks for the class by this name.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from prefect.server.events.ordering import memory

PATIENCE: Final = timedelta(seconds=10)

# How long one waits, and when it counts as lost. Not an argument of the class.
memory.PRECEDING_EVENT_LOOKBACK = PATIENCE  # type: ignore[attr-defined]

CausalOrdering = memory.CausalOrdering
