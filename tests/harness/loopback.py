"""Ports of loopback that a server of a test can be told to listen on."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

LOWEST = 10_000


def free_port() -> int:
    """Return a port that nobody listens on and that the kernel gives to no client, so it is still free when it is used."""
    for _ in range(1000):
        port = LOWEST + secrets.randbelow(first_ephemeral() - LOWEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port of loopback is free")


def first_ephemeral() -> int:
    """Return where the ports begin that the kernel hands out: one of those may go to any connection in the meantime."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32_768
    return first if first > LOWEST + 1000 else 65_536
