"""What one session does at its target: shared lines for allowed commands, one of its own for each pinned command.

A pinned line's certificate names its command, and carries exactly one channel: a second exec on it would run the first
command again (shown by experiment, design/ssh.md). A command is sent once: whether its line still lives is found out by
opening the channel, and only before that may another line take its place. After that the outcome is unknown, and said to
be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncssh

from interlock.commands.model import ShellContext
from interlock.errors import Reason, TargetError
from interlock.evidence.events import Json
from interlock.gate import Release, Session
from interlock.ssh.credentials import forcible
from interlock.ssh.dialling import Dialler
from interlock.ssh.enrolment import Enrolments, ask
from interlock.ssh.limits import Limits
from interlock.ssh.lines import Line, Lines, Way
from interlock.ssh.relay import Relay
from interlock.ssh.sftp.target import FarServer

DEAD_LINES = 3
"""Lines that a command may find dead one after the other, before it is said that the target does not answer."""


@dataclass(slots=True)
class Route:
    """The way of one command to the target."""

    line: Line
    pinned: bool
    context: ShellContext | None = None
    """How the command's text was read; it is not sent to an account that turns out to read otherwise."""
    held: bool = True
    """False once the line was given back, and until another one is had."""

    @property
    def about(self) -> dict[str, Json]:
        """What the transcript says of it."""
        return {**self.line.about, "pinned": self.pinned}


class Upstream:
    """What one session holds at its target. Opens nothing before the first release."""

    def __init__(
        self, session: Session, dialler: Dialler, lines: Lines, enrolments: Enrolments, account: str, limits: Limits
    ) -> None:
        self._session = session
        self._dialler = dialler
        self._lines = lines
        self._enrolments = enrolments
        self._account = account
        self._limits = limits
        self._way = Way.of(session.principal, dialler.target, account)
        self._closed = False

    @property
    def pins(self) -> bool:
        """Whether what a reviewer approves must be enforced by the target itself."""
        return self._dialler.credentials.pins

    def check(self, payload: bytes) -> None:
        """Raise TargetError (cannot-be-pinned) when an approval of this text could not be carried out."""
        if self.pins:
            forcible(payload)

    def context(self) -> ShellContext:
        """Return how text for the account is read now."""
        return self._enrolments.context(self._dialler.target, self._account)

    async def reach(self, release: Release, read_as: ShellContext, *, alone: bool = False) -> Route:
        """Return a way for one released command, whose text was read so. Raise TargetError; nothing was sent then.

        `alone`: it is forced although nobody was asked yet, because a person will be asked about what it is told later.
        """
        if (release.approved or alone) and self.pins:
            self._still()
            # Nothing may be asked on this line but its one command, so the account is not asked either.
            line = await self._lines.own(lambda: self._dialler.dial(self._account, release.payload))
            return Route(line, True, read_as)
        return Route(await self._take(enrol=True), False, read_as)

    async def run(
        self, route: Route, release: Release, env: tuple[tuple[str, str], ...], relay: Relay, taken: Callable[[Route], object]
    ) -> None:
        """Start exactly `release.payload` there. Raise TargetError.

        `taken` is called before the command is sent, and again when the line turns out to be dead or full and the command,
        of which nothing was sent yet, takes another. Without a payload asyncssh would ask for a shell, so an empty one
        never comes this far.
        """
        command = release.payload.decode("utf-8")
        if not command:
            raise TargetError("an empty command can't be sent", reason=Reason.INTERNAL)
        await self._start(route, lambda: relay, taken, command=command, env=dict(env))

    async def serve_files(self, route: Route, far: FarServer, taken: Callable[[Route], object]) -> None:
        """Start the target's SFTP server. Raise TargetError. `taken` as for `run`."""
        await self._start(route, lambda: far, taken, subsystem="sftp")

    async def reach_files(self) -> Route:
        """Return a way for file operations: a shared line. Raise TargetError; nothing was sent then."""
        return Route(await self._take(enrol=False), False)

    def leave(self, route: Route) -> None:
        """The command on this route has ended. A pinned line is never used again."""
        self._give_back(route)
        if self._session.stopped() is not None and not self._closed:
            self.retire()

    def retire(self) -> None:
        """The session was ended from above: its principal's next command, if any, logs in anew."""
        self._lines.retire(self._way)

    async def close(self) -> None:
        """The client has left. Its lines stay for its principal's next command, as long as the target allows."""
        self._closed = True

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _take(self, *, enrol: bool) -> Line:
        self._still()
        target = self._dialler.target
        line = await self._lines.take(
            self._way, self._session.principal, target, lambda: self._dialler.dial(self._account, None), self._dialler.trusts
        )
        if enrol:
            try:
                await self._enrolments.enrol(target, self._account, lambda text: ask(line.connection, text))
            except BaseException:
                self._lines.leave(line)
                raise
        return line

    def _still(self) -> None:
        """Raise TargetError when the session may not run anything any more: connecting takes its time."""
        if self._closed:
            raise TargetError("the session has ended", reason=Reason.SHUTTING_DOWN)
        refusal = self._session.stopped()
        if refusal is not None:
            raise TargetError(refusal.message, reason=refusal.reason)

    async def _start(
        self, route: Route, session: Callable[[], Relay | FarServer], taken: Callable[[Route], object], **what: Any
    ) -> None:
        dead = 0
        while True:
            self._still()
            if route.context not in (None, self.context()):
                raise TargetError(
                    f"the account {self._account} says that its shell or charset is another than was thought; nothing was sent",
                    reason=Reason.ACCOUNT_CHANGED,
                )
            taken(route)
            if await self._started(route, session, what, again=not route.pinned and dead < DEAD_LINES):
                route.line.carried += 1
                return
            dead += route.line.retired
            self._give_back(route)
            route.line = await self._take(enrol=route.context is not None)
            route.held = True

    def _give_back(self, route: Route) -> None:
        if route.held:
            route.held = False
            self._lines.leave(route.line)

    async def _started(
        self, route: Route, session: Callable[[], Relay | FarServer], what: dict[str, Any], *, again: bool
    ) -> bool:
        """Open a channel and ask once. False: nothing was sent, and another line may take it. Raise TargetError."""
        line, opened = route.line, False

        def confirmed() -> Relay | FarServer:
            # asyncssh asks for the session once the target has opened the channel, and sends the command right after.
            nonlocal opened
            opened = True
            deadline.reschedule(None)
            return session()

        try:
            async with asyncio.timeout(self._limits.answer) as deadline:
                await line.connection.create_session(
                    confirmed, request_pty=False, x11_forwarding=False, encoding=None, window=self._limits.stream_window, **what
                )
        except (asyncssh.Error, OSError) as error:  # TimeoutError is an OSError
            gone = line.connection.is_closed() or not isinstance(error, asyncssh.ChannelOpenError)
            if opened and gone:
                raise TargetError("the connection to the target was lost while the command was sent: outcome unknown") from error
            if opened:
                raise TargetError("the target refused to start what was asked for") from error
            if gone:
                self._lines.dead(line)
            if not again or not (gone or line.busy > 1 or line.carried):
                why = "did not answer" if gone else "refused to open a session"
                raise TargetError(f"the target {why}; nothing was sent") from error
            if not gone:
                self._lines.full(line)
            return False
        except BaseException:
            if not opened:  # the target may still open it, for nobody: such a line takes no more
                self._lines.dead(line)
            raise
        return True
