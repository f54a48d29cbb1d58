"""The other end of `ntrader.canary.Canary`: `python -m ntrader.canary_worker`, in an environment with another Nautilus.

Each request runs in a fresh process of `ntrader.worker`: modules that one replaces are no concern of the next, and a
strategy that crashes takes down itself alone. Answers have a pipe of their own, so that nothing that is printed can get
between them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from ntrader.errors import EngineKilledError, NtraderError, RunError
from ntrader.worker import Worker, warm_up

_Request = tuple[str, tuple[Any, ...]]

_DESCRIBE = "ntrader.canary_worker:describe"


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(int(sys.argv[1]), "wb")
    requests: SimpleQueue[_Request] = SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    warm_up()
    while True:
        target, arguments = requests.get()
        pickle.dump(_outcome(target, arguments, answers), answers)
        answers.flush()


def describe() -> tuple[str, dict[str, object]]:
    """The version of Nautilus that is there, and the environment; in a worker process."""
    _import_engine()
    from ntrader.fingerprints import environment

    return importlib.metadata.version("nautilus-trader"), environment()


def execute(
    snapshot: dict[str, Any],
    home: Path,
    bars: Any,
    sources: dict[str, str] | None,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """With the code `sources`, or with that which is importable now; in a worker process."""
    from ntrader import execution, replay
    from ntrader.resolve import restore

    try:
        if sources is not None:
            return replay.execute(snapshot, home, bars, sources, progress=progress)
        return execution.execute(restore(snapshot), home, bars, progress=progress)
    except NtraderError:
        raise
    except Exception as error:  # what a strategy raises is an error of ours by now
        raise _refused(error) from error


def _read(stream: BinaryIO, requests: SimpleQueue[_Request]) -> None:
    while True:
        try:
            requests.put(pickle.load(stream))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)  # whoever asked is gone, in the middle of a run perhaps


def _outcome(target: str, arguments: tuple[Any, ...], answers: BinaryIO) -> tuple[str, Any]:
    def tell(*state: int) -> None:
        pickle.dump(("progress", state), answers)
        answers.flush()

    worker, describing = Worker(), target == _DESCRIBE
    try:
        return "result", worker.call(target, *arguments, on_progress=None if describing else tell)
    except EngineKilledError as error:
        return "error", (_refusal() if describing else None) or error
    except NtraderError as error:
        return "error", error
    finally:
        worker.kill()


def _refusal() -> RunError | None:
    """Why processes that load the engine do not even start."""
    try:
        _import_engine()
    except RunError as error:
        return error
    return None


def _import_engine() -> None:
    try:
        importlib.import_module("ntrader.execution")
    except Exception as error:
        raise _refused(error) from error


def _refused(error: Exception) -> RunError:
    nautilus = importlib.metadata.version("nautilus-trader")
    return RunError(
        f"the engine of ntrader does not run on nautilus_trader {nautilus}: {type(error).__name__}: {error}",
        hint="ntrader has to be adapted to that version first.",
    )


if __name__ == "__main__":
    main()
