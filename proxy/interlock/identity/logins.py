"""Logins: who logged in at the identity provider, and that everything which came from a login ends with it.

A login is an opaque token (`ils_…`) on the person's machine; certificates and Postgres passwords are made from it (`derived`).
Ending the login ends them all, live connections too. Nothing has to be remembered of one that has ended: it is gone.

Knows the directory and its own rows. Must not know OpenID Connect's messages, HTTP or SSH. Reading is synchronous.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from interlock.clock import Clock, Entropy, ulid
from interlock.config import Secret
from interlock.errors import AuthenticationError, InterlockError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.aftermath import Aftermath
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.derived import Derive, Derived, Ended
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.idtoken import LoggedIn
from interlock.identity.newcomers import Newcomers
from interlock.identity.passport import assurance_text, groups_text, read_assurance, read_groups
from interlock.identity.principal import Assurance, Credential, CredentialKind, Identity, Kind, Principal
from interlock.identity.provisioning import learn_groups
from interlock.identity.subscribers import Subscribers
from interlock.identity.tokens import LOGIN_IDENT, LOGIN_PREFIX, fingerprint, new_secret
from interlock.store.logins import DerivedRow, LoginRow, LoginRows

log = structlog.get_logger()

MAX_PER_PERSON = 16
"""Logins of one person at once; one more ends the oldest."""

LOGOUT_SKEW = timedelta(seconds=30)
"""How far the provider's clock may be behind ours when it says that a login is over."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A new login on its only way out."""

    id: str
    secret: Secret
    principal: Principal


