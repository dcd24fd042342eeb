"""Logins: who logged in at the identity provider, and everything that lives and ends with that login.

A login is an opaque token (`ils_…`) on the person's machine; certificates and Postgres passwords are derived from it. Ending
the login ends them all, live connections too. Only what is written here counts: a certificate whose serial, key and
principal are not in the register is refused even with the authority's own signature, so what has ended need not be
remembered, and a stolen authority key alone makes nobody.

Knows the directory and its own rows. Must not know OpenID Connect's messages, HTTP or SSH. Reading is synchronous.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from interlock.clock import Clock, Entropy, ulid
from interlock.config import Secret
from interlock.errors import AuthenticationError, ConfigError, InterlockError, NotFoundError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.idtoken import LoggedIn
from interlock.identity.passport import origins_text, read_origins
from interlock.identity.principal import HANDLE, Assurance, Credential, CredentialKind, Identity, Kind, Origin, Principal
from interlock.identity.provisioning import learn_groups
from interlock.identity.registration import RESERVED_PREFIX
from interlock.identity.tokens import LOGIN_PREFIX, fingerprint, new_secret
from interlock.store.logins import DerivedRow, LoginRow, LoginRows

log = structlog.get_logger()

MAX_PER_PERSON = 16
"""Logins of one person at once; one more ends the oldest."""

LOGOUT_SKEW = timedelta(seconds=30)

CERTIFICATE = "certificate"
PASSWORD = "password"

_UNFIT = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Ended:
    """What subscribers are told: credentials that are worth nothing any more, and whose they were."""

    identities: frozenset[Identity]
    credentials: frozenset[str]
    why: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A new login on its only way out."""

    id: str
    secret: Secret
    principal: Principal


@dataclass(frozen=True, slots=True)
class Derivation:
    """What is made of a login in one step with it: its id (a certificate's serial), its key's fingerprint, its end."""

    kind: str
    ident: str
    key: str
    expires: datetime


