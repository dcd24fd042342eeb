"""One file operation in front of the gate: its `Caller`. Says what an SFTP client can wait for, and stages uploads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from interlock.approvals.wording import Notice, Refusal
from interlock.commands.model import Analysis, Command, HeldInput
from interlock.errors import InputError, Reason
from interlock.ssh import refusals
from interlock.ssh.limits import Limits
from interlock.ssh.sftp.stage import Stage

UNPINNABLE = (
    "this target enforces what was approved by certificate, and a file operation can't be in one; "
    "write a file with: ssh TARGET 'tee FILE' < file"
)


class Asking:
    """`staging` is set once the gate wants to see what an upload holds, `held` once a person is asked."""

    def __init__(
        self, say: Callable[[bytes], None], limits: Limits, *, pins: bool, said: str, anywhere: bool = False, room: bool = True
    ) -> None:
        """`anywhere`: an upload that appends. `room`: whether one more upload may be staged."""
        self._say = say
        self._room = room
        self._limits = limits
        self._pins = pins
        self._arrived = asyncio.Event()
        self.said = said
        self.staging = asyncio.Event()
        self.held = asyncio.Event()
        self.stage = Stage(limits.stdin, anywhere=anywhere)

    @property
    def max_hold(self) -> float | None:
        return None

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        return ()

    async def ready_to_wait(self) -> Refusal | None:
        if self._pins:
            return Refusal(Reason.CANNOT_BE_PINNED, UNPINNABLE)
        if not self._room:
            return Refusal(Reason.LIMIT_REACHED, "too many uploads wait for a person at once: close some files first")
        return None

    async def read_input(self) -> HeldInput:
        """Collect the upload until the client closes the file, within the bounds of held input."""
        self.staging.set()
        try:
            async with asyncio.timeout(self._limits.stdin_total):
                while not (self.stage.held.complete or self.stage.held.overflowing or self.stage.problem):
                    self._arrived.clear()
                    async with asyncio.timeout(self._limits.stdin_idle):
                        await self._arrived.wait()
        except TimeoutError:
            pass  # `take` says that no end came
        if self.stage.problem:
            raise InputError(self.stage.problem, reason=Reason.STDIN_WITHOUT_EOF)
        return self.stage.held.take()

    def arrived(self) -> None:
        """Something of the upload was staged, or the client closed the file."""
        self._arrived.set()

    def notify(self, notice: Notice) -> None:
        self.held.set()
        self._say(refusals.line(notice.text))
