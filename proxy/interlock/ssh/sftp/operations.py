"""Operations on paths: where they lead, whether they may, and what the target says of them.

Links are followed at the target before anything is decided, and what a path leads to is decided together with the path
itself: a link widens nothing. (It may be changed between the question and the operation. The operation is then done at
the place that was decided, unless a folder on the way has become a link: the account's own rights are the floor.)
"""

from __future__ import annotations

import asyncio
import posixpath
from functools import partial
from typing import Any

from interlock.approvals.wording import Refusal
from interlock.commands.programs.paths import normal
from interlock.commands.sftp import FileOperation
from interlock.gate import Release
from interlock.ssh.sftp import packets, translation
from interlock.ssh.sftp.asking import Asking
from interlock.ssh.sftp.conversation import Conversation, ended, released
from interlock.ssh.sftp.handles import Handle, Handles
from interlock.ssh.sftp.packets import Packet, Status, Type
from interlock.ssh.sftp.uploads import Uploads


class Operations:
    """Decides and carries out the operations of one conversation, one after the other."""

    def __init__(self, conversation: Conversation, handles: Handles, uploads: Uploads) -> None:
        self._with = conversation
        self._handles = handles
        self._uploads = uploads

    async def operate(self, packet: Packet, operation: FileOperation) -> None:
        """Decide one operation, carry it out when it was released, and answer its request."""
        if packet.type in (Type.OPEN, Type.OPENDIR) and self._handles.full:
            self._with.status(packet.id, Status.FAILURE, "too many files are open: close some")
            return
        led = await self._led(packet, operation)
        if led is None:
            return
        asking = self._with.asking(anywhere=led.verb == "append", room=packet.type is not Type.OPEN or self._uploads.room)
        answer = self._with.submit(led, asking)
        if isinstance(answer, Release):
            await self._carry_out(packet, answer)
            return
        outcome = asyncio.ensure_future(answer.outcome())
        if await self._staged(outcome, asking):
            self._uploads.begin(packet, led, asking, outcome)
            return
        match await self._with.settled(outcome, asking):
            case Refusal() as refusal:
                self._with.refuse(packet.id, refusal)
            case Release() as release:
                await self._carry_out(packet, release)

    @staticmethod
    async def _staged(outcome: asyncio.Future[Release | Refusal], asking: Asking) -> bool:
        """Wait until the decision is there, a person is asked, or (True) what an upload will hold must be seen."""
        steps = [asyncio.ensure_future(event.wait()) for event in (asking.staging, asking.held)]
        first: set[asyncio.Future[Any]] = {outcome, *steps}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await ended(outcome)
            raise
        finally:
            for step in steps:
                step.cancel()
        return asking.staging.is_set() and not outcome.done()

    async def _led(self, packet: Packet, operation: FileOperation) -> FileOperation | None:
        """Return the operation with where its paths lead. None when finding that out was refused: it is answered then."""
        leads: list[str] = []
        for index, path in enumerate(operation.paths):
            if operation.verb in ("realpath", "expand") or (operation.verb == "symlink" and index == 0):
                leads.append("")  # that is the question itself; and what a link says is no place yet
                continue
            folder, name = posixpath.split(path.rstrip("/") or path)
            follow = operation.verb in translation.FOLLOWS or name in ("", ".", "..")
            place = await self._resolved(packet, path if follow else folder or ".")
            if place is None:
                return None
            if place and not follow:
                place = posixpath.join(place, name)
            leads.append("" if place == normal(path) else place)
        first, second = (*leads, "")[:2]
        return operation.with_options(resolved=first, resolved_to=second)

    async def _resolved(self, packet: Packet, path: str) -> str | None:
        """Ask the target where a path leads: an operation of its own. "" when it leads nowhere that the target could say."""
        asking = self._with.asking()
        answer = self._with.submit(FileOperation("realpath", (path,)), asking)
        if isinstance(answer, Release):
            outcome: Release | Refusal = answer
        else:
            outcome = await self._with.settled(asyncio.ensure_future(answer.outcome()), asking)
        if isinstance(outcome, Refusal):
            self._with.refuse(packet.id, outcome)
            return None
        far = await self._with.reach(outcome, packet.id)
        if far is None:
            return None
        _, request = released(outcome, packet.id)
        reply = await far.answer_to(request)
        self._with.result(outcome.forward, reply)
        place = packets.only_name(reply)
        return place.decode("utf-8", "surrogateescape") if place is not None and place.startswith(b"/") else ""

    async def _carry_out(self, packet: Packet, release: Release) -> None:
        far = await self._with.reach(release, packet.id)
        if far is None:
            return
        operation, request = released(release, packet.id)
        if packet.type is Type.FSETSTAT:
            name = packet.fields[0]
            handle = self._handles.get(name) if isinstance(name, bytes) else None
            assert handle is not None
            request = Packet(Type.FSETSTAT, packet.id, (handle.far, translation.attributes(operation)))
        far.ask(request, partial(self._answered, operation, release.forward))

    def _answered(self, operation: FileOperation, forward: int, answer: Packet) -> None:
        """Pass on the answer to an operation. A handle of the target's becomes one of ours."""
        self._with.result(forward, answer)
        if answer.type is Type.HANDLE:
            (far,) = answer.fields
            assert isinstance(far, bytes)
            answer = Packet(Type.HANDLE, answer.id, (self._handles.give(Handle(operation, forward, far)),))
        self._with.answer(answer)
