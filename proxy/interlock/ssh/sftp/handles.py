"""Open files and directories of one SFTP conversation: which handle stands for what, and what passed through it. Pure.

Clients get handles of ours. A handle that was not given out, or of the wrong kind, is answered like any bad handle.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from interlock.commands.sftp import FileOperation
from interlock.ssh.sftp.stage import Stage

MAX_OPEN = 128
"""Handles at once; OpenSSH's server allows 100."""


class Content:
    """Counts what is read from or written to a file, and hashes it while it comes in order from the beginning."""

    def __init__(self) -> None:
        self.size = 0
        self._next: int | None = 0
        self._hash = hashlib.sha256()

    def passed(self, offset: int, data: bytes, *, anywhere: bool = False) -> None:
        """Note a piece. `anywhere`: the file decides where it goes (append)."""
        self.size += len(data)
        if self._next is not None and (anywhere or offset == self._next):
            self._hash.update(data)
            self._next += len(data)
        else:
            self._next = None

    @property
    def sha256(self) -> str | None:
        """None when pieces were left out, repeated or came out of order: then there is no one content."""
        return self._hash.hexdigest() if self._next is not None else None


@dataclass(slots=True)
class Handle:
    """What is behind one handle. `far` is the target's own handle; while an upload is staged there is none yet."""

    operation: FileOperation
    forward: int
    far: bytes = b""
    stage: Stage | None = None
    read: Content = field(default_factory=Content)
    written: Content = field(default_factory=Content)

    @property
    def listing(self) -> bool:
        return self.operation.verb == "ls"

    @property
    def readable(self) -> bool:
        return self.operation.verb == "get" or bool(self.operation.option("read"))

    @property
    def writable(self) -> bool:
        return self.operation.verb in ("put", "append")


class Handles:
    """The table of one conversation."""

    def __init__(self) -> None:
        self._open: dict[bytes, Handle] = {}
        self._number = 0

    @property
    def full(self) -> bool:
        return len(self._open) >= MAX_OPEN

    def give(self, handle: Handle) -> bytes:
        """Give out a name for it. A name is never given twice."""
        self._number += 1
        name = self._number.to_bytes(8, "big")
        self._open[name] = handle
        return name

    def get(self, name: bytes) -> Handle | None:
        return self._open.get(name)

    def forget(self, name: bytes) -> None:
        self._open.pop(name, None)

    def all(self) -> list[Handle]:
        return list(self._open.values())
