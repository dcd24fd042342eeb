"""Rows of the directory. What they mean is `identity.directory`'s.

Knows the columns. Must not know who may do what; secrets are here only as hashes and verifiers, and never in a repr.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Union

from sqlalchemy import Connection, Table, and_, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from interlock.errors import StoreError
from interlock.store import schema
from interlock.store.database import Database


@dataclass(frozen=True, slots=True)
class PrincipalRow:
    """A person, agent or service. Primary key: issuer and subject; `handle` is unique."""

    issuer: str
    subject: str
    handle: str
    kind: str  # human | agent | service
    created: datetime
    changed: datetime
    owner_issuer: str | None = None
    owner_subject: str | None = None
    disabled: bool = False
    passphrase: str | None = field(default=None, repr=False)  # Argon2id, PHC string
    changed_by: str = ""  # who gave the authority that was gained at `changed`
    confirmed: datetime | None = None  # when another administrator confirmed it
    confirmed_by: str = ""


@dataclass(frozen=True, slots=True)
class SshKeyRow:
    """A registered public key. Primary key: fingerprint (`SHA256:…`)."""

    fingerprint: str
    issuer: str
    subject: str
    blob: bytes  # RFC 4253 §6.6
    created: datetime
    comment: str = ""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An opaque token by its SHA-256. Primary key: id (public); `hash` is unique."""

    id: str
    issuer: str
    subject: str
    created: datetime
    hash: bytes = field(repr=False)
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class ScramRow:
    """A SCRAM-SHA-256 verifier (RFC 5802 §3). Primary key: id."""

    id: str
    issuer: str
    subject: str
    created: datetime
    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """A principal is in a group. Primary key: issuer, subject, name."""

    issuer: str
    subject: str
    name: str
    created: datetime


@dataclass(frozen=True, slots=True)
class LinkRow:
    """Two identities belong to one person. `other` need not be in the directory. Primary key: all four names."""

    issuer: str
    subject: str
    other_issuer: str
    other_subject: str
    created: datetime


@dataclass(frozen=True, slots=True)
class TeamsRow:
    """A Microsoft Entra account, by tenant and object id, is this person. Primary key: tenant and oid."""

    tenant: str
    oid: str
    issuer: str
    subject: str
    created: datetime


@dataclass(frozen=True, slots=True)
class SlackRow:
    """A Slack account, by team and user id, is this person. Primary key: team and user."""

    team: str
    user: str
    issuer: str
    subject: str
    created: datetime


@dataclass(frozen=True, slots=True)
class PasskeyRow:
    """A WebAuthn credential of a person. Primary key: id (base64url of the credential id)."""

    id: str
    issuer: str
    subject: str
    public_key: bytes  # COSE
    sign_count: int
    name: str
    created: datetime


@dataclass(frozen=True, slots=True)
class IdpGroupsRow:
    """The groups that an issuer said of somebody at their last login. Primary key: issuer, subject, source."""

    issuer: str
    subject: str
    source: str
    names: str  # JSON, sorted
    learned: datetime


@dataclass(frozen=True, slots=True)
class ScimUserRow:
    """Somebody whom an identity provider keeps here by SCIM. Primary key: id; `user_name` is unique."""

    id: str
    issuer: str
    subject: str
    user_name: str
    external_id: str
    display: str
    active: bool
    created: datetime
    changed: datetime


@dataclass(frozen=True, slots=True)
class ScimMemberRow:
    """Somebody is in a group that SCIM keeps. Primary key: issuer, subject, group; `name` is what rules read."""

    issuer: str
    subject: str
    group: str
    name: str
    created: datetime


Row = Union[
    PrincipalRow, SshKeyRow, TokenRow, ScramRow, MembershipRow, LinkRow, TeamsRow, SlackRow, PasskeyRow, IdpGroupsRow,
    ScimUserRow, ScimMemberRow,
]  # fmt: skip

_TABLES: dict[type[Row], Table] = {
    PrincipalRow: schema.principals,
    SshKeyRow: schema.ssh_keys,
    TokenRow: schema.tokens,
    ScramRow: schema.scram_verifiers,
    MembershipRow: schema.memberships,
    LinkRow: schema.links,
    TeamsRow: schema.teams_identities,
    SlackRow: schema.slack_identities,
    PasskeyRow: schema.passkeys,
    IdpGroupsRow: schema.idp_groups,
    ScimUserRow: schema.scim_users,
    ScimMemberRow: schema.scim_members,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole directory as it was at one moment."""

    principals: tuple[PrincipalRow, ...] = ()
    ssh_keys: tuple[SshKeyRow, ...] = ()
    tokens: tuple[TokenRow, ...] = ()
    scram: tuple[ScramRow, ...] = ()
    memberships: tuple[MembershipRow, ...] = ()
    links: tuple[LinkRow, ...] = ()
    teams: tuple[TeamsRow, ...] = ()
    slack: tuple[SlackRow, ...] = ()
    passkeys: tuple[PasskeyRow, ...] = ()
    idp_groups: tuple[IdpGroupsRow, ...] = ()
    scim_users: tuple[ScimUserRow, ...] = ()
    scim_members: tuple[ScimMemberRow, ...] = ()


class PrincipalRows:
    """Reads the directory whole and changes it row by row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_all(self) -> Snapshot:
        """Return every row, read in one transaction. Raise StoreError."""

        def read(connection: Connection) -> Snapshot:
            def rows(kind: type[Any]) -> tuple[Any, ...]:
                table = _TABLES[kind]
                result = connection.execute(select(table).order_by(*table.primary_key.columns))
                return tuple(kind(**row) for row in result.mappings())

            return Snapshot(
                principals=rows(PrincipalRow),
                ssh_keys=rows(SshKeyRow),
                tokens=rows(TokenRow),
                scram=rows(ScramRow),
                memberships=rows(MembershipRow),
                links=rows(LinkRow),
                teams=rows(TeamsRow),
                slack=rows(SlackRow),
                passkeys=rows(PasskeyRow),
                idp_groups=rows(IdpGroupsRow),
                scim_users=rows(ScimUserRow),
                scim_members=rows(ScimMemberRow),
            )

        return await self._database.run(read)

    async def change(self, *, put: Sequence[Row] = (), drop: Sequence[Row] = ()) -> None:
        """Drop and then put (insert or replace by primary key) rows, all in one transaction.

        Dropping a principal drops all that hangs on it. Raise StoreError, also when a handle, key or token belongs to
        somebody else already; then nothing was changed.
        """

        def write(connection: Connection) -> None:
            for row in drop:
                table = _TABLES[type(row)]
                values = asdict(row)
                connection.execute(delete(table).where(and_(*(c == values[c.name] for c in table.primary_key.columns))))
            for row in put:
                self._put(connection, row)

        await self._database.run(write)

    def _put(self, connection: Connection, row: Row) -> None:
        table, values = _TABLES[type(row)], asdict(row)
        key = [column.name for column in table.primary_key.columns]
        # ON CONFLICT is spelt alike in both dialects; a key, token or Teams account of somebody else is never taken
        # over: the update then finds no row of the same owner, and the count tells.
        insert = sqlite.insert(table) if self._database.dialect == "sqlite" else postgresql.insert(table)
        rest = {name: value for name, value in values.items() if name not in key} or {key[0]: values[key[0]]}
        same_owner = and_(table.c.issuer == row.issuer, table.c.subject == row.subject)
        result = connection.execute(
            insert.values(**values).on_conflict_do_update(index_elements=key, set_=rest, where=same_owner)
        )
        if result.rowcount != 1:
            raise StoreError(f"the {table.name} row belongs to another principal already, so nothing was changed")
