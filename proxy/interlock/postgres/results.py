"""What the server answered to released commands, gathered and recorded in one write.

Knows: the events pg.result and pg.copy. Must not know: the chain, sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from interlock.evidence.events import Draft, EventDraft, Json
from interlock.evidence.forms import Form, FormedDraft
from interlock.postgres.wire.answers import rows_of

MAX_GATHERED = 64
MAX_TAG = 64
"""PostgreSQL's own COMPLETION_TAG_BUFSIZE; a longer one is recorded, and never kept."""


class Results:
    """Drafts of the results since the last ReadyForQuery. `record` appends them; it raises EvidenceError."""

    def __init__(self, record: Callable[..., int]) -> None:
        self._record = record
        self._drafts: list[Draft] = []

    def tag(self, ref: int | None, tag: bytes) -> None:
        """A statement ended: its command tag, such as `DELETE 3`."""
        if ref is None or len(tag) > MAX_TAG:
            self._add("pg.result", {"ref": ref, **_tagged(tag)})
        else:
            self._gather(_form(tag).draft(ref))

    def alone(self, ref: int, tag: bytes) -> None:
        """The same of a statement that nothing else was gathered beside, recorded at once."""
        if self._drafts or len(tag) > MAX_TAG:
            self.tag(ref, tag)
            self.flush()
        else:
            self._record(FormedDraft(_form(tag), ref, ()))

    def suspended(self, ref: int | None) -> None:
        """A portal gave as many rows as were asked for and may be resumed."""
        self._add("pg.result", {"ref": ref, "tag": "", "suspended": True})

    def failed(self, ref: int | None, sqlstate: str) -> None:
        self._add("pg.result", {"ref": ref, "sqlstate": sqlstate})

    def skipped(self, ref: int) -> None:
        """A released command that the server never ran: something before it failed."""
        self._add("pg.result", {"ref": ref, "skipped": True})

    def copied(self, ref: int | None, direction: str, size: int, messages: int) -> None:
        self._add("pg.copy", {"ref": ref, "direction": direction, "bytes": size, "messages": messages})

    def flush(self) -> None:
        if self._drafts:
            drafts, self._drafts = self._drafts, []
            self._record(*drafts)

    def _add(self, kind: str, fields: dict[str, Json]) -> None:
        self._gather(EventDraft(kind, fields))

    def _gather(self, draft: Draft) -> None:
        self._drafts.append(draft)
        if len(self._drafts) >= MAX_GATHERED:
            self.flush()


def _tagged(tag: bytes) -> dict[str, Json]:
    return {"tag": tag.decode("utf-8", "replace"), "rows": rows_of(tag)}


@lru_cache(maxsize=256)
def _form(tag: bytes) -> Form:
    return Form("pg.result", _tagged(tag), refers=True)
