"""A client's start-up: encryption, who it is, and proof of it. Ends in an `Admitted`, a cancel request, or an error.

Knows: PostgreSQL manual "Start-up"; the addresses of interface.md (`ROLE@HANDLE`, `TARGET/DATABASE`).
Must not know: rules (the gate opens the session), the target.

Everything here happens under one deadline in the connection's own task, so a client that never speaks costs a socket
and nothing else.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from interlock.errors import RemoteProtocolError
from interlock.identity.principal import Principal
from interlock.postgres.dialogue import Dialogue
from interlock.postgres.proving import Proving
from interlock.postgres.settings import StartupRefusedError
from interlock.postgres.wire import answers, opening

_MAX_ROUNDS = 3
"""First packets on one connection: GSSENCRequest, SSLRequest, then start-up."""


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

    def __init__(self, proving: Proving, *, tls: ssl.SSLContext | None) -> None:
        self._proving = proving
        self._tls = tls

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
        if first.negotiates:
            dialogue.write(answers.negotiate_protocol(first.speaks, first.unknown))
        principal, welcome = await self._proving.prove(dialogue, where.handle)
        dialogue.nothing_more()
        return Admitted(principal, where, first, welcome + answers.AUTHENTICATION_OK)

    async def _first_packet(self, dialogue: Dialogue) -> opening.Startup | opening.CancelRequest:
        for _ in range(_MAX_ROUNDS):
            header = await dialogue.exactly(4)
            packet = header + await dialogue.exactly(opening.packet_length(header) - 4)
            match opening.opening(packet):
                case opening.TlsRequest() | opening.GssRequest() if dialogue.encrypted:
                    raise RemoteProtocolError("a request for encryption inside TLS")
                case opening.TlsRequest():
                    dialogue.nothing_more()
                    if self._tls is None:
                        dialogue.write(b"N")
                    else:
                        await dialogue.turn_to_tls(self._tls, server_side=True, first=b"S")
                case opening.GssRequest():
                    dialogue.nothing_more()
                    dialogue.write(b"N")
                case other:
                    return other
        raise RemoteProtocolError("too many requests for encryption")
