"""Numbers from their binary form to the text that a server writes.

Knows: numeric_send, and float8out with extra_float_digits at its default: the shortest digits that read back the same.
Must not know: policy, sockets. Raises struct.error and ValueError for broken bytes.
"""

from __future__ import annotations

import math
import struct

_FLOAT4 = struct.Struct("!f")
_FLOAT4_END = 3.4028235677973366e38  # half way to what would be 2^128
_NUMERIC = struct.Struct("!HhHH")
_SIGNS = {0x0000: "", 0x4000: "-"}
_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_LARGEST_WEIGHT = 1000
"""Groups of four digits before the point: a longer number is for no eye, and would cost as much as it claims."""
_FLOAT4_DIGITS, _FLOAT8_DIGITS = 6, 15
"""From so many digits before the point a server writes an exponent."""


def integer(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big", signed=True))


def unsigned(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big"))


def float4(raw: bytes) -> str:
    (value,) = _FLOAT4.unpack(raw)
    return _float(value, _shortest(raw, value) if math.isfinite(value) else "", _FLOAT4_DIGITS)


def _shortest(raw: bytes, value: float) -> str:
    """Return the fewest digits that read back as `raw`; one half way to a neighbour does not count, as at the server."""
    bits = int.from_bytes(raw, "big")
    halves = [(value + _FLOAT4.unpack((bits + step).to_bytes(4, "big"))[0]) / 2 for step in (1, -1) if bits & 0x7FFFFFFF]
    for digits in range(9):
        written = f"{value:.{digits}e}"
        read = float(written)
        if read not in halves and abs(read) < _FLOAT4_END and _FLOAT4.pack(read) == raw:
            break
    return written


def float8(raw: bytes) -> str:
    (value,) = struct.unpack("!d", raw)
    return _float(value, repr(value), _FLOAT8_DIGITS)


def numeric(raw: bytes) -> str:
    count, weight, sign, scale = _NUMERIC.unpack_from(raw)
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    digits = struct.unpack(f"!{count}H", raw[8:])
    if abs(weight) > _LARGEST_WEIGHT or scale > 4 * _LARGEST_WEIGHT or any(digit > 9999 for digit in digits):
        raise ValueError("out of bounds")
    whole = "".join(_group(digits, i) for i in range(weight + 1)).lstrip("0") or "0"
    after = "".join(_group(digits, i) for i in range(weight + 1, weight + 1 - (-scale // 4)))[:scale]
    shown = whole + (f".{after}" if after else "")
    return _SIGNS[sign] + shown if shown.strip("0.") else shown  # zero has no sign


def _group(digits: tuple[int, ...], index: int) -> str:
    return f"{digits[index] if 0 <= index < len(digits) else 0:04d}"


def _float(value: float, written: str, longest: int) -> str:
    """Write the shortest digits, which `written` has in any notation, where a server sets point and exponent."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    sign = "-" if math.copysign(1, value) < 0 else ""
    mantissa, _, exponent = written.lstrip("-").partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    point = len(digits) - len(part) + int(exponent or 0)  # of the digits, before the point
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0"
    if not -4 <= point - 1 < longest:
        shown = f"{digits[0]}.{digits[1:]}".rstrip(".")
        return f"{sign}{shown}e{'-' if point < 1 else '+'}{abs(point - 1):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[:point].ljust(point, '0')}" + (f".{digits[point:]}" if point < len(digits) else "")
