"""Dates, times and intervals from their binary form to the text that a server writes (ISO, postgres, UTC).

Knows: src/backend/utils/adt/{date,timestamp,datetime}.c. The calendar is computed here because Python's ends with the year
9999 and has none before the year 1. Must not know: policy, sockets. Raises struct.error and ValueError for broken bytes.
"""

from __future__ import annotations

from struct import Struct

_INT32 = Struct("!i")
_INT64 = Struct("!q")
_TIMETZ = Struct("!qi")
_INTERVAL = Struct("!qii")
_DAY = 86_400_000_000
_EPOCH = 2_451_545
"""Julian day of 2000-01-01."""


def date(raw: bytes) -> str:
    (days,) = _INT32.unpack(raw)
    return _infinite(days, 31) or _dated(days, "")


def timestamp(raw: bytes) -> str:
    return _timestamp(raw, "")


def timestamptz(raw: bytes) -> str:
    return _timestamp(raw, "+00")


def time(raw: bytes) -> str:
    (micros,) = _INT64.unpack(raw)
    return _clock(micros)


def timetz(raw: bytes) -> str:
    micros, west = _TIMETZ.unpack(raw)
    hours, rest = divmod(abs(west), 3600)
    minutes, seconds = divmod(rest, 60)
    zone = f"{'-' if west > 0 else '+'}{hours:02d}"
    if minutes or seconds:
        zone += f":{minutes:02d}"
    return _clock(micros) + zone + (f":{seconds:02d}" if seconds else "")


def interval(raw: bytes) -> str:
    """Write an interval as EncodeInterval does in the style `postgres`: a part after a negative one says its plus."""
    micros, days, months = _INTERVAL.unpack(raw)
    years, months = _towards_zero(months, 12)
    words: list[str] = []
    negative = False
    for value, unit in ((years, "year"), (months, "mon"), (days, "day")):
        if value:
            plus = "+" if negative and value > 0 else ""
            words.append(f"{plus}{value} {unit}{'' if value == 1 else 's'}")
            negative = value < 0
    if micros or not words:
        sign = "-" if micros < 0 else "+" if negative else ""
        words.append(sign + _clock(abs(micros)))
    return " ".join(words)


def _towards_zero(value: int, by: int) -> tuple[int, int]:
    whole, rest = divmod(abs(value), by)
    return (whole, rest) if value >= 0 else (-whole, -rest)


def _infinite(value: int, bits: int) -> str:
    return {(1 << bits) - 1: "infinity", -(1 << bits): "-infinity"}.get(value, "")


def _timestamp(raw: bytes, zone: str) -> str:
    (micros,) = _INT64.unpack(raw)
    days, clock = divmod(micros, _DAY)
    return _infinite(micros, 63) or _dated(days, f" {_clock(clock)}{zone}")


def _dated(days: int, clock: str) -> str:
    year, month, day = _calendar(days + _EPOCH)
    before_christ = year <= 0
    return f"{1 - year if before_christ else year:04d}-{month:02d}-{day:02d}{clock}{' BC' if before_christ else ''}"


def _clock(micros: int) -> str:
    if micros < 0:
        raise ValueError("a time before midnight")
    seconds, micros = divmod(micros, 1_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    part = f".{micros:06d}".rstrip("0") if micros else ""
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{part}"


def _calendar(julian: int) -> tuple[int, int, int]:
    """Return year, month and day of a Julian day in the Gregorian calendar, prolonged both ways (Richards 2013)."""
    if julian < 0:
        raise ValueError("before the calendar begins")
    f = julian + 1401 + (4 * julian + 274_277) // 146_097 * 3 // 4 - 38
    e = 4 * f + 3
    h = 5 * (e % 1461 // 4) + 2
    day, month = h % 153 // 5 + 1, (h // 153 + 2) % 12 + 1
    return e // 1461 - 4716 + (14 - month) // 12, month, day
