"""All sessions of a node: how they are opened, and how they are ended from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import structlog

from interlock.approvals import wording
from interlock.approvals.model import RequestDraft
from interlock.approvals.wording import Refusal
from interlock.clock import Clock
from interlock.errors import SENTENCES, InterlockError, Reason
from interlock.evidence.events import EventDraft, Json
from interlock.gate.session import Session
from interlock.identity.principal import Authority, Identity, Principal
from interlock.policy.model import Facts, ReviewTerms, SessionFacts, Target, Verdict
from interlock.ports import Approvals, Classifier, PolicySource, Standing, Transcripts
from interlock.record import Drafts, where, who

log = structlog.get_logger()


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
