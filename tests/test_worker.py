"""The worker against real processes: what it returns, how it dies, and that nothing is left of it."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import pytest

from ntrader.errors import DataNotFoundError, EngineKilledError, NtraderError, RunError, StrategyError
from ntrader.worker import Worker, default_worker

HERE = "tests.worker_targets"

Script = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.kill()


def raised(worker: Worker, target: str, *arguments: object) -> NtraderError:
    with pytest.raises(NtraderError) as caught:
        worker.call(f"{HERE}:{target}", *arguments)
    return caught.value


def pid_of(worker: Worker) -> int:
    pid: int = worker.call("os:getpid")
    return pid


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# Results and errors


def test_a_result_comes_back_from_another_process_and_the_same_one_next_time(worker: Worker) -> None:
    assert worker.call("operator:add", 1, 2) == 3
    assert pid_of(worker) == pid_of(worker) != os.getpid()


def test_the_engine_is_loaded_already(worker: Worker) -> None:
    assert worker.call("builtins:eval", "'ntrader.engine' in __import__('sys').modules") is True
    assert worker.call("builtins:eval", "'prefect' in __import__('sys').modules") is False


def test_an_error_of_ours_comes_back_as_it_is_with_its_traceback(worker: Worker) -> None:
    error = raised(worker, "raise_ours")
    assert (type(error), str(error), error.hint) == (DataNotFoundError, "no bars", "import some")
    assert "in raise_ours" in error.traceback_text  # type: ignore[attr-defined]


def test_the_strategys_own_traceback_is_kept(worker: Worker) -> None:
    assert raised(worker, "raise_with_own_traceback").traceback_text == "the strategy's own"  # type: ignore[attr-defined]


def test_the_cause_is_part_of_the_traceback(worker: Worker) -> None:
    assert "it broke because of rust" in raised(worker, "raise_from_cause").traceback_text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("raise_told", "Told: it broke because of rust"),
        ("raise_speechless", "Speechless"),
        ("raise_foreign", "ForeignNtraderError: not yours"),
        ("raise_interrupt", "KeyboardInterrupt: "),
        ("nothing_such", "AttributeError: module 'tests.worker_targets' has no attribute 'nothing_such'"),
    ],
)
def test_any_other_error_comes_back_as_a_strategy_error(worker: Worker, target: str, message: str) -> None:
    error = raised(worker, target)
    assert isinstance(error, StrategyError)
    assert str(error) == message
    assert "Traceback" in (error.traceback_text or "")


def test_sys_exit_in_a_strategy_is_an_error_and_not_the_end(worker: Worker) -> None:
    before = pid_of(worker)
    with pytest.raises(StrategyError, match="SystemExit: 3"):
        worker.call("sys:exit", 3)
    assert pid_of(worker) == before


def test_an_error_that_cannot_be_sent_keeps_message_hint_and_traceback(worker: Worker) -> None:
    error = raised(worker, "raise_with_lock")
    assert isinstance(error, StrategyError)
    assert (str(error), error.hint) == ("DataNotFoundError: no bars", "import some")
    assert "in raise_with_lock" in (error.traceback_text or "")


def test_a_result_that_cannot_be_sent_is_a_clear_error_and_not_the_end(worker: Worker) -> None:
    before = pid_of(worker)
    error = raised(worker, "a_lock")
    assert str(error) == (
        "a result of type lock cannot be sent back from the worker: TypeError: cannot pickle '_thread.lock' object"
    )
    assert not isinstance(error, EngineKilledError)
    assert pid_of(worker) == before


def test_a_result_that_cannot_be_read_here_is_a_clear_error(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_there.py").write_text("class Thing: ...\n")
    monkeypatch.chdir(tmp_path)
    worker.call("builtins:exec", f"import sys; sys.path.append({str(tmp_path)!r})")
    with pytest.raises(RunError, match="the worker's answer cannot be read here: ModuleNotFoundError: No module named"):
        worker.call("only_there:Thing")
    assert worker.call("operator:add", 1, 2) == 3


def test_arguments_that_cannot_be_sent_do_the_worker_no_harm(worker: Worker) -> None:
    before = pid_of(worker)
    with pytest.raises((TypeError, pickle.PicklingError)):
        worker.call("builtins:id", threading.Lock())
    assert pid_of(worker) == before


def test_arguments_that_cannot_be_read_there_are_a_clear_error(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pid_of(worker)
    (tmp_path / "only_here.py").write_text("class Thing: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StrategyError, match="ModuleNotFoundError: No module named 'only_here'"):
        worker.call("builtins:id", __import__("only_here").Thing())
    assert pid_of(worker) == before


def test_large_arguments_and_results_come_through(worker: Worker) -> None:
    assert worker.call("operator:add", b"x" * 20_000_000, b"y") == b"x" * 20_000_000 + b"y"


def test_the_worker_follows_into_the_current_folder(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.call("os:getcwd")
    monkeypatch.chdir(tmp_path)
    assert worker.call("os:getcwd") == str(tmp_path)


# Progress


def test_progress_arrives_in_order(worker: Worker) -> None:
    seen: list[tuple[int, int]] = []
    assert worker.call(f"{HERE}:count", 5, on_progress=lambda *state: seen.append(state)) == 5
    assert seen == [(step, 5) for step in range(5)]


def test_progress_of_a_call_that_is_over_disturbs_none_of_the_next(worker: Worker) -> None:
    late: list[tuple[int, int]] = []
    assert worker.call(f"{HERE}:talk_on", on_progress=lambda *state: None) == "done"
    for _ in range(20):
        assert worker.call(f"{HERE}:count", 0, on_progress=lambda *state: late.append(state)) == 0
        time.sleep(0.01)
    assert late == []


@pytest.mark.parametrize("kind", [BrokenPipeError, ValueError])
def test_a_listener_that_raises_ends_the_call_and_the_next_one_is_right(worker: Worker, kind: type[Exception]) -> None:
    def fail(*_: int) -> None:
        raise kind("nobody listens")

    with pytest.raises(kind, match="nobody listens"):
        worker.call(f"{HERE}:count", 5, on_progress=fail)
    assert worker.call("operator:add", 1, 2) == 3


# Death


@pytest.mark.parametrize(
    ("target", "arguments", "message", "hint"),
    [
        (f"{HERE}:kill_me", (), "was killed by SIGKILL", "Out of memory, perhaps."),
        (f"{HERE}:kill_me", (signal.SIGABRT,), "was killed by SIGABRT", None),
        (f"{HERE}:kill_me", (40,), "was killed by signal 40", None),
        (f"{HERE}:segfault", (), "was killed by SIGSEGV", None),
        ("os:_exit", (7,), "ended with exit code 7", None),
        ("os:_exit", (0,), "ended with exit code 0", None),
        (f"{HERE}:close_the_pipe", (), "closed its connection", None),
    ],
)
def test_a_death_is_named_and_the_next_call_starts_afresh(
    worker: Worker, target: str, arguments: tuple[int, ...], message: str, hint: str | None
) -> None:
    before = pid_of(worker)
    with pytest.raises(EngineKilledError) as caught:
        worker.call(target, *arguments)
    assert (str(caught.value), caught.value.hint) == (f"the process that ran the backtest {message}", hint)
    assert is_gone(before)
    assert pid_of(worker) != before


def test_a_death_in_the_middle_of_the_answer_is_a_death(worker: Worker) -> None:
    with pytest.raises(EngineKilledError, match="SIGKILL"):
        worker.call(f"{HERE}:die_while_answering", on_progress=lambda *_: time.sleep(1))
    assert worker.call("operator:add", 1, 2) == 3


def test_a_death_between_calls_goes_unnoticed(worker: Worker) -> None:
    before = pid_of(worker)
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: not Path(f"/proc/{before}").exists())
    assert pid_of(worker) != before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_sent_to_the_whole_group_is_for_the_parent(worker: Worker, number: int) -> None:
    before = pid_of(worker)
    os.kill(before, number)
    os.kill(forkserver._forkserver._forkserver_pid, number)  # type: ignore[attr-defined]
    assert pid_of(worker) == before


def test_the_death_of_the_server_that_forks_is_survived(worker: Worker) -> None:
    before = pid_of(worker)
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    threading.Timer(0.2, os.kill, (server, signal.SIGKILL)).start()
    with pytest.raises(EngineKilledError):
        worker.call("time:sleep", 60)
    assert worker.call("operator:add", 1, 2) == 3
    assert eventually(lambda: is_gone(before))


def test_killing_it_from_another_thread_ends_the_call(worker: Worker) -> None:
    before = pid_of(worker)
    threading.Timer(0.2, worker.kill).start()
    began = time.monotonic()
    with pytest.raises(EngineKilledError, match="SIGKILL"):
        worker.call("time:sleep", 60)
    assert time.monotonic() - began < 5
    assert is_gone(before)
    assert pid_of(worker) != before


def test_killing_it_while_it_starts_or_twice_or_never_started_is_no_error() -> None:
    worker = Worker()
    worker.kill()
    worker.start()
    worker.kill()
    worker.kill()
    assert worker.call("operator:add", 1, 2) == 3
    pid = pid_of(worker)
    worker.kill()
    assert is_gone(pid)


def test_a_worker_that_nobody_holds_ends_even_with_threads_left_behind() -> None:
    worker = Worker()
    pid = worker.call(f"{HERE}:leave_a_thread")
    del worker
    assert eventually(lambda: is_gone(pid))


def test_neither_files_nor_processes_are_left_open(worker: Worker) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    pids = [pid_of(worker)]
    gc.collect()
    before = opened()
    for _ in range(5):
        worker.kill()
        pids.append(pid_of(worker))
        with pytest.raises(EngineKilledError):
            worker.call("os:_exit", 1)
        pids.append(pid_of(worker))
    assert opened() <= before
    assert all(map(is_gone, pids[:-1]))


# Threads and starting


def test_two_threads_take_turns(worker: Worker) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: worker.call("operator:mul", number, 2), range(100)))
    assert answers == [2 * number for number in range(100)]


def test_threads_that_start_it_together_start_one(worker: Worker) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: pid_of(worker), range(8)))) == 1


def test_starting_it_in_the_middle_of_a_call_changes_nothing(worker: Worker) -> None:
    before = pid_of(worker)
    threading.Timer(0.1, worker.start).start()
    worker.call("time:sleep", 0.3)
    assert pid_of(worker) == before


def test_there_is_one_for_the_whole_process() -> None:
    assert default_worker() is default_worker()


# As a person sees it


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Run a program in a process group of its own, as a terminal does."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str) -> subprocess.Popen[str]:
        file = tmp_path / "script.py"
        file.write_text(f"import time\nfrom ntrader.worker import *\nworker = default_worker()\n{program}\n")
        process = subprocess.Popen(
            [sys.executable, str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def group(process: subprocess.Popen[str]) -> list[int]:
    """What lives of the process group: the worker, the server that forks it, the tracker."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if _group_of(pid) == process.pid and not is_gone(pid)]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def begun(marker: Path) -> bool:
    return marker.exists() and marker.read_text() != ""


