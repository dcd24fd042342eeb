"""One SFTP conversation: a server towards the client, every operation on a path through the gate, a client behind.

    request            what becomes of it
    names a path       an operation: resolved at the target, decided, recorded, made anew and sent (operations.py)
    names a handle     part of what was decided when the handle was opened (open_files.py)
    FSETSTAT           an operation on the path that was opened
    an upload that a   its content stays here until CLOSE, is shown, decided, and sent whole (uploads.py)
    person must see
    anything else      unsupported

Requests are taken in the client's order. An operation that waits stops those behind it.
"""

from __future__ import annotations

import asyncio

import structlog

from interlock.errors import SENTENCES, EvidenceError, InterlockError, Reason, RemoteProtocolError
from interlock.evidence.events import Json
from interlock.gate import Session
from interlock.ssh import records, refusals
from interlock.ssh.exec import Phase
from interlock.ssh.limits import Limits
from interlock.ssh.relay import ClientSide
from interlock.ssh.sftp import packets, translation
from interlock.ssh.sftp.conversation import Conversation
from interlock.ssh.sftp.handles import Handles
from interlock.ssh.sftp.open_files import MAX_READ, OpenFiles
from interlock.ssh.sftp.operations import Operations
from interlock.ssh.sftp.packets import Frames, Packet, Status, Type
from interlock.ssh.sftp.uploads import Uploads
from interlock.ssh.upstream import Upstream

log = structlog.get_logger()

AHEAD = 1024 * 1024
"""Bytes of requests that are kept unread before the client is held back."""

_LIMITS = b"".join(n.to_bytes(8, "big") for n in (packets.MAX_PACKET, MAX_READ, MAX_READ, 0))


class FileSession:
    """Serves one channel. `run` is awaited in a task of its own; cancelling it means the client left."""

    def __init__(
        self, channel: int, *, session: Session, upstream: Upstream, client: ClientSide, limits: Limits, said: str = ""
    ) -> None:
        self._channel = channel
        self._session = session
        self._client = client
        self._window = limits.stream_window
        self._frames = Frames()
        self._arrived = asyncio.Event()
        self._held_back = False
        self._received = 0
        self._handles = Handles()
        self._with = Conversation(channel, session, upstream, client, limits, said, self._arrived.set)
        self._uploads = Uploads(self._with, self._handles)
        self._operations = Operations(self._with, self._handles, self._uploads)
        self._open_files = OpenFiles(self._with, self._handles, self._operations, self._uploads)
        self.phase = Phase.DECIDING

    # -- the channel ----------------------------------------------------------------------------------------------

    def input(self, data: bytes) -> None:
        self._received += len(data)
        self._frames.feed(data)
        self._arrived.set()
        if self._frames.buffered > AHEAD and not self._held_back:
            self._held_back = True
            self._client.hold_input()

    def input_ended(self) -> None:
        self._with.input_ended.set()
        self._arrived.set()

    def signal(self, _name: str) -> bool:
        return False

    def output_clogged(self) -> None:
        if self._with.far is not None:
            self._with.far.hold_output()

    def output_free(self) -> None:
        if self._with.far is not None:
            self._with.far.let_output()

    async def run(self) -> None:
        """Serve until the client has ended. Never raises but CancelledError."""
        self.phase = Phase.RUNNING
        ended, status, problem = "exit", 0, ""
        try:
            self._client.widen(self._window)
            self._client.let_input()
            await self._converse()
        except RemoteProtocolError as error:
            ended, status, problem = "failed", refusals.FAILED, str(error)
        except InterlockError as error:
            ended, status, problem = "lost", refusals.FAILED, str(error)
        except asyncio.CancelledError:
            await self._end("left", None)
            raise
        except Exception:
            log.exception("ssh.sftp.failed", session=self._session.id)
            ended, status, problem = "failed", refusals.FAILED, SENTENCES[Reason.INTERNAL]
        if problem:
            self._with.tell(refusals.line(problem))
        await self._end(ended, status)

    async def _end(self, ended: str, status: int | None) -> None:
        self.phase = Phase.ENDED
        await self._uploads.end()
        self._with.leave()
        fields: dict[str, Json] = {"in": self._received, "out": self._with.sent, "err": 0}
        if status is not None:
            fields["exit_status"] = status
        for handle in self._handles.all():
            self._with.content(handle, complete=False)
        try:
            self._session.record(records.closed(self._channel, ended, fields))
        except EvidenceError as error:
            log.error("ssh.record.failed", session=self._session.id, reason=str(error.code))
        if status is not None:
            self._client.finish(status)

    # -- the conversation -----------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        first = await self._next()
        if first is None:
            return
        number, _ = packets.version_of(first, Type.INIT)
        if number < packets.VERSION:
            raise RemoteProtocolError(f"version {number} of SFTP is not spoken here; version 3 is")
        self._with.send(packets.version(Type.VERSION, translation.EXTENSIONS))
        while (body := await self._next()) is not None:
            await self._serve(packets.decode(body, packets.REQUESTS))
            if self._with.far is not None:
                await self._with.far.room()
        if self._with.far is not None:
            await self._with.far.answered()

    async def _next(self) -> bytes | None:
        """Return the client's next packet, or None when no more come."""
        while True:
            self._with.sound()
            body = self._frames.next()
            if self._held_back and self._frames.buffered <= AHEAD // 2:
                self._held_back = False
                self._client.let_input()
            if body is not None:
                return body
            if self._with.input_ended.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()

    async def _serve(self, packet: Packet) -> None:
        operation = translation.operation(packet)
        if operation is not None:
            await self._operations.operate(packet, operation)
            return
        match packet.type, packet.fields:
            case Type.EXTENDED, (b"limits@openssh.com", *_):
                self._with.answer(Packet(Type.EXTENDED_REPLY, packet.id, (_LIMITS,)))
            case Type.EXTENDED, (b"fsync@openssh.com", bytes() as payload):
                (name,) = packets.strings(payload, 1)
                await self._open_files.take(packet, name)
            case ((Type.CLOSE | Type.READ | Type.WRITE | Type.FSTAT | Type.FSETSTAT | Type.READDIR), (bytes() as name, *_)):
                await self._open_files.take(packet, name)
            case _:
                self._with.status(packet.id, Status.OP_UNSUPPORTED, "this request is not offered here")
