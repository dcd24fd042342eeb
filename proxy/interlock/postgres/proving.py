"""How a client proves who it is: by SASL (SCRAM or OAUTHBEARER), by a token in clear inside TLS, or by a certificate.

Knows: PostgreSQL manual "SASL Authentication"; identity's machines and what it says to their outcome.
Must not know: what was asked before and what comes after, targets, rules.

The protocol has one authentication request a connection. A certificate was shown before it, so it can stand beside the
others: whoever shows one is judged by it alone, and never by a weaker proof in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from interlock.clock import Entropy
from interlock.errors import AuthenticationError, InterlockError, Reason, RemoteProtocolError
from interlock.identity import certificate, oauthbearer
from interlock.identity.certificate import ClientCertificate
from interlock.identity.principal import Principal
from interlock.identity.scram import ScramCredentials, ScramServer
from interlock.identity.throttle import ThrottledError
from interlock.postgres.dialogue import Dialogue
from interlock.postgres.settings import StartupRefusedError
from interlock.postgres.wire import answers
from interlock.postgres.wire.frame import PASSWORD_CAP


class Authenticator(Protocol):
    """What identity offers this front end (interlock.identity.authenticate). `source` is the client's address."""

    def scram(self, handle: str, *, source: str = "") -> ScramCredentials:
        """Return what to check a proof against; for nobody, something that matches nothing. Raise AuthenticationError."""
        ...

    def scram_principal(self, handle: str, verifier_id: str) -> Principal:
        """Return who proved to know the password `verifier_id`. Raise AuthenticationError."""
        ...

    async def token(self, secret: str, *, source: str = "") -> Principal:
        """Return whom a token names; a refusal is recorded. Raise AuthenticationError."""
        ...

    def certificate(self, shown: ClientCertificate, *, source: str = "") -> Principal:
        """Return whom a certificate that TLS has verified names; a refusal is recorded. Raise AuthenticationError."""
        ...

    def refused(self, method: str, reason: Reason, *, handle: str = "", source: str = "") -> None:
        """Record a handshake that failed, and count it against its source."""
        ...


class RejectedError(AuthenticationError):
    """The client did not prove who it is. The refusal is recorded already."""


@dataclass(frozen=True, slots=True)
class Methods:
    """What a listener takes. `metadata` and `scope` are what a client without a token is told; `binding` is of our TLS."""

    names: frozenset[str]
    binding: bytes | None = None
    metadata: str = ""
    scope: str = ""


