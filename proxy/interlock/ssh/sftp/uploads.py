"""Uploads that a person must see, from the client's OPEN to its CLOSE (stage.py says why)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from interlock.approvals.wording import Refusal
from interlock.commands.sftp import FileOperation
from interlock.gate import Release
from interlock.ssh.sftp import packets, translation
from interlock.ssh.sftp.asking import Asking
from interlock.ssh.sftp.conversation import Conversation, ended, released
from interlock.ssh.sftp.handles import Handle, Handles
from interlock.ssh.sftp.packets import Attrs, Packet, Status, Type
from interlock.ssh.sftp.target import FarServer

MAX_STAGED = 8
"""Uploads that wait for a person at once; each keeps as much as may be shown."""
PIECE = 32 * 1024
"""Bytes of one WRITE: what every server takes (§3)."""

Operate = Callable[[Packet, FileOperation], Awaitable[None]]


class Uploads:
    """The staged files of one conversation."""

    def __init__(self, conversation: Conversation, handles: Handles) -> None:
        self._with = conversation
        self._handles = handles
        self._waiting: dict[bytes, tuple[Asking, asyncio.Future[Release | Refusal]]] = {}

    @property
    def room(self) -> bool:
        return len(self._waiting) < MAX_STAGED

    def begin(self, packet: Packet, operation: FileOperation, asking: Asking, outcome: asyncio.Future[Release | Refusal]) -> None:
        """Tell the client that its file is open. `outcome` waits for what it will hold."""
        name = self._handles.give(Handle(operation, 0, stage=asking.stage))
        self._waiting[name] = (asking, outcome)
        self._with.answer(Packet(Type.HANDLE, packet.id, (name,)))

    async def end(self) -> None:
        """The conversation is over: hand back what still waits."""
        for _, outcome in self._waiting.values():
            await ended(outcome)

    async def take(self, packet: Packet, name: bytes, handle: Handle, operate: Operate) -> None:
        """Answer one request on a staged file. `operate` is for what is left to do once it is there."""
        stage = handle.stage
        assert stage is not None
        asking, outcome = self._waiting[name]
        match packet.type, packet.fields:
            case Type.CLOSE, _:
                stage.close()
                asking.arrived()
                self._handles.forget(name)
                del self._waiting[name]
                await self._close(packet, handle, asking, outcome, operate)
            case _ if outcome.done() and isinstance(refusal := outcome.result(), Refusal):
                self._refuse(packet, handle, refusal)
            case Type.WRITE, (_, int() as offset, bytes() as data):
                stage.write(offset, data)
                asking.arrived()
                self._with.status(packet.id, Status.OK)
            case Type.FSETSTAT, (_, Attrs() as attrs):
                stage.change(attrs)
                asking.arrived()
                self._with.status(packet.id, Status.OK)
            case Type.FSTAT, _:
                self._with.answer(packets.attributes(packet.id, Attrs(size=stage.held.size)))
            case Type.EXTENDED, _:
                self._with.status(packet.id, Status.OK)  # fsync: there is nothing on a disk yet
            case _:
                self._with.status(packet.id, Status.PERMISSION_DENIED, "the file was not opened for that")

    async def _close(
        self,
        packet: Packet,
        handle: Handle,
        asking: Asking,
        outcome: asyncio.Future[Release | Refusal],
        operate: Operate,
    ) -> None:
        """Wait for the answer; then open, write and close at the target, and answer the CLOSE with how that went."""
        settled = await self._with.settled(outcome, asking)
        if isinstance(settled, Refusal):
            self._refuse(packet, handle, settled)
            return
        far = await self._with.reach(settled, packet.id)
        if far is None:
            return
        operation, request = released(settled, packet.id)
        opened = await far.answer_to(request)
        self._with.result(settled.forward, opened)
        if opened.type is not Type.HANDLE or not isinstance(opened.fields[0], bytes):
            self._with.answer(opened)
            return
        handle.far, handle.forward = opened.fields[0], settled.forward
        problem = await self._write(far, handle, settled.stdin.data if settled.stdin is not None else b"")
        closed = await far.answer_to(Packet(Type.CLOSE, packet.id, (handle.far,)))
        self._with.content(handle, complete=problem is None)
        assert handle.stage is not None
        if problem is None and handle.stage.later:
            # What the client wanted of the file while it was staged is asked for now, as an operation of its own.
            await operate(packet, translation.on_handle(operation.places[0], handle.stage.changes))
            return
        self._with.answer(closed if problem is None else packets.status(packet.id, Status.FAILURE, problem))

    async def _write(self, far: FarServer, handle: Handle, data: bytes) -> str | None:
        """Write all of it; return what the target said when it did not take it."""
        for offset in range(0, len(data), PIECE):
            piece = data[offset : offset + PIECE]
            answer = await far.answer_to(Packet(Type.WRITE, 0, (handle.far, offset, piece)))
            if answer.fields[0] != Status.OK:
                return "the target did not take all of the file"
            handle.written.passed(offset, piece)
        return None

    def _refuse(self, packet: Packet, handle: Handle, refusal: Refusal) -> None:
        assert handle.stage is not None
        self._with.refuse(packet.id, refusal, again=handle.stage.refused)
        handle.stage.refused = True
