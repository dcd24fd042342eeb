"""Parameter values for people: the text and binary forms of the common types.

Knows: the binary send/receive formats of PostgreSQL's built-in types (src/backend/utils/adt/*send), and how the server
writes the same value as text: a reviewer reads what psql would show.
Must not know: policy, sockets. Never raises: what can't be decoded is None, and the raw bytes stay in the record.
"""

from __future__ import annotations

import ipaddress
import re
import struct
import uuid
from collections.abc import Callable

from interlock.postgres.wire import moments, numbers

MAX_SHOWN = 4096
"""Characters of a value that are shown; the raw bytes decide, this is for reading."""
_MAX_ELEMENTS = 1000
_MAX_DIMENSIONS = 6
_INT = struct.Struct("!i")
_ARRAY = struct.Struct("!iiI")
_BOUNDS = struct.Struct("!ii")
_TO_QUOTE = re.compile(r'[\s{}",\\]|\A\Z|\A(?i:null)\Z')
_TO_QUOTE_IN_RANGE = re.compile(r'[\s()\[\]",\\]|\A\Z')

Decoder = Callable[[bytes], str]


class _Reader:
    """Takes fields off a value; one that is cut short is a ValueError."""

    __slots__ = ("_pos", "_raw")

    def __init__(self, raw: bytes, pos: int = 0) -> None:
        self._raw = raw
        self._pos = pos

    def number(self) -> int:
        (value,) = _INT.unpack(self.take(4))
        return int(value)

    def take(self, size: int) -> bytes:
        taken = self._raw[self._pos : self._pos + size]
        if size < 0 or len(taken) != size:
            raise ValueError("a value is cut short")
        self._pos += size
        return taken

    def end(self) -> None:
        if self._pos != len(self._raw):
            raise ValueError("bytes after the end of a value")


def _bool(raw: bytes) -> str:
    return {b"\0": "f", b"\1": "t"}[raw]


def _versioned(raw: bytes) -> str:
    """jsonb and jsonpath: a version, then text."""
    if raw[:1] != b"\1":
        raise ValueError("unknown version")
    return raw[1:].decode()


def _uuid(raw: bytes) -> str:
    return str(uuid.UUID(bytes=raw))


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _lsn(raw: bytes) -> str:
    high, low = struct.unpack("!II", raw)
    return f"{high:X}/{low:X}"