class Proving:
    """One a listener; keeps nothing of a connection."""

    def __init__(self, authenticator: Authenticator, methods: Methods, *, entropy: Entropy) -> None:
        self._authenticator = authenticator
        self._methods = methods
        self._entropy = entropy

    async def prove(self, dialogue: Dialogue, handle: str) -> tuple[Principal, bytes]:
        """Return who the client is, and what it is due before AuthenticationOk.

        Raise RejectedError, ThrottledError, StartupRefusedError, RemoteProtocolError, LeftError.
        """
        names = self._methods.names
        if "cert" in names:
            shown = dialogue.certificate
            if shown is not None:
                return self._by_certificate(dialogue, handle, shown), b""
            if names == {"cert"}:
                raise StartupRefusedError("28000", "this listener takes a client certificate only: set sslcert and sslkey")
        if "token" in names:
            return await self._by_token(dialogue, handle), b""
        return await self._by_sasl(dialogue, handle)

    # -- certificates -------------------------------------------------------------------------------------------------

    def _by_certificate(self, dialogue: Dialogue, handle: str, shown: bytes) -> Principal:
        try:
            facts = certificate.read(shown)
        except AuthenticationError as error:
            raise self._rejected(dialogue, handle, "certificate", error.code) from None
        if facts.handle != handle:
            raise self._rejected(dialogue, handle, "certificate")
        try:
            return self._authenticator.certificate(facts, source=dialogue.peer)
        except ThrottledError:
            raise
        except AuthenticationError as error:
            raise _rejection(handle, error.code, "certificate") from None

    # -- tokens -------------------------------------------------------------------------------------------------------

    async def _by_token(self, dialogue: Dialogue, handle: str) -> Principal:
        """A token as a clear password: inside TLS only, whatever the address."""
        _need_tls(dialogue)
        dialogue.write(answers.AUTHENTICATION_CLEARTEXT)
        secret = (await _password(dialogue)).rstrip(b"\0")
        try:
            return await self._token(dialogue, handle, secret.decode(), "token")
        except UnicodeDecodeError:
            raise self._rejected(dialogue, handle, "token") from None

    async def _token(self, dialogue: Dialogue, handle: str, secret: str, method: str) -> Principal:
        try:
            principal = await self._authenticator.token(secret, source=dialogue.peer)
        except ThrottledError:
            raise
        except AuthenticationError as error:
            raise _rejection(handle, error.code, method) from None
        # A subject without an entry has a made-up handle; its own name from the token does as well. Neither gives authority.
        if handle not in (principal.handle, principal.identity.subject):
            raise self._rejected(dialogue, handle, method)
        return principal

    # -- SASL ---------------------------------------------------------------------------------------------------------

    async def _by_sasl(self, dialogue: Dialogue, handle: str) -> tuple[Principal, bytes]:
        """One offer of every mechanism there is; the client chooses what it has a secret for."""
        names = self._methods.names
        offered: tuple[str, ...] = ()
        scram: ScramServer | None = None
        if "scram" in names:
            # Too many failures from this address are said as they are: a right password would not be looked at either.
            credentials = self._authenticator.scram(handle, source=dialogue.peer)
            binding = self._methods.binding if dialogue.encrypted else None
            scram = ScramServer(credentials, entropy=self._entropy, binding=binding)
            offered += scram.mechanisms
        if "oauth" in names and dialogue.encrypted:
            offered += (oauthbearer.MECHANISM,)
        if not offered:
            _need_tls(dialogue)
        dialogue.write(answers.authentication_sasl(offered))
        mechanism, first = _initial_response(await _password(dialogue))
        if mechanism == oauthbearer.MECHANISM and mechanism in offered:
            return await self._by_bearer(dialogue, handle, first), b""
        if scram is None:
            raise RemoteProtocolError("the client chose a SASL mechanism that was not offered")
        return await self._by_scram(dialogue, handle, scram, mechanism, first)

    async def _by_scram(
        self, dialogue: Dialogue, handle: str, exchange: ScramServer, mechanism: str, first: bytes
    ) -> tuple[Principal, bytes]:
        try:
            dialogue.write(answers.authentication_sasl_continue(exchange.first(mechanism, first)))
            accepted = exchange.final(await _password(dialogue))
            principal = self._authenticator.scram_principal(handle, accepted.verifier)
        except AuthenticationError as error:
            raise self._rejected(dialogue, handle, "scram", error.code) from None
        return principal, answers.authentication_sasl_final(accepted.message)

    async def _by_bearer(self, dialogue: Dialogue, handle: str, message: bytes) -> Principal:
        bearer = oauthbearer.response(message)
        try:
            if bearer.token:
                return await self._token(dialogue, handle, bearer.token, "oauth")
            # The client asks where to get a token. That is no attempt, so it is neither counted nor recorded.
            rejection: InterlockError = StartupRefusedError("28000", "this listener takes an OAuth bearer token")
        except RejectedError as error:
            rejection = error
        # RFC 7628 §3.2.3: the refusal is told in JSON, the client says that it has read it, and only then it fails.
        dialogue.write(answers.authentication_sasl_continue(oauthbearer.failure(self._methods.metadata, self._methods.scope)))
        if await _password(dialogue) != oauthbearer.DISMISSAL:
            raise RemoteProtocolError("a message of another kind where OAUTHBEARER's dismissal was due")
        raise rejection

    def _rejected(self, dialogue: Dialogue, handle: str, method: str, reason: Reason = Reason.NOT_AUTHENTICATED) -> RejectedError:
        self._authenticator.refused(method, reason, handle=handle, source=dialogue.peer)
        return _rejection(handle, reason, method)


def _need_tls(dialogue: Dialogue) -> None:
    if not dialogue.encrypted:
        raise StartupRefusedError("28000", "a token may pass inside TLS only: use sslmode=require or better")


async def _password(dialogue: Dialogue) -> bytes:
    kind, body = await dialogue.message(PASSWORD_CAP)
    if kind != ord("p"):
        raise RemoteProtocolError(f"a message of type {kind} before authentication")
    dialogue.nothing_more()
    return body


_AS_THE_SERVER = {"certificate": "certificate", "oauth": "OAuth bearer"}


def _rejection(handle: str, reason: Reason, method: str) -> RejectedError:
    """Say it in PostgreSQL's words, the same whatever was wrong."""
    what = _AS_THE_SERVER.get(method, "password")
    return RejectedError(f'{what} authentication failed for user "{handle[:63]}"', reason=reason)


def _initial_response(body: bytes) -> tuple[str, bytes]:
    """Decode SASLInitialResponse: mechanism, length, data."""
    name, sep, rest = body.partition(b"\0")
    if not sep or len(rest) < 4 or int.from_bytes(rest[:4], "big") != len(rest) - 4:
        raise RemoteProtocolError("a malformed SASL response")
    return name.decode("ascii", "replace"), rest[4:]
