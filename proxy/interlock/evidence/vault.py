"""Where disclosures are kept. The seam at which encryption comes: whoever writes events knows only this protocol.

A sink takes lines of `disclosures.jsonl` (disclosure.line) and keeps them as durably as the events that commit to them.
`PlainVault` keeps them readable in one file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from interlock.evidence import disclosure
from interlock.evidence.linefile import LineFile, Tally


@dataclass(frozen=True, slots=True)
class Cut:
    """What was removed from the end: bytes, and their SHA-256 in hex."""

    bytes: int
    sha256: str


class Sink(Protocol):
    """The open end of one transcript's disclosures."""

    def append(self, data: bytes) -> None:
        """Write whole lines before returning. Raise OSError or EvidenceError."""
        ...

    def share(self, tally: Tally, failed: Callable[[Exception], None]) -> None:
        """Tell the log of what is written from now on, and `failed` why a sync that the log asked for could not be had."""
        ...

    def alone(self) -> None:
        """Tell the log no more."""
        ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Vault(Protocol):
    def create(self, directory: Path) -> Sink:
        """Begin the disclosures of a new transcript."""
        ...

    def lines(self, directory: Path) -> Iterator[bytes]:
        """Yield the lines in order, without newlines. Raise OSError or EvidenceError."""
        ...

    def cut(self, directory: Path, events: int) -> Cut:
        """After a crash: drop a torn tail and whatever no event below `events` commits to."""
        ...


class PlainVault:
    """Disclosures in one readable file. Protected by the mode of the data directory alone."""

    FILE = "disclosures.jsonl"

    def create(self, directory: Path) -> Sink:
        return LineFile(directory / self.FILE, create=True)

    def lines(self, directory: Path) -> Iterator[bytes]:
        try:
            file = (directory / self.FILE).open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                yield line.removesuffix(b"\n")

    def cut(self, directory: Path, events: int) -> Cut:
        path = directory / self.FILE
        if not path.exists():
            return Cut(0, sha256(b"").hexdigest())
        keep = 0
        with path.open("rb") as file:
            for line in file:
                # Disclosures are written before their events, in their order: what is beyond the last event is a tail.
                # The seal's own (-1) can only be the last line of a session that died while it was sealed.
                if not line.endswith(b"\n") or not 0 <= disclosure.seq_of(line) < events:
                    break
                keep += len(line)
            file.seek(keep)
            tail = sha256()
            size = 0
            while chunk := file.read(1 << 20):
                tail.update(chunk)
                size += len(chunk)
        if size:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, keep)
                os.fsync(fd)
            finally:
                os.close(fd)
        return Cut(size, tail.hexdigest())
