"""Python environments that hold another version of Nautilus, made by uv: whole or not at all, and used again.

Only that version is meant to differ. The other libraries that compute a result are pinned to what is installed here; a
pin that the other Nautilus does not allow is left out, one at a time.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ntrader import progress
from ntrader.errors import ConfigError, NotFoundError, ServiceError
from ntrader.fingerprints import environment as environment_here

# What the core imports to run a backtest, besides Nautilus.
_NEEDED = ("numpy", "pandas", "pyarrow", "msgspec", "pydantic", "pyyaml")
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?")
_UNKNOWN = re.compile(r"no version of nautilus-trader==|nautilus-trader==\S+ has no (usable )?wheels?")
_CONFLICT = "No solution found"
# What uv draws around its messages, in one version or another.
_ORNAMENTS = " \t\u00d7╰─▶│"
_MARKER = "ntrader-canary.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """`version` is the one that was asked for."""

    version: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


@contextmanager
def environment(home: Path, version: str, *, recreate: bool = False) -> Iterator[Environment]:
    """The environment of that version of Nautilus, made if need be, and left alone by others while the block lasts.

    Raises ConfigError for what is no version, NotFoundError where there is no such Nautilus for this Python,
    ServiceError where uv is missing or fails.
    """
    check_version(version)
    place = home / "canary" / f"nautilus-{version}-py{sys.version_info.major}.{sys.version_info.minor}"
    place.parent.mkdir(parents=True, exist_ok=True)
    pins = _pins()
    with place.with_name(f"{place.name}.lock").open("ab") as lock:
        _take(lock, fcntl.LOCK_SH)
        while recreate or not _is_ready(place, pins):
            # Between the two kinds of lock there is a moment without: hence the loop, and the second look.
            _take(lock, fcntl.LOCK_EX)
            if recreate or not _is_ready(place, pins):
                _make(place, version, pins)
            recreate = False
            _take(lock, fcntl.LOCK_SH)
        yield Environment(version, place)


def check_version(version: str) -> None:
    if not _VERSION.fullmatch(version):
        raise ConfigError(f"{version!r} is no version of nautilus_trader", hint="Such as --nautilus 1.230.0.")


def find_uv() -> list[str]:
    """The beginning of a command line. Raises ServiceError where there is no uv."""
    named = [word for word in (shutil.which("uv"), os.environ.get("UV")) if word]
    module = [sys.executable, "-m", "uv"]
    for command in [*([word] for word in named), *([module] if importlib.util.find_spec("uv") else [])]:
        # A pyenv shim is there even where no uv answers behind it.
        if _answers(command):
            return command
    raise ServiceError(
        "uv is not here, which makes the environments of other versions",
        hint="Install it: `pip install uv`, or see https://docs.astral.sh/uv/.",
    )


def _answers(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _pins() -> dict[str, str]:
    """The versions that are installed here."""
    libraries = environment_here()["libraries"]
    assert isinstance(libraries, dict)
    found = {**libraries, **{name: importlib.metadata.version(name) for name in _NEEDED}}
    return {name: version for name, version in sorted(found.items()) if name != "nautilus-trader"}


def _take(lock: IO[bytes], kind: int) -> None:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        progress.report("Waiting for another canary of this version")
        fcntl.flock(lock, kind)


def _is_ready(place: Path, pins: dict[str, str]) -> bool:
    """Whole, made for the libraries of here, and with a Python that is still there."""
    try:
        text = (place / _MARKER).read_text(encoding="utf-8")
    except OSError:
        return False
    return text == json.dumps(pins) and os.access(place / "bin" / "python", os.X_OK)


def _make(place: Path, version: str, pins: dict[str, str]) -> None:
    """The lock is held: whatever is unfinished here was left by somebody who is gone."""
    uv = find_uv()
    progress.report(f"Making the environment of nautilus_trader {version}, once: this takes half a minute")
    unfinished = f".{place.name}.making-"
    for left in place.parent.glob(f"{unfinished}*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=unfinished, dir=place.parent))
    try:
        _fill(uv, work, version, pins)
        (work / "env" / _MARKER).write_text(json.dumps(pins), encoding="utf-8")
        if place.exists():
            place.rename(work / "before")
        (work / "env").rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(uv: list[str], work: Path, version: str, pins: dict[str, str]) -> None:
    env = str(work / "env")
    made = _run([*uv, "venv", "--quiet", "--no-project", "--relocatable", "--python", sys.executable, env])
    if made.returncode:
        raise _failed(version, made.stderr)
    chosen = work / "requirements.txt"
    chosen.write_text(_requirements(uv, env, version, pins), encoding="utf-8")
    wheels = ["--only-binary", "nautilus-trader"]
    words = ["pip", "install", "--quiet", "--compile-bytecode", *wheels, "--python", env, "-r", str(chosen)]
    installed = _run([*uv, *words])
    if installed.returncode:
        raise _failed(version, installed.stderr)


def _requirements(uv: list[str], env: str, version: str, pins: dict[str, str]) -> str:
    """Every package with its version: as many of the pins as go together with that Nautilus."""
    found = _resolve(uv, env, version, pins)
    if found.returncode == 0:
        return found.stdout
    if _CONFLICT not in found.stderr or _UNKNOWN.search(found.stderr):
        raise _failed(version, found.stderr)
    kept: dict[str, str] = {}
    found = _resolve(uv, env, version, kept)
    if found.returncode:
        raise _failed(version, found.stderr)
    for name, pin in pins.items():
        more = _resolve(uv, env, version, {**kept, name: pin})
        if more.returncode == 0:
            kept, found = {**kept, name: pin}, more
    return found.stdout


def _resolve(uv: list[str], env: str, version: str, pins: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Everything that is pinned gets installed: what is merely there is a part of the environment, too."""
    pinned = (f"{name}=={pin}" for name, pin in pins.items())
    wanted = "".join(f"{line}\n" for line in (f"nautilus-trader=={version}", *_NEEDED, *pinned))
    shape = ["--quiet", "--no-header", "--no-annotate", "--only-binary", "nautilus-trader"]
    return _run([*uv, "pip", "compile", *shape, "--python", env, "-"], wanted)


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """To its end, however long the download takes; it does not outlive an interruption of ours."""
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )


def _failed(version: str, said: str) -> NotFoundError | ServiceError:
    if _UNKNOWN.search(said):
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return NotFoundError(
            f"there is no nautilus_trader {version} for Python {python} on this system",
            hint="`pip index versions nautilus_trader` lists what there is.",
        )
    return ServiceError(
        f"uv cannot make an environment with nautilus_trader {version}: {_essence(said)}",
        hint="Nothing of it was kept. A network, proxy or index that uv needs is set up as for any other use of it.",
    )


def _essence(said: str) -> str:
    """uv's first line, and the last in its chain of causes."""
    lines = [line.strip(_ORNAMENTS) for line in said.splitlines()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    causes = [line.removeprefix("cause:").strip() for line in lines if line.startswith("cause:")]
    rest = [line for line in lines if line and not line.startswith("hint:")]
    return ": ".join([*errors[:1], *causes[-1:]]) or (rest[-1] if rest else "it does not say why")
