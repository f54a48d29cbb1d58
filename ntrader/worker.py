"""A warm process that has the engine loaded and runs one thing at a time.

Why a process of its own: the engine's import overlaps with everything else a command has to start; a strategy that
crashes, leaks or is killed takes the worker down and not the book-keeping; Ctrl-C works while C code runs; and what
a strategy prints cannot get between the lines of our own output.

`warm_up` starts loading the engine and returns at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing import connection, forkserver, popen_forkserver, reduction, resource_tracker, spawn, util
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from typing import Any

from ntrader import errors
from ntrader.errors import EngineKilledError, NtraderError, RunError, StrategyError
from ntrader.mark import Mark

Progress = Callable[[int, int], None]

_preloaded = ["ntrader.execution"]
_LAST = "ntrader.frozen"
_GOODBYE_SECONDS = 1.0
# What a terminal or a service manager sends to every process of a group at once: for the parent, which ends the others.
_FOR_THE_PARENT = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def preload(module: str) -> None:
    """Workers will need this module besides the engine: it is loaded once for all of them, if none has started yet."""
    if module not in _preloaded:
        _preloaded.append(module)


def warm_up() -> None:
    """Begin loading the engine in the background, for the first worker to be ready sooner."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_preloaded, _LAST])
    _occupy_standard_files()
    # Starting the tracker unblocks Ctrl-C as a side effect: it must be there before Ctrl-C is blocked.
    resource_tracker.ensure_running()
    with _without_interrupts():
        forkserver.ensure_running()


def leave_nothing() -> None:
    """Remove the folder of the fork server's socket: at the end of a process that does not end in the usual way, where
    nobody else would."""
    shutil.rmtree(util.get_temp_dir(), ignore_errors=True)


class Worker:
    """One process. Calls are serial; a call that outlives its process raises and the next one starts afresh."""

    def __init__(self, mark: Mark | None = None) -> None:
        """What is called in the process says by `note` what it is at, and `mark` shows it here."""
        self._mark = mark
        self._one_call = threading.Lock()
        self._guard = threading.Lock()
        self._child: Future[_Child] | None = None

    def start(self) -> None:
        """Start the process without waiting for it; the next call does that."""
        self._started()

    def call(self, target: str, *arguments: Any, on_progress: Progress | None = None) -> Any:
        """Call `target`, a function written `package.module:name`, in the worker and in the current folder.

        A name rather than the function, so that the caller need not load what the worker has loaded. With
        `on_progress` the function also gets a `progress=` to report through.

        Raises what the function raises, an error that is not ours as StrategyError; EngineKilledError if the process
        died, naming the signal.
        """
        request = pickle.dumps((target, arguments, on_progress is not None, _folder()))
        with self._one_call:
            child = self._ready()
            try:
                kind, value = child.ask(request, on_progress)
            except BaseException:
                # Dead, or busy with something that nobody waits for any more.
                child.close()
                raise
        if kind == "error":
            raise value
        return value

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is there: what it is called for decides what becomes of it."""
        with self._guard:
            child = self._child
        if child is not None and child.done() and child.exception() is None:
            child.result().signal(number)

    def kill(self) -> None:
        """End the process now, whatever it is doing."""
        with self._guard:
            child, self._child = self._child, None
        if child is not None:
            child.add_done_callback(_kill_started)

    def _ready(self) -> _Child:
        try:
            return self._started().result()
        except (OSError, EOFError) as error:
            raise EngineKilledError(f"the process that runs backtests did not start: {error}") from error

    def _started(self) -> Future[_Child]:
        with self._guard:
            if self._child is None or (self._child.done() and _is_over(self._child)):
                self._child = Future()
                # A start waits until the engine is loaded, with Ctrl-C blocked: not in a thread that has to hear it.
                threading.Thread(
                    target=_start, args=(self._child, self._mark), daemon=True, name="ntrader-worker-start"
                ).start()
            return self._child


class _Child:
    """The process and the pipe to it."""

    def __init__(self, mark: Mark | None) -> None:
        self._pipe, theirs = connection.Pipe()
        self._reaping = threading.Lock()
        self._process = _Process(target=_serve, args=(theirs, mark), daemon=True, name="ntrader-worker")
        try:
            with _without_interrupts():
                self._process.start()
        finally:
            theirs.close()

    def is_alive(self) -> bool:
        with self._reaping:
            return not self._pipe.closed and self._process.is_alive()

    def ask(self, request: Any, on_progress: Progress | None) -> tuple[str, Any]:
        """What became of the request: ("result", value) or ("error", exception)."""
        try:
            self._pipe.send_bytes(request)
        except OSError:
            raise self._death() from None
        while True:
            kind, value = self._receive()
            if kind != "progress":
                return kind, value
            if on_progress is not None:
                on_progress(*value)

    def signal(self, number: int) -> None:
        with self._reaping:
            if not self._pipe.closed and self._process.pid and self._process.is_alive():
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Wait until it is gone. Another thread that waits for an answer is told so."""
        with self._reaping:
            if not self._pipe.closed:
                self._process.kill()
                self._process.join()

    def close(self) -> None:
        """Kill it and give back what it needed; only the thread that asks may do so."""
        self.kill()
        with self._reaping:
            if not self._pipe.closed:
                self._pipe.close()
                self._process.close()

    def _receive(self) -> tuple[str, Any]:
        if self._pipe not in connection.wait([self._pipe, self._process.sentinel]):
            raise self._death()
        try:
            message = self._pipe.recv_bytes()
        except (EOFError, OSError):  # it ended before a message, or in the middle of one
            raise self._death() from None
        try:
            answer: tuple[str, Any] = pickle.loads(message)
        except Exception as error:
            raise RunError(f"the worker's answer cannot be read here: {type(error).__name__}: {error}") from error
        return answer

    def _death(self) -> EngineKilledError:
        # The pipe may end a moment before the process does, and its own exit code is wanted.
        ended = bool(connection.wait([self._process.sentinel], _GOODBYE_SECONDS))
        self.kill()
        cause, hint = how_it_ended(self._process.exitcode) if ended else ("closed its connection", None)
        return EngineKilledError(f"the process that ran the backtest {cause}", hint=hint)


