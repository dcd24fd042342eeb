"""From a proven credential to a principal: the one place where all ways of logging in meet.

Knows the directory, the verifier of issuers' tokens, and the limits on guessing. Must not know protocols: a front end
runs its handshake and asks here what the outcome is worth. Every refusal is recorded as a `login` event without any
part of the secret, and says the same whether the name or the secret was wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from interlock.clock import Clock, Entropy, system_entropy
from interlock.config import Issuer
from interlock.errors import AuthenticationError, ConfigError, EvidenceError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity.certificate import ClientCertificate
from interlock.identity.claims import VerifiedToken
from interlock.identity.delegation import acting
from interlock.identity.directory import Directory
from interlock.identity.entries import Entry
from interlock.identity.exchanged import ExchangedCredentials
from interlock.identity.issuance import Issuance
from interlock.identity.logins import Logins
from interlock.identity.logouts import Logouts
from interlock.identity.oidc import TokenVerifier
from interlock.identity.passphrase import Passphrases
from interlock.identity.principal import Assurance, Credential, CredentialKind, Identity, Kind, Principal
from interlock.identity.provisioning import learn_groups
from interlock.identity.registration import RESERVED_PREFIX
from interlock.identity.revocation import Revocations
from interlock.identity.scram import ScramCredentials
from interlock.identity.sshkey import fingerprint
from interlock.identity.throttle import Throttle, ThrottledError, place
from interlock.identity.tokens import EXCHANGED_PREFIX, LOGIN_PREFIX, TOKEN_PREFIX, looks_like_token
from interlock.store.exchanged import ExchangedRows

log = structlog.get_logger()

PASSPHRASE_LIFETIME = timedelta(minutes=5)

_OURS = (EXCHANGED_PREFIX, LOGIN_PREFIX, TOKEN_PREFIX)


@dataclass(frozen=True, slots=True)
class Proven:
    """Who a token stands for. `own` are identities that the token itself proved, `may_act` is who alone may act for its
    subject, when it says so (RFC 8693 §4.4)."""

    principal: Principal
    own: frozenset[Identity] = frozenset()
    may_act: Identity | None = None


class Replays(Protocol):
    """Remembers what was used once, for longer than it could be used again."""

    async def take(self, channel: str, *idents: str, now: datetime) -> bool:
        """Return False when any of these was taken before. Raise StoreError."""
        ...


class Authenticator:
    """One a process. `source` is the client's address without the port; with it, guessing from one place slows down."""

    def __init__(
        self,
        directory: Directory,
        *,
        clock: Clock,
        journal: Recorder,
        issuers: Sequence[Issuer] = (),
        passphrases: Passphrases | None = None,
        verifier: TokenVerifier | None = None,
        replays: Replays | None = None,
        revocations: Revocations | None = None,
        entropy: Entropy = system_entropy,
        logins: Logins | None = None,
        issuance: Issuance | None = None,
        logouts: Logouts | None = None,
        exchanged: ExchangedRows | None = None,
    ) -> None:
        """`replays` is where tokens of one use are remembered, `exchanged` where credentials that were exchanged are kept."""
        self._directory = directory
        self._logins = logins
        self._issuance = issuance
        self._clock = clock
        self._journal = journal
        self._passphrases = passphrases or Passphrases()
        self.verifier = verifier or TokenVerifier(issuers, clock=clock)
        if self.verifier.any_once and replays is None:
            raise ConfigError("an issuer has tokens of one use, and there is no place to remember them")
        self._replays = replays
        self._revocations = revocations
        self._logouts = logouts
        self.exchanged = ExchangedCredentials(directory, clock=clock, entropy=entropy, rows=exchanged)
        # By name and source together, or anybody locks anybody out from afar. By name alone it is only bounded how fast
        # many sources together guess.
        self._by_login = Throttle(clock, free=5, longest=300)
        self._by_name = Throttle(clock, free=100, longest=5)
        self._by_source = Throttle(clock, free=20, longest=60)

    async def close(self) -> None:
        await self.exchanged.close()
        await self.verifier.close()

    # -- SSH keys -----------------------------------------------------------------------------------------------------

    def ssh_key(self, blob: bytes) -> Principal | None:
        """Return who the owner of a registered key is. Changes nothing: an offered key is not a proven one.

        Take the result into a session only after the signature of exactly this key was verified on this connection.
        """
        entry = self._directory.by_ssh_key(blob)
        if entry is None or entry.disabled:
            return None
        return entry.principal(Credential(CredentialKind.SSH_KEY, fingerprint(blob)))

    def ssh_certificate(self, authority: bytes, serial: str, key: str, principals: Sequence[str]) -> Principal | None:
        """Return whose login certificate this is: signed by `authority`, for the key with this fingerprint.

        Changes nothing, like `ssh_key`: a certificate that was only offered proves nothing.
        """
        return self._issuance.accept(authority, serial, key, principals) if self._issuance is not None else None

    # -- tokens -------------------------------------------------------------------------------------------------------

    async def token(self, secret: str, *, source: str = "") -> Principal:
        """Return who an opaque token (`ilk_…`, `ilx_…`), a login (`ils_…`) or a JWT of a configured issuer stands for.

        Raise AuthenticationError.
        """
        return (await self.proven(secret, source=source)).principal

    async def proven(self, secret: str, *, source: str = "") -> Proven:
        """Return the same with what an exchange has to know of the token. Raise AuthenticationError, StoreError."""
        self.check_source(source, "token")
        try:
            if secret.startswith(_OURS):
                known = self._known_secret(secret)
                self.check_revoked(known)
                return Proven(known)
            token = await self.verifier.verify(secret)
            found = self._delegated(token)
            self.check_revoked(found)
            if token.issuer.once and not await self._first_use(token):
                raise AuthenticationError(reason=Reason.TOKEN_REPLAYED)
        except AuthenticationError as error:
            self.refused("token", error.code, source=source)
            raise
        if token.issuer.kind == "human" and (entry := self._directory.get(token.identity)) is not None:
            await learn_groups(self._directory, self._clock, entry.identity, token.issuer.issuer, token.groups)
        return Proven(found, frozenset({token.actors[0] if token.actors else token.identity}), token.may_act)

    def still(self, secret: str, proven: Proven) -> None:
        """Raise AuthenticationError when what a token proved a moment ago has ended since: something was waited for meanwhile."""
        principal = proven.principal
        if secret.startswith(_OURS):
            self._known_secret(secret)
        for identity in (principal.identity, *principal.acting_for):
            if (entry := self._directory.get(identity)) is not None:
                _active(entry)
        self.check_revoked(principal)

    def _known_secret(self, secret: str) -> Principal:
        """Return who one of our own tokens stands for."""
        if secret.startswith(EXCHANGED_PREFIX):
            return self.exchanged.by_token(secret)
        if secret.startswith(LOGIN_PREFIX) and self._logins is not None:
            return self._logins.resolve(secret)
        return self._opaque(secret)

    def check_revoked(self, principal: Principal) -> None:
        """Raise AuthenticationError for whoever the kill switch stops, however long ago they proved who they are."""
        if self._revocations is not None:
            self._revocations.check(principal)
        if self._logouts is not None:
            self._logouts.check(principal)

    async def _first_use(self, token: VerifiedToken) -> bool:
        """Take a token of one use. Of two that come at once, on one node or on two, one is the first."""
        assert self._replays is not None  # checked when the issuers were
        return await self._replays.take("token", f"{token.issuer.issuer} {token.jti}", now=self._clock.now())

    def _opaque(self, secret: str) -> Principal:
        found = self._directory.by_token(secret) if looks_like_token(secret) else None
        if found is None:
            raise AuthenticationError(reason=Reason.TOKEN_REJECTED)
        entry, row = found
        _active(entry)
        return entry.principal(Credential(CredentialKind.TOKEN, row.id, row.expires))

    def _delegated(self, token: VerifiedToken) -> Principal:
        """Who asks is the one that acts now; all behind it are in the chain and can't approve (identity.md)."""
        credential = Credential(CredentialKind.JWT, token.jti, token.expires, (token.origin,))
        found = self._subject(token, credential)
        if not token.actors:
            return found
        for earlier in reversed(token.actors[1:]):
            found = acting(self._earlier(earlier, credential), found, credential)
        actor = self._directory.get(token.actors[0])
        if actor is None or actor.kind is Kind.HUMAN:
            raise AuthenticationError("the actor of the token is not a registered agent", reason=Reason.UNKNOWN_PRINCIPAL)
        _active(actor)
        found = acting(_known(actor, token.actors[0], credential), found, credential)
        # RFC 8693 §4.1: who acted before and is not registered here is told, excluded, and asked for no authority of its own.
        counted = tuple(one for one in found.behind if one.kind is Kind.HUMAN or self._directory.get(one.identity) is not None)
        return replace(found, behind=counted)

    def _earlier(self, identity: Identity, credential: Credential) -> Principal:
        entry = self._directory.get(identity)
        if entry is None:
            return Principal(identity, self._handle(identity), Kind.AGENT, credential)
        _active(entry)
        return _known(entry, identity, credential)

    def _subject(self, token: VerifiedToken, credential: Credential) -> Principal:
        """Return whom the token is about: the entry its claims or its subject belong to, or just that subject."""
        kind = Kind(token.issuer.kind)
        entry = self._directory.by_handle(token.workload) if token.workload else self._directory.get(token.identity)
        if entry is None:
            if token.workload:
                raise AuthenticationError(
                    f"the configuration takes this workload for {token.workload}, and nobody is registered so; "
                    f"`interlock principals add {token.workload} --kind {kind} --owner …`",
                    reason=Reason.UNKNOWN_PRINCIPAL,
                )
            if kind is Kind.AGENT:
                raise AuthenticationError(
                    "this agent is not registered, so nobody answers for it; "
                    "`interlock principals add … --owner` and `principals link` it",
                    reason=Reason.UNKNOWN_PRINCIPAL,
                )
            return Principal(
                token.identity, self._handle(token.identity), kind, credential, token.groups, assurance=token.assurance
            )
        _active(entry)
        if entry.kind is not kind:
            raise AuthenticationError("the token's issuer vouches for another kind of principal", reason=Reason.TOKEN_REJECTED)
        return _known(entry, token.identity, credential, token.groups, token.assurance)

    def _handle(self, identity: Identity) -> str:
        """Return the registered handle; for whom only a token names, one that nobody can register."""
        entry = self._directory.get(identity)
        if entry is not None:
            return entry.handle
        return RESERVED_PREFIX + hashlib.sha256(f"{identity.issuer}\0{identity.subject}".encode()).hexdigest()[:16]

    # -- Postgres passwords --------------------------------------------------------------------------------------------

    def scram(self, handle: str, *, source: str = "") -> ScramCredentials:
        """Return what `ScramServer` checks against; for nobody, something that looks the same and matches nothing."""
        self.check_source(source, "scram")
        return self.exchanged.beside(self._directory.scram(handle), handle)

    def scram_principal(self, handle: str, verifier_id: str) -> Principal:
        """Return who proved the password that `Accepted.verifier` names. Raise AuthenticationError."""
        if self.exchanged.holds(verifier_id):
            return self.exchanged.by_password(verifier_id)
        entry = self._directory.by_handle(handle)
        row = next((r for r in entry.passwords if r.id == verifier_id), None) if entry else None
        if entry is None or row is None or (row.expires is not None and row.expires <= self._clock.now()):
            raise AuthenticationError("the password was not accepted")
        _active(entry)
        if self._logins is None:
            return entry.principal(Credential(CredentialKind.SCRAM, row.id, row.expires))
        parents = self._logins.derived
        found = entry.principal(Credential(CredentialKind.SCRAM, row.id, row.expires, parents.origins_of(row.id)))
        return replace(found, groups=found.groups | parents.groups_of(row.id))

    # -- client certificates ------------------------------------------------------------------------------------------

    def certificate(self, shown: ClientCertificate, *, source: str = "") -> Principal:
        """Return whom a client certificate names. TLS has verified it; expiry is looked at again, on our clock.

        Raise AuthenticationError, alike for a name that nobody has and one that is stopped.
        """
        self.check_source(source, "certificate")
        entry = self._directory.by_handle(shown.handle)
        if entry is None or entry.disabled or not shown.begins <= self._clock.now() < shown.expires:
            self.refused("certificate", Reason.NOT_AUTHENTICATED, handle=shown.handle, source=source)
            raise AuthenticationError("the client certificate was not accepted")
        return entry.principal(Credential(CredentialKind.CERTIFICATE, shown.ident, shown.expires))

    # -- passphrases --------------------------------------------------------------------------------------------------

    async def passphrase(self, handle: str, passphrase: str, *, source: str = "") -> Principal:
        """Return the person whose passphrase this is. Raise AuthenticationError, alike for a wrong name and secret.

        Takes a few hundred milliseconds, in a thread. After five failures in a row a name waits at this source, longer each
        time. The try counts as failed while it is computed, so that a thousand at once are not a thousand free ones.
        """
        self.check_source(source, "passphrase")
        name, login = handle[:64], f"{place(source)} {handle[:64]}"
        try:
            self._by_login.check(login)
            self._by_name.check(name)
        except ThrottledError as error:
            if error.first:
                self.refused("passphrase", error.code, handle=handle, source=source)
            raise
        self._by_login.failed(login)
        self._by_name.failed(name)
        if source:
            self._by_source.failed(place(source))
        stored = self._stored(handle)
        matches = await self._passphrases.check(stored, passphrase)
        entry = self._directory.by_handle(handle)
        # Looked up again: a thread computed for a while, and the person may have been stopped meanwhile.
        if not matches or entry is None or self._stored(handle) != stored:
            self._record_refused("passphrase", Reason.NOT_AUTHENTICATED, handle, source)
            raise AuthenticationError("the handle or the passphrase is wrong")
        self._by_login.succeeded(login)
        self._by_name.succeeded(name)
        self._by_source.forgiven(place(source))
        now = self._clock.now()
        credential = Credential(CredentialKind.PASSPHRASE, str(entry.identity), now + PASSPHRASE_LIFETIME)
        found = entry.principal(credential, Assurance(amr=("pwd",), auth_time=now))
        try:
            self.check_revoked(found)
        except AuthenticationError as error:
            self._record_refused("passphrase", error.code, handle, source)
            raise
        self._journal.append(
            EventDraft(
                "login", {"method": "passphrase", "outcome": "accepted", "source": source, "principal": str(entry.identity)}
            )
        )
        return found

    def _stored(self, handle: str) -> str | None:
        entry = self._directory.by_handle(handle)
        if entry is None or entry.disabled or entry.kind is not Kind.HUMAN:
            return None
        return self._directory.passphrase_of(entry.identity)

    # -- refusals ------------------------------------------------------------------------------------------------------

    def refused(self, method: str, reason: Reason, *, handle: str = "", source: str = "") -> None:
        """Record a failed login, and count it against its source. Front ends call this when a handshake fails.

        A name that nobody has is committed to, not shown: people type passwords there.
        """
        if source:
            self._by_source.failed(place(source))
        self._record_refused(method, reason, handle, source)

    def check_source(self, source: str, method: str) -> None:
        """Raise ThrottledError while this source has to wait."""
        try:
            self._by_source.check(place(source))
        except ThrottledError as error:
            if error.first:
                self._record_refused(method, error.code, "", source)
            raise

    def _record_refused(self, method: str, reason: Reason, handle: str, source: str) -> None:
        entry = self._directory.by_handle(handle)
        fields: dict[str, Json] = {"method": method, "outcome": "refused", "reason": str(reason), "source": source}
        secret: dict[str, Json] = {}
        if entry is not None:
            fields["principal"] = str(entry.identity)
        elif handle:
            secret["handle"] = handle[:64].encode("utf-8", "backslashreplace").decode()
        try:
            self._journal.append(EventDraft("login", fields, secret))
        except EvidenceError:
            # The login is refused whether or not this can be written; the journal's own failure is reported there.
            log.error("login.not_recorded", method=method, reason=str(reason))


def _known(
    entry: Entry, proven: Identity, credential: Credential, groups: frozenset[str] = frozenset(),
    assurance: Assurance | None = None,
) -> Principal:  # fmt: skip
    """Return an entry as its token proved it. It is the entry that asks, as with every other credential of its: what one
    began with a key or a password goes on with the token, and the proven identity is one of its accounts."""
    found = entry.principal(credential, assurance)
    return replace(found, groups=found.groups | groups, linked=(found.linked | {proven}) - {found.identity})


def _active(entry: Entry) -> None:
    if entry.disabled:
        raise AuthenticationError(reason=Reason.DISABLED_PRINCIPAL)
