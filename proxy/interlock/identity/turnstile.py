"""How many log in at once, how many wait for their turn, and who is told to come back.

Logins come in crowds: at nine in the morning, after a network came back, from whoever wants to do harm. At most `at_once` are
inside, whatever each of them waits for; a bounded queue stands before that, in which sources take turns, so that a crowd from one
place makes nobody else wait longer than one of its own; whoever finds it full, or waited in vain, hears so at once and loses
nothing. A place that was given to somebody who has just left goes to the next.

Knows the loop. Must not know what is done inside.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from interlock.errors import OverloadedError

AT_ONCE = 64
"""Most of a login is waiting for the provider: at 300 ms there, sixty at once are two hundred a second."""

WAITING = 512
PATIENCE_S = 10.0
RETRY_AFTER_S = 5


class Turnstile:
    """One a process, on its loop."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING, patience: float = PATIENCE_S) -> None:
        self._at_once = at_once
        self._most = waiting
        self._patience = patience
        self._inside = 0
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._waiting = 0

    @asynccontextmanager
    async def turn(self, source: str) -> AsyncIterator[None]:
        """Be inside. Raise OverloadedError."""
        await self._enter(source)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, source: str) -> None:
        if self._inside < self._at_once:  # then nobody waits: places are handed over, never free beside a queue
            self._inside += 1
            return
        if self._waiting >= self._most:
            raise OverloadedError(RETRY_AFTER_S)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(source, deque()).append(place)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._leave()  # it was given to us in the same moment
            else:
                self._give_up(source, place)
            if isinstance(error, TimeoutError):
                raise OverloadedError(RETRY_AFTER_S) from None
            raise

    def _leave(self) -> None:
        """Hand the place to the source whose turn it is."""
        while self._queues:
            source, queue = self._queues.popitem(last=False)
            place = queue.popleft()
            if queue:
                self._queues[source] = queue  # behind all others
            self._waiting -= 1
            if not place.cancelled():  # who was cancelled has not run since, and is still in the queue
                place.set_result(None)
                return
        self._inside -= 1

    def _give_up(self, source: str, place: asyncio.Future[None]) -> None:
        queue = self._queues.get(source)
        if queue is None or place not in queue:
            return  # passed over already
        queue.remove(place)
        if not queue:
            del self._queues[source]
        self._waiting -= 1
