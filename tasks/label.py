"""What a person sees of a run in Prefect's own pages: its name, its tags, its summary."""

from __future__ import annotations

from uuid import UUID

from prefect import get_client, runtime, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from storage.leases import owner

ARTIFACT_KEY = "backtest-summary"


def flow_run_id() -> UUID | None:
    """Prefect's id of the flow run that is going on."""
    found = runtime.flow_run.id
    return UUID(found) if found else None


def label_flow_run(name: str, tags: list[str]) -> None:
    """Name and tag the flow run that is going on, and claim it; the tags it was started with stay."""
    current = flow_run_id()
    if current is None:
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(
            current,
            name=name,
            tags=[*dict.fromkeys([*runtime.flow_run.tags, *tags])],
            infrastructure_pid=owner(),
        )


def claim_flow_run() -> None:
    """Write down which process the flow run that is going on is, so that it can be told when that is no more. A worker
    says only the pid, which any machine may have given to anything."""
    current = flow_run_id()
    if current is not None:
        with get_client(sync_client=True) as client:
            client.update_flow_run(current, infrastructure_pid=owner())


@task(name="publish-summary", cache_policy=NO_CACHE)
def publish_summary(markdown: str, description: str, key: str = ARTIFACT_KEY) -> None:
    create_markdown_artifact(markdown=markdown, key=key, description=description)