def test_what_is_printed_in_the_worker_never_reaches_stdout(script: Script) -> None:
    out, err = script(f'worker.call("{HERE}:write", "noise"); print("data")').communicate(timeout=30)
    assert out == "data\n"
    assert err.count("noise") == 5


def test_start_returns_at_once(script: Script) -> None:
    program = (
        "began = time.monotonic(); worker.start(); worker.start(); print(time.monotonic() - began < 0.2)\n"
        "print(worker.call('operator:add', 1, 2))"
    )
    assert script(program).communicate(timeout=30)[0] == "True\n3\n"


def test_a_script_without_a_main_guard_runs_once(script: Script) -> None:
    process = script("print('runs'); print(worker.call('operator:add', 1, 2))")
    assert process.communicate(timeout=30) == ("runs\n3\n", "")


def test_it_works_where_stdout_and_stderr_are_closed(script: Script) -> None:
    program = "import os, sys\nos.close(1); os.close(2)\nsys.exit(worker.call('operator:add', 1, 2))"
    process = script(program)
    process.communicate(timeout=30)
    assert process.returncode == 3


QUIET = "try:\n    {}\nexcept KeyboardInterrupt:\n    raise SystemExit(130)"


@pytest.mark.parametrize(("task", "everybody"), [("sleep", True), ("spin", False)], ids=["Ctrl-C", "kill -INT"])
def test_an_interrupt_ends_the_worker_at_once_and_quietly(
    script: Script, tmp_path: Path, task: str, everybody: bool
) -> None:
    marker = tmp_path / "begun"
    process = script(QUIET.format(f"worker.call('{HERE}:{task}', {str(marker)!r})"))
    assert eventually(lambda: begun(marker), 30)
    began = time.monotonic()
    (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 130
    assert time.monotonic() - began < 2
    assert eventually(lambda: group(process) == [], 3)


@pytest.mark.parametrize("wait", [0.05, 0.5, 1.2])
def test_ctrl_c_while_the_engine_loads_is_quiet(script: Script, wait: float) -> None:
    process = script(QUIET.format("print('ready', flush=True); worker.start(); worker.call('time:sleep', 60)"))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 130
    assert eventually(lambda: group(process) == [], 8)


def test_kill_9_of_the_parent_leaves_nothing_behind(script: Script, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    process = script(f"worker.call('{HERE}:sleep', {str(marker)!r})")
    assert eventually(lambda: begun(marker), 30)
    assert len(group(process)) >= 3
    process.kill()
    assert eventually(lambda: group(process) == [], 5)
