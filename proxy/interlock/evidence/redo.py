"""What was appended to all transcripts of a node in the last seconds, once more and in one file, so that one sync is enough.

A background sync for each of two files of each session costs more than all that is written in them, and a thousand sessions
could not keep what is promised, that an allowed command is on the disk within 10 ms. So these syncs are of this log. It is not
the record and nobody verifies it: an event is in its own transcript before anything goes on (transcript.py), decisions that
somebody waits for are synced there, and so is everything before it is sealed. The log only holds what a power cut would take
out of a file whose own sync has not come yet.

Theory of operation. `take` gathers on the loop what was appended since; a thread appends it to the current part and syncs
that: the scribe (scribe.py) where this is all that is to be done, else one of Python (`write`). When a part is `PART` long or
`AGE_US` old it is retired: the files that it speaks of are synced once, then it is deleted. After a start on another boot of the
machine `replay` puts back what files lack. On the same boot the page cache has lost nothing, and parts are only deleted, after a
sync of what they speak of.

Replaying never changes a byte that is there, but for NULs, which some file systems leave where data was not yet written. A file
that differs was changed by somebody, and that is for recovery to find.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Container
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import structlog

from interlock.clock import Clock
from interlock.errors import EvidenceError
from interlock.evidence.linefile import Tally, sync_directory
from interlock.evidence.part import Appended, boot_id, header, record, records
from interlock.evidence.scribe import Scribe

FOLDER = "redo"
PART = 64 << 20
"""Bytes after which a part is retired."""
AGE_US = 5_000_000
"""The same in time: what was erased from a transcript must not live on here."""
MOST = 8 << 20
"""Bytes of one round. Files that are appended more are synced by themselves in it: neither memory nor a second writing pays for
somebody's gigabyte of output, and no disk is so slow that anything would be refused."""

log = structlog.get_logger()


class Shared(Protocol):
    """A file that shares its appends with the log (linefile.LineFile)."""

    def taken(self) -> Appended | None:
        """Return what was appended since the last call; None when it was too much to be kept, and the file is to be synced."""
        ...

    def sync(self) -> None:
        """Bring the file to the disk, if it is open and has more than that. Raise OSError."""
        ...


class Batch(NamedTuple):
    """What one write of the log holds."""

    appended: list[Appended]
    files: list[Shared]
    lengthy: list[Shared]


@dataclass(slots=True)
class _Part:
    path: Path
    fd: int
    began_us: int
    files: set[Shared]
    size: int = 0


