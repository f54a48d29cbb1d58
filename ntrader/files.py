"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ntrader.errors import ConfigError, NtraderError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when the block ends well, and is gone when it raises.

    What is no regular file (a pipe, /dev/stdout) is written to as it is. Raises ConfigError where no file can be
    made, NtraderError when the disk is full.
    """
    target = path.resolve()
    if target.is_dir():
        raise ConfigError(f"{path} is a folder", hint="Name a file in it.")
    if target.exists() and not target.is_file():
        yield target
        return
    fresh = _created(path, target)
    try:
        yield fresh
        _settle(fresh, target)
    except OSError as error:
        if error.errno in _FULL:
            raise full(path, os.strerror(error.errno)) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()


def full(path: Path, reason: str) -> NtraderError:
    """What to say when there is no room for a file."""
    return NtraderError(
        f"{path} cannot be written: {reason}; nothing of it was kept", hint="Make room there, or write elsewhere."
    )


def _created(path: Path, target: Path) -> Path:
    fresh = target.with_name(f".ntrader-{secrets.token_hex(6)}.part")
    try:
        # As any new file: the umask decides who may read it.
        os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        if not target.parent.is_dir():
            raise ConfigError(f"there is no folder {target.parent}", hint="Create it first.") from None
        if error.errno in _FULL:
            raise full(path, os.strerror(error.errno)) from None
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="Write elsewhere.") from None
    return fresh


def _settle(fresh: Path, target: Path) -> None:
    """Rename once everything is on the disk: after a power cut there is the old file or the new one."""
    with suppress(FileNotFoundError):
        fresh.chmod(stat.S_IMODE(target.stat().st_mode))
    _sync(fresh)
    fresh.replace(target)
    with suppress(OSError):  # not every file system syncs folders
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
