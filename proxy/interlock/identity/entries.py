"""The directory as a value: entries and the index over all rows of one moment.

Pure. Built whole from the store's rows and never changed, so that a reader sees one moment and a change is a swap.
Must not know how rows are stored, who may change them, or what an approval is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from interlock.identity.principal import Assurance, Credential, Identity, Kind, Principal
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

ADMINS = "interlock-admins"
"""The group of those who administer this proxy."""

LOCAL = "local"
"""Issuer of identities that the directory itself vouches for."""

OPERATOR = Identity("unix", "operator")
"""Who changes things through the daemon's own socket."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered person, agent or service.

    `disabled` also holds for an agent whose owner is disabled or gone: nobody would answer for it. `linked` are all
    other identities of the same person, in the directory or not. `changed` is when authority last grew (created,
    linked, re-grouped, enabled): `approvals.new_reviewer_delay` counts from it.
    """

    identity: Identity
    handle: str
    kind: Kind
    created: datetime
    changed: datetime
    groups: frozenset[str] = frozenset()
    owner: Identity | None = None
    owner_handle: str = ""
    linked: frozenset[Identity] = frozenset()
    owner_linked: frozenset[Identity] = frozenset()
    disabled: bool = False
    reviewer: bool = False  # has a passphrase, so can open a decision session
    ssh_keys: tuple[SshKeyRow, ...] = ()
    tokens: tuple[TokenRow, ...] = ()
    passwords: tuple[ScramRow, ...] = ()
    teams: tuple[tuple[str, str], ...] = ()
    slack: tuple[tuple[str, str], ...] = ()
    passkeys: tuple[PasskeyRow, ...] = ()
    changed_by: str = ""  # who gave what is not confirmed yet, blank-separated (`registration.changers`)
    confirmed: bool = False  # another administrator confirmed what was gained at `changed`
    learned: frozenset[str] = frozenset()  # groups that issuers said of them, at `learned_at` or later
    learned_at: datetime | None = None
    scim: ScimUserRow | None = None
    scim_groups: tuple[ScimMemberRow, ...] = ()
    stale: bool = False  # what their issuer says of their groups is not known, or was said too long ago

    @property
    def from_issuer(self) -> bool:
        """Whether their groups come from an identity provider at each login, and from nowhere else."""
        return self.kind is Kind.HUMAN and self.scim is None and any(i.issuer not in (LOCAL, "unix") for i in self.linked)

    def groups_at(self, now: datetime, max_age: timedelta) -> Entry:
        """Return the entry with the groups that are known now: what an issuer said counts for `max_age`."""
        if self.learned_at is None or now - self.learned_at > max_age:
            return replace(self, stale=True) if self.from_issuer else self
        return replace(self, groups=self.groups | self.learned)

    @property
    def accounts(self) -> frozenset[Identity]:
        """All identities of this person: its own and the linked ones."""
        return self.linked | {self.identity}

    def principal(self, credential: Credential, assurance: Assurance | None = None) -> Principal:
        """Return who this is on a connection that proved `credential`.

        Its `linked` holds the owner's other accounts too: what excludes the owner from approving excludes all of them.
        """
        return Principal(
            identity=self.identity,
            handle=self.handle,
            kind=self.kind,
            credential=credential,
            groups=self.groups,
            owner=self.owner,
            linked=self.linked | self.owner_linked,
            owner_handle=self.owner_handle,
            assurance=assurance or Assurance(),
        )


@dataclass(frozen=True, slots=True)
class Index:
    """Everything the directory is asked for, found in one step."""

    rows: Snapshot = field(default_factory=Snapshot, repr=False)
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


def identity_of(row: Row) -> Identity:
    return Identity(row.issuer, row.subject)


def other_of(row: LinkRow) -> Identity:
    return Identity(row.other_issuer, row.other_subject)


def indexed(rows: Snapshot) -> Index:
    """Build the index of all rows."""
    people = _entries(rows)
    foreign: dict[Identity, Entry] = {}
    for link in rows.links:
        other, entry = other_of(link), people[identity_of(link)]
        # An identity outside that two entries claim is nobody: the directory refuses such a link, the store may hold one.
        if other not in people:
            foreign[other] = replace(entry, disabled=True) if other in foreign else entry
    return Index(
        rows=rows,
        by_identity=people,
        by_handle={e.handle: e for e in people.values()},
        by_ssh_key={k.blob: people[identity_of(k)] for k in rows.ssh_keys},
        by_teams={(t.tenant, t.oid): people[identity_of(t)] for t in rows.teams},
        by_slack={(s.team, s.user): people[identity_of(s)] for s in rows.slack},
        by_passkey={p.id: (people[identity_of(p)], p) for p in rows.passkeys},
        by_token={t.hash: (people[identity_of(t)], t) for t in rows.tokens},
        by_foreign=foreign,
        by_scim={user.id: people[identity_of(user)] for user in rows.scim_users},
        passphrases={identity_of(p): p.passphrase for p in rows.principals if p.passphrase is not None},
    )


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
        owner = _owner_of(row)
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


def _owner_of(row: PrincipalRow) -> Identity | None:
    if row.owner_issuer is None or row.owner_subject is None:
        return None
    return Identity(row.owner_issuer, row.owner_subject)


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


# -- changes, applied to the value the way the store applies them to its rows -------------------------------------------


def _key(row: Row) -> tuple[object, ...]:
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


def applied(rows: Snapshot, *, put: Sequence[Row] = (), drop: Sequence[Row] = ()) -> Snapshot:
    """Return the rows after dropping and putting some; what hangs on a dropped principal goes with it."""
    gone = {identity_of(row) for row in drop if isinstance(row, PrincipalRow)}
    dropped = {(type(row), _key(row)) for row in drop}
    fields: dict[str, tuple[Row, ...]] = {}
    for name, kind in _FIELDS.items():
        table: dict[tuple[object, ...], Row] = {
            _key(row): row for row in getattr(rows, name) if identity_of(row) not in gone and (kind, _key(row)) not in dropped
        }
        table.update({_key(row): row for row in put if isinstance(row, kind)})
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
