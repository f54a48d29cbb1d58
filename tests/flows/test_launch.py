"""What Prefect's client raises when its server fails is said in our words, and never hides what went wrong first."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.launch import _prefect_explained
from ntrader.errors import DatabaseError, ServiceError
from ntrader.settings import Settings
from tests.storage.conftest import free_port


def ask_nobody() -> None:
    httpx.get(f"http://127.0.0.1:{free_port()}/api")


def test_a_server_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(ServiceError, match="the Prefect server failed") as caught,
        _prefect_explained(Settings(tmp_path)),
    ):
        ask_nobody()
    assert caught.value.hint == f"Look there first: its log is {tmp_path}/logs/prefect-server.log."


def test_what_went_wrong_before_the_server_did_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="is full"), _prefect_explained(Settings(tmp_path)):
        try:
            raise DatabaseError("the disk of the database is full")
        except DatabaseError:
            ask_nobody()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_server_without_room_is_said_to_have_none(small: Path) -> None:
    with (
        pytest.raises(ServiceError, match=r"the disk of .* is full") as caught,
        _prefect_explained(Settings(small)),
    ):
        ask_nobody()
    assert caught.value.hint == "Make room there."
