"""The short way of a session: a statement that recurs, in one stretch or one Query and with nothing else in flight.

Knows: wire.stretch, what the session keeps of texts it was released before (statements.Recurrence), the gate's `again`.
Must not know: policy, how anything unusual is handled.

Theory of operation. Most of what a driver sends is one prepared statement with new values, and most of what a server
answers is its rows. As long as both are exactly that, message by message is a detour: the read is decided, recorded and
written whole, and so is its answer. Whatever differs leaves the short way at once. Before anything else of the session is
looked at, `land` enters a stretch in flight into pipeline and names, as if its messages had been handled one by one; from
there on nobody can tell which way they came. So there is nothing here that could be decided differently: what this does
not do, the long way does.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from interlock import gate
from interlock.commands.model import BindValue
from interlock.postgres.results import Results
from interlock.postgres.schema import SchemaView
from interlock.postgres.statements import Portal, Recurrence, SessionNames, Statement
from interlock.postgres.wire import stretch
from interlock.postgres.wire.pipeline import Asked, Pipeline, Step
from interlock.postgres.wire.requests import Bind
from interlock.postgres.wire.values import shown

MAX_KEPT = 64
"""Parse messages, and as many kinds of texts that are alike, that a session remembers."""
MAX_KEPT_BYTES = 4096
"""Longer ones hardly repeat."""


class Parsed(NamedTuple):
    """What a Parse message made: its own recurrence and the statement, of which each further one gets a new."""

    recurrence: Recurrence
    statement: Statement


class _Flight(NamedTuple):
    """A stretch that was sent and is not answered. `decision` is the Bind's."""

    parsed: int | None
    statement: Statement
    decision: int
    described: bool


class _Query(NamedTuple):
    """A Query that was sent and is not answered."""

    decision: int


class Stretches:
    """At most one stretch or Query in flight, and the Parse messages and alike texts that came before."""

    def __init__(
        self, session: gate.Session, *, pipeline: Pipeline, names: SessionNames, schema: SchemaView, results: Results
    ) -> None:
        self._session = session
        self._pipeline = pipeline
        self._names = names
        self._schema = schema
        self._results = results
        self._parses: dict[bytes, Parsed] = {}
        self._alike: dict[Hashable, Recurrence] = {}
        self._flight: _Flight | _Query | None = None

    @property
    def flying(self) -> bool:
        return self._flight is not None

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

        To be asked only when nothing is in flight and nothing waits.
        """
        if self._alike and (text := stretch.query(data)) is not None:
            return self._begin_query(text)
        asked = stretch.asked(data)
        if asked is None or self._schema.awaited or self._names.full:
            return False
        context = self._names.context()
        if asked.parse:
            known = self._parses.get(asked.parse)
            if known is None or asked.bind.statement or known.recurrence.repeat is None:
                return False
            statement = known.statement.anew()
        else:
            known = None
            meaning = self._names.statements.look_up(asked.bind.statement, self._pipeline.stretch)
            if not isinstance(meaning, Statement):
                return False
            statement = meaning
        repeat = statement.binds.repeat
        if repeat is None:
            return False
        run = repeat, values(asked.bind, statement.types)
        if known is None or known.recurrence.repeat is None:
            decision = self._session.again(context, run)
            parsed = None
        else:
            parsed = self._session.again(context, (known.recurrence.repeat, ()), run)
            decision = None if parsed is None else parsed + gate.EVENTS_OF_A_RELEASE
        if decision is None:
            return False
        self._flight = _Flight(parsed, statement, decision, asked.described)
        return True

    def _begin_query(self, text: bytes) -> bool:
        if self._schema.awaited:
            return False
        context = self._names.context()
        known = self._alike.get(self._session.alike(text, context))
        if known is None or known.repeat is None:
            return False
        decision = self._session.again(context, (known.repeat, text))
        if decision is None:
            return False
        self._flight = _Query(decision)
        return True

    def answered(self, data: bytes) -> bool:
        """Land with a read that is the whole answer: when this is True it is recorded, and is to be relayed as it came.

        Raise EvidenceError.
        """
        flight = self._flight
        if flight is None:
            return False
        if isinstance(flight, _Query):
            return self._query_answered(flight, data)
        answer = stretch.answered(data, parsed=flight.parsed is not None, described=flight.described)
        if answer is None:
            return False
        self._flight = None
        tag, status = answer
        self._pipeline.synced(status)
        if flight.parsed is not None:
            self._names.statements.enter_settled("", flight.statement)
        if status == "I":
            self._names.transaction_ended()
            self._schema.settled()
        else:
            self._names.portals.enter_settled("", Portal(flight.statement.shown, flight.decision))
        self._results.tag(flight.decision, tag)
        self._results.flush()
        return True

    def _query_answered(self, flight: _Query, data: bytes) -> bool:
        answer = stretch.queried(data)
        if answer is None:
            return False
        self._flight = None
        tag, status = answer
        self._pipeline.queried(status)
        if status == "I":
            self._names.transaction_ended()
            self._schema.settled()
        self._results.tag(flight.decision, tag)
        self._results.flush()
        return True

    def land(self) -> None:
        """Enter what is in flight message by message, as the long way would have."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        pipeline, names = self._pipeline, self._names
        if isinstance(flight, _Query):
            pipeline.ask(Asked(Step.QUERY, flight.decision))
            return
        if flight.parsed is not None:
            change = names.statements.enter("", flight.statement, pipeline.stretch)
            pipeline.ask(Asked(Step.PARSE, flight.parsed, (change,)))
        portal = names.portals.enter("", Portal(flight.statement.shown, flight.decision), pipeline.stretch)
        pipeline.ask(Asked(Step.BIND, flight.decision, (portal,)))
        if flight.described:
            pipeline.ask(Asked(Step.DESCRIBE))
        pipeline.ask(Asked(Step.EXECUTE, flight.decision))
        pipeline.ask(Asked(Step.SYNC))


class LongWay(Stretches):
    """Of a session in which every answer is looked at: nothing takes the short way."""

    def begin(self, data: bytes) -> bool:
        return False


def values(bound: Bind, types: tuple[int, ...]) -> tuple[BindValue, ...]:
    """Pair each value with its format, its type where it is known, and its text for people."""
    found = []
    known = len(types)
    for index, raw in enumerate(bound.values):
        oid = types[index] if index < known else 0
        code = bound.format_of(index)
        found.append(BindValue(raw, code, oid, shown(raw, code, oid)))
    return tuple(found)
