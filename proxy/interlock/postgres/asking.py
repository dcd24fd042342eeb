"""The client's half of a session: each message becomes a decision, and the gate's answers become bytes.

Knows: the requests, the pipeline, the names, and the gate. It decides nothing and names no rule.
Must not know: policy, the desk, sockets, the server's answers (answering.py).

A message that waits (for a human, for the catalog, for earlier answers) makes the half `busy`: nothing behind it is
handled before it goes on, and what was sent before it goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Protocol

import structlog

from interlock import gate
from interlock.approvals.wording import Refusal
from interlock.commands.model import BindValue, Command, Kind, Wire
from interlock.errors import SENTENCES, InterlockError, LocalProtocolError, Reason, RemoteProtocolError
from interlock.postgres import refusals
from interlock.postgres.answering import Answering, PoisonedError
from interlock.postgres.cancelling import Cancelling
from interlock.postgres.catalog import SchemaChange, schema_change
from interlock.postgres.results import Results
from interlock.postgres.schema import SchemaView
from interlock.postgres.statements import (
    Portal,
    Recurrence,
    SessionNames,
    Statement,
    ends_transaction,
    mentions_names,
    unsettles,
)
from interlock.postgres.stretches import Stretches
from interlock.postgres.waiting import HeldClient
from interlock.postgres.wire import answers, requests
from interlock.postgres.wire.answers import ErrorFields, RefusedNames
from interlock.postgres.wire.frame import CopyPiece, Frame
from interlock.postgres.wire.given import listed
from interlock.postgres.wire.names import OUTSIDE, Lookup
from interlock.postgres.wire.pipeline import Asked, Pipeline, Step
from interlock.postgres.wire.requests import Bind
from interlock.postgres.wire.values import shown

log = structlog.get_logger()

Outcome = gate.Release | Refusal | ErrorFields


class Turns(Protocol):
    """The session, as this half of it sees it."""

    def flush(self) -> None:
        """Send the server what `out` holds."""
        ...

    def go_on(self) -> None:
        """Handle the client's next messages."""
        ...

    def end(self, why: str, error: ErrorFields | None = None) -> None: ...


