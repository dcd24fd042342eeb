"""Group commit: one fdatasync shared by everybody who waits, and one in the background soon after any append.

A sync that begins after a caller's append covers that append; so at most one sync of a transcript runs and one waits,
however many callers there are. The background syncs of all transcripts go round together: one job brings many files to
the disk, so that a thousand sessions do not wake a thousand threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

SOON = 0.008
"""Seconds from an append to the beginning of its background sync: what is allowed is on disk within 10 ms."""

A_JOB = 8
"""Transcripts that one job of a round syncs at most, one after the other. Whoever waits for one of them waits for the job."""

JOBS = 3
"""Jobs that a small round is split into. A journaling file system brings syncs that come together to the disk in one commit,
and those that follow each other in one each: together, the same files take a fraction of the time and less CPU. One thread
of the pool (writer.SYNCING) stays free for whoever waits for an answer."""


class SyncRounds:
    """The background syncs of every transcript of a node. Jobs run in `pool`."""

    __slots__ = ("_due", "_loop", "_pool", "_timer")

    def __init__(self, pool: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._due: set[GroupCommit] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, commit: GroupCommit) -> None:
        """Sync this transcript in the next round, which begins within `SOON`."""
        self._due.add(commit)
        if self._timer is None:
            self._timer = self._loop.call_later(SOON, self._round)

    def forget(self, commit: GroupCommit) -> None:
        self._due.discard(commit)

    def run(self, commits: list[GroupCommit]) -> None:
        """Sync these in one job. None of them may have a sync that runs."""
        covered = [(commit, commit.begin()) for commit in commits]
        job = self._loop.run_in_executor(self._pool, partial(_flush, [commit.flush for commit in commits]))
        job.add_done_callback(partial(self._finished, covered))

    def _round(self) -> None:
        self._timer = None
        due, self._due = self._due, set()
        ready: list[GroupCommit] = []
        for commit in due:
            commit.queued = False
            if commit.behind and commit.idle:
                ready.append(commit)
            elif commit.behind:  # a sync of it runs that began before its last append
                commit.queue()
        size = min(A_JOB, -(-len(ready) // JOBS))
        for at in range(0, len(ready), size or 1):
            self.run(ready[at : at + size])

    @staticmethod
    def _finished(covered: list[tuple[GroupCommit, int]], job: asyncio.Future[list[Exception | None]]) -> None:
        failed = asyncio.CancelledError() if job.cancelled() else job.exception()
        errors = job.result() if failed is None else [failed] * len(covered)
        for (commit, written), error in zip(covered, errors, strict=True):
            commit.finished(written, error)


def _flush(flushes: list[Callable[[], None]]) -> list[Exception | None]:
    """Run every flush and return how each ended: one broken file is not its neighbour's fault."""
    ends: list[Exception | None] = []
    for flush in flushes:
        try:
            flush()
            ends.append(None)
        except Exception as error:
            ends.append(error)
    return ends


class GroupCommit:
    """Shares the syncs of one transcript. `flush` runs in a thread; `failed` is told, on the loop, why one did not."""

    __slots__ = ("_durable", "_failed", "_next", "_rounds", "_running", "_stopped", "_written", "flush", "queued")

    def __init__(self, flush: Callable[[], None], rounds: SyncRounds, failed: Callable[[Exception], None]) -> None:
        self.flush = flush
        self._rounds = rounds
        self._failed = failed
        self._written = 0
        self._durable = 0
        self._stopped = False
        self.queued = False
        self._running: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    @property
    def idle(self) -> bool:
        """No sync of this transcript runs."""
        return self._running is None

    @property
    def behind(self) -> bool:
        """Something was appended that no finished sync covers."""
        return self._durable < self._written

    def wrote(self) -> None:
        """Note an append; a background sync follows within `SOON`."""
        self._written += 1
        if not self.queued:
            self.queue()

    def queue(self) -> None:
        """Ask for a part in the next round."""
        if not self._stopped:
            self.queued = True
            self._rounds.add(self)

    async def wait(self) -> None:
        """Return once everything noted before this call is on stable storage. Raise OSError."""
        if self.behind:
            # Shielded: a waiter that is cancelled must not cancel the sync of the others.
            await asyncio.shield(self._request())

    def stop(self) -> None:
        """No more background syncs: the transcript is being closed, and whoever closes it waits."""
        self._stopped = True
        self._rounds.forget(self)

    def _request(self) -> asyncio.Future[None]:
        if self._running is None:
            self._running = running = asyncio.get_running_loop().create_future()
            self._rounds.run([self])
            return running
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    # -- for the rounds -----------------------------------------------------------------------------------------------

    def begin(self) -> int:
        """A sync begins now; return what it will cover."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_future()
        return self._written

    def finished(self, covered: int, error: BaseException | None) -> None:
        """The sync has ended. Start the next one when somebody waits for it."""
        finished, self._running = self._running, self._next
        self._next = None
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
            self._rounds.run([self])
