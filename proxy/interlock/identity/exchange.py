"""Tokens for tokens (RFC 8693): what an agent gets for its platform's token, alone or for a person. No I/O of its own.

Knows the request and its answer, not HTTP. Theory of operation: the subject token says whom it is about, the actor token who
acts; each is verified as if its holder logged in with it. What is given lasts as long as the shorter of both, at most fifteen
minutes, is worth no more than both together, and carries the whole chain. An exchange is recorded before it is answered.

Errors carry the codes of RFC 6749 §5.2 and RFC 8693 §2.2.2. They never quote a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from interlock.clock import Clock
from interlock.config import Secret
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.authenticate import Authenticator, Proven
from interlock.identity.delegation import acting
from interlock.identity.exchanged import LIFETIME
from interlock.identity.jose import MAX_TOKEN
from interlock.identity.principal import Credential, CredentialKind, Kind, Origin, Principal

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
PASSWORD = "urn:interlock:token-type:postgres-password"

TAKEN = frozenset({ACCESS_TOKEN, JWT})
"""What subject and actor may be: an ID token says who logged in, and is no authority (RFC 8693 §3 has a type for it)."""

PARAMETERS = frozenset({
    "grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
    "resource", "audience", "scope",
})  # fmt: skip


class ExchangeError(InterlockError):
    """An exchange that is refused. `error` is the code of RFC 6749 and RFC 8693, `code` our reason."""

    reason = Reason.TOKEN_REJECTED

    def __init__(self, error: str, message: str, reason: Reason = Reason.TOKEN_REJECTED) -> None:
        super().__init__(message, reason=reason)
        self.error = error


@dataclass(frozen=True, slots=True)
class Granted:
    """What is given, on its only way out. `issued_type` and `token_type` as in RFC 8693 §2.2.1."""

    secret: Secret
    ident: str
    issued_type: str
    token_type: str
    issued: datetime
    expires: datetime
    principal: Principal


class Exchange:
    """One an application."""

    def __init__(self, authenticator: Authenticator, *, clock: Clock, journal: Recorder, audience: str = "interlock") -> None:
        self._authenticator = authenticator
        self._clock = clock
        self._journal = journal
        self._audience = audience

    async def exchange(self, asked: dict[str, str], *, source: str = "") -> Granted:
        """Answer one request. Raise ExchangeError; StoreError and EvidenceError when it can't be checked or recorded."""
        wanted = self._checked(asked)
        subject = await self._proven(asked["subject_token"], source)
        actor = await self._proven(asked["actor_token"], source) if "actor_token" in asked else None
        with _not_acceptable():
            self._authenticator.still(asked["subject_token"], subject)  # proving the actor may have taken a while
        principal = self._acting(subject, actor)
        until = self._until(subject.principal, *([actor.principal] if actor else []))
        parents = frozenset(one.principal.credential.ident for one in (subject, actor) if one is not None)
        origins = {origin: None for one in (subject, actor) if one is not None for origin in one.principal.credential.origins}
        granted = self._given(wanted, replace(principal, credential=_pending(until, tuple(origins))), until, parents)
        try:
            self._journal.append(_event(granted, source))
            await self._journal.sync()
            with _not_acceptable():
                await self._authenticator.exchanged.write(granted.ident)
        except InterlockError:
            self._authenticator.exchanged.revoke(idents=(granted.ident,))
            raise
        return granted

    def _checked(self, asked: dict[str, str]) -> str:
        """Return the type that is asked for. Raise ExchangeError for what is missing, unknown or not offered."""
        if asked.get("grant_type") != GRANT:
            raise ExchangeError("unsupported_grant_type", f"grant_type must be {GRANT}", Reason.REQUEST_NOT_OFFERED)
        for token in ("subject_token", "actor_token"):
            kind = asked.get(f"{token}_type")
            if (token in asked) != (kind is not None) or (token == "subject_token" and kind is None):
                raise _bad(f"{token} and {token}_type come together" + ("" if token == "actor_token" else ", and must be there"))
            if kind is not None and kind not in TAKEN:
                raise _bad(f"{token}_type must be {' or '.join(sorted(TAKEN))}")
            if len(asked.get(token, "")) > MAX_TOKEN:
                raise ExchangeError("invalid_request", f"the {token} is longer than {MAX_TOKEN} bytes", Reason.TOO_LARGE)
        if asked.get("resource") or asked.get("audience", self._audience) != self._audience:
            raise ExchangeError("invalid_target", f"tokens are given for {self._audience} alone", Reason.REQUEST_NOT_OFFERED)
        if asked.get("scope"):
            raise ExchangeError(
                "invalid_scope", "there are no scopes to ask for: policy says what may be done", Reason.REQUEST_NOT_OFFERED
            )
        wanted = asked.get("requested_token_type", ACCESS_TOKEN)
        if wanted not in (ACCESS_TOKEN, PASSWORD):
            raise _bad(f"requested_token_type must be {ACCESS_TOKEN} or {PASSWORD}")
        return wanted

    async def _proven(self, token: str, source: str) -> Proven:
        with _not_acceptable():
            return await self._authenticator.proven(token, source=source)

    def _acting(self, subject: Proven, actor: Proven | None) -> Principal:
        if actor is None:
            if subject.principal.kind is Kind.HUMAN:
                raise _bad("a person's token is exchanged together with the agent's: give it as actor_token", Reason.NOT_A_PERSON)
            if subject.may_act is not None:
                raise _bad("the subject's token names who may act for it, and nobody does")
            return subject.principal
        allowed = subject.may_act
        if allowed is not None and allowed not in {actor.principal.identity, *actor.own}:
            raise _bad("the subject's token lets another one act for it (may_act)", Reason.MISSING_SCOPE)
        if actor.may_act is not None:
            raise _bad("the actor's token is for somebody who acts for it (may_act)")
        with _not_acceptable():
            return acting(actor.principal, subject.principal, actor.principal.credential)

    def _until(self, *principals: Principal) -> datetime:
        ends = [p.credential.expires for p in principals if p.credential.expires is not None]
        return min([self._clock.now() + LIFETIME, *ends])

    def _given(self, wanted: str, principal: Principal, until: datetime, parents: frozenset[str]) -> Granted:
        exchanged, now = self._authenticator.exchanged, self._clock.now()
        with _not_acceptable():
            if wanted == PASSWORD:
                issued = exchanged.password(principal, until, parents)
                return Granted(issued.secret, issued.id, PASSWORD, "N_A", now, until, principal)
            issued = exchanged.token(principal, until, parents)
        return Granted(issued.secret, issued.id, ACCESS_TOKEN, "Bearer", now, until, principal)


@contextmanager
def _not_acceptable() -> Iterator[None]:
    """RFC 8693 §2.2.2: a token that is not acceptable for any reason is an invalid_request."""
    try:
        yield
    except AuthenticationError as error:
        raise _bad(str(error), error.code) from None


def _bad(message: str, reason: Reason = Reason.TOKEN_REJECTED) -> ExchangeError:
    return ExchangeError("invalid_request", message, reason)


def _pending(until: datetime, origins: tuple[Origin, ...]) -> Credential:
    return Credential(CredentialKind.EXCHANGED, "", until, origins)


def _event(granted: Granted, source: str) -> EventDraft:
    """An exchange is a login: who, for whom, and by which ident what was given can be revoked."""
    principal = granted.principal
    fields: dict[str, Json] = {
        "method": "exchange", "outcome": "accepted", "source": source, "principal": str(principal.identity),
        "acting_for": [str(identity) for identity in principal.acting_for],
        "owner": str(principal.owner) if principal.owner else None,
        "credential": granted.ident, "given": granted.issued_type.rpartition(":")[2],
    }  # fmt: skip
    return EventDraft("login", fields)
