"""The slow half of the path: a command whose answer takes time, be it a child's, a disk's or a person's.

Knows: the order that the package's docstring writes down. Must not know: sockets, how a client is told.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from interlock import fault_points
from interlock.approvals import wording
from interlock.approvals.model import ApprovalRequest, RequestDraft, State
from interlock.approvals.wording import Refusal
from interlock.commands.model import Analysis, Command, HeldInput, Stdin
from interlock.errors import SENTENCES, EvidenceError, InputError, InterlockError, Reason
from interlock.gate.release import Release
from interlock.policy.model import Decision, ReviewTerms, Verdict
from interlock.ports import Caller, Ticket
from interlock.record import answered, blocked, decided, described, forwarded, requested

if TYPE_CHECKING:
    from interlock.gate.session import Session


log = structlog.get_logger()
MAX_SAID = 500
"""Characters of an agent's own reason that a reviewer is shown."""
WAITING_EVERY = 60.0
"""Seconds between two lines to a client that waits."""


class Pending:
    """A command whose answer takes time: classification in a child, a sync, or a human.

    Await `outcome()` in a task of its own. Cancelling that task means that the client has left (disconnect or
    CancelRequest): a held request becomes returned, and nothing is released.
    """

    def __init__(
        self, session: Session, command: Command, caller: Caller, analysis: Analysis | None, failure: Exception | None = None
    ) -> None:
        self._session = session
        self._gate = session._gate
        self._command = command
        self._caller = caller
        self._analysis = analysis
        self._failure = failure
        self._ticket: Ticket | None = None
        self._decided_at: int | None = None  # the decision on record that has no forward or block yet
        self._ended = False  # a forward or a block is on record

    @property
    def analysis(self) -> Analysis | None:
        """What was known at once of what the command would do. Until `outcome` is awaited, nothing of it is recorded."""
        return self._analysis

    async def outcome(self) -> Release | Refusal:
        """Walk the rest of the path. Never raises but CancelledError: whatever fails is a refusal."""
        try:
            if self._failure is not None:
                raise self._failure
            return await self._walk()
        except asyncio.CancelledError:
            await asyncio.shield(self._left())
            raise
        except InterlockError as error:
            refusal = Refusal(error.code, str(error), error.next_step)
        except Exception as error:
            # A defect of ours. Its text may quote the command, so only its kind is logged.
            log.error("gate.failed", session=self._session.id, error=type(error).__name__)
            refusal = Refusal(Reason.INTERNAL, SENTENCES[Reason.INTERNAL])
        await self._hand_back()
        return self._block(refusal)

    async def _walk(self) -> Release | Refusal:
        session, gate = self._session, self._gate
        command = self._command
        analysis = self._analysis = self._analysis or await gate.classifier.classify(command)
        if analysis.stdin is Stdin.CODE and command.stdin is None and analysis.unreadable is None:
            command, analysis = await self._read_code(command)
        if (forbidden := session._forbidden()) is not None:
            return self._refuse(command, analysis, None, forbidden)
        if analysis.unreadable is not None:
            unreadable = analysis.unreadable
            decision = session._decide(command, analysis)
            refusal = Refusal(unreadable.reason, unreadable.message, SENTENCES[unreadable.reason], rule=decision.rule)
            return await self._denied(command, analysis, decision, refusal)
        decision = session._decide(command, analysis)
        match decision.verdict:
            case Verdict.ALLOW:
                release = session._release_allowed(command, analysis, decision)
                if session.recorder.sync_every:
                    await session.recorder.sync()
                return release
            case Verdict.DENY:
                refusal = Refusal(Reason.DENIED_BY_POLICY, decision.reason, decision.hint, rule=decision.rule)
                return await self._denied(command, analysis, decision, refusal)
            case Verdict.REVIEW:
                return await self._review(command, analysis, decision)

    async def _read_code(self, command: Command) -> tuple[Command, Analysis]:
        self._command = command = command.with_stdin(await self._caller.read_input())
        self._analysis = await self._gate.classifier.classify(command)
        return command, self._analysis

    async def _denied(self, command: Command, analysis: Analysis, decision: Decision, refusal: Refusal) -> Refusal:
        refused = self._refuse(command, analysis, decision, refusal)
        await self._session.recorder.sync()
        return refused

    def _refuse(self, command: Command, analysis: Analysis, decision: Decision | None, refusal: Refusal) -> Refusal:
        """Record the command, the decision and the refusal at once."""
        self._ended = True
        return self._session._refuse(command, analysis, decision, refusal)

    def _block(self, refusal: Refusal) -> Refusal:
        """Record why nothing goes on, once. The refusal stands even when it can't be recorded."""
        if self._ended:
            return refusal
        if self._decided_at is None:
            return self._refuse(self._command, self._analysis or Analysis(), None, refusal)
        self._ended = True
        self._session._refused += 1
        try:
            self._session.recorder.append(blocked(self._decided_at, refusal))
        except EvidenceError as error:
            return replace(refusal, reason=error.code, message=str(error), hint=error.next_step)
        return refusal

    async def _hand_back(self) -> None:
        """Nobody waits in place any more. What can't be handed back now is, when the proxy starts again."""
        if self._ticket is None:
            return
        try:
            await self._ticket.give_back()
        except InterlockError as error:
            log.warning("gate.not_handed_back", request=self._ticket.request.id, reason=str(error.code))

    async def _left(self) -> None:
        """The client left: hand its request back, and say so in the record when a decision waits there for its end."""
        await self._hand_back()
        if self._decided_at is not None:
            request = None if self._ticket is None else self._ticket.request.id
            self._block(Refusal(Reason.APPROVAL_PENDING, "the client left before anything was sent", request=request))

    async def _review(self, command: Command, analysis: Analysis, decision: Decision) -> Release | Refusal:
        """Ask a human, wait in place, and release exactly what was approved."""
        session, gate = self._session, self._gate
        if (pointless := await self._caller.ready_to_wait()) is not None:
            return self._refuse(command, analysis, decision, pointless)
        if analysis.stdin is Stdin.DATA and command.stdin is None:
            try:
                command = command.with_stdin(await self._caller.read_input())
            except InputError as error:
                return self._refuse(command, analysis, decision, Refusal(error.code, str(error), error.next_step))
        terms = decision.review or ReviewTerms()
        decided_at = session.recorder.append(described(command, analysis), decided(decision, session._seq(0))) + 1
        self._decided_at = decided_at
        draft = RequestDraft(
            session.principal, session.target, command, analysis, decision, terms, session.id, session.facts.client,
            wording.one_line(self._caller.said, MAX_SAID), await self._caller.facts(command, analysis),
        )  # fmt: skip
        self._ticket = ticket = await gate.approvals.submit(draft)
        session.recorder.append(requested(decided_at, ticket.request))
        await session.recorder.sync()
        request = await self._wait(ticket, terms)
        fault_points.reached("gate.woken")
        match request.state:
            case State.APPROVED:
                return await self._release_approved(ticket, command, analysis, decided_at)
            case State.PENDING:
                refusal = wording.pending(request, self._retry_after(request))
            case State.SUPERSEDED if (instead := await ticket.successor()) is not None:
                session.recorder.append(answered(request))
                refusal = wording.edited(request, instead, self._retry_after(instead))
            case _:
                session.recorder.append(answered(request))
                refusal = wording.settled(request)
        return await self._refused(refusal)

    async def _refused(self, refusal: Refusal) -> Refusal:
        refusal = self._block(refusal)
        await self._session.recorder.sync()
        return refusal

    async def _wait(self, ticket: Ticket, terms: ReviewTerms) -> ApprovalRequest:
        """Wait in place until the request is settled or waiting longer harms; then hand it back."""
        gate, request = self._gate, ticket.request
        if request.state is not State.PENDING:
            return request
        limits = [float(terms.hold), float(self._remaining(request))]
        if self._caller.max_hold is not None:
            limits.append(self._caller.max_hold)
        left = max(0.0, min(limits))
        self._caller.notify(wording.held(request, self._remaining(request), gate.approvals.link(request)))
        while left > 0:
            step = min(left, WAITING_EVERY)
            request = await ticket.settled(step)
            if request.state is not State.PENDING or gate.draining:
                break
            left -= step
            if left > 0:
                self._caller.notify(wording.waiting(request, self._remaining(request)))
        return request if request.state is not State.PENDING else await ticket.give_back()

    async def _release_approved(
        self, ticket: Ticket, command: Command, analysis: Analysis, decision_seq: int
    ) -> Release | Refusal:
        """Decide again, consume, record, sync, release: in this order, each step able to stop the next."""
        session = self._session
        again = session._decide(command, analysis)
        terms = again.review or ReviewTerms()
        stricter = again.verdict is Verdict.DENY or (again.verdict is Verdict.REVIEW and terms != ticket.request.draft.terms)
        forbidden = session._forbidden()
        if stricter or forbidden is not None:
            await ticket.revoke("the policy became stricter, or the session ended, after the approval")
            consumed = None
        else:
            consumed = await ticket.consume()
        if consumed is None:
            refusal = forbidden or Refusal(Reason.APPROVAL_REVOKED, SENTENCES[Reason.APPROVAL_REVOKED])
            return await self._refused(replace(refusal, request=ticket.request.id, rule=again.rule))
        if (forbidden := session._forbidden()) is not None:
            # The session was stopped while the approval was taken from the store: it is used up, and nothing is sent.
            session.recorder.append(answered(consumed))
            return await self._refused(replace(forbidden, request=consumed.id))
        forward = session.recorder.append(answered(consumed), forwarded(decision_seq, command, command.text)) + 1
        self._ended = True
        fault_points.reached("release.recorded")
        await session.recorder.sync()
        fault_points.reached("release.synced")
        if (forbidden := session._forbidden()) is not None:
            # Stopped while the disk was written: the record says forward, and then that nothing went.
            return await self._withheld(decision_seq, replace(forbidden, request=consumed.id))
        session._released += 1
        self._caller.notify(wording.approved(consumed))
        protocol = analysis.stdin is Stdin.PROTOCOL  # streams after the release, and is looked at on its way
        stdin = command.stdin if command.stdin is not None else None if protocol else HeldInput(b"")
        return Release(command.text, decision_seq, forward, analysis, stdin, approved=True, request=consumed.id)

    async def _withheld(self, decision_seq: int, refusal: Refusal) -> Refusal:
        self._session._refused += 1
        self._session.recorder.append(blocked(decision_seq, refusal))
        await self._session.recorder.sync()
        return refusal

    def _retry_after(self, request: ApprovalRequest) -> int:
        return max(5, min(60, self._remaining(request)))

    def _remaining(self, request: ApprovalRequest) -> int:
        return max(0, int((request.expires - self._gate.clock.now()).total_seconds()))
