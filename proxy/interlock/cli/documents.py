"""What `--output json` prints: one model a verb, from which docs/reference/cli/*.schema.json are generated.

Pure. The models are a contract with scripts: a key is added, never renamed or removed, and `v` changes when that can't be
kept. Nothing here is on the path of a verb; a test holds what verbs print to these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["approve", "deny"]
State = Literal[
    "pending", "approved", "denied", "expired", "cancelled", "superseded", "consumed", "lapsed", "revoked",
]  # fmt: skip
Scope = Literal["once", "exact", "rule_in_session"]
Proof = Literal["none", "channel", "personal"]


class Document(BaseModel):
    """Exactly these keys, each of exactly this type. Times are RFC 3339, durations seconds."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Effect(Document):
    """One effect; keys are left out where they say nothing (commands.md)."""

    verb: str
    object: str
    via: list[str]
    program: str | None = None
    argv: list[str] | None = None
    host: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    relation_kind: str | None = None
    functions: list[str] | None = None
    columns: list[str] | None = None
    detail: str | None = None
    recursive: bool | None = None
    force: bool | None = None
    filtered: bool | None = None
    limited: bool | None = None
    origin: str | None = None


class Opaque(Document):
    reason: str
    text: str
    start: int
    end: int


class Need(Document):
    groups: list[str]
    quorum: int


class Signature(Document):
    kind: Literal["webauthn", "sshsig"]
    key: str


class Vote(Document):
    reviewer: str
    identity: str
    channel: str
    verdict: Verdict
    scope: Scope
    valid_until: str | None
    proof: Proof
    signed: Signature | None
    break_glass: bool
    groups: list[str]
    reason: str
    at: str


class Row(Document):
    """A request in a list. `first` is the beginning of `text`, safe to print."""

    id: str
    state: State
    presence: Literal["held", "returned"]
    digest: str
    match: str
    principal: str
    kind: Literal["human", "agent", "service"]
    acting_for: list[str]
    owner: str | None
    target: str
    account: str
    database: str
    session: str
    text: str
    first: str
    effects: list[Effect]
    rule: str
    reason: str
    risk: Literal["low", "high", "critical"]
    critical: bool
    policy: str
    created: str
    expires: str
    valid_until: str | None
    escalated: str | None
    groups: list[str]
    quorum: int
    needs: list[Need]
    people: int
    step_up: Literal["none", "reauth", "passkey"]
    edited_from: str | None
    author: str | None
    successor: str | None
    grant: str | None
    votes: list[Vote]


class Display(Document):
    lines: list[str]
    deceptions: list[str]
    cut: bool
    length: int


class Stdin(Document):
    sha256: str
    bytes: int
    base64: str
    lines: list[str]
    deceptions: list[str]
    cut: bool


class Bind(Document):
    shown: str | None
    format: int
    type: int
    base64: str | None


class OfferedScope(Document):
    scope: Scope
    words: str


class Request(Row):
    """A whole request. `words` are the effects in sentences; `said` and `remarks` are what only the agent wrote."""

    v: Literal[1]
    title: str
    display: Display
    stdin: Stdin | None
    binds: list[Bind]
    surroundings: list[str]
    words: list[str]
    opaque: list[Opaque]
    notes: list[str]
    facts: list[str]
    said: str
    remarks: list[str]
    must: list[str]
    scopes: list[OfferedScope]


class Requests(Document):
    v: Literal[1]
    approvals: list[Row]


class Grant(Document):
    id: str
    state: Literal["active", "expired", "revoked"]
    request: str
    scope: Literal["exact", "rule_in_session"]
    words: str
    principal: str
    identity: str
    target: str
    account: str
    rule: str
    session: str | None
    approved_by: list[str]
    created: str
    valid_until: str


class EndedGrant(Grant):
    v: Literal[1]


class Grants(Document):
    v: Literal[1]
    grants: list[Grant]


class StandingRevocation(Document):
    id: str
    kind: Literal["credential", "subject", "agent", "target", "everything"]
    value: str
    at: str
    by: str
    reason: str


class RevocationMade(StandingRevocation):
    v: Literal[1]


class StandingRevocations(Document):
    v: Literal[1]
    revocations: list[StandingRevocation]


class LiftedRevocation(Document):
    v: Literal[1]
    id: str
    state: Literal["lifted"]


class LiveSession(Document):
    id: str
    principal: str
    kind: Literal["human", "agent", "service"]
    owner: str | None
    acting_for: list[str]
    target: str
    account: str
    database: str
    client: str
    opened: str


class LiveSessions(Document):
    v: Literal[1]
    sessions: list[LiveSession]


class Killed(Document):
    v: Literal[1]
    id: str
    killed: Literal[True]


class Session(Document):
    """A recorded session. One that can't be read has `id`, `kind` and `status` alone."""

    id: str
    kind: Literal["session", "journal"]
    status: str
    agent: str | None = None
    handle: str | None = None
    target: str | None = None
    protocol: str | None = None
    account: str | None = None
    client: str | None = None
    opened: str | None = None
    closed: str | None = None
    events: int | None = None


class Sessions(Document):
    v: Literal[1]
    sessions: list[Session]


class ShownSession(Session):
    v: Literal[1]
    seal: dict[str, Any] | None


class Target(Document):
    name: str
    protocol: Literal["ssh", "postgres"]
    labels: dict[str, str]
    account: str
    role: str
    database: str


class Targets(Document):
    v: Literal[1]
    targets: list[Target]


class Whoami(Document):
    v: Literal[1]
    handle: str
    identity: str
    kind: Literal["human", "agent", "service"]
    groups: list[str]
    owner: str | None
    acting_for: list[str]
    scopes: list[str]


class LoggedIn(Document):
    """`expires` is null where the login lasts as long as its platform's token file."""

    v: Literal[1]
    server: str
    handle: str
    expires: str | None
    certificate_expires: str


class PostgresPlace(Document):
    host: str
    port: int
    tls: bool


class Password(Document):
    """A secret: keep this output out of logs."""

    v: Literal[1]
    id: str
    handle: str
    password: str
    expires: str
    postgres: PostgresPlace | None


class PreviousKey(Document):
    key: str
    fingerprint: str
    until: str


class Authority(Document):
    v: Literal[1]
    key: str
    fingerprint: str
    previous: list[PreviousKey]


class RotatedAuthority(Authority):
    """`ended`: certificates that ended at once."""

    ended: int


DOCUMENTS: dict[str, type[Document]] = {
    "approvals-list": Requests,
    "approvals-show": Request,
    "approvals-approve": Request,
    "approvals-deny": Request,
    "approvals-edit": Request,
    "approvals-withdraw": Request,
    "approvals-watch": Request,
    "grants-list": Grants,
    "grants-revoke": EndedGrant,
    "revoke": RevocationMade,
    "revoke-list": StandingRevocations,
    "revoke-lift": LiftedRevocation,
    "sessions-list": Sessions,
    "sessions-show": ShownSession,
    "sessions-live": LiveSessions,
    "sessions-kill": Killed,
    "ls": Targets,
    "whoami": Whoami,
    "login": LoggedIn,
    "token": Password,
    "ca-show": Authority,
    "ca-rotate": RotatedAuthority,
}
"""Verb → what it prints. `approvals watch` prints one such object a line, `approvals edit` the new request."""
