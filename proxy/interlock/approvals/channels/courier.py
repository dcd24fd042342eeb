"""Brings the newest state of a request to wherever a channel shows it: in order, once for many changes, again when it failed.

A key is a request's id. Two deliveries of one key never overlap, so an older state can't overwrite a newer one; changes
that come while one is under way become one more delivery after it. Failures that pass are tried again with growing
pauses, a bounded number of times. Must not know what is delivered, or to whom; never holds up whoever says `wanted`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

import structlog

from interlock.errors import InterlockError

log = structlog.get_logger()

MAX_KEYS = 10_000
SOON, LATER = 0, 1
"""What somebody waits for goes before what is only looked at again, such as every open request at a start."""

GRACE_S = 5.0
"""How long `close` lets a delivery end that is under way: cut in the middle, nobody would know what was posted."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a delivery is tried: pauses double from `first` to `most` seconds, `attempts` times in all."""

    first: float = 1.0
    most: float = 60.0
    attempts: int = 20

    def pause(self, failures: int) -> float:
        return min(self.most, self.first * 2.0 ** min(failures - 1, 30))


class Courier:
    """`deliver` brings the state of one key as it is then. `passing` says of its error how many seconds to wait at least,
    or None when trying again is pointless."""

    def __init__(
        self,
        channel: str,
        deliver: Callable[[str], Awaitable[None]],
        passing: Callable[[InterlockError], float | None],
        *,
        patience: Patience = Patience(),
        workers: int = 4,
    ) -> None:
        self._channel = channel
        self._deliver = deliver
        self._passing = passing
        self._patience = patience
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []
        self._forget()

    def _forget(self) -> None:
        self._closing = False
        self._due: asyncio.PriorityQueue[tuple[int, int, str]] = asyncio.PriorityQueue()
        self._order = count()
        self._queued: dict[str, int] = {}  # due, with how urgently
        self._known: set[str] = set()  # due, under way or resting
        self._busy: set[str] = set()
        self._changed: set[str] = set()  # wanted again while under way
        self._resting: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}

    def start(self) -> None:
        """Begin to deliver, first what was `wanted` before."""
        self._tasks = [asyncio.create_task(self._work(), name=f"{self._channel}-courier-{n}") for n in range(self._workers)]

    async def close(self) -> None:
        """Stop, and forget. Deliveries under way end first; whoever starts again says anew what is wanted."""
        self._closing = True
        for timer in self._resting.values():
            timer.cancel()
        for _ in self._tasks:
            self._due.put_nowait((SOON, next(self._order), ""))  # wakes a worker that waits
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._forget()

    def wanted(self, key: str, *, urgency: int = SOON) -> None:
        """Deliver the state of `key`. Many calls before it happens are one delivery, as urgent as the most urgent of them."""
        if key in self._busy:
            self._changed.add(key)
        elif key not in self._known:
            if len(self._known) >= MAX_KEYS:
                log.error("courier.behind", channel=self._channel, request=key)
                return
            self._known.add(key)
            self._queue(key, urgency)
        elif urgency < self._queued.get(key, urgency):
            self._queue(key, urgency)  # its older place is passed over

    def _queue(self, key: str, urgency: int = SOON) -> None:
        self._queued[key] = urgency
        self._due.put_nowait((urgency, next(self._order), key))

    async def _work(self) -> None:
        while not self._closing:
            urgency, _, key = await self._due.get()
            if self._closing or self._queued.get(key) != urgency:
                continue
            del self._queued[key]
            self._busy.add(key)
            self._changed.discard(key)
            pause: float | None = None
            try:
                await self._deliver(key)
                self._failures.pop(key, None)
            except InterlockError as error:
                # A chat that is down never holds up the desk: the console and the CLI still answer.
                pause = self._pause_after(key, error)
            except Exception as error:  # a defect in one delivery must not end the worker that makes all the others
                log.exception("courier.failed", channel=self._channel, request=key, error=type(error).__name__)
            finally:
                self._busy.discard(key)
            self._settle(key, pause)

    def _pause_after(self, key: str, error: InterlockError) -> float | None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        wait = self._passing(error)
        again = wait is not None and failures < self._patience.attempts
        log.warning(
            "courier.undelivered", channel=self._channel, request=key, reason=str(error.code), error=str(error), again=again
        )
        return max(wait, self._patience.pause(failures)) if again and wait is not None else None

    def _settle(self, key: str, pause: float | None) -> None:
        if self._closing:
            return
        if pause is not None:
            self._resting[key] = asyncio.get_running_loop().call_later(pause, self._rested, key)
        elif key in self._changed:
            self._queue(key)
        else:
            self._known.discard(key)
            self._failures.pop(key, None)

    def _rested(self, key: str) -> None:
        del self._resting[key]
        self._queue(key)
