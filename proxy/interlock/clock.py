"""Time and randomness, injected: nothing below the front ends calls the operating system for either."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

Entropy = Callable[[int], bytes]
"""Returns that many unpredictable bytes. `secrets.token_bytes` in production."""


class Clock(Protocol):
    """Wall time in UTC and a monotonic offset, both of one instant's making."""

    def now(self) -> datetime:
        """Return wall time, timezone UTC."""
        ...

    def wall_us(self) -> int:
        """Return the same as microseconds since 1970, for those who ask for every event."""
        ...

    def monotonic_us(self) -> int:
        """Return microseconds since an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251  the one place that reads the machine's clock

    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


system_entropy: Entropy = secrets.token_bytes


def rfc3339(moment: datetime) -> str:
    """Render as `2026-01-02T03:04:05.000006Z`: UTC, always six digits (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(clock: Clock, entropy: Entropy) -> str:
    """Return a ULID: 48 bits of milliseconds and 80 random bits, 26 characters that sort by time."""
    value = (int(clock.now().timestamp() * 1000) << 80) | int.from_bytes(entropy(10), "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))
