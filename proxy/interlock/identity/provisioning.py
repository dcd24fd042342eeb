"""People and groups that an identity provider keeps here by SCIM, and groups that it says at logins.

A user is an entry of the directory like any other, linked to their subject at the issuer: whoever is linked already keeps
their entry and its history. Deactivating stops the entry and the agents that it owns; only the provider activates again what
the provider deactivated, and only an administrator what an administrator disabled. A user that is deleted stays here, disabled:
records and exclusions name them. Must not know HTTP or SCIM's texts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from dataclasses import replace

from interlock.clock import Clock, Entropy, ulid
from interlock.errors import ConfigError
from interlock.identity import registration
from interlock.identity.changes import Amendment, Change, ChangeKind
from interlock.identity.directory import Directory
from interlock.identity.entries import LOCAL, Entry
from interlock.identity.index import Index
from interlock.identity.principal import Identity, Kind
from interlock.identity.scim import Group, ScimError, User
from interlock.store.principals import IdpGroupsRow, LinkRow, PrincipalRow, Row, ScimMemberRow, ScimUserRow
from interlock.store.scim import ScimGroupRow, ScimGroupRows

MAX_USERS = 50_000


class Provisioning:
    """One a process. `issuer` is whose subjects the users are, `subject` which attribute says it. `load()` before use."""

    def __init__(
        self, directory: Directory, groups: ScimGroupRows, *, issuer: str, subject: str, clock: Clock, entropy: Entropy
    ) -> None:
        self._directory = directory
        self._rows = groups
        self._issuer = issuer
        self._subject = subject
        self._clock = clock
        self._entropy = entropy
        self._groups: dict[str, ScimGroupRow] = {}
        self._lock = asyncio.Lock()
        self.by = Identity("scim", issuer)

    async def load(self) -> None:
        """Raise StoreError."""
        self._groups = {row.id: row for row in await self._rows.load()}

    # -- users --------------------------------------------------------------------------------------------------------------

    def users(self) -> list[Entry]:
        """Return everybody who is kept by SCIM, oldest first."""
        found = [(entry.scim.created, entry.scim.id, entry) for entry in self._directory.entries() if entry.scim is not None]
        return [entry for _, _, entry in sorted(found, key=lambda one: one[:2])]

    def user(self, ident: str) -> tuple[Entry, ScimUserRow]:
        """Raise ScimError (404)."""
        entry = self._directory.by_scim(ident)
        if entry is None or entry.scim is None:
            raise ScimError(404, "", "there is no user of this id")
        return entry, entry.scim

    def said(self, row: ScimUserRow) -> User:
        return User(row.user_name, row.external_id, row.display, row.active)

    async def create(self, user: User) -> str:
        """Return the id of a new user. Raise ScimError (409) when there is one of this name or subject."""
        ident = "usr_" + ulid(self._clock, self._entropy)

        def build(index: Index) -> Amendment:
            self._check_unique(index, user, "")
            if len(index.rows.all(ScimUserRow)) >= MAX_USERS:
                raise ScimError(403, "tooMany", f"at most {MAX_USERS} users are kept")
            now, other = self._clock.now(), self._identity(user)
            entry = index.by_identity.get(other) or index.by_foreign.get(other)
            put: list[Row] = []
            if entry is None:
                handle = _free_handle(index, user.user_name)
                identity = Identity(LOCAL, f"{handle}#{self._entropy(5).hex()}")
                put.append(
                    PrincipalRow(
                        identity.issuer, identity.subject, handle, str(Kind.HUMAN), now, now,
                        changed_by=registration.changers(None, self.by),
                    )
                )  # fmt: skip
                put.append(LinkRow(identity.issuer, identity.subject, other.issuer, other.subject, now))
            elif entry.kind is not Kind.HUMAN or entry.scim is not None:
                raise ScimError(409, "uniqueness", "this subject belongs to another entry")
            else:
                identity, handle = entry.identity, entry.handle
            put.append(
                ScimUserRow(
                    ident,
                    identity.issuer,
                    identity.subject,
                    user.user_name,
                    user.external_id,
                    user.display,
                    user.active,
                    now,
                    now,
                )
            )
            stopped = self._directory.with_agents(entry) if entry is not None and not user.active else frozenset({identity})
            kind = ChangeKind.ADDED if user.active else ChangeKind.DISABLED
            change = Change(kind, identity, handle, frozenset() if user.active else stopped)
            return Amendment(change, put, fields={"scim": ident, "active": user.active}, secret={"user": user.user_name})

        await self._directory.amend(build, by=self.by)
        return ident

    async def update(self, ident: str, change: Callable[[User], User]) -> None:
        """Replace what is said of a user by what `change` makes of it. Raise ScimError.

        `change` is called when it is this change's turn: of two that came at once, the one would bring back what the other
        took away.
        """

        def build(index: Index) -> Amendment | None:
            entry, row = self.user(ident)
            user = change(self.said(row))
            self._check_unique(index, user, ident)
            if self._identity(user) != self._identity(self.said(row)):
                raise ScimError(400, "mutability", "the attribute that is the user's subject does not change")
            if user == self.said(row):
                return None
            after = replace(
                row, user_name=user.user_name, external_id=user.external_id, display=user.display, active=user.active,
                changed=self._clock.now(),
            )  # fmt: skip
            put: list[Row] = [after]
            told = Change(ChangeKind.LINKED, entry.identity, entry.handle)
            if row.active and not user.active:
                told = Change(ChangeKind.DISABLED, entry.identity, entry.handle, self._directory.with_agents(entry))
            elif user.active and not row.active:
                told = Change(ChangeKind.ENABLED, entry.identity, entry.handle)
                put.append(self._directory.gained(self._directory.row(entry), self.by))
            return Amendment(
                told, put, fields={"scim": ident, "active": user.active}, secret={"user": user.user_name},
                urgent=row.active and not user.active,
            )  # fmt: skip

        await self._directory.amend(build, by=self.by)

    async def delete(self, ident: str) -> None:
        """Stop a user for good. Raise ScimError (404)."""

        def build(index: Index) -> Amendment:
            entry, row = self.user(ident)
            members = list(index.rows.of(ScimMemberRow, entry.identity))
            change = Change(ChangeKind.DISABLED, entry.identity, entry.handle, self._directory.with_agents(entry))
            stopped = replace(self._directory.row(entry), disabled=True)
            return Amendment(change, [stopped], [row, *members], fields={"scim": ident, "deleted": True}, urgent=True)

        await self._directory.amend(build, by=self.by)

    def _identity(self, user: User) -> Identity:
        value = user.external_id if self._subject == "externalId" else user.user_name
        if not registration.is_subject(value):
            raise ScimError(400, "invalidValue", f"{self._subject} must be the user's subject at the identity provider")
        return Identity(self._issuer, value)

    def _check_unique(self, index: Index, user: User, ident: str) -> None:
        for row in index.rows.all(ScimUserRow):
            if row.id != ident and row.user_name.lower() == user.user_name.lower():
                raise ScimError(409, "uniqueness", "there is a user of this userName")

    # -- groups -------------------------------------------------------------------------------------------------------------

    def groups(self) -> list[ScimGroupRow]:
        return sorted(self._groups.values(), key=lambda row: (row.created, row.id))

    def group(self, ident: str) -> ScimGroupRow:
        """Raise ScimError (404)."""
        if ident not in self._groups:
            raise ScimError(404, "", "there is no group of this id")
        return self._groups[ident]

    def members(self, ident: str) -> list[Entry]:
        return [entry for entry in self.users() if any(one.group == ident for one in entry.scim_groups)]

    def group_said(self, ident: str) -> Group:
        row = self.group(ident)
        return Group(row.display, row.external_id, frozenset(e.scim.id for e in self.members(ident) if e.scim is not None))

    async def create_group(self, group: Group) -> str:
        """Return the id of a new group. Raise ScimError."""
        async with self._lock:
            now = self._clock.now()
            row = ScimGroupRow("grp_" + ulid(self._clock, self._entropy), group.display, group.external_id, now, now)
            await self._put_group(row, group.members)
            return row.id

    async def update_group(self, ident: str, change: Callable[[Group], Group]) -> None:
        """Replace a group's name and members by what `change` makes of them, when it is its turn. Raise ScimError."""
        async with self._lock:
            before, group = self.group(ident), change(self.group_said(ident))
            row = replace(before, display=group.display, external_id=group.external_id, changed=self._clock.now())
            await self._put_group(row, group.members)

    async def delete_group(self, ident: str) -> None:
        """Raise ScimError (404)."""
        async with self._lock:
            row = self.group(ident)
            await self._set_members(row, frozenset())
            await self._rows.drop(ident)
            del self._groups[ident]

    async def _put_group(self, row: ScimGroupRow, members: frozenset[str]) -> None:
        try:
            registration.checked_groups([row.display])
        except ConfigError as error:
            raise ScimError(400, "invalidValue", str(error)) from None
        if any(other.display == row.display and other.id != row.id for other in self._groups.values()):
            raise ScimError(409, "uniqueness", "there is a group of this displayName")
        for ident in members:
            self.user(ident)
        await self._rows.put(row)
        self._groups[row.id] = row
        await self._set_members(row, members)

    async def _set_members(self, row: ScimGroupRow, members: frozenset[str]) -> None:
        """Take out who is in no longer, first: a group that shrinks never waits for one that grows."""
        now = {entry.scim.id: entry for entry in self.members(row.id) if entry.scim is not None}
        for ident in sorted(now.keys() - members):
            await self._member(row, ident, inside=False)
        for ident in sorted(members):
            await self._member(row, ident, inside=True)

    async def _member(self, row: ScimGroupRow, ident: str, *, inside: bool) -> None:
        def build(index: Index) -> Amendment | None:
            entry, _ = self.user(ident)
            before = [o for o in index.rows.of(ScimMemberRow, entry.identity) if o.group == row.id]
            if inside and before and before[0].name == row.display:
                return None
            i, s = entry.identity.issuer, entry.identity.subject
            put: list[Row] = [ScimMemberRow(i, s, row.id, row.display, self._clock.now())] if inside else []
            if inside:
                put.append(self._directory.gained(self._directory.row(entry), self.by))
            change = Change(ChangeKind.GROUPS, entry.identity, entry.handle)
            told = {"added": [row.display] if inside else [], "removed": [one.name for one in before], "scim": row.id}
            return Amendment(change, put, [] if inside else before, fields=told, urgent=not inside)

        await self._directory.amend(build, by=self.by)


