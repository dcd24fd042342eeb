"""Short-lived credentials that were given in exchange for others: who holds one, and for how long.

A bearer token (`ilx_…`) or a Postgres password, at most fifteen minutes. Kept hashed and in memory, as decision sessions are:
a restart ends them, and their holders exchange again. One ends at once when anybody it stands for is stopped or changes
groups, owner or accounts, because it was given for what they were. Must not know tokens of issuers, or protocols.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from interlock.clock import Clock, Entropy, ulid
from interlock.config import Secret
from interlock.errors import AuthenticationError, Reason
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.principal import Credential, CredentialKind, Identity, Principal
from interlock.identity.scram import MAX_VERIFIERS, ScramCredentials, Verifier, verifier
from interlock.identity.tokens import EXCHANGED_PREFIX, PASSWORD_PREFIX, Issued, fingerprint, new_secret

LIFETIME = timedelta(minutes=15)
MAX_HELD = 20_000
MAX_EACH = 200

_ENDING = frozenset({
    ChangeKind.DISABLED, ChangeKind.REMOVED, ChangeKind.GROUPS, ChangeKind.OWNER, ChangeKind.LINKED, ChangeKind.UNLINKED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Held:
    """One credential. `key` is the SHA-256 of a token; a password has a verifier and the handle it is for. `parents` are the
    idents of what it was given for, all the way up: it ends with any of them."""

    principal: Principal
    until_us: int
    parents: frozenset[str]
    key: bytes = b""
    verifier: Verifier | None = None
    salt: bytes = b""
    iterations: int = 0


class ExchangedCredentials:
    """One a process."""

    def __init__(self, directory: Directory, *, clock: Clock, entropy: Entropy) -> None:
        self._directory = directory
        self._clock = clock
        self._entropy = entropy
        self._held: OrderedDict[str, _Held] = OrderedDict()  # by ident, oldest first
        self._by_key: dict[bytes, str] = {}
        self._by_handle: dict[str, list[str]] = {}
        directory.subscribe(self._changed)

    def token(self, principal: Principal, until: datetime, parents: frozenset[str] = frozenset()) -> Issued:
        """Make a bearer token of this principal: shown now, never again."""
        secret = new_secret(EXCHANGED_PREFIX, self._entropy)
        issued = self._issued("xtk_", secret, until)
        self._hold(issued, principal, parents, key=fingerprint(secret))
        return issued

    def password(self, principal: Principal, until: datetime, parents: frozenset[str] = frozenset()) -> Issued:
        """Make a Postgres password that stands for this principal with its whole chain, for the actor's handle."""
        secret = new_secret(PASSWORD_PREFIX, self._entropy)
        issued = self._issued("xpw_", secret, until)
        at = self._directory.scram(principal.handle)
        made = verifier(issued.id, secret, at.salt, at.iterations)
        self._hold(issued, principal, parents, verifier=made, salt=at.salt, iterations=at.iterations)
        return issued

    def by_token(self, secret: str) -> Principal:
        """Return who a bearer token stands for. Raise AuthenticationError."""
        ident = self._by_key.get(fingerprint(secret))
        return self._principal(ident)

    def by_password(self, ident: str) -> Principal:
        """Return who the password of this ident stands for, once its proof was checked. Raise AuthenticationError."""
        return self._principal(ident)

    def beside(self, stored: ScramCredentials, handle: str) -> ScramCredentials:
        """Return what the directory keeps for a handle together with the passwords that were exchanged for it."""
        mine = [self._held[ident] for ident in reversed(self._by_handle.get(handle, [])) if self._live(self._held[ident])]
        same = [
            one.verifier for one in mine
            if one.verifier is not None and (one.salt, one.iterations) == (stored.salt, stored.iterations)
        ]  # fmt: skip
        return replace(stored, verifiers=(*stored.verifiers, *same)[:MAX_VERIFIERS]) if same else stored

    def holds(self, ident: str) -> bool:
        return ident in self._held

    def revoke(self, identities: Collection[Identity] = (), idents: Collection[str] = ()) -> frozenset[str]:
        """End what stands for any of these, and what these credentials are or were exchanged for. Return which ended."""
        gone, named = frozenset(identities), frozenset(idents)
        ended = frozenset(
            ident for ident, one in self._held.items()
            if ident in named or named & one.parents or gone & one.principal.excluded()
        )  # fmt: skip
        for ident in ended:
            self._drop(ident)
        return ended

    def _issued(self, prefix: str, secret: str, until: datetime) -> Issued:
        return Issued(prefix + ulid(self._clock, self._entropy), Secret(secret), until)

    def _hold(
        self, issued: Issued, principal: Principal, parents: frozenset[str], *,
        key: bytes = b"", verifier: Verifier | None = None, salt: bytes = b"", iterations: int = 0,
    ) -> None:  # fmt: skip
        left = issued.expires - self._clock.now()
        until_us = self._clock.monotonic_us() + left // timedelta(microseconds=1)
        holder = replace(principal, credential=Credential(CredentialKind.EXCHANGED, issued.id, issued.expires))
        above = (self._held[ident].parents for ident in parents if ident in self._held)
        whole = parents.union(*above)
        self._make_room(principal)
        self._held[issued.id] = _Held(holder, until_us, whole, key, verifier, salt, iterations)
        if key:
            self._by_key[key] = issued.id
        else:
            self._by_handle.setdefault(principal.handle, []).append(issued.id)

    def _make_room(self, principal: Principal) -> None:
        for ident in [ident for ident, one in self._held.items() if not self._live(one)]:
            self._drop(ident)
        mine = [ident for ident, one in self._held.items() if one.principal.identity == principal.identity]
        if len(mine) >= MAX_EACH or len(self._held) >= MAX_HELD:
            # Never somebody else's: whoever asks often only ends their own.
            if not mine:
                raise AuthenticationError("too many exchanged credentials are in use", reason=Reason.LIMIT_REACHED)
            self._drop(mine[0])

    def _principal(self, ident: str | None) -> Principal:
        one = self._held.get(ident) if ident is not None else None
        if one is None:
            raise AuthenticationError(reason=Reason.TOKEN_REJECTED)
        if not self._live(one):
            raise AuthenticationError(reason=Reason.TOKEN_EXPIRED)
        for identity in (one.principal.identity, *one.principal.acting_for):
            entry = self._directory.get(identity)
            if entry is not None and entry.disabled:
                raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        return one.principal

    def _live(self, one: _Held) -> bool:
        """The earlier of both clocks: setting the wall clock back prolongs nothing."""
        return not one.principal.expired(self._clock.now()) and self._clock.monotonic_us() < one.until_us

    def _drop(self, ident: str) -> None:
        one = self._held.pop(ident)
        self._by_key.pop(one.key, None)
        if one.verifier is not None:
            kept = [other for other in self._by_handle[one.principal.handle] if other != ident]
            if kept:
                self._by_handle[one.principal.handle] = kept
            else:
                del self._by_handle[one.principal.handle]

    def _changed(self, change: Change) -> None:
        ending = frozenset({change.identity}) if change.kind in _ENDING else frozenset()
        self.revoke(change.stopped | ending, change.credentials)
