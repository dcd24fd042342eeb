"""What the gate needs of others, as protocols: each is one room of the house, and tests stand in for them here.

Knows the words of the domain. Whoever implements one of these sits above the gate; nobody below it does.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from interlock.approvals.model import ApprovalRequest, RequestDraft
from interlock.approvals.wording import Notice, Refusal
from interlock.commands.model import Analysis, Command, HeldInput, Kind, SqlContext
from interlock.errors import Reason
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity.principal import Principal
from interlock.policy.model import Access, Decision, Facts, SessionFacts, Target


class Classifier(Protocol):
    """commands/: text into effects."""

    def classify_now(self, command: Command) -> Analysis | None:
        """Return the analysis when it costs no wait (cached, or small enough to do here), else None."""
        ...

    def alike(self, text: bytes, kind: Kind, context: SqlContext) -> Hashable | None:
        """Return one object for all texts that differ from an analysed one in values which change nothing, else None."""
        ...

    async def classify(self, command: Command) -> Analysis:
        """Analyse in a child process. A crash or a limit is an opaque analysis, never an exception."""
        ...


class Policy(Protocol):
    """policy/: facts into a decision."""

    @property
    def digest(self) -> str: ...

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the rules in observe mode."""
        ...

    def may_open(self, principal: Principal, target: Target) -> Access: ...

    def may_see(self, principal: Principal, target: Target) -> bool:
        """Whether some account or role of the target is open to the principal; the target's own is not read."""
        ...

    def decide(self, facts: Facts) -> Decision: ...


class PolicySource(Protocol):
    """Holds the policy in force. A reload swaps it whole."""

    @property
    def current(self) -> Policy: ...


class Ticket(Protocol):
    """A place in the queue for one request."""

    @property
    def request(self) -> ApprovalRequest: ...

    async def settled(self, timeout: float) -> ApprovalRequest:
        """Return the request once it is not pending any more, or as it is after `timeout` seconds."""
        ...

    async def successor(self) -> ApprovalRequest | None:
        """Return the request that a reviewer's edit put in the place of this one, or None."""
        ...

    async def consume(self) -> ApprovalRequest | None:
        """Turn `approved` into `consumed` atomically; None when something else came first. Checks the voters again."""
        ...

    async def give_back(self) -> ApprovalRequest:
        """The requester stops waiting in place: held → returned, or cancelled when the rule is hold-only."""
        ...

    async def revoke(self, why: str) -> None:
        """An approval may not be used any more: the policy is now stricter."""
        ...


class Approvals(Protocol):
    """approvals/: the desk behind its store."""

    async def submit(self, draft: RequestDraft) -> Ticket:
        """Open a request, attach to a pending one with the same match, or find one approved and unused."""
        ...

    def link(self, request: ApprovalRequest) -> str:
        """Return the address of the page that shows the request, or an empty string."""
        ...


class Transcripts(Protocol):
    """evidence/: opens a transcript for a session; `session.open` is on disk when this returns."""

    async def open(self, session: SessionFacts, opened: EventDraft) -> Recorder: ...

    @property
    def journal(self) -> Recorder: ...


class Standing(Protocol):
    """identity/: whether what somebody was let in with still holds."""

    def opens(self, principal: Principal, target: str) -> Reason | None:
        """Return why this principal may open no session at this target now, or None."""
        ...

    def lost(self, principal: Principal, target: str) -> Reason | None:
        """Return why one that is open may not go on, or None."""
        ...


class Caller(Protocol):
    """The waiting client as the gate sees it; implemented by each front end."""

    @property
    def max_hold(self) -> float | None:
        """Seconds after which waiting in place harms the client (open transaction), or None."""
        ...

    async def read_input(self) -> HeldInput:
        """Read standard input to EOF within bounds. Raise InputError."""
        ...

    @property
    def said(self) -> str:
        """The agent's own reason, on one line; nobody has checked it. Shown set apart, never part of a match."""
        ...

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        """Find out what helps a reviewer (an estimate of rows, an open transaction). Never raises; within seconds."""
        ...

    async def ready_to_wait(self) -> Refusal | None:
        """Called once before a human is asked: drain earlier answers. Return a refusal when asking is pointless."""
        ...

    def notify(self, notice: Notice) -> None:
        """Tell the client something while it waits. Must not block."""
        ...
