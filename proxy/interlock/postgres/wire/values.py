"""Parameter values for people: the text and binary forms of the common types.

Knows: the binary send/receive formats of PostgreSQL's built-in types (src/backend/utils/adt/*send).
Must not know: policy, sockets. Never raises: what can't be decoded is None, and the raw bytes stay in the record.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from datetime import date, datetime, timedelta

MAX_SHOWN = 4096
"""Characters of a value that are shown; the raw bytes decide, this is for reading."""
_MAX_ELEMENTS = 1000
_EPOCH = date(2000, 1, 1)
_NUMERIC_SIGNS = {0x0000: "", 0x4000: "-"}


def _integer(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big", signed=True))


def _timestamp(suffix: str) -> Callable[[bytes], str]:
    def shown(raw: bytes) -> str:
        (micros,) = struct.unpack("!q", raw)
        return (datetime(2000, 1, 1) + timedelta(microseconds=micros)).isoformat(" ") + suffix  # noqa: DTZ001  the suffix says it

    return shown


def _numeric(raw: bytes) -> str:
    count, weight, sign, scale = struct.unpack_from("!HhHH", raw)
    if sign == 0xC000:
        return "NaN"
    digits = struct.unpack(f"!{count}H", raw[8:])
    if abs(weight) > 1000 or any(digit > 9999 for digit in digits):
        raise ValueError("out of bounds")
    whole = "".join(f"{digits[i] if i < count else 0:04d}" for i in range(weight + 1)).lstrip("0") or "0"
    places = -(-scale // 4)
    after = "".join(f"{digits[i] if 0 <= i < count else 0:04d}" for i in range(weight + 1, weight + 1 + places))[:scale]
    return _NUMERIC_SIGNS[sign] + whole + (f".{after}" if after else "")


def _bool(raw: bytes) -> str:
    return {b"\0": "false", b"\1": "true"}[raw]


def _jsonb(raw: bytes) -> str:
    if raw[:1] != b"\1":
        raise ValueError("unknown jsonb version")
    return raw[1:].decode()


def _array(raw: bytes) -> str:
    """One dimension of a known element type; more are left to the raw bytes."""
    dimensions, _, element = struct.unpack_from("!iiI", raw)
    if dimensions == 0:
        return "{}"
    if dimensions != 1:
        raise ValueError("several dimensions")
    (count,) = struct.unpack_from("!i", raw, 12)
    if not 0 <= count <= _MAX_ELEMENTS:
        raise ValueError("too many elements to show")
    pos, shown = 20, []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", raw, pos)
        pos += 4
        if length == -1:
            shown.append("NULL")
            continue
        if length < 0 or pos + length > len(raw):
            raise ValueError("an element is cut short")
        value = _BINARY[element](raw[pos : pos + length])
        shown.append('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if element in _TEXTS else value)
        pos += length
    if pos != len(raw):
        raise ValueError("bytes after the last element")
    return "{" + ",".join(shown) + "}"


_TEXTS = frozenset((18, 19, 25, 114, 142, 705, 1042, 1043))
_SIZES = {20: 8, 21: 2, 23: 4, 26: 4, 700: 4, 701: 8, 1082: 4, 1114: 8, 1184: 8, 2950: 16}
_BINARY: dict[int, Callable[[bytes], str]] = {
    16: _bool,
    17: lambda raw: "\\x" + raw.hex(),
    20: _integer,
    21: _integer,
    23: _integer,
    26: lambda raw: str(int.from_bytes(raw, "big")),
    700: lambda raw: repr(struct.unpack("!f", raw)[0]),
    701: lambda raw: repr(struct.unpack("!d", raw)[0]),
    1082: lambda raw: (_EPOCH + timedelta(days=struct.unpack("!i", raw)[0])).isoformat(),
    1114: _timestamp(""),
    1184: _timestamp("+00:00"),
    1700: _numeric,
    2950: lambda raw: str(uuid.UUID(bytes=raw)),
    3802: _jsonb,
    **dict.fromkeys(_TEXTS, bytes.decode),
    **dict.fromkeys((1000, 1001, 1005, 1007, 1009, 1014, 1015, 1016, 1021, 1022, 1028, 1115, 1182, 1185, 1231, 2951), _array),
}


def shown(raw: bytes | None, format_code: int, oid: int) -> str | None:
    """Return the value as text, cut at MAX_SHOWN with a mark; None for NULL and for what can't be decoded."""
    if raw is None:
        return None
    try:
        if format_code == 0 and len(raw) > 4 * MAX_SHOWN:
            return raw[: 4 * MAX_SHOWN].decode("utf-8", "ignore")[:MAX_SHOWN] + f"… ({len(raw)} bytes)"
        if format_code == 0:
            text = raw.decode()
        else:
            decode = _BINARY.get(oid)
            if decode is None or len(raw) != _SIZES.get(oid, len(raw)):
                return None
            text = decode(raw)
    except (ValueError, KeyError, IndexError, OverflowError, struct.error):
        return None
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + f"… ({len(text)} characters)"
