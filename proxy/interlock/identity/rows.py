"""The directory's rows as one value, found by their key, by whose they are, and links by their other end.

Never changed: a change copies the tables that it touches and shares all others, so that it costs among ten thousand people about
what it costs among ten. Knows keys and who owns whom. Must not know what a row means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from interlock.identity.principal import Identity
from interlock.store.principals import (
    IdpGroupsRow,
    LinkRow,
    MembershipRow,
    PasskeyRow,
    PrincipalRow,
    Row,
    ScimMemberRow,
    ScimUserRow,
    ScramRow,
    SlackRow,
    Snapshot,
    SshKeyRow,
    TeamsRow,
    TokenRow,
)

R = TypeVar(
    "R", PrincipalRow, SshKeyRow, TokenRow, ScramRow, MembershipRow, LinkRow, TeamsRow, SlackRow, PasskeyRow, IdpGroupsRow,
    ScimUserRow, ScimMemberRow,
)  # fmt: skip

Key = tuple[object, ...]
Table = Mapping[Key, Row]
KINDS: tuple[type[Row], ...] = (
    PrincipalRow, SshKeyRow, TokenRow, ScramRow, MembershipRow, LinkRow, TeamsRow, SlackRow, PasskeyRow, IdpGroupsRow,
    ScimUserRow, ScimMemberRow,
)  # fmt: skip


def identity_of(row: Row) -> Identity:
    return Identity(row.issuer, row.subject)


def other_of(row: LinkRow) -> Identity:
    return Identity(row.other_issuer, row.other_subject)


def owner_of(row: PrincipalRow) -> Identity | None:
    if row.owner_issuer is None or row.owner_subject is None:
        return None
    return Identity(row.owner_issuer, row.owner_subject)


@dataclass(frozen=True, slots=True)
class Rows:
    """Every row of one moment. Rows of one table keep the order in which they came."""

    _tables: Mapping[type[Row], Table] = field(default_factory=dict)
    _of: Mapping[type[Row], Mapping[Identity, Table]] = field(default_factory=dict)
    _inward: Mapping[Identity, Table] = field(default_factory=dict)
    _owned: Mapping[Identity, Mapping[Key, Row]] = field(default_factory=dict)

    def all(self, kind: type[R]) -> Collection[R]:
        return cast("Collection[R]", self._tables.get(kind, {}).values())

    def of(self, kind: type[R], whose: Identity) -> Collection[R]:
        found = self._of.get(kind, {}).get(whose)
        return cast("Collection[R]", found.values()) if found is not None else ()

    def principal(self, identity: Identity) -> PrincipalRow | None:
        return next(iter(self.of(PrincipalRow, identity)), None)

    def inward(self, identity: Identity) -> Collection[LinkRow]:
        """Return the links whose other end this is."""
        return cast("Collection[LinkRow]", self._inward.get(identity, {}).values())

    def between(self, one: Identity, other: Identity) -> list[LinkRow]:
        """Return the links of two identities, whichever end is which."""
        ends = ((one, other), (other, one))
        return [link for here, there in ends for link in self.of(LinkRow, here) if other_of(link) == there]

    def owned(self, owner: Identity) -> Iterable[Identity]:
        return map(identity_of, self._owned.get(owner, {}).values())

    def component(self, identity: Identity) -> frozenset[Identity]:
        """Return all identities of one person: links are symmetric and carry on over each other."""
        found, ahead = {identity}, [identity]
        while ahead:
            one = ahead.pop()
            for other in (*map(other_of, self.of(LinkRow, one)), *map(identity_of, self.inward(one))):
                if other not in found:
                    found.add(other)
                    ahead.append(other)
        return frozenset(found)

    def changed(self, *, put: Sequence[Row] = (), drop: Sequence[Row] = ()) -> tuple[Rows, Sequence[Row]]:
        """Return the rows after dropping and then putting some, and the rows that went or came.

        What hangs on a dropped principal goes with it, as it does in the store.
        """
        draft = _Draft(self)
        for row in drop:
            draft.drop(type(row), key_of(row))
            if isinstance(row, PrincipalRow):
                for kind in KINDS:
                    for hanging in tuple(self._of.get(kind, {}).get(identity_of(row), {})):
                        draft.drop(kind, hanging)
        for row in put:
            draft.put(row)
        return draft.rows(), draft.moved


class _Draft:
    """Tables that are copied when they are first touched."""

    def __init__(self, before: Rows) -> None:
        self._tables = dict(before._tables)
        self._of = dict(before._of)
        self._inward = dict(before._inward)
        self._owned = dict(before._owned)
        self._own: dict[type[Row], tuple[dict[Key, Row], dict[Identity, Table]]] = {}
        self._inner: dict[int, dict[Key, Row]] = {}
        self.moved: list[Row] = []

    def rows(self) -> Rows:
        return Rows(self._tables, self._of, self._inward, self._owned)

    def drop(self, kind: type[Row], key: Key) -> None:
        table, of = self._opened(kind)
        row = table.pop(key, None)
        if row is not None:
            self.moved.append(row)
            self._without(of, identity_of(row), key)
            self._beside(row, key, there=False)

    def put(self, row: Row) -> None:
        key = key_of(row)
        table, of = self._opened(type(row))
        before = table.get(key)
        if before is not None:
            self.moved.append(before)
            if isinstance(before, PrincipalRow):  # may have another owner now; a link's ends are its key
                self._beside(before, key, there=False)
            if identity_of(before) != identity_of(row):
                self._without(of, identity_of(before), key)
        self.moved.append(row)
        table[key] = row
        self._with(of, identity_of(row), key, row)
        self._beside(row, key, there=True)

    def _opened(self, kind: type[Row]) -> tuple[dict[Key, Row], dict[Identity, Table]]:
        if kind not in self._own:
            self._own[kind] = dict(self._tables.get(kind, {})), dict(self._of.get(kind, {}))
            self._tables[kind], self._of[kind] = self._own[kind]
        return self._own[kind]

    def _beside(self, row: Row, key: Key, *, there: bool) -> None:
        """Keep the two ways that lead from one identity to rows of others."""
        if isinstance(row, LinkRow):
            way, at = self._inward, other_of(row)
        elif isinstance(row, PrincipalRow) and (owner := owner_of(row)) is not None:
            way, at = self._owned, owner
        else:
            return
        if there:
            self._with(way, at, key, row)
        else:
            self._without(way, at, key)

    def _with(self, way: dict[Identity, Table], at: Identity, key: Key, row: Row) -> None:
        self._mine(way, at)[key] = row

    def _without(self, way: dict[Identity, Table], at: Identity, key: Key) -> None:
        mine = self._mine(way, at)
        mine.pop(key, None)
        if not mine:
            del way[at]

    def _mine(self, way: dict[Identity, Table], at: Identity) -> dict[Key, Row]:
        """Return a table of one identity that is this draft's own."""
        there = way.get(at)
        if there is not None and id(there) in self._inner:
            return self._inner[id(there)]
        copied = dict(there or {})
        way[at] = self._inner[id(copied)] = copied
        return copied


def key_of(row: Row) -> Key:
    match row:
        case PrincipalRow():
            return (row.issuer, row.subject)
        case SshKeyRow():
            return (row.fingerprint,)
        case TokenRow() | ScramRow() | PasskeyRow() | ScimUserRow():
            return (row.id,)
        case IdpGroupsRow():
            return (row.issuer, row.subject, row.source)
        case ScimMemberRow():
            return (row.issuer, row.subject, row.group)
        case MembershipRow():
            return (row.issuer, row.subject, row.name)
        case LinkRow():
            return (row.issuer, row.subject, row.other_issuer, row.other_subject)
        case TeamsRow():
            return (row.tenant, row.oid)
        case SlackRow():
            return (row.team, row.user)


def rows_of(snapshot: Snapshot) -> list[Row]:
    """Return every row that the store has."""
    return [
        *snapshot.principals, *snapshot.ssh_keys, *snapshot.tokens, *snapshot.scram, *snapshot.memberships, *snapshot.links,
        *snapshot.teams, *snapshot.slack, *snapshot.passkeys, *snapshot.idp_groups, *snapshot.scim_users, *snapshot.scim_members,
    ]  # fmt: skip
