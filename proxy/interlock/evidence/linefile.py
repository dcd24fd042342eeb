"""An append-only file of whole lines: one write a call, and broken for good after the first that fails.

Newline is the commit mark. Nothing here knows what the lines mean.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Protocol

from interlock.errors import EvidenceError

_GIVE_WAY = 16


class Log(Protocol):
    """What else is told of appends (redo.RedoLog)."""

    def appended(self, file: LineFile, size: int, *, first: bool) -> None: ...


class LineFile:
    """An open file. `append` writes at the end in one system call; `sync` may run in another thread."""

    __slots__ = ("_fd", "_fresh", "_log", "_name", "_size", "_told", "_turn", "failed", "name", "unsynced")

    def __init__(self, path: Path, *, create: bool) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if create else 0)
        self.name = path.name
        self.unsynced = create
        self._size = self._told = 0
        self._fresh: list[bytes] = []
        self._log: Log | None = None
        self._name = "/".join(path.parts[-3:]).encode()
        self._turn = Lock()
        self.failed: Callable[[Exception], None] = lambda _: None
        self._fd = os.open(path, flags, 0o600)

    def append(self, data: bytes) -> None:
        """Write `data` whole. A short write is a full disk or a limit: the tail is torn and stays so. Raise OSError."""
        self.unsynced = True
        written = os.write(self._fd, data)
        if written != len(data):
            raise EvidenceError(f"{self.name}: only {written} of {len(data)} bytes could be written; the disk is full")
        self._size += written
        if self._log is not None:
            fresh = self._fresh
            self._log.appended(self, written, first=not fresh)
            fresh.append(data)

    def share(self, log: Log, failed: Callable[[Exception], None]) -> None:
        """Tell `log` of what is appended from now on, and `failed` why a sync that the log asked for could not be had."""
        self._log = log
        self.failed = failed
        self._told = self._size

    def alone(self) -> None:
        """Tell the log no more: what is appended now is appended in a thread, and synced there."""
        self._log = None

    def taken(self) -> tuple[bytes, int, list[bytes]]:
        """Return what was appended since the last call, for `log`: redo.Shared."""
        fresh, self._fresh = self._fresh, []
        at, self._told = self._told, self._size
        return self._name, at, fresh

    def sync(self) -> None:
        """Bring what was appended before this call to stable storage, if the file is open. Raise OSError."""
        # One at a time: who comes second must wait for what the first has begun. And an fd that is closed meanwhile may be
        # another file's.
        with self._turn:
            if not self.unsynced or self._fd < 0:
                return
            self.unsynced = False
            try:
                os.fdatasync(self._fd)
            except OSError:
                self.unsynced = True
                raise

    def close(self) -> None:
        with self._turn:
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
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
