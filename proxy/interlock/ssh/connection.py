"""One client connection: which channels it opens, and what it asks for beside them.

asyncssh has no public hooks for most of this; see channel.py on private parts and the pinned version.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_RESOURCE_SHORTAGE,
)
from asyncssh.packet import SSHPacket

from interlock.errors import Reason
from interlock.ssh import records, refusals, requests, tunnel
from interlock.ssh.channel import ClientChannel, ClientSession
from interlock.ssh.exec import Execution
from interlock.ssh.house import House
from interlock.ssh.limits import Allowance
from interlock.ssh.relay import ClientSide
from interlock.ssh.requests import Scope, Told
from interlock.ssh.sftp.session import FileSession
from interlock.ssh.tunnel import Passage, TunnelChannel
from interlock.ssh.visit import Visit

NO_TARGET = "this connection names no target: ssh TARGET@PROXY 'command', or ssh -J HANDLE@PROXY TARGET"


class ClientConnection(Visit):
    """A client of the proxy, whole."""

    def __init__(self, house: House, options: asyncssh.SSHServerConnectionOptions, passage: Passage | None = None) -> None:
        self._asks = Allowance(house.limits.asks, house.limits.asks_a_second)
        self._last_session = False
        self._later: list[str] = []
        super().__init__(house, options, passage)

    # -- channels and requests ------------------------------------------------------------------------------------

    def _process_gated_open(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        kind = requests.shown_name(packet.get_string())
        peer, window, size = packet.get_uint32(), packet.get_uint32(), packet.get_uint32()
        if size <= 0:
            raise asyncssh.ProtocolError("Invalid maximum packet size")
        row = requests.find(Scope.OPEN, kind)
        if row.refused:
            detail = packet.get_remaining_payload()[:512].decode("utf-8", "backslashreplace")
            self.record(records.refused_request(Scope.OPEN, kind, detail=detail))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, f"interlock: {row.sentence}", "en")
            return
        if len(self._channels) >= self._house.limits.channels:
            self.refuse_limit(Scope.OPEN, kind)
            self.send_channel_open_failure(peer, OPEN_RESOURCE_SHORTAGE, "interlock: too many channels at once", "en")
            return
        if size < self._house.limits.packet:
            self.refuse_limit(Scope.OPEN, kind)
            self.send_channel_open_failure(peer, OPEN_RESOURCE_SHORTAGE, "interlock: packets that small are not sent", "en")
            return
        if kind == "direct-tcpip":
            self._open_tunnel(peer, window, size, tunnel.destination(packet))
            return
        packet.check_end()
        if self._last_session:
            raise asyncssh.ProtocolError("interlock: a session after no-more-sessions")  # as sshd does (PROTOCOL §2.2)
        if self._gate_session is None:
            self.record(records.refused_request(Scope.OPEN, kind))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, f"interlock: {NO_TARGET}", "en")
            return
        self._numbered += 1
        channel = ClientChannel(self, self._numbered, self._house.limits)
        channel.process_open(peer, window, size, ClientSession(self))

    def _open_tunnel(self, peer: int, window: int, size: int, wanted: tunnel.Destination) -> None:
        """Lead a tunnel to a front end of ours, or refuse it. Nothing is dialled in either case."""
        assert self._principal is not None
        target = self._visible(wanted.host)
        why = tunnel.refused(wanted, target, nested=self._passage is not None, postgres=self._house.postgres is not None)
        if why or target is None:
            self.record(records.refused_request(Scope.OPEN, "direct-tcpip", detail=str(wanted)))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, f"interlock: {why}", "en")
            return
        if (stopped := self._stopped()) is not None:
            self.record(records.refused_request(Scope.OPEN, "direct-tcpip", detail=str(wanted)))
            self.send_channel_open_failure(peer, OPEN_ADMINISTRATIVELY_PROHIBITED, refusals.sentence(stopped), "en")
            return
        if not self._house.door.room(self._counted_as):
            self.refuse_limit(Scope.OPEN, "direct-tcpip")
            self.send_channel_open_failure(peer, OPEN_RESOURCE_SHORTAGE, "interlock: too many connections at once", "en")
            return
        self._numbered += 1
        self.record(records.tunnelled(self._numbered, target.name, target.protocol))
        channel = TunnelChannel(self, self._numbered)
        if target.protocol == "postgres" and self._house.postgres is not None:
            channel.process_open(peer, window, size, tunnel.to_postgres(self._house.postgres, self._source))
            return
        session = self._gate_session.id if self._gate_session is not None else ""
        passage = Passage(target.name, self._principal.identity, session, self._source)
        channel.inner = ClientConnection(self._house, self._options, passage)
        channel.process_open(peer, window, size, channel.inner)  # type: ignore[arg-type]  # asyncssh's connections are sessions
        for _ in self.clogs:
            channel.clog()

    def _process_gated_global_request(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        kind = requests.shown_name(packet.get_string())
        want_reply = packet.get_boolean()
        row = requests.find(Scope.GLOBAL, kind)
        if row.refused:
            detail = packet.get_remaining_payload()[:512].decode("utf-8", "backslashreplace")
            self.record(records.refused_request(Scope.GLOBAL, kind, detail=detail))
            if row.told is Told.NEXT_CHANNEL and row.sentence not in self._later:
                self._later.append(row.sentence)
        elif not self._asks.take(self._house.clock.monotonic_us()):
            self._why = str(Reason.LIMIT_REACHED)
            raise asyncssh.ProtocolError("interlock: too many requests")
        elif kind == "no-more-sessions@openssh.com":
            self._last_session = True
        if want_reply:
            self.send_packet(MSG_REQUEST_FAILURE)  # also to a keepalive: any answer says that we live (RFC 4254 §4)

    _packet_handlers = {  # noqa: RUF012
        **Visit._packet_handlers,
        MSG_CHANNEL_OPEN: _process_gated_open,
        MSG_GLOBAL_REQUEST: _process_gated_global_request,
    }

    # -- what channels ask ----------------------------------------------------------------------------------------

    def channel_opened(self, number: int, say: Callable[[str], None]) -> None:
        self.record(records.opened(number))
        while self._later:
            say(self._later.pop(0))

    def channel_closed(self, number: int, *, used: bool) -> None:
        if not used:
            self.record(records.closed(number, "refused", {}))

    def tunnel_closed(self, number: int) -> None:
        self.record(records.closed(number, "left", {}))

    def script_reader(self) -> bytes:
        assert self._upstream is not None
        return b"bash -s" if self._upstream.context().shell.rpartition("/")[2] == "bash" else b"sh -s"

    def execution(
        self, channel: int, text: bytes, env: tuple[tuple[str, str], ...], client: ClientSide, said: str, unended: str = ""
    ) -> Execution:
        session, upstream = self._gate_session, self._upstream
        assert session is not None
        assert upstream is not None
        return Execution(
            channel, text, env, session=session, upstream=upstream, client=client, limits=self._house.limits,
            context=upstream.context(), said=said, unended=unended,
        )  # fmt: skip

    def files(self, channel: int, client: ClientSide, said: str) -> FileSession:
        session, upstream = self._gate_session, self._upstream
        assert session is not None
        assert upstream is not None
        return FileSession(channel, session=session, upstream=upstream, client=client, limits=self._house.limits, said=said)
