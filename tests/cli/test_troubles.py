"""The seven troubles of a PostgreSQL set-up, each provoked for real: the page quotes what is printed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from ntrader.errors import DatabaseError, DatabaseUnavailableError, NtraderError
from ntrader.settings import Settings, mask_url
from storage import database, local, migrations, recording
from storage.runs import get_run
from tests import factories
from tests.cli.conftest import ROOT, Answer, Here, finish
from tests.conftest import administer, create_database, dispose_engines, settings_for
from tests.storage.conftest import PASSWORD, Server, free_port, take_memory_from, with_a_migration_that_fails

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SHOWN = "postgresql://me:***@127.0.0.1:5432/runs"
RUN = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
ERRORS = {
    "Connection refused": 1,
    "Wrong password": 1,
    "Migration missing or failed": 2,
    "Table already exists": 1,
    "Slow queries": 1,
    "Out of memory, too many connections": 2,
    "Run not saved": 3,
}
ONE_RUN = ["run-backtest", "--strategy", "momentum", "--symbol", "MSFT"]


def quoted(trouble: str) -> list[str]:
    """What the page quotes below that heading."""
    section = PAGE.partition(f"\n## {trouble}\n")[2].partition("\n## ")[0]
    return re.findall(r"```text\n(.*?)```", section, re.DOTALL)


def assert_quoted(trouble: str, said: str, number: int = 0, **other: str) -> None:
    """The page shows exactly that, but for the names of this server, database and run."""
    said = re.sub(r"postgresql://[^ ]*\w", SHOWN, said)
    for shown, actual in other.items():
        said = said.replace(actual, shown)
    assert said == quoted(trouble)[number]


def printed(error: NtraderError) -> str:
    return f"Error: {error.message}\n{error.hint}\n"


@pytest.fixture
def at(here: Here, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """A command at some other DATABASE_URL; it ends with 5, without a traceback and without a password."""

    def run(url: str | None, *words: str) -> Answer:
        assert url
        monkeypatch.setenv("DATABASE_URL", url)
        answer = here(*words)
        assert answer.code == 5
        assert "Traceback" not in answer.err
        assert quote(PASSWORD, safe="") not in answer.out + answer.err
        return answer

    return run


At = Callable[..., Answer]


def test_the_page_has_every_trouble_and_every_quotation_is_compared_here() -> None:
    assert {heading: len(quoted(heading)) for heading in ERRORS} == ERRORS
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert headings == ["Reading `ntrader doctor`", *ERRORS]


def test_the_page_lists_every_check(here: Here) -> None:
    names = [check["name"] for check in json.loads(here("doctor", "--json").out)["checks"]]
    assert re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE)[1:] == names


# -- connection refused ----------------------------------------------------------------------------------------


def test_connection_refused(at: At) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/runs"
    assert_quoted("Connection refused", at(url, "history", "list").err)
    assert at(url, "doctor").err == (
        "Error: something is wrong with Server\nDo what the last column says, from the top down.\n"
    )


def test_a_server_that_was_stopped(at: At, new_home: Path) -> None:
    place = local.ensure_running(new_home)
    settings = settings_for(new_home, "ntrader")
    psycopg.connect(place).close()
    local.stop(new_home)

    answer = at(settings.database_url, "history", "list")

    assert "no connection to the database" in answer.err
    assert "No such file or directory\nIs it running?" in answer.err


# -- wrong password --------------------------------------------------------------------------------------------


def test_wrong_password(at: At, postgres16: Server) -> None:
    assert_quoted("Wrong password", at(postgres16.url(password="wrong"), "history", "list").err)
    answer = at(postgres16.url(password="wrong"), "doctor", "--json")
    wrong = [check["name"] for check in json.loads(answer.out)["checks"] if check["state"] == "wrong"]
    assert wrong == ["Login"]


# -- migration missing or failed, table already exists -----------------------------------------------------------


def test_migration_missing(at: At, empty: Settings) -> None:
    assert_quoted("Migration missing or failed", at(empty.database_url, "history", "list").err)
    assert "Schema" in at(empty.database_url, "doctor").err


def test_migration_failed(at: At, environment: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripts = with_a_migration_that_fails(tmp_path)
    monkeypatch.setattr(migrations, "_scripts", lambda: scripts)

    answer = at(environment.database_url, "db", "upgrade")

    other = {"002_example": "999_fails_half_way"}
    assert_quoted("Migration missing or failed", answer.err, 1, **other)
    assert migrations.current(environment) == database.HEAD


def test_table_already_exists(at: At, empty: Settings) -> None:
    with database.connect(empty) as connection:
        connection.execute("CREATE TABLE trades (id int)")
    assert_quoted("Table already exists", at(empty.database_url, "db", "upgrade").err)
    assert "Leftover tables" in at(empty.database_url, "doctor").err


# -- slow queries ----------------------------------------------------------------------------------------------


def test_slow_queries(at: At, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_STATEMENT_TIMEOUT", "200")
    with closing(database.connect(environment, autocommit=False)) as other:
        other.execute("LOCK TABLE backtest_runs")
        assert_quoted("Slow queries", at(environment.database_url, "history", "list").err)


# -- out of memory, too many connections -------------------------------------------------------------------------


def test_too_many_connections(at: At, postgres16: Server) -> None:
    with ExitStack() as crowd:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            for _ in range(1000):
                crowd.enter_context(closing(psycopg.connect(postgres16.socket_url())))
        assert_quoted("Out of memory, too many connections", at(postgres16.url(), "history", "list").err)
        assert "wrong with Connections" in at(postgres16.url(), "doctor").err


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="only Linux can take memory from a living process")
def test_out_of_memory(environment: Settings) -> None:
    with pytest.raises(DatabaseError) as caught, database.reading(environment) as connection:
        take_memory_from(connection.info.backend_pid, local.status(environment.home).data_directory)
        connection.execute("SELECT length(string_agg(repeat('x', 1000000), '')) FROM generate_series(1, 800)")
    assert_quoted("Out of memory, too many connections", printed(caught.value), 1)


# -- run not saved -----------------------------------------------------------------------------------------------

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def beginner(environment: Settings) -> Iterator[str]:
    """The URL of a role that may begin a run and not finish it."""
    assert environment.database_url
    role = f"beginner_{uuid4().hex[:8]}"
    with database.connect(environment) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {role}")
        connection.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}")
    yield environment.database_url.replace("ntrader@", f"{role}@")
    with database.connect(environment) as connection:
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def test_a_result_that_cannot_be_saved(command: Command, environment: Settings, beginner: str) -> None:
    answer = finish(command(*ONE_RUN, DATABASE_URL=beginner))

    assert answer.code == 5
    assert answer.out == ""
    run = get_run(environment, "@last")
    assert_quoted("Run not saved", last_lines(answer), **{RUN: str(run.run_id)})
    assert run.execution_status == "interrupted", "nobody runs it any more"


def test_a_database_that_only_reads(command: Command, environment: Settings) -> None:
    url = f"{environment.database_url}&options=-c%20default_transaction_read_only=on"
    answer = finish(command(*ONE_RUN, DATABASE_URL=url))

    assert answer.code == 5
    assert answer.out == ""
    assert_quoted("Run not saved", last_lines(answer), 1)


def test_recording_switched_off(command: Command, here: Here) -> None:
    answer = finish(command(*ONE_RUN, ENABLE_BACKTEST_PERSISTENCE="false"))

    assert answer.code == 0
    assert answer.err.endswith(quoted("Run not saved")[2])


def test_a_database_gone_at_the_save(home: Path, template: str) -> None:
    name = create_database(home, template)
    settings = settings_for(home, name)
    run, execution = factories.new_run(), factories.execution()
    recording.start_run(settings, run)
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")

    with pytest.raises(DatabaseUnavailableError, match="does not exist") as caught:
        recording.save_success(settings, run.run_id, execution, factories.metrics_of(execution))

    dispose_engines()
    assert mask_url(settings.database_url or "") in caught.value.message
    assert caught.value.hint == "Create it with `createdb`, or correct DATABASE_URL."


def last_lines(answer: Answer) -> str:
    return "Error: " + answer.err.rpartition("Error: ")[2]
