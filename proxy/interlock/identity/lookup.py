"""The reading side of the directory: who somebody is, found by what a front end or a channel saw.

Synchronous, over one immutable index: a caller sees one moment, and a change is a swap of the index. Must not know how
changes come about.
"""

from __future__ import annotations

from interlock.clock import Clock
from interlock.identity import tokens
from interlock.identity.entries import Entry, Index
from interlock.identity.principal import Identity
from interlock.identity.scram import ScramCredentials, impostor
from interlock.store.principals import PasskeyRow, TokenRow


class Lookup:
    """What everybody may ask. `Directory` puts a new index in its place with every change."""

    def __init__(self, *, clock: Clock, salt_secret: bytes) -> None:
        self._clock = clock
        self._salt_secret = salt_secret
        self._index = Index()

    def entries(self) -> tuple[Entry, ...]:
        return tuple(sorted(self._index.by_identity.values(), key=lambda e: e.handle))

    def get(self, identity: Identity) -> Entry | None:
        """Return the entry of an identity: its own, or the one that an outside identity is linked to."""
        return self._index.by_identity.get(identity) or self._index.by_foreign.get(identity)

    def by_handle(self, handle: str) -> Entry | None:
        return self._index.by_handle.get(handle)

    def by_ssh_key(self, blob: bytes) -> Entry | None:
        """Return whose registered key this is. An offered key is not a proven one: nothing follows from it yet."""
        return self._index.by_ssh_key.get(blob)

    def by_teams(self, tenant: str, oid: str) -> Entry | None:
        return self._index.by_teams.get((tenant.lower(), oid.lower()))

    def by_slack(self, team: str, user: str) -> Entry | None:
        return self._index.by_slack.get((team, user))

    def by_passkey(self, ident: str) -> tuple[Entry, PasskeyRow] | None:
        """Return whose passkey this is, by its credential id in base64url."""
        return self._index.by_passkey.get(ident)

    def by_token(self, secret: str) -> tuple[Entry, TokenRow] | None:
        """Return whose opaque token this is, if it has not expired."""
        found = self._index.by_token.get(tokens.fingerprint(secret))
        if found is None or (found[1].expires is not None and found[1].expires <= self._clock.now()):
            return None
        return found

    def scram(self, handle: str) -> ScramCredentials:
        """Return the live Postgres verifiers of a handle; for nobody, the disabled and those without one: an impostor's."""
        entry = self.by_handle(handle)
        found = self._index.scram(entry, self._clock.now()) if entry is not None and not entry.disabled else None
        return found or impostor(self._salt_secret, handle)

    def passphrase_of(self, identity: Identity) -> str | None:
        """Return the stored Argon2id string, for `Passphrases.check` alone."""
        return self._index.passphrases.get(identity)
