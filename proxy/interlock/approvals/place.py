"""A place in the line before one request: what the gate holds while its client waits. Implements ports.Ticket."""

from __future__ import annotations

from typing import Protocol

from interlock.approvals.line import Line
from interlock.approvals.model import ApprovalRequest
from interlock.clock import Clock


class Counter(Protocol):
    """The side of the inbox that places stand before."""

    @property
    def clock(self) -> Clock: ...

    async def get(self, request_id: str) -> ApprovalRequest: ...

    async def use(self, line: Line) -> ApprovalRequest | None: ...

    async def hand_back(self, line: Line) -> ApprovalRequest: ...

    async def take_back(self, line: Line, why: str) -> None: ...


class Place:
    def __init__(self, counter: Counter, line: Line) -> None:
        self._counter = counter
        self._line = line
        self._gone = False
        line.holding += 1

    @property
    def request(self) -> ApprovalRequest:
        """The request as it is known now."""
        return self._line.request

    async def settled(self, timeout: float) -> ApprovalRequest:
        """Return the request once it is not pending any more, or as it is after `timeout` seconds."""
        return await self._line.settled(self._counter.clock, timeout)

    async def successor(self) -> ApprovalRequest | None:
        """Return the request that a reviewer's edit put in the place of this one, or None."""
        successor = self._line.request.successor
        return await self._counter.get(successor) if successor else None

    async def consume(self) -> ApprovalRequest | None:
        """Use the approval, once. None when it lapsed, was revoked or used, or a voter does not stand any more."""
        return await self._counter.use(self._line)

    async def give_back(self) -> ApprovalRequest:
        """Stop waiting in place. The last of several waiters hands the request back. Idempotent."""
        if not self._gone:
            self._gone = True
            self._line.holding = max(0, self._line.holding - 1)
        return await self._counter.hand_back(self._line)

    async def revoke(self, why: str) -> None:
        """Take the approval back; nothing happens when it is none any more."""
        await self._counter.take_back(self._line, why)
