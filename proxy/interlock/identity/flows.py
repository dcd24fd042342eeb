"""The table of logins under way: bounded in number and time, and fair among those who fill it.

A flow is found by the fingerprint of its secret. Each source has so many, and room is kept by the clock. When the whole table is
full, whoever holds most gives way first, with what they began first: a crowd of flows from a few places keeps nobody else out.

Pure but for the clock. Must not know what a flow is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from interlock.clock import Clock
from interlock.errors import InterlockError, Reason

MAX_FLOWS = 10_000

F = TypeVar("F")


class Place:
    """Room for one flow while what it needs is still asked for: a hundred at once must not all find room for one."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.filled = False


class Flows(Generic[F]):
    def __init__(self, clock: Clock, *, most: int = MAX_FLOWS) -> None:
        self._clock = clock
        self._most = most
        self._flows: dict[bytes, tuple[F, str, int]] = {}
        self._of: dict[str, dict[bytes | Place, None]] = {}  # by source, oldest first
        self._ends: list[tuple[int, bytes]] = []
        self._places = 0

    def __len__(self) -> int:
        return len(self._flows) + self._places

    def held(self, source: str) -> int:
        return len(self._of.get(source, ()))

    @contextmanager
    def room(self, source: str, most: int) -> Iterator[Place]:
        """Hold room for one more flow of a source that may have `most`; `put` fills it. Raise InterlockError."""
        self._forget_the_old()
        if self.held(source) >= most or (len(self) >= self._most and not self._displaced(source)):
            raise InterlockError("too many logins are under way; wait a little", reason=Reason.LIMIT_REACHED)
        place = Place(source)
        self._of.setdefault(source, {})[place] = None
        self._places += 1
        try:
            yield place
        finally:
            if not place.filled:
                self._places -= 1
                self._uncount(source, place)

    def put(self, place: Place, key: bytes, flow: F, until_us: int) -> None:
        """Keep a flow in the room that was held for it."""
        place.filled = True
        self._places -= 1
        mine = self._of[place.source]
        del mine[place]
        mine[key] = None
        self._flows[key] = (flow, place.source, until_us)
        heapq.heappush(self._ends, (until_us, key))

    def get(self, key: bytes) -> F | None:
        """Return a flow that is not over."""
        found = self._flows.get(key)
        if found is not None and self._clock.monotonic_us() >= found[2]:
            self.pop(key)
            return None
        return found[0] if found is not None else None

    def pop(self, key: bytes) -> F | None:
        """Forget a flow; return it unless it was over."""
        found = self._flows.pop(key, None)
        if found is None:
            return None
        self._uncount(found[1], key)
        if len(self._ends) > 2 * len(self._flows) + 64:  # what was redeemed in time leaves its end behind
            self._ends = [end for end in self._ends if end[1] in self._flows]
            heapq.heapify(self._ends)
        return found[0] if self._clock.monotonic_us() < found[2] else None

    def _forget_the_old(self) -> None:
        now = self._clock.monotonic_us()
        while self._ends and self._ends[0][0] <= now:
            self.pop(heapq.heappop(self._ends)[1])

    def _displaced(self, source: str) -> bool:
        """Take a flow from whoever has most of all, unless that is the source itself, or nobody has more than it."""
        greedy = max(self._of, key=lambda one: len(self._of[one]))
        if len(self._of[greedy]) <= self.held(source) + 1:
            return False
        oldest = next((key for key in self._of[greedy] if isinstance(key, bytes)), None)
        if oldest is None:
            return False
        self.pop(oldest)
        return True

    def _uncount(self, source: str, one: bytes | Place) -> None:
        mine = self._of.get(source, {})
        mine.pop(one, None)
        if not mine:
            self._of.pop(source, None)
