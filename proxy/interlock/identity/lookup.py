"""The reading side of the directory: who somebody is, found by what a front end or a channel saw.

Synchronous, over one immutable index: a caller sees one moment, and a change is a swap of the index. Must not know how
changes come about.
"""

from __future__ import annotations

from datetime import timedelta

from interlock.clock import Clock
from interlock.identity import tokens
from interlock.identity.entries import Entry
from interlock.identity.index import Index
from interlock.identity.principal import Identity
from interlock.identity.scram import ScramCredentials, impostor
from interlock.store.principals import PasskeyRow, TokenRow


class Lookup:
    """What everybody may ask. `Directory` puts a new index in its place with every change."""

    def __init__(self, *, clock: Clock, salt_secret: bytes, groups_max_age: float = 8 * 3600) -> None:
        """`groups_max_age`: seconds for which counts what an issuer said of somebody's groups at their last login."""
        self._clock = clock
        self._groups_max_age = timedelta(seconds=groups_max_age)
        self._salt_secret = salt_secret
        self._index = Index()

    @property
    def learned_again(self) -> float:
        """Seconds after which groups that an issuer says again unchanged are worth writing down."""
        return self._groups_max_age.total_seconds() / 8

    def entries(self) -> tuple[Entry, ...]:
        return tuple(sorted(map(self._now, self._index.by_identity.values()), key=lambda e: e.handle))

    def _now(self, entry: Entry) -> Entry:
        return entry.groups_at(self._clock.now(), self._groups_max_age) if entry.learned_at or entry.linked else entry

    def get(self, identity: Identity) -> Entry | None:
        """Return the entry of an identity: its own, or the one that an outside identity is linked to."""
        found = self._index.by_identity.get(identity) or self._index.by_foreign.get(identity)
        return self._now(found) if found is not None else None

    def by_handle(self, handle: str) -> Entry | None:
        found = self._index.by_handle.get(handle)
        return self._now(found) if found is not None else None

    def by_scim(self, ident: str) -> Entry | None:
        """Return who has this SCIM id."""
        found = self._index.by_scim.get(ident)
        return self._now(found) if found is not None else None

    def by_ssh_key(self, blob: bytes) -> Entry | None:
        """Return whose registered key this is. An offered key is not a proven one: nothing follows from it yet."""
        found = self._index.by_ssh_key.get(blob)
        return self._now(found) if found is not None else None

    def by_teams(self, tenant: str, oid: str) -> Entry | None:
        found = self._index.by_teams.get((tenant.lower(), oid.lower()))
        return self._now(found) if found is not None else None

    def by_slack(self, team: str, user: str) -> Entry | None:
        found = self._index.by_slack.get((team, user))
        return self._now(found) if found is not None else None

    def by_passkey(self, ident: str) -> tuple[Entry, PasskeyRow] | None:
        """Return whose passkey this is, by its credential id in base64url."""
        return self._index.by_passkey.get(ident)

    def by_token(self, secret: str) -> tuple[Entry, TokenRow] | None:
        """Return whose opaque token this is, if it has not expired."""
        found = self._index.by_token.get(tokens.fingerprint(secret))
        if found is None or (found[1].expires is not None and found[1].expires <= self._clock.now()):
            return None
        return self._now(found[0]), found[1]

    def scram(self, handle: str) -> ScramCredentials:
        """Return the live Postgres verifiers of a handle; for nobody, the disabled and those without one: an impostor's."""
        entry = self.by_handle(handle)
        found = self._index.scram(entry, self._clock.now()) if entry is not None and not entry.disabled else None
        return found or impostor(self._salt_secret, handle)

    def passphrase_of(self, identity: Identity) -> str | None:
        """Return the stored Argon2id string, for `Passphrases.check` alone."""
        return self._index.passphrases.get(identity)