class Logins:
    """One a process. `load()` before use."""

    def __init__(
        self, directory: Directory, rows: LoginRows, *, clock: Clock, entropy: Entropy, journal: Recorder,
        lifetime: float, register: bool,
    ) -> None:  # fmt: skip
        """`register`: somebody who logs in for the first time and is linked to no entry gets one, without any group."""
        self._directory = directory
        self._rows = rows
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._lifetime = timedelta(seconds=lifetime)
        self._newcomers = Newcomers(directory, register=register)
        self._logins: dict[str, LoginRow] = {}
        self._by_hash: dict[bytes, LoginRow] = {}
        self._by_person: dict[Identity, dict[str, None]] = {}
        self._opening: dict[str, LoginRow] = {}
        self._subscribers: Subscribers[Ended] = Subscribers("logins")
        self._aftermath = Aftermath("logins")
        self.derived = Derived(
            directory, rows, self._proved, clock=clock, subscribers=self._subscribers, aftermath=self._aftermath
        )
        directory.subscribe(self._changed)

    async def load(self) -> None:
        """Read what has not expired. Raise StoreError."""
        logins, derived = await self._rows.load(self._clock.now())
        for login in logins:
            self._keep(login)
        for row in derived:
            self.derived.keep(row)

    async def close(self) -> None:
        """Let what is being written end."""
        await self._aftermath.close()

    def subscribe(self, callback: Callable[[Ended], None]) -> None:
        """Call back, on the loop, whenever credentials end before their time."""
        self._subscribers.add(callback)

    # -- logging in -------------------------------------------------------------------------------------------------------

    async def open(self, who: LoggedIn, *, method: str, source: str, derive: Derive | None = None) -> Opened:
        """Begin a login of somebody whose ID token was just verified. Raise InterlockError; a refusal is in the journal.

        `derive` makes what the login is for in the same step: both are written, or neither.
        """
        entry = await self._admitted(who, method, source)
        # Reviewers' groups are looked up when they answer, so the directory learns them here as from a token.
        await learn_groups(self._directory, self._clock, entry.identity, who.identity.issuer, who.groups)
        now = self._clock.now()
        secret = new_secret(LOGIN_PREFIX, self._entropy)
        row = LoginRow(
            id=LOGIN_IDENT + ulid(self._clock, self._entropy), issuer=entry.identity.issuer, subject=entry.identity.subject,
            hash=fingerprint(secret), provider=who.identity.issuer, account=who.identity.subject, session=who.session,
            groups=groups_text(who.groups), assurance=assurance_text(who.assurance), created=now, expires=now + self._lifetime,
        )  # fmt: skip
        self._note(method, {"outcome": "accepted", "source": source, "principal": str(entry.identity), "login": row.id},
                   {"account": str(who.identity)})  # fmt: skip
        children: list[DerivedRow] = []
        if derive is not None:
            made = derive(self._standing(row, entry))
            children.append(made.row(entry.identity, row.id, who.groups - entry.groups))
            await self._journal.sync()
        await self._write(row, children)
        self._keep(row)
        for child in children:
            self.derived.keep(child)
        mine = list(self._by_person[entry.identity])
        if len(mine) > MAX_PER_PERSON:
            await self.end(mine[: len(mine) - MAX_PER_PERSON], "too-many-logins")
        principal = self._principal(row)
        if principal is None:  # stopped while this was written
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        return Opened(row.id, Secret(secret), principal)

    async def _admitted(self, who: LoggedIn, method: str, source: str) -> Entry:
        """Return the entry of an active person. Raise InterlockError; then the refusal is in the journal."""
        try:
            entry = self._directory.get(who.identity) or await self._newcomers.registered(who)
            if entry.disabled:
                raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
            if entry.kind is not Kind.HUMAN:
                raise AuthenticationError("this account is linked to an entry that is not a person", reason=Reason.NOT_A_PERSON)
        except InterlockError as error:
            self._note(
                method, {"outcome": "refused", "reason": str(error.code), "source": source}, {"account": str(who.identity)}
            )
            raise
        return entry

    async def _write(self, row: LoginRow, children: Collection[DerivedRow]) -> None:
        """Write all or nothing. Raise StoreError; AuthenticationError when the provider ended the login meanwhile."""
        self._opening[row.id] = row
        writing = asyncio.ensure_future(self._rows.add(row, *children))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:  # whoever was logging in has left, and nobody will have the token
            self._aftermath.add(self._take_back(writing, row, children))
            raise
        finally:
            standing = self._opening.pop(row.id, None) is not None
        if not standing:
            await self._erase([row], children)
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)

    async def _take_back(self, writing: asyncio.Future[None], row: LoginRow, children: Collection[DerivedRow]) -> None:
        """Take out what is being written: a write that has begun is not undone by whoever stops waiting for it."""
        await writing
        await self._erase([row], children)

    async def _erase(self, rows: Collection[LoginRow], children: Collection[DerivedRow]) -> None:
        await self._rows.drop(login=[row.id for row in rows], credential=[child.id for child in children])

    def refused(self, method: str, reason: Reason, source: str) -> None:
        """Note a login whose ID token was refused."""
        self._note(method, {"outcome": "refused", "reason": str(reason), "source": source}, {})

    # -- who it is --------------------------------------------------------------------------------------------------------

    def resolve(self, secret: str) -> Principal:
        """Return who a login's token stands for. Raise AuthenticationError."""
        row = self._by_hash.get(fingerprint(secret))
        principal = self._principal(row) if row is not None else None
        if principal is None:
            raise AuthenticationError("the login has ended; run `interlock login`", reason=Reason.TOKEN_REJECTED)
        return principal

    def holds(self, ident: str) -> bool:
        """Whether this is a login, or a certificate or password of one, that has not ended."""
        return ident in self._logins or self.derived.holds(ident)

    def _principal(self, row: LoginRow) -> Principal | None:
        if row.id not in self._logins or row.expires <= self._clock.now() or self._unlinked(row):
            return None
        entry = self._directory.get(Identity(row.issuer, row.subject))
        if entry is None or entry.disabled or entry.kind is not Kind.HUMAN:
            return None
        return self._standing(row, entry)

    def _standing(self, row: LoginRow, entry: Entry) -> Principal:
        found = entry.principal(Credential(CredentialKind.LOGIN, row.id, row.expires), read_assurance(row.assurance))
        return replace(found, groups=found.groups | read_groups(row.groups))

    def _proved(self, ident: str) -> Assurance | None:
        row = self._logins.get(ident)
        return read_assurance(row.assurance) if row is not None and not self._unlinked(row) else None

    def _unlinked(self, row: LoginRow) -> bool:
        """Whether the account that logged in belongs to this entry no longer: what it proved is nobody's, or another's."""
        entry = self._directory.get(Identity(row.provider, row.account))
        return entry is None or entry.identity != Identity(row.issuer, row.subject)

    # -- ending -------------------------------------------------------------------------------------------------------------

    async def end(self, idents: Collection[str], why: str, *, withdraw: bool = True) -> int:
        """End logins and all that was derived from them: in memory first, so that a store that is down prolongs nothing.

        With `withdraw`, whose they were loses what they have asked for.
        """
        rows = [self._logins[ident] for ident in idents if ident in self._logins]
        children = self.derived.children(row.id for row in rows)
        for row in rows:
            self._drop(row)
        if rows:
            whose = frozenset(Identity(row.issuer, row.subject) for row in rows if withdraw)
            self.derived.end(children, why, logins=[row.id for row in rows], whose=whose)
            for row in rows:
                self._note("login", {"outcome": "ended", "reason": why, "login": row.id,
                                     "principal": str(Identity(row.issuer, row.subject))}, {})  # fmt: skip
            await self._erase(rows, children)
        return len(rows)

    async def end_at_provider(self, provider: str, account: str, session: str, issued: datetime) -> int:
        """End the logins that a back-channel logout names: of a session of the provider, of an account, or of both.

        Only those that had begun when it was `issued`: who captured it can't end later ones with it. Clocks differ a little.
        A login of that account whose session the provider did not say may be this one, so it ends too.
        """
        if not session and not account:
            return 0
        latest = issued + LOGOUT_SKEW

        def meant(row: LoginRow) -> bool:
            of_session = not session or row.session == session or (account != "" and not row.session)
            of_account = not account or row.account == account
            return row.provider == provider and of_session and of_account and row.created <= latest

        opening = [row.id for row in self._opening.values() if meant(row)]
        for ident in opening:
            del self._opening[ident]
        return len(opening) + await self.end([row.id for row in self._logins.values() if meant(row)], "logout-at-provider")

    def revoked(self, ident: str) -> None:
        """End what came from a credential that is revoked, and the credential itself where it is one of ours: now, in memory."""
        self.derived.revoked(ident)
        if ident in self._logins:
            self._aftermath.add(self.end([ident], "revoked"))

    def _changed(self, change: Change) -> None:
        """Whoever is stopped is logged out, and a login with an account that was unlinked is over."""
        logins = [ident for identity in change.stopped for ident in self._by_person.get(identity, {})]
        if change.kind is ChangeKind.UNLINKED:
            logins += [one for one in self._by_person.get(change.identity, {}) if self._unlinked(self._logins[one])]
        if logins:
            self._aftermath.add(self.end(logins, str(change.kind)))

    # -- the index ------------------------------------------------------------------------------------------------------------

    def _keep(self, row: LoginRow) -> None:
        self._forget_expired()
        self._logins[row.id] = row
        self._by_hash[row.hash] = row
        self._by_person.setdefault(Identity(row.issuer, row.subject), {})[row.id] = None

    def _drop(self, row: LoginRow) -> None:
        self._logins.pop(row.id, None)
        self._by_hash.pop(row.hash, None)
        mine = self._by_person.get(Identity(row.issuer, row.subject), {})
        mine.pop(row.id, None)
        if not mine:
            self._by_person.pop(Identity(row.issuer, row.subject), None)

    def _forget_expired(self) -> None:
        """Logins have one lifetime, so the oldest ends first: a few at each new one keep the index small."""
        now = self._clock.now()
        for row in [row for row, _ in zip(self._logins.values(), range(8), strict=False) if row.expires <= now]:
            self._drop(row)
            self.derived.expire(row.id)

    def _note(self, method: str, fields: dict[str, Json], secret: dict[str, Json]) -> None:
        """Raise EvidenceError only where something begins: what ends ends, recorded or not."""
        try:
            self._journal.append(EventDraft("login", {"method": method, **fields}, secret))
        except InterlockError as error:
            if fields["outcome"] == "accepted":
                raise
            log.error("login.not_recorded", method=method, reason=str(error.code))
