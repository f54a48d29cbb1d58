"""Environments for the tests of `ntrader canary`: a real one of another version, and this one in a canary's clothes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ntrader import environments
from ntrader.environments import Environment

OTHER, HERE = "1.230.0", version("nautilus-trader")

_MAKE = """
import sys
from pathlib import Path
from ntrader import progress
from ntrader.environments import environment
progress.listen(lambda stage, *_: print(stage, flush=True))
with environment(Path(sys.argv[1]), sys.argv[2]) as made:
    print("folder", made.folder, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Making:
    """How the real environment came to be: what a killed maker had begun, and what two at once said."""

    begun: list[str]
    after_the_kill: list[str]
    said: list[str]
    codes: list[int]
    errors: str


def maker(home: Path, nautilus: str = OTHER, **variables: str) -> subprocess.Popen[str]:
    """`environment` in a process, and session, of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _MAKE, str(home), nautilus],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
        start_new_session=True,
    )


def make(home: Path) -> Making:
    """One maker is killed with all it has started, then two begin at once."""
    first = maker(home)
    begun = _wait_for_pieces(home, first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    after = sorted(path.name for path in (home / "canary").glob("nautilus-*") if path.is_dir())
    both = [maker(home), maker(home)]
    ended = [process.communicate(timeout=300) for process in both]
    codes = [process.returncode for process in both]
    return Making(begun, after, [out for out, _ in ended], codes, "".join(err for _, err in ended))


def stand_in(home: Path) -> Environment:
    """An environment of the version that is installed here, in no time: the harness itself is looked at with it."""
    place = home / "canary" / f"nautilus-{HERE}-py{sys.version_info.major}.{sys.version_info.minor}"
    if not place.exists():
        (place / "bin").mkdir(parents=True)
        prefix = Path(sys.prefix)
        (place / "pyvenv.cfg").write_text((prefix / "pyvenv.cfg").read_text())
        (place / "lib").symlink_to(prefix / "lib")
        (place / "bin" / "python").symlink_to((prefix / "bin" / "python").resolve())
        (place / environments._MARKER).write_text(json.dumps(environments._pins()))
    return Environment(HERE, place)


def _wait_for_pieces(home: Path, process: subprocess.Popen[str]) -> list[str]:
    """Until a venv is there that is not yet whole, or nothing more will come."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        found = [path.parent.parent.name for path in (home / "canary").glob(".nautilus-*/env/pyvenv.cfg")]
        if found:
            return found
        time.sleep(0.01)
    return []
