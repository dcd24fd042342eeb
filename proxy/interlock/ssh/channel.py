"""One session channel of a client: which requests it may make, in what order, and how refusals are told.

asyncssh's own dispatcher is replaced, because it acts on requests one by one before anybody is asked, and offers no
place where a refusal could be recorded. This reaches into private parts of one pinned version; tests/ssh/test_asyncssh
breaks when they change, and a request that does not come this way finds no handler at all.
"""

from __future__ import annotations

import asyncio

import asyncssh
from asyncssh.constants import (
    EXTENDED_DATA_STDERR,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_SUCCESS,
    MSG_CHANNEL_WINDOW_ADJUST,
)
from asyncssh.packet import SSHPacket, UInt32

from interlock.ssh import records, refusals, requests
from interlock.ssh.carrier import Carrier
from interlock.ssh.exec import Execution, Phase
from interlock.ssh.limits import Limits
from interlock.ssh.records import STDERR
from interlock.ssh.requests import Row, Scope, Told
from interlock.ssh.sftp.session import FileSession


class ClientChannel(asyncssh.SSHServerChannel[bytes]):
    """A channel whose requests all pass through the table. Data waits until something was released."""

    def __init__(self, connection: Carrier, number: int, limits: Limits) -> None:
        self._carrier = connection
        self._limits = limits
        self._name = number
        self._desired: list[tuple[str, str]] = []
        self._said = ""  # INTERLOCK_REASON: for the reviewer, not for the target
        self._requests = 0
        self._after = 0
        self._spent = False  # the one exec, shell or subsystem of the channel was used
        self._outlet: ChannelOutlet | None = None
        self._execution: Execution | FileSession | None = None
        self._task: asyncio.Task[None] | None = None
        super().__init__(connection, asyncio.get_running_loop(), False, False, False, 0, 0, None, "strict",
                         limits.held_window, 32768)  # fmt: skip

    # -- asyncssh's dispatcher ------------------------------------------------------------------------------------

    def _process_gated_request(self, _pkttype: int, _pktid: int, packet: SSHPacket) -> None:
        if self._recv_state not in {"open", "eof_pending", "eof"}:
            raise asyncssh.ProtocolError("Channel not open")
        name = packet.get_string()
        want_reply = packet.get_boolean()
        granted = self._request(name, packet)
        if want_reply and self._send_state not in {"close_pending", "closed"}:
            self.send_packet(MSG_CHANNEL_SUCCESS if granted else MSG_CHANNEL_FAILURE)
        self._settle()

    def _process_gated_close(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        # asyncssh reports a close only after the data before it was taken, and a held channel takes none.
        self.client_left()
        self._recv_buf.clear()
        self._process_close(pkttype, pktid, packet)

    _packet_handlers = {  # noqa: RUF012
        **asyncssh.SSHServerChannel._packet_handlers,
        MSG_CHANNEL_REQUEST: _process_gated_request,
        MSG_CHANNEL_CLOSE: _process_gated_close,
    }

    # -- the table at work ----------------------------------------------------------------------------------------

    def _request(self, raw: bytes, packet: SSHPacket) -> bool:
        """Answer one request: True for success. Raise ProtocolError or PacketDecodeError when it is malformed."""
        self._requests += 1
        if self._requests > self._limits.channel_requests + self._after:
            self._carrier.refuse_limit(Scope.SESSION, "requests", self._name)
            return False
        if self._send_state in {"close_pending", "closed"}:
            return False  # sent before the client learned that we have ended the channel
        name = requests.shown_name(raw)
        row = requests.find(Scope.SESSION, name)
        match name:
            case "exec":
                return self._exec(packet)
            case "shell":
                return self._shell(packet)
            case "env":
                return self._env_request(packet)
            case "signal":
                return self._signal(packet)
            case "subsystem":
                return self._files(packet)
            case _ if row.refused:
                return self._refuse(row, request=name)
            case _:
                return False  # keepalive and eow: noted, nothing to do, and no success to claim

    def _exec(self, packet: SSHPacket) -> bool:
        text = packet.get_string()
        packet.check_end()
        if self._spent:
            return self._refuse(requests.find(Scope.SESSION, "*"), request="exec again")
        if len(text) > self._limits.command:
            self._spent = True
            self._carrier.refuse_limit(Scope.SESSION, "exec", self._name)
            self._end_with("the command is larger than can be shown to a reviewer; split it")
            return True
        if (row := requests.unoffered(text)) is not None:
            return self._refuse(row, detail=text[:4096].decode("utf-8", "backslashreplace"))
        self._execute(text)
        return True

    def _shell(self, packet: SSHPacket) -> bool:
        """A shell without a terminal reads a script: it is asked for like `bash -s`, and read to its end before it runs."""
        packet.check_end()
        if self._spent:
            return self._refuse(requests.find(Scope.SESSION, "*"), request="shell again")
        self._execute(self._carrier.script_reader(), unended=requests.NO_SHELL)
        return True

    def _execute(self, text: bytes, *, unended: str = "") -> None:
        self._spent = True
        self._after = self._limits.signals
        self._outlet = ChannelOutlet(self, self._carrier.clogs)
        env = tuple(sorted(dict(self._desired).items()))
        self._execution = self._carrier.execution(self._name, text, env, self._outlet, self._said, unended)

    def _files(self, packet: SSHPacket) -> bool:
        wanted = requests.shown_name(packet.get_string())
        packet.check_end()
        row = requests.subsystem(wanted)
        if row.refused:
            return self._refuse(row, detail=wanted)
        if self._spent:
            return self._refuse(requests.find(Scope.SESSION, "*"), request=f"{wanted} again")
        self._spent = True
        self._outlet = ChannelOutlet(self, self._carrier.clogs)
        self._execution = self._carrier.files(self._name, self._outlet, self._said)
        return True

    def _env_request(self, packet: SSHPacket) -> bool:
        name, value = packet.get_string(), packet.get_string()
        packet.check_end()
        if not self._spent and (said := requests.stated_reason(name, value)) is not None:
            self._said = said
            return True
        accepted = requests.accepted_env(name, value)
        if accepted is None or self._spent or len(self._desired) >= self._limits.env_count:
            detail = f"{name[:256].decode('utf-8', 'backslashreplace')}={value[:256].decode('utf-8', 'backslashreplace')}"
            self._carrier.record(records.refused_request(Scope.SESSION, "env", channel=self._name, detail=detail))
            return False
        self._desired.append(accepted)
        return True

    def _signal(self, packet: SSHPacket) -> bool:
        name = packet.get_string().decode("ascii", "replace")
        packet.check_end()
        if self._execution is not None and self._execution.signal(name):
            return True
        self._carrier.record(records.refused_request(Scope.SESSION, "signal", channel=self._name, detail=name[:32]))
        return False

    def _refuse(self, row: Row, *, request: str = "", detail: str = "") -> bool:
        """Record and tell a refusal. True only where success is the way to be heard (Told.EXIT)."""
        self._carrier.record(records.refused_request(Scope.SESSION, request or row.name, channel=self._name, detail=detail))
        match row.told:
            case Told.EXIT if not self._spent:
                self._spent = True
                self._end_with(row.sentence)
                return True
            case Told.STDERR:
                self.say(row.sentence)
            case _:
                pass
        return False

    # -- what the client hears ------------------------------------------------------------------------------------

    def say(self, sentence: str) -> None:
        """Write a line of ours to the client's stderr."""
        if self._send_state == "open":
            self.write(refusals.line(sentence), EXTENDED_DATA_STDERR)

    def _end_with(self, sentence: str) -> None:
        self.say(sentence)
        self._farewell = True

    _farewell = False

    def _settle(self) -> None:
        """After the answer to a request: start what was accepted, or end the channel."""
        if self._execution is not None and self._task is None:
            self._task = self._carrier.start(self._execution.run())
        elif self._farewell:
            self._farewell = False
            self.exit(refusals.DENIED)

    def widen(self, window: int) -> None:
        """Let the client send up to `window` bytes ahead (RFC 4254 §5.2)."""
        if window > self._init_recv_window and self._send_state == "open":
            self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(window - self._init_recv_window))
            self._recv_window += window - self._init_recv_window
            self._init_recv_window = window

    # -- the life of the channel ----------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        return self._name

    @property
    def execution(self) -> Execution | FileSession | None:
        return self._execution

    @property
    def outlet(self) -> ChannelOutlet | None:
        return self._outlet

    def client_left(self) -> None:
        """The client closed the channel or the connection: whatever is held or runs for it ends."""
        if self._outlet is not None:
            self._outlet.gone()
        if self._execution is not None and self._execution.phase is not Phase.ENDED and self._task is not None:
            self._task.cancel()


