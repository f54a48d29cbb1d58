"""What the tests of the worker have it do."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ntrader.errors import DataNotFoundError, NtraderError, StrategyError
from ntrader.worker import note


class Told(Exception):
    """Cannot be unpickled: it wants two arguments and hands on one."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} because {why}")


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class ForeignNtraderError(NtraderError):
    """One of ours by inheritance only."""


def raise_ours() -> None:
    raise DataNotFoundError("no bars", hint="import some")


def raise_with_lock() -> None:
    error = DataNotFoundError("no bars", hint="import some")
    error.__dict__["lock"] = threading.Lock()
    raise error


def raise_with_own_traceback() -> None:
    raise StrategyError("on_bar raised", traceback_text="the strategy's own")


def raise_told() -> None:
    raise Told("it broke", "of rust")


def raise_speechless() -> None:
    raise Speechless


def raise_foreign() -> None:
    raise ForeignNtraderError("not yours")


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def raise_from_cause() -> None:
    try:
        raise_told()
    except Told as error:
        raise DataNotFoundError("no bars") from error


def kill_me(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def segfault() -> None:
    sys.stderr = None  # faulthandler's report, where one is on, is none of a test's business
    ctypes.string_at(0)


def a_lock() -> Any:
    return threading.Lock()


def write(text: str) -> None:
    print(text)
    print(text, end="", flush=True)
    os.write(1, text.encode())
    subprocess.run(["echo", text], check=True)
    sys.__stdout__.write(text)  # type: ignore[union-attr]


def count(steps: int, progress: Callable[[int, int], None]) -> int:
    for step in range(steps):
        progress(step, steps)
    return steps


def talk_on(progress: Callable[[int, int], None]) -> str:
    """Return, and report progress still."""

    def later() -> None:
        for step in range(20):
            time.sleep(0.01)
            progress(step, 20)

    threading.Thread(target=later).start()
    return "done"


def die_while_answering(progress: Callable[[int, int], None]) -> bytes:
    """Far more than fits into a pipe, and the end comes while it is being sent."""
    progress(0, 1)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes(50_000_000)


def close_the_pipe() -> None:
    os.closerange(3, 1000)
    time.sleep(60)


def spin(marker: str) -> None:
    """Busy for hours, without ever letting another thread of the process run."""
    Path(marker).write_text(str(os.getpid()))
    sum(range(10**15))


def sleep(marker: str) -> None:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(600)


def leave_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(600,)).start()
    return os.getpid()


def note_number(number: int) -> int:
    note(number)
    return number


def note_and_die(number: int, by: int) -> None:
    note(number)
    os.kill(os.getpid(), by)
