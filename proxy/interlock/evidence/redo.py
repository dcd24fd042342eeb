"""What was appended to all transcripts of a node in the last seconds, once more and in one file, so that one sync is enough.

A background sync for each of two files of each session costs more than all that is written in them, and a thousand sessions
could not keep what is promised, that an allowed command is on the disk within 10 ms. So these syncs are of this log. It is not
the record and nobody verifies it: an event is in its own transcript before anything goes on (transcript.py), decisions that
somebody waits for are synced there, and so is everything before it is sealed. The log only holds what a power cut would take
out of a file whose own sync has not come yet.

Theory of operation. `take` gathers on the loop what was appended since; `write` appends it in a thread to the current part
and syncs that. When a part is `PART` long or `AGE` old it is retired: the files that it speaks of are synced once, then it is
deleted. After a start on another boot of the machine `replay` puts back what files lack. On the same boot the page cache has
lost nothing, and parts are only deleted, after a sync of what they speak of.

Replaying never changes a byte that is there, but for NULs, which some file systems leave where data was not yet written. A file
that differs was changed by somebody, and that is for recovery to find.

A part is a header line and records: length and CRC-32 of what follows, then `<kind>/<session>/<file> <offset>\\n` and the bytes.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zlib
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Protocol

import structlog

from interlock.clock import Clock
from interlock.errors import EvidenceError
from interlock.evidence.linefile import Tally, sync_directory

FOLDER = "redo"
PART = 64 << 20
"""Bytes after which a part is retired."""
AGE_US = 5_000_000
"""The same in time: what was erased from a transcript must not live on here."""
MOST = 8 << 20
"""Bytes of one round. Files that are appended more are synced by themselves in it: neither memory nor a second writing pays for
somebody's gigabyte of output, and no disk is so slow that anything would be refused."""

__all__ = ["AGE_US", "FOLDER", "MOST", "PART", "Appended", "Batch", "RedoLog", "Shared", "boot_id", "write_synced_plain"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_HEAD = struct.Struct("!II")
_NAME = re.compile(rb"(sessions|journal)/([A-Za-z0-9][A-Za-z0-9_-]{0,63})/([a-z][a-z0-9.-]{0,63}) ([0-9]{1,15})\n")
_RECORD_CAP = 2 * MOST

log = structlog.get_logger()


Appended = tuple[bytes, int, list[bytes]]
"""The name of a file below the data directory, and where and what was appended to it."""


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
    """Implements `durability.Log`. `tally` and `take` belong to the loop, `write` and `close` to a thread.

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
                self._write(b"".join(map(_record, batch.appended)), batch.files)
            for file in batch.lengthy:
                self._sync(file)

    def close(self) -> None:
        """Retire the last part and wait for those before: everything that they speak of is closed."""
        with self._turn:
            self._retire_aside()
            for retiring in self._retiring:
                retiring.result()
            self._retiring.clear()

    def _write(self, records: bytes, files: list[Shared]) -> None:
        part = self._part or self._begin()
        try:
            write_synced(part.fd, records)
        except OSError:
            self._part = None  # it stays for a replay; what would follow a torn record could not be read
            os.close(part.fd)
            raise
        part.size += len(records)
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
        head = self._head()
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

    def _head(self) -> bytes:
        return b"interlock redo 1 %b\n" % self._boot.encode()

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
            head, _, records = data.partition(b"\n")
            lost = head + b"\n" != self._head()
            for path, offset, content in self._records(records):
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

    def _records(self, data: bytes) -> Iterator[tuple[Path, int, bytes]]:
        """Yield (file, offset, bytes) up to the first record that is torn."""
        pos = 0
        while len(data) - pos >= _HEAD.size:
            length, crc = _HEAD.unpack_from(data, pos)
            pos += _HEAD.size
            body = data[pos : pos + length]
            if length > _RECORD_CAP or len(body) < length or zlib.crc32(body) != crc:
                return
            named = _NAME.match(body)
            if named is None:
                return
            kind, session, name, offset = named.groups()
            yield self._data_dir / kind.decode() / session.decode() / name.decode(), int(offset), body[named.end() :]
            pos += length


def boot_id() -> str:
    """Return what names this boot of the machine; where nothing does, another each time, so that everything is replayed."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.urandom(16).hex()


def _record(appended: Appended) -> bytes:
    """Encode what one file was appended.

    The checksum is taken piece by piece: of more than five kilobytes at once zlib gives up the interpreter, and among a hundred
    files getting it back took longer than all the rest of a round.
    """
    name, offset, pieces = appended
    head = b"%b %d\n" % (name, offset)
    size, crc = len(head), zlib.crc32(head)
    for piece in pieces:
        size += len(piece)
        crc = zlib.crc32(piece, crc)
    return b"".join((_HEAD.pack(size, crc), head, *pieces))


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


def write_synced_plain(fd: int, data: bytes, /) -> None:
    """Write bytes whole and bring them to the disk. Raise OSError."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, "the disk is full")
    os.fdatasync(fd)


try:
    from interlock.evidence._chain import write_synced
except ImportError:
    write_synced = write_synced_plain
