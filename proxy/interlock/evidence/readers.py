"""Reads ended transcripts back beside the daemon, so that what one session printed costs the next nothing.

Rendering a long recording in a thread took the interpreter from every live session for seconds (docs/performance.md). What
is short is still read in a thread, where it takes milliseconds; the rest is read by a few niced children that live on
(child.py). They are told names and answer with hashes. The key stays here, and so does the judgement: the writer compares
what was read with what it wrote.

A child that dies is replaced and asked once more. When that fails too the chain is read here, so that there is a seal; a
recording is then not sealed, because what killed two children would kill the daemon. Nor is it when too many wait.

When the node stops nothing waits for recordings: those not begun are left out, those under way have `GRACE_S`, and a chain
that is too long to be read until `LATEST_S` is left for the next start, which recovers it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from interlock.child import Child
from interlock.errors import EvidenceError, Reason
from interlock.evidence import readback
from interlock.evidence.readback import Answered, Asked, ReadBack, Work
from interlock.evidence.survey import Survey, survey
from interlock.evidence.transcript import EVENTS
from interlock.evidence.vault import PlainVault, Vault

CHILDREN = 2
SMALL = 128 * 1024
"""Bytes of a transcript that are read in a thread: a child would cost more than it saves."""
NICE = 10
"""A tenth of the processor where others want all of it: clients are answered first, and seals still come."""
MEMORY = 1 << 30
MAX_ANSWER = 16 << 20
MAX_WAITING = 256
"""Transcripts that wait for a child; each keeps its files open. More are sealed without their recording."""

PATIENCE_S, PATIENCE_PER_MB_S = 60.0, 20.0
"""How long an answer may take, by the size of what is read: two hundred times what it takes on a quiet machine."""

GRACE_S, LATEST_S = 3.0, 10.0
"""Seconds after the node began to stop: until children are ended, and until no chain is begun to be read."""
SHORT = 16 << 20
"""Bytes of events that are read in a thread when the node stops."""

_HEX = re.compile(r"[0-9a-f]{64}\Z")

T = TypeVar("T")
log = structlog.get_logger()


class Readers:
    """`threads` is where short ones are read, and long ones that no child can read."""

    def __init__(self, vault: Vault, threads: Executor, *, small: int = SMALL) -> None:
        self._vault = vault
        self._threads = threads
        # A child knows no vault but the plain one: others have keys, or are made by tests.
        self._small = small if type(vault) is PlainVault else None
        self._beside = ThreadPoolExecutor(CHILDREN, "evidence-readers")
        self._children = [_child() for _ in range(CHILDREN)]
        self._idle: queue.LifoQueue[Child] = queue.LifoQueue()  # the second is started when two are wanted at once
        for child in self._children:
            self._idle.put(child)
        self._waiting = 0
        self._stopping: float | None = None
        self._over = threading.Event()
        self._grace: asyncio.TimerHandle | None = None

    async def read(self, directory: Path, session: str, *, with_recording: bool) -> ReadBack:
        """Read what was written, for the seal of a transcript that nobody writes to any more. Raise OSError or EvidenceError."""
        short = await self._here(partial(self._read_short, directory, session, with_recording=with_recording))
        if isinstance(short, ReadBack):
            return short
        found = await self._survey(directory, session, short)
        if not with_recording or found.broken is not None or found.torn:
            return ReadBack(found)
        return ReadBack(found, await self._recording(directory, session, short))

    def stop(self) -> None:
        """The node stops. On its loop. Idempotent."""
        if self._stopping is None:
            self._stopping = time.monotonic()
            self._grace = asyncio.get_running_loop().call_later(GRACE_S, self._end)

    def close(self) -> None:
        """End the children. Nothing is read any more. Idempotent."""
        if self._grace is not None:
            self._grace.cancel()
        self._end()
        self._beside.shutdown()
        for child in self._children:
            child.end()

    # -- what is read -------------------------------------------------------------------------------------------------

    def _read_short(self, directory: Path, session: str, *, with_recording: bool) -> ReadBack | int:
        """Read it, or return the size of what is not short."""
        with os.scandir(directory) as entries:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in entries)
        if self._small is not None and size > self._small:
            return size
        found = survey(directory, session)
        sound = found.broken is None and not found.torn
        return ReadBack(found, readback.recording(directory, self._vault) if with_recording and sound else None)

    async def _survey(self, directory: Path, session: str, size: int) -> Survey:
        found = (await self._asked(Asked(Work.SURVEY, str(directory.absolute()), session), size)).found
        if found is not None and _credible(found):
            return found
        if self._stopping is not None and (
            time.monotonic() > self._stopping + LATEST_S or (directory / EVENTS).stat().st_size > SHORT
        ):
            raise EvidenceError("the node stops before this transcript could be read back; the next start seals it")
        return await self._here(partial(survey, directory, session))

    async def _recording(self, directory: Path, session: str, size: int) -> str | None:
        digest = None
        if self._stopping is None and self._waiting < MAX_WAITING:
            digest = (await self._asked(Asked(Work.RECORDING, str(directory.absolute()), session), size)).recording
        if digest is None or not _HEX.match(digest):
            log.warning("recording not sealed", session=session, stopping=self._stopping is not None, waiting=self._waiting)
            return None
        return digest

    async def _here(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    # -- the children -------------------------------------------------------------------------------------------------

    async def _asked(self, asked: Asked, size: int) -> Answered:
        """Let a child answer; an empty answer when none could. Raise EvidenceError: the disk holds no transcript."""
        self._waiting += 1
        try:
            answered = await asyncio.get_running_loop().run_in_executor(self._beside, self._ask, asked, size)
        finally:
            self._waiting -= 1
        if answered.refused is not None:
            raise EvidenceError(answered.refused, reason=Reason.EVIDENCE_INVALID)
        return answered

    def _ask(self, asked: Asked, size: int) -> Answered:
        child = self._idle.get()
        try:
            for _ in range(2):
                if self._over.is_set() or (self._stopping is not None and asked.work is Work.RECORDING):
                    break
                try:
                    child.begin()
                    if self._over.is_set():  # again: either this sees the end, or the end saw the process
                        break
                    patience = PATIENCE_S + PATIENCE_PER_MB_S * size / 1e6
                    answer = child.ask(msgspec.json.encode(asked), time.monotonic() + patience)
                    return msgspec.json.decode(answer, type=Answered)
                except (OSError, EOFError, msgspec.MsgspecError) as error:  # TimeoutError is an OSError
                    child.end()
                    log.warning("transcript reader failed", session=asked.session, work=asked.work, error=type(error).__name__)
            return Answered()
        finally:
            self._idle.put(child)

    def _end(self) -> None:
        self._over.set()
        for child in self._children:
            child.kill()


def _child() -> Child:
    return Child(readback.MODULE, memory=MEMORY, most=MAX_ANSWER, nice=NICE, may_write=False)


def _credible(found: Survey) -> bool:
    """Whether this can be what a transcript holds. All else that a child made up, every verifier would find in the same lines."""
    return all(map(_HEX.match, (found.head, found.root, found.sha256)))