class ClientSession(asyncssh.SSHServerSession[bytes]):
    """asyncssh's callbacks for one channel, handed to its execution."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._chan: ClientChannel | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        assert isinstance(chan, ClientChannel)
        self._chan = chan
        self._carrier.channel_opened(chan.number, chan.say)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._chan is not None:
            self._chan.client_left()
            self._carrier.channel_closed(self._chan.number, used=self._chan.execution is not None)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._chan is not None and self._chan.execution is not None:
            self._chan.execution.input(data)

    def eof_received(self) -> bool:
        if self._chan is not None and self._chan.execution is not None:
            self._chan.execution.input_ended()
        return True

    def pause_writing(self) -> None:
        if self._chan is not None and self._chan.outlet is not None:
            self._chan.outlet.clog("channel")

    def resume_writing(self) -> None:
        if self._chan is not None and self._chan.outlet is not None:
            self._chan.outlet.free("channel")


class ChannelOutlet:
    """The channel as relay and execution see it (relay.ClientSide)."""

    def __init__(self, channel: ClientChannel, clogs: set[str]) -> None:
        self._channel = channel
        self._clogs = set(clogs)  # the connection may be full already
        self._drain: asyncio.Event | None = None
        self._gone = False

    @property
    def clogged(self) -> bool:
        return bool(self._clogs)

    def send(self, data: bytes, stream: int) -> None:
        if not self._gone and not self._channel.is_closing():
            self._channel.write(data, EXTENDED_DATA_STDERR if stream == STDERR else None)

    def send_eof(self) -> None:
        if not self._gone and not self._channel.is_closing():
            self._channel.write_eof()

    def hold_input(self) -> None:
        if not self._gone:
            self._channel.pause_reading()

    def let_input(self) -> None:
        if not self._gone:
            self._channel.resume_reading()

    def widen(self, window: int) -> None:
        if not self._gone:
            self._channel.widen(window)

    async def drained(self) -> None:
        if self._gone or not self._channel.get_write_buffer_size():
            return
        self._drain = asyncio.Event()
        self._channel.set_write_buffer_limits(0, 0)
        await self._drain.wait()

    def finish(self, status: int) -> None:
        if not self._gone:
            self.send_eof()
            self._channel.exit(status)

    def finish_by_signal(self, name: str, core: bool, message: str, lang: str) -> None:
        if not self._gone:
            self.send_eof()
            self._channel.exit_with_signal(name, core, message, lang)

    def clog(self, where: str) -> None:
        """Something between here and the client is full: the channel's window or the connection's socket."""
        self._clogs.add(where)
        if self._channel.execution is not None:
            self._channel.execution.output_clogged()

    def free(self, where: str) -> None:
        self._clogs.discard(where)
        if self._drain is not None and not self._channel.get_write_buffer_size():
            self._drain.set()
        if not self._clogs and self._channel.execution is not None:
            self._channel.execution.output_free()

    def gone(self) -> None:
        self._gone = True
        if self._drain is not None:
            self._drain.set()
