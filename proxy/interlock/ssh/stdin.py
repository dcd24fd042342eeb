"""Standard input held until a decision: read to EOF within bounds, or an error in words. Pure.

The bytes are shown to a reviewer and hashed into `match`, so half of them is worth nothing: no EOF, no release.
"""

from __future__ import annotations

from interlock.commands.model import HeldInput
from interlock.errors import InputError, Reason


class HeldBuffer:
    """Collects what a client sends. `complete` once EOF has come."""

    __slots__ = ("_chunks", "_limit", "_size", "_unended", "complete")

    def __init__(self, limit: int, unended: str = "") -> None:
        self._limit = limit
        self._unended = unended or "the command reads its input and the input never ended; use `< /dev/null` or a file"
        self._chunks: list[bytes] = []
        self._size = 0
        self.complete = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def overflowing(self) -> bool:
        return self._size > self._limit

    def feed(self, data: bytes) -> None:
        """Take one read. Past the limit nothing is kept: it would be refused anyway."""
        self._size += len(data)
        if self.overflowing:
            self._chunks.clear()
        else:
            self._chunks.append(data)

    def end(self) -> None:
        self.complete = True

    def take(self) -> HeldInput:
        """Return all of it. Raise InputError (stdin-too-large, stdin-without-eof)."""
        if self.overflowing:
            raise InputError(
                f"the input is larger than {self._limit // 1024} KB, which is more than can be shown to a reviewer",
                reason=Reason.STDIN_TOO_LARGE,
            )
        if not self.complete:
            raise InputError(self._unended, reason=Reason.STDIN_WITHOUT_EOF)
        return HeldInput(b"".join(self._chunks))
