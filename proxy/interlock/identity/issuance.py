"""Which certificate somebody gets for the credential they showed, and the login authority at work.

Knows the authority, the register of logins, lifetimes. Must not know SSH connections or HTTP. A certificate is in the node's
journal, on stable storage, before anybody has it; and in the register, or it counts for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

from interlock.clock import Clock, Entropy, rfc3339
from interlock.errors import InterlockError, Reason
from interlock.evidence.events import EventDraft, Recorder
from interlock.identity import sshkey
from interlock.identity.derived import CERTIFICATE, Derivation, principal_name
from interlock.identity.directory import Directory
from interlock.identity.logins import Logins
from interlock.identity.principal import CredentialKind, Identity, Kind, Principal
from interlock.identity.ssh_ca import MAX_TTL, Signed, SshCa

GIVEN_FOR = frozenset({CredentialKind.LOGIN, CredentialKind.TOKEN, CredentialKind.JWT, CredentialKind.EXCHANGED})
"""One certificate never leads to the next, and a passphrase is for deciding."""


class Order:
    """One certificate that is wanted together with a login: a `Derive`. `signed` is it, once the login gave it a holder."""

    def __init__(self, sign: Callable[[Principal], Signed]) -> None:
        self._sign = sign
        self.signed: Signed | None = None

    def __call__(self, holder: Principal) -> Derivation:
        self.signed = signed = self._sign(holder)
        return Derivation(CERTIFICATE, signed.serial, signed.fingerprint, signed.expires)


class Issuance:
    """One a process. `ca` changes when it is rotated."""

    def __init__(
        self, ca: SshCa, logins: Logins, directory: Directory, *, clock: Clock, entropy: Entropy, journal: Recorder,
        user_ttl: float, agent_ttl: float,
    ) -> None:  # fmt: skip
        self._ca = ca
        self._logins = logins
        self._directory = directory
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._user_ttl = timedelta(seconds=user_ttl)
        self._agent_ttl = timedelta(seconds=agent_ttl)
        self._rotating = asyncio.Lock()

    @property
    def ca(self) -> SshCa:
        return self._ca

    def described(self) -> dict[str, object]:
        """Return the authority's public keys, as `interlock ca show` shows them."""
        return self._ca.described(self._clock.now())

    async def issue(self, holder: Principal, line: str) -> Signed:
        """Certify a public key for whoever showed `holder.credential`. Raise InterlockError."""
        signed = self._sign(holder, line)
        await self._journal.sync()
        await self._logins.derived.add(CERTIFICATE, signed.serial, holder, key=signed.fingerprint, expires=signed.expires)
        return signed

    def order(self, line: str) -> Order:
        """Return the order of a certificate that is issued in one step with a login. Raise ConfigError for a bad key: before
        anything is redeemed for it."""
        sshkey.parse(line)
        return Order(partial(self._sign, line=line))

    def _sign(self, holder: Principal, line: str) -> Signed:
        """Sign, and append it to the journal."""
        entry = self._directory.get(holder.identity)
        if entry is None:
            raise InterlockError("only who is in the directory has certificates", reason=Reason.UNKNOWN_PRINCIPAL)
        if holder.credential.kind not in GIVEN_FOR:
            raise InterlockError("a certificate is given for a login or a token", reason=Reason.REQUEST_NOT_OFFERED)
        if holder.acting_for:
            # The certificate would name the agent alone: whom it acts for would be gone from every record and exclusion.
            raise InterlockError("an agent that acts for somebody logs in with its token", reason=Reason.MISSING_SCOPE)
        now = self._clock.now()
        ends = now + (self._user_ttl if entry.kind is Kind.HUMAN else self._agent_ttl)
        if holder.credential.expires is not None:
            ends = min(ends, holder.credential.expires)
        serial = int.from_bytes(self._entropy(8), "big") >> 1  # 63 bits: some readers of certificates have no unsigned 64
        signed = self._ca.sign(
            line, principal=principal_name(entry.identity), handle=entry.handle, serial=serial, now=now, ends=ends
        )
        self._journal.append(
            EventDraft(
                "certificate.issue",
                {
                    "serial": signed.serial, "key_id": signed.key_id, "name": signed.principal, "key": signed.fingerprint,
                    "principal": str(entry.identity), "credential": holder.credential.ident, "until": rfc3339(signed.expires),
                    "authority": self._ca.fingerprint,
                },
            )
        )  # fmt: skip
        return signed

    def accept(self, authority: bytes, serial: str, key: str, principals: Collection[str]) -> Principal | None:
        """Return whose certificate this is, or None. `authority` is the key that signed it; the signature was checked."""
        if not self._ca.trusts(authority, self._clock.now()):
            return None
        return self._logins.derived.certificate(serial, key, principals)

    async def rotate(self, *, by: Identity, at_once: bool) -> dict[str, object]:
        """Sign with a new key from now on. `at_once`: every certificate ends now; else those of the old key end in their time.

        Raise InterlockError.
        """
        async with self._rotating:
            now = self._clock.now()
            overlap = timedelta(0) if at_once else max(self._user_ttl, self._agent_ttl, MAX_TTL)
            old = self._ca
            self._journal.append(
                EventDraft(
                    "authority.change",
                    {"by": str(by), "old": old.fingerprint, "until": rfc3339(now + overlap), "at_once": at_once},
                )
            )
            await self._journal.sync()
            self._ca = await asyncio.to_thread(old.rotate, now, overlap)
            self._journal.append(EventDraft("authority.change", {"by": str(by), "new": self._ca.fingerprint}))
            ended = await self._logins.derived.end_certificates("authority-replaced") if at_once else 0
            return {**self._ca.described(now), "ended": ended}
