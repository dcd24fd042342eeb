"""The directory: who is registered, in memory, over the store's rows.

Reading (`identity.lookup`) is synchronous and sees one moment. A change is checked, recorded as `identity.change` in the
node's journal and synced, then stored, then swapped in, then told to subscribers; what takes authority away is swapped in
as soon as it is in the journal, so that a failing store prolongs nobody's access. Knows rows, the journal, the rules of
the directory. Must not know protocols, requests or votes: whoever holds sessions or votes subscribes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from interlock.clock import Clock, Entropy, rfc3339
from interlock.errors import ConfigError, InterlockError, NotFoundError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity import registration, tokens
from interlock.identity.entries import LOCAL, OPERATOR, Entry, Index, applied, identity_of, indexed, other_of
from interlock.identity.lookup import Lookup
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Identity, Kind
from interlock.identity.registration import NewPasskey
from interlock.identity.scram import ITERATIONS, MAX_VERIFIERS, derived_salt
from interlock.identity.tokens import Issued
from interlock.store.principals import (
    LinkRow,
    MembershipRow,
    PrincipalRow,
    PrincipalRows,
    Row,
    ScramRow,
    SshKeyRow,
    TokenRow,
)

log = structlog.get_logger()

DEFAULT_TOKEN = timedelta(days=30)
MAX_TOKEN = timedelta(days=366)
DEFAULT_PASSWORD: Mapping[Kind, timedelta] = {
    Kind.HUMAN: timedelta(hours=8),
    Kind.AGENT: timedelta(minutes=15),
    Kind.SERVICE: timedelta(minutes=15),
}
MAX_PASSWORD = timedelta(hours=8)


class ChangeKind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    DISABLED = "disabled"
    ENABLED = "enabled"
    GROUPS = "groups"
    GROUPS_SEEN = "groups-seen"
    OWNER = "owner"
    LINKED = "linked"
    UNLINKED = "unlinked"
    KEY_ADDED = "key-added"
    KEY_REMOVED = "key-removed"
    TOKEN_ISSUED = "token-issued"
    TOKEN_REVOKED = "token-revoked"
    PASSWORD_ISSUED = "password-issued"
    PASSWORD_REVOKED = "password-revoked"
    PASSPHRASE_SET = "passphrase-set"
    PASSKEY_ADDED = "passkey-added"
    PASSKEY_REMOVED = "passkey-removed"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Amendment:
    """A change together with what it does to the rows and says in the record."""

    change: Change
    put: Sequence[Row] = ()
    drop: Sequence[Row] = ()
    fields: Mapping[str, Json] = field(default_factory=dict)
    secret: Mapping[str, Json] = field(default_factory=dict)
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What subscribers are told. `stopped` are all who lost their access by it: the one changed, and agents they own.

    `credentials` are idents (fingerprints, token and password ids) that are not valid any more, `other` is who was linked or
    unlinked.
    """

    kind: ChangeKind
    identity: Identity
    handle: str
    stopped: frozenset[Identity] = frozenset()
    credentials: frozenset[str] = frozenset()
    other: Identity | None = None


