"""For which events Prefect's server waits, and how long, asked of Prefect's own classes.

In a process of its own: who imports the module changes Prefect's.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

QUESTION = """
import asyncio, contextlib
from datetime import UTC, datetime, timedelta
from prefect.events.schemas.events import Event, Resource
from prefect.server.events.ordering import EventArrivedEarly, get_triggers_causal_ordering
from prefect.server.events.schemas.events import ReceivedEvent

def event(name, follows=None, age=0):
    resource = Resource({{"prefect.resource.id": "prefect.flow-run.1"}})
    made = Event(occurred=datetime.now(UTC), event=name, resource=resource, follows=follows)
    return ReceivedEvent.model_validate(made.model_dump() | {{"received": datetime.now(UTC) - timedelta(seconds=age)}})

async def look(one, depth=0):
    async with ordering.preceding_event_confirmed(look, one, depth):
        print(one.event)

async def all_of(*events):
    for one in events:
        with contextlib.suppress(EventArrivedEarly):
            await look(one)
    for one in await ordering.get_lost_followers():
        await look(one)

ordering = get_triggers_causal_ordering()
first = event("Running")
async def main():
    await all_of({events})

asyncio.run(main())
"""


def looked_at(events: str, ordering: str = "tasks.event_order") -> list[str]:
    """The names of events, in the order in which they are."""
    answer = subprocess.run(
        [sys.executable, "-c", QUESTION.format(events=events)],
        env={"PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": ordering, "PYTHONPATH": ".", "PREFECT_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return answer.stdout.split()


@pytest.mark.parametrize(
    ("ordering", "expected"), [("tasks.event_order", ["Crashed"]), ("prefect.server.events.ordering.memory", [])]
)
def test_what_follows_an_event_that_never_came_is_looked_at_after_ten_seconds(
    ordering: str, expected: list[str]
) -> None:
    """By Prefect's own it is not: where that changes, ours is not wanted any more."""
    assert looked_at('event("Crashed", follows=first.id, age=11)', ordering) == expected


def test_what_waited_for_as_long_is_not_lost() -> None:
    early = 'await ordering.record_follower(event("Crashed", follows=first.id, age=11)) or event("Other")'
    assert looked_at(early) == ["Other", "Crashed"]


def test_what_comes_early_waits_for_the_one_it_follows() -> None:
    assert looked_at('event("Crashed", follows=first.id), first') == ["Running", "Crashed"]
