"""What a flow run says on its output, which somebody else reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console


def outlive_reader() -> None:
    """A flow run goes on when the worker that reads its output has been killed, and its log is in Prefect's pages all
    the same. rich, by which Prefect writes, ends the process otherwise."""
    for handler in _console_handlers():
        handler.console.on_broken_pipe = partial(_fall_silent, handler.console)  # type: ignore[method-assign]


def _console_handlers() -> Iterator[PrefectConsoleHandler]:
    for name in [None, *logging.root.manager.loggerDict]:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                yield handler


def _fall_silent(console: Console) -> None:
    console.quiet = True
    # What was not written yet would be tried again at the end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, console.file.fileno())
    os.close(nowhere)
