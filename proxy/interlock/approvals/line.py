"""The line before the desk: who waits for one request, and how they are woken.

Knows asyncio's events. Must not know states' rules, the store or the journal. Waiters are woken, never polled; a timeout is
counted by the injected clock, so a test that sets the clock decides when it is over.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from interlock.approvals.model import ApprovalRequest, State
from interlock.clock import Clock


class Line:
    """One request in memory: its latest known value, the lock of whoever changes it, and all who wait for it."""

    __slots__ = ("_changed", "due", "holding", "lock", "request")

    def __init__(self, request: ApprovalRequest) -> None:
        self.request = request
        self.lock = asyncio.Lock()
        self.holding = 0  # clients that wait in place
        self.due: datetime | None = None  # the deadline that was noted down for it
        self._changed = asyncio.Event()

    def update(self, request: ApprovalRequest) -> None:
        self.request = request
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again: the request changed, or the clock did."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def settled(self, clock: Clock, timeout: float) -> ApprovalRequest:
        """Return the request once it is not pending, or as it is after `timeout` seconds or an `end_waiting`."""
        deadline = clock.monotonic_us() + int(timeout * 1_000_000)
        while self.request.state is State.PENDING and self.holding > 0:
            left = (deadline - clock.monotonic_us()) / 1_000_000
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                pass  # looked at again above, by our own clock
        return self.request

    def end_waiting(self) -> None:
        """Nobody waits in place any more, whoever believes so: the node is shutting down."""
        self.holding = 0
        self.wake()
