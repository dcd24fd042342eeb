"""One exec: from the client's request to an exit status. The gate's `Caller` for SSH.

    phase      input from the client          what may happen next
    DECIDING   stays in the channel's window  a refusal, a release, the client leaves
    READING    collected for the gate         (within DECIDING: the gate asked for standard input)
    RUNNING    streamed, or dropped           the target ends, the client leaves
    ENDED      dropped                        –

Nothing of the client's input leaves this process before the release, and nothing is opened at the target before it.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

import structlog

from interlock.approvals.wording import Notice, Refusal
from interlock.commands.model import Analysis, Command, HeldInput, Kind, ShellContext, Wire
from interlock.errors import SENTENCES, EvidenceError, Reason, TargetError
from interlock.evidence.events import Json
from interlock.gate import Release, Session
from interlock.ssh import records, refusals
from interlock.ssh.limits import Limits
from interlock.ssh.records import STDERR
from interlock.ssh.relay import ClientSide, Ending, Relay
from interlock.ssh.requests import SIGNALS
from interlock.ssh.stdin import HeldBuffer
from interlock.ssh.transfers.carrying import Carrier, reading_of
from interlock.ssh.upstream import Route, Upstream

log = structlog.get_logger()


class Phase(StrEnum):
    DECIDING = "deciding"
    READING = "reading"
    RUNNING = "running"
    ENDED = "ended"


class Execution:
    """Runs one command for one channel. `run` is awaited in a task of its own; cancelling it means the client left."""

    def __init__(
        self,
        channel: int,
        text: bytes,
        env: tuple[tuple[str, str], ...],
        *,
        session: Session,
        upstream: Upstream,
        client: ClientSide,
        limits: Limits,
        context: ShellContext,
        said: str = "",
        unended: str = "",
    ) -> None:
        """`unended`: what is said when its input must be read before it runs, and does not end."""
        self._channel = channel
        self._text = text
        self._env = env
        self._session = session
        self._upstream = upstream
        self._client = client
        self._limits = limits
        self._context = context
        self.said = said
        self._held = HeldBuffer(limits.stdin, unended)
        self._arrived = asyncio.Event()
        self._relay: Relay | None = None
        self._carrier: Carrier | None = None
        self._streaming = False
        self._input_ended = False
        self._bytes_in = 0
        self.phase = Phase.DECIDING

    async def run(self) -> None:
        """Decide, run and answer. Never raises but CancelledError; whatever fails is a refusal in words."""
        command = Command(Wire.SSH, Kind.EXEC, self._text, env=self._env, context=self._context)
        try:
            answer = self._session.submit(command, self)
            outcome = answer if isinstance(answer, Release) else await answer.outcome()
            match outcome:
                case Refusal():
                    self._refuse(outcome)
                case Release():
                    await self._carry_out(outcome)
        except EvidenceError as error:
            self._refuse(Refusal(error.code, str(error), error.next_step))
        except asyncio.CancelledError:
            self._close("left", {})
            raise
        except Exception:
            log.exception("ssh.exec.failed", session=self._session.id)
            self._refuse(Refusal(Reason.INTERNAL, SENTENCES[Reason.INTERNAL]))
        finally:
            self.phase = Phase.ENDED

    # -- the gate asks (ports.Caller) ------------------------------------------------------------------------------

    @property
    def max_hold(self) -> float | None:
        return None

    async def facts(self, command: Command, analysis: Analysis) -> tuple[str, ...]:
        return ()

    async def ready_to_wait(self) -> Refusal | None:
        try:
            self._upstream.check(self._text)
        except TargetError as error:
            return Refusal(error.code, str(error), error.next_step)
        return None

    async def read_input(self) -> HeldInput:
        """Read standard input to EOF: at most `limits.stdin` bytes, never `stdin_idle` seconds without any."""
        self.phase = Phase.READING
        self._client.widen(self._limits.stdin + self._limits.held_window)
        self._client.let_input()
        try:
            async with asyncio.timeout(self._limits.stdin_total):
                while not (self._held.complete or self._held.overflowing):
                    self._arrived.clear()
                    async with asyncio.timeout(self._limits.stdin_idle):
                        await self._arrived.wait()
        except TimeoutError:
            pass  # `take` says that no EOF came
        self._client.hold_input()
        self.phase = Phase.DECIDING
        return self._held.take()

    def notify(self, notice: Notice) -> None:
        self._client.send(refusals.line(notice.text), STDERR)

    # -- the client sends -----------------------------------------------------------------------------------------

    def input(self, data: bytes) -> None:
        match self.phase:
            case Phase.READING:
                self._held.feed(data)
                self._arrived.set()
            case Phase.RUNNING if self._streaming and self._relay is not None:
                try:
                    self._session.record(records.typed(self._channel, data))
                except EvidenceError:
                    self._relay.abort()
                    return
                self._bytes_in += len(data)
                (self._relay.feed if self._carrier is None else self._carrier.from_client)(data)
            case _:
                pass  # a reviewed command got the input that was reviewed; the rest goes nowhere

    def input_ended(self) -> None:
        self._input_ended = True
        self._held.end()
        self._arrived.set()
        if self._streaming and self._relay is not None and self.phase is Phase.RUNNING:
            self._end_input(self._relay)

    def signal(self, name: str) -> bool:
        """Pass a signal to the running command. False when nothing runs or the name is none of RFC 4254's."""
        if self.phase is not Phase.RUNNING or self._relay is None or name not in SIGNALS:
            return False
        self._relay.signal(name)
        return True

    def output_clogged(self) -> None:
        if self._relay is not None:
            self._relay.hold_output()

    def output_free(self) -> None:
        if self._relay is not None:
            self._relay.let_output()

    # -- the release ----------------------------------------------------------------------------------------------

    async def _carry_out(self, release: Release) -> None:
        reading = reading_of(release.analysis) if release.stdin is None else None
        if reading is not None:
            self._carrier = Carrier(reading, release, session=self._session, client=self._client, said=self.said)
        carrier = self._carrier
        try:
            route = await self._upstream.reach(release, self._context, alone=carrier is not None and carrier.alone)
        except TargetError as error:
            self._refuse(Refusal(error.code, str(error), error.next_step, request=release.request))
            return
        relay = Relay(self._client if carrier is None else carrier, self._record_output)
        self._relay = relay
        if carrier is not None:
            carrier.begin(relay)
        try:
            self._streaming = release.stdin is None
            await self._upstream.run(
                route, release, self._env, relay,
                lambda way: self._session.record(records.routed(self._channel, release.forward, way.about)),
            )  # fmt: skip
            self.phase = Phase.RUNNING
            self._start_input(release, relay)
            if carrier is not None:
                await asyncio.wait((relay.ended, carrier.stopped), return_when=asyncio.FIRST_COMPLETED)
                await carrier.end()
            if carrier is not None and carrier.stopped.done():
                self._refuse(carrier.stopped.result())
                return
            ending = await relay.ended
            await self._client.drained()
            self._answer(ending, route)
        except TargetError as error:
            self._refuse(Refusal(error.code, str(error), error.next_step, request=release.request))
        finally:
            relay.abort()
            self._upstream.leave(route)
            if carrier is not None:
                await carrier.end()

    def _start_input(self, release: Release, relay: Relay) -> None:
        self._client.widen(self._limits.stream_window)
        if release.stdin is not None:
            relay.feed(release.stdin.data)
            relay.feed_eof()
        elif self._input_ended:
            self._end_input(relay)
        if not relay.full:
            self._client.let_input()

    def _end_input(self, relay: Relay) -> None:
        if self._carrier is None:
            relay.feed_eof()
        else:
            self._carrier.client_ended()

    def _record_output(self, stream: int, data: bytes) -> None:
        self._session.record(records.output(self._channel, stream, data))

    def _answer(self, ending: Ending, route: Route) -> None:
        """Give the client what the target gave: a status or a signal. Neither means that the outcome is unknown."""
        fields: dict[str, Json] = {"pinned": route.pinned}
        if isinstance(ending.failure, EvidenceError):
            self._refuse(Refusal(ending.failure.code, str(ending.failure), ending.failure.next_step))
        elif ending.status is not None:
            self._close("exit", {**fields, "exit_status": ending.status})
            self._client.finish(ending.status)
        elif ending.signal is not None:
            name, core, message, lang = ending.signal
            self._close("signal", {**fields, "signal": name if name in SIGNALS else "unlisted", "core": core})
            self._client.finish_by_signal(name, core, message, lang)
        else:
            self._close("lost", fields)
            self._client.send(
                refusals.line("the connection to the target was lost before the command ended; its outcome is unknown"), STDERR
            )
            self._client.finish(refusals.FAILED)

    def _refuse(self, refusal: Refusal) -> None:
        status = refusals.exit_status(refusal.reason)
        self._client.send(refusals.lines(refusal), STDERR)
        self._close("refused", {"reason": str(refusal.reason), "exit_status": status})
        self._client.finish(status)

    def _close(self, ended: str, fields: dict[str, Json]) -> None:
        sent = self._relay.sent if self._relay is not None else {}
        totals: dict[str, Json] = {"in": self._bytes_in, "out": sent.get(1, 0), "err": sent.get(2, 0)}
        try:
            self._session.record(records.closed(self._channel, ended, {**totals, **fields}))
        except EvidenceError as error:
            log.error("ssh.record.failed", session=self._session.id, reason=str(error.code))
