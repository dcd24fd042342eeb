"""Entries of the directory: somebody as they are at one moment.

Pure. Made by `index` of all rows of somebody. Must not know who may change them, or what an approval is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from interlock.identity.principal import Assurance, Credential, Identity, Kind, Principal
from interlock.store.principals import PasskeyRow, ScimMemberRow, ScimUserRow, ScramRow, SshKeyRow, TokenRow

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
