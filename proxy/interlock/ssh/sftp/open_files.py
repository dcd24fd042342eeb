"""Requests on open files and folders: part of what was decided when they were opened, and nothing beyond it."""

from __future__ import annotations

from functools import partial

from interlock.ssh.sftp import packets, translation
from interlock.ssh.sftp.conversation import Conversation
from interlock.ssh.sftp.handles import Handle, Handles
from interlock.ssh.sftp.operations import Operations
from interlock.ssh.sftp.packets import Attrs, Packet, Status, Type
from interlock.ssh.sftp.uploads import Uploads

MAX_READ = 255 * 1024
"""Bytes that one READ may ask for; a longer one gets as much, as §6.4 allows."""


class OpenFiles:
    """Passes requests on without waiting for their answers: a transfer keeps many in flight."""

    def __init__(self, conversation: Conversation, handles: Handles, operations: Operations, uploads: Uploads) -> None:
        self._with = conversation
        self._handles = handles
        self._operations = operations
        self._uploads = uploads

    async def take(self, packet: Packet, name: bytes) -> None:
        handle = self._handles.get(name)
        if handle is None:
            self._with.status(packet.id, Status.FAILURE, "there is no such handle")
        elif handle.stage is not None:
            await self._uploads.take(packet, name, handle, self._operations.operate)
        elif packet.type is not Type.CLOSE and (stopped := self._with.session.stopped()) is not None:
            self._with.refuse(packet.id, stopped)
        elif packet.type is Type.FSETSTAT and isinstance(attrs := packet.fields[1], Attrs) and not _only_cuts(handle, attrs):
            await self._operations.operate(packet, translation.on_handle(handle.operation.places[0], attrs))
        else:
            self._pass_on(packet, name, handle)

    def _pass_on(self, packet: Packet, name: bytes, handle: Handle) -> None:
        far, answer = self._with.far, self._with.answer
        assert far is not None
        number = packet.id
        match packet.type, packet.fields:
            case Type.READ, (_, int() as offset, int() as length) if handle.readable:
                request = Packet(Type.READ, number, (handle.far, offset, min(length, MAX_READ)))
                far.ask(request, partial(self._read, handle, offset))
            case Type.WRITE, (_, int() as offset, bytes() as data) if handle.writable:
                handle.written.passed(offset, data, anywhere=handle.operation.verb == "append")
                far.ask(Packet(Type.WRITE, number, (handle.far, offset, data)), answer)
            case Type.FSETSTAT, (_, Attrs() as attrs):
                far.ask(Packet(Type.FSETSTAT, number, (handle.far, attrs)), answer)
            case Type.READDIR, _ if handle.listing:
                far.ask(Packet(Type.READDIR, number, (handle.far,)), answer)
            case Type.FSTAT, _:
                far.ask(Packet(Type.FSTAT, number, (handle.far,)), answer)
            case Type.EXTENDED, _ if handle.writable:
                sync = (b"fsync@openssh.com", packets.payload(handle.far))
                far.ask(Packet(Type.EXTENDED, number, sync), answer)
            case Type.CLOSE, _:
                self._handles.forget(name)
                far.ask(Packet(Type.CLOSE, number, (handle.far,)), partial(self._closed, handle))
            case _:
                self._with.status(number, Status.PERMISSION_DENIED, "the file was not opened for that")

    def _read(self, handle: Handle, offset: int, answer: Packet) -> None:
        if answer.type is Type.DATA and isinstance(answer.fields[0], bytes):
            handle.read.passed(offset, answer.fields[0])
        self._with.answer(answer)

    def _closed(self, handle: Handle, answer: Packet) -> None:
        self._with.content(handle, complete=True)
        self._with.answer(answer)


def _only_cuts(handle: Handle, attrs: Attrs) -> bool:
    """Whoever may write a file may cut it: scp ends every upload with its size."""
    return handle.writable and attrs.size is not None and attrs == Attrs(size=attrs.size)
