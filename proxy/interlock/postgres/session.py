"""A running Postgres session: the client's messages become decisions, the gate's answers become bytes.

Knows: the wire (frames, requests, answers, pipeline, names) and the gate. It decides nothing and names no rule.
Must not know: policy, the desk, the store, how a client proved who it is.

Spec: postgres.md "Where to hold, how to refuse". The order within one connection is the client's own: a message that
waits stops everything behind it, and what was sent before it goes on. Messages go to the server one by one as they are
decided, never at Sync: drivers send megabytes without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import structlog

from interlock import gate
from interlock.approvals.wording import Refusal
from interlock.clock import Entropy
from interlock.commands.model import Analysis, BindValue, Command, Kind, Wire
from interlock.errors import SENTENCES, EvidenceError, InterlockError, LocalProtocolError, Reason, RemoteProtocolError
from interlock.postgres import refusals
from interlock.postgres.answering import Answering, PoisonedError
from interlock.postgres.catalog import CatalogSource
from interlock.postgres.estimate import Estimator
from interlock.postgres.relay import WAITING_BOUND, Relay
from interlock.postgres.results import Results
from interlock.postgres.schema import SchemaView
from interlock.postgres.statements import Portal, SessionNames, Statement, mentions_names
from interlock.postgres.waiting import HeldClient
from interlock.postgres.watch import ParameterWatch
from interlock.postgres.wire import answers, requests
from interlock.postgres.wire.answers import ErrorFields
from interlock.postgres.wire.frame import ClientFrames, CopyPiece, Frame
from interlock.postgres.wire.names import OUTSIDE, Lookup
from interlock.postgres.wire.pipeline import Asked, Pipeline, Step
from interlock.postgres.wire.values import shown

log = structlog.get_logger()

FRAMES_AT_ONCE = 32
"""Messages of one client that are handled before others have their turn."""
MAX_IN_FLIGHT = 16_384
"""Messages that may wait for their answers; more than a server's output buffer can hold back without a Flush."""

Outcome = gate.Release | Refusal | ErrorFields


