"""What a worker process is at, in memory that it shares with whoever watches it.

Writing a mark costs no system call and wakes nobody, which a message does; and a process that is killed leaves its last
one behind.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from multiprocessing import reduction
from typing import Any, Final

# The number of what it is at, and since when by the monotonic clock, which all processes of a machine share.
_NUMBER: Final = struct.Struct("=q")
_SINCE: Final = struct.Struct("=d")
_SIZE: Final = _NUMBER.size + _SINCE.size


class Mark:
    """One number with its time. It goes to a process as an argument of its start, and is the same one there."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _descriptor() if descriptor is None else descriptor
        self._memory = mmap.mmap(self._descriptor, _SIZE)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (reduction.DupFd(self._descriptor),)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def write(self, number: int) -> None:
        # In this order: whoever reads in between sees the number before, a moment too young, and never one too old.
        _SINCE.pack_into(self._memory, _NUMBER.size, time.monotonic())
        _NUMBER.pack_into(self._memory, 0, number)

    def read(self) -> tuple[int, float]:
        """The number, and the time in seconds of `time.monotonic` when it was written."""
        (number,) = _NUMBER.unpack_from(self._memory, 0)
        (since,) = _SINCE.unpack_from(self._memory, _NUMBER.size)
        return number, since


def _attached(duplicate: Any) -> Mark:
    return Mark(duplicate.detach())


def _descriptor() -> int:
    """Of a file that has no name. In memory where the system can: written to through a mapping, one on a full disk
    would end the process."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ntrader-mark", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, bytes(_SIZE))
    return descriptor
