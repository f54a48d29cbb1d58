"""compose.yaml and Dockerfile, which no engine runs here: what can be known of them without one."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_valid_setting_names

from cli.main import app
from tasks import pool, server

ROOT = Path(__file__).parent.parent
# Read by a shell or by Prefect in other ways than its settings.
_OTHERS = {"PREFECT_PASSWORD"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def words(command: list[str]) -> list[list[str]]:
    """The commands that it comes to, where a shell runs several."""
    if command[:2] == ["sh", "-c"]:
        return [shlex.split(part) for part in command[2].split("&&")]
    return [command]


def test_it_is_what_the_compose_specification_asks_for() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_has_what_a_desk_needs(services: dict[str, dict[str, Any]]) -> None:
    """A database, a server with its pages, workers, and what makes the tables and deployments before them."""
    assert set(services) == {"postgres", "prefect", "setup", "worker"}
    assert services["postgres"]["image"] == "postgres:18"
    assert {services[name]["image"] for name in ("prefect", "setup", "worker")} == {"ntrader"}


def test_nothing_listens_beyond_this_machine(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]
    assert all(service.get("network_mode") != "host" for service in services.values())


def test_each_waits_for_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    waits = {
        (name, other): how["condition"]
        for name, service in services.items()
        for other, how in service.get("depends_on", {}).items()
    }
    assert waits == {
        ("prefect", "postgres"): "service_healthy",
        ("setup", "postgres"): "service_healthy",
        ("setup", "prefect"): "service_healthy",
        ("worker", "setup"): "service_completed_successfully",
    }
    healthy = {other for (_, other), condition in waits.items() if condition == "service_healthy"}
    assert all("healthcheck" in services[other] for other in healthy)
    # One that is to be waited for until it has ended must not be started again when it has.
    assert services["setup"]["restart"] == "on-failure"


def test_its_health_is_asked_for_where_the_server_says_it(services: dict[str, dict[str, Any]]) -> None:
    """As for the local server, whose tests ask it."""
    *command, program = services["prefect"]["healthcheck"]["test"]
    ast.parse(program)
    assert command == ["CMD", "python", "-c"]
    assert "http://127.0.0.1:4200/api/health" in program
    assert services["prefect"]["command"] == ["prefect", "server", "start", "--host", "0.0.0.0"]


def test_the_api_asks_for_a_login(services: dict[str, dict[str, Any]]) -> None:
    settings = services["prefect"]["environment"]
    assert settings["PREFECT_SERVER_API_AUTH_STRING"] == "${PREFECT_LOGIN}"
    assert settings["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    for client in ("setup", "worker"):
        assert services[client]["environment"]["PREFECT_API_AUTH_STRING"].startswith("${PREFECT_LOGIN")


def test_every_command_is_there(services: dict[str, dict[str, Any]]) -> None:
    commands = [part for service in services.values() for part in words(service.get("command", []))]
    ours = [command[1:] for command in commands if command[:1] == ["ntrader"]]
    modules = [command[2] for command in commands if command[:2] == ["python", "-m"]]
    prefect = [command[1:] for command in commands if command[:1] == ["prefect"]]

    assert (ours, modules) == ([["db", "upgrade"]], ["flows.deploy"])
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    assert "upgrade" in {getattr(command.callback, "__name__", None) for command in groups["db"].registered_commands}
    assert '__name__ == "__main__"' in (ROOT / "flows" / "deploy.py").read_text()
    assert [command[:2] for command in prefect] == [["server", "start"], ["worker", "start"]]
    for command in prefect:
        helped = subprocess.run(
            [sys.executable, "-m", "prefect", *command[:2], "--help"], capture_output=True, text=True
        )  # fmt: skip
        assert [word for word in command if word.startswith("--") and word not in helped.stdout] == []


def test_workers_poll_the_pool_of_the_deployments(services: dict[str, dict[str, Any]]) -> None:
    command = services["worker"]["command"]
    assert command[command.index("--pool") + 1] == pool.POOL
    (deployed,) = {
        entry["work_pool"]["name"] for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    }
    assert deployed == pool.POOL


def test_every_setting_is_one_that_prefect_has(services: dict[str, dict[str, Any]]) -> None:
    known = _get_valid_setting_names(PrefectSettings)
    names = {name for service in services.values() for name in service.get("environment", {})}
    assert {name for name in names if name.startswith("PREFECT_")} - known - _OTHERS == set()


def test_the_server_is_set_as_the_local_one_is(services: dict[str, dict[str, Any]]) -> None:
    settings = services["prefect"]["environment"]
    assert {name: settings[name] for name in server._DEFAULTS if "VACUUM" not in name} == {
        name: value for name, value in server._DEFAULTS.items() if "VACUUM" not in name
    }


def test_volumes_are_declared_and_files_are_there(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", [])]
    named = {source for source, *_ in mounts if not source.startswith(".")}
    assert named == set(compose["volumes"])
    files = [ROOT / source for source, *_ in mounts if source.startswith(".")]
    assert files == [ROOT / "config" / "postgres" / "databases.sh"]
    assert all(file.is_file() for file in files)


def test_no_secret_is_written_down(compose: dict[str, Any]) -> None:
    """Each comes from outside, and its name is explained in the file's first lines."""
    text = (ROOT / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    explained = set(re.findall(r"^#   (\w+)=", text, re.MULTILINE))
    assert asked == explained == {"OWNER_PASSWORD", "PREFECT_PASSWORD", "PREFECT_LOGIN"}
    values = {
        value
        for service in compose["services"].values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASSWORD|LOGIN|AUTH", name) or "@" in value
    }
    assert len(values) > 4
    assert all("${" in value for value in values)


def test_the_image_is_made_of_what_is_there() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    packages = {folder.parent.name for folder in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= {source for sources in copied for source in sources}
    assert [line for line in lines if line.startswith("CMD")] == ['CMD ["ntrader", "--help"]']
    assert "ntrader" in project["scripts"]
    versions = {line.split()[1] for line in lines if line.startswith("FROM")}
    assert versions == {"python:3.13-slim"}
    assert "<3.14" in project["requires-python"]
    # Nobody runs it as root.
    assert any(line.startswith("USER 1000") for line in lines)
