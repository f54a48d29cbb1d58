"""How far a run has come, for whoever wants to show it. One listener; nobody listening costs nothing."""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str, int, int], None]

_listener: Listener | None = None


def listen(listener: Listener | None) -> None:
    """`listener(stage, done, total)` is called from now on; total is 0 where a stage has no countable steps."""
    global _listener
    _listener = listener


def report(stage: str, done: int = 0, total: int = 0) -> None:
    if _listener is not None:
        _listener(stage, done, total)
