"""The server's messages that we read, and those that we write in its place.

Knows: PostgreSQL manual, "Message Formats" and "Error and Notice Message Fields".
Must not know: why something is refused, identity, sockets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.frame import LENGTH
from interlock.postgres.wire.requests import message

REFUSED = "interlock_refused_"
"""Prefix of the name that can't exist and that no text begins with. Clients can't use names that begin so."""

MAX_DIGITS = 15
"""Of a number of rows. Records hold integers below 2^53, and nobody has more rows than that."""


class RefusedNames(NamedTuple):
    """What stands for the refused messages of one session: a portal that can't exist, a text that can't be parsed."""

    portal: str
    text: str


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """What we say in an ErrorResponse or NoticeResponse."""

    severity: str
    sqlstate: str
    message: str
    detail: str = ""
    hint: str = ""

    def encode(self, kind: bytes) -> bytes:
        fields = (
            ("S", self.severity), ("V", self.severity), ("C", self.sqlstate),
            ("M", self.message), ("D", self.detail), ("H", self.hint),
        )  # fmt: skip
        # A NUL would end the field, and what follows would be read as another one.
        body = b"".join(f"{key}{value.replace(chr(0), ' ')}\0".encode("utf-8", "replace") for key, value in fields if value)
        return message(kind, body + b"\0")


def error(fields: ErrorFields) -> bytes:
    return fields.encode(b"E")


def notice(fields: ErrorFields) -> bytes:
    return fields.encode(b"N")


def error_fields(body: bytes) -> dict[str, str]:
    """Decode the body of an ErrorResponse; text that is not UTF-8 is shown with replacement marks."""
    fields: dict[str, str] = {}
    for part in body.split(b"\0"):
        if part:
            fields.setdefault(chr(part[0]), part[1:].decode("utf-8", "replace"))
    return fields


def parameter_status(body: bytes) -> tuple[str, str]:
    parts = body.split(b"\0")
    if len(parts) != 3 or parts[2]:
        raise RemoteProtocolError("the server sent a malformed ParameterStatus")
    return parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace")


def encode_parameter_status(name: str, value: str) -> bytes:
    return message(b"S", f"{name}\0{value}\0".encode())


def parameter_types(body: bytes) -> tuple[int, ...]:
    """Decode a ParameterDescription into type OIDs."""
    if len(body) < 2 or (len(body) - 2) % 4:
        raise RemoteProtocolError("the server sent a malformed ParameterDescription")
    return tuple(int.from_bytes(body[i : i + 4], "big") for i in range(2, len(body), 4))


def rows_of(tag: bytes) -> int | None:
    """Return the number of rows that a command tag names: its last word, when that is a number that a record can hold."""
    last = tag.rpartition(b" ")[2]
    return int(last) if last.isdigit() and len(last) <= MAX_DIGITS else None


AUTHENTICATION_OK = message(b"R", LENGTH.pack(0))
AUTHENTICATION_CLEARTEXT = message(b"R", LENGTH.pack(3))


def authentication_sasl(mechanisms: tuple[str, ...]) -> bytes:
    return message(b"R", LENGTH.pack(10) + b"".join(m.encode() + b"\0" for m in mechanisms) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    return message(b"R", LENGTH.pack(11) + data)


def authentication_sasl_final(data: bytes) -> bytes:
    return message(b"R", LENGTH.pack(12) + data)


def backend_key_data(process: int, secret: bytes) -> bytes:
    return message(b"K", LENGTH.pack(process) + secret)


def ready_for_query(status: str = "I") -> bytes:
    return message(b"Z", status.encode())


def negotiate_protocol(minor: int, unknown: tuple[str, ...]) -> bytes:
    """NegotiateProtocolVersion: the newest that is spoken, written as servers do, with the major number."""
    names = b"".join(name.encode() + b"\0" for name in unknown)
    return message(b"v", LENGTH.pack(0x00030000 + minor) + LENGTH.pack(len(unknown)) + names)
