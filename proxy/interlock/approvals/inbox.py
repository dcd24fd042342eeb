"""The desk behind its store: requests arrive, people answer, clients wait and are woken. Implements ports.Approvals.

What this shell adds to the pure desk: the order of durable steps, and that no cancellation can tear it.

* An answer counts as `approvals.answers` says: written down before, signed by whoever gives it.
* A state changes in the register alone: one compare-and-swap, in which a grant, or a broken glass, comes and goes as well.
* An approval is consumed in the store before the gate releases a byte, after its voters were looked up again.

Must not know protocols and channels. Changes of state are told to whoever subscribed, after they are stored.
"""

from __future__ import annotations

import asyncio
import builtins
import heapq
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from interlock import fault_points
from interlock.approvals import desk
from interlock.approvals.answers import Answers, NoProofs, consequences
from interlock.approvals.authority import House
from interlock.approvals.electorate import Directory, Electorate
from interlock.approvals.fatigue import Limits, Lock
from interlock.approvals.grantbook import Grantbook
from interlock.approvals.grants import Grant
from interlock.approvals.guard import Guard
from interlock.approvals.line import Line
from interlock.approvals.minutes import grant_event
from interlock.approvals.model import ApprovalRequest, Presence, Proof, RequestDraft, Signed, State, Vote, VoteVerdict
from interlock.approvals.place import Place
from interlock.approvals.proof import Proofs
from interlock.approvals.register import Register, Subscriber, clean
from interlock.approvals.submission import Submission
from interlock.clock import Clock, Entropy
from interlock.errors import InterlockError, NotFoundError, VoteError
from interlock.evidence.events import Recorder
from interlock.identity.principal import Identity, Principal
from interlock.store.approvals import ApprovalRows
from interlock.store.grants import GrantRows
from interlock.store.vigilance import GlassRow, VigilanceRows

log = structlog.get_logger()

RECENT = 200
"""Finished requests that `list` returns at most."""

MAX_REASON = 2_000


class Rooms(Protocol):
    """The rows that the desk stands on."""

    @property
    def approvals(self) -> ApprovalRows: ...
    @property
    def grants(self) -> GrantRows: ...
    @property
    def vigilance(self) -> VigilanceRows: ...


