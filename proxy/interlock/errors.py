"""The one error tree and the stable reason codes.

A `Reason` is what programs match on: it appears in events, in API problem documents, in the DETAIL of a Postgres
error and in docs/reference/reasons.md, which is generated from this file. The sentence beside it is for people and
says what to do next. Foreign exceptions are mapped to this tree at the boundary of the adapter that met them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why something did not happen. Codes are part of the contract: never renamed, never reused."""

    # decisions about a command
    DENIED_BY_POLICY = "denied-by-policy"
    DENIED_BY_REVIEWER = "denied-by-reviewer"
    APPROVAL_PENDING = "approval-pending"
    APPROVAL_EXPIRED = "approval-expired"
    APPROVAL_CANCELLED = "approval-cancelled"
    APPROVAL_REVOKED = "approval-revoked"
    APPROVAL_EDITED = "approval-edited"
    REQUESTER_LOCKED = "requester-locked"
    TOO_MANY_REQUESTS = "too-many-requests"
    NO_ACCESS = "no-access"
    CREDENTIAL_EXPIRED = "credential-expired"
    CANNOT_BE_PINNED = "cannot-be-pinned"
    TRANSACTION_FAILED = "transaction-failed"

    # text that the front end itself refuses
    DECEPTIVE_TEXT = "deceptive-text"
    NOT_UTF8 = "not-utf8"
    SYNTAX_ERROR = "syntax-error"
    TOO_LARGE = "too-large"
    EMPTY_COMMAND = "empty-command"
    STDIN_WITHOUT_EOF = "stdin-without-eof"
    STDIN_TOO_LARGE = "stdin-too-large"
    REQUEST_NOT_OFFERED = "request-not-offered"
    PROTOCOL_VIOLATION = "protocol-violation"
    SESSION_POISONED = "session-poisoned"
    SESSION_KILLED = "session-killed"
    LIMIT_REACHED = "limit-reached"

    # who is asking
    NOT_AUTHENTICATED = "not-authenticated"
    TOKEN_REJECTED = "token-rejected"
    TOKEN_EXPIRED = "token-expired"
    TOKEN_REPLAYED = "token-replayed"
    GROUPS_INCOMPLETE = "groups-incomplete"
    ISSUER_UNAVAILABLE = "issuer-unavailable"
    CREDENTIAL_REVOKED = "credential-revoked"
    UNKNOWN_PRINCIPAL = "unknown-principal"
    DISABLED_PRINCIPAL = "disabled-principal"
    MISSING_SCOPE = "missing-scope"
    STEP_UP_REQUIRED = "step-up-required"
    PROVIDER_UNAVAILABLE = "provider-unavailable"
    OVERLOADED = "overloaded"
    LOGIN_ENDED = "login-ended"

    # who may answer
    SELF_APPROVAL = "self-approval"
    NOT_A_REVIEWER = "not-a-reviewer"
    NOT_A_PERSON = "not-a-person"
    UNMAPPED_ACTOR = "unmapped-actor"
    ALREADY_DECIDED = "already-decided"
    ALREADY_VOTED = "already-voted"
    DIGEST_MISMATCH = "digest-mismatch"
    DELIVERY_REJECTED = "delivery-rejected"
    STEP_UP_TOO_WEAK = "step-up-too-weak"
    SCOPE_NOT_OFFERED = "scope-not-offered"
    PROOF_REJECTED = "proof-rejected"
    REVIEWER_TOO_NEW = "reviewer-too-new"
    SIGN_IN_REQUIRED = "sign-in-required"
    REASON_REQUIRED = "reason-required"
    NOT_EDITABLE = "not-editable"
    BREAK_GLASS_REFUSED = "break-glass-refused"

    # what failed on our side or beyond it
    EVIDENCE_UNAVAILABLE = "evidence-unavailable"
    STORE_UNAVAILABLE = "store-unavailable"
    POLICY_INVALID = "policy-invalid"
    CONFIG_INVALID = "config-invalid"
    TARGET_UNREACHABLE = "target-unreachable"
    TARGET_IDENTITY = "target-identity"
    TARGET_CREDENTIAL = "target-credential"
    ACCOUNT_CHANGED = "account-changed"
    NOT_FOUND = "not-found"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal-error"
    EVIDENCE_INVALID = "evidence-invalid"
    EVIDENCE_INCOMPLETE = "evidence-incomplete"


