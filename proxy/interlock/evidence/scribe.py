"""The thread that writes the log which all transcripts share (redo.py), for installations with a compiler.

Every ten milliseconds a busy node writes and syncs what was appended meanwhile. A thread of Python that does it needs the
interpreter before, between and after its calls, and each time it waits for it, a busy loop wakes it some thirty times in vain.
The compiled thread needs it never: it is told where the bytes are, and tells the loop by an eventfd that they are on the disk.

Knows: the compiled thread, the loop. Must not know: what is written, when, where else it is written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interlock.evidence._scribe import Scribe as _Scribe
else:
    try:
        from interlock.evidence._scribe import Scribe as _Scribe
    except ImportError:
        _Scribe = None

Ended = Callable[[int, OSError | None], None]
"""Is told how many bytes were written, or why not."""


class Scribe:
    """Belongs to the loop that it was made on. One round at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the thread. Raise OSError when there is no descriptor or thread to be had."""
        self._loop = loop
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._scribe = _Scribe(self._wake)
        except OSError:
            os.close(self._wake)
            raise
        self._ended: Ended | None = None
        loop.add_reader(self._wake, self._woken)

    @staticmethod
    def to_be_had() -> bool:
        """Whether there is a compiled one here."""
        return _Scribe is not None

    def begin(self, fd: int, appended: list[tuple[bytes, int, list[bytes]]], ended: Ended) -> None:
        """Write records of these to `fd` and sync it; then tell `ended`, on the loop."""
        self._scribe.begin(fd, appended)
        self._ended = ended

    def close(self) -> None:
        """End the thread, once it has written what it has."""
        if self._wake >= 0:
            self._loop.remove_reader(self._wake)
            self._scribe.close()
            os.close(self._wake)
            self._wake = -1

    def _woken(self) -> None:
        os.eventfd_read(self._wake)
        ended, self._ended = self._ended, None
        assert ended is not None
        try:
            size = self._scribe.end()
        except OSError as error:
            ended(0, error)
        else:
            ended(size, None)
