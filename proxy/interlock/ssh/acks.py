"""Acknowledging small packets at once, on both legs.

Most of a handshake is waiting: a peer with Nagle's algorithm keeps its next small packet until the last one is acknowledged,
and Linux keeps an acknowledgement back for up to 40 ms in case data could carry it. TCP_QUICKACK sends what is kept back
and has to be set again after each read, because the kernel returns to its own judgement (tcp(7)). Bulk is left alone.
"""

from __future__ import annotations

import asyncio
import socket

SMALL = 2048
"""Bytes of one read: beyond that it is a stream, whose window is acknowledged in any case."""

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux only; elsewhere a handshake merely takes longer


def acknowledge(transport: asyncio.BaseTransport | None, read: int) -> None:
    """Acknowledge a read of so many bytes now. Never raises: it is a matter of speed alone."""
    if _QUICKACK is None or read > SMALL or transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
    except OSError:
        pass  # the peer has gone, or the socket is none of TCP
