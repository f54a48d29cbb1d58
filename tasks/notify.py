"""Notifications, kept in Prefect's server: a block says where to, and an automation for each occasion when.

The server sends them, so they come when nothing of ours runs. Every kind is made of what that server has by itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from prefect import get_client
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events import emit_event
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.worker import EventsWorker

from ntrader.errors import ConfigError, NotFoundError, ServiceError
from ntrader.notices import Address
from tasks.prefect_api import PrefectApi

TEST_SECONDS: Final = 60.0
_TEST: Final = "ntrader.notify-test"
_EXECUTED: Final = "prefect.automation.action.executed"
# For the other end to answer, once the server has begun.
_PATIENCE_SECONDS: Final = 8.0
# Deployments of prefect.yaml have the tag `ntrader`, and what a schedule starts has Prefect's own.
_OURS: Final = {"prefect.resource.id": "prefect.tag.ntrader", "prefect.resource.role": "tag"}
_SCHEDULED: Final = {"prefect.resource.id": "prefect.tag.auto-scheduled", "prefect.resource.role": "tag"}
_LINK: Final = "{{ flow_run|ui_url }}"


@dataclass(frozen=True, slots=True)
class _Occasion:
    """The states that are told of, whose runs, and the text."""

    states: tuple[str, ...]
    whose: tuple[dict[str, str], ...]
    subject: str
    body: str


_OCCASIONS: Final = {
    "failure": _Occasion(
        ("Failed", "Crashed", "TimedOut"),
        (_OURS,),
        "ntrader: {{ flow_run.name }}: {{ flow_run.state.name }}",
        "{{ flow_run.state.message }}\n" + _LINK,
    ),
    "drift": _Occasion(
        ("Drifted",),
        (_OURS,),
        "ntrader: {{ flow_run.name }}: results have drifted",
        "{{ flow_run.state.message }}\n" + _LINK,
    ),
    "finished": _Occasion(
        ("Completed",),
        (_OURS, _SCHEDULED),
        "ntrader: {{ flow_run.name }} is done",
        "Deployment {{ deployment.name }}, begun at {{ flow_run.start_time }}.\n" + _LINK,
    ),
    "late": _Occasion(
        ("Late",),
        (_OURS,),
        "ntrader: {{ flow_run.name }} of {{ deployment.name }} waits for a worker",
        "It should have begun at {{ flow_run.expected_start_time }}. `ntrader up` starts a worker.\n" + _LINK,
    ),
}


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told to whom; `shown` is the address without its secrets, `enabled` whether all of it is."""

    name: str
    kind: str
    shown: str
    occasions: tuple[str, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a test: the server's own words where it failed."""

    arrived: bool
    trouble: str | None = None


def add(name: str, address: Address, occasions: Iterable[str]) -> Notification:
    """Raises ConfigError where the name is taken, or the address is none for its kind."""
    with get_client(sync_client=True) as client:
        if _automations(client, name):
            raise ConfigError(
                f"there is a notification {name!r} already",
                hint=f"Give this one another name with --name, or `ntrader notify remove {name}` first.",
            )
        block = _block(name, address)
        block_id = UUID(str(block.save(_block_name(name), overwrite=True)))
        for occasion in occasions:
            client.create_automation(_automation(name, address, occasion, block_id))
        client.create_automation(_test_automation(name, address, block_id))
        return _notification(name, _automations(client, name))


def listed() -> list[Notification]:
    """By name."""
    with get_client(sync_client=True) as client:
        found = _automations(client)
    names = sorted({_tagged(each, "notify") for each in found})
    return [_notification(name, [each for each in found if _tagged(each, "notify") == name]) for name in names]


def remove(name: str) -> None:
    """Raises NotFoundError."""
    with get_client(sync_client=True) as client:
        for each in _required(client, name):
            client.delete_automation(each.id)
        for slug in (CustomWebhookNotificationBlock.get_block_type_slug(), SlackWebhook.get_block_type_slug()):
            for document in client.read_block_documents_by_type(slug):
                if document.name == _block_name(name):
                    client.delete_block_document(document.id)


def send_test(name: str, api_url: str) -> Sent:
    """Have the server send one now, by the way that all of them take. Raises NotFoundError, or ServiceError where the
    server takes no notice."""
    with get_client(sync_client=True) as client:
        test = next(each for each in _required(client, name) if _tagged(each, "on") == "test")
    begun = datetime.now(UTC)
    emit_event(_TEST, resource={"prefect.resource.id": f"ntrader.notify.{name}"})
    EventsWorker.drain_all(timeout=10)
    outcome = _awaited(api_url, test, begun)
    if outcome is None:
        raise ServiceError(
            f"the Prefect server took no notice of a test of notification {name!r} within {TEST_SECONDS:.0f} seconds",
            hint="Its automations may be off: PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED.",
        )
    if outcome["event"] == _EXECUTED:
        return Sent(arrived=True)
    said = outcome["payload"].get("notification_log") or outcome["payload"].get("reason")
    return Sent(arrived=False, trouble=_masked(said or _tried_here(name, _tagged(test, "kind")), test.description))


def _awaited(api_url: str, automation: Automation, since: datetime) -> dict[str, Any] | None:
    """The last that the server says of its action. What goes wrong outside of it it does not say: it tries again."""
    outcome = None
    deadline = time.monotonic() + TEST_SECONDS
    while time.monotonic() < deadline:
        found = {event["event"].rpartition(".")[2]: event for event in _events_of(api_url, automation, since)}
        if "executed" in found or "failed" in found:
            return found.get("executed") or found["failed"]
        if outcome is None and "triggered" in found:
            outcome, deadline = found["triggered"], min(deadline, time.monotonic() + _PATIENCE_SECONDS)
        time.sleep(0.5)
    return outcome


def _tried_here(name: str, kind: str) -> str:
    """What the server does not say may be seen by doing the same."""
    try:
        block = (CustomWebhookNotificationBlock if kind == "webhook" else SlackWebhook).load(_block_name(name))
        with block.raise_on_failure():  # type: ignore[union-attr]
            block.notify(subject="ntrader", body=f"A second test of notification {name}.")  # type: ignore[union-attr]
    except Exception as error:
        return getattr(error, "log", None) or f"{type(error).__name__}: {error}"
    return "the server has not managed it, though it can be sent from here"


def _block(name: str, address: Address) -> NotificationBlock:
    try:
        if address.kind == "webhook":
            return CustomWebhookNotificationBlock(
                name=name,
                # As a secret: what is stored is encrypted, and what is shown is masked.
                url="{{url}}",
                secrets={"url": address.url},
                json_data={"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"},
            )
        # Any other address than Slack's goes on to Apprise, which sends mail by SMTP as well.
        block = SlackWebhook(url=address.url)
        if not len(block._apprise_client):
            raise ValueError(f"not an address for {address.kind}")
    except ValueError as error:
        raise ConfigError(f"{address.shown} is no address of a notification by {address.kind}") from error
    return block


def _automation(name: str, address: Address, occasion: str, block_id: UUID) -> AutomationCore:
    told = _OCCASIONS[occasion]
    trigger = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related=[*told.whose],
        expect={f"prefect.flow-run.{state}" for state in told.states},
        # One notification each, however many fail at once.
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    action = SendNotification(block_document_id=block_id, subject=told.subject, body=told.body)
    return _named(name, address, occasion, trigger, action)


def _test_automation(name: str, address: Address, block_id: UUID) -> AutomationCore:
    trigger = EventTrigger(
        match={"prefect.resource.id": f"ntrader.notify.{name}"},
        expect={_TEST},
        posture=Posture.Reactive,
        threshold=1,
    )
    action = SendNotification(
        block_document_id=block_id,
        subject=f"ntrader: a test of notification {name}",
        body="Whoever reads this will be told.",
    )
    return _named(name, address, "test", trigger, action)


def _named(
    name: str, address: Address, occasion: str, trigger: EventTrigger, action: SendNotification
) -> AutomationCore:
    return AutomationCore(
        name=f"ntrader notify {name}: {occasion}",
        description=address.shown,
        tags=["ntrader", f"notify:{name}", f"kind:{address.kind}", f"on:{occasion}"],
        trigger=trigger,
        actions=[action],
    )


def _automations(client: SyncPrefectClient, name: str | None = None) -> list[Automation]:
    found = [each for each in client.read_automations() if _tagged(each, "notify")]
    return [each for each in found if name is None or _tagged(each, "notify") == name]


def _required(client: SyncPrefectClient, name: str) -> list[Automation]:
    found = _automations(client, name)
    if not found:
        raise NotFoundError(f"there is no notification {name!r}", hint="`ntrader notify list` shows what there is.")
    return found


def _notification(name: str, automations: list[Automation]) -> Notification:
    there = {_tagged(each, "on") for each in automations}
    first = automations[0]
    return Notification(
        name,
        _tagged(first, "kind"),
        first.description,
        tuple(occasion for occasion in _OCCASIONS if occasion in there),
        all(each.enabled for each in automations),
    )


def _tagged(automation: Automation, what: str) -> str:
    return next((tag.partition(":")[2] for tag in automation.tags if tag.startswith(f"{what}:")), "")


def _block_name(name: str) -> str:
    return f"ntrader-{name}"


def _events_of(api_url: str, automation: Automation, since: datetime) -> list[dict[str, Any]]:
    wanted = {
        "event": {"prefix": ["prefect.automation."]},
        "resource": {"id": [f"prefect.automation.{automation.id}"]},
        "occurred": {"since": since.isoformat()},
    }
    found: list[dict[str, Any]] = PrefectApi(api_url).post("/events/filter", {"filter": wanted, "limit": 50})["events"]
    return found


def _masked(text: str, shown: str) -> str:
    """Libraries like to put the whole URL into their errors, and a page to read about them."""
    place = shown.removesuffix("/***")
    return re.sub(rf"{re.escape(place)}[^\s'\"]*", shown, text).strip().partition("\n")[0]
