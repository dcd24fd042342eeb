"""Connections that have just come: how many may be here at once, from where, and the first byte that says what each speaks.

Knows: sockets and the two ways a Postgres connection can begin. Must not know: what a start-up packet says.

Whoever has not proven who it is counts against a limit of its own and against one of its source, so that one machine that
opens connections and says nothing keeps nobody else out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections import Counter

from interlock.errors import Reason
from interlock.postgres import refusals
from interlock.postgres.dialogue import Dialogue, LeftError
from interlock.postgres.encryption import ALPN, CLIENT_HELLO
from interlock.postgres.wire import answers

MAX_CONNECTIONS = 2000
MAX_STARTING = 1000
"""Connections that have not proven who they are. The rest of MAX_CONNECTIONS stays for those who have."""
MAX_STARTING_FROM_ONE = 250
"""The same from one source."""


def origin(source: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that one IPv6 customer has at the least."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return source
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


class Arrivals:
    """Counts those that have not become sessions yet."""

    def __init__(
        self, *, together: int = MAX_CONNECTIONS, starting: int = MAX_STARTING, from_one: int = MAX_STARTING_FROM_ONE
    ) -> None:
        self._together, self._starting, self._from_one = together, starting, from_one
        self._here: Counter[str] = Counter()

    def admit(self, source: str, *, sessions: int) -> bool:
        """Count one in, unless that would be too many. Whoever is let in must `leave` once."""
        place, here = origin(source), self._here.total()
        if here >= self._starting or here + sessions >= self._together or self._here[place] >= self._from_one:
            return False
        self._here[place] += 1
        return True

    def leave(self, source: str) -> None:
        place = origin(source)
        self._here[place] -= 1
        if self._here[place] <= 0:
            del self._here[place]


def turned_away(connection: socket.socket) -> None:
    """Say that there is no room, without waiting for anybody, and close."""
    try:
        connection.send(answers.error(refusals.fatal(Reason.LIMIT_REACHED, code="53300")))
    except OSError:
        pass  # it left, or does not read: either way it is closed
    connection.close()


async def meet(connection: socket.socket, tls: ssl.SSLContext | None) -> Dialogue:
    """Begin to talk: in TLS from the first byte when the client does so, else in clear. Closes the socket when it fails.

    Raise LeftError, OSError, ssl.SSLError.
    """
    loop = asyncio.get_running_loop()
    try:
        direct = await _first_byte(connection) == CLIENT_HELLO and tls is not None
    except BaseException:
        connection.close()
        raise
    dialogue = Dialogue()  # made here: with TLS, uvloop returns a protocol of its own instead
    await loop.connect_accepted_socket(lambda: dialogue, connection, ssl=tls if direct else None)
    if direct and dialogue.alpn != ALPN:
        # Nothing is said: whoever did not ask for this protocol by name must not be made to read it.
        dialogue.abort()
        raise LeftError("direct TLS without ALPN")
    return dialogue


async def _first_byte(connection: socket.socket) -> int:
    """Look at the first byte without taking it. Raise LeftError when the client goes instead."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _wake, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connection)
    seen = connection.recv(1, socket.MSG_PEEK)
    if not seen:
        raise LeftError("the connection was closed")
    return seen[0]


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