async def learn_groups(directory: Directory, clock: Clock, identity: Identity, source: str, names: Collection[str]) -> None:
    """Keep what an issuer says of somebody's groups at a login: reviewers' groups are looked up when they answer.

    New ones are a gain of authority. Raise StoreError, EvidenceError.
    """

    def build(index: Index) -> Amendment | None:
        entry = index.by_identity.get(identity)
        if entry is None:
            return None
        i, s = identity.issuer, identity.subject
        rows = [one for one in index.rows.of(IdpGroupsRow, identity) if one.source == source]
        before = frozenset(json.loads(rows[0].names)) if rows else frozenset()
        added, removed = frozenset(names) - before, before - frozenset(names)
        now = clock.now()
        if rows and not added and not removed and (now - rows[0].learned).total_seconds() < directory.learned_again:
            return None
        put: list[Row] = [IdpGroupsRow(i, s, source, json.dumps(sorted(names)), now)]
        if added:
            put.append(directory.gained(directory.row(entry), Identity(source, "groups")))
        kind = ChangeKind.GROUPS if added or removed else ChangeKind.GROUPS_SEEN
        told = {"source": source, "added": sorted(added), "removed": sorted(removed)}
        return Amendment(Change(kind, identity, entry.handle), put, fields=told, urgent=not added)

    await directory.amend(build, by=Identity(source, "login"))


def _free_handle(index: Index, user_name: str) -> str:
    """Return a handle that is free, near to a user name: authority never follows from it."""
    for handle in registration.numbered(registration.likely_handle(user_name) or "user", MAX_USERS + 1):
        if handle not in index.by_handle:
            return handle
    raise ScimError(409, "uniqueness", "no handle is free for this userName")
