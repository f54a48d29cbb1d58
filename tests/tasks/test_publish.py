"""What is only shown: the progress of a long run, and nothing at all where the server does not take it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from flows.launch import prefect_at
from tasks import label, publish


@pytest.fixture(autouse=True)
def _connected(prefect_server: str) -> Iterator[None]:
    with prefect_at(prefect_server):
        yield


def artifacts(flow_run: UUID) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
        )


@flow(name="test-publish")
def shown(seconds: float) -> UUID | None:
    with publish.bars_shown("test-progress") as tell:
        tell(250, 1_000)
        time.sleep(seconds)
        tell(1_000, 1_000)
    return label.flow_run_id()


def test_a_long_run_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "PROGRESS_SECONDS", 0.2)

    found = shown(0.6)

    assert found is not None
    (artifact,) = artifacts(found)
    assert (artifact.type, artifact.data) == ("progress", 100.0)
    assert artifact.description == "1,000 of 1,000 bars"


def test_a_short_run_shows_nothing() -> None:
    found = shown(0.0)

    assert found is not None
    assert artifacts(found) == []


@flow(name="test-publish-refused")
def refused() -> UUID | None:
    publish.publish_summary("text", "what", "No Such Key!")
    return label.flow_run_id()


def test_what_the_server_does_not_take_is_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    found = refused()

    assert found is not None
    assert artifacts(found) == []
    assert "Something is missing in Prefect's pages" in caplog.text
