"""What can be registered: handles, owners, groups, keys, links, lifetimes.

Pure: each rule looks at one index and either returns what to store or raises ConfigError with a sentence that says what
to write instead. Must not know how a change is recorded or stored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from interlock.errors import ConfigError
from interlock.identity import sshkey
from interlock.identity.entries import LOCAL, OPERATOR, Entry, Index
from interlock.identity.principal import HANDLE, Identity, Kind
from interlock.store.principals import SshKeyRow, TeamsRow

RESERVED_PREFIX = "jwt-"
"""Handles of principals that only their token names begin so (`authenticate`); nobody registers one."""

MAX_KEYS = 32

_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@ -]{0,126}\Z")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_FOREIGN = re.compile(r"[\x21-\x7e]{1,255}\Z")


def check_handle(index: Index, handle: str) -> None:
    if not HANDLE.match(handle) or handle.startswith(RESERVED_PREFIX):
        raise ConfigError(
            "a handle is 1 to 63 of a-z, 0-9, dot, underscore and hyphen, begins with a letter or digit and not with jwt-"
        )
    if handle in index.by_handle:
        raise ConfigError(f"the handle {handle} is taken")


def owner_of(index: Index, kind: Kind, owner: str | None) -> Identity | None:
    """Return the identity of the person who answers for somebody of this kind."""
    if owner is None:
        if kind is Kind.AGENT:
            raise ConfigError("an agent needs an owner: the person who answers for it (--owner HANDLE)")
        return None
    if kind is Kind.HUMAN:
        raise ConfigError("a person has no owner")
    entry = index.by_handle.get(owner)
    if entry is None or entry.kind is not Kind.HUMAN or entry.disabled:
        raise ConfigError(f"the owner {owner!r} must be a registered, active person")
    return entry.identity


def checked_groups(groups: Sequence[str]) -> list[str]:
    for name in groups:
        if not _GROUP.match(name):
            raise ConfigError(f"a group is up to 127 letters, digits and . _ : / @ - or blanks, not {name[:40]!r}")
    return sorted(set(groups))


def key_rows(index: Index, identity: Identity, lines: Sequence[str], now: datetime, already: int = 0) -> list[SshKeyRow]:
    """Read .pub lines for somebody who has `already` so many keys. A key belongs to one principal."""
    if already + len(lines) > MAX_KEYS:
        raise ConfigError(f"at most {MAX_KEYS} SSH keys are kept for one principal")
    rows: dict[bytes, SshKeyRow] = {}
    for line in lines:
        key = sshkey.parse(line)
        if (taken := index.by_ssh_key.get(key.blob)) is not None:
            raise ConfigError(f"the SSH key {key.fingerprint} is registered for {taken.handle} already")
        rows[key.blob] = SshKeyRow(key.fingerprint, identity.issuer, identity.subject, key.blob, now, key.comment)
    return list(rows.values())


def teams_rows(
    index: Index, identity: Identity, kind: Kind, accounts: Sequence[tuple[str, str]], now: datetime
) -> list[TeamsRow]:
    """Read (tenant, object id) pairs. An account belongs to exactly one person; names and addresses are none."""
    rows = []
    for tenant, oid in accounts:
        tenant_id, object_id = tenant.lower(), oid.lower()
        if kind is not Kind.HUMAN:
            raise ConfigError("only a person has a Teams account here: agents never approve")
        if not (_GUID.match(tenant_id) and _GUID.match(object_id)):
            raise ConfigError("a Teams account is TENANT/OID, both GUIDs, never a name or an address")
        if (taken := index.by_teams.get((tenant_id, object_id))) is not None:
            raise ConfigError(f"this Teams account is linked to {taken.handle} already")
        rows.append(TeamsRow(tenant_id, object_id, identity.issuer, identity.subject, now))
    return rows


def check_link(index: Index, entry: Entry, other: Identity) -> Entry | None:
    """Check that `other` may become another account of `entry`; return its own entry when it has one."""
    if not (_FOREIGN.match(other.issuer) and _FOREIGN.match(other.subject)):
        raise ConfigError("a linked identity is an issuer and a subject of printable characters without blanks")
    if other == entry.identity or other in entry.linked:
        raise ConfigError(f"{entry.handle} is linked to this identity already")
    second = index.by_identity.get(other)
    if second is None and other.issuer in (LOCAL, OPERATOR.issuer):
        raise ConfigError("nobody has this local identity")
    if second is None and other in index.by_foreign:
        raise ConfigError(f"this identity is linked to {index.by_foreign[other].handle} already")
    if second is not None and (second.kind is not Kind.HUMAN or entry.kind is not Kind.HUMAN):
        raise ConfigError("only people have several accounts in the directory")
    return second


def bounded(lifetime: timedelta | None, usual: timedelta, longest: timedelta) -> timedelta:
    span = lifetime if lifetime is not None else usual
    if not timedelta(0) < span <= longest:
        raise ConfigError(f"a lifetime is more than nothing and at most {int(longest.total_seconds() // 3600)}h")
    return span
