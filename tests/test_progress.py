"""Progress reaches whoever listens, and costs nobody anything else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ntrader import progress


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    yield
    progress.listen(None)


def test_the_listener_hears_the_stage_and_how_far_it_is() -> None:
    heard: list[tuple[str, int, int]] = []
    progress.listen(lambda *state: heard.append(state))
    progress.report("Checking")
    progress.report("Running", 3, 10)
    assert heard == [("Checking", 0, 0), ("Running", 3, 10)]


def test_only_the_last_listener_hears() -> None:
    first: list[str] = []
    second: list[str] = []
    progress.listen(lambda stage, *_: first.append(stage))
    progress.listen(lambda stage, *_: second.append(stage))
    progress.report("Running")
    assert (first, second) == ([], ["Running"])


def test_nobody_has_to_listen() -> None:
    progress.listen(None)
    progress.report("Running")
