"""A clock that only moves when a test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ManualClock:
    def __init__(self, start: datetime = datetime(2026, 1, 2, 2, 13, tzinfo=UTC)) -> None:
        self._now = start
        self._mono_us = 1_000_000

    def now(self) -> datetime:
        return self._now

    def wall_ns(self) -> int:
        return (self._now - _EPOCH) // timedelta(microseconds=1) * 1000

    def monotonic_us(self) -> int:
        return self._mono_us

    def monotonic_ns(self) -> int:
        return self._mono_us * 1000

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks."""
        self._now += timedelta(seconds=seconds)
        self._mono_us += int(seconds * 1_000_000)

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock; the monotonic one does not notice."""
        self._now += timedelta(seconds=seconds)
