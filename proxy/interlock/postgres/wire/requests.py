"""The client's messages, decoded with every count checked, and their re-encoding where we send another text.

Knows: PostgreSQL manual, "Message Formats" (Query, Parse, Bind, Describe, Close, Execute).
Must not know: policy, identity, sockets.

A message must be used up exactly: a byte too many or too few is a client that breaks the protocol, and ends its session.
A message that is whole and asks for what there is not (UnacceptableError) is an ordinary error, as a server makes of it.
Describe, Close and Execute are small (SMALL_CAP) and repeat byte for byte, so what they mean is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from struct import error as struct_error
from typing import NamedTuple

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.frame import LENGTH

_COUNT = Struct("!H")
_SIGNED = Struct("!i")

_signed = _SIGNED.unpack_from

_WORDS = {ord("D"): "DESCRIBE", ord("C"): "CLOSE"}

MAX_RECURRING = 1024
"""Bytes of the parts of a Bind that are remembered."""
MAX_NAME = 1024
"""Bytes of a statement's or portal's name. PostgreSQL compares them whole, drivers use a few dozen."""


class UnacceptableError(RemoteProtocolError):
    """A whole message that every server answers with this error, in these words. Nothing of it may be sent on.

    Not even for the server to refuse it: a Bind fails at its first wrong format code, when the input functions of the
    types of the values before it have run.
    """

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Parse(NamedTuple):
    name: str
    text: bytes
    oids: tuple[int, ...]


class Bind(NamedTuple):
    """`formats` holds 0, 1 or one entry a value: 0 text, 1 binary. `result_formats` is the server's to judge, by the columns."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]

    def format_of(self, index: int) -> int:
        if not self.formats:
            return 0
        return self.formats[0] if len(self.formats) == 1 else self.formats[index]

    @property
    def at(self) -> int:
        """Where its format codes begin in the message."""
        return 7 + len(self.portal.encode()) + len(self.statement.encode())


@dataclass(frozen=True, slots=True)
class Named:
    """Describe and Close: `of` is `S` for a statement, `P` for a portal."""

    of: str
    name: str


@dataclass(frozen=True, slots=True)
class Execute:
    portal: str
    limit: int


@lru_cache(maxsize=64)
def _array(code: str, number: int) -> Struct:
    return Struct(f"!{number}{code}")


class _Reader:
    """Reads fields from a message; every step checks that the bytes are there."""

    __slots__ = ("_raw", "pos")

    def __init__(self, raw: bytes, pos: int = 5) -> None:
        self._raw = raw
        self.pos = pos

    def text(self) -> bytes:
        start = self.pos
        end = self._raw.find(0, start)
        if end < 0:
            raise RemoteProtocolError("a text without its end")
        self.pos = end + 1
        return self._raw[start:end]

    def name(self) -> str:
        value = self.text()
        if not value:
            return ""
        if len(value) > MAX_NAME:
            raise RemoteProtocolError("a name is too long")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise UnacceptableError("22021", _no_encoding(value, error.start)) from None

    def count(self) -> int:
        (value,) = self._unpack(_COUNT, 2)
        return value

    def codes(self) -> tuple[int, ...]:
        number = self.count()
        return self._unpack(_array("H", number), 2 * number) if number else ()

    def oids(self, number: int) -> tuple[int, ...]:
        return self._unpack(_array("I", number), 4 * number) if number else ()

    def signed(self) -> int:
        (value,) = self._unpack(_SIGNED, 4)
        return value

    def value(self) -> bytes | None:
        length = self.signed()
        if length == -1:
            return None
        start = self.pos
        if length < 0 or length > len(self._raw) - start:
            raise RemoteProtocolError("a value's length is negative or beyond the message")
        self.pos = start + length
        return self._raw[start : self.pos]

    def end(self) -> None:
        if self.pos != len(self._raw):
            raise RemoteProtocolError("bytes after the end of a message's fields")

    def _unpack(self, struct: Struct, size: int) -> tuple[int, ...]:
        try:
            values: tuple[int, ...] = struct.unpack_from(self._raw, self.pos)
        except struct_error:
            raise RemoteProtocolError("a message ends before its fields do") from None
        self.pos += size
        return values


def query(raw: bytes) -> bytes:
    """Return the text of a Query: everything up to the one NUL, which must be its last byte."""
    if raw.find(0, 5) != len(raw) - 1:
        raise RemoteProtocolError("bytes after the end of a Query's text, or no end")
    return raw[5:-1]


def parse(raw: bytes) -> Parse:
    reader = _Reader(raw)
    name, text = reader.name(), reader.text()
    oids = reader.oids(reader.count())
    reader.end()
    return Parse(name, text, oids)


def bind(raw: bytes) -> Bind:
    """Head and end of a Bind recur from one to the next and are remembered; only its values are read each time."""
    size = len(raw)
    formats = raw.find(0, raw.find(0, 5) + 1) + 1
    values = formats + 4 + 2 * int.from_bytes(raw[formats : formats + 2], "big")
    portal, statement, codes, number = (_head if values <= MAX_RECURRING else _read_head)(raw[5:values])
    found: list[bytes | None] = []
    pos = values
    for _ in range(number):
        start = pos + 4
        if start > size:
            raise RemoteProtocolError("a message ends before its fields do")
        (length,) = _signed(raw, pos)
        pos = start
        if length == -1:
            found.append(None)
            continue
        pos += length
        if length < 0 or pos > size:
            raise RemoteProtocolError("a value's length is negative or beyond the message")
        found.append(raw[start:pos])
    results = (_result_formats if size - pos <= MAX_RECURRING else _read_result_formats)(raw[pos:])
    return Bind(portal, statement, codes, tuple(found), results)


