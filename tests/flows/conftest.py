"""Flows run against a real Prefect server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ntrader.settings import Settings


@pytest.fixture
def prefect_api(prefect_server: str, environment: Settings) -> Iterator[str]:
    """This process' Prefect client, pointed at the session's server, with an empty database for the runs."""
    from flows.launch import prefect_at

    with prefect_at(prefect_server):
        yield prefect_server
