"""The node's own journal: one recorder for its callers, a new sealed transcript every hour beneath it.

Each journal names the one before it by id, length and head, so the journals of a node are one chain over rotations and
restarts. A journal that broke (disk full) is replaced by a new one as soon as one can be written; nothing is ever
appended to a broken one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from interlock.evidence.events import Draft, EventDraft, Json


class Part(Protocol):
    """One transcript of the journal, as the store makes it: created, and still without events."""

    session: str

    @property
    def next_seq(self) -> int: ...

    @property
    def head(self) -> str: ...

    @property
    def broken(self) -> str | None: ...

    @property
    def sync_every(self) -> bool: ...

    def append(self, *drafts: Draft) -> int: ...

    async def sync(self) -> None: ...

    def end(self, draft: EventDraft) -> asyncio.Task[None]:
        """Append the last event now and seal in a task."""
        ...


def opened(fields: Mapping[str, Json], before: tuple[str, int, str] | None) -> EventDraft:
    """Return the `journal.open` that continues `before`: (id, events, head)."""
    continues: dict[str, Json] = {}
    if before is not None:
        continues = {"continues": before[0], "continues_events": before[1], "continues_head": before[2]}
    return EventDraft("journal.open", {**fields, **continues})


class Journal:
    """Implements `Recorder` over a part that changes."""

    def __init__(self, part: Part, fields: Mapping[str, Json], before: tuple[str, int, str] | None) -> None:
        """Begin `part`, which has no events yet. Raise EvidenceError."""
        self._part = part
        self._fields = fields
        self._before = before
        self._sealing: set[asyncio.Task[None]] = set()
        part.append(opened(fields, before))

    @property
    def session(self) -> str:
        return self._part.session

    @property
    def next_seq(self) -> int:
        return self._part.next_seq

    @property
    def sync_every(self) -> bool:
        return self._part.sync_every

    @property
    def broken(self) -> str | None:
        return self._part.broken

    def append(self, *drafts: Draft) -> int:
        return self._part.append(*drafts)

    async def sync(self) -> None:
        part = self._part
        if self._sealing:
            # What was appended just before a rotation is durable when the old part is.
            await asyncio.wait(set(self._sealing))
        await part.sync()

    def rotate(self, fresh: Part) -> None:
        """Continue in `fresh`, in one step on the loop: no event falls between the two. Raise EvidenceError."""
        old = self._part
        task = old.end(EventDraft("journal.close", {"reason": "rotated", "continued": fresh.session}))
        self._sealing.add(task)
        task.add_done_callback(self._sealing.discard)
        if old.next_seq:
            self._before = (old.session, old.next_seq, old.head)
        self._part = fresh
        fresh.append(opened(self._fields, self._before))

    async def close(self, fields: Mapping[str, Json]) -> None:
        """Seal the last part and wait for all that are being sealed."""
        self._sealing.add(self._part.end(EventDraft("journal.close", fields)))
        await asyncio.wait(set(self._sealing))
