"""The words of approvals: the request a reviewer sees, the vote, and the states a request can be in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from interlock.commands.model import Analysis, Command
from interlock.identity.principal import Identity, Principal
from interlock.policy.model import Decision, ReviewTerms, Target


class State(StrEnum):
    """pending → approved | denied | expired | cancelled | superseded; approved → consumed | lapsed | revoked."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    CONSUMED = "consumed"
    LAPSED = "lapsed"
    REVOKED = "revoked"

    @property
    def terminal(self) -> bool:
        return self not in (State.PENDING, State.APPROVED)


class Presence(StrEnum):
    """Whether the requester still waits in place (`held`) or must run the command again (`returned`)."""

    HELD = "held"
    RETURNED = "returned"


class VoteVerdict(StrEnum):
    APPROVE = "approve"
    DENY = "deny"


class Proof(StrEnum):
    """How far a vote proves itself to a third party (evidence.md)."""

    NONE = "none"
    CHANNEL = "channel"
    PERSONAL = "personal"


@dataclass(frozen=True, slots=True)
class Vote:
    """One reviewer's answer, as it was counted."""

    reviewer: Identity
    reviewer_handle: str
    channel: str  # teams | console | cli | api
    channel_actor: str  # the channel's own stable id of whoever submitted it
    verdict: VoteVerdict
    digest: str
    at: datetime
    scope: str = "once"
    proof: Proof = Proof.NONE
    reason: str = ""
    event: str = ""  # source event id, for idempotence


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What the gate asks for when a decision is `review`."""

    principal: Principal
    target: Target
    command: Command
    analysis: Analysis
    decision: Decision
    terms: ReviewTerms
    session: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A request as it is stored. `digest` is what a reviewer answers, `match` what would run (both `sha256:…`-style)."""

    id: str
    nonce: str
    digest: str
    match: str
    draft: RequestDraft
    created: datetime
    expires: datetime
    state: State = State.PENDING
    presence: Presence = Presence.HELD
    votes: tuple[Vote, ...] = ()
    decided_at: datetime | None = None
    valid_until: datetime | None = None  # of an approval that waits to be consumed
    excluded: frozenset[Identity] = field(default_factory=frozenset)

    @property
    def reviewers(self) -> str:
        return ", ".join(self.draft.terms.groups) or "nobody"