SENTENCES: dict[Reason, str] = {
    Reason.DENIED_BY_POLICY: "A policy rule denies this command. Trying it another way is not wanted; ask the policy's owner.",
    Reason.DENIED_BY_REVIEWER: "A reviewer denied this command. Read the reviewer's reason before you ask for anything else.",
    Reason.APPROVAL_PENDING: "Nobody has answered yet. Run exactly the same command again after it is approved.",
    Reason.APPROVAL_EXPIRED: "Nobody answered in time. Silence is not consent, and trying another way is not wanted.",
    Reason.APPROVAL_CANCELLED: "The request was withdrawn before anybody answered. Run the command again to ask anew.",
    Reason.APPROVAL_REVOKED: "The approval was taken back before the command ran. Run the command again to ask anew.",
    Reason.APPROVAL_EDITED: "A reviewer proposes another text. Run that text once it is approved; yours was not run.",
    Reason.REQUESTER_LOCKED: "You kept asking for what was denied, so nothing is asked for you until the lock ends.",
    Reason.TOO_MANY_REQUESTS: "Too many of your requests wait for an answer. Wait for those before you ask for more.",
    Reason.NO_ACCESS: "No access rule opens this target with this account or role for you. Ask the policy's owner for one.",
    Reason.CREDENTIAL_EXPIRED: "The credential of this connection has expired. Obtain a new one; the session then continues.",
    Reason.CANNOT_BE_PINNED: "The target enforces approved commands by certificate and this text can't be in one. Split it.",
    Reason.TRANSACTION_FAILED: "An earlier statement of this transaction failed, so nobody was asked. Roll back and start again.",
    Reason.DECEPTIVE_TEXT: "The text holds control or invisible characters that would deceive a reviewer. Remove them.",
    Reason.NOT_UTF8: "The text is not valid UTF-8. Send UTF-8.",
    Reason.SYNTAX_ERROR: "The text does not parse in the target's own grammar. Correct it.",
    Reason.TOO_LARGE: "The text is larger than can be shown to a reviewer. Split it.",
    Reason.EMPTY_COMMAND: "The command is empty. Give one.",
    Reason.STDIN_WITHOUT_EOF: "The command reads its input and the input never ended. Use `< /dev/null` or a file.",
    Reason.STDIN_TOO_LARGE: "The input is larger than can be shown to a reviewer. Copy it to the target first, as a file.",
    Reason.REQUEST_NOT_OFFERED: "This kind of request is not offered here. Run single commands: ssh TARGET 'command'.",
    Reason.PROTOCOL_VIOLATION: "The client broke the protocol, so the connection was closed.",
    Reason.SESSION_POISONED: "A session setting changed that makes text ambiguous, so the session ends. Connect again.",
    Reason.SESSION_KILLED: "An operator ended this session. Ask them before you connect again.",
    Reason.LIMIT_REACHED: "A limit on connections, channels or requests was reached. Wait, or use fewer at once.",
    Reason.NOT_AUTHENTICATED: "No accepted credential was given. Use a registered key or a token.",
    Reason.TOKEN_REJECTED: "The token was not accepted. Obtain a new one.",
    Reason.TOKEN_EXPIRED: "The token has expired or is older than its issuer may be trusted for. Obtain a new one.",
    Reason.TOKEN_REPLAYED: "This token is good for one use and was used. Obtain a new one; who used it, if not you?",
    Reason.GROUPS_INCOMPLETE: "The token does not carry all groups. Assign fewer to the application at the provider.",
    Reason.ISSUER_UNAVAILABLE: "The identity provider's keys can't be fetched, so its tokens are refused. Try again shortly.",
    Reason.CREDENTIAL_REVOKED: "This credential, its holder or the target was revoked. Ask an administrator, or sign in again.",
    Reason.UNKNOWN_PRINCIPAL: "Nobody is registered under this name. Ask an administrator to run `interlock principals add`.",
    Reason.DISABLED_PRINCIPAL: "This principal is disabled. Ask an administrator.",
    Reason.MISSING_SCOPE: "The credential lacks the scope that this call needs.",
    Reason.STEP_UP_REQUIRED: "Deciding needs a fresh step-up. Enter your passphrase.",
    Reason.PROVIDER_UNAVAILABLE: "The identity provider does not answer as it should. Try again; the node's log says more.",
    Reason.OVERLOADED: "Too many log in at this moment. Nothing is lost: do the same again in a few seconds.",
    Reason.LOGIN_ENDED: "The login behind this session has ended. Run `interlock login`, and connect again.",
    Reason.SELF_APPROVAL: "Whoever asks, owns the agent, is in its delegation chain or wrote the text can't answer the request.",
    Reason.NOT_A_REVIEWER: "You are in none of the groups that may answer this request.",
    Reason.NOT_A_PERSON: "Only people answer requests: an agent's or a service's credential never approves.",
    Reason.UNMAPPED_ACTOR: "This account is linked to no active person. Ask an administrator to link it.",
    Reason.ALREADY_DECIDED: "The request has its final state already.",
    Reason.ALREADY_VOTED: "You have answered this request already.",
    Reason.DIGEST_MISMATCH: "The answer names another request than the one stored. Open it again and read it.",
    Reason.DELIVERY_REJECTED: "The message did not pass authentication and was ignored.",
    Reason.STEP_UP_TOO_WEAK: "The rule asks for a stronger proof than this channel gives. Use the page that the card links to.",
    Reason.SCOPE_NOT_OFFERED: "The rule does not offer this scope. Answer with one that the request lists.",
    Reason.PROOF_REJECTED: "The signature is not one of yours over this answer. Sign the answer that you send, with your key.",
    Reason.REVIEWER_TOO_NEW: "You became a reviewer only lately. Another administrator can confirm you.",
    Reason.SIGN_IN_REQUIRED: "Your groups are unknown or too old. Sign in once with your identity provider, then answer again.",
    Reason.REASON_REQUIRED: "This answer needs a written reason. Give one.",
    Reason.NOT_EDITABLE: "This request can't be edited. Deny it with a reason that says what you would approve.",
    Reason.BREAK_GLASS_REFUSED: "Breaking the glass is for named people, with a passkey and a written reason.",
    Reason.EVIDENCE_UNAVAILABLE: "The transcript can't be written, so nothing is released. Check the disk of the proxy.",
    Reason.STORE_UNAVAILABLE: "The store does not answer, so nothing is released. Check the database of the proxy.",
    Reason.POLICY_INVALID: "The policy does not load. `interlock policy check` shows the place.",
    Reason.CONFIG_INVALID: "The configuration does not load. `interlock check` shows the place.",
    Reason.TARGET_UNREACHABLE: "The target does not answer. Check its address, and whether it is up.",
    Reason.TARGET_IDENTITY: "The target did not prove that it is the configured one, so nothing was sent.",
    Reason.TARGET_CREDENTIAL: "The target did not accept our credential. Check it in the configuration and at the target.",
    Reason.ACCOUNT_CHANGED: "The account reads text otherwise than was thought. Run the same again: it is read anew.",
    Reason.NOT_FOUND: "There is nothing of that name.",
    Reason.SHUTTING_DOWN: "The proxy is shutting down. Run the same again on its successor.",
    Reason.INTERNAL: "Something failed inside the proxy, so nothing was released. The node's log says more.",
    Reason.EVIDENCE_INVALID: "The evidence does not verify.",
    Reason.EVIDENCE_INCOMPLETE: "The evidence has parts missing that no signed redaction explains.",
}


