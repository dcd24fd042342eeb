"""The desk behind its store: requests arrive, people answer, clients wait and are woken. Implements ports.Approvals.

What this shell adds to the pure desk: the order of durable steps, and that no cancellation can tear it.

* A vote is in the node's journal, synced, before it counts; a journal that can't be written counts nothing.
* A state changes by one compare-and-swap in the store, where the desk judges the row as it is there; what is kept in memory
  is only what waiters and channels are told.
* An approval is consumed in the store before the gate releases a byte, after its voters were looked up again.
* Each of these runs in a task of its own: a caller that is cancelled in the middle (its client left) leaves it whole.

Must not know protocols and channels. Changes of state are told to whoever subscribed, after they are stored.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import structlog

from interlock.approvals import desk
from interlock.approvals.digest import match as match_of
from interlock.approvals.electorate import Directory, Electorate
from interlock.approvals.line import Line
from interlock.approvals.minutes import answer_event, outcome_event
from interlock.approvals.model import ApprovalRequest, Presence, Proof, RequestDraft, State, Vote, VoteVerdict
from interlock.approvals.timekeeper import Timekeeper
from interlock.clock import Clock, Entropy, ulid
from interlock.errors import EvidenceError, InterlockError, NotFoundError, Reason, StoreError, VoteError
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity.principal import Identity
from interlock.store.approvals import ApprovalRows, Written

log = structlog.get_logger()

T = TypeVar("T")
Change = Callable[[ApprovalRequest, datetime], ApprovalRequest]
Subscriber = Callable[[ApprovalRequest], None]

RECENT = 200
"""Finished requests that `list` returns at most."""

SAME_THING = 8
"""Earlier requests with the same match that are looked at; at most one is pending and one approved."""

MAX_REASON = 2_000
MAX_NAME = 255


class Inbox:
    """One a process. `start()` before use; `close()` hands every held request back."""

    def __init__(
        self,
        rows: ApprovalRows,
        directory: Directory,
        *,
        clock: Clock,
        entropy: Entropy,
        journal: Recorder,
        public_url: str = "",
        validity: float = 900.0,
    ) -> None:
        """`validity` is how long an approval waits to be used, in seconds."""
        self._rows = rows
        self._electorate = Electorate(directory)
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._public_url = public_url.rstrip("/")
        self._validity = validity
        self._time = Timekeeper(clock)
        self._match_key = b""
        self._generation = 0
        self._lines: dict[str, Line] = {}
        self._submitting = asyncio.Lock()
        self._subscribers: list[Subscriber] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def start(self, mirrored: int = 0) -> None:
        """Read what is open and bring it up to date: held → returned, hold-only → cancelled, late → expired or lapsed.

        `mirrored` is the highest `generation` in the node's journal. A store that is older was restored from a backup, in
        which consumed approvals live again: then everything open is cancelled or revoked. Raise StoreError.
        """
        book = await self._rows.ledger()
        self._match_key = book.match_key
        self._generation = book.generation
        self._time.resume(book.high_water)
        restored = book.generation < mirrored
        if restored:
            log.error("approvals.store_restored", generation=book.generation, mirrored=mirrored)
        for request in await self._rows.open_requests():
            line = Line(request)
            self._lines[request.id] = line
            await self._whole(self._resume(line, restored=restored))
        await self._rows.advance(self._time.now(), at_least=mirrored)
        self._time.start(self._keep_time, self._keep_mark)

    async def close(self) -> None:
        """Take nothing new, hand held requests back, and let running changes end. Idempotent."""
        self._closing = True
        await self._time.stop()
        for line in list(self._lines.values()):
            line.end_waiting()
            try:
                await self._whole(self._hand_back(line))
            except InterlockError as error:
                # Its row says `held` still; the next start hands it back.
                log.error("approvals.not_handed_back", request=line.request.id, reason=str(error.code))
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # -- for the gate -------------------------------------------------------------------------------------------------

    async def submit(self, draft: RequestDraft) -> Place:
        """Open a request, attach to a pending one with the same match, or find its answer: an approval that is unused,
        or a denial that still stands (property 30). Raise StoreError."""
        task = self._keep(self._submit(draft))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The client left while we were writing: nobody will hold the ticket, so hand it back.
            self._keep(self._abandon(task))
            raise

    def link(self, request: ApprovalRequest) -> str:
        """Return the address of the page that shows the request, or an empty string."""
        return f"{self._public_url}/console/approvals/{request.id}" if self._public_url else ""

    # -- for channels -------------------------------------------------------------------------------------------------

    async def vote(
        self,
        request_id: str,
        *,
        voter: Identity,
        channel: str,
        channel_actor: str,
        verdict: VoteVerdict,
        digest: str,
        scope: str = "once",
        reason: str = "",
        proof: Proof = Proof.NONE,
        event: str = "",
    ) -> ApprovalRequest:
        """Count one answer; return the request after it. The same `event` twice counts once.

        The voter is looked up in the directory at this moment. Whatever becomes of the answer is in the journal when this
        returns or raises. Raise VoteError with the reason it does not count, NotFoundError, EvidenceError, StoreError.
        """
        ballot = Vote(
            voter, "", _clean(channel), _clean(channel_actor), verdict, _clean(digest), self._time.now(), _clean(scope), proof,
            _clean(reason, MAX_REASON), _clean(event),
        )  # fmt: skip
        return await self._whole(self._vote(request_id, ballot))

    async def get(self, request_id: str) -> ApprovalRequest:
        """Return a request in any state. Raise NotFoundError, StoreError."""
        return (await self._line(request_id)).request

    async def list(self, state: State | None = None) -> builtins.list[ApprovalRequest]:
        """Return requests: all open ones oldest first, of finished ones the newest `RECENT`, newest first.

        Without a state: everything open, then the newest finished ones.
        """
        waiting = sorted((line.request for line in self._lines.values()), key=lambda r: (r.created, r.id))
        if state is None:
            known = {r.id for r in waiting}
            return [*waiting, *(r for r in reversed(await self._rows.recent(None, RECENT)) if r.id not in known)]
        if not state.terminal:
            return [r for r in waiting if r.state is state]
        return [*reversed(await self._rows.recent(state, RECENT))]

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` after every stored change of a request. It must not block. Returns the way to unsubscribe."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    # -- for operators ------------------------------------------------------------------------------------------------

    async def revoke(self, request_id: str, why: str) -> ApprovalRequest:
        """Take an approval back before it is used. Raise VoteError when it is not an unused approval."""
        line = await self._line(request_id)
        return await self._whole(self._locked(line, lambda request, _: desk.revoke(request), why))

    async def withdraw(self, requesters: Iterable[Identity], why: str) -> None:
        """End what these principals have open: pending → cancelled, approved → revoked (identity.md, deprovisioning)."""
        gone = frozenset(requesters)
        for line in list(self._lines.values()):
            if gone & line.request.draft.principal.excluded():
                try:
                    await self._whole(self._locked(line, _ended, why))
                except VoteError:
                    pass  # it ended by itself meanwhile

    async def tick(self) -> None:
        """Look at the clocks now: end what time has ended, and let everybody who waits look at theirs."""
        await self._whole(self._end_due())
        for line in list(self._lines.values()):
            line.wake()

    # -- answering ----------------------------------------------------------------------------------------------------

    async def _vote(self, request_id: str, ballot: Vote) -> ApprovalRequest:
        line = await self._line(request_id)
        async with line.lock:
            reviewer, handle = self._electorate.known_as(ballot.reviewer)
            ballot = replace(ballot, reviewer=reviewer, reviewer_handle=handle)

            def count(request: ApprovalRequest, now: datetime) -> ApprovalRequest:
                # Asked again inside the transaction: whoever was disabled while the journal was synced does not count.
                voter, barred = self._electorate.voter(reviewer), self._electorate.excluded(request.draft)
                return desk.vote(request, replace(ballot, at=now), voter, now=now, validity=self._validity, excluded=barred)

            try:
                if count(line.request, self._time.now()) is line.request:
                    return line.request  # the same delivery again
                await self._minute(answer_event(line.request, ballot, self._generation))
                return await self._apply(line, count, in_time=True)
            except (VoteError, StoreError) as error:
                # A vote that was written down first and then failed is written down again: as not counted.
                await self._minute(answer_event(line.request, ballot, self._generation, refused=error.code))
                raise

    # -- submitting ---------------------------------------------------------------------------------------------------

    async def _submit(self, draft: RequestDraft) -> Place:
        # One at a time: two sessions that ask the same at once get one request.
        async with self._submitting:
            if self._closing:
                raise StoreError(reason=Reason.SHUTTING_DOWN)
            await self._end_due()
            match = match_of(draft, self._match_key)
            states = (State.PENDING, State.APPROVED, State.DENIED)
            outdated: Line | None = None
            for known in reversed(await self._rows.with_match(match, states, SAME_THING)):
                line = self._lines.get(known.id) or Line(known)
                found = await self._answer_to(line, draft)
                if found is not None:
                    return found
                if line.request.state is State.PENDING:
                    outdated = line
            return await self._open(draft, match, outdated)

    async def _answer_to(self, line: Line, draft: RequestDraft) -> Place | None:
        """Return a place at a request for the same thing, or None when it says nothing about this one."""
        async with line.lock:
            request, now = line.request, self._time.now()
            same_terms = request.draft.terms == draft.terms
            match request.state:
                case State.DENIED if now < request.expires:
                    return Place(self, line)
                case State.APPROVED if desk.usable(request, now):
                    if same_terms:
                        return Place(self, line)
                    await self._apply(line, lambda fresh, _: desk.revoke(fresh))
                case State.PENDING if same_terms and now < request.expires:
                    place = Place(self, line)
                    try:
                        if request.presence is Presence.RETURNED:
                            await self._apply(line, lambda fresh, moment: desk.hold_again(fresh, now=moment))
                    except BaseException:
                        line.holding -= 1
                        raise
                    return place
            return None

    async def _open(self, draft: RequestDraft, match: str, outdated: Line | None) -> Place:
        now = self._time.now()
        request = desk.open_request(
            draft, request_id=f"req_{ulid(self._clock, self._entropy)}", nonce=self._entropy(16).hex(),
            match=match, now=now, excluded=self._electorate.excluded(draft),
        )  # fmt: skip
        line = Line(request)
        if outdated is None:
            written = await self._rows.insert(request, now=now)
        else:
            async with outdated.lock:
                ended = desk.supersede(outdated.request, now=now)
                written = await self._rows.insert(request, now=now, superseding=ended)
                self._publish(outdated, Written(ended, written.generation))
                self._note(ended, f"asked again under other terms as {request.id}")
        place = Place(self, line)
        self._publish(line, written)
        return place

    async def _abandon(self, submitting: asyncio.Task[Place]) -> None:
        try:
            await (await submitting).give_back()
        except InterlockError as error:
            log.warning("approvals.not_handed_back", reason=str(error.code))

    # -- using --------------------------------------------------------------------------------------------------------

    async def _consume(self, line: Line) -> ApprovalRequest | None:
        async with line.lock:
            if line.request.state is not State.APPROVED:
                return None
            if not self._electorate.stands(line.request):
                await self._end(line, lambda request, _: desk.revoke(request), "a voter is not active any more")
                return None

            def use(request: ApprovalRequest, now: datetime) -> ApprovalRequest:
                return desk.consume(request, now=now)

            try:
                return await self._end(line, use, "", in_time=True)
            except VoteError:
                return None  # lapsed, or somebody else was first

    async def _hand_back(self, line: Line) -> ApprovalRequest:
        async with line.lock:
            request = line.request
            if request.state is not State.PENDING or request.presence is Presence.RETURNED or line.holding > 0:
                return request
            try:
                return await self._end(line, lambda fresh, now: desk.give_back(fresh, now=now), "the client left")
            except VoteError:
                return await self._overtaken(line)

    async def _overtaken(self, line: Line) -> ApprovalRequest:
        """The row was decided, or its time was over, before ours came: say what it is now."""
        now = self._time.now()
        due = desk.deadline(line.request)
        if due is not None and now >= due:
            return await self._end(line, _out_of_time, "")
        return line.request

    # -- time ---------------------------------------------------------------------------------------------------------

    async def _end_due(self) -> None:
        """End everything whose deadline is over. Raise StoreError; then the rest is tried again later."""
        while (due := self._time.next_due()) is not None:
            line = self._lines.get(due[1])
            if line is not None:
                async with line.lock:
                    if desk.deadline(line.request) == due[0]:
                        await self._end(line, _out_of_time, "")
            self._time.done(due)

    async def _keep_time(self) -> None:
        await self._whole(self._end_due())

    async def _keep_mark(self, now: datetime) -> None:
        """Keep the high-water mark fresh while a deadline depends on it."""
        if self._lines:
            await self._rows.advance(now)

    async def _resume(self, line: Line, *, restored: bool) -> None:
        async with line.lock:
            now = self._time.now()
            due = desk.deadline(line.request)
            if restored:
                await self._end(line, _ended, "the store was restored from a backup")
            elif due is not None and now >= due:
                await self._end(line, _out_of_time, "")
            elif line.request.state is State.PENDING and line.request.presence is Presence.HELD:
                await self._end(line, lambda request, moment: desk.give_back(request, now=moment), "the proxy restarted")
            else:
                self._publish(line, Written(line.request, self._generation))

    # -- the one way to change a request ------------------------------------------------------------------------------

    async def _locked(self, line: Line, change: Change, why: str) -> ApprovalRequest:
        async with line.lock:
            return await self._end(line, change, why)

    async def _apply(self, line: Line, change: Change, *, in_time: bool = False) -> ApprovalRequest:
        """Let the desk change the row as it is in the store; tell everybody. The caller holds the line's lock."""
        now = self._time.now()
        written = await self._rows.apply(line.request, lambda fresh: change(fresh, now), now=now, in_time=in_time)
        self._publish(line, written)
        return written.request

    async def _end(self, line: Line, change: Change, why: str, *, in_time: bool = False) -> ApprovalRequest:
        """Apply a change and write a final state into the journal with the store's generation.

        Raise EvidenceError when that fails for a consumed approval: then nothing may be released. Any other end stands.
        """
        request = await self._apply(line, change, in_time=in_time)
        if request.state.terminal:
            self._note(request, why)
        return request

    def _note(self, request: ApprovalRequest, why: str) -> None:
        try:
            self._journal.append(outcome_event(request, self._generation, why))
        except EvidenceError:
            if request.state is State.CONSUMED:
                raise
            log.error("approvals.end_not_recorded", request=request.id, state=str(request.state))

    def _publish(self, line: Line, written: Written) -> None:
        request = written.request
        self._generation = max(self._generation, written.generation)
        due, kept = desk.deadline(request), line.due
        line.update(request)
        line.due = due
        if due is None:
            self._lines.pop(request.id, None)
        elif due != kept:
            self._lines[request.id] = line
            self._time.note(due, request.id)
        for callback in tuple(self._subscribers):
            try:
                callback(request)
            except Exception as error:
                # A channel's defect is not the desk's: the change is stored already. No traceback: its frames hold the
                # command.
                log.error("approvals.subscriber_failed", request=request.id, error=type(error).__name__)

    async def _line(self, request_id: str) -> Line:
        line = self._lines.get(request_id)
        if line is not None:
            return line
        request = await self._rows.get(request_id)
        if request is None:
            raise NotFoundError(f"there is no request {_clean(request_id, 40)}")
        # Another task may have read the same row meanwhile; an open one is always in memory, so this one is finished.
        return self._lines.get(request_id) or Line(request)

    async def _minute(self, draft: EventDraft) -> None:
        self._journal.append(draft)
        await self._journal.sync()

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it through the shield

    async def _whole(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even when the caller is cancelled."""
        return await asyncio.shield(self._keep(work))


class Place:
    """A place in the line before one request: ports.Ticket."""

    def __init__(self, inbox: Inbox, line: Line) -> None:
        self._inbox = inbox
        self._line = line
        self._gone = False
        line.holding += 1

    @property
    def request(self) -> ApprovalRequest:
        """The request as it is known now."""
        return self._line.request

    async def settled(self, timeout: float) -> ApprovalRequest:
        """Return the request once it is not pending any more, or as it is after `timeout` seconds."""
        return await self._line.settled(self._inbox._clock, timeout)

    async def consume(self) -> ApprovalRequest | None:
        """Use the approval, once. None when it lapsed, was revoked or used, or a voter does not stand any more."""
        return await self._inbox._whole(self._inbox._consume(self._line))

    async def give_back(self) -> ApprovalRequest:
        """Stop waiting in place. The last of several waiters hands the request back. Idempotent."""
        if not self._gone:
            self._gone = True
            self._line.holding = max(0, self._line.holding - 1)
        return await self._inbox._whole(self._inbox._hand_back(self._line))

    async def revoke(self, why: str) -> None:
        """Take the approval back; nothing happens when it is none any more."""
        try:
            await self._inbox._whole(self._inbox._locked(self._line, lambda request, _: desk.revoke(request), why))
        except VoteError:
            return


def _ended(request: ApprovalRequest, now: datetime) -> ApprovalRequest:
    return desk.cancel(request, now=now) if request.state is State.PENDING else desk.revoke(request)


def _out_of_time(request: ApprovalRequest, now: datetime) -> ApprovalRequest:
    return desk.expire(request, now=now) if request.state is State.PENDING else desk.lapse(request, now=now)


def _clean(text: str, limit: int = MAX_NAME) -> str:
    """Bound text from outside, and make it something that can be recorded: no lone surrogates."""
    return text[:limit].encode("utf-8", "replace").decode()
