"""The two sockets of a session: bytes in, bytes out, and backpressure both ways with bounded buffers.

Knows: asyncio transports and protocols (uvloop's too). Must not know: messages, decisions.

When the client reads too slowly the server is not read; when the server does, or while a command waits, the client is not
read beyond a bound. A client that is not read can't be seen to leave, so while it waits its socket is asked.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol

WAITING_BOUND = 256 * 1024
"""Bytes of a client that are kept while one of its commands waits."""
LINGER = 5.0
"""Seconds for the last bytes to leave before a connection is cut."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the socket of a client that waits and is not read."""


class Ends(Protocol):
    """The session, as the sockets see it."""

    def from_client(self, data: bytes) -> None: ...

    def from_server(self, data: bytes) -> None: ...

    def client_left(self) -> None: ...

    def server_left(self) -> None: ...

    def server_ready(self) -> None:
        """The server takes bytes again."""
        ...


class Side(asyncio.Protocol):
    """One socket of the session. `opposite` is not read while this one can't be written."""

    __slots__ = ("_left", "data_received", "full", "on_full")

    def __init__(self, received: Callable[[bytes], None], left: Callable[[], None]) -> None:
        # In place of a method that calls it: for every read, that would be felt.
        self.data_received = received  # type: ignore[method-assign, assignment]
        self._left = left
        self.full = False
        self.on_full: Callable[[bool], None] = lambda _full: None

    def eof_received(self) -> bool:
        self._left()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()

    def pause_writing(self) -> None:
        self.full = True
        self.on_full(True)

    def resume_writing(self) -> None:
        self.full = False
        self.on_full(False)


class Relay:
    """Both sides, and who is being read."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self._client: asyncio.Transport
        self._server: asyncio.Transport
        self.client_side = Side(ends.from_client, ends.client_left)
        self.server_side = Side(ends.from_server, ends.server_left)
        self.client_side.on_full = self._client_full
        self.server_side.on_full = self._server_full
        self._client_read = True
        self._server_read = True
        self._look: asyncio.TimerHandle | None = None
        self.closed = False

    def start(self, client: asyncio.Transport, server: asyncio.Transport) -> None:
        self._client, self._server = client, server
        server.set_write_buffer_limits(high=256 * 1024)
        client.set_write_buffer_limits(high=256 * 1024)

    @property
    def server_full(self) -> bool:
        return self.server_side.full

    def to_client(self, data: bytes) -> None:
        if not self.closed:
            self._client.write(data)

    def to_server(self, data: bytes) -> None:
        if not self.closed:
            self._server.write(data)

    def read_client(self, wanted: bool) -> None:
        """Read the client, or leave its bytes where they are."""
        if self.closed or wanted == self._client_read:
            return
        self._client_read = wanted
        if wanted:
            self._client.resume_reading()
            self._stop_looking()
        else:
            self._client.pause_reading()
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_at_client)

    def close(self) -> None:
        """Close both connections once what was written has left, at most after LINGER seconds."""
        if self.closed:
            return
        self.closed = True
        self._stop_looking()
        loop = asyncio.get_running_loop()
        for transport in (self._client, self._server):
            transport.close()
            loop.call_later(LINGER, transport.abort)

    def _client_full(self, full: bool) -> None:
        if self.closed or full != self._server_read:
            return
        self._server_read = not full
        if full:
            self._server.pause_reading()
        else:
            self._server.resume_reading()

    def _server_full(self, full: bool) -> None:
        if full:
            self.read_client(False)
        elif not self.closed:
            self._ends.server_ready()

    def _look_at_client(self) -> None:
        """Find out whether a client that is not read has hung up: the kernel knows it without reading."""
        self._look = None
        if self.closed or self._client_read:
            return
        if _hung_up(self._client):
            self._ends.client_left()
            return
        self._look = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_at_client)

    def _stop_looking(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None


def _hung_up(transport: asyncio.Transport) -> bool:
    socket = transport.get_extra_info("socket")
    if socket is None or socket.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))