class RedoLog:
    """Implements `durability.Log`. `tally`, `take`, `begin` and `rest` belong to the loop, `write` and `close` to a thread.

    `failed` is told, in a thread, of a file whose own sync failed: what the log said of it is not deleted then. Parts are
    retired in `aside`, for the files of a thousand sessions take longer than a round may wait.
    """

    def __init__(
        self,
        data_dir: Path,
        clock: Clock,
        failed: Callable[[Shared, OSError], None],
        aside: Executor,
        *,
        boot: str | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / FOLDER
        self._clock = clock
        self._failed = failed
        self._aside = aside
        self._retiring: list[Future[None]] = []
        self._boot = boot if boot is not None else boot_id()
        self.tally = Tally(MOST)
        self._part: _Part | None = None
        self._number = 0
        self._turn = Lock()
        self._scribe: Scribe | None = None

    # -- on the loop ------------------------------------------------------------------------------------------------

    def take(self) -> Batch:
        """Return what was appended since the last call."""
        tally = self.tally
        files, tally.files, tally.waiting = tally.files, [], 0
        taken = [(file, file.taken()) for file in files]
        kept = [(file, appended) for file, appended in taken if appended is not None]
        return Batch(
            [appended for _, appended in kept], [file for file, _ in kept], [file for file, appended in taken if appended is None]
        )

    def begin(self, batch: Batch, pool: Executor) -> asyncio.Future[None]:
        """Write and sync, one at a time: by the scribe where nothing else is to be done, else in `pool`."""
        loop = asyncio.get_running_loop()
        ordinary = self._part is not None and batch.appended and not batch.lengthy
        scribe = self._hired(loop) if ordinary else None
        if scribe is None or not self._turn.acquire(blocking=False):
            return loop.run_in_executor(pool, self.write, batch)
        part = self._part
        if part is None or self.due:
            self._turn.release()
            return loop.run_in_executor(pool, self.write, batch)
        done: asyncio.Future[None] = loop.create_future()
        try:
            scribe.begin(part.fd, batch.appended, partial(self._ended, part, batch.files, done))
        except BaseException:
            self._turn.release()
            raise
        return done

    def _hired(self, loop: asyncio.AbstractEventLoop) -> Scribe | None:
        """Return the scribe, where there can be one."""
        if self._scribe is None and Scribe.to_be_had():
            try:
                self._scribe = Scribe(loop)
            except OSError as error:
                log.warning("no thread for the log of all transcripts", error=error.strerror)
        return self._scribe

    def _ended(self, part: _Part, files: list[Shared], done: asyncio.Future[None], size: int, error: OSError | None) -> None:
        self._covered(part, files, size, error)
        self._turn.release()
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def rest(self) -> None:
        """Let the scribe go. After `close`."""
        if self._scribe is not None:
            self._scribe.close()
            self._scribe = None

    @property
    def due(self) -> bool:
        """Whether the current part should be retired, although nothing may come that is to be written."""
        part = self._part
        return part is not None and (part.size >= PART or self._clock.monotonic_us() - part.began_us >= AGE_US)

    # -- in a thread ------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        """Write and sync, in a new part when the last is due to be retired. Raise OSError or EvidenceError."""
        with self._turn:
            if self.due:
                self._retire_aside()
            if batch.appended:
                self._write(b"".join(map(record, batch.appended)), batch.files)
            for file in batch.lengthy:
                self._sync(file)

    def close(self) -> None:
        """Retire the last part and wait for those before: everything that they speak of is closed."""
        with self._turn:
            self._retire_aside()
            for retiring in self._retiring:
                retiring.result()
            self._retiring.clear()

    def _write(self, data: bytes, files: list[Shared]) -> None:
        part = self._part or self._begin()
        try:
            write_synced(part.fd, data)
        except OSError as error:
            self._covered(part, files, 0, error)
            raise
        self._covered(part, files, len(data), None)

    def _covered(self, part: _Part, files: list[Shared], size: int, error: OSError | None) -> None:
        """Note what a part holds now. One that failed stays for a replay: what would follow a torn record could not be read."""
        if error is not None:
            self._part = None
            os.close(part.fd)
            return
        part.size += size
        part.files.update(files)

    def _retire_aside(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            self._retiring = [retiring for retiring in self._retiring if not retiring.done()]
            self._retiring.append(self._aside.submit(self._retire, part))

    def _retire(self, part: _Part) -> None:
        os.close(part.fd)
        whole = True
        for file in part.files:
            whole = self._sync(file) and whole
        if whole:
            part.path.unlink()

    def _sync(self, file: Shared) -> bool:
        try:
            file.sync()
        except OSError as error:
            self._failed(file, error)
            return False
        return True

    def _begin(self) -> _Part:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._number += 1
        path = self._folder / f"{self._number:012d}.log"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        head = header(self._boot)
        try:
            if os.write(fd, head) != len(head):
                raise EvidenceError(f"{path.name} could not be begun; the disk is full")
            sync_directory(self._folder)
            sync_directory(self._data_dir)
        except (OSError, EvidenceError):
            os.close(fd)
            raise
        self._part = _Part(path, fd, self._clock.monotonic_us(), set(), len(head))
        return self._part

    # -- at the start -------------------------------------------------------------------------------------------------

    def replay(self, unsealed: Container[Path]) -> int:
        """Put back what files of these transcripts lack, delete every part, and return the bytes put back.

        Raise OSError or EvidenceError: then the node must not start, for it would delete what it could not put back.
        """
        back = 0
        if not self._folder.is_dir():
            return 0
        parts = sorted(self._folder.iterdir())
        touched: set[Path] = set()
        for part in parts:
            data = part.read_bytes()
            head, _, rest = data.partition(b"\n")
            lost = head + b"\n" != header(self._boot)
            for name, offset, content in records(rest):
                path = self._data_dir / name
                if path.parent not in unsealed:
                    continue
                if lost:
                    back += _put_back(path, offset, content)
                if path.exists():
                    touched.add(path)
        for path in touched:
            _sync(path)
        for folder in {path.parent for path in touched}:
            sync_directory(folder)
        for part in parts:
            part.unlink()
        sync_directory(self._folder)
        if back:
            log.warning("transcripts completed after a power cut", bytes=back)
        return back


def _put_back(path: Path, offset: int, content: bytes) -> int:
    """Write what the file lacks of these bytes at this place; return how many. A file that has others there stays as it is."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size < offset:
            return 0  # what comes before was lost and is nowhere: the rest would stand at a wrong place
        there = os.pread(fd, len(content), offset)
        if there == content:
            return 0
        if any(old not in (new, 0) for old, new in zip(there, content, strict=False)):
            return 0
        if os.pwrite(fd, content, offset) != len(content):
            raise EvidenceError(f"{path.name} could not be completed; the disk is full")
        return sum(old != new for old, new in zip(there, content, strict=False)) + len(content) - len(there)
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_synced(fd: int, data: bytes) -> None:
    """Write bytes whole and bring them to the disk. Raise OSError."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, "the disk is full")
    os.fdatasync(fd)
