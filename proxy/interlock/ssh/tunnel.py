"""Tunnels that a client asks for (`ssh -J`, `-W`, `-L`): each leads to a front end of ours, or nowhere.

    ssh -J HANDLE@proxy web-1          our own SSH front end, as if the client had come to it from outside
    ssh -L 5432:orders:5432 …          our own Postgres front end

The destination is a *name*: it is looked up among the configured targets and in nothing else, and no socket is opened
for it. So there is no address that a tunnel could reach, neither of this host nor of its network (loopback, link-local,
metadata), and no name that could resolve to one. What comes through is authenticated, decided and recorded like any
connection; the tunnel itself grants nothing. RFC 4254 §7.2.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass

import asyncssh
from asyncssh.forward import SSHForwarder
from asyncssh.packet import SSHPacket

from interlock.config import TargetConfig, split_address
from interlock.identity.principal import Identity
from interlock.ssh.address import ACCOUNT, TARGET, Address, parse
from interlock.ssh.carrier import Carrier

PORTS = {"ssh": 22, "postgres": 5432}
"""The port that a tunnel names: the one that the protocol is known by, or the target's own, as an ssh_config may have it."""

WINDOW = 256 * 1024
"""What a client may send ahead in a tunnel. What is inside has windows of its own."""

Adopt = Callable[[socket.socket, str], None]
"""Gives a connected socket, and the address of the client behind it, to the Postgres front end."""

BY_NAME = "a tunnel leads to a target of this proxy, by its name, and nowhere else: ssh -J HANDLE@PROXY TARGET"
NESTED = "a tunnel inside a tunnel is not offered: name the target at the first proxy"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a client wants its tunnel to end, in its own words."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def named(self) -> bool:
        """Whether this can be the name of a target: addresses and the names of this host never are."""
        if TARGET.match(self.host) is None or self.host == "localhost" or self.host.endswith(".localhost"):
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            # inet_aton(3) takes more for an address than that: 127.1, 2130706433, 0x7f.1
            return not self.host.rpartition(".")[2].removeprefix("0x").isdecimal()
        return False


@dataclass(frozen=True, slots=True)
class Passage:
    """The tunnel that a connection came through: what it named, who opened it, in which session, from where."""

    target: str
    opener: Identity
    session: str
    client: str

    def address(self, user: str) -> Address | None:
        """Read a user name inside a tunnel: an account of the target, as behind any jump host, or a whole address."""
        whole = parse(user)
        if whole is not None and whole.target == self.target:
            return whole
        return Address(self.target, user) if ACCOUNT.match(user) else None


def destination(packet: SSHPacket) -> Destination:
    """Read what a direct-tcpip asks for. Raise PacketDecodeError."""
    host = packet.get_string().decode("ascii", "backslashreplace")
    port = packet.get_uint32()
    packet.get_string()  # where the client says that it comes from: a claim that nobody reads
    packet.get_uint32()
    packet.check_end()
    return Destination(host[:256], port)


def refused(wanted: Destination, target: TargetConfig | None, *, nested: bool, postgres: bool) -> str:
    """Say why a tunnel is not opened; empty when it is. `target`: what is configured under that name, and open to the client."""
    if nested:
        return NESTED
    if not wanted.named:
        return BY_NAME
    if target is None:
        return f"there is no target {wanted.host} that is open to you; {BY_NAME}"
    if target.protocol == "postgres" and not postgres:
        return f"{target.name} is a Postgres target, and this proxy does not listen for Postgres"
    port = PORTS[target.protocol]
    if wanted.port not in (port, split_address(target.address)[1]):
        return f"{target.name} speaks {target.protocol}: ask for {target.name}:{port}"
    return ""


class TunnelChannel(asyncssh.SSHTCPChannel[bytes]):
    """The channel of a tunnel, and the transport of the connection inside it."""

    def __init__(self, connection: Carrier, number: int) -> None:
        self.number = number
        self.inner: Carrier | None = None
        self._outer: Carrier | None = connection
        super().__init__(connection, asyncio.get_running_loop(), None, "strict", WINDOW, 32768)
        self.set_extra_info(peername=None, sockname=None, socket=None)  # asked by who is inside, and not theirs

    def _cleanup(self, exc: Exception | None = None) -> None:
        super()._cleanup(exc)
        outer, self._outer = self._outer, None
        if outer is not None:
            outer.tunnel_closed(self.number)

    def clog(self) -> None:
        """The socket below the tunnel is full: who is inside must not fill our memory either."""
        if self.inner is not None:
            self.inner.clog("tunnel")

    def free(self) -> None:
        if self.inner is not None:
            self.inner.free("tunnel")


async def to_postgres(adopt: Adopt, client: str) -> asyncssh.SSHTCPSession[bytes]:
    """Return the near end of a socket pair whose far end the Postgres front end takes as a new connection."""
    near, far = socket.socketpair()
    try:
        _, peer = await asyncio.get_running_loop().create_connection(SSHForwarder, sock=near)
    except BaseException:
        near.close()
        far.close()
        raise
    adopt(far, client)
    return SSHForwarder(peer)  # type: ignore[return-value]  # asyncssh takes it for one as well
