"""The SFTP server at the target, as its client sees it: requests with numbers of our own, answers matched to them.

What it answers is data: an answer of a kind that the request can't have ends the conversation, and nothing that it says
widens what the client may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import asyncssh

from interlock.errors import RemoteProtocolError, TargetError
from interlock.ssh.sftp import packets
from interlock.ssh.sftp.packets import Frames, Packet, Type

OUTSTANDING = 1024
"""Requests that wait for their answers at once; OpenSSH's own client keeps 64."""

Then = Callable[[Packet], None]

_ANSWERS: dict[Type, frozenset[Type]] = {
    Type.OPEN: frozenset({Type.HANDLE}), Type.OPENDIR: frozenset({Type.HANDLE}), Type.READ: frozenset({Type.DATA}),
    Type.READDIR: frozenset({Type.NAME}), Type.REALPATH: frozenset({Type.NAME}), Type.READLINK: frozenset({Type.NAME}),
    Type.STAT: frozenset({Type.ATTRS}), Type.LSTAT: frozenset({Type.ATTRS}), Type.FSTAT: frozenset({Type.ATTRS}),
    Type.EXTENDED: frozenset({Type.EXTENDED_REPLY, Type.NAME}),
}  # fmt: skip
"""What may be answered besides STATUS."""


class FarServer(asyncssh.SSHClientSession[bytes]):
    """One SFTP conversation with a target. `lost` resolves when it is over, with what went wrong or None."""

    def __init__(self, clogged: Callable[[], bool]) -> None:
        """`clogged` says whether the client does not take what it gets: then the target is not read."""
        self._clogged = clogged
        self._chan: asyncssh.SSHClientChannel[bytes] | None = None
        self._frames = Frames()
        self._waiting: dict[int, tuple[Type, Then]] = {}
        self._number = 0
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()
        self._full: set[str] = set()
        self._held = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    async def greet(self) -> None:
        """Exchange versions. Raise TargetError when the target speaks no SFTP."""
        self._write(packets.version(Type.INIT, {}))
        await self._first(self._greeted)
        if not self._greeted.done():
            raise TargetError("the target offers no SFTP: ask its administrator for `Subsystem sftp` in sshd_config")

    def ask(self, request: Packet, then: Then) -> None:
        """Send a request under a number of ours; `then` gets the answer under the number of the request."""
        self._number = (self._number + 1) & 0xFFFFFFFF
        theirs = request.id
        self._idle.clear()
        self._waiting[self._number] = (request.type, lambda answer: then(replace(answer, id=theirs)))
        if len(self._waiting) >= OUTSTANDING:
            self._full.add("answers")
            self._room.clear()
        self._write(packets.encode(replace(request, id=self._number)))

    async def answer_to(self, request: Packet) -> Packet:
        """Send a request and wait for its answer. Raise TargetError when the target goes away."""
        answer: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        self.ask(request, lambda packet: None if answer.done() else answer.set_result(packet))
        await self._first(answer)
        if not answer.done():
            raise TargetError("the connection to the target was lost")
        return answer.result()

    async def answered(self) -> None:
        """Return once everything that was asked is answered, or the target is gone."""
        idle = asyncio.ensure_future(self._idle.wait())
        await self._first(idle)
        idle.cancel()

    async def room(self) -> None:
        """Return once the target takes requests, or is gone."""
        if self._full:
            room = asyncio.ensure_future(self._room.wait())
            await self._first(room)
            room.cancel()

    def close(self) -> None:
        if self._chan is not None:
            self._chan.abort()

    def hold_output(self) -> None:
        self._held = True
        if self._chan is not None:
            self._chan.pause_reading()

    def let_output(self) -> None:
        if self._held:
            self._held = False
            if self._chan is not None:
                self._chan.resume_reading()

    # -- asyncssh calls -------------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHClientChannel[Any]) -> None:
        self._chan = chan
        for where in chan.get_extra_info("clogs", ()):
            self.input_clogged(where)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            return  # sshd's complaints on stderr are for its own administrator
        self._frames.feed(data)
        try:
            while not self.lost.done() and (body := self._frames.next()) is not None:
                self._answered(body)
        except RemoteProtocolError as error:
            self._over(error)
            self.close()
        if self._clogged():
            self.hold_output()

    def pause_writing(self) -> None:
        self.input_clogged("channel")

    def resume_writing(self) -> None:
        self.input_free("channel")

    def input_clogged(self, where: str) -> None:
        self._full.add(where)
        self._room.clear()

    def input_free(self, where: str) -> None:
        self._full.discard(where)
        if not self._full:
            self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        self._over(exc)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _first(self, awaited: asyncio.Future[Any]) -> None:
        """Return once this has happened, or the conversation is over."""
        either: set[asyncio.Future[Any]] = {awaited, self.lost}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)

    def _answered(self, body: bytes) -> None:
        if not self._greeted.done():
            number, _ = packets.version_of(body, Type.VERSION)
            if number != packets.VERSION:
                raise RemoteProtocolError(f"the target speaks version {number} of SFTP")
            self._greeted.set_result(None)
            return
        answer = packets.decode(body, packets.REPLIES)
        asked = self._waiting.pop(answer.id, None)
        if asked is None:
            raise RemoteProtocolError("an SFTP answer that was not asked for")
        if "answers" in self._full and len(self._waiting) < OUTSTANDING // 2:
            self.input_free("answers")
        kind, then = asked
        if answer.type is not Type.STATUS and answer.type not in _ANSWERS.get(kind, frozenset()):
            raise RemoteProtocolError(f"an SFTP answer of type {answer.type.name} to {kind.name}")
        then(answer)
        if not self._waiting:
            self._idle.set()

    def _write(self, data: bytes) -> None:
        if self._chan is not None and not self._chan.is_closing():
            self._chan.write(data)

    def _over(self, problem: Exception | None) -> None:
        self._waiting.clear()
        if not self.lost.done():
            self.lost.set_result(problem)
