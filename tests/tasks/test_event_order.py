"""For which events Prefect's server waits, asked of Prefect's own classes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.events.schemas.events import Event, Resource
from prefect.server.events.ordering import CausalOrdering, EventArrivedEarly, get_triggers_causal_ordering, memory
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.settings import PREFECT_SERVER_EVENTS_CAUSAL_ORDERING, temporary_settings

from tasks import event_order


@pytest.fixture(autouse=True)
def none_before() -> None:
    memory.CausalOrdering.clear_all_scopes()


def event(follows: UUID | None = None) -> ReceivedEvent:
    """With Prefect's own identifier, of now."""
    return ReceivedEvent.model_validate(
        Event(
            occurred=datetime.now(UTC),
            event="prefect.flow-run.Crashed",
            resource=Resource({"prefect.resource.id": "prefect.flow-run.1"}),
            follows=follows,
        ).model_dump()
        | {"received": datetime.now(UTC)}
    )


def looked_at(ordering: CausalOrdering, *events: ReceivedEvent) -> list[ReceivedEvent]:
    """Those that are looked at, in the order in which they are."""
    seen: list[ReceivedEvent] = []

    async def look(one: ReceivedEvent, depth: int = 0) -> None:
        async with ordering.preceding_event_confirmed(look, one, depth):
            seen.append(one)

    async def all_of_them() -> None:
        for one in events:
            with contextlib.suppress(EventArrivedEarly):
                await look(one)

    asyncio.run(all_of_them())
    return seen


def test_what_follows_an_event_of_the_server_before_is_looked_at_at_once() -> None:
    crashed = event(follows=event().id)
    time.sleep(0.01)

    assert looked_at(event_order.CausalOrdering("triggers"), crashed) == [crashed]
    assert looked_at(memory.CausalOrdering("other"), crashed) == [], "Prefect waits for it: or this is not wanted"


def test_what_comes_early_waits_for_the_one_it_follows() -> None:
    ordering = event_order.CausalOrdering("triggers")
    time.sleep(0.01)
    running = event()
    crashed = event(follows=running.id)

    assert looked_at(ordering, crashed, running) == [running, crashed]


def test_an_identifier_without_a_time_is_waited_for() -> None:
    assert looked_at(event_order.CausalOrdering("triggers"), event(follows=uuid4())) == []


def test_prefect_finds_it_by_its_setting_and_has_one() -> None:
    with temporary_settings({PREFECT_SERVER_EVENTS_CAUSAL_ORDERING: event_order.__name__}):
        first, second = get_triggers_causal_ordering(), get_triggers_causal_ordering()

    assert isinstance(first, event_order.CausalOrdering)
    assert first is second
    assert timedelta(milliseconds=first._began) > timedelta(days=365 * 50)
