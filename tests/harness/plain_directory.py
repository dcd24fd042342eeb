"""The directory's index built whole from all rows, as plainly as can be: what the one that is kept up to date must equal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from interlock.identity.entries import Entry
from interlock.identity.principal import Identity, Kind
from interlock.identity.rows import identity_of, key_of, other_of, owner_of
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


def plainly(rows: Snapshot) -> dict[str, Any]:
    """Build the index of all rows."""
    people = _entries(rows)
    foreign: dict[Identity, Entry] = {}
    for link in rows.links:
        other, entry = other_of(link), people[identity_of(link)]
        # An identity outside that two entries claim is nobody: the directory refuses such a link, the store may hold one.
        if other not in people:
            foreign[other] = replace(entry, disabled=True) if other in foreign else entry
    return {
        "by_identity": people,
        "by_handle": {e.handle: e for e in people.values()},
        "by_ssh_key": {k.blob: people[identity_of(k)] for k in rows.ssh_keys},
        "by_teams": {(t.tenant, t.oid): people[identity_of(t)] for t in rows.teams},
        "by_slack": {(s.team, s.user): people[identity_of(s)] for s in rows.slack},
        "by_passkey": {p.id: (people[identity_of(p)], p) for p in rows.passkeys},
        "by_token": {t.hash: (people[identity_of(t)], t) for t in rows.tokens},
        "by_foreign": foreign,
        "by_scim": {user.id: people[identity_of(user)] for user in rows.scim_users},
        "passphrases": {identity_of(p): p.passphrase for p in rows.principals if p.passphrase is not None},
    }


def _entries(rows: Snapshot) -> dict[Identity, Entry]:
    principals = {identity_of(row): row for row in rows.principals}
    linked = _linked(rows.links)
    groups = _grouped(rows.memberships)
    keys, tokens = _grouped(rows.ssh_keys), _grouped(rows.tokens)
    passwords, teams = _grouped(rows.scram), _grouped(rows.teams)
    slack, passkeys = _grouped(rows.slack), _grouped(rows.passkeys)
    learned, scim, members = _grouped(rows.idp_groups), _grouped(rows.scim_users), _grouped(rows.scim_members)
    inactive = {identity_of(user) for user in rows.scim_users if not user.active}
    entries = {}
    for identity, row in principals.items():
        owner = owner_of(row)
        owner_row = principals.get(owner) if owner else None
        off = row.disabled or identity in inactive
        orphan = row.kind == Kind.AGENT and (
            owner_row is None or owner_row.disabled or owner in inactive or owner_row.kind != Kind.HUMAN
        )
        entries[identity] = Entry(
            identity=identity,
            handle=row.handle,
            kind=Kind(row.kind),
            created=row.created,
            changed=row.changed,
            groups=frozenset(g.name for g in (*groups.get(identity, ()), *members.get(identity, ()))),
            owner=owner,
            owner_handle=owner_row.handle if owner_row else "",
            linked=linked.get(identity, frozenset()),
            owner_linked=linked.get(owner, frozenset()) if owner else frozenset(),
            disabled=off or orphan,
            reviewer=row.passphrase is not None,
            ssh_keys=tuple(keys.get(identity, ())),
            tokens=tuple(tokens.get(identity, ())),
            passwords=tuple(sorted(passwords.get(identity, ()), key=lambda r: (r.created, r.id))),
            teams=tuple((t.tenant, t.oid) for t in teams.get(identity, ())),
            slack=tuple((s.team, s.user) for s in slack.get(identity, ())),
            passkeys=tuple(sorted(passkeys.get(identity, ()), key=lambda r: (r.created, r.id))),
            changed_by=row.changed_by,
            confirmed=row.confirmed is not None and row.confirmed >= row.changed,
            learned=frozenset(name for one in learned.get(identity, ()) for name in json.loads(one.names)),
            learned_at=min((one.learned for one in learned.get(identity, ())), default=None),
            scim=next(iter(scim.get(identity, ())), None),
            scim_groups=tuple(members.get(identity, ())),
        )
    return entries


_R = TypeVar(
    "_R", SshKeyRow, TokenRow, ScramRow, MembershipRow, TeamsRow, SlackRow, PasskeyRow, IdpGroupsRow, ScimUserRow, ScimMemberRow
)


def _grouped(rows: Iterable[_R]) -> dict[Identity, list[_R]]:
    grouped: dict[Identity, list[_R]] = {}
    for row in rows:
        grouped.setdefault(identity_of(row), []).append(row)
    return grouped


def _linked(links: Sequence[LinkRow]) -> dict[Identity, frozenset[Identity]]:
    """Return for each identity the others of the same person: links are symmetric and carry on over each other."""
    component: dict[Identity, set[Identity]] = {}
    for link in links:
        one, other = identity_of(link), other_of(link)
        merged = component.get(one, {one}) | component.get(other, {other})
        for member in merged:
            component[member] = merged
    return {member: frozenset(merged - {member}) for member, merged in component.items()}


def applied(rows: Snapshot, *, put: Sequence[Row] = (), drop: Sequence[Row] = ()) -> Snapshot:
    """Return the rows after dropping and putting some; what hangs on a dropped principal goes with it."""
    gone = {identity_of(row) for row in drop if isinstance(row, PrincipalRow)}
    dropped = {(type(row), key_of(row)) for row in drop}
    fields: dict[str, tuple[Row, ...]] = {}
    for name, kind in _FIELDS.items():
        table: dict[tuple[object, ...], Row] = {
            key_of(row): row for row in getattr(rows, name) if identity_of(row) not in gone and (kind, key_of(row)) not in dropped
        }
        table.update({key_of(row): row for row in put if isinstance(row, kind)})
        fields[name] = tuple(table.values())
    return replace(rows, **fields)  # type: ignore[arg-type]  # each field holds the rows of its own kind by construction


_FIELDS: dict[str, type[Row]] = {
    "principals": PrincipalRow,
    "ssh_keys": SshKeyRow,
    "tokens": TokenRow,
    "scram": ScramRow,
    "memberships": MembershipRow,
    "links": LinkRow,
    "teams": TeamsRow,
    "slack": SlackRow,
    "passkeys": PasskeyRow,
    "idp_groups": IdpGroupsRow,
    "scim_users": ScimUserRow,
    "scim_members": ScimMemberRow,
}
