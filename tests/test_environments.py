"""Environments of other versions, made by the real uv: whole or not at all, by one at a time."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ntrader import environments, progress
from ntrader.environments import environment, find_uv
from ntrader.errors import ConfigError, NotFoundError, NtraderError, ServiceError
from ntrader.fingerprints import environment as environment_here
from tests import engines

PYTHON = f"py{sys.version_info.major}.{sys.version_info.minor}"
HANGING = """#!/bin/sh
[ "$1" = --version ] && exit 0
mkdir -p "$(dirname "$0")/begun"
for last; do :; done
mkdir -p "$last"
exec sleep 600
"""


def program(folder: Path, text: str) -> Path:
    """A `uv` of our own making."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "uv"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "canary").iterdir() if path.suffix != ".lock")


def in_there(home: Path, code: str) -> str:
    python = home / "canary" / f"nautilus-{engines.OTHER}-{PYTHON}" / "bin" / "python"
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# The real one


def test_a_maker_that_was_killed_leaves_nothing_that_could_be_taken_for_an_environment(
    other_engine: engines.Making,
) -> None:
    assert len(other_engine.begun) == 1
    assert other_engine.after_the_kill == []


def test_of_two_at_once_one_makes_it_and_the_other_waits(other_engine: engines.Making, home: Path) -> None:
    assert other_engine.codes == [0, 0]
    assert sorted("Making the environment" in said for said in other_engine.said) == [False, True]
    assert sum("Waiting for another canary" in said for said in other_engine.said) >= 1
    assert [path.name for path in (home / "canary").glob(".nautilus-*")] == []


def test_it_holds_the_other_nautilus_and_the_libraries_of_here(other_engine: engines.Making, home: Path) -> None:
    code = "import importlib.metadata as m; print(*[m.version(n) for n in ('nautilus-trader', 'numpy', 'pandas')])"
    libraries = environment_here()["libraries"]
    assert isinstance(libraries, dict)
    assert in_there(home, code) == f"{engines.OTHER} {libraries['numpy']} {libraries['pandas']}"


def test_it_holds_nothing_of_ours_and_is_compiled(other_engine: engines.Making, home: Path) -> None:
    names = ("ntrader", "storage", "prefect", "sqlalchemy", "psycopg")
    code = f"import importlib.util as u; print([n for n in {names!r} if u.find_spec(n)])"
    assert in_there(home, code) == "[]"
    assert "True" in in_there(home, "import nautilus_trader as n, os; print(os.path.exists(n.__cached__))")


def test_it_is_used_again(other_engine: engines.Making, home: Path) -> None:
    seen: list[str] = []
    progress.listen(lambda stage, *_: seen.append(stage))
    try:
        with environment(home, engines.OTHER) as found:
            assert found.python.is_file()
    finally:
        progress.listen(None)
    assert seen == []


