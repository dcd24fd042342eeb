"""Carries one transfer between client and target: what its reading lets pass, and what the gate says of what it names.

A command that a person approved covers whatever comes below its path; one that policy allowed covers no name that
policy would not allow on its own. A push is decided twice: that the repository is opened, and which refs change.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from interlock.approvals.wording import Notice, Refusal
from interlock.commands.model import Analysis, Command, HeldInput, Kind, Stdin, Wire
from interlock.errors import EvidenceError, InputError, Reason, RemoteProtocolError
from interlock.gate import Pending, Release, Session
from interlock.ssh import records, refusals
from interlock.ssh.records import STDERR, STDOUT
from interlock.ssh.relay import ClientSide, Relay
from interlock.ssh.transfers.push import PushReading
from interlock.ssh.transfers.scp import ScpEnd, ScpReading
from interlock.ssh.transfers.steps import Carried, Named, Passed, Plain, Pushed, Reading, Side

AHEAD = 256 * 1024
"""Bytes of the client that are kept while something is decided; then it is held back. A target never sends so much ahead."""

UNSEEN = (
    "a person would have to see this file, and the old protocol of scp can show none: "
    "use sftp, or an scp that speaks it (OpenSSH 9, without -O)"
)
SET_ID = "a program that runs with its owner's rights is not taken by scp: copy it without them, then ask for chmod"


def reading_of(analysis: Analysis) -> Reading | None:
    """Return how what a released command says is read; None for one that speaks no protocol known here."""
    if analysis.stdin is not Stdin.PROTOCOL or not analysis.effects:
        return None
    argv = analysis.effects[0].argv  # a transfer stands alone in its text, so all effects are of it
    match argv[0].rpartition("/")[2], argv[1:2]:
        case "scp", _:
            return ScpReading(ScpEnd.of(argv, homes=any(e.object.partition("/")[0] == "~" for e in analysis.effects)))
        case ("git-receive-pack", _) | ("git", ("receive-pack",)):
            return PushReading(argv[-1])
        case _:
            return Plain()


class _Asker:
    """The gate's caller for what a transfer names."""

    def __init__(self, client: ClientSide, said: str, unseen: str) -> None:
        self.said = said
        self._client = client
        self._unseen = unseen

    @property
    def max_hold(self) -> float | None:
        return None

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        return ()

    async def ready_to_wait(self) -> Refusal | None:
        return Refusal(Reason.REQUEST_NOT_OFFERED, self._unseen) if self._unseen else None

    async def read_input(self) -> HeldInput:
        raise InputError(UNSEEN, reason=Reason.REQUEST_NOT_OFFERED)

    def notify(self, notice: Notice) -> None:
        self._client.send(refusals.line(notice.text), STDERR)


