"""Keeps the desk's time: reckons it, remembers deadlines, and wakes when the next one is over.

Knows clocks and asyncio. Must not know what a deadline ends: it calls back. It sleeps until the next deadline by the
injected clock, and looks at the clocks every `PULSE` seconds in between, for somebody may have set the wall clock.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from interlock.approvals.reckoning import Mark, reckon
from interlock.clock import Clock

log = structlog.get_logger()

PULSE = 30.0
"""Seconds after which the clocks are looked at again."""

RETRY = 1.0
"""Seconds before time is kept again after something failed."""


class Timekeeper:
    """One desk's time. `now()` never goes back, whatever happens to the wall clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mark = Mark(clock.now(), clock.monotonic_us())
        self._deadlines: list[tuple[datetime, str]] = []
        self._sooner = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def resume(self, high_water: datetime) -> None:
        """Go on from the latest instant that was ever stored."""
        self._mark = reckon(Mark(high_water), self._clock.now(), self._clock.monotonic_us())

    def now(self) -> datetime:
        self._mark = reckon(self._mark, self._clock.now(), self._clock.monotonic_us())
        return self._mark.instant

    def note(self, due: datetime, ident: str) -> None:
        """Remember a deadline. One that does not hold any more may stay: whoever is called back looks again."""
        heapq.heappush(self._deadlines, (due, ident))
        if self._deadlines[0] == (due, ident):
            self._sooner.set()

    def next_due(self) -> tuple[datetime, str] | None:
        """Return the earliest deadline that is over, or None."""
        return self._deadlines[0] if self._deadlines and self._deadlines[0][0] <= self.now() else None

    def done(self, due: tuple[datetime, str]) -> None:
        """Forget a deadline that was dealt with."""
        if self._deadlines and self._deadlines[0] == due:
            heapq.heappop(self._deadlines)

    def start(self, end_due: Callable[[], Awaitable[None]], keep: Callable[[datetime], Awaitable[object]]) -> None:
        """Call `end_due` whenever a deadline is over, and `keep` with the time every `PULSE` seconds."""
        self._task = asyncio.create_task(self._run(end_due, keep), name="approvals-time")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, end_due: Callable[[], Awaitable[None]], keep: Callable[[datetime], Awaitable[object]]) -> None:
        kept = self.now()
        while True:
            self._sooner.clear()
            left = PULSE
            if self._deadlines:
                left = min(left, max(0.0, (self._deadlines[0][0] - self.now()).total_seconds()))
            try:
                async with asyncio.timeout(left):
                    await self._sooner.wait()
            except TimeoutError:
                pass
            try:
                await end_due()
                if (self.now() - kept).total_seconds() >= PULSE:
                    kept = self.now()
                    await keep(kept)
            except Exception as error:
                # Whatever it is, time goes on being kept. An answer past its deadline is refused in any case.
                log.error("approvals.time_not_kept", error=type(error).__name__)
                await asyncio.sleep(RETRY)