class _Popen(popen_forkserver.Popen):
    """Without the caller's `__main__`, which the worker has no use for: a script that runs a backtest at its top
    level would run a second time in there. And ended by SIGKILL alone, also where Python does so at its exit: a worker
    is deaf to SIGTERM."""

    def _launch(self, process_obj: Any) -> None:
        whole = spawn.get_preparation_data(process_obj.name)
        data = {key: value for key, value in whole.items() if not key.startswith("init_main")}
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(data, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self.sentinel, ours = forkserver.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        # Open for as long as this process lives: how the worker notices that it has ended.
        alive = os.dup(ours)
        self.finalizer = util.Finalize(self, util.close_fds, (alive, self.sentinel))  # type: ignore[attr-defined]
        with open(ours, "wb") as pipe:  # noqa: PTH123
            pipe.write(buffer.getvalue())
        self.pid = forkserver.read_signed(self.sentinel)

    def terminate(self) -> None:
        self.kill()


class _Process(ForkServerProcess):
    _Popen = staticmethod(_Popen)


_default = Worker()


def default_worker() -> Worker:
    """The worker of this process; a module holds it because Prefect copies what a task body closes over."""
    return _default


def _start(future: Future[_Child], mark: Mark | None) -> None:
    try:
        future.set_result(_new_child(mark))
    except BaseException as error:
        future.set_exception(error)


def _new_child(mark: Mark | None) -> _Child:
    warm_up()
    try:
        return _Child(mark)
    except (OSError, EOFError):  # the server that forks has just died, and nobody had noticed yet
        time.sleep(_GOODBYE_SECONDS / 5)
        warm_up()
        return _Child(mark)


def _is_over(future: Future[_Child]) -> bool:
    return future.exception() is not None or not future.result().is_alive()


def _kill_started(future: Future[_Child]) -> None:
    if future.exception() is None:
        future.result().kill()


def _occupy_standard_files() -> None:
    """Where stdout or stderr are closed, one of our pipes would get their number, and prints would go into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been deleted
        return None


def how_it_ended(code: int | None) -> tuple[str, str | None]:
    if code is None or code >= 0:
        return f"ended with exit code {code}", None
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}", "Out of memory, perhaps." if -code == signal.SIGKILL else None


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Children inherit the mask: Ctrl-C is for the parent, which then ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# What follows runs in the worker.


class _Answer:
    """What is sent back for one request: progress from any thread, until the one outcome."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._over = False

    def progress(self, *state: int) -> None:
        with self._lock:
            if not self._over:
                self._pipe.send(("progress", state))

    def finish(self, outcome: tuple[str, Any]) -> None:
        try:
            message = pickle.dumps(outcome)
        except Exception as error:
            message = pickle.dumps(("error", _unsendable(outcome[1], error)))
        with self._lock:
            self._over = True
            self._pipe.send_bytes(message)


_mark: Mark | None = None


def note(number: int) -> None:
    """Say what this process is at; for nobody, where nobody watches."""
    if _mark is not None:
        _mark.write(number)


def _serve(pipe: Any, mark: Mark | None) -> None:
    """The worker's main: answer requests until the parent closes the pipe or dies."""
    global _mark
    _mark = mark
    for number in _FOR_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    _print_to_stderr()
    _exit_with_parent()
    while True:
        try:
            request = pipe.recv_bytes()
            answer = _Answer(pipe)
            answer.finish(_outcome(request, answer.progress))
        except (EOFError, OSError):
            os._exit(0)  # threads that a strategy has left behind are not waited for


def _outcome(request: bytes, progress: Callable[..., None]) -> tuple[str, Any]:
    try:
        target, arguments, wants_progress, folder = pickle.loads(request)
        if folder is not None:
            os.chdir(folder)
        module, _, name = target.partition(":")
        extra = {"progress": progress} if wants_progress else {}
        return "result", getattr(importlib.import_module(module), name)(*arguments, **extra)
    except BaseException as error:  # a strategy may well call sys.exit()
        return "error", _sendable(error)


def _sendable(error: BaseException) -> NtraderError:
    """Our errors as they are, with their traceback; others, whose classes the parent may not know, as StrategyError."""
    trace = traceback.format_exc()
    if isinstance(error, NtraderError) and type(error).__module__ == errors.__name__:
        if not getattr(error, "traceback_text", None):
            error.__dict__["traceback_text"] = trace
        return error
    return StrategyError(_text(error), traceback_text=trace)


def _unsendable(value: Any, error: Exception) -> NtraderError:
    if isinstance(value, NtraderError):
        return StrategyError(_text(value), hint=value.hint, traceback_text=getattr(value, "traceback_text", None))
    return RunError(f"a result of type {type(value).__name__} cannot be sent back from the worker: {_text(error)}")


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _print_to_stderr() -> None:
    """stdout is the parent's data."""
    os.dup2(2, 1)
    sys.stdout = sys.stderr


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ntrader-parent-watch").start()
