"""How late the event loop is: a timer that is due again and again, and by how much it came too late.

Every session of the process waits at least this long for its next answer, whatever else is quick. Knows the loop and the
clock; must not know who is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from interlock.clock import Clock

EVERY_S = 0.02


class LoopLag:
    """Tells `observe` seconds, fifty times a second, from `start` to `stop`. A loop's timers are good to a millisecond."""

    def __init__(self, observe: Callable[[float], None], *, clock: Clock) -> None:
        self._observe = observe
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due_us = 0

    def start(self) -> None:
        """Begin, on the running loop."""
        self._again()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._due_us = self._clock.monotonic_us() + int(EVERY_S * 1_000_000)
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._late)

    def _late(self) -> None:
        self._observe(max(0, self._clock.monotonic_us() - self._due_us) / 1_000_000)
        self._again()
