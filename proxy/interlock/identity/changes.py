"""What a change of the directory is: what happened to whom, what it does to the rows, and what is told of it.

Must not know how a change is recorded, stored or told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from interlock.evidence.events import Json
from interlock.identity.principal import Identity
from interlock.store.principals import Row


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


@dataclass(frozen=True, slots=True)
class Amendment:
    """A change together with what it does to the rows and says in the record."""

    change: Change
    put: Sequence[Row] = ()
    drop: Sequence[Row] = ()
    fields: Mapping[str, Json] = field(default_factory=dict)
    secret: Mapping[str, Json] = field(default_factory=dict)
    urgent: bool = False
