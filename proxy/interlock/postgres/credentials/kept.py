"""A secret that is fetched when needed and kept until shortly before it ends; never longer, whatever happens.

Knows: an injected clock. Must not know: what is fetched, from where.

One fetch at a time, whoever asks. When it fails, everybody who waits gets the error: what was kept before has ended, or
ends before a connection made with it would have begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from interlock.clock import Clock

T = TypeVar("T")

MARGIN_S = 60.0
"""A login begins at most this long before its secret ends; for a short-lived secret a tenth of its life."""


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    value: T
    until: datetime
    until_us: int


class Kept(Generic[T]):
    """`fetch` returns a value and for how many seconds it holds."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[T, float]]], *, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._held: _Held[T] | None = None
        self._flight: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Return the value, fetched anew unless the one at hand holds for a while. Raises what `fetch` raises."""
        held = self._held
        # The earlier of both clocks: the monotonic one may stand while a machine sleeps, the other can be set back.
        if held is not None and self._clock.monotonic_us() < held.until_us and self._clock.now() < held.until:
            return held.value
        self._held = None
        if self._flight is None:
            self._flight = asyncio.get_running_loop().create_task(self._refresh())
            self._flight.add_done_callback(_seen)
        # One waiter that leaves must not end the fetch that the others wait for.
        return await asyncio.shield(self._flight)

    def forget(self) -> bool:
        """Drop the value; say whether there was one."""
        held, self._held = self._held, None
        return held is not None

    async def close(self) -> None:
        """End a fetch under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    async def _refresh(self) -> T:
        # Its life is counted from before it was asked for: the answer's way takes away from it, never adds.
        now, now_us = self._clock.now(), self._clock.monotonic_us()
        try:
            value, seconds = await self._fetch()
        finally:
            self._flight = None
        usable = max(0.0, seconds - min(MARGIN_S, seconds / 10))
        self._held = _Held(value, now + timedelta(seconds=usable), now_us + int(usable * 1_000_000))
        return value


def _seen(task: asyncio.Task[T]) -> None:
    """Take the error of a fetch that nobody waits for any more, or asyncio reports it as lost."""
    if not task.cancelled():
        task.exception()
