"""What the server still owes us an answer for, and what each answer means: the state of one connection.

Knows: the message flow of PostgreSQL manual "Message Flow" (simple and extended query, COPY, pipelining) and the code
that defines it, PostgresMain: after an error in the extended protocol everything up to the next Sync is skipped, a Query
too. Must not know: policy, identity, what is refused and why, sockets.

Theory of operation. Every message that gets an answer is entered when it is sent (`ask`); answers come in that order, so
each belongs to the head of the queue. `ANSWERS` says what an answer does to the head; a pair that is not in the table is
a server that breaks the protocol, and the session ends.

A refusal is the server's own error: in place of the refused message one is sent that can't succeed, and entered as REFUSED
(a Query: REFUSED_QUERY, a FunctionCall: REFUSED_CALL) with what is to be said. The server fails on it, aborts the transaction,
skips to Sync and answers ReadyForQuery itself; only the text of that one ErrorResponse is replaced. When something earlier in
the stretch failed, the server never reaches the refusal and it is dropped with everything that was skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from interlock.errors import RemoteProtocolError
from interlock.postgres.wire.answers import ErrorFields

STATUSES = frozenset("ITE")
"""Idle, in a transaction, in a failed one."""


class Step(Enum):
    """A message that was sent and is not settled."""

    PARSE = auto()
    BIND = auto()
    DESCRIBE = auto()
    CLOSE = auto()
    EXECUTE = auto()
    QUERY = auto()
    SYNC = auto()
    REFUSED = auto()
    REFUSED_QUERY = auto()
    REFUSED_CALL = auto()  # a FunctionCall: they are never offered
    COPY_END = auto()  # CopyDone or CopyFail: has no answer of its own

    __hash__ = object.__hash__  # members are looked up for every message; Enum's own hash is a call


class Act(Enum):
    """What an answer does."""

    STAY = auto()  # part of the head's answer
    DONE = auto()  # the head is answered
    RESULT = auto()  # one statement of a Query has its result; more may follow
    LAST_RESULT = auto()  # an Execute has its result
    TYPES = auto()  # the parameter types of the described statement
    FAIL = auto()  # an error after which the server goes on (Query, Sync)
    SKIP = auto()  # an error after which the server skips to Sync
    READY = auto()  # ReadyForQuery
    COPY_IN = auto()
    COPY_OUT = auto()


ANSWERS: dict[tuple[Step, str], Act] = {
    (Step.PARSE, "1"): Act.DONE,
    (Step.BIND, "2"): Act.DONE,
    (Step.CLOSE, "3"): Act.DONE,
    (Step.DESCRIBE, "t"): Act.TYPES,
    (Step.DESCRIBE, "T"): Act.DONE,
    (Step.DESCRIBE, "n"): Act.DONE,
    (Step.EXECUTE, "C"): Act.LAST_RESULT,
    (Step.EXECUTE, "I"): Act.LAST_RESULT,
    (Step.EXECUTE, "s"): Act.LAST_RESULT,
    (Step.EXECUTE, "G"): Act.COPY_IN,
    (Step.EXECUTE, "H"): Act.COPY_OUT,
    (Step.EXECUTE, "c"): Act.STAY,
    (Step.QUERY, "T"): Act.STAY,
    (Step.QUERY, "C"): Act.RESULT,
    (Step.QUERY, "I"): Act.RESULT,
    (Step.QUERY, "G"): Act.COPY_IN,
    (Step.QUERY, "H"): Act.COPY_OUT,
    (Step.QUERY, "c"): Act.STAY,
    (Step.QUERY, "E"): Act.FAIL,
    (Step.QUERY, "Z"): Act.READY,
    (Step.SYNC, "E"): Act.FAIL,
    (Step.SYNC, "Z"): Act.READY,
    (Step.PARSE, "E"): Act.SKIP,
    (Step.BIND, "E"): Act.SKIP,
    (Step.DESCRIBE, "E"): Act.SKIP,
    (Step.CLOSE, "E"): Act.SKIP,
    (Step.EXECUTE, "E"): Act.SKIP,
    (Step.REFUSED, "E"): Act.SKIP,
    (Step.REFUSED_QUERY, "E"): Act.FAIL,
    (Step.REFUSED_QUERY, "Z"): Act.READY,
    (Step.REFUSED_CALL, "E"): Act.FAIL,
    (Step.REFUSED_CALL, "Z"): Act.READY,
}
_READY_BY_THEMSELVES = frozenset((Step.QUERY, Step.REFUSED_QUERY, Step.REFUSED_CALL))
"""What a server answers with a ReadyForQuery of its own, and so ends the implicit transaction of the messages before."""
_BY_CODE = {(step, ord(kind)): act for (step, kind), act in ANSWERS.items()}


class Consequence(Protocol):
    """What follows from a message once it is answered: `wire.names.Change` is one."""

    def settle(self) -> None:
        """The message succeeded."""

    def undo(self) -> None:
        """The message failed, or was skipped: nothing of it happened."""

    def confuse(self) -> None:
        """The message failed and nobody knows how much of it happened."""


class Asked:
    """One entry of the queue. `ref` is the seq of the recorded release; `changes` what it did to names.

    `statement` is set for a Describe of a statement: whose parameter types the answer tells. `copies_in` says that the server
    reads CopyData for it, `copied_bytes` and `copied_messages` what was sent behind it.
    """

    __slots__ = (
        "changes", "copied_bytes", "copied_messages", "copies_in", "failed", "ref", "refusal", "skipped_refs", "statement",
        "statements", "step",
    )  # fmt: skip

    def __init__(
        self,
        step: Step,
        ref: int | None = None,
        changes: tuple[Consequence, ...] = (),
        *,
        refusal: ErrorFields | None = None,
        statement: object = None,
        statements: int = 1,
    ) -> None:
        self.step = step
        self.ref = ref
        self.changes = changes
        self.refusal = refusal
        self.statement = statement
        self.statements = statements
        self.failed = False
        self.skipped_refs: Sequence[int] = ()
        self.copies_in = False
        self.copied_bytes = self.copied_messages = 0


class Pipeline:
    """The queue and the states that follow from it.

    `status` is the transaction status of the last ReadyForQuery: I idle, T in a transaction, E failed.
    `skipping` is True from an error in the extended protocol until the next Sync is sent.
    """

    __slots__ = ("_queue", "_unsynced", "copy_in", "copying", "skipping", "status", "stretch")

    def __init__(self) -> None:
        self._queue: deque[Asked] = deque()
        self._unsynced = 0
        self.status = "I"
        self.skipping = False
        self.copy_in = False
        self.copying: str = ""
        self.stretch = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def drained(self) -> bool:
        """Nothing that was sent can still be answered before more is sent."""
        return not self._queue or self.skipping or self.copy_in

    @property
    def unsynced(self) -> bool:
        """Extended messages were sent since the last Sync or Query: they share an implicit transaction."""
        return self._unsynced > 0

    @property
    def in_transaction(self) -> bool:
        """Waiting now would hold a transaction open at the server."""
        return self.status != "I" or self._unsynced > 0

    @property
    def head(self) -> Asked | None:
        return self._queue[0] if self._queue else None

    @property
    def last(self) -> Asked | None:
        return self._queue[-1] if self._queue else None

    @property
    def one_unit(self) -> bool:
        """Everything in flight ends together: no Query, and no Sync, has anything behind it."""
        return not any(asked.step in _READY_BY_THEMSELVES or asked.step is Step.SYNC for asked in list(self._queue)[:-1])

    def unanswered(self) -> list[int]:
        """Return the refs of releases that have no result yet."""
        return [asked.ref for asked in self._queue if asked.ref is not None and asked.step in (Step.QUERY, Step.EXECUTE)]

    def ask(self, asked: Asked) -> None:
        """Enter a message that is being sent now."""
        step = asked.step
        if step is Step.SYNC:
            self.skipping = False
            self.stretch += 1
            self._unsynced = 0
        elif step in _READY_BY_THEMSELVES:
            self._unsynced = 0
        elif step is not Step.COPY_END:
            self._unsynced += 1
        if step is Step.COPY_END:
            self.copy_in = False
            if not self._queue:
                return
        self._queue.append(asked)

    @property
    def at_rest(self) -> bool:
        """Nothing is in flight, and the server would skip nothing."""
        return not (self._queue or self.skipping or self.copy_in)

    def synced(self, status: str) -> None:
        """A whole stretch came and was answered while at rest, up to its ReadyForQuery with this status."""
        self.status = status
        self.stretch += 1
        self._unsynced = 0

    def queried(self, status: str) -> None:
        """The same of a Query, which ends no stretch."""
        self.status = status
        self._unsynced = 0

    def answer(self, kind: int) -> tuple[Act, Asked]:
        """Apply one message of the server to the head. Raise RemoteProtocolError when it can't be its answer."""
        queue = self._queue
        if not queue:
            raise RemoteProtocolError(f"the server answered {chr(kind)!r} and nothing was asked")
        head = queue[0]
        act = _BY_CODE.get((head.step, kind))
        if act is None:
            raise RemoteProtocolError(f"the server answered {chr(kind)!r} to {head.step.name}")
        if act is Act.STAY:
            pass
        elif act is Act.DONE or act is Act.LAST_RESULT:
            queue.popleft()
            for change in head.changes:
                change.settle()
            self._end_copy()
        elif act is Act.READY:
            queue.popleft()
            self._end_copy()
            if not head.failed:
                for change in head.changes:
                    change.settle()
        elif act is Act.RESULT:
            self._end_copy()
        elif act is Act.FAIL:
            self._end_copy()
            if not head.failed:
                head.failed = True
                _failed(head)
        elif act is Act.SKIP:
            self._end_copy()
            self._skip(head)
        elif act is Act.COPY_IN:
            self._begin_copy_in()
        elif act is Act.COPY_OUT:
            self.copying = "out"
        while queue and queue[0].step is Step.COPY_END:
            queue.popleft()
        return act, head

    def ready(self, status: str) -> None:
        """Take the transaction status that ReadyForQuery carries. Raise RemoteProtocolError when there is no such status."""
        if status not in STATUSES:
            raise RemoteProtocolError(f"the server is ready with the status {status!r}")
        self.status = status

    def _skip(self, head: Asked) -> None:
        """The server skips everything up to the next Sync: undo what will never be reached."""
        queue = self._queue
        gone: list[Asked] = []
        while queue and queue[0].step is not Step.SYNC:
            gone.append(queue.popleft())
        head.skipped_refs = [a.ref for a in gone[1:] if a.ref is not None and a.step in (Step.QUERY, Step.EXECUTE)]
        for asked in gone:
            for change in asked.changes:
                change.undo()
        if not queue:
            self.skipping = True
            self._unsynced = 1

    def _begin_copy_in(self) -> None:
        """The server reads CopyData now, and swallows a Sync that was sent before the copy's own end."""
        self.copying = "in"
        queue = self._queue
        head = queue.popleft()
        head.copies_in = True
        while queue and queue[0].step is Step.SYNC:
            queue.popleft()
            self._unsynced = 1
        ended = bool(queue) and queue[0].step is Step.COPY_END
        queue.appendleft(head)
        self.copy_in = not ended and len(queue) == 1

    def _end_copy(self) -> None:
        self.copying = ""
        self.copy_in = False


def _failed(asked: Asked) -> None:
    """A Query failed: a single statement changed nothing; of several nobody knows which ran."""
    for change in asked.changes:
        if asked.statements == 1:
            change.undo()
        else:
            change.confuse()
