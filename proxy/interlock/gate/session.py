"""One principal at one target, and the fast half of the path: what policy allows is answered without a task switch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from interlock.approvals.wording import Refusal
from interlock.clock import unix_ns
from interlock.commands.model import Analysis, Command, Kind, SqlContext, Stdin
from interlock.errors import SENTENCES, EvidenceError, InterlockError, Reason
from interlock.evidence.events import Draft, Json, Recorder
from interlock.gate.pending import Pending
from interlock.gate.release import Release
from interlock.identity.principal import Principal
from interlock.policy.model import Decision, Facts, SessionFacts, Target, Verdict
from interlock.ports import Caller
from interlock.record import blocked, decided, described
from interlock.repeats import Repeat

if TYPE_CHECKING:
    from interlock.gate.gate import Gate


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
        expires = principal.credential.expires
        self._until_ns = None if expires is None else unix_ns(expires)
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
            if decision.verdict is not Verdict.ALLOW or self._forbidden() is not None:
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
        if self._until_ns is not None:
            self._until_ns = max(self._until_ns, unix_ns(until))

    def stopped(self) -> Refusal | None:
        """Say why nothing more may run, also of what was released earlier and waits at the target (a bound portal)."""
        return self._forbidden()

    # -- the steps of the path ------------------------------------------------------------------------------------

    def _forbidden(self) -> Refusal | None:
        """Conditions of the session itself that end the path before policy is asked."""
        if self._closed or self._gate.draining:
            return Refusal(Reason.SHUTTING_DOWN, SENTENCES[Reason.SHUTTING_DOWN])
        if self._killed is not None:
            return self._killed
        if self._revoked:
            return Refusal(Reason.DISABLED_PRINCIPAL, SENTENCES[Reason.DISABLED_PRINCIPAL])
        if self._until_ns is not None and self._gate.clock.wall_ns() >= self._until_ns:
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
