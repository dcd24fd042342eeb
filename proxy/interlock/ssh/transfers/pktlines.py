"""pkt-lines of git: a length of four hexadecimal digits that counts itself, then that many bytes. Pure.

Spec: gitprotocol-common(5). 0000 is a flush; 0001 to 0003 are of the second version, which a push does not speak.
"""

from __future__ import annotations

import re

from interlock.errors import RemoteProtocolError

MAX_LENGTH = 65520
"""Bytes of one line with its length."""

_LENGTH = re.compile(rb"[0-9a-fA-F]{4}\Z")


FLUSH = b""
"""What is read of a flush: no line has no data."""


def encode(data: bytes) -> bytes:
    return b"%04x%b" % (len(data) + 4, data) if data != FLUSH else b"0000"


def take(kept: bytearray) -> bytes | None:
    """Take one line off the front: its data, or FLUSH. None: not all of it is there. Raise RemoteProtocolError."""
    if len(kept) < 4:
        return None
    if not _LENGTH.match(kept[:4]):
        raise RemoteProtocolError("the client sent what is no pkt-line")
    length = int(kept[:4], 16)
    if length == 0:
        del kept[:4]
        return FLUSH
    if not 4 < length <= MAX_LENGTH:
        raise RemoteProtocolError("the client sent a pkt-line of a kind that a push has not")
    if len(kept) < length:
        return None
    data = bytes(kept[4:length])
    del kept[:length]
    return data
