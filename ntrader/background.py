"""Doing something every now and then while something else goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    """Call `action` every so often, from another thread, for as long as the block lasts; first after `seconds`.

    An `action` that raises ends the repetition, not the block.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True, name="ntrader-background")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
