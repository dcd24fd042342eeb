"""Certificates and Postgres passwords that came from a credential, and end with it.

Only what is written here counts: a certificate whose serial, key and principal are not in the register is refused even with the
authority's own signature, so what has ended need not be remembered, and a stolen authority key alone makes nobody.

Knows its own rows, the directory, and of a login only whether it goes on. Must not know how somebody logs in, how a certificate
is signed, or SSH. Reading is synchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from interlock.clock import Clock
from interlock.errors import AuthenticationError, ConfigError, NotFoundError, Reason
from interlock.identity.aftermath import Aftermath
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.passport import groups_text, origins_text, read_groups, read_origins
from interlock.identity.principal import Assurance, Credential, CredentialKind, Identity, Origin, Principal
from interlock.identity.subscribers import Subscribers
from interlock.identity.tokens import LOGIN_IDENT
from interlock.store.logins import DerivedRow, LoginRows

CERTIFICATE = "certificate"
PASSWORD = "password"


@dataclass(frozen=True, slots=True)
class Ended:
    """What subscribers are told: credentials that are worth nothing any more, and whose they were."""

    identities: frozenset[Identity]
    credentials: frozenset[str]
    why: str


@dataclass(frozen=True, slots=True)
class Derivation:
    """What is made of a credential: its id (a certificate's serial), the fingerprint of its key, its end."""

    kind: str
    ident: str
    key: str
    expires: datetime

    def row(self, whose: Identity, parent: str, groups: Iterable[str], origins: tuple[Origin, ...] = ()) -> DerivedRow:
        """Return what is stored. `groups` are those that the parent brings beyond the directory's."""
        return DerivedRow(
            id=self.ident, issuer=whose.issuer, subject=whose.subject, kind=self.kind, parent=parent, key=self.key,
            groups=groups_text(groups), expires=self.expires, origins=origins_text(origins),
        )  # fmt: skip


Derive = Callable[[Principal], Derivation]
"""Makes it for the principal that has logged in, and appends it to the journal. Raise InterlockError."""


class Derived:
    """One a process, in the register of logins, which loads it.

    `proved` says of a login that goes on how its person proved who they are, and None of one that has ended.
    """

    def __init__(
        self, directory: Directory, rows: LoginRows, proved: Callable[[str], Assurance | None], *, clock: Clock,
        subscribers: Subscribers[Ended], aftermath: Aftermath,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._rows = rows
        self._proved = proved
        self._clock = clock
        self._subscribers = subscribers
        self._aftermath = aftermath
        self._held: dict[str, DerivedRow] = {}
        self._children: dict[str, dict[str, None]] = {}
        directory.subscribe(self._changed)

    async def add(self, kind: str, ident: str, holder: Principal, *, key: str = "", expires: datetime) -> None:
        """Write down a certificate or password that ends with the credential that `holder` showed. Raise InterlockError."""
        entry = self._directory.get(holder.identity)
        if entry is None or entry.disabled:
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        parent = holder.credential
        if self._login_ended(parent.ident):
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)
        made = Derivation(kind, ident, key, expires)
        row = made.row(entry.identity, parent.ident, holder.groups - entry.groups, parent.origins)
        await self._rows.add(row)
        self.keep(row)
        if self._login_ended(parent.ident):  # while this was written
            self.end([row], "ended")
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)

    # -- who it is --------------------------------------------------------------------------------------------------------

    def certificate(self, serial: str, key: str, principals: Collection[str]) -> Principal | None:
        """Return whose certificate this is: the one issued under this serial, for this key, with this one principal."""
        row = self._live(serial)
        if row is None or row.kind != CERTIFICATE or row.key != key:
            return None
        entry = self._directory.get(Identity(row.issuer, row.subject))
        if entry is None or entry.disabled or list(principals) != [principal_name(entry.identity)]:
            return None
        credential = Credential(CredentialKind.SSH_CERTIFICATE, row.id, row.expires, read_origins(row.origins))
        found = entry.principal(credential, self._proved(row.parent) or Assurance())
        return replace(found, groups=found.groups | read_groups(row.groups))

    def groups_of(self, ident: str) -> frozenset[str]:
        """Return the groups that the parent of this credential brought beyond the directory's."""
        row = self._held.get(ident)
        return read_groups(row.groups) if row is not None else frozenset()

    def origins_of(self, ident: str) -> tuple[Origin, ...]:
        """Return the issuers' tokens behind this credential."""
        row = self._held.get(ident)
        return read_origins(row.origins) if row is not None else ()

    def holds(self, ident: str) -> bool:
        """Whether this is one that has not ended."""
        return self._live(ident) is not None

    def _live(self, ident: str) -> DerivedRow | None:
        row = self._held.get(ident)
        if row is None or row.expires <= self._clock.now() or self._login_ended(row.parent):
            return None
        return row

    def _login_ended(self, parent: str) -> bool:
        # Of any other parent it is the parent's own register that says when it ends.
        return parent.startswith(LOGIN_IDENT) and self._proved(parent) is None

    # -- ending -----------------------------------------------------------------------------------------------------------

    async def end_certificate(self, serial: str) -> None:
        """Revoke one certificate. Raise NotFoundError."""
        row = self._held.get(serial)
        if row is None or row.kind != CERTIFICATE:
            raise NotFoundError("there is no live certificate with this serial")
        self.end([row], "certificate-revoked")
        await self._rows.drop(credential=[serial])

    async def end_certificates(self, why: str) -> int:
        """Revoke every certificate, whoever has it: the authority's key is not to be trusted any more."""
        rows = [row for row in self._held.values() if row.kind == CERTIFICATE]
        self.end(rows, why)
        await self._rows.drop(credential=[row.id for row in rows])
        return len(rows)

    def revoked(self, ident: str) -> None:
        """End what came from a credential that is revoked, and the credential itself where it is one of ours: now, in memory."""
        rows = [self._held[one] for one in (ident, *self._children.get(ident, {})) if one in self._held]
        self.end(rows, "revoked")
        if rows:
            self._aftermath.add(self._rows.drop(credential=[row.id for row in rows]))

    def end(
        self, rows: Collection[DerivedRow], why: str, *, logins: Collection[str] = (),
        whose: frozenset[Identity] = frozenset(),
    ) -> None:  # fmt: skip
        """End these in memory, and tell of them together with the `logins` that they ended with. Their rows are the caller's."""
        self._forget(rows)
        told = Ended(whose, frozenset([*logins, *(row.id for row in rows)]), why)
        if told.credentials:
            self._subscribers.tell(told)
        for row in rows:
            if row.kind == PASSWORD:
                self._aftermath.add(self._revoke_password(row))

    async def _revoke_password(self, row: DerivedRow) -> None:
        entry = self._directory.get(Identity(row.issuer, row.subject))
        if entry is not None and any(password.id == row.id for password in entry.passwords):
            await self._directory.revoke_password(entry.handle, row.id, by=entry.identity)

    def _changed(self, change: Change) -> None:
        """What came from a revoked credential ends with it, and what belongs to somebody who is stopped."""
        ended = {row.id: row for row in self.children(change.credentials)}
        ended |= {row.id: row for row in self._held.values() if Identity(row.issuer, row.subject) in change.stopped}
        if ended:
            self.end(list(ended.values()), str(change.kind))
        gone = [self._held[ident] for ident in change.credentials if ident in self._held]
        self._forget(gone)  # the directory has told of these itself
        dropped = [*ended, *(row.id for row in gone)]
        # With its principal's row the store has dropped all of them already.
        if dropped and change.kind is not ChangeKind.REMOVED:
            self._aftermath.add(self._rows.drop(credential=dropped))

    # -- the index --------------------------------------------------------------------------------------------------------

    def keep(self, row: DerivedRow) -> None:
        """Count this from now on: it is written."""
        self._held[row.id] = row
        self._children.setdefault(row.parent, {})[row.id] = None

    def children(self, parents: Iterable[str]) -> list[DerivedRow]:
        return [self._held[ident] for parent in parents for ident in self._children.get(parent, {})]

    def expire(self, parent: str) -> None:
        """Forget what came from a login that has run out: it has run out as well, and nobody is told."""
        for ident in self._children.pop(parent, {}):
            self._held.pop(ident, None)

    def _forget(self, rows: Iterable[DerivedRow]) -> None:
        for row in rows:
            self._held.pop(row.id, None)
            siblings = self._children.get(row.parent, {})
            siblings.pop(row.id, None)
            if not siblings:
                self._children.pop(row.parent, None)


def principal_name(identity: Identity) -> str:
    """Return the principal of a login certificate. Never an account's name: a target that trusted the wrong authority would
    still have nobody of that name."""
    name = f"interlock:{identity.subject}"
    if not name.isascii() or not name.isprintable() or "," in name or " " in name:
        raise ConfigError("this identity can't stand in a certificate")  # CVE-2026-35414: a comma splits principals
    return name
