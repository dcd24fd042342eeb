"""Group commit: one fdatasync shared by everybody who waits, and one for all transcripts in the background soon after any append.

A sync that begins after a caller's append covers that append; so at most one sync of a transcript runs and one waits,
however many callers there are. In the background the transcripts of a node go round together: what all of them were appended
is brought to the disk by one sync of the log that they share (redo.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Generic, Protocol, TypeVar

SOON = 0.008
"""Seconds from an append to the beginning of its background sync: what is allowed is on disk within 10 ms."""

B = TypeVar("B")


class Log(Protocol[B]):
    """What brings the appends of all transcripts to the disk (redo.RedoLog, with a clock)."""

    def take(self) -> B:
        """Return what was appended since the last call. On the loop."""
        ...

    def begin(self, batch: B, pool: Executor) -> asyncio.Future[None]:
        """Write and sync it, in a thread. On the loop, one at a time. OSError or EvidenceError say why it could not be done."""
        ...


class SyncRounds(Generic[B]):
    """The background syncs of every transcript of a node, one after the other. They run in `pool`."""

    __slots__ = ("_due", "_log", "_loop", "_running", "_timer", "pool")

    def __init__(self, pool: Executor, log: Log[B]) -> None:
        self.pool = pool
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._due: set[GroupCommit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    def add(self, commit: GroupCommit) -> None:
        """Cover this transcript in the next round, which begins within `SOON`, or when the one that runs has ended."""
        self._due.add(commit)
        if self._timer is None and not self._running:
            self._timer = self._loop.call_later(SOON, self._round)

    def begin(self) -> None:
        """Begin a round now, unless one is under way or near: the log may have something to do beside appends."""
        if self._timer is None and not self._running:
            self._start()

    def forget(self, commit: GroupCommit) -> None:
        self._due.discard(commit)

    def _round(self) -> None:
        self._timer = None
        if self._due:
            self._start()

    def _start(self) -> None:
        due, self._due = self._due, set()
        covered = [(commit, commit.begin_round()) for commit in due]
        self._running = True
        try:
            job = self._log.begin(self._log.take(), self.pool)
        except Exception as error:  # no memory, a pool that is shut down: a round that did not begin is one that failed
            self._over(covered, error)
        else:
            job.add_done_callback(partial(self._ended, covered))

    def _ended(self, covered: list[tuple[GroupCommit, int]], job: asyncio.Future[None]) -> None:
        self._over(covered, asyncio.CancelledError() if job.cancelled() else job.exception())

    def _over(self, covered: list[tuple[GroupCommit, int]], error: BaseException | None) -> None:
        self._running = False
        for commit, written in covered:
            commit.ended(written, error)
        if self._due and self._timer is None:
            self._timer = self._loop.call_later(SOON / 2, self._round)


class GroupCommit:
    """Shares the syncs of one transcript. `flush` runs in a thread; `failed` is told, on the loop, why one did not."""

    __slots__ = ("_durable", "_failed", "_flush", "_next", "_rounds", "_running", "queued", "written")

    def __init__(self, flush: Callable[[], None], rounds: SyncRounds[B], failed: Callable[[Exception], None]) -> None:
        self._flush = flush
        self._rounds: SyncRounds[B] = rounds
        self._failed = failed
        self.written = 0
        """Appends so far. Who appends counts here, and calls `queue` unless `queued`: a background sync follows within `SOON`."""
        self.queued = False
        self._durable = 0
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    @property
    def behind(self) -> bool:
        """Something was appended that no finished sync covers."""
        return self._durable < self.written

    def queue(self) -> None:
        self.queued = True
        self._rounds.add(self)

    async def wait(self) -> None:
        """Return once everything noted before this call is on stable storage. Raise OSError."""
        if self.behind:
            # Shielded: a waiter that is cancelled must not cancel the sync of the others.
            await asyncio.shield(self._request())

    def stop(self) -> None:
        """No more background syncs: the transcript is being closed, and whoever closes it waits."""
        self.queued = True  # for good
        self._rounds.forget(self)

    def _request(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        if self._running is None:
            self._running = running = loop.create_future()
            self._begin()
            return running
        if self._next is None:
            self._next = loop.create_future()
        return self._next

    def _begin(self) -> None:
        job = asyncio.get_running_loop().run_in_executor(self._rounds.pool, self._flush)
        job.add_done_callback(partial(self._synced, self.written))

    def _synced(self, covered: int, job: asyncio.Future[None]) -> None:
        """The sync has ended. Start the next one when somebody waits for it."""
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        finished, self._running = self._running, self._next
        self._next = None
        self.ended(covered, error)
        if finished is not None and not finished.done():
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error if isinstance(error, Exception) else OSError("the sync was cancelled"))
                finished.exception()  # nobody may be waiting; `failed` has been told
        if self._running is not None:
            self._begin()

    # -- for the rounds -----------------------------------------------------------------------------------------------

    def begin_round(self) -> int:
        """A round begins now; return what it will cover."""
        self.queued = False
        return self.written

    def ended(self, covered: int, error: BaseException | None) -> None:
        """A sync has ended that covers this many appends."""
        if error is None:
            self._durable = max(self._durable, covered)
        elif isinstance(error, Exception):
            self._failed(error)
