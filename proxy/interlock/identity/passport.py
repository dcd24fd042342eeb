"""A principal, and parts of one, as text and back: for what the store keeps of them. Pure.

Everything that a decision or an exclusion rests on is in it, and nothing is guessed on the way in: a text that does not say it
all is nobody. What it says was true when it was written; `facts` tells whether the directory still says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from interlock.errors import StoreError
from interlock.identity.entries import Entry
from interlock.identity.principal import Assurance, Authority, Credential, CredentialKind, Identity, Kind, Origin, Principal


def written(principal: Principal) -> str:
    """Return the text. The credential's own ident and expiry are part of it."""
    held = principal.credential
    return json.dumps(
        {
            "identity": _identity(principal.identity),
            "handle": principal.handle,
            "kind": principal.kind,
            "credential": {"kind": held.kind, "ident": held.ident, "expires": _moment(held.expires)},
            "origins": _origins(held.origins),
            "groups": sorted(principal.groups),
            "owner": _identity(principal.owner) if principal.owner else None,
            "owner_handle": principal.owner_handle,
            "acting_for": [_identity(one) for one in principal.acting_for],
            "acting_for_handles": principal.acting_for_handles,
            "linked": sorted(map(_identity, principal.linked)),
            "assurance": _assurance(principal.assurance),
            "behind": [
                {"identity": _identity(one.identity), "handle": one.handle, "kind": one.kind, "groups": sorted(one.groups)}
                for one in principal.behind
            ],
        },
        separators=(",", ":"),
    )  # fmt: skip


def read(text: str) -> Principal:
    """Raise StoreError for a text that this version did not write."""
    try:
        told = json.loads(text)
        held = told["credential"]
        return Principal(
            identity=Identity(*told["identity"]),
            handle=told["handle"],
            kind=Kind(told["kind"]),
            credential=Credential(
                CredentialKind(held["kind"]), held["ident"], _read_moment(held["expires"]), _read_origins(told["origins"])
            ),
            groups=frozenset(told["groups"]),
            owner=Identity(*told["owner"]) if told["owner"] is not None else None,
            owner_handle=told["owner_handle"],
            acting_for=tuple(Identity(*one) for one in told["acting_for"]),
            acting_for_handles=tuple(told["acting_for_handles"]),
            linked=frozenset(Identity(*one) for one in told["linked"]),
            assurance=_read_assurance(told["assurance"]),
            behind=tuple(
                Authority(Identity(*one["identity"]), one["handle"], Kind(one["kind"]), frozenset(one["groups"]))
                for one in told["behind"]
            ),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError("a stored principal can't be read") from error


def groups_text(groups: Iterable[str]) -> str:
    return json.dumps(sorted(groups))


def read_groups(text: str) -> frozenset[str]:
    """Raise StoreError."""
    try:
        return frozenset(json.loads(text))
    except (ValueError, TypeError) as error:
        raise StoreError("the groups of a stored credential can't be read") from error


def assurance_text(assurance: Assurance) -> str:
    return json.dumps(_assurance(assurance))


def read_assurance(text: str) -> Assurance:
    """Raise StoreError."""
    try:
        return _read_assurance(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError("how a stored login was proved can't be read") from error


def origins_text(origins: Iterable[Origin]) -> str:
    return json.dumps(_origins(origins), separators=(",", ":"))


def read_origins(text: str) -> tuple[Origin, ...]:
    """Raise StoreError."""
    try:
        return _read_origins(json.loads(text))
    except (ValueError, TypeError) as error:
        raise StoreError("where a stored credential came from can't be read") from error


def facts(principal: Principal, look_up: Callable[[Identity], Entry | None]) -> str:
    """Return a hash of what the directory says of everybody whom this principal stands for: while it is the same, nobody in it
    was stopped, regrouped, linked, unlinked or given another owner."""
    told: list[list[Any]] = []
    for identity in (principal.identity, *principal.acting_for):
        entry = look_up(identity)
        if entry is None:
            told.append([_identity(identity)])
            continue
        owner = _identity(entry.owner) if entry.owner else None
        linked = sorted(map(_identity, entry.linked | entry.owner_linked))
        told.append([_identity(identity), _identity(entry.identity), entry.disabled, sorted(entry.groups), owner, linked])
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _identity(identity: Identity) -> list[str]:
    return [identity.issuer, identity.subject]


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _read_moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _assurance(assurance: Assurance) -> dict[str, Any]:
    return {"acr": assurance.acr, "amr": assurance.amr, "auth_time": _moment(assurance.auth_time)}


def _read_assurance(told: dict[str, Any]) -> Assurance:
    return Assurance(told["acr"], tuple(told["amr"]), _read_moment(told["auth_time"]))


def _origins(origins: Iterable[Origin]) -> list[list[Any]]:
    return [[one.issuer, list(one.accounts), one.session, _moment(one.issued)] for one in origins]


def _read_origins(told: list[list[Any]]) -> tuple[Origin, ...]:
    return tuple(
        Origin(issuer, tuple(accounts), session, datetime.fromisoformat(issued)) for issuer, accounts, session, issued in told
    )
