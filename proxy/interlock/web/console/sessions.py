"""Console sessions: who is logged in at a browser, and until when that person may decide.

Logging in with the passphrase opens both: eight hours of reading and five minutes of deciding (identity.md, embedded
step-up). Afterwards a decision asks for the passphrase again. Tokens are kept hashed, in memory: a restart logs out.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from interlock.clock import Clock, Entropy
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.principal import CredentialKind, Principal

COOKIE = "interlock_console"
READING_S = 8 * 3600
DECIDING_S = 300
MAX_SESSIONS = 10_000


@dataclass(slots=True)
class ConsoleSession:
    principal: Principal
    csrf: str
    reading_until_us: int
    deciding_until_us: int


class ConsoleSessions:
    def __init__(self, directory: Directory, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._sessions: dict[bytes, ConsoleSession] = {}
        directory.subscribe(self._changed)

    def open(self, principal: Principal) -> str:
        """Return the cookie's value; only its hash is kept.

        The passphrase, given now, also opens five minutes of deciding. Logging in at the identity provider does not: whoever
        holds that browser would decide.
        """
        now = self._clock.monotonic_us()
        for key in [k for k, s in self._sessions.items() if s.reading_until_us <= now]:
            del self._sessions[key]
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        token = self._entropy(32).hex()
        self._sessions[_key(token)] = ConsoleSession(
            principal, self._entropy(32).hex(), now + READING_S * 1_000_000,
            now + (DECIDING_S * 1_000_000 if principal.credential.kind is CredentialKind.PASSPHRASE else 0),
        )  # fmt: skip
        return token

    def find(self, token: str | None) -> ConsoleSession | None:
        session = self._sessions.get(_key(token)) if token else None
        return session if session is not None and session.reading_until_us > self._clock.monotonic_us() else None

    def may_decide(self, session: ConsoleSession) -> bool:
        return session.deciding_until_us > self._clock.monotonic_us()

    def stepped_up(self, session: ConsoleSession) -> None:
        session.deciding_until_us = self._clock.monotonic_us() + DECIDING_S * 1_000_000

    def close(self, token: str | None) -> None:
        if token:
            self._sessions.pop(_key(token), None)

    def end(self, credentials: frozenset[str]) -> None:
        """Log out wherever one of these logins was used."""
        for key in [key for key, session in self._sessions.items() if session.principal.credential.ident in credentials]:
            del self._sessions[key]

    def _changed(self, change: Change) -> None:
        """A new passphrase, and everything that takes authority away, logs the person out everywhere."""
        ended = change.stopped | ({change.identity} if change.kind is ChangeKind.PASSPHRASE_SET else frozenset())
        for key in [key for key, session in self._sessions.items() if session.principal.identity in ended]:
            del self._sessions[key]


def _key(token: str) -> bytes:
    return sha256(token.encode()).digest()
