"""The real parts, started once a session: an embedded PostgreSQL and, for those who ask, a Prefect server.

Every test that touches the database gets one of its own, cloned from a migrated template in some 20 ms.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest

from flows import launch
from ntrader.settings import Settings
from storage import database, local, migrations
from tasks import server
from tests import engines

# A busy machine is no reason for a property to fail.
hypothesis.settings.register_profile("ntrader", deadline=None)
hypothesis.settings.load_profile("ntrader")
# pytest-xdist tells its workers how wide the terminal is; tables are as wide as they like where there is none.
os.environ.pop("COLUMNS", None)

TEMPLATE = "ntrader_template"
# Bytes: each of the suite's processes has a PostgreSQL of its own, with what runs leave behind in it.
_PLENTY = 8 * 1024**3
_names = (f"test_{number}" for number in itertools.count(1))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs another Nautilus downloads it, once a process of the suite."""
    for item in items:
        if "other_engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.long)


def _fastest_folder() -> str | None:
    """Memory, where there is plenty: a database is some 300 files, and on a disk those of one test are slow to make
    while those of the test before are just being deleted (0.2 s on ext4)."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return None
    return str(memory) if shutil.disk_usage(memory).free > _PLENTY else None


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """An NTRADER_HOME with a running PostgreSQL, gone at the end. Short, for the socket's sake; not below
    pytest's own folder, which root alone may enter."""
    path = Path(tempfile.mkdtemp(prefix="ntrader-test-", dir=_fastest_folder()))
    yield path
    server.stop_server(path)
    local.stop(path)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def template(home: Path) -> str:
    """A migrated database that nobody is connected to."""
    local.ensure_running(home, database=TEMPLATE)
    migrations.upgrade(settings_for(home, TEMPLATE))
    dispose_engines()
    return TEMPLATE


@pytest.fixture
def settings(home: Path, template: str) -> Iterator[Settings]:
    """Settings with an empty, migrated database."""
    name = create_database(home, template)
    yield settings_for(home, name)
    dispose_engines()
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty(home: Path) -> Iterator[Settings]:
    """Settings with a database in which there is nothing."""
    local.ensure_running(home)
    name = create_database(home)
    yield settings_for(home, name)
    dispose_engines()
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same, and the environment of this process and its children says so."""
    assert settings.database_url
    monkeypatch.setenv("NTRADER_HOME", str(settings.home))
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    return settings


@pytest.fixture(scope="session")
def prefect_server(home: Path) -> Iterator[str]:
    """The API URL of a local server on the embedded PostgreSQL: 10 to 30 seconds, once a session."""
    server.prepare_client(Settings(home=home))
    yield server.ensure_server(Settings(home=home))
    # After the server is gone Prefect's client would try for more than a minute to send what it still holds.
    launch.finish()


@pytest.fixture(scope="module")
def deployments(prefect_server: str) -> list[str]:
    """The full names of the deployments, which the session's server knows from here on; no worker serves them."""
    from flows.deploy import deploy_all

    with launch.prefect_at(prefect_server):
        return deploy_all()


@pytest.fixture(scope="session")
def other_engine(home: Path) -> engines.Making:
    """A real environment with another Nautilus under `home`: some 20 seconds and a download, once a session."""
    made = engines.make(home)
    if "uv cannot make an environment" in made.errors:
        pytest.skip(f"nautilus_trader {engines.OTHER} cannot be had here: {made.errors.splitlines()[-1]}")
    return made


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PREFECT_API_URL", "NTRADER_HOME", "ENABLE_BACKTEST_PERSISTENCE"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("DB_")]:
        monkeypatch.delenv(name)


def settings_for(home: Path, name: str) -> Settings:
    place = psycopg.conninfo.conninfo_to_dict(local.conninfo(home))
    return Settings(home=home, database_url=f"postgresql://{place['user']}@/{name}?host={place['host']}")


def create_database(home: Path, template: str = "template0") -> str:
    name = next(_names)
    administer(home, f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


def administer(home: Path, statement: str) -> None:
    with psycopg.connect(local.conninfo(home, "postgres"), autocommit=True) as connection:
        connection.execute(statement)


def dispose_engines() -> None:
    for engine in database._engines.values():
        engine.dispose()
    database._engines.clear()
    database.close_idle()
