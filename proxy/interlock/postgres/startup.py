"""A client's start-up: encryption, who it is, and proof of it. Ends in an `Admitted`, a cancel request, or an error.

Knows: PostgreSQL manual "Start-up", "SASL Authentication"; the addresses of interface.md (`ROLE@HANDLE`,
`TARGET/DATABASE`). Must not know: rules (the gate opens the session), the target.

Everything here happens under one deadline in the connection's own task, so a client that never speaks costs a socket
and nothing else.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Protocol

from interlock.clock import Entropy
from interlock.errors import AuthenticationError, Reason, RemoteProtocolError
from interlock.identity.principal import Principal
from interlock.identity.scram import ScramCredentials, ScramServer
from interlock.postgres.dialogue import Dialogue
from interlock.postgres.settings import StartupRefusedError
from interlock.postgres.wire import answers, opening
from interlock.postgres.wire.frame import PASSWORD_CAP

_MAX_ROUNDS = 3
"""First packets on one connection: GSSENCRequest, SSLRequest, then start-up."""


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

    def refused(self, method: str, reason: Reason, *, handle: str = "", source: str = "") -> None:
        """Record a handshake that failed, and count it against its source."""
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a start-up packet points to: `user` is ROLE@HANDLE or HANDLE, `database` TARGET/DATABASE or TARGET."""

    handle: str
    role: str
    target: str
    database: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client that proved who it is. It has not been told so yet: `welcome` is what is due before the greeting."""

    principal: Principal
    address: Address
    startup: opening.Startup
    welcome: bytes


class RejectedError(AuthenticationError):
    """The client did not prove who it is. The refusal is recorded already."""


def address(startup: opening.Startup) -> Address:
    """Split the user name and the database name of a start-up packet. Raise StartupRefusedError."""
    user = startup.get("user")
    if not user:
        raise StartupRefusedError("28000", "no user name in the start-up packet")
    role, _, handle = user.rpartition("@")
    target, _, database = (startup.get("database") or user).partition("/")
    return Address(handle, role, target, database)


class Reception:
    """Receives clients for one listener."""

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        method: str,
        tls: ssl.SSLContext | None,
        binding: bytes | None,
        entropy: Entropy,
    ) -> None:
        self._authenticator = authenticator
        self._method = method
        self._tls = tls
        self._binding = binding
        self._entropy = entropy

    async def receive(self, dialogue: Dialogue, *, trusted_wire: bool) -> Admitted | opening.CancelRequest:
        """Walk the start-up. `trusted_wire`: loopback, where plain text may pass.

        Raise StartupRefusedError, RejectedError, RemoteProtocolError, LeftError, ssl.SSLError.
        """
        first = await self._first_packet(dialogue)
        if isinstance(first, opening.CancelRequest):
            return first
        if self._tls is not None and not dialogue.encrypted and not trusted_wire:
            raise StartupRefusedError("28000", "this listener takes TLS only: use sslmode=require or better")
        where = address(first)
        dialogue.nothing_more()
        if first.minor > 0 or first.unknown:
            dialogue.write(answers.negotiate_protocol(first.unknown))
        principal, welcome = await (
            self._by_token(dialogue, where) if self._method == "token" else self._by_scram(dialogue, where)
        )
        dialogue.nothing_more()
        return Admitted(principal, where, first, welcome + answers.AUTHENTICATION_OK)

    async def _first_packet(self, dialogue: Dialogue) -> opening.Startup | opening.CancelRequest:
        for _ in range(_MAX_ROUNDS):
            header = await dialogue.exactly(4)
            packet = header + await dialogue.exactly(opening.packet_length(header) - 4)
            match opening.opening(packet):
                case opening.TlsRequest():
                    dialogue.nothing_more()
                    if self._tls is None or dialogue.encrypted:
                        dialogue.write(b"N")
                    else:
                        await dialogue.turn_to_tls(self._tls, server_side=True, first=b"S")
                case opening.GssRequest():
                    dialogue.nothing_more()
                    dialogue.write(b"N")
                case other:
                    return other
        raise RemoteProtocolError("too many requests for encryption")

    async def _by_token(self, dialogue: Dialogue, where: Address) -> tuple[Principal, bytes]:
        """A token as a clear password: inside TLS only, whatever the address."""
        if not dialogue.encrypted:
            raise StartupRefusedError("28000", "a token may pass inside TLS only: use sslmode=require or better")
        dialogue.write(answers.AUTHENTICATION_CLEARTEXT)
        secret = (await self._password(dialogue)).rstrip(b"\0")
        try:
            principal = await self._authenticator.token(secret.decode(), source=dialogue.peer)
        except UnicodeDecodeError:
            raise self._rejected(dialogue, where, "token") from None
        except AuthenticationError as error:
            raise _rejection(where, error.code) from None
        # A subject without an entry has a made-up handle; its own name from the token does as well. Neither gives authority.
        if where.handle not in (principal.handle, principal.identity.subject):
            raise self._rejected(dialogue, where, "token")
        return principal, b""

    async def _by_scram(self, dialogue: Dialogue, where: Address) -> tuple[Principal, bytes]:
        try:
            credentials = self._authenticator.scram(where.handle, source=dialogue.peer)
        except AuthenticationError as error:  # too many failures from this address: it is recorded where it is counted
            raise _rejection(where, error.code) from None
        binding = self._binding if dialogue.encrypted else None
        exchange = ScramServer(credentials, entropy=self._entropy, binding=binding)
        dialogue.write(answers.authentication_sasl(exchange.mechanisms))
        mechanism, first = _initial_response(await self._password(dialogue))
        dialogue.write(answers.authentication_sasl_continue(exchange.first(mechanism, first)))
        try:
            accepted = exchange.final(await self._password(dialogue))
            principal = self._authenticator.scram_principal(where.handle, accepted.verifier)
        except AuthenticationError as error:
            raise self._rejected(dialogue, where, "scram", error.code) from None
        return principal, answers.authentication_sasl_final(accepted.message)

    async def _password(self, dialogue: Dialogue) -> bytes:
        kind, body = await dialogue.message(PASSWORD_CAP)
        if kind != ord("p"):
            raise RemoteProtocolError(f"a message of type {kind} before authentication")
        dialogue.nothing_more()
        return body

    def _rejected(
        self, dialogue: Dialogue, where: Address, method: str, reason: Reason = Reason.NOT_AUTHENTICATED
    ) -> RejectedError:
        self._authenticator.refused(method, reason, handle=where.handle, source=dialogue.peer)
        return _rejection(where, reason)


def _rejection(where: Address, reason: Reason) -> RejectedError:
    return RejectedError(f'password authentication failed for user "{where.handle[:63]}"', reason=reason)


def _initial_response(body: bytes) -> tuple[str, bytes]:
    """Decode SASLInitialResponse: mechanism, length, data."""
    name, sep, rest = body.partition(b"\0")
    if not sep or len(rest) < 4 or int.from_bytes(rest[:4], "big") != len(rest) - 4:
        raise RemoteProtocolError("a malformed SASL response")
    return name.decode("ascii", "replace"), rest[4:]
