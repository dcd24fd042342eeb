"""Everything the directory is asked for, found in one step, and kept up to date by as little as changed.

Pure. An index is a value: a reader sees one moment, and a change is a swap. A change builds the entries anew that it can have an
effect on: those of its rows, of whoever is linked to them, and of the agents that they own; all others are shared with the index
before. Must not know how rows are stored, or who may change them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from interlock.identity.entries import Entry
from interlock.identity.principal import Identity, Kind
from interlock.identity.rows import Rows, identity_of, other_of, owner_of, rows_of
from interlock.identity.scram import ScramCredentials, Verifier
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


@dataclass(frozen=True, slots=True)
class Index:
    rows: Rows = field(default_factory=Rows, repr=False)
    by_identity: Mapping[Identity, Entry] = field(default_factory=dict)
    by_handle: Mapping[str, Entry] = field(default_factory=dict)
    by_ssh_key: Mapping[bytes, Entry] = field(default_factory=dict)
    by_teams: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    by_slack: Mapping[tuple[str, str], Entry] = field(default_factory=dict)
    by_passkey: Mapping[str, tuple[Entry, PasskeyRow]] = field(default_factory=dict)
    by_token: Mapping[bytes, tuple[Entry, TokenRow]] = field(default_factory=dict, repr=False)
    by_foreign: Mapping[Identity, Entry] = field(default_factory=dict)
    by_scim: Mapping[str, Entry] = field(default_factory=dict)
    passphrases: Mapping[Identity, str] = field(default_factory=dict, repr=False)

    def scram(self, entry: Entry, now: datetime) -> ScramCredentials | None:
        """Return the live verifiers of an entry, or None when it has none."""
        live = [row for row in entry.passwords if row.expires is None or row.expires > now]
        if not live:
            return None
        salt, iterations = live[0].salt, live[0].iterations
        same = tuple(Verifier(r.id, r.stored_key, r.server_key) for r in live if (r.salt, r.iterations) == (salt, iterations))
        return ScramCredentials(salt, iterations, same)

    def after(self, *, put: Sequence[Row] = (), drop: Sequence[Row] = ()) -> Index:
        """Return the index after dropping and then putting rows (`Rows.changed`)."""
        rows, moved = self.rows.changed(put=put, drop=drop)
        affected = _affected(self.rows, rows, moved)
        people, linked = dict(self.by_identity), _Linked(rows)
        for identity in affected:
            entry = _entry(rows, identity, linked)
            if entry is None:
                people.pop(identity, None)
            else:
                people[identity] = entry
        found = {name: self._found(name, keys, rows, people, affected) for name, keys in _FOUND_BY.items()}
        return Index(rows, people, by_foreign=self._foreign(rows, people, affected), **found)

    def _found(
        self, name: str, keys: _Keys, rows: Rows, people: Mapping[Identity, Entry], affected: Collection[Identity]
    ) -> Mapping[Any, Any]:
        """Return one way to find entries; the same as before where nobody affected is or was found by it."""
        before: Mapping[Any, Any] = getattr(self, name)
        gone = [key for one in affected if one in self.by_identity for key in keys(self.rows, self.by_identity[one])]
        come = {key: what for one in affected if one in people for key, what in keys(rows, people[one]).items()}
        if not gone and not come:
            return before
        after = dict(before)
        for key in gone:
            after.pop(key, None)
        after.update(come)
        return after

    def _foreign(self, rows: Rows, people: Mapping[Identity, Entry], affected: Collection[Identity]) -> Mapping[Identity, Entry]:
        """Find entries by identities outside that are linked to them. One that two entries claim is nobody: the directory refuses
        such a link, the store may hold one."""
        others = {other_of(link) for one in affected for was in (self.rows, rows) for link in was.of(LinkRow, one)}
        foreign = dict(self.by_foreign)
        for other in others.union(affected):
            foreign.pop(other, None)
            if other in people:
                continue
            for link in rows.inward(other):
                entry = people[identity_of(link)]
                foreign[other] = replace(entry, disabled=True) if other in foreign else entry
        return foreign


def indexed(snapshot: Snapshot) -> Index:
    """Build the index of all rows."""
    return Index().after(put=rows_of(snapshot))


def _affected(before: Rows, after: Rows, moved: Collection[Row]) -> frozenset[Identity]:
    """Return whose entries a change of these rows may have changed."""
    found = {identity_of(row) for row in moved}
    ends = {end for row in moved if isinstance(row, LinkRow) for end in (identity_of(row), other_of(row))}
    seen: dict[int, set[Identity]] = {}
    for number, rows in enumerate((before, after)):
        there = seen[number] = set()
        for end in ends:
            if end not in there:
                there |= rows.component(end)
    found |= seen[0] | seen[1]
    return frozenset(found.union(agent for rows in (before, after) for one in found for agent in rows.owned(one)))


class _Linked:
    """Others of the same person, each component walked once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._component: dict[Identity, frozenset[Identity]] = {}

    def __call__(self, identity: Identity) -> frozenset[Identity]:
        if identity not in self._component:
            component = self._rows.component(identity)
            self._component.update(dict.fromkeys(component, component))
        return self._component[identity] - {identity}


