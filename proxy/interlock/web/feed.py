"""The feed of changes: the last ones, numbered, for readers that follow and readers that come back.

A reader has a place in the feed and is woken when there is more; nothing is copied for it. One that is so slow that its place
is not kept any more has lost changes, and is cut off rather than misled. Numbers are of this process: `EPOCH-N`. A reader that
comes back with a number that can't be found is told to look at everything anew (`resync`).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest
from interlock.clock import Entropy, system_entropy

KEPT = 256
"""Changes that are kept for readers. A request may hold 256 KiB of input, so this bounds memory as well."""

AFTER_S = 0.01
"""Seconds after a change until readers are woken: drawing it for them must not come before the release that it allows."""

_IDENT = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})\Z")


@dataclass(slots=True)
class Item:
    """`text` is what is written to readers, made once by the first who needs it."""

    number: int
    request: ApprovalRequest
    text: str = ""


class Feed:
    """One an application; it follows the desk from the beginning."""

    def __init__(self, inbox: Inbox, *, entropy: Entropy = system_entropy, kept: int = KEPT) -> None:
        self._epoch = entropy(8).hex()
        self._items: deque[Item] = deque(maxlen=kept)
        self._last = 0
        self._more = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None
        self.readers = 0
        inbox.subscribe(self._push)

    def ident(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def place(self, last_event_id: str | None) -> tuple[int, bool]:
        """Return the number after which a reader goes on, and whether it missed nothing.

        Without an id it starts now. With one that is not of this process, or not kept any more, it starts now as well,
        and has to be told.
        """
        if not last_event_id:
            return self._last, True
        found = _IDENT.match(last_event_id)
        if found is None or found[1] != self._epoch:
            return self._last, False
        number = int(found[2])
        if number > self._last or not self._kept_after(number):
            return self._last, False
        return number, True

    async def after(self, number: int, pulse: float, ended: Callable[[], bool]) -> AsyncIterator[Item | None]:
        """Yield what comes after a number, and None after `pulse` seconds of silence, until `ended` or too slow."""
        self.readers += 1
        try:
            while not ended() and self._kept_after(number):
                if number < self._last:
                    item = self._items[number - self._last]
                    number = item.number
                    yield item
                    continue
                more = self._more
                try:
                    async with asyncio.timeout(pulse):
                        await more.wait()
                except TimeoutError:
                    yield None
        finally:
            self.readers -= 1

    def _push(self, request: ApprovalRequest) -> None:
        self._last += 1
        self._items.append(Item(self._last, request))
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(AFTER_S, self._woken)

    def _woken(self) -> None:
        self._waking = None
        self.wake()

    def wake(self) -> None:
        """Let every reader look again: at more, or at the end."""
        more, self._more = self._more, asyncio.Event()
        more.set()

    def _kept_after(self, number: int) -> bool:
        """Whether everything after that number is still here."""
        return self._last - number <= len(self._items)
