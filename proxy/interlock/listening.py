"""The sockets that the daemon listens on: bound one way for every protocol, refused with one sentence.

Knows addresses and the operating system's words for why one can't be had. Must not know who listens on it.
"""

from __future__ import annotations

import errno
import os
import socket

from interlock.config import split_address
from interlock.errors import ConfigError

BACKLOG = 512


def bound(name: str, address: str) -> socket.socket:
    """Bind `address` (`host:port` or `[v6]:port`) for `listen.<name>` and listen. Raise ConfigError.

    `[::]` means every address of both families, which asyncio by itself would take as IPv6 alone.
    """
    host, port = split_address(address)
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        dual = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(where, family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise ConfigError(f"listen.{name}: {address} can't be bound: {_why(error)}") from None


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its host name is not known here"
    if error.errno == errno.EADDRINUSE:
        return "it is in use; stop the other process or name another port"
    return os.strerror(error.errno) if error.errno else str(error)
