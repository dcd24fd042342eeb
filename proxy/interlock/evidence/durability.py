"""Group commit: one fdatasync shared by everybody who waits, and one in the background soon after any append.

A sync that begins after a caller's append covers that append; so at most one sync runs and one waits, however many
callers there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

SOON = 0.008
"""Seconds from an append to the beginning of its background sync: what is allowed is on disk within 10 ms."""


class GroupCommit:
    """Shares the syncs of one transcript. `flush` runs in `pool`; `failed` is told, on the loop, why one did not."""

    __slots__ = ("_durable", "_failed", "_flush", "_loop", "_next", "_pool", "_running", "_timer", "_written")

    def __init__(self, flush: Callable[[], None], pool: Executor, failed: Callable[[Exception], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._flush = flush
        self._pool = pool
        self._failed = failed
        self._written = 0
        self._durable = 0
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def wrote(self) -> None:
        """Note an append; a background sync follows within `SOON`."""
        self._written += 1
        if self._timer is None:
            self._timer = self._loop.call_later(SOON, self._soon)

    async def wait(self) -> None:
        """Return once everything noted before this call is on stable storage. Raise OSError."""
        if self._durable < self._written:
            # Shielded: a waiter that is cancelled must not cancel the sync of the others.
            await asyncio.shield(self._request())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _soon(self) -> None:
        self._timer = None
        if self._durable < self._written:
            self._request()

    def _request(self) -> asyncio.Future[None]:
        if self._running is None:
            self._running = self._loop.create_future()
            self._start()
            return self._running
        if self._next is None:
            self._next = self._loop.create_future()
        return self._next

    def _start(self) -> None:
        covered = self._written
        job = self._loop.run_in_executor(self._pool, self._flush)
        job.add_done_callback(lambda done: self._finished(done, covered))

    def _finished(self, job: asyncio.Future[None], covered: int) -> None:
        finished, self._running, self._next = self._running, self._next, None
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        if error is None:
            self._durable = max(self._durable, covered)
        elif isinstance(error, Exception):
            self._failed(error)
        if finished is not None and not finished.done():
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error if isinstance(error, Exception) else OSError("the sync was cancelled"))
                finished.exception()  # nobody may be waiting; `failed` has been told
        if self._running is not None:
            self._start()