def test_a_version_that_does_not_exist_is_one_message(other_engine: engines.Making, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught, environment(tmp_path, "1.999.0"):
        pass
    assert caught.value.message.startswith("there is no nautilus_trader 1.999.0 for Python 3.")
    assert left_in(tmp_path) == []


def test_pins_that_the_other_version_does_not_allow_are_left_out(other_engine: engines.Making, tmp_path: Path) -> None:
    """1.228.0 wants pandas below 3."""
    subprocess.run([*find_uv(), "venv", "-q", "--no-project", "-p", sys.executable, tmp_path / "env"], check=True)
    pins = {"numpy": environments._pins()["numpy"], "pandas": "3.0.0"}

    chosen = environments._requirements(find_uv(), str(tmp_path / "env"), "1.228.0", pins).splitlines()

    assert {"nautilus-trader==1.228.0", f"numpy=={pins['numpy']}"} <= set(chosen)
    assert [line for line in chosen if line.startswith("pandas==2.")]


# Without uv, or with one that fails


@pytest.mark.parametrize("version", ["", "abc", "../1.230.0", "1.230.0 ", ">=1.230", "1.230.0; python_version>'3'"])
def test_what_is_no_version_is_refused_before_anything_is_made(version: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no version of nautilus_trader"), environment(tmp_path, version):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "version", ["1.230.0", "1.232.0rc1", "1.231.0.dev20260101", "1.230.0.post1", "2.0.0a1+local.1"]
)
def test_these_are_versions(version: str) -> None:
    environments.check_version(version)


def no_uv(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setitem(sys.modules, "uv", None)


def test_without_uv_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_uv(monkeypatch, tmp_path)
    with pytest.raises(ServiceError, match="uv is not here") as caught, environment(tmp_path, engines.OTHER):
        pass
    assert "pip install uv" in str(caught.value.hint)
    assert left_in(tmp_path) == []


def test_a_shim_without_a_uv_behind_it_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_uv(monkeypatch, tmp_path)
    program(tmp_path, "#!/bin/sh\nexit 127\n")
    with pytest.raises(ServiceError, match="uv is not here"):
        find_uv()


def test_the_uv_that_started_us_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_uv(monkeypatch, tmp_path / "nothing")
    path = program(tmp_path, "#!/bin/sh\nexit 0\n")
    monkeypatch.setenv("UV", str(path))
    assert find_uv() == [str(path)]


def interrupted(home: Path, number: int, tmp_path: Path) -> tuple[int, list[str]]:
    """A maker whose uv hangs half-way gets a signal."""
    bin_ = tmp_path / "bin"
    program(bin_, HANGING)
    process = engines.maker(home, PATH=f"{bin_}{os.pathsep}{os.environ['PATH']}")
    deadline = time.monotonic() + 30
    while not list((home / "canary").glob(".nautilus-*/env")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    os.killpg(process.pid, signal.SIGKILL) if number == signal.SIGKILL else None
    return process.returncode, left_in(home)


def test_an_interruption_takes_away_what_was_begun(tmp_path: Path) -> None:
    code, left = interrupted(tmp_path / "home", signal.SIGINT, tmp_path)
    assert code != 0
    assert left == []


def test_what_was_left_by_kill_9_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    _, left = interrupted(home, signal.SIGKILL, tmp_path)
    assert [name.startswith(f".nautilus-{engines.OTHER}") for name in left] == [True]

    program(tmp_path / "bin", "#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'error: no room' >&2; exit 2\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ServiceError, match="no room"), environment(home, engines.OTHER):
        pass
    assert left_in(home) == []


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            "error: Request failed after 3 retries in 6.5s\n  cause: Failed to fetch: https://me:secret@host/simple/\n"
            "  cause: client error (Connect)\n  cause: Connection refused (os error 111)\n",
            ServiceError,
            "1.9.0: Request failed after 3 retries in 6.5s: Connection refused (os error 111)",
        ),
        (
            "  \u00d7 No solution found when resolving dependencies:\n  ╰─▶ Because there is no version of"
            " nautilus-trader==1.9.0 and you require it, we can conclude\n      that it is unsatisfiable.\n",
            NotFoundError,
            "there is no nautilus_trader 1.9.0 for Python",
        ),
        (
            "error: No solution found\n  cause: Because nautilus-trader==1.9.0 has no wheels with a matching tag\n",
            NotFoundError,
            "there is no nautilus_trader 1.9.0 for Python",
        ),
        ("error: No solution found\n  cause: Because numpy==9 has no wheels\n", ServiceError, "numpy==9 has no wheels"),
        ("\nsomething odd\nhint: try again\n", ServiceError, "1.9.0: something odd"),
        ("", ServiceError, "it does not say why"),
    ],
)
def test_of_what_uv_says_the_relevant_line_is_shown(said: str, kind: type[NtraderError], words: str) -> None:
    error = environments._failed("1.9.0", said)
    assert type(error) is kind
    assert words in error.message
    assert "secret" not in error.message
    assert "\n" not in error.message


def test_an_environment_for_other_libraries_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = engines.stand_in(tmp_path).folder
    with environment(tmp_path, engines.HERE) as found:
        assert found.folder == place
    no_uv(monkeypatch, tmp_path)  # to make it anew is seen by the want of uv
    (place / environments._MARKER).write_text('{"numpy": "1.0"}')
    with pytest.raises(ServiceError, match="uv is not here"), environment(tmp_path, engines.HERE):
        pass


@pytest.mark.parametrize("harm", ["recreate", "no python", "no marker"])
def test_what_is_not_whole_or_not_wanted_is_made_anew(
    harm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = engines.stand_in(tmp_path).folder
    no_uv(monkeypatch, tmp_path)
    if harm == "no python":
        (place / "bin" / "python").unlink()
    if harm == "no marker":
        (place / environments._MARKER).unlink()
    with (
        pytest.raises(ServiceError, match="uv is not here"),
        environment(tmp_path, engines.HERE, recreate=harm == "recreate"),
    ):
        pass
