"""The process with the other engine: only the engine differs, and a run that ends badly ends alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ntrader.canary import Canary, lend_core
from ntrader.config import RunConfig, RunRequest
from ntrader.environments import Environment, environment
from ntrader.errors import BrokenStrategyError, EngineKilledError, RunError, StrategyError, UnknownStrategyError
from ntrader.execution import execute
from ntrader.fingerprints import environment as environment_here
from ntrader.resolve import resolve
from ntrader.results import Execution
from tests import engines

STRATEGIES = ["sma_crossover", "mean_reversion", "momentum"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return engines.stand_in(tmp_path_factory.mktemp("canary"))


@pytest.fixture(scope="module")
def same(place: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """A canary with the engine that is installed here."""
    with Canary(place, tmp_path_factory.mktemp("home")) as canary:
        yield canary


def resolved(home: Path, **values: Any) -> RunConfig:
    asked = {"strategy": "sma_crossover", "symbol": "AAPL", "start": "2008-01-01", "end": "2009-12-31"}
    return resolve(RunRequest(**(asked | values)), home)


def scripted(home: Path, script: dict[str, str], **parameters: Any) -> RunConfig:
    return resolved(home, strategy="tests.scripted:Scripted", parameters={"script": script, **parameters})


def replayed(canary: Canary, config: RunConfig, execution: Execution | None = None) -> Execution:
    """With the bars and the code of `execution`, as if they had been kept."""
    inputs = execution.inputs if execution else None
    return canary.replay(config.snapshot(), inputs.bars if inputs else None, inputs.sources if inputs else None)


# The harness: with the same engine nothing moves


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_the_same_engine_everything_is_the_same(strategy: str, same: Canary, tmp_path: Path) -> None:
    config = resolved(tmp_path, strategy=strategy)
    here = execute(config, tmp_path)
    assert here.result.fills

    for there in (replayed(same, config, here), replayed(same, config)):
        assert there.result_digest == here.result_digest
        assert there.fingerprints == here.fingerprints


def test_it_says_what_it_is(same: Canary) -> None:
    described = same.describe()
    assert (described.nautilus, described.environment) == (engines.HERE, environment_here())


def test_kept_code_runs_where_the_strategy_is_gone(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    module = folder / "vanishing.py"
    module.write_text(Path("tests/scripted.py").read_text())
    monkeypatch.syspath_prepend(str(folder))
    config = resolved(tmp_path, strategy="vanishing:Scripted", parameters={"script": {"3": "buy 5", "9": "sell 5"}})
    here = execute(config, tmp_path)
    module.unlink()

    with Canary(place, tmp_path) as canary:
        there = replayed(canary, config, here)
        with pytest.raises(UnknownStrategyError, match="vanishing"):
            replayed(canary, config)

    assert there.result_digest == here.result_digest
    assert len(there.result.fills) == 2


def test_a_strategy_in_the_current_folder_is_found(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "local_strategy.py").write_text(Path("tests/scripted.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = resolved(tmp_path, strategy="local_strategy:Scripted", parameters={"script": {"3": "buy 5"}})

    with Canary(place, tmp_path) as canary:
        assert len(replayed(canary, config).result.fills) == 1


def test_what_is_printed_does_not_get_between_the_answers(
    place: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Canary(place, tmp_path) as canary:
        there = replayed(canary, scripted(tmp_path, {"2": "print", "3": "buy 5", "4": "print"}))

    assert len(there.result.fills) == 1
    captured = capfd.readouterr()
    assert captured.err.count("printed by the strategy") == 2
    assert captured.out == ""


def test_progress_comes_back(same: Canary, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = scripted(tmp_path, {"3": "hang"})
    bar, stop = threading.Event(), threading.Event()

    def hear(done: int, total: int) -> None:
        seen.append((done, total))
        bar.set()
        if stop.is_set():
            raise KeyboardInterrupt

    threading.Timer(0.5, stop.set).start()
    with pytest.raises(KeyboardInterrupt):
        same.replay(config.snapshot(), None, None, hear)

    assert bar.is_set()
    assert {total for _, total in seen} == {505}
    assert len(replayed(same, resolved(tmp_path)).result.fills) > 0


# Runs that end badly


def test_a_run_that_kills_its_process_fails_alone(same: Canary, tmp_path: Path) -> None:
    with pytest.raises(EngineKilledError, match="SIGKILL"):
        replayed(same, scripted(tmp_path, {"3": "kill"}))

    assert replayed(same, resolved(tmp_path)).result.fills


def test_a_process_that_dies_altogether_is_started_again(same: Canary, tmp_path: Path) -> None:
    first = same.describe()
    assert same._child is not None
    os.kill(same._child.process.pid, signal.SIGSEGV)
    same._child.process.wait()

    with pytest.raises(EngineKilledError, match=f"the process of nautilus_trader {engines.HERE} was killed by SIGSEGV"):
        same.describe()
    assert same.describe() == first


def test_errors_come_back_as_they_are(same: Canary, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="the strategy raised RuntimeError: bar 3 went wrong"):
        replayed(same, scripted(tmp_path, {"3": "raise"}))


def test_a_library_that_is_not_there_is_named(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path("tests/scripted.py").read_text().replace("import os\n", "import os\nimport prefekt\n")
    (tmp_path / "needy.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    snapshot = scripted(tmp_path, {}).snapshot()
    snapshot["strategy"]["path"] = "needy:Scripted"

    with Canary(place, tmp_path) as canary, pytest.raises(BrokenStrategyError, match="No module named 'prefekt'"):
        canary.replay(snapshot, None, None)


def test_an_engine_that_cannot_be_driven_says_so(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of Nautilus that moved, and one that breaks the import in another way."""
    for number, line in enumerate(("raise ImportError('cannot import name X')", "raise AttributeError('no such Y')")):
        package = tmp_path / str(number) / "nautilus_trader"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(line)
        # Not by PYTHONPATH, where a folder with a Nautilus of its own is left out.
        other = Environment("9.9", shadowed(place, package.parent))
        with Canary(other, tmp_path) as canary, pytest.raises(RunError) as caught:
            canary.describe()
        assert "the engine of ntrader does not run on nautilus_trader" in caught.value.message
        assert line.partition("'")[2].rstrip("')") in caught.value.message


