"""Which message goes next: of each request one at a time and oldest first, none before its time. Pure.

A message that fails holds up what comes after it of the same request, so that nobody hears of an end before the beginning;
it holds up no other request.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from interlock.approvals.channels.webhook.changes import request_of


@dataclass(frozen=True, slots=True)
class Slip:
    """A message that waits: everything about it but its body."""

    ident: str
    attempts: int
    due: datetime
    created: datetime


class Waiting:
    """`add` in the order of creation. A slip that `next` gave is out until it is handed `back` or `done`."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Slip]] = {}
        self._heads: list[tuple[datetime, int, str]] = []
        self._number = count()

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def add(self, slip: Slip) -> None:
        line = self._lines.setdefault(request_of(slip.ident), deque())
        line.append(slip)
        if len(line) == 1:
            self._push(slip)

    def next(self, now: datetime) -> Slip | None:
        """Return a message whose time has come, or None."""
        if not self._heads or self._heads[0][0] > now:
            return None
        return self._lines[heapq.heappop(self._heads)[2]][0]

    def next_due(self) -> datetime | None:
        return self._heads[0][0] if self._heads else None

    def back(self, slip: Slip) -> None:
        """Take the slip back, with a later time; it stays the first of its request."""
        self._lines[request_of(slip.ident)][0] = slip
        self._push(slip)

    def done(self, slip: Slip) -> None:
        """The message left, or was given up: the next one of its request may go."""
        request = request_of(slip.ident)
        line = self._lines[request]
        line.popleft()
        if line:
            self._push(line[0])
        else:
            del self._lines[request]

    def _push(self, slip: Slip) -> None:
        heapq.heappush(self._heads, (slip.due, next(self._number), request_of(slip.ident)))
