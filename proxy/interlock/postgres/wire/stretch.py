"""The stretch that most statements are: one Bind run to its end and synced, or one Query, in one read, and its answer in another.

Knows: how drivers write it ([Parse] Bind [Describe] Execute Sync, of the nameless portal) and how a server answers when
nothing special happens. Must not know: what was decided, sockets.

Theory of operation. Every function says what a read is only when it is exactly that and nothing else, to the last byte and
with every length checked; for anything that differs by a byte they say None, and the read goes the ordinary way, message
by message (frame, requests, pipeline), which alone judges what is wrong with it. So this knows no errors.

Compiled (`_scan.c`) where a compiler was there when the package was built. Both forms say the same of every read
(tests/postgres/wire/test_stretch.py).
"""

from __future__ import annotations

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire import requests
from interlock.postgres.wire.frame import BIND_CAP, LENGTH, SERVER_CAP, TEXT_CAP
from interlock.postgres.wire.requests import SYNC
from interlock.postgres.wire.rows import skip_rows_plain

__all__ = [
    "Stretch", "answered", "answered_plain", "asked", "asked_plain", "queried", "queried_plain", "query", "query_plain",
]  # fmt: skip

_length = LENGTH.unpack_from

_DESCRIBE = requests.encode_describe_portal("")
_RUN = requests.encode_execute("") + SYNC
_TAILS = {_RUN: False, _DESCRIBE + _RUN: True}
"""What follows the Bind, and whether a Describe is part of it."""

_PARSED, _BOUND, _NO_DATA, _READY = b"1\0\0\0\4", b"2\0\0\0\4", b"n\0\0\0\4", b"Z\0\0\0\5"
_STATUSES = b"ITE"
_PARSE, _BIND, _QUERY, _ROW, _ROWS, _COMPLETE = b"PBQDTC"


Stretch = tuple[bytes, str, bool, int]
"""The whole Parse message, empty without one; the name of the statement; whether the portal is described; and the place where the
format codes of the Bind begin."""


def asked_plain(data: bytes, /) -> Stretch | None:
    """Return the stretch that a read of the client is."""
    size, start = len(data), 0
    if size < 13:
        return None
    if data[0] == _PARSE:
        start = 1 + _length(data, 1)[0]
        if not 9 <= start <= TEXT_CAP or start + 5 > size:
            return None
    if data[start] != _BIND:
        return None
    end = start + 1 + _length(data, start + 1)[0]
    if not 13 <= end - start <= BIND_CAP or end >= size:
        return None
    described = _TAILS.get(data[end:])
    if described is None:
        return None
    try:
        bind = requests.bind(data[start:end])
    except RemoteProtocolError:
        return None
    if bind.portal or max(bind.result_formats, default=0) > 1:
        return None
    return data[:start], bind.statement, described, start + bind.at


def query_plain(data: bytes, /) -> bytes | None:
    """Return the text when a read of the client is one Query."""
    size = len(data)
    if size < 6 or data[0] != _QUERY or _length(data, 1)[0] != size - 1 or size > TEXT_CAP:
        return None
    return data[5:-1] if data.find(0, 5) == size - 1 else None


def queried_plain(data: bytes, /) -> tuple[bytes, str] | None:
    """Return (command tag, transaction status) of a read that is the whole answer to a Query of one statement."""
    size = len(data)
    if size < 16 or data[-6:-1] != _READY:
        return None
    pos, last = 0, size - 6
    if data[0] == _ROWS:
        (length,) = _length(data, 1)
        if not 6 <= length <= SERVER_CAP or 1 + length >= last:
            return None
        pos = skip_rows_plain(data, 1 + length)
    return _ended(data, pos, last)


def answered_plain(data: bytes, parsed: bool, described: bool, /) -> tuple[bytes, str] | None:
    """Return (command tag, transaction status) of a read that is the whole answer to such a stretch."""
    size, pos = len(data), 5
    if parsed:
        if data[:10] != _PARSED + _BOUND:
            return None
        pos = 10
    elif data[:5] != _BOUND:
        return None
    if data[-6:-1] != _READY or size < pos + 16:
        return None
    last = size - 6
    if described:
        (length,) = _length(data, pos + 1)
        if data[pos] == _ROWS:
            if not 6 <= length <= SERVER_CAP:
                return None
        elif data[pos : pos + 5] != _NO_DATA:
            return None
        pos += 1 + length
    if pos < last and data[pos] == _ROW:
        pos = skip_rows_plain(data, pos)
    return _ended(data, pos, last)


def _ended(data: bytes, pos: int, last: int) -> tuple[bytes, str] | None:
    """Return (command tag, transaction status) when a CommandComplete goes from `pos` to `last`, where ReadyForQuery begins."""
    if pos + 5 >= last or data[pos] != _COMPLETE or pos + 1 + _length(data, pos + 1)[0] != last:
        return None
    status = data[-1]
    return (data[pos + 5 : last - 1], chr(status)) if data[last - 1] == 0 and status in _STATUSES else None


try:
    from interlock.postgres.wire._scan import answered, asked, queried, query
except ImportError:
    answered, asked, queried, query = answered_plain, asked_plain, queried_plain, query_plain