def shadowed(place: Environment, folder: Path) -> Path:
    """The same environment, with the modules in `folder` before all others."""
    env = folder / "env"
    (env / "bin").mkdir(parents=True)
    (env / "lib").symlink_to((place.folder / "lib").resolve())
    python = env / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{folder}" exec "{place.python}" "$@"\n')
    python.chmod(0o755)
    return env


def test_nothing_is_left_of_it(place: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "hanging"
    with Canary(place, tmp_path) as canary:
        thread = threading.Thread(target=quietly, args=(canary, scripted(tmp_path, {"3": "hang"}, marker=str(marker))))
        thread.start()
        wait_for(marker)
        assert canary._child is not None
        group = canary._child.process.pid
        assert len(processes(group)) >= 3
        os.kill(group, signal.SIGKILL)
        thread.join(20)
    assert not thread.is_alive()
    deadline = time.monotonic() + 10
    while processes(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(group) == []


def test_it_ends_with_a_parent_that_is_killed(place: Environment, tmp_path: Path) -> None:
    marker = tmp_path / "hanging"
    snapshot = scripted(tmp_path, {"3": "hang"}, marker=str(marker)).snapshot()
    code = (
        "from pathlib import Path\nfrom ntrader.canary import Canary\nfrom ntrader.environments import Environment\n"
        f"canary = Canary(Environment('x', Path({str(place.folder)!r})), Path({str(tmp_path)!r}))\n"
        "canary.describe()\nprint(canary._child.process.pid, flush=True)\n"
        f"canary.replay({snapshot!r}, None, None)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    group = int(parent.stdout.readline())
    wait_for(marker)
    assert processes(group) != []

    parent.kill()
    parent.communicate()

    deadline = time.monotonic() + 10
    while processes(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(group) == []


def quietly(canary: Canary, config: RunConfig) -> None:
    try:
        replayed(canary, config)
    except EngineKilledError:
        return


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes(session: int) -> list[int]:
    """Those alive in the session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


# What is lent


def test_only_the_core_is_lent(tmp_path: Path) -> None:
    folder = lend_core(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["ntrader"]
    assert (folder / "ntrader" / "engine.py").is_file()
    assert lend_core(tmp_path) == folder


def test_a_python_path_with_a_nautilus_of_its_own_is_left_out(
    place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong" / "nautilus_trader").mkdir(parents=True)
    (tmp_path / "wrong" / "nautilus_trader" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'wrong'}{os.pathsep}{tmp_path}")
    with Canary(place, tmp_path) as canary:
        assert canary.describe().nautilus == engines.HERE


# The other engine, for real


@pytest.fixture(scope="module")
def other(other_engine: engines.Making, home: Path) -> Iterator[Canary]:
    with environment(home, engines.OTHER) as there, Canary(there, home) as canary:
        yield canary


def test_only_the_engine_differs(other: Canary) -> None:
    described, here = other.describe(), environment_here()
    libraries = here["libraries"]
    assert isinstance(libraries, dict)
    assert described.nautilus == engines.OTHER
    assert described.environment == here | {"libraries": libraries | {"nautilus-trader": engines.OTHER}}


@pytest.mark.parametrize(
    ("strategy", "moves"), [("sma_crossover", False), ("momentum", False), ("mean_reversion", True)]
)
def test_what_the_other_engine_makes_of_the_shipped_strategies(
    strategy: str, moves: bool, other: Canary, home: Path
) -> None:
    """Nautilus 1.231 computes its RelativeStrengthIndex differently from 1.230."""
    config = resolved(home, strategy=strategy)
    here = execute(config, home)

    there = replayed(other, config, here)

    assert (there.result_digest != here.result_digest) == moves
    assert (there.fingerprints.data, there.fingerprints.code) == (here.fingerprints.data, here.fingerprints.code)
    assert there.fingerprints.engine != here.fingerprints.engine
