"""The one path every command takes, and the only place where its order is written down.

    Command → classify → decide → (hold for a human) → record → release, or refuse

A front end turns bytes into a `Command` and a `Release` or `Refusal` back into bytes. It never decides. The gate never
touches a socket. The invariant (tests/test_gate_invariant.py):

    No byte of a command reaches a target before a decision about those bytes is recorded; the bytes released are the
    bytes decided (or their re-rendering, and then both are in the record); when anything on this path fails, nothing
    is released.

Fast path: a command that policy allows is answered synchronously, without a task switch: cached classification, cached
decision, one write to the transcript.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from interlock import fault_points
from interlock.approvals import wording
from interlock.approvals.model import ApprovalRequest, RequestDraft, State
from interlock.approvals.wording import Refusal
from interlock.clock import Clock
from interlock.commands.model import Analysis, Command, HeldInput, Kind, SqlContext, Stdin
from interlock.errors import SENTENCES, EvidenceError, InputError, InterlockError, Reason
from interlock.evidence.events import Draft, EventDraft, Json, Recorder
from interlock.identity.principal import Authority, Identity, Principal
from interlock.policy.model import Decision, Facts, ReviewTerms, SessionFacts, Target, Verdict
from interlock.ports import Approvals, Caller, Classifier, PolicySource, Standing, Ticket, Transcripts
from interlock.record import Drafts, answered, blocked, decided, described, forwarded, requested, where, who
from interlock.repeats import Repeat

log = structlog.get_logger()

EVENTS_OF_A_RELEASE = 3
"""The command, its decision, its forward: appended in one write."""

MAX_SAID = 500
"""Characters of an agent's own reason that a reviewer is shown."""

WAITING_EVERY = 60.0
"""Seconds between two lines to a client that waits."""


@dataclass(frozen=True, slots=True)
class Release:
    """Permission to send exactly `payload`.

    `stdin` is the held input to send with EOF; None means: stream it (only for allowed commands whose analysis says
    so). `approved` means that a human looked: under `pin: reviewed` the target itself must enforce the bytes.
    """

    payload: bytes
    decision: int
    forward: int
    analysis: Analysis
    stdin: HeldInput | None = None
    approved: bool = False
    request: str | None = None


