"""The server's half of a session: each read is scanned, applied to the pipeline, recorded, and relayed.

Knows: what each watched message changes; which one ErrorResponse carries a refusal of ours.
Must not know: the gate, the client's messages, sockets.

Whole reads go on as they came. Only a message that is replaced costs a copy.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from interlock.errors import InterlockError, Reason
from interlock.postgres.onlooker import Onlooker
from interlock.postgres.results import Results
from interlock.postgres.statements import SessionNames, Statement
from interlock.postgres.watch import ParameterWatch
from interlock.postgres.wire import answers
from interlock.postgres.wire.answers import RefusedNames
from interlock.postgres.wire.frame import ServerFrames
from interlock.postgres.wire.pipeline import Act, Asked, Pipeline, Step

log = structlog.get_logger()

_COMMAND_COMPLETE, _COPY_DONE, _ERROR, _PARAMETER_STATUS, _SUSPENDED, _COLUMNS = b"CcESsT"


_REFUSED_CODES = ("34000", "42601")
"""How a server fails on what stands for a refused message: a portal that does not exist, a text that does not parse."""
_NO_FUNCTION = "42883"
"""How it fails on a call of the function with OID 0. In a failed transaction it says that instead, to the client as well."""


class PoisonedError(InterlockError):
    """The server reported a setting that makes text ambiguous, or another user: the session must end."""

    reason = Reason.SESSION_POISONED


class Answering:
    """Takes the server's bytes and gives the client's. `idle` is called when nothing is in flight and no transaction open."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        names: SessionNames,
        results: Results,
        watch: ParameterWatch,
        refused: RefusedNames,
        idle: Callable[[], None],
        onlooker: Onlooker | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._names = names
        self._results = results
        self._watch = watch
        self._refused = refused
        self._idle = idle
        self._onlooker = onlooker
        self._apply = self._answered if onlooker is None else self._answered_and_told
        self._frames = ServerFrames()

    @property
    def at_boundary(self) -> bool:
        """Whether a message of ours may be sent to the client now."""
        return self._frames.at_boundary

    @property
    def at_rest(self) -> bool:
        """Nothing of the server's stream is kept or under way."""
        return self._frames.at_rest

    def copied_in(self, size: int, *, first: bool) -> None:
        """Count CopyData on its way to the server. It belongs to the message that was sent last, if that is a COPY at all."""
        asked = self._pipeline.last
        if asked is not None:
            asked.copied_bytes += size
            asked.copied_messages += first

    def take(self, data: bytes) -> bytes:
        """Apply one read; return what the client gets. Raise RemoteProtocolError, PoisonedError, EvidenceError."""
        scan = self._frames.scan(data)
        data, last = scan.data, 0
        out: list[bytes] = []
        for kind, start, end in scan.places:
            replacement = self._apply(kind, data, start, end)
            if replacement is not None:
                out += (data[last:start], replacement)
                last = end
        if out:
            out.append(data[last : scan.end])
            return b"".join(out)
        return data if scan.end == len(data) else data[: scan.end]

    def _answered(self, kind: int, data: bytes, start: int, end: int) -> bytes | None:
        """Apply one watched message; return what to send in its place, or None to send it as it is."""
        if kind == _PARAMETER_STATUS:
            poison = self._watch.take(*answers.parameter_status(data[start + 5 : end]))
            if poison is not None:
                raise PoisonedError(poison[1], reason=poison[0])
            return None
        if kind == _ERROR:
            return self._error(answers.error_fields(data[start + 5 : end]))
        act, head = self._pipeline.answer(kind)
        match act:
            case Act.RESULT | Act.LAST_RESULT:
                self._count_copy(head)
                if kind == _SUSPENDED:
                    self._results.suspended(head.ref)
                else:
                    self._results.tag(head.ref, data[start + 5 : end - 1] if kind == _COMMAND_COMPLETE else b"")
            case Act.READY:
                self._pipeline.ready(chr(data[end - 1]))
                if self._pipeline.status == "I":
                    self._names.transaction_ended()
                    if not len(self._pipeline):
                        self._idle()
                self._results.flush()
            case Act.TYPES if isinstance(head.statement, Statement):
                head.statement.types = answers.parameter_types(data[start + 5 : end])
            case Act.STAY if kind == _COPY_DONE:
                self._results.copied(head.ref, "out", *self._frames.copies.popleft())
            case _:
                pass
        return None

    def _answered_and_told(self, kind: int, data: bytes, start: int, end: int) -> bytes | None:
        """The same, and tell the onlooker. Whatever it does, the answer is what it is."""
        head = self._pipeline.head
        replacement = self._answered(kind, data, start, end)
        ref, body = head.ref if head is not None else None, data[start + 5 : end]
        try:
            if self._onlooker is not None and kind == _COLUMNS:
                self._onlooker.described(ref, body)
            elif self._onlooker is not None and kind == _COMMAND_COMPLETE:
                self._onlooker.completed(ref, body[:-1].decode("utf-8", "replace"), answers.rows_of(body[:-1]))
        except Exception as error:
            log.error("an onlooker failed and is told no more", error=error.__class__.__name__)
            self._onlooker = None
        return replacement

    def _error(self, fields: dict[str, str]) -> bytes | None:
        if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
            return None  # the server ends the connection; its socket will say so
        code = fields.get("C", "")
        copying_out = self._pipeline.copying == "out"
        _, head = self._pipeline.answer(_ERROR)
        self._count_copy(head)
        if copying_out:
            self._results.copied(head.ref, "out", *self._frames.take_copied())
        if head.refusal is not None:
            return answers.error(head.refusal) if self._is_ours(head.step, code, fields) else None
        if head.ref is not None:
            self._results.failed(head.ref, code)
        for ref in head.skipped_refs:
            self._results.skipped(ref)
        return None

    def _is_ours(self, step: Step, code: str, fields: dict[str, str]) -> bool:
        """Whether this is how the server fails on what stands for a refused message, and on nothing else."""
        if step is Step.REFUSED_CALL:
            return code == _NO_FUNCTION
        return code in _REFUSED_CODES and any(name in fields.get("M", "") for name in self._refused)

    def _count_copy(self, head: Asked) -> None:
        """A COPY FROM of this statement has ended: record what passed. What came when nothing copied, the server drops."""
        if head.copies_in:
            self._results.copied(head.ref, "in", head.copied_bytes, head.copied_messages)
            head.copies_in = False
            head.copied_bytes = head.copied_messages = 0