class Asking:
    """Handles the client's messages one at a time. `out` gathers what goes to the server.

    `unsettled`: a setting was changed that the server reports only at the next Sync, and reads by at once.
    """

    def __init__(
        self,
        session: gate.Session,
        turns: Turns,
        *,
        caller: HeldClient,
        settings: tuple[tuple[str, str], ...],
        refused: RefusedNames,
        pipeline: Pipeline,
        names: SessionNames,
        schema: SchemaView,
        results: Results,
        answering: Answering,
        stretches: Stretches,
        cancelling: Cancelling,
    ) -> None:
        self.out: list[bytes] = []
        self.busy = False
        self.waiting: asyncio.Task[Outcome] | None = None
        self._session = session
        self._turns = turns
        self._caller = caller
        self._settings = settings
        self._refused = refused
        self._pipeline = pipeline
        self._names = names
        self._schema = schema
        self._results = results
        self._answering = answering
        self._stretches = stretches
        self._cancelling = cancelling
        self._draining: Callable[[], None] | None = None
        self._ended = False
        self._cancelled = False
        self._copy_passes = False
        self.unsettled = False

    def take(self, frame: Frame | CopyPiece) -> None:
        """Handle one message. Raise RemoteProtocolError and other InterlockErrors: the session ends."""
        if isinstance(frame, CopyPiece):
            self._copy_data(frame)
            return
        try:
            self._HANDLERS[frame.kind](self, frame)
        except requests.UnacceptableError as error:
            if not self._out_of_turn():
                self._refuse(refusals.as_the_server(error.sqlstate, str(error)))

    def drained(self) -> None:
        """Go on with what waited for the answers to everything before it."""
        if self._draining is not None:
            again, self._draining = self._draining, None
            self.busy = False
            self._resume(again)

    def cancel(self) -> None:
        """Cancel what waits here: what is held goes back, and what waits for the catalog does not run.

        The server knows of neither, so it has nothing to cancel.
        """
        if self.waiting is not None:
            self.waiting.cancel()
        elif self.busy and not self._cancelling.under_way:
            self._cancelled = True

    def stop(self) -> None:
        """The session has ended: hand back what is held, and go on with nothing."""
        self._ended = True
        self._draining = None
        for task in (self.waiting, self._schema.waiting):
            if task is not None:
                task.cancel()

    # -- the client's messages ----------------------------------------------------------------------------------------

    def _query(self, frame: Frame) -> None:
        text = requests.query(frame.raw)
        if self._out_of_turn() or self._catalog_awaited(partial(self._query, frame)):
            return
        if self._names_unsettled(text):
            self._after_drain(partial(self._query, frame))
            return
        command = Command(Wire.POSTGRES, Kind.QUERY, text, settings=self._settings, context=self._names.context())
        self._decide(command, partial(self._queried, frame, command))

    def _queried(self, frame: Frame, command: Command, outcome: Outcome) -> None:
        if not isinstance(outcome, gate.Release):
            self._refuse(outcome, Step.REFUSED_QUERY, requests.encode_query(self._refused.text.encode()))
            return
        analysis, text = outcome.analysis, command.text
        idle = not (len(self._pipeline) or self._pipeline.in_transaction)
        changes = self._names.apply(analysis.names, text=text, release=outcome.decision, stretch=OUTSIDE, idle=idle)
        self._pipeline.ask(Asked(Step.QUERY, outcome.decision, changes, statements=analysis.statements))
        self.out.append(frame.raw if outcome.payload == text else requests.encode_query(outcome.payload))
        if self._moves_nothing(outcome) and (alike := self._stretches.alike(text)) is not None:
            alike.released(command.context, partial(self._session.repeat_alike, command, outcome))
        self._released(outcome)
        if self._settings and (analysis.opaque or unsettles(analysis.names)):
            self._after_drain(lambda: None)  # the server reports its settings before it is ready: `watch` decides

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
        self._decide(command, partial(self._parsed, frame, parsed, command))

    def _parsed(self, frame: Frame, parsed: requests.Parse, command: Command, outcome: Outcome) -> None:
        if not isinstance(outcome, gate.Release):
            failing = requests.Parse(parsed.name, self._refused.text.encode(), ())
            self._refuse(outcome, instead=requests.encode_parse(failing))
            return
        text = outcome.payload
        statement = Statement(text, parsed.oids)
        if not parsed.name:
            known = self._stretches.parsed(frame.raw, statement)
            statement.binds = known.statement.binds
            self._recurs(known.recurrence, command, outcome)
        change = self._names.statements.enter(parsed.name, statement, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.PARSE, outcome.decision, (change,)))
        same = text == parsed.text
        self.out.append(frame.raw if same else requests.encode_parse(requests.Parse(parsed.name, text, parsed.oids)))

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
                    self._bind_statement(frame, bound, statement)

    def _bind_statement(self, frame: Frame, bound: requests.Bind, statement: Statement) -> None:
        context, repeat = self._names.context(), statement.binds.repeat
        if repeat is not None:
            given = listed(frame.raw, bound.at, statement.types, shown)
            if (decision := self._session.again(context, (repeat, given))) is not None:
                self._enter_bind(frame, bound, Portal(statement.shown, decision))
                return
        binds = values(bound, statement.types)
        command = Command(Wire.POSTGRES, Kind.BIND, statement.text, binds=binds, settings=self._settings, context=context)
        self._decide(command, partial(self._bound, frame, bound, statement, command))

    def _bound(self, frame: Frame, bound: requests.Bind, statement: Statement, command: Command, outcome: Outcome) -> None:
        if not isinstance(outcome, gate.Release):
            self._refuse(outcome)
            return
        if outcome.payload != statement.text:
            raise LocalProtocolError("a Bind was released with another text than its statement's")
        if not statement.mentions_names:
            self._recurs(statement.binds, command, outcome)
        self._enter_bind(frame, bound, Portal(statement.shown, outcome.decision, outcome.analysis.names))
        self._released(outcome)

    def _enter_bind(self, frame: Frame, bound: requests.Bind, portal: Portal) -> None:
        change = self._names.portals.enter(bound.portal, portal, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.BIND, portal.release, (change,)))
        self.out.append(frame.raw)

    def _recurs(self, recurrence: Recurrence, command: Command, release: gate.Release) -> None:
        """Note that a text was released, if running it moves nothing that the session follows."""
        if self._moves_nothing(release):
            recurrence.released(command.context, partial(self._session.repeat, command, release))

    @staticmethod
    def _moves_nothing(release: gate.Release) -> bool:
        analysis = release.analysis
        return not (release.approved or analysis.names) and schema_change(analysis) is SchemaChange.NONE

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
            case Portal() if (stopped := self._session.stopped()) is not None:
                self._refuse(stopped)
            case Portal():
                changes = self._names.apply(
                    portal.actions, text=portal.text.encode(), release=portal.release,
                    stretch=self._pipeline.stretch, idle=False, running=asked.portal,
                )  # fmt: skip
                self._pipeline.ask(Asked(Step.EXECUTE, portal.release, changes))
                self.out.append(frame.raw)
                self.unsettled = self.unsettled or (bool(self._settings) and unsettles(portal.actions))

    def _function_call(self, frame: Frame) -> None:
        """A function by its OID, behind the back of every text: never offered. The session goes on."""
        if not self._out_of_turn():
            self._session.record(refusals.not_offered(requests.called(frame.raw)))
            self._refuse(refusals.function_call(), Step.REFUSED_CALL, requests.IMPOSSIBLE_CALL)

    def _describe(self, frame: Frame) -> None:
        named = requests.named(frame.raw)
        if self._out_of_turn():
            return
        found: object = None
        if named.of == "S":
            found = self._names.statements.look_up(named.name, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.DESCRIBE, statement=found if isinstance(found, Statement) else None))
        self.out.append(frame.raw)

    def _close(self, frame: Frame) -> None:
        named = requests.named(frame.raw)
        if self._out_of_turn():
            return
        table: Any = self._names.statements if named.of == "S" else self._names.portals
        change = table.enter(named.name, Lookup.ABSENT, self._pipeline.stretch)
        self._pipeline.ask(Asked(Step.CLOSE, changes=(change,)))
        self.out.append(frame.raw)

    def _sync(self, frame: Frame) -> None:
        if not self._pipeline.copy_in:  # COPY swallows a Sync
            self._pipeline.ask(Asked(Step.SYNC))
        self.out.append(frame.raw)
        if self.unsettled:
            self.unsettled = False
            self._after_drain(lambda: None)

    def _flush_request(self, frame: Frame) -> None:
        self.out.append(frame.raw)

    def _copy_data(self, piece: CopyPiece) -> None:
        """Pass a CopyData on, or none of it: the server waits for the rest of one that has begun, whatever failed since.

        Were its end dropped, the server would take the next bytes for it, and read a message out of somebody's value.
        """
        if piece.first:
            self._copy_passes = len(self._pipeline) > 0 and not self._pipeline.skipping
        if self._copy_passes:
            self._answering.copied_in(piece.size, first=piece.first)
            self.out.append(piece.raw)

    def _copy_end(self, frame: Frame) -> None:
        if frame.kind == ord("f"):
            requests.copy_fail(frame.raw)
        if len(self._pipeline) and not self._pipeline.skipping:
            self._pipeline.ask(Asked(Step.COPY_END))
            self.out.append(frame.raw)

    def _terminate(self, _frame: Frame) -> None:
        self._turns.flush()
        self._turns.end("client-terminated")

    _HANDLERS: ClassVar[dict[int, Callable[[Asking, Frame], None]]] = {
        ord("Q"): _query, ord("P"): _parse, ord("B"): _bind, ord("E"): _execute, ord("D"): _describe, ord("C"): _close,
        ord("S"): _sync, ord("H"): _flush_request, ord("c"): _copy_end, ord("f"): _copy_end, ord("X"): _terminate,
        ord("F"): _function_call,
    }  # fmt: skip

    # -- deciding and refusing ----------------------------------------------------------------------------------------

    def _out_of_turn(self) -> bool:
        """Whether the server would skip this message anyway. Raise RemoteProtocolError inside COPY IN.

        Raise PoisonedError behind a setting that the server reports only at the next Sync, and reads by at once.
        """
        if self._pipeline.copy_in:
            raise RemoteProtocolError("a command inside COPY FROM STDIN")
        if self.unsettled:
            raise PoisonedError("a setting that decides how text is read must be followed by a Sync")
        return self._pipeline.skipping

    def _names_unsettled(self, text: bytes) -> bool:
        return not self._names.settled and not self._pipeline.drained and mentions_names(text)

    def _reserved(self, name: str) -> bool:
        if name.startswith(answers.REFUSED):
            self._refuse(refusals.as_the_server("42939", f"names that begin with {answers.REFUSED} are reserved"))
            return True
        if self._names.full:
            self._refuse(Refusal(Reason.LIMIT_REACHED, "too many prepared statements or portals: close some"))
            return True
        return False

    def _decide(self, command: Command, then: Callable[[Outcome], None]) -> None:
        if self._cancelled:
            self._cancelled = False
            then(refusals.cancelled_while_held(None))
            return
        answer = self._session.submit(command, self._caller)
        if isinstance(answer, gate.Release):
            then(answer)
            return
        if self._schema.outdated(answer.analysis):
            self._pause(partial(self._decide_again, command, then))
            return
        self._caller.request = None
        self._caller.begins_anew = answer.analysis is not None and ends_transaction(answer.analysis)
        self.busy = True
        self._turns.flush()
        self.waiting = asyncio.get_running_loop().create_task(self._outcome(answer))
        self.waiting.add_done_callback(partial(self._decided, then))

    async def _outcome(self, pending: gate.Pending) -> Outcome:
        try:
            return await pending.outcome()
        except asyncio.CancelledError:
            # A CancelRequest, or the end of the session: the gate has handed the request back.
            return refusals.cancelled_while_held(self._caller.request)
        except Exception as error:
            log.exception("deciding failed", session=self._session.id, error=error.__class__.__name__)
            return Refusal(Reason.INTERNAL, SENTENCES[Reason.INTERNAL])

    def _decided(self, then: Callable[[Outcome], None], task: asyncio.Task[Outcome]) -> None:
        if self._ended:
            return
        self.waiting = None
        self.busy = False
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
        self.busy = True
        self._draining = again
        self.out.append(requests.FLUSH)

    def _resume(self, step: Callable[[], None]) -> None:
        """Take a step that had to wait, then go on with the client's next message. A cancel of what ran before goes first."""
        if self._cancelling.under_way:
            self.busy = True
            self._cancelling.afterwards(partial(self._go_on, step))
            return
        try:
            step()
        except InterlockError as error:
            self._turns.end(str(error.code), refusals.fatal(error.code, str(error)))
            return
        self._turns.go_on()

    def _refuse(self, outcome: Refusal | ErrorFields, step: Step = Step.REFUSED, instead: bytes = b"") -> None:
        """Let the server fail in place of the refused message (postgres.md): it aborts and skips by itself.

        What is sent is of the refused message's kind where that makes a difference to the server: a Query and a Parse of
        a text that nothing can parse, for all else an Execute of a portal that can't exist.
        """
        fields = refusals.refused(outcome) if isinstance(outcome, Refusal) else outcome
        if self._pipeline.skipping:
            return
        self._pipeline.ask(Asked(step, refusal=fields))
        self.out.append(instead or requests.encode_execute(self._refused.portal))

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
        self.busy = True
        self._turns.flush()
        self._schema.wait(partial(self._go_on, partial(self._once, again)))

    def _go_on(self, step: Callable[[], None]) -> None:
        if not self._ended:
            self.busy = False
            self._resume(step)

    def _once(self, again: Callable[[], None]) -> None:
        """Take a step that was paused. A cancel is for it alone, whatever comes of it."""
        try:
            again()
        finally:
            self._cancelled = False

    def _decide_again(self, command: Command, then: Callable[[Outcome], None]) -> None:
        """Read a text with the catalog as it is now. Answers may have come meanwhile that make the server skip it."""
        if not self._pipeline.skipping:
            self._decide(replace(command, context=self._names.context()), then)


def values(bound: Bind, types: tuple[int, ...]) -> tuple[BindValue, ...]:
    """Pair each value with its format, its type where it is known, and its text for people."""
    found = []
    known = len(types)
    for index, raw in enumerate(bound.values):
        oid = types[index] if index < known else 0
        code = bound.format_of(index)
        found.append(BindValue(raw, code, oid, None if raw is None else shown(raw, code, oid)))
    return tuple(found)
