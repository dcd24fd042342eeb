"""Decision sessions: five minutes of `approvals:decide`, opened with a passphrase given just now (identity.md).

Login credentials never decide, or an agent on an engineer's laptop would approve with the engineer's own session. Knows
who opened a session and when it ends; must not know requests or votes. Kept hashed and in memory: a restart ends them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from interlock.clock import Clock, Entropy
from interlock.errors import AuthenticationError, Reason
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.principal import Credential, CredentialKind, Identity, Kind, Principal
from interlock.identity.tokens import DECISION_PREFIX, fingerprint, new_secret

LIFETIME_S = 300
FRESH_S = 60
"""A passphrase older than this opens no session: whoever held its result back starts anew."""

MAX_PER_PERSON = 8
SCOPE = "approvals:decide"


@dataclass(frozen=True, slots=True)
class _Session:
    person: Identity
    principal: Principal
    until: datetime
    until_us: int


class DecisionSessions:
    """One a process."""

    def __init__(self, directory: Directory, *, clock: Clock, entropy: Entropy) -> None:
        self._directory = directory
        self._clock = clock
        self._entropy = entropy
        self._sessions: dict[bytes, _Session] = {}
        directory.subscribe(self._changed)

    def open(self, principal: Principal) -> str:
        """Return the bearer token of a new session for somebody whose passphrase was just checked.

        Raise AuthenticationError: not-a-person for agents and services, step-up-required for any other credential.
        """
        if principal.kind is not Kind.HUMAN:
            raise AuthenticationError(reason=Reason.NOT_A_PERSON)
        now, when = self._clock.now(), principal.assurance.auth_time
        fresh = when is not None and timedelta(0) <= now - when <= timedelta(seconds=FRESH_S)
        if principal.credential.kind is not CredentialKind.PASSPHRASE or not fresh:
            raise AuthenticationError(reason=Reason.STEP_UP_REQUIRED)
        entry = self._directory.get(principal.identity)
        if entry is None or entry.disabled:
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        for key in [key for key, session in self._sessions.items() if self._over(session)]:
            del self._sessions[key]
        mine = [key for key, session in self._sessions.items() if session.person == principal.identity]
        for key in mine[: max(0, len(mine) - MAX_PER_PERSON + 1)]:
            del self._sessions[key]
        secret = new_secret(DECISION_PREFIX, self._entropy)
        until = now + timedelta(seconds=LIFETIME_S)
        until_us = self._clock.monotonic_us() + LIFETIME_S * 1_000_000
        key = fingerprint(secret)
        credential = Credential(CredentialKind.PASSPHRASE, "dec_" + key.hex()[:16], until)
        self._sessions[key] = _Session(principal.identity, replace(principal, credential=credential), until, until_us)
        return secret

    def resolve(self, secret: str) -> Principal | None:
        """Return the person of a live session, with the groups of now; None for anything else."""
        if not secret.startswith(DECISION_PREFIX):
            return None
        session = self._sessions.get(fingerprint(secret))
        if session is None or self._over(session):
            return None
        entry = self._directory.get(session.person)
        if entry is None or entry.disabled:
            return None
        return replace(session.principal, groups=entry.groups, linked=entry.linked)

    def close(self, secret: str) -> None:
        """End a session. Nothing happens when there is none."""
        self._sessions.pop(fingerprint(secret), None)

    def _over(self, session: _Session) -> bool:
        """The earlier of both clocks: setting the wall clock back prolongs nothing."""
        return self._clock.now() >= session.until or self._clock.monotonic_us() >= session.until_us

    def _changed(self, change: Change) -> None:
        """A new passphrase, and everything that takes authority away, ends what was opened before."""
        ended = change.stopped | ({change.identity} if change.kind is ChangeKind.PASSPHRASE_SET else frozenset())
        for key in [key for key, session in self._sessions.items() if session.person in ended]:
            del self._sessions[key]