def _entry(rows: Rows, identity: Identity, linked: Callable[[Identity], frozenset[Identity]]) -> Entry | None:
    row = rows.principal(identity)
    if row is None:
        return None
    owner = owner_of(row)
    owner_row = rows.principal(owner) if owner else None
    orphan = row.kind == Kind.AGENT and (owner_row is None or _off(rows, owner_row) or owner_row.kind != Kind.HUMAN)
    learned, members = rows.of(IdpGroupsRow, identity), tuple(rows.of(ScimMemberRow, identity))
    return Entry(
        identity=identity,
        handle=row.handle,
        kind=Kind(row.kind),
        created=row.created,
        changed=row.changed,
        groups=frozenset(g.name for g in rows.of(MembershipRow, identity)) | {m.name for m in members},
        owner=owner,
        owner_handle=owner_row.handle if owner_row else "",
        linked=linked(identity),
        owner_linked=linked(owner) if owner else frozenset(),
        disabled=_off(rows, row) or orphan,
        reviewer=row.passphrase is not None,
        ssh_keys=tuple(rows.of(SshKeyRow, identity)),
        tokens=tuple(rows.of(TokenRow, identity)),
        passwords=tuple(sorted(rows.of(ScramRow, identity), key=lambda r: (r.created, r.id))),
        teams=tuple((t.tenant, t.oid) for t in rows.of(TeamsRow, identity)),
        slack=tuple((s.team, s.user) for s in rows.of(SlackRow, identity)),
        passkeys=tuple(sorted(rows.of(PasskeyRow, identity), key=lambda r: (r.created, r.id))),
        changed_by=row.changed_by,
        confirmed=row.confirmed is not None and row.confirmed >= row.changed,
        learned=frozenset(name for one in learned for name in json.loads(one.names)),
        learned_at=min((one.learned for one in learned), default=None),
        scim=next(iter(rows.of(ScimUserRow, identity)), None),
        scim_groups=members,
    )


def _off(rows: Rows, row: PrincipalRow) -> bool:
    return row.disabled or any(not user.active for user in rows.of(ScimUserRow, identity_of(row)))


def _passphrase(row: PrincipalRow | None) -> Mapping[Identity, str]:
    return {identity_of(row): row.passphrase} if row is not None and row.passphrase is not None else {}


_Keys = Callable[[Rows, Entry], Mapping[Any, Any]]

_FOUND_BY: Mapping[str, _Keys] = {
    "by_handle": lambda _, e: {e.handle: e},
    "by_ssh_key": lambda _, e: {key.blob: e for key in e.ssh_keys},
    "by_teams": lambda _, e: dict.fromkeys(e.teams, e),
    "by_slack": lambda _, e: dict.fromkeys(e.slack, e),
    "by_passkey": lambda _, e: {passkey.id: (e, passkey) for passkey in e.passkeys},
    "by_token": lambda _, e: {token.hash: (e, token) for token in e.tokens},
    "by_scim": lambda rows, e: {user.id: e for user in rows.of(ScimUserRow, e.identity)},
    "passphrases": lambda rows, e: _passphrase(rows.principal(e.identity)),
}
"""By what an entry is found, and what is found by it."""
