"""How a question gets its place: an answer that exists already, a question that waits already, or a new one.

In this order, so that the strictest answer wins: a lock of the requester, a denial of the same thing that still stands, an
approval of it that is unused, the same question pending, a grant that covers it, and only then a new request, if the
requester has not too many. One at a time: two sessions that ask the same at once get one request.

Knows the desk's order. Must not know how people are reached or answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from interlock.approvals import desk
from interlock.approvals.authority import House, Voter
from interlock.approvals.digest import match as match_of
from interlock.approvals.electorate import Electorate
from interlock.approvals.grantbook import Grantbook
from interlock.approvals.grants import Grant
from interlock.approvals.guard import Guard
from interlock.approvals.line import Line
from interlock.approvals.model import ApprovalRequest, Presence, RequestDraft, State
from interlock.approvals.place import Place
from interlock.approvals.register import Register
from interlock.clock import Clock, Entropy, ulid
from interlock.errors import Reason, StoreError, VoteError
from interlock.store.approvals import Written

SAME_THING = 8
"""Earlier requests with the same match that are looked at; at most one is pending and one approved."""


class Submission:
    def __init__(
        self, register: Register, electorate: Electorate, grantbook: Grantbook, guard: Guard, *, house: House,
        clock: Clock, entropy: Entropy, place: Callable[[Line], Place],
    ) -> None:  # fmt: skip
        self.lock = asyncio.Lock()
        self.match_key = b""
        self.closing = False
        self._register = register
        self._electorate = electorate
        self._grants = grantbook
        self._guard = guard
        self._house = house
        self._clock = clock
        self._entropy = entropy
        self._place = place

    async def submit(self, draft: RequestDraft) -> Place:
        """Raise StoreError, or VoteError when the requester is locked or asks too much."""
        register, requester = self._register, draft.principal.identity
        async with self.lock:
            if self.closing:
                raise StoreError(reason=Reason.SHUTTING_DOWN)
            await register.end_due()
            self._guard.admit(requester, register.time.now())
            match = match_of(draft, self.match_key)
            states = (State.PENDING, State.APPROVED, State.DENIED, State.REVOKED)
            outdated: Line | None = None
            for known in reversed(await register.rows.with_match(match, states, SAME_THING)):
                line = register.lines.get(known.id) or Line(known)
                found = await self._answer_to(line, draft)
                if found is not None:
                    return found
                if line.request.state is State.PENDING:
                    outdated = line
            under = self._grants.covering(draft, match, register.time.now())
            if under is not None and (born := await self._open_under(under, draft, match)) is not None:
                return self._place(born)
            if outdated is None:
                self._guard.admit_another(requester)
            return self._place(await self._open(draft, match, outdated))

    def edited(self, request: ApprovalRequest, draft: RequestDraft, author: Voter) -> ApprovalRequest:
        """Return the request for an edited text. Nobody that its author is can vote on it, nor an earlier text's author."""
        return desk.open_request(
            draft, request_id=self._ident(), nonce=self._nonce(), match=match_of(draft, self.match_key),
            now=self._register.time.now(), excluded=self._electorate.excluded(draft) | request.excluded,
            edited_from=request.id, author=author,
        )  # fmt: skip

    async def put(self, request: ApprovalRequest, *, instead_of: tuple[Line, ApprovalRequest], why: str) -> Line:
        """Store a request and end the one whose place it takes; the caller holds that one's lock."""
        old, ended = instead_of
        written = await self._register.rows.insert(request, now=request.created, superseding=ended)
        # The new one first: whoever is woken by the end of the old one finds it.
        line = Line(request)
        self._register.insert(line, written)
        self._register.publish(old, Written(ended, written.generation))
        self._register.note(ended, why)
        return line

    async def _answer_to(self, line: Line, draft: RequestDraft) -> Place | None:
        """Return a place at a request for the same thing, or None when it says nothing about this one."""
        register = self._register
        async with line.lock:
            request, now = line.request, register.time.now()
            same_terms = request.draft.terms == draft.terms
            match request.state:
                case State.DENIED | State.REVOKED if now < request.expires and desk.denied(request):
                    await self._guard.denied(draft.principal.identity, now)
                    return self._place(line)
                case State.APPROVED if desk.usable(request, now) and not request.grant:
                    if same_terms:
                        return self._place(line)
                    await register.apply(line, lambda fresh, _: desk.revoke(fresh))
                case State.PENDING if same_terms and now < request.expires:
                    place = self._place(line)
                    try:
                        if request.presence is Presence.RETURNED:
                            await register.apply(line, lambda fresh, moment: desk.hold_again(fresh, now=moment))
                    except BaseException:
                        line.holding -= 1
                        raise
                    return place
            return None

    async def _open_under(self, grant: Grant, draft: RequestDraft, match: str) -> Line | None:
        """Open a request that is approved already; None when the grant does not stand any more."""
        register = self._register
        now = register.time.now()
        request = desk.open_under(
            grant, draft, request_id=self._ident(), nonce=self._nonce(), match=match, now=now, house=self._house,
            excluded=self._electorate.excluded(draft),
        )  # fmt: skip
        if not self._electorate.stands(request):
            await self._grants.revoke(grant.id)
            return None
        try:
            written = await register.rows.insert(request, now=now, beside=register.follow(now))
        except VoteError:
            return None  # it ended in the store a moment ago
        line = Line(request)
        register.insert(line, written)
        return line

    async def _open(self, draft: RequestDraft, match: str, outdated: Line | None) -> Line:
        now = self._register.time.now()
        request = desk.open_request(
            draft, request_id=self._ident(), nonce=self._nonce(), match=match, now=now,
            excluded=self._electorate.excluded(draft),
        )  # fmt: skip
        if outdated is not None:
            async with outdated.lock:
                ended = desk.supersede(outdated.request, now=now)
                return await self.put(request, instead_of=(outdated, ended), why=f"asked again under other terms as {request.id}")
        line = Line(request)
        self._register.insert(line, await self._register.rows.insert(request, now=now))
        return line

    def _ident(self) -> str:
        return f"req_{ulid(self._clock, self._entropy)}"

    def _nonce(self) -> str:
        return self._entropy(16).hex()
