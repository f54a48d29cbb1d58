"""A warm process that has the engine loaded and runs one thing at a time.

Why a process of its own: the engine's import overlaps with everything else a command has to start; a strategy that
crashes, leaks or is killed takes the worker down and not the book-keeping; Ctrl-C works while C code runs; and what
a strategy prints cannot get between the lines of our own output.

`warm_up` starts loading the engine and returns at once. It must be called from the main thread.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import connection, forkserver
from multiprocessing.context import BaseContext
from typing import Any

from ntrader.errors import EngineKilledError, NtraderError, StrategyError

Progress = Callable[[int, int], None]

_PRELOAD = "ntrader.execution"


def warm_up() -> None:
    """Begin loading the engine in the background, for the first worker to be ready sooner."""
    context = _context()
    if context.get_start_method() == "forkserver":
        with _without_interrupts():
            forkserver.ensure_running()


class Worker:
    """One process. Calls are serial; a call that outlives its process raises and the next one starts afresh."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None
        self._lock = threading.Lock()
        self._starting: threading.Thread | None = None

    def start(self) -> None:
        """Start the process without waiting for it; the next call does that."""
        warm_up()
        self._starting = threading.Thread(target=self._start, daemon=True)
        self._starting.start()

    def call(self, target: str, *arguments: Any, on_progress: Progress | None = None) -> Any:
        """Call `target`, a function written `package.module:name`, in the worker.

        A name rather than the function, so that the caller need not load what the worker has loaded. With
        `on_progress` the function also gets a `progress=` to report through.

        Raises what the function raises; EngineKilledError if the process died, naming the signal.
        """
        if self._starting is not None:
            self._starting.join()
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._start()
            try:
                self._pipe.send((target, arguments, on_progress is not None))
                return self._answer(on_progress)
            except (BrokenPipeError, ConnectionResetError):
                raise self._death() from None
            except BaseException as error:
                if not isinstance(error, Exception):
                    self.kill()
                raise

    def kill(self) -> None:
        """End the process now, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None

    def _start(self) -> None:
        context = _context()
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True, name="ntrader-worker")  # type: ignore[attr-defined]
        with _without_interrupts():
            process.start()
        theirs.close()
        self._process, self._pipe = process, ours

    def _answer(self, on_progress: Progress | None) -> Any:
        while True:
            ready = connection.wait([self._pipe, self._process.sentinel])
            if self._pipe not in ready:
                raise self._death()
            try:
                kind, value = self._pipe.recv()
            except EOFError:
                raise self._death() from None
            if kind == "progress" and on_progress is not None:
                on_progress(*value)
            elif kind == "result":
                return value
            elif kind == "error":
                raise value

    def _death(self) -> EngineKilledError:
        self._process.join()
        code = self._process.exitcode
        self._process = self._pipe = None
        if code is not None and code < 0:
            cause = f"was killed by {signal.Signals(-code).name}"
            hint = "Out of memory, perhaps." if -code == signal.SIGKILL else None
        else:
            cause, hint = f"ended with exit code {code}", None
        return EngineKilledError(f"the process that ran the backtest {cause}", hint=hint)


_default = Worker()


def default_worker() -> Worker:
    """The worker of this process; a module holds it because Prefect copies what a task body closes over."""
    return _default


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    return context


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Children inherit the mask: Ctrl-C is for the parent, which then ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Any) -> None:
    """The worker's main: answer calls until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is the parent's data
    _exit_with_parent()
    while True:
        try:
            target, arguments, wants_progress = pipe.recv()
        except (EOFError, OSError):
            return
        extra = {"progress": lambda *state: pipe.send(("progress", state))} if wants_progress else {}
        pipe.send(_outcome(target, arguments, extra))


def _outcome(target: str, arguments: Any, extra: dict[str, Any]) -> tuple[str, Any]:
    module, _, name = target.partition(":")
    try:
        return "result", getattr(importlib.import_module(module), name)(*arguments, **extra)
    except NtraderError as error:
        if not getattr(error, "traceback_text", None):
            error.__dict__["traceback_text"] = traceback.format_exc()
        error.__cause__ = error.__context__ = None
        return "error", error
    except Exception as error:
        text = traceback.format_exc()
        return "error", StrategyError(f"{type(error).__name__}: {error}", traceback_text=text)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ntrader-parent-watch").start()