class Session:
    """One principal at one target. Made by `Gate.open`; every command of the connection goes through `submit`."""

    def __init__(self, gate: Gate, principal: Principal, target: Target, facts: SessionFacts, recorder: Recorder) -> None:
        self.principal = principal
        self.target = target
        self.facts = facts
        self.recorder = recorder
        self._gate = gate
        self._closed = False
        self._revoked = False
        self._killed: Refusal | None = None
        self.opened = gate.clock.now()
        self.on_kill: Callable[[Refusal], None] | None = None
        self.on_revoke: Callable[[], None] | None = None
        self._renewed_until: datetime | None = None
        self._released = 0
        self._refused = 0

    @property
    def id(self) -> str:
        return self.facts.id

    def submit(self, command: Command, caller: Caller) -> Release | Pending:
        """Decide one command. A `Release` may be acted on at once; a `Pending` must be awaited for its outcome."""
        analysis = None
        try:
            analysis = self._gate.classifier.classify_now(command)
            if analysis is None or analysis.stdin is Stdin.CODE or self.recorder.sync_every:
                return Pending(self, command, caller, analysis)
            now = self._gate.clock.now()
            decision = self._decide(command, analysis, now)
            if decision.verdict is not Verdict.ALLOW or self._forbidden(now) is not None:
                return Pending(self, command, caller, analysis)
            return self._release_allowed(command, analysis, decision)
        except Exception as error:
            # Whatever failed, it is a refusal, and it is never tried a second time on another way.
            return Pending(self, command, caller, analysis, failure=error)

    def repeat(self, command: Command, release: Release) -> Repeat | None:
        """Keep what a later release of the same text rests on, or None where each one must be decided anew."""
        policy, analysis = self._gate.policies.current, release.analysis
        decision = self._decide(command, analysis)
        lasting = decision.lasts and decision.verdict is Verdict.ALLOW and not self.recorder.sync_every
        if not lasting or analysis.opaque or command.stdin is not None or release.payload != command.text:
            return None
        return Repeat(self._gate.drafts.recurring(command, analysis, decision, command.text), command.context, policy)

    def alike(self, text: bytes, context: SqlContext) -> Hashable | None:
        """Return one object for all texts of a Query that are alike, where any are known."""
        return self._gate.classifier.alike(text, Kind.QUERY, context)

    def repeat_alike(self, command: Command, release: Release) -> Repeat | None:
        """Like `repeat`, for a text that is alike to others, and for all of them: None also where a rule reads texts."""
        if self.repeat(command, release) is None or not (decision := self._decide(command, release.analysis)).blind:
            return None
        recurring = self._gate.drafts.recurring_text(command, release.analysis, decision)
        return Repeat(recurring, command.context, self._gate.policies.current)

    def again(self, context: SqlContext, *asked: tuple[Repeat, Any]) -> int | None:
        """Release what these hold, each with its values, or with its text where it stands for texts that are alike.

        Return the seq of the first decision, the next is EVENTS_OF_A_RELEASE further.

        None: something has changed since, or can't be recorded. Nothing was released, and `submit` will say why.
        """
        policy = self._gate.policies.current
        drafts: tuple[Draft, ...] = ()
        for repeat, given in asked:
            if not repeat.stands(context, policy):
                return None
            drafts += repeat.recurring.drafts(given)
        if self._forbidden() is not None:
            return None
        try:
            seq = self.recorder.append(*drafts)
        except EvidenceError:  # a transcript that is broken for good
            return None
        self._released += len(asked)
        return seq + 1

    def record(self, *drafts: Draft) -> int:
        """Append what happened around commands (channels, output, results). Raise EvidenceError."""
        return self.recorder.append(*drafts)

    async def close(self, reason: str, fields: Mapping[str, Json] | None = None) -> None:
        """End and seal the transcript. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._gate.forget(self)
        totals: dict[str, Json] = {"released": self._released, "refused": self._refused}
        await self.recorder.close({"reason": reason, **totals, **(fields or {})})

    def revoke(self) -> None:
        """Refuse every later command: the principal, its owner or its credential is not valid any more.

        Refusing is not enough where what was released earlier goes on by itself (a COPY, a large result, notifications):
        a front end in which it does sets `on_revoke` and ends the connection.
        """
        self._revoked = True
        if self.on_revoke is not None:
            self.on_revoke()

    def kill(self, why: str) -> None:
        """End the session at once, for everybody: nothing later is released, and its connection is closed."""
        self._close(Refusal(Reason.SESSION_KILLED, f"an operator ended this session: {why}"))

    def end(self, why: str) -> None:
        """End the session at once for its credential's sake: whoever asks is told to log in, not to ask an operator."""
        self._close(Refusal(Reason.LOGIN_ENDED, why, SENTENCES[Reason.LOGIN_ENDED]))

    def lose(self, reason: Reason) -> None:
        """End the session at once: what it was opened with does not hold any more."""
        if self._killed is None:
            self._close(Refusal(reason, SENTENCES[reason]))

    def _close(self, refusal: Refusal) -> None:
        self._killed = self._killed or refusal
        if self.on_kill is not None:
            self.on_kill(refusal)

    def renew(self, until: datetime) -> None:
        """The same subject obtained a new credential: the session lasts as long as that one (postgres.md)."""
        if self._renewed_until is None or until > self._renewed_until:
            self._renewed_until = until

    def stopped(self) -> Refusal | None:
        """Say why nothing more may run, also of what was released earlier and waits at the target (a bound portal)."""
        return self._forbidden()

    # -- the steps of the path ------------------------------------------------------------------------------------

    def _forbidden(self, now: datetime | None = None) -> Refusal | None:
        """Conditions of the session itself that end the path before policy is asked."""
        if self._closed or self._gate.draining:
            return Refusal(Reason.SHUTTING_DOWN, SENTENCES[Reason.SHUTTING_DOWN])
        if self._killed is not None:
            return self._killed
        if self._revoked:
            return Refusal(Reason.DISABLED_PRINCIPAL, SENTENCES[Reason.DISABLED_PRINCIPAL])
        if self.principal.credential.expires is None:
            return None
        now = now or self._gate.clock.now()
        if self.principal.expired(now) and (self._renewed_until is None or now >= self._renewed_until):
            return Refusal(Reason.CREDENTIAL_EXPIRED, SENTENCES[Reason.CREDENTIAL_EXPIRED])
        return None

    def _decide(self, command: Command, analysis: Analysis, now: datetime | None = None) -> Decision:
        policy = self._gate.policies.current
        if analysis.unreadable is not None:
            return Decision(
                Verdict.DENY, "interlock/unreadable", analysis.unreadable.message, policy.digest,
                hint=SENTENCES[analysis.unreadable.reason],
            )  # fmt: skip
        facts = Facts(self.principal, self.target, command, analysis, self.facts, now or self._gate.clock.now())
        decision = policy.decide(facts)
        if command.kind is Kind.PARSE and decision.verdict is Verdict.REVIEW:
            # The server only analyses a Parse: what a rule denies ends here, what it reviews is asked at Bind, with the
            # values, because only planning and running have effects (postgres.md).
            return replace(decision, verdict=Verdict.ALLOW, review=None)
        return decision

    def _release_allowed(self, command: Command, analysis: Analysis, decision: Decision) -> Release:
        if analysis.sent is not None:
            payload = analysis.sent.encode()
        elif analysis.opaque or command.kind is Kind.PARSE:
            # A rule that says `opaque: true` allowed it as it stands (no shipped pack has one), or the server only reads it.
            payload = command.text
        else:
            # Closed by construction: an automatic allow sends what was classified, and there is no rendering of it.
            raise InterlockError("an allowed command has no rendering that may be sent", reason=Reason.INTERNAL)
        first = self.recorder.append(*self._gate.drafts.allowed(command, analysis, decision, payload))
        self._released += 1
        return Release(payload, first + 1, first + 2, analysis, command.stdin)

    def _seq(self, ahead: int) -> int:
        return self.recorder.next_seq + ahead

    def _refuse(self, command: Command, analysis: Analysis, decision: Decision | None, refusal: Refusal) -> Refusal:
        """Record a refusal. A refusal stands even when it can't be recorded: nothing is released either way."""
        self._refused += 1
        verdict = decision or Decision(Verdict.DENY, "interlock/session", refusal.message, self._gate.policies.current.digest)
        try:
            self.recorder.append(described(command, analysis), decided(verdict, self._seq(0)), blocked(self._seq(1), refusal))
        except EvidenceError as error:
            return replace(refusal, reason=error.code, message=str(error), hint=error.next_step)
        return refusal


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
        if stricter or session._forbidden() is not None:
            await ticket.revoke("the policy became stricter, or the session ended, after the approval")
            consumed = None
        else:
            consumed = await ticket.consume()
        if consumed is None:
            return await self._refused(
                Refusal(
                    Reason.APPROVAL_REVOKED, SENTENCES[Reason.APPROVAL_REVOKED],
                    request=ticket.request.id, rule=again.rule,
                )
            )  # fmt: skip
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


