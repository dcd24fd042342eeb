"""The register of requests: the lines in memory over the rows in the store, and the one way to change either.

A state changes by one compare-and-swap in the store, where the desk judges the row as it is there; what is kept in memory
is only what waiters and channels are told, after it is stored. A change runs in a task of its own: a caller that is
cancelled in the middle (its client left) leaves it whole. Final states are in the node's journal.

Knows lines, rows, journal and time. Must not know who may answer, nor why something is changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

import structlog

from interlock.approvals import desk
from interlock.approvals.line import Line
from interlock.approvals.minutes import escalation_event, outcome_event
from interlock.approvals.model import ApprovalRequest, State
from interlock.approvals.portable import FormError
from interlock.approvals.timekeeper import Timekeeper
from interlock.clock import Clock
from interlock.errors import EvidenceError, NotFoundError
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity.principal import Identity
from interlock.store.approvals import ApprovalRows, Beside, Ledger, Written

log = structlog.get_logger()

T = TypeVar("T")
Change = Callable[[ApprovalRequest, datetime], ApprovalRequest]
Subscriber = Callable[[ApprovalRequest], None]
Follow = Callable[[datetime], Beside]
"""What else a change writes in its transaction, given the time of the change."""

MAX_NAME = 255


class Register:
    """One a process. `open` before use; `close` lets running changes end."""

    def __init__(self, rows: ApprovalRows, *, clock: Clock, journal: Recorder, follow: Follow) -> None:
        self.rows = rows
        self.time = Timekeeper(clock)
        self.lines: dict[str, Line] = {}
        self.generation = 0
        self.waiting: Counter[Identity] = Counter()  # pending requests by requester
        self.follow = follow
        self._journal = journal
        self._subscribers: list[Subscriber] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> Ledger:
        """Read the ledger and go on from its time. Raise StoreError."""
        book = await self.rows.ledger()
        self.generation = book.generation
        self.time.resume(book.high_water)
        return book

    async def close(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    # -- finding ------------------------------------------------------------------------------------------------------

    async def line(self, request_id: str) -> Line:
        """Return the line of a request in any state. Raise NotFoundError, StoreError."""
        line = self.lines.get(request_id)
        if line is not None:
            return line
        request = await self.rows.get(request_id)
        if request is None:
            raise NotFoundError(f"there is no request {clean(request_id, 40)}")
        # Another task may have read the same row meanwhile; an open one is always in memory, so this one is finished.
        return self.lines.get(request_id) or Line(request)

    # -- changing -----------------------------------------------------------------------------------------------------

    async def apply(self, line: Line, change: Change, *, in_time: bool = False) -> ApprovalRequest:
        """Let the desk change the row as it is in the store; tell everybody. The caller holds the line's lock."""
        now = self.time.now()
        written = await self.rows.apply(
            line.request, lambda fresh: change(fresh, now), now=now, in_time=in_time, beside=self.follow(now)
        )
        self.publish(line, written)
        return written.request

    async def end(self, line: Line, change: Change, why: str, *, in_time: bool = False) -> ApprovalRequest:
        """Apply a change and write a final state into the journal with the store's generation.

        Raise EvidenceError when that fails for a consumed approval: then nothing may be released. Any other end stands.
        """
        request = await self.apply(line, change, in_time=in_time)
        if request.state.terminal:
            self.note(request, why)
        return request

    async def locked(self, line: Line, change: Change, why: str) -> ApprovalRequest:
        async with line.lock:
            return await self.end(line, change, why)

    def insert(self, line: Line, written: Written) -> None:
        """Take up a request that was just written to the store, and tell everybody."""
        self.take_up(line)
        self.publish(line, written)

    def take_up(self, line: Line) -> None:
        """Take a request into memory as it is in the store, and tell nobody."""
        request, due = line.request, desk.deadline(line.request)
        if due is None:
            return
        self.lines[request.id] = line
        self.waiting[request.draft.principal.identity] += _pending(request)
        line.due = due
        self.time.note(due, request.id)

    def publish(self, line: Line, written: Written) -> None:
        request, before = written.request, line.request
        self.generation = max(self.generation, written.generation)
        due, kept = desk.deadline(request), line.due
        if request.id in self.lines:  # one that is in no state to change any more is in no count either
            requester = request.draft.principal.identity
            self.waiting[requester] += _pending(request) - _pending(before)
            if not self.waiting[requester]:
                del self.waiting[requester]
        line.update(request)
        line.due = due
        if due is None:
            self.lines.pop(request.id, None)
        elif due != kept:
            self.time.note(due, request.id)
        for callback in tuple(self._subscribers):
            try:
                callback(request)
            except Exception as error:
                # A channel's defect is not the desk's: the change is stored already. No traceback: its frames hold the
                # command.
                log.error("approvals.subscriber_failed", request=request.id, error=type(error).__name__)

    # -- time ---------------------------------------------------------------------------------------------------------

    async def end_due(self) -> None:
        """Do everything whose time has come. Raise StoreError; then the rest is tried again later."""
        while (due := self.time.next_due()) is not None:
            line = self.lines.get(due[1])
            if line is not None:
                async with line.lock:
                    if desk.deadline(line.request) == due[0]:
                        await self._pass_time_or_set_aside(line)
            self.time.done(due)

    async def _pass_time_or_set_aside(self, line: Line) -> None:
        """One row that was changed from outside, or is gone, must not stop everybody else's time."""
        try:
            await self.pass_time(line)
        except (FormError, NotFoundError) as error:
            log.error("approvals.set_aside", request=line.request.id, error=str(error))
            self.lines.pop(line.request.id, None)
            requester = line.request.draft.principal.identity
            self.waiting[requester] -= _pending(line.request)
            line.end_waiting()

    async def pass_time(self, line: Line) -> ApprovalRequest:
        """Let time do to a request what it does by now. The caller holds the line's lock."""
        before = line.request
        request = await self.end(line, lambda fresh, now: desk.in_time(fresh, now=now), "")
        if request.escalated_at is not None and before.escalated_at is None:
            self.journal(escalation_event(request, self.generation))
        return request

    # -- recording ----------------------------------------------------------------------------------------------------

    async def minute(self, draft: EventDraft) -> None:
        """Write an event that must be on disk before anything follows from it. Raise EvidenceError."""
        self._journal.append(draft)
        await self._journal.sync()

    def journal(self, draft: EventDraft) -> None:
        """Write an event of what stands whether or not it can be recorded."""
        try:
            self._journal.append(draft)
        except EvidenceError:
            log.error("approvals.not_recorded", event_type=draft.type)

    def note(self, request: ApprovalRequest, why: str) -> None:
        try:
            self._journal.append(outcome_event(request, self.generation, why))
        except EvidenceError:
            if request.state is State.CONSUMED:
                raise
            log.error("approvals.end_not_recorded", request=request.id, state=str(request.state))

    # -- tasks --------------------------------------------------------------------------------------------------------

    def keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even when the caller is cancelled."""
        return await asyncio.shield(self.keep(work))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it through the shield


def clean(text: str, limit: int = MAX_NAME) -> str:
    """Bound text from outside, and make it something that can be recorded: no lone surrogates."""
    return text[:limit].encode("utf-8", "replace").decode()


def _pending(request: ApprovalRequest) -> int:
    return int(request.state is State.PENDING)
