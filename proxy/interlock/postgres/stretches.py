"""The short way of a session: a statement that recurs, in one stretch or one Query and with nothing else in flight.

Knows: wire.stretch, what the session keeps of texts it was released before (statements.Recurrence), the gate's `again`.
Must not know: policy, how anything unusual is handled.

Theory of operation. Most of what a driver sends is one prepared statement with new values, and most of what a server
answers is its rows. As long as both are exactly that, message by message is a detour: the read is decided, recorded and
written whole, and so is its answer. Whatever differs leaves the short way at once. Before anything else of the session is
looked at, `leave` enters a stretch in flight into pipeline and names, as if its messages had been handled one by one; from
there on nobody can tell which way they came. So there is nothing here that could be decided differently: what this does
not do, the long way does.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from interlock import gate
from interlock.postgres.results import Results
from interlock.postgres.schema import SchemaView
from interlock.postgres.statements import Portal, Recurrence, SessionNames, Statement
from interlock.postgres.wire import stretch
from interlock.postgres.wire.given import listed
from interlock.postgres.wire.pipeline import Asked, Pipeline, Step
from interlock.postgres.wire.values import shown

MAX_KEPT = 64
"""Parse messages, and as many kinds of texts that are alike, that a session remembers."""
MAX_KEPT_BYTES = 4096
"""Longer ones hardly repeat."""
_QUERY = b"Q"


class Parsed(NamedTuple):
    """What a Parse message made: its own recurrence and the statement, of which each further one gets a new."""

    recurrence: Recurrence
    statement: Statement


class _Flight(NamedTuple):
    """A stretch that was sent and is not answered. `decision` is the Bind's. Of a Query, `statement` is None."""

    statement: Statement | None
    decision: int
    parsed: int | None = None
    described: bool = False


class Stretches:
    """At most one stretch or Query in flight, and the Parse messages and alike texts that came before.

    `ready`: nothing is in flight, nothing waits, nothing is kept of either stream. The session says so after an answer; here it
    stays so as long as each read is one stretch and each answer a whole one.
    """

    def __init__(
        self, session: gate.Session, *, pipeline: Pipeline, names: SessionNames, schema: SchemaView, results: Results
    ) -> None:
        self.ready = False
        self._session = session
        self._pipeline = pipeline
        self._names = names
        self._schema = schema
        self._results = results
        self._parses: dict[bytes, Parsed] = {}
        self._alike: dict[Hashable, Recurrence] = {}
        self.flying = False
        self._flight: _Flight | None = None

    def parsed(self, raw: bytes, make: Statement) -> Parsed:
        """Return what is remembered of this Parse message; `make` is what it made, should it be new."""
        known = self._parses.get(raw)
        if known is None:
            known = Parsed(Recurrence(), make)
            if len(raw) <= MAX_KEPT_BYTES:
                if len(self._parses) >= MAX_KEPT:
                    del self._parses[next(iter(self._parses))]
                self._parses[raw] = known
        return known

    def alike(self, text: bytes) -> Recurrence | None:
        """Return what is remembered of texts like this one, which a Query was released with; None when nothing is alike to it."""
        alike = self._session.alike(text, self._names.context())
        if alike is None:
            return None
        known = self._alike.get(alike)
        if known is None:
            if len(self._alike) >= MAX_KEPT:
                del self._alike[next(iter(self._alike))]
            known = self._alike[alike] = Recurrence()
        return known

    def begin(self, data: bytes) -> bool:
        """Take off with a read that is one known stretch: when this is True it is recorded, and is to be sent as it came.

        To be asked only when `ready`.
        """
        if data[:1] == _QUERY:
            flight = self._query(data)
        else:
            asked = stretch.asked(data)
            flight = None if asked is None else self._bind(data, *asked)
        if flight is None:
            return False
        self._flight = flight
        self.flying, self.ready = True, False
        return True

    def _bind(self, data: bytes, parse: bytes, name: str, described: bool, at: int) -> _Flight | None:
        names = self._names
        if self._schema.awaited or names.full:
            return None
        context = names.context()
        if parse:
            known = self._parses.get(parse)
            if known is None or name:
                return None
            parsing, statement = known.recurrence.repeat, known.statement.anew()
            if parsing is None or (repeat := statement.binds.repeat) is None:
                return None
            given = listed(data, at, statement.types, shown)
            parsed = self._session.again(context, (parsing, b""), (repeat, given))
            if parsed is None:
                return None
            return _Flight(statement, parsed + gate.EVENTS_OF_A_RELEASE, parsed, described)
        meaning = names.statements.look_up(name, self._pipeline.stretch)
        if not isinstance(meaning, Statement) or (repeat := meaning.binds.repeat) is None:
            return None
        decision = self._session.again(context, (repeat, listed(data, at, meaning.types, shown)))
        return None if decision is None else _Flight(meaning, decision, None, described)

    def _query(self, data: bytes) -> _Flight | None:
        if not self._alike or (text := stretch.query(data)) is None or self._schema.awaited:
            return None
        context = self._names.context()
        known = self._alike.get(self._session.alike(text, context))
        if known is None or known.repeat is None:
            return None
        decision = self._session.again(context, (known.repeat, text))
        return None if decision is None else _Flight(None, decision)

    def answered(self, data: bytes) -> bool:
        """Land with a read that is the whole answer: when this is True it is recorded, and is to be relayed as it came.

        To be asked only when `flying`. Raise EvidenceError.
        """
        flight = self._flight
        assert flight is not None
        statement, decision, parsed, described = flight
        query = statement is None
        answer = stretch.queried(data) if query else stretch.answered(data, parsed is not None, described)
        if answer is None:
            return False
        tag, status = answer
        self._results.alone(decision, tag)
        self.flying, self.ready = False, True
        if status == "I" and parsed is None and not self._pipeline.in_transaction:
            return True  # nothing is other than it was: no portal, no status, no change of the schema
        if statement is None:
            self._pipeline.queried(status)
        else:
            self._pipeline.synced(status)
            if parsed is not None:
                self._names.statements.enter_settled("", statement)
        if status == "I":
            self._names.transaction_ended()
            self._schema.settled()
        elif statement is not None:
            self._names.portals.enter_settled("", Portal(statement.shown, decision))
        return True

    def leave(self) -> None:
        """Leave the short way: enter what is in flight message by message, as the long way would have."""
        self.ready = False
        flight = self._flight
        if not self.flying or flight is None:
            return
        self.flying = False
        pipeline, names = self._pipeline, self._names
        statement, decision, parsed, described = flight
        if statement is None:
            pipeline.ask(Asked(Step.QUERY, decision))
            return
        if parsed is not None:
            change = names.statements.enter("", statement, pipeline.stretch)
            pipeline.ask(Asked(Step.PARSE, parsed, (change,)))
        portal = names.portals.enter("", Portal(statement.shown, decision), pipeline.stretch)
        pipeline.ask(Asked(Step.BIND, decision, (portal,)))
        if described:
            pipeline.ask(Asked(Step.DESCRIBE))
        pipeline.ask(Asked(Step.EXECUTE, decision))
        pipeline.ask(Asked(Step.SYNC))


class LongWay(Stretches):
    """Of a session in which every answer is looked at: nothing takes the short way."""

    def begin(self, data: bytes) -> bool:
        return False
