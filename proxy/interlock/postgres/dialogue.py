"""A connection while it is being set up: read exactly so many bytes, answer, perhaps turn to TLS.

Knows: asyncio transports. Must not know: what is said. Every read has a bound; deadlines are the caller's.

After set-up the transport is handed to the session's own protocol. Nothing may be buffered then: bytes that come before
their turn (smuggled behind an SSLRequest, CVE-2021-23214, or before authentication is answered) end the connection.
"""

from __future__ import annotations

import asyncio
import ssl

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.frame import LENGTH, STARTUP_CAP


class LeftError(ConnectionError):
    """The other side closed the connection."""


class Dialogue(asyncio.Protocol):
    """One side of a connection before its session runs."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._buffer = bytearray()
        self._wake: asyncio.Future[None] | None = None
        self._gone = False
        self._paused = False
        self.source = ""
        """Who is behind a connection that came through a tunnel: its own transport would say nothing of it."""
        self.lost: Exception | None = None
        """Why the connection ended, when the transport knows."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > STARTUP_CAP + 4096:
            self.transport.pause_reading()
            self._paused = True
        self._awake()

    def eof_received(self) -> bool:
        self._gone = True
        self._awake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self.lost = exc
        self._awake()

    @property
    def empty(self) -> bool:
        return not self._buffer

    @property
    def encrypted(self) -> bool:
        return self.transport.get_extra_info("ssl_object") is not None

    @property
    def alpn(self) -> str | None:
        """The protocol that both sides named in TLS."""
        tls = self.transport.get_extra_info("ssl_object")
        return tls.selected_alpn_protocol() if tls is not None else None

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the other side showed in TLS, as DER; None without one."""
        tls = self.transport.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True) if tls is not None else None

    @property
    def peer(self) -> str:
        """The other side's address without its port."""
        if self.source:
            return self.source
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) and name else "local"

    async def exactly(self, count: int) -> bytes:
        """Read `count` bytes. Raise LeftError."""
        while len(self._buffer) < count:
            if self._gone:
                raise LeftError("the connection was closed")
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def message(self, cap: int) -> tuple[int, bytes]:
        """Read one message: type and body of at most `cap` bytes. Raise RemoteProtocolError, LeftError."""
        header = await self.exactly(5)
        (length,) = LENGTH.unpack_from(header, 1)
        if not 4 <= length <= cap:
            raise RemoteProtocolError(f"a message of type {header[0]} with the length {length} during set-up")
        return header[0], await self.exactly(length - 4)

    def nothing_more(self) -> None:
        """Raise RemoteProtocolError when the other side sent bytes before it was their turn."""
        if self._buffer:
            raise RemoteProtocolError("bytes came before it was their turn")

    def rest(self) -> bytes:
        """Take everything that has come and was not read. For a side that may speak at any time."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken

    @property
    def gone(self) -> bool:
        """The other side has closed the connection."""
        return self._gone

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def turn_to_tls(
        self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None, first: bytes = b""
    ) -> None:
        """Send `first`, then encrypt. No plaintext may be waiting. Raise ssl.SSLError, LeftError."""
        # Reading stops before the answer is written: what the peer sends next is for TLS, not for this buffer.
        self.transport.pause_reading()
        self.nothing_more()
        if first:
            self.transport.write(first)
        transport = await asyncio.get_running_loop().start_tls(
            self.transport, self, context, server_side=server_side, server_hostname=name
        )
        if transport is None:
            raise LeftError("the connection was closed during the TLS handshake")
        self.transport = transport

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Give the transport to the session's protocol. Raise RemoteProtocolError when bytes are waiting."""
        self.nothing_more()
        if self._gone:
            raise LeftError("the connection was closed")
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self.transport.set_protocol(protocol)
        return self.transport

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