def _bits(raw: bytes) -> str:
    reader = _Reader(raw)
    count = reader.number()
    octets = reader.take(-(-count // 8))
    reader.end()
    return "".join(f"{octet:08b}" for octet in octets)[:count]


def _network(raw: bytes) -> str:
    """inet and cidr: family, bits, whether it is a cidr, length, address."""
    family, bits, cidr, size = struct.unpack_from("!BBBB", raw)
    widest = {2: 4, 3: 16}[family]
    if len(raw) != 4 + size or size != widest or bits > 8 * size:
        raise ValueError("a malformed address")
    address = _ip6(raw[4:]) if size == 16 else str(ipaddress.IPv4Address(raw[4:]))
    return address if not cidr and bits == 8 * size else f"{address}/{bits}"


def _ip6(raw: bytes) -> str:
    """Write an IPv6 address as the server does: the last four octets of a mapped or compatible IPv4 address with points."""
    if raw[:12] in (bytes(12), bytes(10) + b"\xff\xff") and (raw[10:12] == b"\xff\xff" or raw[12:14] != b"\0\0"):
        mapped = "ffff:" if raw[10] else ""
        return f"::{mapped}{ipaddress.IPv4Address(raw[12:])}"
    return str(ipaddress.IPv6Address(raw))


def _array(raw: bytes) -> str:
    dimensions, _, element = _ARRAY.unpack_from(raw)
    if dimensions == 0:
        return "{}"
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        raise ValueError("an array of more dimensions than there can be")
    decode = _BINARY[element]
    if decode is _array:
        raise ValueError("an array of arrays")
    sizes, lowest, total = [], [], 1
    for at in range(dimensions):
        size, low = _BOUNDS.unpack_from(raw, 12 + 8 * at)
        total *= size
        sizes.append(size)
        lowest.append(low)
        if size < 1 or total > _MAX_ELEMENTS:
            raise ValueError("too many elements to show")
    reader = _Reader(raw, 12 + 8 * dimensions)
    elements = [_element(reader, decode, element) for _ in range(total)]
    reader.end()
    for size in reversed(sizes):
        elements = ["{" + ",".join(elements[i : i + size]) + "}" for i in range(0, len(elements), size)]
    bounds = "".join(f"[{low}:{low + size - 1}]" for low, size in zip(lowest, sizes, strict=True))
    return (f"{bounds}=" if any(low != 1 for low in lowest) else "") + elements[0]


def _element(reader: _Reader, decode: Decoder, oid: int) -> str:
    length = reader.number()
    if length == -1:
        return "NULL"
    value = _decoded(decode, oid, reader.take(length))
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if _TO_QUOTE.search(value) else value


def _range_of(oid: int) -> Decoder:
    def shown(raw: bytes) -> str:
        reader = _Reader(raw)
        text = _range(reader, oid)
        reader.end()
        return text

    return shown


def _multirange_of(oid: int) -> Decoder:
    def shown(raw: bytes) -> str:
        reader = _Reader(raw)
        count = reader.number()
        if not 0 <= count <= _MAX_ELEMENTS:
            raise ValueError("too many ranges to show")
        parts = [_range_of(oid)(reader.take(reader.number())) for _ in range(count)]
        reader.end()
        return "{" + ",".join(parts) + "}"

    return shown


def _range(reader: _Reader, oid: int) -> str:
    """Write a range; the bits of its flags are empty, lower and upper included, lower and upper infinite."""
    (flags,) = reader.take(1)
    if flags & 0x01:
        return "empty"
    lower = "" if flags & 0x08 else _bound(reader, oid)
    upper = "" if flags & 0x10 else _bound(reader, oid)
    return f"{'[' if flags & 0x02 else '('}{lower},{upper}{']' if flags & 0x04 else ')'}"


def _bound(reader: _Reader, oid: int) -> str:
    value = _decoded(_BINARY[oid], oid, reader.take(reader.number()))
    return '"' + value.replace("\\", "\\\\").replace('"', '""') + '"' if _TO_QUOTE_IN_RANGE.search(value) else value


_SIZES = {
    16: 1, 20: 8, 21: 2, 23: 4, 26: 4, 28: 4, 29: 4, 700: 4, 701: 8, 774: 8, 829: 6, 1082: 4, 1083: 8, 1114: 8, 1184: 8,
    1186: 16, 1266: 12, 2950: 16, 3220: 8, 5069: 8,
}  # fmt: skip
_TEXTS = (18, 19, 25, 114, 142, 705, 1042, 1043)  # "char", name, text, json, xml, unknown, bpchar, varchar
_ARRAYS = (
    143, 199, 271, 1000, 1001, 1002, 1003, 1005, 1007, 1009, 1010, 1011, 1012, 1014, 1015, 1016, 1021, 1022, 1028, 1040, 1041,
    1115, 1182, 1183, 1185, 1187, 1231, 1270, 1561, 1563, 2951, 3221, 3807, 3905, 3907, 3909, 3911, 3913, 3927, 775, 651, 4073,
)  # fmt: skip
_BINARY: dict[int, Decoder] = {
    16: _bool,
    17: lambda raw: "\\x" + raw.hex(),
    20: numbers.integer,
    21: numbers.integer,
    23: numbers.integer,
    26: numbers.unsigned,
    28: numbers.unsigned,
    29: numbers.unsigned,
    650: _network,
    700: numbers.float4,
    701: numbers.float8,
    774: _mac,
    829: _mac,
    869: _network,
    1082: moments.date,
    1083: moments.time,
    1114: moments.timestamp,
    1184: moments.timestamptz,
    1186: moments.interval,
    1266: moments.timetz,
    1560: _bits,
    1562: _bits,
    1700: numbers.numeric,
    2950: _uuid,
    3220: _lsn,
    3802: _versioned,
    3904: _range_of(23),
    3906: _range_of(1700),
    3908: _range_of(1114),
    3910: _range_of(1184),
    3912: _range_of(1082),
    3926: _range_of(20),
    4072: _versioned,
    4451: _multirange_of(23),
    4532: _multirange_of(1700),
    4533: _multirange_of(1114),
    4534: _multirange_of(1184),
    4535: _multirange_of(1082),
    4536: _multirange_of(20),
    5069: numbers.unsigned,
    **dict.fromkeys(_TEXTS, bytes.decode),
    **dict.fromkeys(_ARRAYS, _array),
}
"""By type OID, which are fixed for built-in types (pg_type.dat). Others are left to the raw bytes: to guess is to deceive."""


def _decoded(decode: Decoder, oid: int, raw: bytes) -> str:
    if len(raw) != _SIZES.get(oid, len(raw)):
        raise ValueError("a value of another size than its type's")
    return decode(raw)


def shown(raw: bytes, format_code: int, oid: int) -> str | None:
    """Return the value as text, cut at MAX_SHOWN with a mark; None for what can't be decoded."""
    try:
        if format_code == 0 and len(raw) > 4 * MAX_SHOWN:
            return raw[: 4 * MAX_SHOWN].decode("utf-8", "ignore")[:MAX_SHOWN] + f"… ({len(raw)} bytes)"
        text = raw.decode() if format_code == 0 else _decoded(_BINARY[oid], oid, raw)
    except (ValueError, KeyError, IndexError, OverflowError, struct.error):
        return None
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + f"… ({len(text)} characters)"
