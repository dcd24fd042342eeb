"""What a part of the log that all transcripts share looks like, there and back (redo.py).

A header line that names the boot of the machine, and records: length and CRC-32 of what follows, then
`<kind>/<session>/<file> <offset>\\n` and the bytes. `_scribe.c` encodes them too.

Knows: bytes. Must not know: when they are written, what is done with them after a start.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

LONGEST = 16 << 20
"""Bytes of a record. A longer one was never written."""

_HEAD = struct.Struct("!II")
_NAME = re.compile(rb"(sessions|journal)/([A-Za-z0-9][A-Za-z0-9_-]{0,63})/([a-z][a-z0-9.-]{0,63}) ([0-9]{1,15})\n")
_BOOT = Path("/proc/sys/kernel/random/boot_id")

Appended = tuple[bytes, int, list[bytes]]
"""The name of a file below the data directory, and where and what was appended to it."""


def boot_id() -> str:
    """Return what names this boot of the machine; where nothing does, another each time, so that everything is replayed."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.urandom(16).hex()


def header(boot: str) -> bytes:
    """Return the first line of a part that is written on this boot."""
    return b"interlock redo 1 %b\n" % boot.encode()


def record(appended: Appended) -> bytes:
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


def records(data: bytes) -> Iterator[tuple[Path, int, bytes]]:
    """Yield (file below the data directory, offset, bytes) up to the first that is torn, or names no file of a transcript."""
    pos = 0
    while len(data) - pos >= _HEAD.size:
        length, crc = _HEAD.unpack_from(data, pos)
        pos += _HEAD.size
        body = data[pos : pos + length]
        if length > LONGEST or len(body) < length or zlib.crc32(body) != crc:
            return
        named = _NAME.match(body)
        if named is None:
            return
        kind, session, name, offset = named.groups()
        yield Path(kind.decode(), session.decode(), name.decode()), int(offset), body[named.end() :]
        pos += length