class Directory(Lookup):
    """One a process. `load()` before use; every reader is synchronous, every change awaits journal and store."""

    def __init__(
        self,
        rows: PrincipalRows,
        *,
        clock: Clock,
        entropy: Entropy,
        journal: Recorder,
        salt_secret: bytes | None = None,
        passphrases: Passphrases | None = None,
        newcomer: float = 0.0,
        groups_max_age: float = 8 * 3600,
    ) -> None:
        """`newcomer`: seconds that an authority which was just given confirms nobody, unless it is confirmed itself."""
        # Without a secret that survives restarts, only the salts of unknown names change at a restart.
        super().__init__(
            clock=clock, salt_secret=salt_secret if salt_secret is not None else entropy(32), groups_max_age=groups_max_age
        )
        self._rows = rows
        self._entropy = entropy
        self._journal = journal
        self._passphrases = passphrases or Passphrases(entropy=entropy)
        self._newcomer = timedelta(seconds=newcomer)
        self._lock = asyncio.Lock()
        self._subscribers: list[Callable[[Change], None]] = []

    async def load(self) -> None:
        """Read everything from the store. Raise StoreError."""
        async with self._lock:
            self._index = indexed(await self._rows.load_all())

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back after every change, on the loop. Return how to stop."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # -- changing -----------------------------------------------------------------------------------------------------

    async def add(
        self,
        handle: str,
        kind: Kind,
        *,
        owner: str | None = None,
        groups: Sequence[str] = (),
        ssh_keys: Sequence[str] = (),
        teams: Sequence[tuple[str, str]] = (),
        passphrase: str | None = None,
        by: Identity = OPERATOR,
    ) -> Entry:
        """Register somebody. `owner` is the handle of a person, required for an agent; `ssh_keys` are .pub lines.

        Raise ConfigError for what can't be registered, StoreError or EvidenceError when it can't be kept.
        """
        phc = await self._hash(kind, passphrase) if passphrase is not None else None
        async with self._lock:
            now = self._clock.now()
            registration.check_handle(self._index, handle)
            owned = registration.owner_of(self._index, kind, owner)
            # The suffix makes the subject new for ever: whoever gets a freed handle inherits no agent, link or approval.
            identity = Identity(LOCAL, f"{handle}#{self._entropy(5).hex()}")
            i, s = identity.issuer, identity.subject
            put: list[Row] = [
                PrincipalRow(
                    i, s, handle, str(kind), now, now,
                    owned.issuer if owned else None, owned.subject if owned else None, False, phc,
                    registration.changers(None, by),
                ),
                *(MembershipRow(i, s, name, now) for name in registration.checked_groups(groups)),
                *registration.key_rows(self._index, identity, ssh_keys, now),
                *registration.teams_rows(self._index, identity, kind, teams, now),
            ]  # fmt: skip
            fields: dict[str, Json] = {
                "kind": str(kind), "owner": str(owned) if owned else None, "groups": sorted(set(groups)),
                "keys": sorted(row.fingerprint for row in put if isinstance(row, SshKeyRow)), "reviewer": phc is not None,
            }  # fmt: skip
            await self._apply(Change(ChangeKind.ADDED, identity, handle), by, put=put, fields=fields, secret=_teams_secret(teams))
            return self._entry(handle)

    async def remove(self, handle: str, *, by: Identity = OPERATOR) -> None:
        """Take somebody out for ever. Agents that they own are stopped until they get another owner."""
        async with self._lock:
            entry = self._entry(handle)
            change = Change(ChangeKind.REMOVED, entry.identity, handle, self.with_agents(entry))
            inward = [row for row in self._index.rows.links if other_of(row) == entry.identity]
            await self._apply(change, by, drop=[*inward, self.row(entry)], urgent=True)

    async def set_disabled(self, handle: str, disabled: bool, *, by: Identity = OPERATOR) -> Entry:
        """Stop somebody, or let them in again."""
        async with self._lock:
            entry = self._entry(handle)
            row = replace(self.row(entry), disabled=disabled)
            if disabled:
                change = Change(ChangeKind.DISABLED, entry.identity, handle, self.with_agents(entry))
            else:
                change = Change(ChangeKind.ENABLED, entry.identity, handle)
                row = self.gained(row, by)
            await self._apply(change, by, put=[row], urgent=disabled)
            return self._entry(handle)

    async def set_groups(self, handle: str, groups: Sequence[str], *, by: Identity = OPERATOR) -> Entry:
        """Replace the groups of somebody."""
        async with self._lock:
            entry = self._entry(handle)
            wanted, now = set(registration.checked_groups(groups)), self._clock.now()
            i, s = entry.identity.issuer, entry.identity.subject
            put: list[Row] = [MembershipRow(i, s, name, now) for name in sorted(wanted - entry.groups)]
            lost = [r for r in self._index.rows.memberships if identity_of(r) == entry.identity and r.name not in wanted]
            if put:
                put.append(self.gained(self.row(entry), by))
            await self._apply(
                Change(ChangeKind.GROUPS, entry.identity, handle), by, put=put, drop=lost,
                fields={"added": sorted(wanted - entry.groups), "removed": sorted(entry.groups - wanted)},
                urgent=not put,
            )  # fmt: skip
            return self._entry(handle)

    async def set_owner(self, handle: str, owner: str, *, by: Identity = OPERATOR) -> Entry:
        """Give an agent or service to another person."""
        async with self._lock:
            entry = self._entry(handle)
            if entry.kind is Kind.HUMAN:
                raise ConfigError("a person has no owner")
            owned = registration.owner_of(self._index, entry.kind, owner)
            assert owned is not None
            row = replace(self.gained(self.row(entry), by), owner_issuer=owned.issuer, owner_subject=owned.subject)
            await self._apply(Change(ChangeKind.OWNER, entry.identity, handle), by, put=[row], fields={"owner": str(owned)})
            return self._entry(handle)

    async def add_ssh_key(self, handle: str, line: str, *, by: Identity = OPERATOR) -> Entry:
        """Register one more public key (a line of a .pub file)."""
        async with self._lock:
            entry = self._entry(handle)
            keys = registration.key_rows(self._index, entry.identity, [line], self._clock.now(), already=len(entry.ssh_keys))
            fields: dict[str, Json] = {"keys": [row.fingerprint for row in keys]}
            # A person's key also signs approvals (`approve@interlock`), so it is a gain like a group.
            put: list[Row] = [*keys, *([self.gained(self.row(entry), by)] if entry.kind is Kind.HUMAN else [])]
            await self._apply(Change(ChangeKind.KEY_ADDED, entry.identity, handle), by, put=put, fields=fields)
            return self._entry(handle)

    async def remove_ssh_key(self, handle: str, fingerprint: str, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            drop = [row for row in entry.ssh_keys if row.fingerprint == fingerprint]
            await self._revoke(ChangeKind.KEY_REMOVED, entry, drop, fingerprint, by)
            return self._entry(handle)

    async def link_teams(self, handle: str, tenant: str, oid: str, *, by: Identity = OPERATOR) -> Entry:
        """Map a Microsoft Entra account, by tenant and object id, to this person and nobody else."""
        async with self._lock:
            entry = self._entry(handle)
            now = self._clock.now()
            put = registration.teams_rows(self._index, entry.identity, entry.kind, [(tenant, oid)], now)
            await self._apply(
                Change(ChangeKind.LINKED, entry.identity, handle), by,
                put=[*put, self.gained(self.row(entry), by)], secret=_teams_secret([(tenant, oid)]),
            )  # fmt: skip
            return self._entry(handle)

    async def unlink_teams(self, handle: str, tenant: str, oid: str, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            key = (tenant.lower(), oid.lower())
            drop = [r for r in self._index.rows.teams if identity_of(r) == entry.identity and (r.tenant, r.oid) == key]
            if not drop:
                raise NotFoundError(f"{handle} has no such link")
            change = Change(ChangeKind.UNLINKED, entry.identity, handle)
            await self._apply(change, by, drop=drop, secret=_teams_secret([key]), urgent=True)
            return self._entry(handle)

    async def link_slack(self, handle: str, team: str, user: str, *, by: Identity = OPERATOR) -> Entry:
        """Map a Slack account, by team and user id, to this person and nobody else."""
        async with self._lock:
            entry = self._entry(handle)
            row = registration.slack_row(self._index, entry, team, user, self._clock.now())
            await self._apply(
                Change(ChangeKind.LINKED, entry.identity, handle), by,
                put=[row, self.gained(self.row(entry), by)], secret={"slack": [f"{team}/{user}"]},
            )  # fmt: skip
            return self._entry(handle)

    async def unlink_slack(self, handle: str, team: str, user: str, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            drop = [r for r in self._index.rows.slack if identity_of(r) == entry.identity and (r.team, r.user) == (team, user)]
            if not drop:
                raise NotFoundError(f"{handle} has no such link")
            change = Change(ChangeKind.UNLINKED, entry.identity, handle)
            await self._apply(change, by, drop=drop, secret={"slack": [f"{team}/{user}"]}, urgent=True)
            return self._entry(handle)

    async def link(self, handle: str, other: Identity, *, by: Identity = OPERATOR) -> Entry:
        """Say that `other` is the same person (or agent): another entry, or a subject of a pinned issuer.

        Linked accounts count as one: what one asked, the other can't approve.
        """
        async with self._lock:
            entry = self._entry(handle)
            second = registration.check_link(self._index, entry, other)
            now = self._clock.now()
            put: list[Row] = [
                LinkRow(entry.identity.issuer, entry.identity.subject, other.issuer, other.subject, now),
                *(self.gained(self.row(e), by) for e in (entry, second) if e is not None),
            ]
            change = Change(ChangeKind.LINKED, entry.identity, handle, other=other)
            await self._apply(change, by, put=put, secret={"other": str(other)})
            return self._entry(handle)

    async def unlink(self, handle: str, other: Identity, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            pair = {entry.identity, other}
            drop = [row for row in self._index.rows.links if {identity_of(row), other_of(row)} == pair]
            if not drop:
                raise NotFoundError(f"{handle} has no such link")
            # Two accounts that stop being one person may answer each other: that is a gain of authority.
            put = [self.gained(self.row(e), by) for e in (entry, self.get(other)) if e is not None]
            change = Change(ChangeKind.UNLINKED, entry.identity, handle, other=other)
            await self._apply(change, by, put=put, drop=drop, secret={"other": str(other)})
            return self._entry(handle)

    async def issue_token(self, handle: str, lifetime: timedelta | None = None, *, by: Identity = OPERATOR) -> Issued:
        """Issue an opaque token: shown now, never again."""
        async with self._lock:
            entry = self._active(handle)
            issued, digest = tokens.new_token(
                self._clock, self._entropy, registration.bounded(lifetime, DEFAULT_TOKEN, MAX_TOKEN)
            )
            i, s = entry.identity.issuer, entry.identity.subject
            row = TokenRow(issued.id, i, s, self._clock.now(), digest, issued.expires)
            await self._apply(
                Change(ChangeKind.TOKEN_ISSUED, entry.identity, handle), by,
                put=[row], drop=self._expired(entry.tokens), fields={"credential": issued.id},
            )  # fmt: skip
            return issued

    async def revoke_token(self, handle: str, ident: str, *, by: Identity = OPERATOR) -> None:
        async with self._lock:
            entry = self._entry(handle)
            await self._revoke(ChangeKind.TOKEN_REVOKED, entry, [r for r in entry.tokens if r.id == ident], ident, by)

    async def issue_password(
        self, handle: str, lifetime: timedelta | None = None, *, not_after: datetime | None = None, by: Identity = OPERATOR
    ) -> Issued:
        """Issue a short-lived Postgres password. With eight live ones, the one that ends first makes room.

        `not_after` is the end of the credential that asks for itself: a password never outlives it.
        """
        async with self._lock:
            entry = self._active(handle)
            now = self._clock.now()
            span = registration.bounded(lifetime, DEFAULT_PASSWORD[entry.kind], MAX_PASSWORD)
            if not_after is not None:
                span = min(span, not_after - now)
            live = self._index.scram(entry, now)
            salt, iterations = (live.salt, live.iterations) if live else (derived_salt(self._salt_secret, handle), ITERATIONS)
            issued, made = tokens.new_password(self._clock, self._entropy, span, salt, iterations)
            i, s = entry.identity.issuer, entry.identity.subject
            row = ScramRow(issued.id, i, s, now, salt, iterations, made.stored_key, made.server_key, issued.expires)
            kept = [r for r in entry.passwords if (r.salt, r.iterations) == (salt, iterations) and not self._over(r)]
            kept.sort(key=lambda r: r.expires or datetime.max.replace(tzinfo=now.tzinfo), reverse=True)
            drop = [r for r in entry.passwords if r not in kept[: MAX_VERIFIERS - 1]]
            await self._apply(
                Change(ChangeKind.PASSWORD_ISSUED, entry.identity, handle), by,
                put=[row], drop=drop, fields={"credential": issued.id},
            )  # fmt: skip
            return issued

    async def revoke_password(self, handle: str, ident: str, *, by: Identity = OPERATOR) -> None:
        async with self._lock:
            entry = self._entry(handle)
            await self._revoke(ChangeKind.PASSWORD_REVOKED, entry, [r for r in entry.passwords if r.id == ident], ident, by)

    async def set_passphrase(self, handle: str, passphrase: str, *, by: Identity = OPERATOR) -> Entry:
        """Make a person a reviewer, or change the passphrase of one."""
        phc = await self._hash(self._entry(handle).kind, passphrase)
        async with self._lock:
            entry = self._entry(handle)
            row = replace(self.gained(self.row(entry), by), passphrase=phc)
            await self._apply(Change(ChangeKind.PASSPHRASE_SET, entry.identity, handle), by, put=[row])
            return self._entry(handle)

    async def add_passkey(self, handle: str, passkey: NewPasskey, *, by: Identity) -> Entry:
        """Keep a credential whose registration was just verified. Only the person itself brings one: an administrator who
        could would sign as everybody."""
        async with self._lock:
            entry = self._entry(handle)
            if by not in entry.accounts:
                raise InterlockError("a passkey is registered by the person whose it is", reason=Reason.MISSING_SCOPE)
            row = registration.passkey_row(self._index, entry, passkey, self._clock.now())
            await self._apply(
                Change(ChangeKind.PASSKEY_ADDED, entry.identity, handle), by,
                put=[row, self.gained(self.row(entry), by)], fields={"credential": row.id}, secret={"name": row.name},
            )  # fmt: skip
            return self._entry(handle)

    async def remove_passkey(self, handle: str, ident: str, *, by: Identity = OPERATOR) -> Entry:
        """Take a passkey back. Votes that it signed keep their proof: the record has the public key."""
        async with self._lock:
            entry = self._entry(handle)
            await self._revoke(ChangeKind.PASSKEY_REMOVED, entry, [r for r in entry.passkeys if r.id == ident], ident, by)
            return self._entry(handle)

    async def count_passkey(self, ident: str, count: int) -> None:
        """Keep the signature counter of a use. Authority is as before, so nobody is told. Raise StoreError."""
        async with self._lock:
            found = self.by_passkey(ident)
            if found is None or count <= found[1].sign_count:
                return
            row = replace(found[1], sign_count=count)
            self._index = indexed(applied(self._index.rows, put=[row]))
            await self._rows.change(put=[row])

    async def confirm(self, handle: str, *, by: Identity, changed: datetime | None = None) -> Entry:
        """Say, as another administrator, that what this person gained lately is meant: `new_reviewer_delay` then ends.

        `changed` is the gain that was looked at; a later one is refused. Who is an administrator is the caller's check.
        """
        async with self._lock:
            entry = self._entry(handle)
            registration.check_confirmation(entry, self.get(by), changed, now=self._clock.now(), newcomer=self._newcomer)
            row = replace(self.row(entry), confirmed=self._clock.now(), confirmed_by=str(by))
            fields: dict[str, Json] = {"changed": rfc3339(entry.changed), "changed_by": entry.changed_by}
            await self._apply(Change(ChangeKind.CONFIRMED, entry.identity, handle), by, put=[row], fields=fields)
            return self._entry(handle)

    async def amend(self, build: Callable[[Index], Amendment | None], *, by: Identity) -> None:
        """Make a change that somebody else's rules build from the index of this moment: what an identity provider sends."""
        async with self._lock:
            made = build(self._index)
            if made is not None:
                await self._apply(
                    made.change, by, put=made.put, drop=made.drop, fields=made.fields, secret=made.secret, urgent=made.urgent
                )

    # -- the one way a change takes ----------------------------------------------------------------------------------

    async def _apply(
        self,
        change: Change,
        by: Identity,
        *,
        put: Sequence[Row] = (),
        drop: Sequence[Row] = (),
        fields: Mapping[str, Json] | None = None,
        secret: Mapping[str, Json] | None = None,
        urgent: bool = False,
    ) -> None:
        """Record, store, swap in, tell. An `urgent` change takes authority away: neither a full disk nor a store that is
        down keeps it from taking effect here, and the error is raised nevertheless.
        """
        following = indexed(applied(self._index.rows, put=put, drop=drop))
        told: dict[str, Json] = {"change": str(change.kind), "identity": str(change.identity), "handle": change.handle}
        try:
            self._journal.append(EventDraft("identity.change", {**told, "by": str(by), **(fields or {})}, secret or {}))
        finally:
            if urgent:
                self._swap(following, change)
        await self._journal.sync()
        try:
            await self._rows.change(put=put, drop=drop)
        except InterlockError as error:
            self._journal.append(EventDraft("identity.change", {**told, "failed": str(error.code)}))
            raise
        if not urgent:
            self._swap(following, change)

    def _swap(self, following: Index, change: Change) -> None:
        self._index = following
        for callback in tuple(self._subscribers):
            try:
                callback(change)
            except Exception as error:  # one deaf subscriber must not keep the others from ending sessions
                log.error("directory.subscriber_failed", change=str(change.kind), error=error.__class__.__name__)

    async def _revoke(self, kind: ChangeKind, entry: Entry, drop: Sequence[Row], ident: str, by: Identity) -> None:
        if not drop:
            raise NotFoundError(f"{entry.handle} has no such credential")
        change = Change(kind, entry.identity, entry.handle, credentials=frozenset({ident}))
        await self._apply(change, by, drop=drop, fields={"credential": ident}, urgent=True)

    # -- rules --------------------------------------------------------------------------------------------------------

    def _entry(self, handle: str) -> Entry:
        entry = self.by_handle(handle)
        if entry is None:
            raise NotFoundError(f"nobody is registered as {handle!r}")
        return entry

    def _active(self, handle: str) -> Entry:
        entry = self._entry(handle)
        if entry.disabled:
            raise InterlockError(f"{handle} is disabled, or its owner is", reason=Reason.DISABLED_PRINCIPAL)
        return entry

    def row(self, entry: Entry) -> PrincipalRow:
        return next(row for row in self._index.rows.principals if identity_of(row) == entry.identity)

    def gained(self, row: PrincipalRow, by: Identity) -> PrincipalRow:
        """Return the row after a gain of authority: what was confirmed before says nothing about it."""
        now = self._clock.now()
        return replace(row, changed=now, changed_by=registration.changers(row, by), confirmed=None, confirmed_by="")

    def with_agents(self, entry: Entry) -> frozenset[Identity]:
        owned = {e.identity for e in self._index.by_identity.values() if e.owner == entry.identity and e.kind is Kind.AGENT}
        return frozenset({entry.identity, *owned})

    async def _hash(self, kind: Kind, passphrase: str) -> str:
        if kind is not Kind.HUMAN:
            raise ConfigError("only a person has a passphrase: agents and services never approve")
        return await self._passphrases.hash(passphrase)

    def _over(self, row: TokenRow | ScramRow) -> bool:
        return row.expires is not None and row.expires <= self._clock.now()

    def _expired(self, rows: Sequence[TokenRow]) -> list[TokenRow]:
        return [row for row in rows if self._over(row)]


def _teams_secret(accounts: Sequence[tuple[str, str]]) -> dict[str, Json]:
    return {"teams": [f"{tenant.lower()}/{oid.lower()}" for tenant, oid in accounts]} if accounts else {}
