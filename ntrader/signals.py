"""Ctrl-C, SIGTERM and a closed terminal, as one orderly end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ntrader.errors import Interruption

# Somebody has asked for an end, and it is on its way.
_interrupted = threading.Event()
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def interruptible() -> Iterator[None]:
    """The signals raise Interruption in the main thread. One that was ignored (`nohup`) stays so."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _interrupted.set()
        raise Interruption(number)

    with _handled(interrupt):
        yield


def once_is_enough() -> None:
    """For a process of our own: after an Interruption further Ctrl-C, outside of `interruptible`, change nothing. What
    there is to say is said."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _unless_ending)


def _unless_ending(number: int, frame: FrameType | None) -> None:
    if not _interrupted.is_set():
        signal.default_int_handler(number, frame)


@contextmanager
def undisturbed() -> Iterator[None]:
    """The signals wait for nothing and stop nothing: for the few milliseconds that must not be cut short."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, current in before.items():
        if current is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, current in before.items():
            signal.signal(number, current)
