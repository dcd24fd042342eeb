"""What somebody proves with who they are: keys, tokens, Postgres passwords, passphrases and passkeys.

A credential that is taken back ends what it let in: subscribers are told its ident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from interlock.errors import ConfigError, InterlockError, Reason
from interlock.evidence.events import Json
from interlock.identity import registration, tokens
from interlock.identity.changes import Change, ChangeKind
from interlock.identity.entries import OPERATOR, Entry
from interlock.identity.ledger import Ledger
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Identity, Kind
from interlock.identity.registration import NewPasskey
from interlock.identity.scram import ITERATIONS, MAX_VERIFIERS, derived_salt
from interlock.identity.tokens import Issued
from interlock.store.principals import Row, ScramRow, TokenRow

DEFAULT_TOKEN = timedelta(days=30)
MAX_TOKEN = timedelta(days=366)
DEFAULT_PASSWORD: Mapping[Kind, timedelta] = {
    Kind.HUMAN: timedelta(hours=8),
    Kind.AGENT: timedelta(minutes=15),
    Kind.SERVICE: timedelta(minutes=15),
}
MAX_PASSWORD = timedelta(hours=8)


class Credentials(Ledger):
    """The part of the directory that gives and takes credentials."""

    _passphrases: Passphrases

    async def add_ssh_key(self, handle: str, line: str, *, by: Identity = OPERATOR) -> Entry:
        """Register one more public key (a line of a .pub file)."""
        async with self._lock:
            entry = self._entry(handle)
            keys = registration.key_rows(self._index, entry.identity, [line], self._clock.now(), already=len(entry.ssh_keys))
            fields: dict[str, Json] = {"keys": [row.fingerprint for row in keys]}
            # A person's key also signs approvals (`approve@interlock`), so it is a gain like a group.
            put: list[Row] = [*keys, *([self.gained(self.row(entry), by)] if entry.kind is Kind.HUMAN else [])]
            await self._apply(Change(ChangeKind.KEY_ADDED, entry.identity, handle), by, put=put, fields=fields)
            return self._entry(handle)

    async def remove_ssh_key(self, handle: str, fingerprint: str, *, by: Identity = OPERATOR) -> Entry:
        async with self._lock:
            entry = self._entry(handle)
            drop = [row for row in entry.ssh_keys if row.fingerprint == fingerprint]
            await self._revoke(ChangeKind.KEY_REMOVED, entry, drop, fingerprint, by)
            return self._entry(handle)

    async def issue_token(self, handle: str, lifetime: timedelta | None = None, *, by: Identity = OPERATOR) -> Issued:
        """Issue an opaque token: shown now, never again."""
        async with self._lock:
            entry = self._active(handle)
            issued, digest = tokens.new_token(
                self._clock, self._entropy, registration.bounded(lifetime, DEFAULT_TOKEN, MAX_TOKEN)
            )
            i, s = entry.identity.issuer, entry.identity.subject
            row = TokenRow(issued.id, i, s, self._clock.now(), digest, issued.expires)
            await self._apply(
                Change(ChangeKind.TOKEN_ISSUED, entry.identity, handle), by,
                put=[row], drop=self._expired(entry.tokens), fields={"credential": issued.id},
            )  # fmt: skip
            return issued

    async def revoke_token(self, handle: str, ident: str, *, by: Identity = OPERATOR) -> None:
        async with self._lock:
            entry = self._entry(handle)
            await self._revoke(ChangeKind.TOKEN_REVOKED, entry, [r for r in entry.tokens if r.id == ident], ident, by)

    async def issue_password(
        self, handle: str, lifetime: timedelta | None = None, *, not_after: datetime | None = None, by: Identity = OPERATOR
    ) -> Issued:
        """Issue a short-lived Postgres password. With eight live ones, the one that ends first makes room.

        `not_after` is the end of the credential that asks for itself: a password never outlives it.
        """
        async with self._lock:
            entry = self._active(handle)
            now = self._clock.now()
            span = registration.bounded(lifetime, DEFAULT_PASSWORD[entry.kind], MAX_PASSWORD)
            if not_after is not None:
                span = min(span, not_after - now)
            live = self._index.scram(entry, now)
            salt, iterations = (live.salt, live.iterations) if live else (derived_salt(self._salt_secret, handle), ITERATIONS)
            issued, made = tokens.new_password(self._clock, self._entropy, span, salt, iterations)
            i, s = entry.identity.issuer, entry.identity.subject
            row = ScramRow(issued.id, i, s, now, salt, iterations, made.stored_key, made.server_key, issued.expires)
            kept = [r for r in entry.passwords if (r.salt, r.iterations) == (salt, iterations) and not self._over(r)]
            kept.sort(key=lambda r: r.expires or datetime.max.replace(tzinfo=now.tzinfo), reverse=True)
            drop = [r for r in entry.passwords if r not in kept[: MAX_VERIFIERS - 1]]
            await self._apply(
                Change(ChangeKind.PASSWORD_ISSUED, entry.identity, handle), by,
                put=[row], drop=drop, fields={"credential": issued.id},
            )  # fmt: skip
            return issued

    async def revoke_password(self, handle: str, ident: str, *, by: Identity = OPERATOR) -> None:
        async with self._lock:
            entry = self._entry(handle)
            await self._revoke(ChangeKind.PASSWORD_REVOKED, entry, [r for r in entry.passwords if r.id == ident], ident, by)

    async def set_passphrase(self, handle: str, passphrase: str, *, by: Identity = OPERATOR) -> Entry:
        """Make a person a reviewer, or change the passphrase of one."""
        phc = await self._hash(self._entry(handle).kind, passphrase)
        async with self._lock:
            entry = self._entry(handle)
            row = replace(self.gained(self.row(entry), by), passphrase=phc)
            await self._apply(Change(ChangeKind.PASSPHRASE_SET, entry.identity, handle), by, put=[row])
            return self._entry(handle)

    async def add_passkey(self, handle: str, passkey: NewPasskey, *, by: Identity) -> Entry:
        """Keep a credential whose registration was just verified. Only the person itself brings one: an administrator who
        could would sign as everybody."""
        async with self._lock:
            entry = self._entry(handle)
            if by not in entry.accounts:
                raise InterlockError("a passkey is registered by the person whose it is", reason=Reason.MISSING_SCOPE)
            row = registration.passkey_row(self._index, entry, passkey, self._clock.now())
            await self._apply(
                Change(ChangeKind.PASSKEY_ADDED, entry.identity, handle), by,
                put=[row, self.gained(self.row(entry), by)], fields={"credential": row.id}, secret={"name": row.name},
            )  # fmt: skip
            return self._entry(handle)

    async def remove_passkey(self, handle: str, ident: str, *, by: Identity = OPERATOR) -> Entry:
        """Take a passkey back. Votes that it signed keep their proof: the record has the public key."""
        async with self._lock:
            entry = self._entry(handle)
            await self._revoke(ChangeKind.PASSKEY_REMOVED, entry, [r for r in entry.passkeys if r.id == ident], ident, by)
            return self._entry(handle)

    async def count_passkey(self, ident: str, count: int) -> None:
        """Keep the signature counter of a use. Authority is as before, so nobody is told. Raise StoreError."""
        async with self._lock:
            found = self.by_passkey(ident)
            if found is None or count <= found[1].sign_count:
                return
            row = replace(found[1], sign_count=count)
            self._index = self._index.after(put=[row])
            await self._rows.change(put=[row])

    async def _hash(self, kind: Kind, passphrase: str) -> str:
        if kind is not Kind.HUMAN:
            raise ConfigError("only a person has a passphrase: agents and services never approve")
        return await self._passphrases.hash(passphrase)

    def _over(self, row: TokenRow | ScramRow) -> bool:
        return row.expires is not None and row.expires <= self._clock.now()

    def _expired(self, rows: Sequence[TokenRow]) -> list[TokenRow]:
        return [row for row in rows if self._over(row)]
