"""The bridge between one channel at the target and one channel of the client: recorded first, then passed on.

Every read of the target is in the transcript before its bytes go on; when the transcript can't be written the relay
stops. Each direction is held back while the other side does not take what it has. What the target prints is data:
nothing here looks into it (design/ssh.md: no security state may depend on what the target prints).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR

from interlock.errors import EvidenceError
from interlock.ssh.records import STDERR, STDOUT


class ClientSide(Protocol):
    """The client's channel as relay and execution see it."""

    def send(self, data: bytes, stream: int) -> None:
        """Queue bytes for stdout (1) or stderr (2)."""
        ...

    def send_eof(self) -> None: ...

    @property
    def clogged(self) -> bool:
        """True while the client does not take what is queued."""
        ...

    def hold_input(self) -> None: ...

    def let_input(self) -> None: ...

    def widen(self, window: int) -> None:
        """Let the client send up to `window` bytes ahead of what was read."""
        ...

    async def drained(self) -> None:
        """Return once everything queued was sent. Returns at once when the channel is gone."""
        ...

    def finish(self, status: int) -> None: ...

    def finish_by_signal(self, name: str, core: bool, message: str, lang: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How the target's channel ended. Neither status nor signal: the connection was lost and the outcome is unknown."""

    status: int | None = None
    signal: tuple[str, bool, str, str] | None = None
    failure: Exception | None = None


class Relay(asyncssh.SSHClientSession[bytes]):
    """Carries one command. `ended` resolves when the target's channel is closed and all its data was passed on."""

    def __init__(self, client: ClientSide, record: Callable[[int, bytes], None]) -> None:
        self._client = client
        self._record = record
        self._chan: asyncssh.SSHClientChannel[bytes] | None = None
        self._status: int | None = None
        self._signal: tuple[str, bool, str, str] | None = None
        self._broken: EvidenceError | None = None
        self._held = False
        self._full: set[str] = set()
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.sent = {STDOUT: 0, STDERR: 0}

    # -- from the target (asyncssh calls) -------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._chan = chan
        if self._client.clogged:
            self.hold_output()
        for where in chan.get_extra_info("clogs", ()):
            self.input_clogged(where)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if self._broken is not None:
            return
        stream = STDERR if datatype == EXTENDED_DATA_STDERR else STDOUT
        try:
            self._record(stream, data)
        except EvidenceError as error:
            self._broken = error
            self.abort()
            return
        self.sent[stream] += len(data)
        self._client.send(data, stream)

    def eof_received(self) -> bool:
        # The client's EOF goes out with the exit status: lines of ours may still have to go to stderr.
        return True

    def exit_status_received(self, status: int) -> None:
        # Comes before data that asyncssh still buffers: kept until the channel is closed (performance.md).
        self._status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._signal = (signal, core_dumped, msg, lang)

    def pause_writing(self) -> None:
        self.input_clogged("channel")

    def resume_writing(self) -> None:
        self.input_free("channel")

    def input_clogged(self, where: str) -> None:
        """Something on the way to the target is full: the channel's window or the connection's socket."""
        self._full.add(where)
        self._client.hold_input()

    @property
    def full(self) -> bool:
        """Whether the way to the target takes nothing now."""
        return bool(self._full)

    def input_free(self, where: str) -> None:
        self._full.discard(where)
        if not self._full:
            self._client.let_input()

    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        if not self.ended.done():
            self.ended.set_result(Ending(self._status, self._signal, self._broken or exc))

    # -- from the client ------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Pass bytes to the command's standard input. What comes after it ended is dropped."""
        if self._chan is not None and not self._chan.is_closing():
            self._chan.write(data)

    def feed_eof(self) -> None:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.write_eof()

    def hold_output(self) -> None:
        self._held = True
        if self._chan is not None:
            self._chan.pause_reading()

    def let_output(self) -> None:
        if self._held:
            self._held = False
            if self._chan is not None:
                self._chan.resume_reading()

    def signal(self, name: str) -> None:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.send_signal(name)

    def abort(self) -> None:
        """End the target's channel at once: the command is signalled, its data dropped."""
        chan: asyncssh.SSHClientChannel[Any] | None = self._chan
        if chan is not None:
            if not chan.is_closing():
                chan.send_signal("TERM")
            chan.abort()
