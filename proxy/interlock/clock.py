"""Time and randomness, injected: nothing below the front ends calls the operating system for either."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

Entropy = Callable[[int], bytes]
"""Returns that many unpredictable bytes. `secrets.token_bytes` in production."""


class Clock(Protocol):
    """Wall time in UTC and a monotonic offset, both of one instant's making."""

    def now(self) -> datetime:
        """Return wall time, timezone UTC."""
        ...

    def monotonic_us(self) -> int:
        """Return microseconds since an arbitrary start; never goes back."""
        ...

    # The same, of the same start, as the machine tells it, for those who ask for every event.

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds since the start of `monotonic_us`."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251  the one place that reads the machine's clock

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000

    wall_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)


system_entropy: Entropy = secrets.token_bytes


def rfc3339(moment: datetime) -> str:
    """Render as `2026-01-02T03:04:05.000006Z`: UTC, always six digits (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def unix_ns(moment: datetime) -> int:
    """Return nanoseconds since 1970, as `Clock.wall_ns` counts them."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(clock: Clock, entropy: Entropy) -> str:
    """Return a ULID: 48 bits of milliseconds and 80 random bits, 26 characters that sort by time."""
    value = (int(clock.now().timestamp() * 1000) << 80) | int.from_bytes(entropy(10), "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))
