"""Cutting two byte streams into messages, with a bound for every length before anything is kept.

Knows: message framing (PostgreSQL manual, "Message Formats"): one type byte, a 32-bit length that counts itself.
Must not know: what a message means, who sent it, sockets.

A length is checked before a single byte behind it is looked at, so one that lies ends the session and never shifts the
cut (the smuggling attacks of 2024). The client's side yields whole messages, but for CopyData, whose pieces stream.
The server's side yields the places of the messages that matter; everything else may be relayed as it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.rows import skip_rows

LENGTH = Struct("!I")
STARTUP_CAP = 64 * 1024
TEXT_CAP = 1024 * 1024
BIND_CAP = 64 * 1024 * 1024
SMALL_CAP = 10_000
"""PostgreSQL's own PQ_SMALL_MESSAGE_LIMIT."""
PASSWORD_CAP = 64 * 1024
COPY_CAP = 0x3FFFFFFF
"""PostgreSQL's own PQ_LARGE_MESSAGE_LIMIT; such messages are never kept whole."""
SERVER_CAP = 16 * 1024 * 1024
"""Of server messages that are looked at, and so kept whole. A longer one ends the session."""

CLIENT_CAPS: dict[int, tuple[int, int]] = {
    ord("Q"): (5, TEXT_CAP),
    ord("P"): (8, TEXT_CAP),
    ord("B"): (12, BIND_CAP),
    ord("D"): (6, SMALL_CAP),
    ord("E"): (9, SMALL_CAP),
    ord("C"): (6, SMALL_CAP),
    ord("S"): (4, 4),
    ord("H"): (4, 4),
    ord("X"): (4, 4),
    ord("d"): (4, COPY_CAP),
    ord("c"): (4, 4),
    ord("f"): (5, SMALL_CAP),
    ord("F"): (14, TEXT_CAP),
}
"""Least and greatest length of each message a client may send once the session runs. Anything else is refused."""

COPY_DATA, DATA_ROW = ord("d"), ord("D")


class Frame(NamedTuple):
    """One whole message as it came. `raw` includes type and length."""

    kind: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class CopyPiece:
    """A part of a CopyData message: `raw` is to be sent as it is, `size` counts payload bytes, `first` starts one."""

    raw: bytes
    size: int
    first: bool


class ClientFrames:
    """What a client sends after start-up. `feed` bytes, then call `next` until it gives None."""

    __slots__ = ("_caps", "_copy_left", "_data", "_have", "_need", "_parts", "_pos")

    def __init__(self) -> None:
        self._data = b""
        self._pos = 0
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 5
        self._copy_left = 0

    @property
    def at_rest(self) -> bool:
        """Every byte was given out and the next begins a message."""
        return self._pos == len(self._data) and not self._parts and not self._copy_left

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet given out."""
        return len(self._data) - self._pos + self._have

    def feed(self, data: bytes) -> None:
        if self._pos == len(self._data) and not self._parts:
            self._data, self._pos = data, 0
        else:
            self._parts.append(data)
            self._have += len(data)

    def next(self) -> Frame | CopyPiece | None:
        """Return the next message, or None when more bytes are needed. Raise RemoteProtocolError."""
        if self._parts:
            if not self._copy_left and self.buffered < self._need:
                return None
            self._data = b"".join((self._data[self._pos :], *self._parts))
            self._pos = self._have = 0
            self._parts.clear()
        data, pos = self._data, self._pos
        left = len(data) - pos
        if self._copy_left:
            return self._piece(0, first=False) if left else None
        if left < 5:
            self._need = 5
            return None
        kind = data[pos]
        (length,) = LENGTH.unpack_from(data, pos + 1)
        least, most = CLIENT_CAPS.get(kind, (1, 0))
        if not least <= length <= most:
            raise RemoteProtocolError(_complaint(kind, length))
        if kind == COPY_DATA:
            self._copy_left = length - 4
            return self._piece(5, first=True)
        if left <= length:
            self._need = length + 1
            return None
        self._pos = end = pos + 1 + length
        self._need = 5  # what this message needed says nothing about the next one
        return Frame(kind, data if left == length + 1 and not pos else data[pos:end])

    def _piece(self, header: int, *, first: bool) -> CopyPiece:
        start = self._pos
        take = min(self._copy_left, len(self._data) - start - header)
        self._pos = start + header + take
        self._copy_left -= take
        return CopyPiece(self._data[start : self._pos], take, first)


def _complaint(kind: int, length: int) -> str:
    shown = chr(kind) if 32 < kind < 127 else f"\\x{kind:02x}"
    if kind not in CLIENT_CAPS:
        return f"a message of the unknown type {shown!r}"
    least, most = CLIENT_CAPS[kind]
    if length > most:
        return f"a message of type {shown!r} of {length:,} bytes: at most {most:,} are taken here"
    return f"a message of type {shown!r} with the length {length}, where {least} is the least"


# -- the server's side -------------------------------------------------------------------------------------------------

STREAMED = frozenset(b"DdNA")
"""DataRow, CopyData, NoticeResponse, NotificationResponse: relayed as they come, also in parts."""

WATCHED = frozenset(b"EZC123tTnIsSGHWc")
"""Messages that move our state or may be rewritten. Any other type is a server that breaks the protocol."""


@dataclass(slots=True)
class Scan:
    """One read of the server's stream. `data[:end]` may go on but for the `places` (kind, start, end) of watched messages."""

    data: bytes
    end: int
    places: list[tuple[int, int, int]]