class Inbox:
    """One a process. `start()` before use; `close()` hands every held request back."""

    def __init__(
        self,
        rows: Rooms,
        directory: Directory,
        *,
        clock: Clock,
        entropy: Entropy,
        journal: Recorder,
        public_url: str = "",
        house: House | None = None,
        limits: Limits | None = None,
        proofs: Proofs | None = None,
        barred: Callable[[frozenset[Identity]], bool] = lambda _: False,
    ) -> None:
        """`barred` says whether any of some identities is revoked (`Revocations.bars`)."""
        self.house = house or House()
        self._rows = rows
        self._electorate = Electorate(directory, barred)
        self.clock = clock
        self._public_url = public_url.rstrip("/")
        self._register = Register(rows.approvals, clock=clock, journal=journal, follow=partial(consequences, self.house))
        self._grants = Grantbook(rows.grants, self.house)
        self._guard = Guard(rows.vigilance, self._register, limits or Limits())
        self._submission = Submission(
            self._register, self._electorate, self._grants, self._guard, house=self.house, clock=clock, entropy=entropy,
            place=lambda line: Place(self, line),
        )  # fmt: skip
        self._answers = Answers(
            self._register, self._electorate, self._guard, self._submission, rows.approvals, rows.vigilance,
            house=self.house, proofs=proofs or NoProofs(),
        )  # fmt: skip
        self._register.subscribe(self._grants.follow)

    async def start(self, mirrored: int = 0) -> None:
        """Read what is open and bring it up to date: held → returned, hold-only → cancelled, late → expired or lapsed.

        `mirrored` is the highest `generation` in the node's journal. A store that is older was restored from a backup, in
        which consumed approvals live again: then everything open is cancelled or revoked, grants too. Raise StoreError.
        """
        register = self._register
        book = await register.open()
        self._submission.match_key = book.match_key
        restored = book.generation < mirrored
        if restored:
            log.error("approvals.store_restored", generation=book.generation, mirrored=mirrored)
        now = register.time.now()
        for grant in await self._grants.open(now, restored=restored):
            register.journal(grant_event(grant, register.generation, why="the store was restored from a backup"))
        await self._guard.open(now)
        for request in await self._rows.approvals.open_requests():
            await register.whole(self._resume(Line(request), restored=restored))
        await self._rows.approvals.advance(register.time.now(), at_least=mirrored)
        register.time.start(self._keep_time, self._keep_mark)

    async def close(self) -> None:
        """Take nothing new, hand held requests back, and let running changes end. Idempotent."""
        self._submission.closing = True
        await self._register.time.stop()
        for line in list(self._register.lines.values()):
            line.end_waiting()
            try:
                await self.hand_back(line)
            except InterlockError as error:
                # Its row says `held` still; the next start hands it back.
                log.error("approvals.not_handed_back", request=line.request.id, reason=str(error.code))
        await self._register.close()

    # -- for the gate -------------------------------------------------------------------------------------------------

    async def submit(self, draft: RequestDraft) -> Place:
        """Open a request, attach to a pending one with the same match, or find its answer: an approval that is unused, a
        grant that covers it, or a denial that still stands (property 30). Raise StoreError, or VoteError when the
        requester is locked or asks too much."""
        task = self._register.keep(self._submission.submit(draft))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # The client left while we were writing: nobody will hold the ticket, so hand it back.
            self._register.keep(self._abandon(task))
            raise

    def link(self, request: ApprovalRequest) -> str:
        """Return the address of the page that shows the request, or an empty string."""
        return f"{self._public_url}/console/approvals/{request.id}" if self._public_url else ""

    # -- for places in the line -------------------------------------------------------------------------------------------

    async def use(self, line: Line) -> ApprovalRequest | None:
        """Consume an approval after looking its voters up again; None when it can't be used."""
        return await self._register.whole(self._use(line))

    async def hand_back(self, line: Line) -> ApprovalRequest:
        """Nobody waits in place any more: held → returned, or cancelled when the rule is hold-only."""
        return await self._register.whole(self._hand_back(line))

    async def take_back(self, line: Line, why: str) -> None:
        """Revoke an approval that is not used; nothing happens when it is none any more."""
        try:
            await self._register.whole(self._register.locked(line, lambda request, _: desk.revoke(request), why))
        except VoteError:
            return

    # -- for channels: answering ----------------------------------------------------------------------------------------

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
        valid_until: datetime | None = None,
        reason: str = "",
        proof: Proof = Proof.NONE,
        signed: Signed | None = None,
        event: str = "",
        break_glass: bool = False,
    ) -> ApprovalRequest:
        """Count one answer; return the request after it. The same `event` twice counts once.

        `proof` is what the channel's own delivery is worth; a personal one follows from `signed` alone, which is checked
        here. The voter is looked up in the directory at this moment. Whatever becomes of the answer is in the journal when
        this returns or raises. Raise VoteError with the reason it does not count, NotFoundError, EvidenceError, StoreError.
        """
        fault_points.reached("vote.arrived")
        ballot = Vote(
            voter, "", clean(channel), clean(channel_actor), verdict, clean(digest), self._register.time.now(), clean(scope),
            Proof.NONE if proof is Proof.PERSONAL else proof, clean(reason, MAX_REASON), clean(event),
            valid_until=valid_until, signed=signed, break_glass=break_glass,
        )  # fmt: skip
        return await self._register.whole(self._answers.vote(request_id, ballot))

    async def edit(
        self, request_id: str, *, editor: Identity, channel: str, channel_actor: str, digest: str, draft: RequestDraft,
        reason: str = "",
    ) -> ApprovalRequest:  # fmt: skip
        """Put another text in a request's place: the old one ends, the new one waits for somebody else than its author.

        `draft` was classified and decided anew, as the requester's own (Gate.reconsider). Returns the new request. Raise
        VoteError, NotFoundError, EvidenceError, StoreError.
        """
        said = clean(reason, MAX_REASON)
        return await self._register.whole(
            self._answers.edit(request_id, editor, clean(channel), clean(channel_actor), clean(digest), draft, said)
        )

    # -- for channels: reading ------------------------------------------------------------------------------------------

    async def get(self, request_id: str) -> ApprovalRequest:
        """Return a request in any state. Raise NotFoundError, StoreError."""
        return (await self._register.line(request_id)).request

    async def list(self, state: State | None = None) -> builtins.list[ApprovalRequest]:
        """Return requests: all open ones oldest first, of finished ones the newest `RECENT`, newest first.

        Without a state: everything open, then the newest finished ones.
        """
        waiting = sorted((line.request for line in self._register.lines.values()), key=lambda r: (r.created, r.id))
        if state is None:
            known = {r.id for r in waiting}
            return [*waiting, *(r for r in reversed(await self._rows.approvals.recent(None, RECENT)) if r.id not in known)]
        if not state.terminal:
            return [r for r in waiting if r.state is state]
        return [*reversed(await self._rows.approvals.recent(state, RECENT))]

    async def page(self, state: State | None = None, *, limit: int = 50, before: str = "") -> builtins.list[ApprovalRequest]:
        """Return at most `limit` requests, newest first, of those with a smaller id than `before`."""
        limit = max(1, min(limit, RECENT))
        if state is None or state.terminal:
            return [*reversed(await self._rows.approvals.recent(state, limit, before))]
        lines = self._register.lines
        fitting = (ident for ident, line in lines.items() if line.request.state is state and (not before or ident < before))
        return [lines[ident].request for ident in heapq.nlargest(limit, fitting)]

    def pending_count(self) -> int:
        return self._register.waiting.total()

    def lacking(self, request: ApprovalRequest) -> str:
        """Say in words who is still needed, or nothing."""
        return " and ".join(f"{need.quorum} of {' or '.join(need.groups) or 'nobody'}" for need in desk.lacking(request))

    async def previous(self, request: ApprovalRequest) -> ApprovalRequest | None:
        """Return what the same requester was last granted at this target under this rule, or None."""
        return await self._rows.approvals.last_approved(request)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` after every stored change of a request. It must not block. Returns the way to unsubscribe."""
        return self._register.subscribe(callback)

    # -- for people who look after it all ---------------------------------------------------------------------------------

    async def withdraw_request(self, request_id: str, *, by: Identity, why: str) -> ApprovalRequest:
        """End an open request for its requester or an operator: pending → cancelled, approved → revoked."""
        line = await self._register.line(request_id)
        request = await self._register.whole(self._register.locked(line, _ended, f"{clean(why)} (by {by})"))
        if by in request.draft.principal.excluded():
            # Asking and withdrawing wears reviewers down like asking for what was denied.
            await self._register.whole(self._guard.denied(request.draft.principal.identity, self._register.time.now()))
        return request

    async def revoke(self, request_id: str, why: str, by: Identity | None = None) -> ApprovalRequest:
        """Take an approval back before it is used. Raise VoteError when it is not an unused approval."""
        line = await self._register.line(request_id)
        said = f"{clean(why)} (by {by})" if by is not None else clean(why)
        return await self._register.whole(self._register.locked(line, lambda request, _: desk.revoke(request), said))

    async def withdraw(
        self, requesters: Iterable[Identity], why: str, *, also: Callable[[Principal], bool] | None = None
    ) -> None:
        """End what these principals have open: pending → cancelled, approved → revoked, grants too (deprovisioning). `also`
        says of any other requester whether what they asked with has ended."""
        gone = frozenset(requesters)
        for line in list(self._register.lines.values()):
            asked = line.request.draft.principal
            if gone & asked.excluded() or (also is not None and also(asked)):
                try:
                    await self._register.whole(self._register.locked(line, _ended, why))
                except VoteError:
                    pass  # it ended by itself meanwhile
        for grant in self.grants():
            if gone & {grant.requester, *grant.chain, *([grant.owner] if grant.owner else [])}:
                try:
                    await self._register.whole(self._revoke_grant(grant.id, None, why))
                except (VoteError, NotFoundError):
                    pass

    def grants(self) -> builtins.list[Grant]:
        """Return the grants in force, oldest first."""
        return self._grants.in_force(self._register.time.now())

    async def revoke_grant(self, grant_id: str, *, by: Identity, why: str = "") -> Grant:
        """Raise NotFoundError, VoteError when it has ended already, StoreError."""
        return await self._register.whole(self._revoke_grant(clean(grant_id, 40), by, clean(why, MAX_REASON)))

    def locks(self) -> builtins.list[Lock]:
        return self._guard.locks(self._register.time.now())

    async def unlock(self, requester: Identity, *, by: Identity) -> None:
        await self._register.whole(self._guard.unlock(requester, by))

    async def broken_glass(self, *, waiting: bool = True) -> Sequence[GlassRow]:
        """Return the approvals that broke the glass; with `waiting` only those that nobody else looked at yet."""
        return await self._rows.vigilance.broken(waiting=waiting, limit=RECENT)

    async def reviewed(self, request_id: str, *, reviewer: Identity, note: str) -> None:
        """Somebody else looked at a broken glass. Raise VoteError when it is the one who broke it, or no person."""
        await self._register.whole(self._answers.reviewed(request_id, reviewer, clean(note, MAX_REASON)))

    async def tick(self) -> None:
        """Look at the clocks now: end what time has ended, and let everybody who waits look at theirs."""
        await self._register.whole(self._register.end_due())
        for line in list(self._register.lines.values()):
            line.wake()

    # -- using ------------------------------------------------------------------------------------------------------------

    async def _use(self, line: Line) -> ApprovalRequest | None:
        async with line.lock:
            if line.request.state is not State.APPROVED:
                return None
            if not self._electorate.stands(line.request):
                await self._register.end(line, lambda request, _: desk.revoke(request), "a voter is not active any more")
                return None
            fault_points.reached("consume.checked")
            try:
                used = await self._register.end(line, lambda request, now: desk.consume(request, now=now), "", in_time=True)
            except VoteError:
                return None  # lapsed, its grant ended, or somebody else was first
            fault_points.reached("consume.stored")
            return used

    async def _hand_back(self, line: Line) -> ApprovalRequest:
        async with line.lock:
            request = line.request
            if request.state is not State.PENDING or request.presence is Presence.RETURNED or line.holding > 0:
                return request
            try:
                return await self._register.end(line, lambda fresh, now: desk.give_back(fresh, now=now), "the client left")
            except VoteError:
                # The row was decided, or its time was over, before ours came: say what it is now.
                return await self._register.pass_time(line)

    async def _abandon(self, submitting: asyncio.Task[Place]) -> None:
        try:
            await (await submitting).give_back()
        except InterlockError as error:
            log.warning("approvals.not_handed_back", reason=str(error.code))

    async def _revoke_grant(self, grant_id: str, by: Identity | None, why: str) -> Grant:
        grant = await self._grants.revoke(grant_id)
        self._register.journal(grant_event(grant, self._register.generation, by, why))
        return grant

    # -- time -------------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        await self._register.whole(self._register.end_due())

    async def _keep_mark(self, now: datetime) -> None:
        """Keep the high-water mark fresh while a deadline depends on it."""
        await self._grants.tidy(now)
        if self._register.lines or self._grants.in_force(now):
            await self._rows.approvals.advance(now)

    async def _resume(self, line: Line, *, restored: bool) -> None:
        register = self._register
        async with line.lock:
            register.take_up(line)
            now = register.time.now()
            due = desk.deadline(line.request)
            if restored:
                await register.end(line, _ended, "the store was restored from a backup")
                return
            if due is not None and now >= due:
                await register.pass_time(line)
            if line.request.state is State.PENDING and line.request.presence is Presence.HELD:
                await register.end(line, lambda request, moment: desk.give_back(request, now=moment), "the proxy restarted")


def _ended(request: ApprovalRequest, now: datetime) -> ApprovalRequest:
    return desk.cancel(request, now=now) if request.state is State.PENDING else desk.revoke(request)
