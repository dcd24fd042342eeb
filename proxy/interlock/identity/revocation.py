"""The kill switch: a credential, a subject, an agent, a target, or everything is revoked until somebody lifts it.

In memory first, and live sessions end, then on disk: a control that stops must not wait for either. Lifting goes the other way
round. Who can't read the list at start does not start. Knows principals and names of targets; must not know sessions: whoever
holds some subscribes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from interlock.clock import Clock, Entropy, ulid
from interlock.errors import AuthenticationError, ConfigError, NotFoundError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.lookup import Lookup
from interlock.identity.principal import Identity, Kind, Principal
from interlock.identity.subscribers import Subscribers
from interlock.store.revocations import RevocationRow, RevocationRows

MAX_VALUE = 512


class Revoked(StrEnum):
    CREDENTIAL = "credential"  # serial of a certificate, jti, id of a token or password, fingerprint of a key
    SUBJECT = "subject"  # issuer:subject, with whoever acts for them or is owned by them
    AGENT = "agent"  # by its handle
    TARGET = "target"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Revocation:
    """`value` is an ident, an identity or a name of a target; empty for everything."""

    id: str
    kind: Revoked
    value: str
    at: datetime
    by: str
    why: str

    @property
    def identities(self) -> frozenset[Identity]:
        """Whom a subject may be: issuers and subjects have colons of their own, so wherever there is one it may be cut."""
        cuts = (place for place, letter in enumerate(self.value) if letter == ":")
        return frozenset(Identity(self.value[:place], self.value[place + 1 :]) for place in cuts)

    def concerns(self, principal: Principal) -> bool:
        """Whether this principal's credential, or anybody it stands for, is revoked."""
        match self.kind:
            case Revoked.CREDENTIAL:
                return principal.credential.ident == self.value
            case Revoked.SUBJECT | Revoked.AGENT:
                return any(str(identity) == self.value for identity in principal.excluded())
            case Revoked.TARGET:
                return False
            case Revoked.EVERYTHING:
                return True

    def stops(self, principal: Principal, target: str) -> bool:
        """Whether a session of this principal at this target may not be."""
        return self.concerns(principal) or (self.kind is Revoked.TARGET and self.value == target)


class Revocations:
    """One a process. `load()` before use."""

    def __init__(self, rows: RevocationRows, directory: Lookup, *, clock: Clock, entropy: Entropy, journal: Recorder) -> None:
        self._rows = rows
        self._directory = directory
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._standing: dict[str, Revocation] = {}
        self._subscribers: Subscribers[Revocation] = Subscribers("revocation")

    async def load(self) -> None:
        """Raise StoreError: then nothing may begin, for nobody knows what is revoked."""
        self._standing = {
            row.id: Revocation(row.id, Revoked(row.kind), row.value, row.at, row.by, row.why) for row in await self._rows.load()
        }

    def subscribe(self, callback: Callable[[Revocation], None]) -> None:
        """Call back, on the loop, as soon as something is revoked."""
        self._subscribers.add(callback)

    def standing(self) -> tuple[Revocation, ...]:
        return tuple(self._standing.values())

    def check(self, principal: Principal) -> None:
        """Raise AuthenticationError for who may not log in. Everything being revoked closes targets, not administration."""
        for one in self._standing.values():
            if one.kind is not Revoked.EVERYTHING and one.concerns(principal):
                raise AuthenticationError(reason=Reason.CREDENTIAL_REVOKED)

    def bars(self, identities: Collection[Identity]) -> bool:
        """Whether any of these people or agents is revoked: then nobody answers as one of them either."""
        named = {one.value for one in self._standing.values() if one.kind in (Revoked.SUBJECT, Revoked.AGENT)}
        return bool(named) and any(str(identity) in named for identity in identities)

    def names(self, ident: str) -> bool:
        """Whether the credential of this ident is revoked."""
        return any(one.kind is Revoked.CREDENTIAL and one.value == ident for one in self._standing.values())

    def stops(self, principal: Principal, target: str) -> bool:
        """Whether this principal may open no session at this target."""
        return any(one.stops(principal, target) for one in self._standing.values())

    async def revoke(self, kind: Revoked, value: str, *, by: Identity, why: str) -> Revocation:
        """Revoke now. Raise ConfigError for what can't be meant; StoreError and EvidenceError after it took effect here."""
        made = Revocation(
            "rvk_" + ulid(self._clock, self._entropy), kind, self._meant(kind, value), self._clock.now(), str(by), why
        )
        self._standing[made.id] = made
        self._subscribers.tell(made)
        await self._rows.put(RevocationRow(made.id, str(kind), made.value, made.at, made.by, why))
        self._note("revoked", made, by)
        await self._journal.sync()
        return made

    async def lift(self, ident: str, *, by: Identity) -> None:
        """Take a revocation back. Raise NotFoundError, StoreError, EvidenceError: then it stands."""
        found = self._standing.get(ident)
        if found is None:
            raise NotFoundError("there is no such revocation")
        self._note("revocation-lifted", found, by)
        await self._journal.sync()
        await self._rows.drop(ident)
        self._standing.pop(ident, None)

    def _meant(self, kind: Revoked, value: str) -> str:
        if (kind is Revoked.EVERYTHING) == bool(value) or len(value) > MAX_VALUE or not value.isprintable():
            raise ConfigError("name what is revoked: an ident, issuer:subject, a handle or a target; for everything nothing")
        if kind is not Revoked.AGENT:
            return value
        entry = self._directory.by_handle(value)
        if entry is None or entry.kind is Kind.HUMAN:
            raise ConfigError("no agent or service is registered under this handle; a person is revoked as a subject")
        return str(entry.identity)

    def _note(self, change: str, one: Revocation, by: Identity) -> None:
        fields: dict[str, Json] = {"change": change, "id": one.id, "kind": str(one.kind), "value": one.value, "by": str(by)}
        self._journal.append(EventDraft("identity.change", fields, {"why": one.why} if one.why else {}))
