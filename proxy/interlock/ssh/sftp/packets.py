"""SFTP version 3 on the wire (draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file): bytes into packets and back. Pure.

A packet is its type, its request id and its fields, read by a table of layouts. Nothing is guessed: a field that does
not fit, bytes that are left over and an attribute that is not of version 3 end the conversation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from interlock.errors import RemoteProtocolError

VERSION = 3
MAX_PACKET = 256 * 1024 + 1024
"""Bytes of one packet: OpenSSH's own limit, and room for the header of a WRITE."""


class Type(IntEnum):
    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(IntEnum):
    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class Open(IntEnum):
    """Flags of OPEN (§6.3)."""

    READ = 0x01
    WRITE = 0x02
    APPEND = 0x04
    CREAT = 0x08
    TRUNC = 0x10
    EXCL = 0x20


@dataclass(frozen=True, slots=True)
class Attrs:
    """File attributes of version 3 (§5); None is "not given". `owner` is (uid, gid), `times` (access, modification)."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None


Field = bytes | int | Attrs


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet behind the version exchange. The fields stand in the order of its layout."""

    type: Type
    id: int
    fields: tuple[Field, ...] = ()


# s string · u uint32 · q uint64 · a attributes · * everything that is left
_LAYOUTS: dict[Type, str] = {
    Type.OPEN: "sua", Type.CLOSE: "s", Type.READ: "squ", Type.WRITE: "sqs", Type.LSTAT: "s", Type.FSTAT: "s",
    Type.SETSTAT: "sa", Type.FSETSTAT: "sa", Type.OPENDIR: "s", Type.READDIR: "s", Type.REMOVE: "s", Type.MKDIR: "sa",
    Type.RMDIR: "s", Type.REALPATH: "s", Type.STAT: "s", Type.RENAME: "ss", Type.READLINK: "s", Type.SYMLINK: "ss",
    Type.EXTENDED: "s*",
    Type.STATUS: "u*", Type.HANDLE: "s", Type.DATA: "s", Type.NAME: "u*", Type.ATTRS: "*", Type.EXTENDED_REPLY: "*",
}  # fmt: skip

REQUESTS = frozenset(t for t in _LAYOUTS if t < Type.STATUS or t is Type.EXTENDED)
REPLIES = frozenset(_LAYOUTS) - REQUESTS


class Frames:
    """Cuts a stream into packets. `feed` bytes, then take packets with `next` until it says None."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def next(self) -> bytes | None:
        """Return the next packet without its length. Raise RemoteProtocolError for a length that can't be."""
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not 1 <= length <= MAX_PACKET:
            raise RemoteProtocolError(f"an SFTP packet of {length} bytes")
        if len(self._buffer) < 4 + length:
            return None
        body = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return body


def version_of(body: bytes, kind: Type) -> tuple[int, dict[bytes, bytes]]:
    """Read an INIT or VERSION: its number and its extensions. Raise RemoteProtocolError."""
    if body[0] != kind:
        raise RemoteProtocolError(f"an SFTP packet of type {body[0]} before the versions were exchanged")
    reader = _Reader(body, 1)
    number, extensions = reader.uint32(), {}
    while reader.left:
        name = reader.string()
        extensions[name] = reader.string()
    return number, extensions


def version(kind: Type, extensions: dict[bytes, bytes]) -> bytes:
    told = b"".join(_string(name) + _string(value) for name, value in extensions.items())
    return framed(bytes([kind]) + VERSION.to_bytes(4, "big") + told)


def decode(body: bytes, kinds: frozenset[Type]) -> Packet:
    """Read one packet of these types. Raise RemoteProtocolError."""
    kind = next((known for known in kinds if known == body[0]), None)
    if kind is None:
        raise RemoteProtocolError(f"an SFTP packet of type {body[0]} is out of place")
    reader = _Reader(body, 1)
    number = reader.uint32()
    fields: list[Field] = []
    for letter in _LAYOUTS[kind]:
        match letter:
            case "s":
                fields.append(reader.string())
            case "u":
                fields.append(reader.uint32())
            case "q":
                fields.append(reader.uint64())
            case "a":
                fields.append(reader.attrs())
            case _:
                fields.append(reader.rest())
    if reader.left:
        raise RemoteProtocolError(f"bytes behind an SFTP packet of type {kind.name}")
    return Packet(kind, number, tuple(fields))


