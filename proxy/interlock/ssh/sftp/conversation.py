"""What all parts of one SFTP conversation share: the client's ear, the target behind, the gate's session, the record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from interlock.approvals.wording import Refusal
from interlock.commands.model import Command, Kind, Wire
from interlock.commands.sftp import FileOperation, parse
from interlock.errors import EvidenceError, InterlockError, Reason, RemoteProtocolError, TargetError
from interlock.evidence.events import EventDraft
from interlock.gate import Pending, Release, Session
from interlock.ssh import records, refusals
from interlock.ssh.limits import Limits
from interlock.ssh.records import STDERR, STDOUT
from interlock.ssh.relay import ClientSide
from interlock.ssh.sftp import packets, translation
from interlock.ssh.sftp.asking import Asking
from interlock.ssh.sftp.handles import Content, Handle
from interlock.ssh.sftp.packets import Packet, Status, Type
from interlock.ssh.sftp.target import FarServer
from interlock.ssh.upstream import Route, Upstream


class Conversation:
    """`woken` is called when something broke behind the back of whoever waits for the client."""

    def __init__(
        self, channel: int, session: Session, upstream: Upstream, client: ClientSide, limits: Limits, said: str,
        woken: Callable[[], None],
    ) -> None:  # fmt: skip
        self.session = session
        self.limits = limits
        self._channel = channel
        self._upstream = upstream
        self._client = client
        self._said = said
        self._woken = woken
        self._route: Route | None = None
        self._broken: EvidenceError | None = None
        self.far: FarServer | None = None
        self.input_ended = asyncio.Event()
        self.sent = 0

    # -- the gate -------------------------------------------------------------------------------------------------

    def asking(self, *, anywhere: bool = False, room: bool = True) -> Asking:
        return Asking(self.tell, self.limits, pins=self._upstream.pins, said=self._said, anywhere=anywhere, room=room)

    def submit(self, operation: FileOperation, asking: Asking) -> Release | Pending:
        return self.session.submit(Command(Wire.SSH, Kind.FILE, operation.text), asking)

    async def settled(self, outcome: asyncio.Future[Release | Refusal], asking: Asking) -> Release | Refusal:
        """Wait for a decision. A client that has ended its input while a person is asked is gone: the request goes back."""
        left = asyncio.ensure_future(self._left(asking))
        try:
            either: set[asyncio.Future[Any]] = {outcome, left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if outcome.done():
                return outcome.result()
            await ended(outcome)
            return Refusal(Reason.APPROVAL_PENDING, "the client left before anything was sent")
        except asyncio.CancelledError:
            await ended(outcome)
            raise
        finally:
            left.cancel()

    async def _left(self, asking: Asking) -> None:
        await asking.held.wait()
        await self.input_ended.wait()

    # -- the target -----------------------------------------------------------------------------------------------

    async def reach(self, release: Release, number: int) -> FarServer | None:
        """Return the far side; the first release begins it. None: it can't be reached, and request `number` is answered."""
        if self.far is not None:
            self.sound()
            return self.far
        far = FarServer(lambda: self._client.clogged)
        try:
            self._route = await self._upstream.reach_files()
            await self._upstream.serve_files(
                self._route, far,
                lambda way: self.session.record(records.routed(self._channel, release.forward, way.about)),
            )  # fmt: skip
            await far.greet()
        except TargetError as error:
            far.close()
            self._leave()
            self.tell(refusals.lines(Refusal(error.code, str(error), error.next_step)))
            self.status(number, Status.NO_CONNECTION, str(error))
            return None
        self.far = far
        far.lost.add_done_callback(lambda _: self._woken())
        return far

    def sound(self) -> None:
        """Raise what broke meanwhile: the target went away, or the transcript can't be written."""
        if self._broken is not None:
            raise self._broken
        if self.far is not None and self.far.lost.done():
            problem = self.far.lost.result()
            if isinstance(problem, RemoteProtocolError):
                raise TargetError(f"the target broke the protocol: {problem}")
            raise TargetError("the connection to the target was lost; the outcome of what was not answered is unknown")

    def leave(self) -> None:
        """End the far side."""
        if self.far is not None:
            self.far.close()
        self._leave()

    def _leave(self) -> None:
        if self._route is not None:
            self._upstream.leave(self._route)
            self._route = None

    # -- the client -----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self._client.send(data, STDOUT)

    def answer(self, packet: Packet) -> None:
        self.send(packets.encode(packet))

    def status(self, number: int, code: Status, message: str = "") -> None:
        self.answer(packets.status(number, code, message))

    def tell(self, line: bytes) -> None:
        self._client.send(line, STDERR)

    def refuse(self, number: int, refusal: Refusal, *, again: bool = False) -> None:
        """OpenSSH's clients drop the words of a status, so they are told on stderr: once, not `again`."""
        if not again:
            self.tell(refusals.lines(refusal))
        self.status(number, Status.PERMISSION_DENIED, refusals.plain(refusal))

    # -- the record -----------------------------------------------------------------------------------------------

    def result(self, forward: int, answer: Packet) -> None:
        """Record what the target said of an operation."""
        code = answer.fields[0] if answer.type is Type.STATUS else Status.OK
        assert isinstance(code, int)
        self._record(records.file_result(forward, code))

    def content(self, handle: Handle, *, complete: bool) -> None:
        """Record what passed through a file. `complete`: the client closed it."""
        passed: list[tuple[str, Content, bool]] = [
            ("in", handle.written, handle.writable), ("out", handle.read, handle.readable and not handle.writable),
        ]  # fmt: skip
        for direction, content, meant in passed:
            if content.size or (complete and meant):
                self._record(records.file_content(handle.forward, direction, content.size, content.sha256, complete=complete))

    def _record(self, draft: EventDraft) -> None:
        try:
            self.session.record(draft)
        except EvidenceError as error:
            self._broken = error
            if self.far is not None:
                self.far.close()
            self._woken()


def released(release: Release, number: int) -> tuple[FileOperation, Packet]:
    """Read the released text back: what is sent to the target is made of it and of nothing else."""
    operation = parse(release.payload.decode("utf-8"))
    if operation is None:
        raise InterlockError("a file operation was released that can't be read back", reason=Reason.INTERNAL)
    return operation, translation.request(operation, number)


async def ended(outcome: asyncio.Future[Release | Refusal]) -> None:
    """Cancel a decision that nobody waits for any more, and wait until its request is handed back."""
    outcome.cancel()
    await asyncio.gather(outcome, return_exceptions=True)