class Gate:
    """Holds the parts of the path. One a process; sessions are opened on it."""

    def __init__(
        self,
        *,
        policies: PolicySource,
        classifier: Classifier,
        approvals: Approvals,
        transcripts: Transcripts,
        clock: Clock,
        standing: Standing | None = None,
    ) -> None:
        self.policies = policies
        self.standing = standing
        self.classifier = classifier
        self.approvals = approvals
        self.transcripts = transcripts
        self.clock = clock
        self.drafts = Drafts()
        self.draining = False
        self._live: set[Session] = set()
        self.on_revoke: list[Callable[[frozenset[Identity], frozenset[str]], object]] = []
        """Told of every revocation: whoever keeps something of a principal beyond its sessions."""

    @property
    def live(self) -> int:
        """How many sessions are open."""
        return len(self._live)

    def sessions(self) -> list[Session]:
        """Return the open sessions, oldest first."""
        return sorted(self._live, key=lambda session: (session.opened, session.id))

    def kill(self, session_id: str, by: Principal, why: str) -> bool:
        """End one open session at once; False when there is none of that id. Raise EvidenceError: then it was ended as well."""
        found = next((session for session in self._live if session.id == session_id), None)
        if found is None:
            return False
        # In memory first: a control that stops must not wait for a disk.
        found.kill(wording.one_line(why) or "no reason was given")
        fields: dict[str, Json] = {"killed": session_id, "by": str(by.identity), "handle": by.handle}
        self.transcripts.journal.append(EventDraft("session.kill", fields, {"why": why} if why else {}))
        return True

    async def reconsider(self, draft: RequestDraft, text: bytes) -> RequestDraft:
        """Ask anew about another text in a request's place, as the requester's own: classify it, decide it, check access.

        Raise InterlockError when the text can't be read, policy denies it, or nobody would be asked about it.
        """
        command = replace(draft.command, text=text)
        if draft.command.binds:
            raise InterlockError("a statement with values of its own can't be edited", reason=Reason.NOT_EDITABLE)
        policy = self.policies.current
        access = policy.may_open(draft.principal, draft.target)
        if not access.granted:
            raise InterlockError(access.reason, reason=Reason.NO_ACCESS)
        analysis = await self.classifier.classify(command)
        if analysis.unreadable is not None:
            raise InterlockError(analysis.unreadable.message, reason=analysis.unreadable.reason)
        facts = SessionFacts(draft.session, draft.client)
        decision = policy.decide(Facts(draft.principal, draft.target, command, analysis, facts, self.clock.now()))
        match decision.verdict:
            case Verdict.DENY:
                raise InterlockError(decision.reason, reason=Reason.DENIED_BY_POLICY)
            case Verdict.ALLOW:
                raise InterlockError(
                    "policy allows that text without asking: deny this one and tell the agent to run that",
                    reason=Reason.NOT_EDITABLE,
                )
            case Verdict.REVIEW:
                terms = decision.review or ReviewTerms()
                return replace(draft, command=command, analysis=analysis, decision=decision, terms=terms, facts=())

    def forget(self, session: Session) -> None:
        self._live.discard(session)

    def revoke(self, identities: frozenset[Identity], credentials: frozenset[str]) -> None:
        """Stop the live sessions of these identities, of whoever acts for or is owned by them, and of these credentials."""
        for session in list(self._live):
            principal = session.principal
            if identities & principal.excluded() or principal.credential.ident in credentials:
                session.revoke()
        for told in self.on_revoke:
            told(identities, credentials)

    def end(self, credentials: frozenset[str], why: str) -> None:
        """Close the live sessions that one of these credentials opened, at once."""
        for session in list(self._live):
            if session.principal.credential.ident in credentials:
                session.end(why)
        for told in self.on_revoke:  # what the login left behind when its sessions ended before it
            told(frozenset(), credentials)

    def renew(
        self,
        identity: Identity,
        until: datetime,
        *,
        acting_for: tuple[Identity, ...] = (),
        groups: frozenset[str] | None = None,
        behind: tuple[Authority, ...] = (),
    ) -> None:
        """A new credential of `identity`, for the same chain, renews its live sessions until it ends itself.

        `groups` and `behind` are what the credential itself brings: a session with more is not prolonged by one with less.
        """
        for session in self._live:
            holder = session.principal
            same = holder.identity == identity and holder.acting_for == acting_for
            now = {one.identity: one.groups for one in behind}
            chain = all(one.groups <= now.get(one.identity, frozenset()) for one in holder.behind)
            if same and chain and (groups is None or holder.groups <= groups):
                session.renew(until)

    def expel(self, stops: Callable[[Principal, str], bool], why: str) -> None:
        """End the live sessions of whoever may not be at their target any more."""
        gone = [session for session in self._live if stops(session.principal, session.target.name)]
        for session in gone:
            session.kill(why)
        for told in self.on_revoke:
            told(frozenset(session.principal.identity for session in gone), frozenset())

    def sweep(self) -> None:
        """End every live session of whoever lost what it was opened with, whichever way that came about."""
        for session in list(self._live):
            if self.standing is not None and (reason := self.standing.lost(session.principal, session.target.name)) is not None:
                session.lose(reason)

    async def open(
        self, principal: Principal, target: Target, facts: SessionFacts, extra: Mapping[str, Json] | None = None
    ) -> Session | Refusal:
        """Check access and open a transcript. A refusal is in the node's journal when this returns."""
        access = self.policies.current.may_open(principal, target)
        if self.draining:
            return Refusal(Reason.SHUTTING_DOWN, SENTENCES[Reason.SHUTTING_DOWN])
        lost = self._lost(principal, target)
        if lost is not None or not access.granted:
            refusal = (
                Refusal(lost, SENTENCES[lost]) if lost is not None
                else Refusal(Reason.NO_ACCESS, access.reason, SENTENCES[Reason.NO_ACCESS], rule=access.rule)
            )  # fmt: skip
            self.transcripts.journal.append(
                EventDraft(
                    "access.refused", {"reason": str(refusal.reason), "client": facts.client, **who(principal), **where(target)}
                )
            )
            return refusal
        opened = EventDraft(
            "session.open",
            {
                "client": facts.client, "access_rule": access.rule, "policy": self.policies.current.digest,
                **who(principal), **where(target), **(extra or {}),
            },
        )  # fmt: skip
        recorder = await self.transcripts.open(facts, opened)
        session = Session(self, principal, target, facts, recorder)
        self._live.add(session)
        if (lost := self._lost(principal, target)) is not None:  # whoever took it away did not find it among the live ones
            session.lose(lost)
        return session

    def _lost(self, principal: Principal, target: Target) -> Reason | None:
        return self.standing.opens(principal, target.name) if self.standing is not None else None
