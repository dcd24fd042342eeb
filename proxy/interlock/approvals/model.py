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


class Scope(StrEnum):
    """How far an approval goes. Wider ones than `once` are grants (approvals/grants.py)."""

    ONCE = "once"
    EXACT = "exact"  # exactly this, again, until a time
    RULE_IN_SESSION = "rule_in_session"  # what this rule holds in this session, bound to the words of this request


@dataclass(frozen=True, slots=True)
class Signed:
    """A personal proof: a signature by a key that only the reviewer has, over `approvals.proof.statement`.

    kind: webauthn | sshsig. `key` is the credential id (base64url) or the fingerprint (SHA256:…). `public` is what a third
    party checks with: a COSE key, or the blob of an SSH key. `client_data` and `authenticator_data` are WebAuthn's
    (WebAuthn Level 3, §5.2.2), empty for an SSHSIG, whose `signature` is the raw blob (PROTOCOL.sshsig). `public` and
    `statement` are filled in by whoever checked the signature: what comes from a client has neither.
    """

    kind: str
    key: str
    public: bytes
    signature: bytes
    client_data: bytes = b""
    authenticator_data: bytes = b""
    statement: bytes = b""


@dataclass(frozen=True, slots=True)
class Vote:
    """One reviewer's answer, as it was counted."""

    reviewer: Identity
    reviewer_handle: str
    channel: str  # teams | slack | console | cli | api
    channel_actor: str  # the channel's own stable id of whoever submitted it
    verdict: VoteVerdict
    digest: str
    at: datetime
    scope: str = "once"
    proof: Proof = Proof.NONE
    reason: str = ""
    event: str = ""  # source event id, for idempotence
    groups: tuple[str, ...] = ()  # those of the request's groups that the reviewer was in when answering
    valid_until: datetime | None = None  # of a scope wider than once
    signed: Signed | None = None
    break_glass: bool = False  # one person of a named group in place of the groups and the quorum


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
    said: str = ""  # the agent's own reason: nobody has checked it
    facts: tuple[str, ...] = ()  # what we found out for the reviewer: an estimate of rows, an open transaction


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
    grant: str = ""  # the grant that answered before anybody was asked
    edited_from: str = ""  # the request that a reviewer edited
    author: Identity | None = None  # who edited it, and so never votes on it
    author_handle: str = ""
    successor: str = ""  # the request that took this one's place
    escalated_at: datetime | None = None

    @property
    def reviewers(self) -> str:
        return ", ".join(self.draft.terms.all_groups) or "nobody"