class Carrier:
    """The client's channel as the relay sees it, and the way of the client's bytes. `stopped` resolves with a refusal."""

    def __init__(self, reading: Reading, release: Release, *, session: Session, client: ClientSide, said: str) -> None:
        self._reading = reading
        self._session = session
        self._client = client
        self._said = said
        self._forward = release.forward
        self._names = not release.approved and not release.analysis.opaque  # else what is below was decided with the path
        self._relay: Relay | None = None
        self._deciding: asyncio.Task[None] | None = None
        self._held: set[str] = set()
        self._ended = False
        self._over = False
        self.stopped: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()

    @property
    def alone(self) -> bool:
        """Whether it goes on a connection of its own: what a person approves of it then is at least forced in part."""
        return isinstance(self._reading, PushReading)

    def begin(self, relay: Relay) -> None:
        self._relay = relay

    # -- from both sides ------------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        self._reading.feed(Side.CLIENT, data)
        self._advance()

    def client_ended(self) -> None:
        self._ended = True
        self._advance()

    def send(self, data: bytes, stream: int) -> None:
        """The target has printed something."""
        if stream == STDERR:
            self._client.send(data, STDERR)
            return
        self._reading.feed(Side.TARGET, data)
        self._advance()

    async def end(self) -> None:
        """It is over: record the file that was cut off, and wait until what is asked was handed back. Idempotent."""
        if (rest := self._reading.rest()) is not None and not self._over:
            self._record(rest)
        self._over = True
        task = self._deciding
        if task is not None:
            task.cancel()
            while not task.done():  # a client that leaves cancels more than once, and its transcript is sealed after this
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task})

    # -- the way --------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        assert self._relay is not None
        try:
            while self._deciding is None and not self.stopped.done() and (step := self._reading.next()) is not None:
                match step:
                    case Passed(Side.TARGET, data):
                        self._relay.feed(data)
                    case Passed(_, data):
                        self._client.send(data, STDOUT)
                    case Carried():
                        self._record(step)
                    case Named():
                        self._decide_names(step)
                    case Pushed(push):
                        self._decide([Command(Wire.SSH, Kind.PUSH, push.text)], "")
            if self._reading.waiting(Side.TARGET) > AHEAD:
                raise RemoteProtocolError("the target sent more than was asked for")
        except RemoteProtocolError as error:
            self._stop(Refusal(Reason.PROTOCOL_VIOLATION, str(error)))
        self._balance()
        if self._ended and self._deciding is None and not self.stopped.done() and self._client_is_done():
            self._relay.feed_eof()

    def _client_is_done(self) -> bool:
        """Whether nothing more of the client's can go on: half a line is nothing, and what waits for an answer is not over."""
        return not self._reading.waiting(Side.CLIENT) or self._reading.starved(Side.CLIENT)

    def _balance(self) -> None:
        if self._reading.waiting(Side.CLIENT) > AHEAD:
            self._hold("ahead")
        else:
            self._let("ahead")

    def _stop(self, refusal: Refusal) -> None:
        if not self.stopped.done():
            self.stopped.set_result(refusal)

    def _record(self, carried: Carried) -> None:
        content = carried.content
        try:
            self._session.record(
                records.file_content(
                    self._forward, carried.direction, content.size, content.sha256, complete=carried.complete, place=carried.place
                )
            )
        except EvidenceError as error:
            self._stop(Refusal(error.code, str(error), error.next_step))

    # -- decisions ------------------------------------------------------------------------------------------------

    def _decide_names(self, named: Named) -> None:
        if self._names:
            self._decide([Command(Wire.SSH, Kind.FILE, operation.text) for operation in named.operations], UNSEEN)
        elif named.set_id:
            self._stop(Refusal(Reason.REQUEST_NOT_OFFERED, SET_ID))

    def _decide(self, commands: Sequence[Command], unseen: str) -> None:
        for place, command in enumerate(commands):
            answer = self._session.submit(command, _Asker(self._client, self._said, unseen))
            if isinstance(answer, Pending):
                self._deciding = asyncio.ensure_future(self._settle(answer, commands[place + 1 :], unseen))
                return
            self._forward = answer.forward

    async def _settle(self, pending: Pending, later: Sequence[Command], unseen: str) -> None:
        outcome = await pending.outcome()
        self._deciding = None
        match outcome:
            case Refusal():
                self._stop(outcome)
            case Release():
                self._forward = outcome.forward
                self._decide(later, unseen)
                self._advance()

    # -- the client's channel, as the relay sees it ---------------------------------------------------------------

    @property
    def clogged(self) -> bool:
        return self._client.clogged

    def hold_input(self) -> None:
        self._hold("relay")

    def let_input(self) -> None:
        self._let("relay")

    def _hold(self, why: str) -> None:
        if not self._held:
            self._client.hold_input()
        self._held.add(why)

    def _let(self, why: str) -> None:
        if why in self._held:
            self._held.discard(why)
            if not self._held:
                self._client.let_input()

    def send_eof(self) -> None:
        self._client.send_eof()

    def widen(self, window: int) -> None:
        self._client.widen(window)

    async def drained(self) -> None:
        await self._client.drained()

    def finish(self, status: int) -> None:
        self._client.finish(status)

    def finish_by_signal(self, name: str, core: bool, message: str, lang: str) -> None:
        self._client.finish_by_signal(name, core, message, lang)
