"""What can be registered: handles, owners, groups, keys, passkeys, links, lifetimes; and who may confirm it.

Pure: each rule looks at one index and either returns what to store or raises ConfigError with a sentence that says what
to write instead. Must not know how a change is recorded or stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from interlock.errors import ConfigError, InterlockError, Reason
from interlock.identity import sshkey
from interlock.identity.entries import LOCAL, OPERATOR, Entry
from interlock.identity.index import Index
from interlock.identity.principal import HANDLE, Identity, Kind
from interlock.store.principals import PasskeyRow, PrincipalRow, SlackRow, SshKeyRow, TeamsRow

RESERVED_PREFIX = "jwt-"
"""Handles of principals that only their token names begin so (`authenticate`); nobody registers one."""

LONGEST_LIKELY = 56
"""Of the 63 characters of a handle: the rest is for the number of a namesake."""

MAX_KEYS = 32
MAX_PASSKEYS = 16
MAX_CHANGERS = 512

_UNFIT = re.compile(r"[^a-z0-9._-]+")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@ -]{0,126}\Z")
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_SLACK_TEAM = re.compile(r"T[A-Z0-9]{1,20}\Z")
_SLACK_USER = re.compile(r"[UW][A-Z0-9]{1,20}\Z")
_PASSKEY_NAME = re.compile(r"[^\W_][\w .,'()-]{0,63}\Z")
_CREDENTIAL_ID = re.compile(r"[A-Za-z0-9_-]{1,1366}\Z")
_FOREIGN = re.compile(r"[\x21-\x7e]{1,255}\Z")


def check_handle(index: Index, handle: str) -> None:
    if not HANDLE.match(handle) or handle.startswith(RESERVED_PREFIX):
        raise ConfigError(
            "a handle is 1 to 63 of a-z, 0-9, dot, underscore and hyphen, begins with a letter or digit and not with jwt-"
        )
    if handle in index.by_handle:
        raise ConfigError(f"the handle {handle} is taken")


def likely_handle(name: str) -> str:
    """Return a handle made of what somebody is called elsewhere, or an empty string. Authority never follows from it."""
    wanted = _UNFIT.sub("-", name.partition("@")[0].lower()).strip("-._")[:LONGEST_LIKELY]
    return wanted if HANDLE.match(wanted) and not wanted.startswith(RESERVED_PREFIX) else ""


def numbered(wanted: str, most: int) -> Iterator[str]:
    """Yield the handles that namesakes get, the first without a number."""
    yield wanted
    for number in range(2, most + 1):
        yield f"{wanted}-{number}"


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


def slack_row(index: Index, entry: Entry, team: str, user: str, now: datetime) -> SlackRow:
    """Read a Slack team and user id. An account belongs to exactly one person; names and addresses are none."""
    if entry.kind is not Kind.HUMAN:
        raise ConfigError("only a person has a Slack account here: agents never approve")
    if not (_SLACK_TEAM.match(team) and _SLACK_USER.match(user)):
        raise ConfigError("a Slack account is TEAM/USER, both ids such as T024BE7LD/U024BE7LH, never a name or an address")
    if (taken := index.by_slack.get((team, user))) is not None:
        raise ConfigError(f"this Slack account is linked to {taken.handle} already")
    return SlackRow(team, user, entry.identity.issuer, entry.identity.subject, now)


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A WebAuthn credential as its verified registration gave it. `id` is base64url, `public_key` COSE."""

    id: str
    public_key: bytes
    sign_count: int
    name: str


def passkey_row(index: Index, entry: Entry, passkey: NewPasskey, now: datetime) -> PasskeyRow:
    if entry.kind is not Kind.HUMAN:
        raise ConfigError("only a person has passkeys: agents never approve")
    if entry.disabled:
        raise InterlockError(f"{entry.handle} is disabled", reason=Reason.DISABLED_PRINCIPAL)
    if len(entry.passkeys) >= MAX_PASSKEYS:
        raise ConfigError(f"at most {MAX_PASSKEYS} passkeys are kept for one person; remove one")
    if not _PASSKEY_NAME.match(passkey.name):
        raise ConfigError("name the passkey in up to 64 letters, digits and blanks, such as: phone")
    if not _CREDENTIAL_ID.match(passkey.id):
        raise ConfigError("the passkey has no usable credential id")
    if passkey.id in index.by_passkey:
        # Not whose: whoever holds another person's authenticator learns nothing here.
        raise ConfigError("this passkey is registered already")
    i, s = entry.identity.issuer, entry.identity.subject
    return PasskeyRow(passkey.id, i, s, passkey.public_key, passkey.sign_count, passkey.name, now)


# -- who gave authority, and who may confirm it --------------------------------------------------------------------------


def changers(row: PrincipalRow | None, by: Identity) -> str:
    """Return who gave what is not confirmed yet, blank-separated: all of them, so that nobody confirms what they gave
    themselves after a colleague changed something else. `*` when they are too many to name, and then nobody confirms."""
    known = set() if row is None or row.confirmed is not None else set(row.changed_by.split())
    text = " ".join(sorted(known | {_word(by)}))
    return text if len(text) <= MAX_CHANGERS and "*" not in known else "*"


def _word(identity: Identity) -> str:
    """An issuer's subject may hold anything; here it is one word."""
    return quote(str(identity), safe="!#$&'()+,/:;=?@[]~^`{|}")


def check_confirmation(
    entry: Entry, confirmer: Entry | None, looked_at: datetime | None, *, now: datetime, newcomer: timedelta
) -> None:
    """Raise unless `confirmer` is another active person than `entry` and than all who gave what is to be confirmed, with an
    authority that was confirmed or is older than `newcomer`: or whoever may make people makes the second one, too."""
    if entry.kind is not Kind.HUMAN:
        raise ConfigError("only people are confirmed: agents never approve")
    if confirmer is None or confirmer.kind is not Kind.HUMAN or confirmer.disabled:
        raise InterlockError("confirming is for a registered person: give your own handle", reason=Reason.MISSING_SCOPE)
    if entry.identity in confirmer.accounts:
        raise InterlockError("nobody confirms their own authority", reason=Reason.SELF_APPROVAL)
    gave = set(entry.changed_by.split())
    if "*" in gave or gave & {_word(identity) for identity in confirmer.accounts}:
        raise InterlockError(
            "whoever gave this authority can't confirm it; another administrator can", reason=Reason.SELF_APPROVAL
        )
    if not confirmer.confirmed and now < confirmer.changed + newcomer:
        raise InterlockError(
            f"what {confirmer.handle} may do is too new to confirm others, and nobody confirmed it",
            reason=Reason.REVIEWER_TOO_NEW,
        )
    if entry.confirmed:
        raise ConfigError(f"{entry.handle} is confirmed already")
    if looked_at is not None and looked_at != entry.changed:
        raise ConfigError(f"{entry.handle} has changed since you looked; look again")


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


def is_subject(value: str) -> bool:
    """Whether this may be the subject of a linked identity."""
    return _FOREIGN.match(value) is not None


def bounded(lifetime: timedelta | None, usual: timedelta, longest: timedelta) -> timedelta:
    span = lifetime if lifetime is not None else usual
    if not timedelta(0) < span <= longest:
        raise ConfigError(f"a lifetime is more than nothing and at most {int(longest.total_seconds() // 3600)}h")
    return span