class ServerFrames:
    """What the server sends after start-up."""

    __slots__ = ("_left", "_need", "_parts", "_size", "copied_bytes", "copied_messages", "copies")

    def __init__(self) -> None:
        self._left = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._need = 0
        self.copied_bytes = 0
        self.copied_messages = 0
        self.copies: deque[tuple[int, int]] = deque()

    @property
    def at_boundary(self) -> bool:
        """Nothing that was given out so far ends inside a message, so a message of ours may come between."""
        return not self._left

    @property
    def at_rest(self) -> bool:
        """The next byte begins a message and nothing is kept."""
        return not self._left and not self._parts

    def scan(self, data: bytes) -> Scan:
        """Cut one read. Raise RemoteProtocolError."""
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._need:
                return Scan(b"", 0, [])
            data = b"".join(self._parts)
            self._parts = []
        size = len(data)
        pos = self._left
        if pos > size:
            self._left -= size
            return Scan(data, size, [])
        self._left = 0
        places: list[tuple[int, int, int]] = []
        unpack = LENGTH.unpack_from
        while size - pos >= 5:
            kind = data[pos]
            if kind == DATA_ROW:
                behind = skip_rows(data, pos)
                if behind != pos:
                    pos = behind
                    continue
            (length,) = unpack(data, pos + 1)
            end = pos + 1 + length
            if kind in STREAMED and 4 <= length <= COPY_CAP:
                if kind == COPY_DATA:
                    self.copied_bytes += length - 4
                    self.copied_messages += 1
                if end > size:
                    self._left = end - size
                    return Scan(data, size, places)
                pos = end
                continue
            if kind not in WATCHED or not 4 <= length <= SERVER_CAP:
                raise RemoteProtocolError(f"the server sent a message of type {kind} with the length {length}")
            if end > size:
                return self._keep(data, pos, length + 1, places)
            if kind == 99:  # CopyDone
                self.copies.append(self.take_copied())
            places.append((kind, pos, end))
            pos = end
        return self._keep(data, pos, 5, places) if pos < size else Scan(data, size, places)

    def take_copied(self) -> tuple[int, int]:
        """Return payload bytes and messages of CopyData since the last CopyDone, and begin anew.

        `copies` holds the same of each copy whose end was scanned, for whoever handles that end.
        """
        taken = self.copied_bytes, self.copied_messages
        self.copied_bytes = self.copied_messages = 0
        return taken

    def _keep(self, data: bytes, pos: int, need: int, places: list[tuple[int, int, int]]) -> Scan:
        """Keep an incomplete watched message until the rest of it is there."""
        self._parts = [data[pos:]]
        self._size = len(data) - pos
        self._need = need
        return Scan(data, pos, places)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of a buffer that holds whole messages only. Raise RemoteProtocolError."""
    pos = 0
    while pos < len(data):
        if len(data) - pos < 5:
            raise RemoteProtocolError("a message is cut short")
        (length,) = LENGTH.unpack_from(data, pos + 1)
        end = pos + 1 + length
        if length < 4 or end > len(data):
            raise RemoteProtocolError("a message is cut short")
        yield data[pos], data[pos + 5 : end]
        pos = end
