"""A process of another environment that runs backtests with another Nautilus: see `ntrader.canary_worker`.

It is asked by pickled requests on its stdin and answers through a pipe. Only the package `ntrader` is lent to it, by a
link: the libraries of this environment stay out of its sight.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import secrets
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ntrader.data.bars import Bars
from ntrader.environments import Environment
from ntrader.errors import EngineKilledError
from ntrader.results import Execution
from ntrader.worker import how_it_ended

Progress = Callable[[int, int], None]

_PACKAGE = Path(__file__).resolve().parent
# They would lead the other Python to the libraries of this one.
_MISLEADING = {"PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
_GOODBYE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Description:
    """The Nautilus that is really there, and `ntrader.fingerprints.environment()` as it is there."""

    nautilus: str
    environment: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]


class Canary:
    """Calls are serial. A run that takes its process down fails alone: the next one gets another process."""

    def __init__(self, environment: Environment, home: Path) -> None:
        self._environment = environment
        self._home = home
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def describe(self) -> Description:
        """Raises RunError where the engine of ntrader does not run on that Nautilus."""
        nautilus, environment = self._ask("ntrader.canary_worker:describe", ())
        return Description(nautilus, environment)

    def replay(
        self,
        snapshot: dict[str, Any],
        bars: Bars | None,
        sources: Mapping[str, str] | None,
        on_progress: Progress | None = None,
    ) -> Execution:
        """The stored config over `bars` and with the code `sources`; where they are None, with those there are now."""
        arguments = (snapshot, self._home, bars, None if sources is None else dict(sources))
        execution: Execution = self._ask("ntrader.canary_worker:execute", arguments, on_progress)
        return execution

    def close(self) -> None:
        """End the process now, whatever it is doing; what it started ends with it."""
        child, self._child = self._child, None
        if child is None:
            return
        child.process.kill()
        child.process.wait()
        for stream in (child.requests, child.answers):
            with contextlib.suppress(OSError):  # a request that was not read to its end
                stream.close()

    def _ask(self, target: str, arguments: tuple[Any, ...], on_progress: Progress | None = None) -> Any:
        child = self._child = self._child or self._started()
        try:
            pickle.dump((target, arguments), child.requests)
            child.requests.flush()
            kind, value = pickle.load(child.answers)
            while kind == "progress":
                if on_progress is not None:
                    on_progress(*value)
                kind, value = pickle.load(child.answers)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise self._death(child.process) from None
        except BaseException:
            self.close()  # busy with something that nobody waits for any more
            raise
        if kind == "error":
            raise value
        return value

    def _started(self) -> _Child:
        path = os.pathsep.join([str(lend_core(self._home)), *_own_folders(os.environ.get("PYTHONPATH"))])
        variables = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        ours, theirs = os.pipe()
        try:
            process = subprocess.Popen(
                [str(self._environment.python), "-P", "-m", "ntrader.canary_worker", str(theirs)],
                stdin=subprocess.PIPE,
                stdout=2,
                pass_fds=[theirs],
                env={**variables, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C in the terminal is for us, who then end it
            )
        finally:
            os.close(theirs)
        assert process.stdin is not None
        return _Child(process, process.stdin, os.fdopen(ours, "rb"))

    def _death(self, process: subprocess.Popen[bytes]) -> EngineKilledError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GOODBYE_SECONDS)
        cause, hint = how_it_ended(process.returncode)
        self.close()
        return EngineKilledError(f"the process of nautilus_trader {self._environment.version} {cause}", hint=hint)


def lend_core(home: Path) -> Path:
    """A folder with nothing in it but a link to our package: for an editable checkout and for an installed wheel."""
    name = hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:8]
    link = home / "canary" / f"core-{name}" / _PACKAGE.name
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{secrets.token_hex(6)}")
        fresh.symlink_to(_PACKAGE)
        fresh.replace(link)
    return link.parent


def _own_folders(python_path: str | None) -> list[str]:
    """The user's PYTHONPATH, where strategies may be; without folders that would bring this Nautilus along."""
    entries = python_path.split(os.pathsep) if python_path else []
    return [entry for entry in entries if not (Path(entry or ".") / "nautilus_trader").exists()]