class InterlockError(Exception):
    """Base of every error we raise on purpose.

    `reason` is the stable code, `str(error)` one sentence about this case, `next_step` what the person can do.
    """

    reason: ClassVar[Reason] = Reason.INTERNAL

    def __init__(self, message: str = "", *, reason: Reason | None = None, next_step: str = "") -> None:
        """`next_step` where something better can be said than the reason's own sentence."""
        self.code: Reason = reason if reason is not None else self.reason
        self._next_step = next_step
        super().__init__(message or SENTENCES[self.code])

    @property
    def next_step(self) -> str:
        return self._next_step or SENTENCES[self.code]


class ConfigError(InterlockError):
    """The configuration can't be used; nothing was changed."""

    reason = Reason.CONFIG_INVALID


class PolicyError(InterlockError):
    """A policy can't be used; the old one stays."""

    reason = Reason.POLICY_INVALID


class EvidenceError(InterlockError):
    """The transcript can't be written. Whoever meets this releases nothing."""

    reason = Reason.EVIDENCE_UNAVAILABLE


class StoreError(InterlockError):
    """The store can't be read or written. Whoever meets this releases nothing."""

    reason = Reason.STORE_UNAVAILABLE


class AuthenticationError(InterlockError):
    """The credential was not accepted. The message never contains any part of it."""

    reason = Reason.NOT_AUTHENTICATED


class OverloadedError(InterlockError):
    """There is too much to do at this moment. Nothing was begun, so the same may be tried again."""

    reason = Reason.OVERLOADED

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class VoteError(InterlockError):
    """An answer to a request that does not count. The request stays as it is."""

    reason = Reason.NOT_A_REVIEWER


class InputError(InterlockError):
    """The input of a held command can't be shown to a reviewer."""

    reason = Reason.STDIN_WITHOUT_EOF


class TargetError(InterlockError):
    """The target can't be reached or trusted."""

    reason = Reason.TARGET_UNREACHABLE


class ProtocolError(InterlockError):
    """Bytes that break the protocol."""

    reason = Reason.PROTOCOL_VIOLATION


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the session ends."""


class LocalProtocolError(ProtocolError):
    """We were about to break it: a defect of ours. Nothing was sent."""


class NotFoundError(InterlockError):
    """There is nothing of that name."""

    reason = Reason.NOT_FOUND