def values(data: bytes, at: int) -> tuple[tuple[int, ...], tuple[bytes | None, ...]]:
    """Return (format codes, values) of a Bind whose format codes begin at `at`. Raise ValueError when there is no such thing."""
    reader = _Reader(data, at)
    try:
        codes, number = _formats(reader)
        found = tuple(reader.value() for _ in range(number))
    except RemoteProtocolError:
        raise ValueError("there are no values of a Bind at this place") from None
    return codes, found


def _formats(reader: _Reader) -> tuple[tuple[int, ...], int]:
    """Read the format codes of a Bind and the number of its values."""
    codes = reader.codes()
    number = reader.count()
    if len(codes) > 1 and len(codes) != number:
        raise UnacceptableError("08P01", f"bind message has {len(codes)} parameter formats but {number} parameters")
    if max(codes, default=0) > 1:
        wrong = next(code for code in codes if code > 1)
        raise UnacceptableError("22023", f"unsupported format code: {wrong - 0x10000 if wrong > 0x7FFF else wrong}")
    return codes, number


def _no_encoding(value: bytes, at: int) -> str:
    """Say as a server does that no character begins at this place."""
    first = value[at]
    length = 1 if first < 0xC0 or first >= 0xF8 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    shown = " ".join(f"0x{byte:02x}" for byte in value[at : at + length])
    return f'invalid byte sequence for encoding "UTF8": {shown}'


def _read_head(head: bytes) -> tuple[str, str, tuple[int, ...], int]:
    """Read a Bind's body up to its values: portal, statement, format codes, number of values."""
    reader = _Reader(head, 0)
    return reader.name(), reader.name(), *_formats(reader)


def _read_result_formats(rest: bytes) -> tuple[int, ...]:
    """Read what follows the values of a Bind."""
    reader = _Reader(rest, 0)
    formats = reader.codes()
    reader.end()
    return formats


_head = lru_cache(maxsize=256)(_read_head)
_result_formats = lru_cache(maxsize=256)(_read_result_formats)


@lru_cache(maxsize=256)
def named(raw: bytes) -> Named:
    reader = _Reader(raw, 6)
    name = reader.name()
    reader.end()
    if raw[5] not in b"SP":
        raise UnacceptableError("08P01", f"invalid {_WORDS[raw[0]]} message subtype {raw[5]}")
    return Named(chr(raw[5]), name)


@lru_cache(maxsize=256)
def execute(raw: bytes) -> Execute:
    reader = _Reader(raw)
    portal, limit = reader.name(), reader.signed()
    reader.end()
    return Execute(portal, limit)


def copy_fail(raw: bytes) -> None:
    reader = _Reader(raw)
    reader.text()
    reader.end()


# -- encoding ----------------------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + LENGTH.pack(len(body) + 4) + body


SYNC = message(b"S")
FLUSH = message(b"H")
TERMINATE = message(b"X")


def called(raw: bytes) -> int:
    """Return the OID of the function that a FunctionCall names. Nothing else of it is read: it is never sent."""
    return int.from_bytes(raw[5:9], "big")


def encode_query(text: bytes) -> bytes:
    return message(b"Q", text + b"\0")


def encode_parse(parsed: Parse) -> bytes:
    oids = Struct(f"!H{len(parsed.oids)}I").pack(len(parsed.oids), *parsed.oids)
    return message(b"P", parsed.name.encode() + b"\0" + parsed.text + b"\0" + oids)


def encode_bind(bound: Bind) -> bytes:
    """A Bind whose results are asked for as text."""
    formats = Struct(f"!H{len(bound.formats)}H").pack(len(bound.formats), *bound.formats)
    values = b"".join(_SIGNED.pack(-1) if v is None else _SIGNED.pack(len(v)) + v for v in bound.values)
    head = bound.portal.encode() + b"\0" + bound.statement.encode() + b"\0" + formats
    return message(b"B", head + len(bound.values).to_bytes(2, "big") + values + b"\0\0")


def encode_describe_portal(portal: str) -> bytes:
    return message(b"D", b"P" + portal.encode() + b"\0")


def encode_execute(portal: str, limit: int = 0) -> bytes:
    return message(b"E", portal.encode() + b"\0" + _SIGNED.pack(limit))


IMPOSSIBLE_CALL = message(b"F", Struct("!IHHH").pack(0, 0, 0, 0))
"""A FunctionCall of the function with OID 0, which there never is."""


def encode_password(secret: bytes) -> bytes:
    return message(b"p", secret)


def encode_startup(parameters: dict[str, str]) -> bytes:
    """A StartupMessage of protocol 3.0. No parameter may hold a NUL (checked where they are allowed)."""
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items())
    return LENGTH.pack(len(body) + 9) + b"\x00\x03\x00\x00" + body + b"\0"


def encode_cancel(process: int, secret: bytes) -> bytes:
    return LENGTH.pack(12 + len(secret)) + b"\x04\xd2\x16\x2e" + LENGTH.pack(process) + secret


SSL_REQUEST = LENGTH.pack(8) + b"\x04\xd2\x16\x2f"