class PostgresSession:
    """One client on one server connection. Give `relay`'s sides to the transports, then call `start`."""

    def __init__(
        self,
        session: gate.Session,
        *,
        search_path: tuple[str, ...],
        settings: tuple[tuple[str, str], ...],
        max_hold: float,
        entropy: Entropy,
        cancel_server: Callable[[], Coroutine[Any, Any, None]],
        catalog: CatalogSource | None,
        said: str = "",
        estimator: Estimator | None = None,
    ) -> None:
        self.gate_session = session
        self.relay = Relay(self)
        self.watch = ParameterWatch(pinned=bool(settings))
        self._schema = schema = SchemaView(catalog)
        self._names = SessionNames(search_path, lambda: schema.known, pinned=bool(settings))
        self._settings = settings
        self._caller = HeldClient(self, max_hold, said)
        self._cancel_server = cancel_server
        self._estimator = estimator
        self._ended: Callable[[PostgresSession, str], None] = lambda _session, _why: None
        self._refused_portal = answers.REFUSED_PORTAL + entropy(16).hex()
        self._frames = ClientFrames()
        self._pipeline = Pipeline()
        self._results = Results(session.record)
        self._answering = Answering(
            pipeline=self._pipeline,
            names=self._names,
            results=self._results,
            watch=self.watch,
            refused_portal=self._refused_portal,
            idle=schema.settled,
        )
        self._out: list[bytes] = []
        self._said: list[bytes] = []
        self._busy = False
        self._pumping = False
        self._yielded: asyncio.Handle | None = None
        self._task: asyncio.Task[Outcome] | None = None
        self._draining: Callable[[], None] | None = None
        self._drain_future: asyncio.Future[None] | None = None
        self._finished = False

    # -- for the listener ---------------------------------------------------------------------------------------------

    def on_end(self, ended: Callable[[PostgresSession, str], None]) -> None:
        """Set who is told, once, that the session has ended and must be settled."""
        self._ended = ended

    def start(self, client: asyncio.Transport, server: asyncio.Transport) -> None:
        self.relay.start(client, server)

    async def cancel(self) -> None:
        """A CancelRequest with this session's key: what is held goes back, what runs is cancelled at the server."""
        if len(self._pipeline):
            await self._cancel_server()
        elif self._task is not None:
            self._task.cancel()

    def end(self, why: str, error: ErrorFields | None = None) -> None:
        """End the session, telling the client why. Idempotent."""
        if self._finished:
            return
        self._finished = True
        for task in (self._task, self._schema.waiting):
            if task is not None:
                task.cancel()
        self._draining = None
        if error is not None and self._answering.at_boundary:
            self.relay.to_client(answers.error(error))
        self.relay.to_server(requests.TERMINATE)
        self.relay.close()
        self._ended(self, why)

    async def settle(self, why: str) -> None:
        """Wait for what was held to be handed back, stop what still runs, close the transcript. Called once, after `end`.

        A server notices that its client has left only when it has something to send, so a statement without a result is
        cancelled: nothing runs on for somebody who is gone.
        """
        waiting = [task for task in (self._task, self._schema.waiting) if task is not None]
        if waiting:
            await asyncio.wait(waiting)
        try:
            for ref in self._pipeline.unanswered():
                self._results.failed(ref, "unknown")
            self._results.flush()
        except EvidenceError as error:
            log.error("transcript broken at close", session=self.gate_session.id, reason=str(error.code))
        running = why != "target-left" and bool(self._pipeline.unanswered())
        if running:
            await asyncio.gather(self._cancel_server(), self._seal(why))
        else:
            await self._seal(why)

    async def _seal(self, why: str) -> None:
        try:
            await self.gate_session.close(why)
        except EvidenceError as error:
            log.error("transcript not sealed", session=self.gate_session.id, reason=str(error.code))

    # -- relay.Ends ---------------------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        if not self._finished:
            self._frames.feed(data)
            self._pump()

    def client_left(self) -> None:
        self.end("client-left")

    def server_left(self) -> None:
        self.end("target-left")

    def server_ready(self) -> None:
        self._pump()

    def from_server(self, data: bytes) -> None:
        owed = len(self._pipeline)
        if self._finished or not self._relayed(data):
            return
        if self._said and self._answering.at_boundary:
            self.relay.to_client(b"".join(self._said))
            self._said.clear()
        if self._pipeline.drained:
            self._on_drained()
        if owed > MAX_IN_FLIGHT >= len(self._pipeline):
            self._pump()

    def _relayed(self, data: bytes) -> bool:
        """Relay one read of the server; False when that ended the session."""
        try:
            relayed = self._answering.take(data)
            if relayed:
                self.relay.to_client(relayed)
        except (EvidenceError, PoisonedError) as error:
            self.end(str(error.code), refusals.fatal(error.code, str(error)))
        except RemoteProtocolError as error:
            log.warning("target broke the protocol", session=self.gate_session.id, what=str(error))
            self.end("target-protocol", refusals.fatal(Reason.PROTOCOL_VIOLATION, f"the target broke the protocol: {error}"))
        return not self._finished

    # -- waiting.Waiting ----------------------------------------------------------------------------------------------

    @property
    def transaction_open(self) -> bool:
        return self._pipeline.in_transaction

    async def drained(self) -> bool:
        if not self._pipeline.drained:
            self.relay.to_server(requests.FLUSH)
            self._drain_future = asyncio.get_running_loop().create_future()
            try:
                await self._drain_future
            finally:
                self._drain_future = None
        failed = self._pipeline.status == "E" and not self._pipeline.unsynced
        return not (self._pipeline.skipping or failed)

    async def estimate(self, command: Command, analysis: Analysis) -> str | None:
        if self._estimator is None:
            return None
        return await self._estimator.estimate(self.gate_session, self._caller, command, analysis)

    def say(self, data: bytes) -> None:
        if self._answering.at_boundary:
            self.relay.to_client(data)
        else:
            self._said.append(data)

    # -- the client's messages ----------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle what the client sent, as far as nothing waits and the server takes it."""
        if self._pumping:
            return
        self._pumping = True
        try:
            left = 0 if self._held_back else FRAMES_AT_ONCE
            while left and not self._busy and not self._finished:
                frame = self._frames.next()
                if frame is None:
                    break
                if isinstance(frame, CopyPiece):
                    self._copy_data(frame)
                else:
                    self._HANDLERS[frame.kind](self, frame)
                left -= 1
            if not left and not self._held_back:
                self._go_on_soon()
        except RemoteProtocolError as error:
            self._flush()
            self.end("protocol-violation", refusals.fatal(Reason.PROTOCOL_VIOLATION, str(error)))
        except InterlockError as error:
            self._flush()
            self.end(str(error.code), refusals.fatal(error.code, str(error)))
        finally:
            self._pumping = False
        self._flush()
        waiting = self._busy or self._yielded is not None
        self.relay.read_client((not waiting or self._frames.buffered < WAITING_BOUND) and not self._held_back)

    @property
    def _held_back(self) -> bool:
        """The server does not take more now: its socket is full, or it owes too many answers."""
        return self.relay.server_full or len(self._pipeline) > MAX_IN_FLIGHT

    def _go_on_soon(self) -> None:
        """Let other sessions have their turn before the rest of what this client sent."""
        if self._yielded is None:
            self._yielded = asyncio.get_running_loop().call_soon(self._after_yielding)

    def _after_yielding(self) -> None:
        self._yielded = None
        self._pump()

    def _flush(self) -> None:
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self.relay.to_server(data)

    def _query(self, frame: Frame) -> None:
        text = requests.query(frame.raw)
        if self._out_of_turn() or self._catalog_awaited(partial(self._query, frame)):
            return
        if self._names_unsettled(text):
            self._after_drain(partial(self._query, frame))
            return
        self._decide(Command(Wire.POSTGRES, Kind.QUERY, text, settings=self._settings, context=self._names.context()),
                     partial(self._queried, frame, text))  # fmt: skip

    def _queried(self, frame: Frame, text: bytes, outcome: Outcome) -> None:
        if not isinstance(outcome, gate.Release):
            if self._pipeline.unsynced and not self._pipeline.drained:
                # A Query behind a failed message of the same stretch is skipped, and so must its refusal be.
                self._after_drain(partial(self._refuse_query, outcome))
            else:
                self._refuse_query(outcome)
            return
        analysis = outcome.analysis
        idle = not (len(self._pipeline) or self._pipeline.in_transaction)
        changes = self._names.apply(analysis.names, text=text, release=outcome.decision, stretch=OUTSIDE, idle=idle)
        self._pipeline.ask(Asked(Step.QUERY, outcome.decision, changes, statements=analysis.statements))
        self._out.append(frame.raw if outcome.payload == text else requests.encode_query(outcome.payload))
        self._released(outcome)

    def _refuse_query(self, outcome: Refusal | ErrorFields) -> None:
        if self._pipeline.skipping:
            return
        self._refuse(outcome)
        self._pipeline.ask(Asked(Step.SYNC))
        self._out.append(requests.SYNC)

    def _parse(self, frame: Frame) -> None:
        parsed = requests.parse(frame.raw)
        if self._out_of_turn() or self._catalog_awaited(partial(self._parse, frame)):
            return
        if self._names_unsettled(parsed.text):
            self._after_drain(partial(self._parse, frame))
            return
        if self._reserved(parsed.name):
            return
        command = Command(Wire.POSTGRES, Kind.PARSE, parsed.text, settings=self._settings, context=self._names.context())
        self._decide(command, partial(self._parsed, frame, parsed))

    def _parsed(self, frame: Frame, parsed: requests.Parse, outcome: Outcome) -> None:
        if not isinstance(outcome, gate.Release):
            self._refuse(outcome)
            return
        text = outcome.payload
        change = self._names.statements.enter(parsed.name, Statement(text, parsed.oids), self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.PARSE, outcome.decision, (change,)))
        same = text == parsed.text
        self._out.append(frame.raw if same else requests.encode_parse(requests.Parse(parsed.name, text, parsed.oids)))

    def _bind(self, frame: Frame) -> None:
        bound = requests.bind(frame.raw)
        if self._out_of_turn() or self._catalog_awaited(partial(self._bind, frame)):
            return
        statement = self._names.statements.look_up(bound.statement, self._pipeline.stretch)
        match statement:
            case Lookup.ABSENT:
                known = f'prepared statement "{bound.statement}" does not exist' if bound.statement else ""
                self._refuse(refusals.as_the_server("26000", known or "unnamed prepared statement does not exist"))
            case Lookup.UNKNOWN:
                self._refuse(refusals.as_the_server("26000", f'what "{bound.statement}" means is not known any more: close it'))
            case Lookup.UNSETTLED:
                self._after_drain(partial(self._bind, frame))
            case Statement():
                if statement.mentions_names and not self._names.settled and not self._pipeline.drained:
                    self._after_drain(partial(self._bind, frame))
                elif not self._reserved(bound.portal):
                    command = Command(
                        Wire.POSTGRES, Kind.BIND, statement.text, binds=_values(bound, statement.types),
                        settings=self._settings, context=self._names.context(),
                    )  # fmt: skip
                    self._decide(command, partial(self._bound, frame, bound, statement))

    def _bound(self, frame: Frame, bound: requests.Bind, statement: Statement, outcome: Outcome) -> None:
        if not isinstance(outcome, gate.Release):
            self._refuse(outcome)
            return
        if outcome.payload != statement.text:
            raise LocalProtocolError("a Bind was released with another text than its statement's")
        portal = Portal(statement.shown, outcome.decision, outcome.analysis.names)
        change = self._names.portals.enter(bound.portal, portal, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.BIND, outcome.decision, (change,)))
        self._out.append(frame.raw)
        self._released(outcome)

    def _execute(self, frame: Frame) -> None:
        asked = requests.execute(frame.raw)
        if self._out_of_turn():
            return
        portal = self._names.portals.look_up(asked.portal, self._pipeline.stretch)
        match portal:
            case Lookup.ABSENT:
                self._refuse(refusals.as_the_server("34000", f'portal "{asked.portal}" does not exist'))
            case Lookup.UNKNOWN:
                self._refuse(refusals.as_the_server("34000", f'what "{asked.portal}" means is not known any more: close it'))
            case Lookup.UNSETTLED:
                self._after_drain(partial(self._execute, frame))
            case Portal() if (stopped := self.gate_session.stopped()) is not None:
                self._refuse(stopped)
            case Portal():
                changes = self._names.apply(
                    portal.actions, text=portal.text.encode(), release=portal.release,
                    stretch=self._pipeline.stretch, idle=False,
                )  # fmt: skip
                self._pipeline.ask(Asked(Step.EXECUTE, portal.release, changes))
                self._out.append(frame.raw)

    def _describe(self, frame: Frame) -> None:
        named = requests.named(frame.raw)
        if self._out_of_turn():
            return
        found: object = None
        if named.of == "S":
            found = self._names.statements.look_up(named.name, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.DESCRIBE, statement=found if isinstance(found, Statement) else None))
        self._out.append(frame.raw)

    def _close(self, frame: Frame) -> None:
        named = requests.named(frame.raw)
        if self._out_of_turn():
            return
        table: Any = self._names.statements if named.of == "S" else self._names.portals
        change = table.enter(named.name, Lookup.ABSENT, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.CLOSE, changes=(change,)))
        self._out.append(frame.raw)

    def _sync(self, frame: Frame) -> None:
        if not self._pipeline.copy_in:  # COPY swallows a Sync
            self._pipeline.ask(Asked(Step.SYNC))
        self._out.append(frame.raw)

    def _flush_request(self, frame: Frame) -> None:
        self._out.append(frame.raw)

    def _copy_data(self, piece: CopyPiece) -> None:
        if len(self._pipeline) and not self._pipeline.skipping:
            self._answering.copied_in(piece.size, piece.first)
            self._out.append(piece.raw)

    def _copy_end(self, frame: Frame) -> None:
        if frame.kind == ord("f"):
            requests.copy_fail(frame.raw)
        if len(self._pipeline) and not self._pipeline.skipping:
            self._pipeline.ask(Asked(Step.COPY_END))
            self._out.append(frame.raw)

    def _terminate(self, _frame: Frame) -> None:
        self._flush()
        self.end("client-terminated")

    _HANDLERS: ClassVar[dict[int, Callable[[PostgresSession, Frame], None]]] = {
        ord("Q"): _query, ord("P"): _parse, ord("B"): _bind, ord("E"): _execute, ord("D"): _describe, ord("C"): _close,
        ord("S"): _sync, ord("H"): _flush_request, ord("c"): _copy_end, ord("f"): _copy_end, ord("X"): _terminate,
    }  # fmt: skip

    # -- deciding and refusing ----------------------------------------------------------------------------------------

    def _out_of_turn(self) -> bool:
        """Whether the server would skip this message anyway. Raise RemoteProtocolError inside COPY IN."""
        if self._pipeline.copy_in:
            raise RemoteProtocolError("a command inside COPY FROM STDIN")
        return self._pipeline.skipping

    def _names_unsettled(self, text: bytes) -> bool:
        return not self._names.settled and not self._pipeline.drained and mentions_names(text)

    def _reserved(self, name: str) -> bool:
        if name.startswith(answers.REFUSED_PORTAL):
            self._refuse(refusals.as_the_server("42939", f"names that begin with {answers.REFUSED_PORTAL} are reserved"))
            return True
        if self._names.full:
            self._refuse(Refusal(Reason.LIMIT_REACHED, "too many prepared statements or portals: close some"))
            return True
        return False

    def _decide(self, command: Command, then: Callable[[Outcome], None]) -> None:
        answer = self.gate_session.submit(command, self._caller)
        if isinstance(answer, gate.Release):
            then(answer)
            return
        if self._schema.outdated(answer.analysis):
            self._pause(partial(self._decide_again, command, then))
            return
        self._caller.request = None
        self._busy = True
        self._flush()
        self._task = asyncio.get_running_loop().create_task(self._outcome(answer))
        self._task.add_done_callback(partial(self._decided, then))

    async def _outcome(self, pending: gate.Pending) -> Outcome:
        try:
            return await pending.outcome()
        except asyncio.CancelledError:
            # A CancelRequest, or the end of the session: the gate has handed the request back.
            return refusals.cancelled_while_held(self._caller.request)
        except Exception as error:
            log.exception("deciding failed", session=self.gate_session.id, error=error.__class__.__name__)
            return Refusal(Reason.INTERNAL, SENTENCES[Reason.INTERNAL])

    def _decided(self, then: Callable[[Outcome], None], task: asyncio.Task[Outcome]) -> None:
        if self._finished:
            return
        self._task = None
        self._busy = False
        outcome = refusals.cancelled_while_held(self._caller.request) if task.cancelled() else task.result()
        self._resume(partial(self._after_waiting, then, outcome))

    def _after_waiting(self, then: Callable[[Outcome], None], outcome: Outcome) -> None:
        """Go on with an outcome that took time: an earlier answer may have come that makes the server skip it."""
        if not self._pipeline.skipping:
            then(outcome)
        elif isinstance(outcome, gate.Release):
            self._results.skipped(outcome.decision)

    def _after_drain(self, again: Callable[[], None]) -> None:
        """Ask the server for its answers so far, and go on with `again` once they are here."""
        self._busy = True
        self._draining = again
        self._out.append(requests.FLUSH)

    def _on_drained(self) -> None:
        if self._drain_future is not None and not self._drain_future.done():
            self._drain_future.set_result(None)
        if self._draining is not None:
            again, self._draining = self._draining, None
            self._busy = False
            self._resume(again)

    def _resume(self, step: Callable[[], None]) -> None:
        """Take a step that had to wait, then go on with the client's next message."""
        try:
            step()
        except InterlockError as error:
            self.end(str(error.code), refusals.fatal(error.code, str(error)))
            return
        self._pump()

    def _refuse(self, outcome: Refusal | ErrorFields) -> None:
        """Let the server fail in place of the refused message (postgres.md): it aborts and skips by itself."""
        fields = refusals.refused(outcome) if isinstance(outcome, Refusal) else outcome
        if self._pipeline.skipping:
            return
        self._pipeline.ask(Asked(Step.REFUSED, refusal=fields))
        self._out.append(requests.encode_execute(self._refused_portal))

    def _released(self, release: gate.Release) -> None:
        self._schema.released(release.analysis)
        if release.analysis.opaque:
            self._names.ran_unread_text()

    def _catalog_awaited(self, again: Callable[[], None]) -> bool:
        """Whether the catalog is being read anew after DDL: then `again` is called once it is there, or soon."""
        if self._schema.awaited:
            self._pause(again)
            return True
        return False

    def _pause(self, again: Callable[[], None]) -> None:
        """Go on with `again` once the catalog has been read."""
        self._busy = True
        self._flush()
        self._schema.wait(partial(self._go_on, again))

    def _go_on(self, again: Callable[[], None]) -> None:
        if not self._finished:
            self._busy = False
            self._resume(again)

    def _decide_again(self, command: Command, then: Callable[[Outcome], None]) -> None:
        """Read a text with the catalog as it is now. Answers may have come meanwhile that make the server skip it."""
        if not self._pipeline.skipping:
            self._decide(replace(command, context=self._names.context()), then)


def _values(bound: requests.Bind, types: tuple[int, ...]) -> tuple[BindValue, ...]:
    """Pair each value with its format, its type where it is known, and its text for people."""
    values = []
    for index, raw in enumerate(bound.values):
        oid = types[index] if index < len(types) else 0
        code = bound.format_of(index)
        values.append(BindValue(raw, code, oid, shown(raw, code, oid)))
    return tuple(values)
