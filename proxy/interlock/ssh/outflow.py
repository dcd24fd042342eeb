"""What goes out to a client, and when it has to wait: no client can make the proxy keep more than it takes.

    socket         the client does not read: everything waits, on every channel that there is and on those to come
    key exchange   asyncssh keeps what is sent meanwhile in a list without a bound, so nothing may come to be sent
    tunnel         one of the two, of the connection that this one came through

While all output is held back only our own answers can pile up, for a client that asks and does not listen: they have a
bound. Each key exchange has a deadline, the first and every later one, so that none is left unfinished on purpose.

Knows connections and channels. Must not know who the client is.
"""

from __future__ import annotations

import asyncio

import asyncssh
import structlog

from interlock.errors import Reason
from interlock.ssh.carrier import Carrier
from interlock.ssh.channel import ClientChannel
from interlock.ssh.limits import Limits
from interlock.ssh.tunnel import TunnelChannel

log = structlog.get_logger()


class Outflow(Carrier):
    """The half of a client connection that holds back."""

    def __init__(self, limits: Limits, options: asyncssh.SSHServerConnectionOptions) -> None:
        self._limits = limits
        self._why = "closed"
        self._keying: asyncio.TimerHandle | None = None
        self.clogs: set[str] = set()
        super().__init__(asyncio.get_running_loop(), options)

    def _session_channels(self) -> list[ClientChannel]:
        return [chan for chan in self._channels.values() if isinstance(chan, ClientChannel)]

    def _tunnels(self) -> list[TunnelChannel]:
        return [chan for chan in self._channels.values() if isinstance(chan, TunnelChannel)]

    # -- what waits -----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.clog("socket")

    def resume_writing(self) -> None:
        self.free("socket")

    def clog(self, where: str) -> None:
        """Hold back what goes to the client. `channel.ChannelOutlet` and `_open_tunnel` ask `clogs` when they begin."""
        self.clogs.add(where)
        for channel in self._session_channels():
            if channel.outlet is not None:
                channel.outlet.clog(where)
        for passage in self._tunnels():
            passage.clog()

    def free(self, where: str) -> None:
        self.clogs.discard(where)
        for channel in self._session_channels():
            if channel.outlet is not None:
                channel.outlet.free(where)
        if not self.clogs:
            for passage in self._tunnels():
                passage.free()

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        super().data_received(data, datatype)
        if self.clogs:
            self._check_unsent()

    def _check_unsent(self) -> None:
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if waiting > self._limits.unsent or len(self._deferred_packets) > self._limits.deferred:
            log.info("ssh.client.never_listens")
            self._why = str(Reason.LIMIT_REACHED)
            self.abort()

    # -- key exchange ---------------------------------------------------------------------------------------------

    def expect_keys(self) -> None:
        """A key exchange has begun, or has to: it ends within the deadline, or the connection does."""
        if self._keying is None:
            self._keying = self._loop.call_later(self._limits.handshake, self._too_slow)

    def _too_slow(self) -> None:
        self._why = "handshake-deadline"
        self.abort()

    def _send_kexinit(self) -> None:
        self.expect_keys()
        self.clog("key exchange")
        super()._send_kexinit()

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        super().send_newkeys(k, h)
        self._forget_keys()
        self.free("key exchange")

    def _forget_keys(self) -> None:
        if self._keying is not None:
            self._keying.cancel()
            self._keying = None

    def _cleanup(self, exc: Exception | None) -> None:
        self._forget_keys()
        super()._cleanup(exc)
