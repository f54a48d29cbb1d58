"""What a flow run is called in Prefect's own pages: its name and its tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from prefect import get_client, runtime
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from storage.leases import owner
from storage.runs import StoredRun

# More of a kind say nothing any more.
_MOST_TAGS: Final = 10


def flow_run_id() -> UUID | None:
    """Prefect's id of the flow run that is going on."""
    found = runtime.flow_run.id
    return UUID(found) if found else None


def label_flow_run(name: str, tags: list[str]) -> None:
    """Name and tag the flow run that is going on, and claim it; the tags it was started with stay."""
    current = flow_run_id()
    if current is None:
        return
    with tolerant(), get_client(sync_client=True) as client:
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
        with tolerant(), get_client(sync_client=True) as client:
            client.update_flow_run(current, infrastructure_pid=owner())


def tags_of(runs: Iterable[StoredRun]) -> list[str]:
    """The strategies and symbols of many runs."""
    found = [(f"strategy:{run.strategy_name}", f"symbol:{run.instrument_symbol}") for run in runs]
    return [tag for kind in zip(*found, strict=True) for tag in [*dict.fromkeys(kind)][:_MOST_TAGS]]


@contextmanager
def tolerant() -> Iterator[None]:
    """What is only shown is no reason for a run to fail: what goes wrong inside is said in the flow run's log."""
    try:
        yield
    except Exception as error:
        try:
            logger = get_run_logger()
        except MissingContextError:
            logger = get_logger(__name__)
        logger.warning("Something is missing in Prefect's pages: %s: %s", type(error).__name__, error)