def encode(packet: Packet) -> bytes:
    """Return the packet as it goes out, with its length."""
    parts = [bytes([packet.type]), packet.id.to_bytes(4, "big")]
    for letter, value in zip(_LAYOUTS[packet.type], packet.fields, strict=True):
        match letter, value:
            case "s", bytes():
                parts.append(_string(value))
            case "u", int():
                parts.append(value.to_bytes(4, "big"))
            case "q", int():
                parts.append(value.to_bytes(8, "big"))
            case "a", Attrs():
                parts.append(_attrs(value))
            case "*", bytes():
                parts.append(value)
            case _:
                raise TypeError(f"{packet.type.name} has no such field")
    return framed(b"".join(parts))


def status(number: int, code: int, message: str = "") -> Packet:
    return Packet(Type.STATUS, number, (code, _string(message.encode()) + _string(b"en")))


def attributes(number: int, attrs: Attrs) -> Packet:
    return Packet(Type.ATTRS, number, (_attrs(attrs),))


def only_name(packet: Packet) -> bytes | None:
    """Return the one name of a NAME (an answer to REALPATH), or None when it has not exactly one."""
    if packet.type is not Type.NAME or packet.fields[0] != 1:
        return None
    rest = packet.fields[1]
    assert isinstance(rest, bytes)
    return _Reader(rest, 0).string()


def strings(payload: bytes, count: int) -> list[bytes]:
    """Read the payload of an extended request that is `count` strings. Raise RemoteProtocolError."""
    reader = _Reader(payload, 0)
    found = [reader.string() for _ in range(count)]
    if reader.left:
        raise RemoteProtocolError("bytes behind an extended SFTP request")
    return found


def string_and_attrs(payload: bytes) -> tuple[bytes, Attrs]:
    """Read the payload of `lsetstat@openssh.com`. Raise RemoteProtocolError."""
    reader = _Reader(payload, 0)
    found = reader.string(), reader.attrs()
    if reader.left:
        raise RemoteProtocolError("bytes behind an extended SFTP request")
    return found


def payload(*values: bytes | Attrs) -> bytes:
    """Return the payload of an extended request."""
    return b"".join(_string(value) if isinstance(value, bytes) else _attrs(value) for value in values)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


_SIZE, _OWNER, _MODE, _TIMES = 0x01, 0x02, 0x04, 0x08


def _attrs(attrs: Attrs) -> bytes:
    flags, parts = 0, b""
    if attrs.size is not None:
        flags, parts = flags | _SIZE, parts + attrs.size.to_bytes(8, "big")
    if attrs.owner is not None:
        flags, parts = flags | _OWNER, parts + struct.pack(">II", *attrs.owner)
    if attrs.mode is not None:
        flags, parts = flags | _MODE, parts + attrs.mode.to_bytes(4, "big")
    if attrs.times is not None:
        flags, parts = flags | _TIMES, parts + struct.pack(">II", *attrs.times)
    return flags.to_bytes(4, "big") + parts


class _Reader:
    """Reads fields one after the other, never past the end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._at = position

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise RemoteProtocolError("an SFTP packet ends inside a field")
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        return self.take(self.uint32())

    def rest(self) -> bytes:
        return self.take(self.left)

    def attrs(self) -> Attrs:
        flags = self.uint32()
        if flags & ~(_SIZE | _OWNER | _MODE | _TIMES):
            raise RemoteProtocolError(f"file attributes that version 3 does not have (flags {flags:#x})")
        return Attrs(
            self.uint64() if flags & _SIZE else None,
            (self.uint32(), self.uint32()) if flags & _OWNER else None,
            self.uint32() if flags & _MODE else None,
            (self.uint32(), self.uint32()) if flags & _TIMES else None,
        )
