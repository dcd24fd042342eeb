"""An append-only file of whole lines: one write a call, and broken for good after the first that fails.

Newline is the commit mark. Nothing here knows what the lines mean.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

__all__ = ["LineFile", "PlainEnd", "PlainTally", "Tally", "lines_of", "replace_file", "sync_directory"]

_GIVE_WAY = 16


class PlainTally:
    """What was appended to all files since the log (redo.RedoLog) took it: which files, and how many bytes together.

    Of bytes beyond `most` nothing is kept.
    """

    __slots__ = ("files", "most", "waiting")

    def __init__(self, most: int) -> None:
        self.files: list[LineFile] = []
        self.waiting = 0
        self.most = most


class PlainEnd:
    """What changes with every append. The compiled one is a C struct, in which the compiled chain writes (chain.py)."""

    __slots__ = ("fd", "fresh", "lengthy", "size", "tally", "unsynced")

    def __init__(self) -> None:
        self.fd = -1
        self.size = 0
        self.unsynced = False
        self.tally: Tally | None = None
        """Whom to tell, or None."""
        self.fresh: list[bytes] = []
        self.lengthy = False
        """More was appended since the log took it than is kept: the file is to be synced by itself."""

    def noted(self, data: bytes, /) -> None:
        """Note what was written behind all before it."""
        self.size += len(data)
        tally = self.tally
        if tally is None:
            return
        if not (self.fresh or self.lengthy):
            tally.files.append(self)  # type: ignore[arg-type]  # every end is a LineFile's
        tally.waiting += len(data)
        if self.lengthy or tally.waiting > tally.most:
            self.lengthy = True
            self.fresh.clear()
        else:
            self.fresh.append(data)


if TYPE_CHECKING:
    from interlock.evidence._chain import End, Tally
else:
    try:
        from interlock.evidence._chain import End, Tally
    except ImportError:
        End, Tally = PlainEnd, PlainTally


class LineFile(End):
    """An open file. `append` writes at the end in one system call; `sync` may run in another thread."""

    __slots__ = ("_name", "_told", "_turn", "failed", "name")

    def __init__(self, path: Path, *, create: bool) -> None:
        super().__init__()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
        self.name = path.name
        self.unsynced = create
        self._told = 0
        self._name = "/".join(path.parts[-3:]).encode()
        self._turn = Lock()
        self.failed: Callable[[Exception], None] = lambda _: None
        self.fd = os.open(path, flags, 0o600)

    def append(self, data: bytes) -> None:
        """Write `data` whole. A short write is a full disk or a limit: the tail is torn and stays so. Raise OSError."""
        self.unsynced = True
        written = os.write(self.fd, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written; the disk is full", self.name)
        self.noted(data)

    def share(self, tally: Tally, failed: Callable[[Exception], None]) -> None:
        """Tell the log of what is appended from now on, and `failed` why a sync that the log asked for could not be had."""
        self.tally = tally
        self.failed = failed
        self._told = self.size

    def alone(self) -> None:
        """Tell the log no more: what is appended now is appended in a thread, and synced there."""
        self.tally = None

    def taken(self) -> tuple[bytes, int, list[bytes]] | None:
        """Return what was appended since the last call, for `log`: redo.Shared."""
        fresh, self.fresh = self.fresh, []
        at, self._told = self._told, self.size
        lengthy, self.lengthy = self.lengthy, False
        return None if lengthy else (self._name, at, fresh)

    def sync(self) -> None:
        """Bring what was appended before this call to stable storage, if the file is open. Raise OSError."""
        # One at a time: who comes second must wait for what the first has begun. And an fd that is closed meanwhile may be
        # another file's.
        with self._turn:
            if not self.unsynced or self.fd < 0:
                return
            self.unsynced = False
            try:
                os.fdatasync(self.fd)
            except OSError:
                self.unsynced = True
                raise

    def close(self) -> None:
        with self._turn:
            if self.fd >= 0:
                fd, self.fd = self.fd, -1
                os.close(fd)


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, newline included; the last may lack it. Raise OSError.

    Gives way every few lines: a long file is read in a thread while the loop answers clients, and a thread that computes
    keeps the interpreter for 5 ms at a time otherwise.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number % _GIVE_WAY == 0:
                time.sleep(0)
            yield line


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes, mode: int = 0o400) -> None:
    """Put a file in place whole and durably: write beside, sync, rename. The directory is the caller's to sync."""
    beside = path.with_name(path.name + ".tmp")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    beside.rename(path)
