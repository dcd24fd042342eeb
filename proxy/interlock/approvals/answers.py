"""What becomes of an answer: checked against who gives it, written down, counted, and what it leaves beside its request.

* A vote is in the node's journal, synced, before it counts; a journal that can't be written counts nothing.
* A personal proof is checked here, for every channel, against the keys that the directory has.

Must not know protocols and channels, nor that a caller may go away: the inbox keeps what runs here whole.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy import Connection

from interlock import fault_points
from interlock.approvals import authority, desk, proof
from interlock.approvals.authority import House
from interlock.approvals.electorate import Electorate
from interlock.approvals.grantbook import left_by
from interlock.approvals.guard import Guard
from interlock.approvals.minutes import answer_event, edit_event, glass_event, grant_event
from interlock.approvals.model import ApprovalRequest, Proof, RequestDraft, Signed, State, Vote, VoteVerdict
from interlock.approvals.proof import Proofs
from interlock.approvals.register import MAX_NAME, Register
from interlock.approvals.submission import Submission
from interlock.errors import Reason, StoreError, VoteError
from interlock.identity.principal import Identity
from interlock.store.approvals import ApprovalRows, Beside
from interlock.store.grants import demand, keep, revoke_of
from interlock.store.vigilance import GlassRow, VigilanceRows, broke

log = structlog.get_logger()


class NoProofs:
    """Where no keys of people are known, no signature is theirs."""

    def check(self, person: Identity, signed: Signed, statement: bytes) -> Signed:
        raise VoteError(reason=Reason.PROOF_REJECTED)


class Answers:
    """One an inbox."""

    def __init__(
        self,
        register: Register,
        electorate: Electorate,
        guard: Guard,
        submission: Submission,
        approvals: ApprovalRows,
        vigilance: VigilanceRows,
        *,
        house: House,
        proofs: Proofs,
    ) -> None:
        self._register = register
        self._electorate = electorate
        self._guard = guard
        self._submission = submission
        self._approvals = approvals
        self._vigilance = vigilance
        self._house = house
        self._proofs = proofs

    async def vote(self, request_id: str, ballot: Vote) -> ApprovalRequest:
        """Count an answer; the same delivery twice counts once. Raise as `Inbox.vote`."""
        register = self._register
        line = await register.line(request_id)
        reviewer, handle = self._electorate.known_as(ballot.reviewer)
        ballot = replace(ballot, reviewer=reviewer, reviewer_handle=handle)
        try:
            # Whoever may not answer at all does not stand in the line of those who may.
            self._check_authority(line.request, ballot)
        except VoteError as error:
            await register.minute(answer_event(line.request, ballot, register.generation, refused=error.code))
            raise
        async with line.lock:

            def count(request: ApprovalRequest, now: datetime) -> ApprovalRequest:
                # Asked again inside the transaction: whoever was disabled while the journal was synced does not count.
                voter, barred = self._electorate.voter(reviewer), self._electorate.excluded(request.draft)
                return desk.vote(request, replace(ballot, at=now), voter, now=now, house=self._house, excluded=barred)

            try:
                ballot = self._proven(line.request, ballot)
                if count(line.request, register.time.now()) is line.request:
                    return line.request  # the same delivery again
                await register.minute(answer_event(line.request, ballot, register.generation))
                fault_points.reached("vote.minuted")
                request = await register.apply(line, count, in_time=True)
                fault_points.reached("vote.stored")
            except (VoteError, StoreError) as error:
                # A vote that was written down first and then failed is written down again: as not counted.
                await register.minute(answer_event(line.request, ballot, register.generation, refused=error.code))
                raise
        await self._after(request, ballot)
        return request

    def _check_authority(self, request: ApprovalRequest, ballot: Vote) -> None:
        voter, barred = self._electorate.voter(ballot.reviewer), self._electorate.excluded(request.draft)
        authority.check_person(request, ballot, voter, now=self._register.time.now(), house=self._house, excluded=barred)

    def _proven(self, request: ApprovalRequest, ballot: Vote) -> Vote:
        """Check a signature against the person's own keys, over exactly this answer."""
        if ballot.signed is None:
            return ballot
        scope = proof.signed_scope(ballot.scope, break_glass=ballot.break_glass)
        signed = proof.statement(request.digest, request.nonce, ballot.verdict, scope, ballot.valid_until)
        return replace(ballot, signed=self._proofs.check(ballot.reviewer, ballot.signed, signed), proof=Proof.PERSONAL)

    async def _after(self, request: ApprovalRequest, ballot: Vote) -> None:
        """What an answer says beyond its request: a grant began, a requester was denied once more, a glass was broken."""
        register = self._register
        if ballot.verdict is VoteVerdict.DENY:
            await self._guard.denied(request.draft.principal.identity, register.time.now())
        elif (grant := left_by(request, self._house)) is not None:
            register.journal(grant_event(grant, register.generation))
        if ballot.break_glass and request.state is State.APPROVED:
            log.error("approvals.glass_broken", request=request.id, reviewer=ballot.reviewer_handle)

    async def edit(
        self, request_id: str, editor: Identity, channel: str, actor: str, digest: str, draft: RequestDraft, said: str
    ) -> ApprovalRequest:
        """Put another text in a request's place. Raise as `Inbox.edit`."""
        register = self._register
        line = await register.line(request_id)
        async with self._submission.lock, line.lock:
            voter = self._electorate.voter(self._electorate.known_as(editor)[0])
            excluded = self._electorate.excluded(line.request.draft)
            edited = self._submission.edited(line.request, draft, voter)
            now = register.time.now()
            ended = desk.edit(line.request, voter, digest, now=now, house=self._house, successor=edited.id, excluded=excluded)
            if await self._approvals.with_match(edited.match, (State.PENDING,), 1):
                raise VoteError("that text waits for an answer already, as a request of its own", reason=Reason.NOT_EDITABLE)
            await register.minute(edit_event(line.request, edited, channel, actor, said))
            await self._submission.put(edited, instead_of=(line, ended), why=f"edited as {edited.id}")
        return edited

    async def reviewed(self, request_id: str, reviewer: Identity, note: str) -> None:
        """Take down that somebody else looked at a broken glass. Raise as `Inbox.reviewed`."""
        line = await self._register.line(request_id)
        voter = self._electorate.voter(self._electorate.known_as(reviewer)[0])
        now, barred = self._register.time.now(), self._electorate.excluded(line.request.draft)
        authority.check_second_look(line.request, voter, note, now=now, house=self._house, excluded=barred)
        await self._register.minute(glass_event(line.request, voter.identity, note))
        await self._vigilance.reviewed(GlassRow(line.request.id, now, now, str(voter.identity)[: 2 * MAX_NAME], note))


def consequences(house: House, now: datetime) -> Beside:
    """Return what is written in the transaction of a change: grants and broken glass come and go with their request."""

    def write(connection: Connection, request: ApprovalRequest) -> None:
        match request.state:
            case State.APPROVED if not request.grant:
                if (grant := left_by(request, house)) is not None:
                    keep(connection, grant)
                if any(vote.break_glass for vote in request.votes):
                    broke(connection, request.id, now)
            case State.APPROVED | State.CONSUMED if request.grant:
                demand(connection, request.grant, now)
            case State.REVOKED:
                revoke_of(connection, request.id)
            case _:
                pass

    return write