Derive = Callable[[Principal], Derivation]
"""Makes it for the principal that has logged in, and appends it to the journal. Raise InterlockError."""


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
        self._register = register
        self._lock = asyncio.Lock()
        self._logins: dict[str, LoginRow] = {}
        self._by_hash: dict[bytes, LoginRow] = {}
        self._by_person: dict[Identity, dict[str, None]] = {}
        self._opening: dict[str, LoginRow] = {}
        self._derived: dict[str, DerivedRow] = {}
        self._children: dict[str, dict[str, None]] = {}
        self._subscribers: list[Callable[[Ended], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        directory.subscribe(self._changed)

    async def load(self) -> None:
        """Read what has not expired. Raise StoreError."""
        logins, derived = await self._rows.load(self._clock.now())
        for login in logins:
            self._keep(login)
        for row in derived:
            self._keep_derived(row)

    async def close(self) -> None:
        """Let what is being written end."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def subscribe(self, callback: Callable[[Ended], None]) -> None:
        """Call back, on the loop, whenever credentials end before their time."""
        self._subscribers.append(callback)

    # -- logging in -------------------------------------------------------------------------------------------------------

    async def open(self, who: LoggedIn, *, method: str, source: str, derive: Derive | None = None) -> Opened:
        """Begin a login of somebody whose ID token was just verified. Raise InterlockError; a refusal is in the journal.

        `derive` makes what the login is for in the same step: both are written, or neither.
        """
        try:
            entry = self._directory.get(who.identity) or await self._registered(who)
            if entry.disabled:
                raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
            if entry.kind is not Kind.HUMAN:
                raise AuthenticationError("this account is linked to an entry that is not a person", reason=Reason.NOT_A_PERSON)
        except InterlockError as error:
            self._note(
                method, {"outcome": "refused", "reason": str(error.code), "source": source}, {"account": str(who.identity)}
            )
            raise
        # Reviewers' groups are looked up when they answer, so the directory learns them here as from a token.
        await learn_groups(self._directory, self._clock, entry.identity, who.identity.issuer, who.groups)
        now = self._clock.now()
        secret = new_secret(LOGIN_PREFIX, self._entropy)
        row = LoginRow(
            id="log_" + ulid(self._clock, self._entropy), issuer=entry.identity.issuer, subject=entry.identity.subject,
            hash=fingerprint(secret), provider=who.identity.issuer, account=who.identity.subject, session=who.session,
            groups=_groups(who.groups), assurance=_assurance(who.assurance), created=now, expires=now + self._lifetime,
        )  # fmt: skip
        self._note(method, {"outcome": "accepted", "source": source, "principal": str(entry.identity), "login": row.id},
                   {"account": str(who.identity)})  # fmt: skip
        rows: list[LoginRow | DerivedRow] = [row]
        if derive is not None:
            made = derive(self._standing(row, entry))
            rows.append(_derived(made, entry.identity, row.id, who.groups - entry.groups))
            await self._journal.sync()
        self._opening[row.id] = row
        writing = asyncio.ensure_future(self._rows.add(*rows))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:  # whoever was logging in has left, and nobody will have the token
            self._later(self._take_back(writing, rows))
            raise
        finally:
            standing = self._opening.pop(row.id, None) is not None
        if not standing:  # the provider ended it while this was written
            await self._rows.drop(login=[row.id], credential=[one.id for one in rows[1:]])
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)
        for written in rows:
            if isinstance(written, LoginRow):
                self._keep(written)
            else:
                self._keep_derived(written)
        mine = list(self._by_person[entry.identity])
        if len(mine) > MAX_PER_PERSON:
            await self.end(mine[: len(mine) - MAX_PER_PERSON], "too-many-logins")
        principal = self._principal(row)
        if principal is None:  # stopped while this was written
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        return Opened(row.id, Secret(secret), principal)

    async def _take_back(self, writing: asyncio.Future[None], rows: Collection[LoginRow | DerivedRow]) -> None:
        """Take out what is being written: a write that has begun is not undone by whoever stops waiting for it."""
        await writing
        logins = [row.id for row in rows if isinstance(row, LoginRow)]
        await self._rows.drop(login=logins, credential=[row.id for row in rows if row.id not in logins])

    def refused(self, method: str, reason: Reason, source: str) -> None:
        """Note a login whose ID token was refused."""
        self._note(method, {"outcome": "refused", "reason": str(reason), "source": source}, {})

    async def _registered(self, who: LoggedIn) -> Entry:
        if not self._register:
            raise AuthenticationError(
                "nobody is registered for this account; an administrator links it: `interlock principals link HANDLE --issuer … "
                "--subject …`", reason=Reason.UNKNOWN_PRINCIPAL,
            )  # fmt: skip
        async with self._lock:  # of two first logins of one person, one registers
            if (entry := self._directory.get(who.identity)) is not None:
                return entry
            handle = self._free_handle(who)
            await self._directory.add(handle, Kind.HUMAN, by=who.identity)
            try:
                return await self._directory.link(handle, who.identity, by=who.identity)
            except InterlockError:
                await self._directory.remove(handle, by=who.identity)
                raise

    def _free_handle(self, who: LoggedIn) -> str:
        """Return a handle made of what the provider calls the person. It carries no authority, so a number tells two apart."""
        for name in who.names:
            wanted = _UNFIT.sub("-", name.split("@")[0].lower()).strip("-._")[:56]
            if HANDLE.match(wanted) and not wanted.startswith(RESERVED_PREFIX):
                break
        else:
            wanted = "person"
        for number in range(1, 1000):
            handle = wanted if number == 1 else f"{wanted}-{number}"
            if self._directory.by_handle(handle) is None:
                return handle
        raise ConfigError("a thousand people have this name; an administrator registers this one and links the account")

    # -- who it is --------------------------------------------------------------------------------------------------------

    def resolve(self, secret: str) -> Principal:
        """Return who a login's token stands for. Raise AuthenticationError."""
        row = self._by_hash.get(fingerprint(secret))
        principal = self._principal(row) if row is not None else None
        if principal is None:
            raise AuthenticationError("the login has ended; run `interlock login`", reason=Reason.TOKEN_REJECTED)
        return principal

    def certificate(self, serial: str, key: str, principals: Collection[str]) -> Principal | None:
        """Return whose certificate this is: the one issued under this serial, for this key, with this one principal."""
        row = self._live_derived(serial)
        if row is None or row.kind != CERTIFICATE or row.key != key:
            return None
        entry = self._directory.get(Identity(row.issuer, row.subject))
        if entry is None or entry.disabled or list(principals) != [principal_name(entry.identity)]:
            return None
        assurance = _read_assurance(self._logins[row.parent].assurance) if row.parent in self._logins else Assurance()
        credential = Credential(CredentialKind.SSH_CERTIFICATE, row.id, row.expires, read_origins(row.origins))
        found = entry.principal(credential, assurance)
        return replace(found, groups=found.groups | _read_groups(row.groups))

    def groups_of(self, credential: str) -> frozenset[str]:
        """Return the groups that the parent of a derived credential brought beyond the directory's."""
        row = self._derived.get(credential)
        return _read_groups(row.groups) if row is not None else frozenset()

    def origins_of(self, credential: str) -> tuple[Origin, ...]:
        """Return the issuers' tokens behind a derived credential."""
        row = self._derived.get(credential)
        return read_origins(row.origins) if row is not None else ()

    def holds(self, ident: str) -> bool:
        """Whether this is a login, or a certificate or password of one, that has not ended."""
        return ident in self._logins or self._live_derived(ident) is not None

    def _principal(self, row: LoginRow) -> Principal | None:
        if row.id not in self._logins or row.expires <= self._clock.now() or self._unlinked(row):
            return None
        entry = self._directory.get(Identity(row.issuer, row.subject))
        if entry is None or entry.disabled or entry.kind is not Kind.HUMAN:
            return None
        return self._standing(row, entry)

    def _standing(self, row: LoginRow, entry: Entry) -> Principal:
        found = entry.principal(Credential(CredentialKind.LOGIN, row.id, row.expires), _read_assurance(row.assurance))
        return replace(found, groups=found.groups | _read_groups(row.groups))

    def _live_derived(self, ident: str) -> DerivedRow | None:
        row = self._derived.get(ident)
        if row is None or row.expires <= self._clock.now():
            return None
        if not row.parent.startswith("log_"):
            return row
        login = self._logins.get(row.parent)
        return row if login is not None and not self._unlinked(login) else None

    def _unlinked(self, row: LoginRow) -> bool:
        """Whether the account that logged in belongs to this entry no longer: what it proved is nobody's, or another's."""
        entry = self._directory.get(Identity(row.provider, row.account))
        return entry is None or entry.identity != Identity(row.issuer, row.subject)

    # -- what is derived ----------------------------------------------------------------------------------------------------

    async def derive(self, kind: str, ident: str, holder: Principal, *, key: str = "", expires: datetime) -> None:
        """Write down a certificate or password that ends with the credential that `holder` showed. Raise InterlockError."""
        entry = self._directory.get(holder.identity)
        if entry is None or entry.disabled:
            raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
        parent = holder.credential
        if parent.kind is CredentialKind.LOGIN and parent.ident not in self._logins:
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)
        made = Derivation(kind, ident, key, expires)
        row = _derived(made, entry.identity, parent.ident, holder.groups - entry.groups, parent.origins)
        await self._rows.add(row)
        self._keep_derived(row)
        if parent.kind is CredentialKind.LOGIN and parent.ident not in self._logins:  # it ended while this was written
            self._end_derived([row])
            raise AuthenticationError(reason=Reason.LOGIN_ENDED)

    # -- ending -------------------------------------------------------------------------------------------------------------

    async def end(self, idents: Collection[str], why: str, *, withdraw: bool = True) -> int:
        """End logins and all that was derived from them: in memory first, so that a store that is down prolongs nothing.

        With `withdraw`, whose they were loses what they have asked for.
        """
        rows = [self._logins[ident] for ident in idents if ident in self._logins]
        children = [self._derived[c] for row in rows for c in self._children.get(row.id, {})]
        for row in rows:
            self._drop(row)
        if rows:
            whose = frozenset(Identity(row.issuer, row.subject) for row in rows if withdraw)
            self._end_derived(children, more=[row.id for row in rows], whose=whose, why=why)
            for row in rows:
                self._note("login", {"outcome": "ended", "reason": why, "login": row.id,
                                     "principal": str(Identity(row.issuer, row.subject))}, {})  # fmt: skip
            await self._rows.drop(login=[row.id for row in rows], credential=[row.id for row in children])
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
        rows = [self._derived[one] for one in (ident, *self._children.get(ident, {})) if one in self._derived]
        self._end_derived(rows, why="revoked")
        if rows:
            self._later(self._rows.drop(credential=[row.id for row in rows]))
        if ident in self._logins:
            self._later(self._end([ident], "revoked"))

    async def end_certificate(self, serial: str) -> None:
        """Revoke one certificate. Raise NotFoundError."""
        row = self._derived.get(serial)
        if row is None or row.kind != CERTIFICATE:
            raise NotFoundError("there is no live certificate with this serial")
        self._end_derived([row], why="certificate-revoked")
        await self._rows.drop(credential=[serial])

    async def end_certificates(self, why: str) -> int:
        """Revoke every certificate, whoever has it: the authority's key is not to be trusted any more."""
        rows = [row for row in self._derived.values() if row.kind == CERTIFICATE]
        self._end_derived(rows, why=why)
        await self._rows.drop(credential=[row.id for row in rows])
        return len(rows)

    def _end_derived(
        self,
        rows: Iterable[DerivedRow],
        *,
        more: Collection[str] = (),
        whose: frozenset[Identity] = frozenset(),
        why: str = "ended",
    ) -> None:
        ended = list(rows)
        for row in ended:
            self._derived.pop(row.id, None)
            self._children.get(row.parent, {}).pop(row.id, None)
        told = Ended(whose, frozenset([*more, *(row.id for row in ended)]), why)
        if told.credentials:
            for callback in tuple(self._subscribers):
                try:
                    callback(told)
                except Exception as error:  # one deaf subscriber must not keep the others from ending sessions
                    log.error("logins.subscriber_failed", error=error.__class__.__name__)
        for row in ended:
            if row.kind == PASSWORD:
                self._later(self._revoke_password(row))

    async def _revoke_password(self, row: DerivedRow) -> None:
        entry = self._directory.get(Identity(row.issuer, row.subject))
        if entry is not None and any(password.id == row.id for password in entry.passwords):
            await self._directory.revoke_password(entry.handle, row.id, by=entry.identity)

    def _changed(self, change: Change) -> None:
        """Whoever is stopped is logged out, and what came from a revoked credential or an account that was unlinked ends too."""
        logins = [ident for identity in change.stopped for ident in self._by_person.get(identity, {})]
        if change.kind is ChangeKind.UNLINKED:
            logins += [one for one in self._by_person.get(change.identity, {}) if self._unlinked(self._logins[one])]
        children = [self._derived[c] for parent in change.credentials for c in self._children.get(parent, {})]
        children += [row for row in self._derived.values() if Identity(row.issuer, row.subject) in change.stopped]
        gone = [self._derived[ident] for ident in change.credentials if ident in self._derived]
        if children:
            self._end_derived(children, why=str(change.kind))
        for row in gone:
            self._derived.pop(row.id, None)
            self._children.get(row.parent, {}).pop(row.id, None)
        dropped = [row.id for row in (*children, *gone)]
        if logins:
            self._later(self._end(logins, str(change.kind)))
        # With its principal's row the store has dropped all of them already.
        if dropped and change.kind is not ChangeKind.REMOVED:
            self._later(self._rows.drop(credential=dropped))

    async def _end(self, logins: Collection[str], why: str) -> None:
        await self.end(logins, why)

    def _later(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(self._reported(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reported(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        try:
            await work
        except InterlockError as error:
            log.error("logins.not_written", reason=str(error.code))

    # -- the index ------------------------------------------------------------------------------------------------------------

    def _keep(self, row: LoginRow) -> None:
        self._forget_expired()
        self._logins[row.id] = row
        self._by_hash[row.hash] = row
        self._by_person.setdefault(Identity(row.issuer, row.subject), {})[row.id] = None

    def _keep_derived(self, row: DerivedRow) -> None:
        self._derived[row.id] = row
        self._children.setdefault(row.parent, {})[row.id] = None

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
            for ident in self._children.pop(row.id, {}):
                self._derived.pop(ident, None)

    def _note(self, method: str, fields: dict[str, Json], secret: dict[str, Json]) -> None:
        """Raise EvidenceError only where something begins: what ends ends, recorded or not."""
        try:
            self._journal.append(EventDraft("login", {"method": method, **fields}, secret))
        except InterlockError as error:
            if fields["outcome"] == "accepted":
                raise
            log.error("login.not_recorded", method=method, reason=str(error.code))


def principal_name(identity: Identity) -> str:
    """Return the principal of a login certificate. Never an account's name: a target that trusted the wrong authority would
    still have nobody of that name."""
    name = f"interlock:{identity.subject}"
    if not name.isascii() or not name.isprintable() or "," in name or " " in name:
        raise ConfigError("this identity can't stand in a certificate")  # CVE-2026-35414: a comma splits principals
    return name


def _derived(
    made: Derivation, whose: Identity, parent: str, groups: Iterable[str], origins: tuple[Origin, ...] = ()
) -> DerivedRow:
    return DerivedRow(
        id=made.ident, issuer=whose.issuer, subject=whose.subject, kind=made.kind, parent=parent, key=made.key,
        groups=_groups(groups), expires=made.expires, origins=origins_text(origins),
    )  # fmt: skip


def _groups(groups: Iterable[str]) -> str:
    return json.dumps(sorted(groups))


def _read_groups(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))


def _assurance(assurance: Assurance) -> str:
    when = assurance.auth_time.isoformat() if assurance.auth_time is not None else None
    return json.dumps({"acr": assurance.acr, "amr": assurance.amr, "auth_time": when})


def _read_assurance(text: str) -> Assurance:
    read = json.loads(text)
    when = datetime.fromisoformat(read["auth_time"]) if read["auth_time"] is not None else None
    return Assurance(read["acr"], tuple(read["amr"]), when)
