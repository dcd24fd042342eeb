"""The journal under a directory: keeps what was appended, looks at it as it comes, and breaks and mends at will.

`seeded` gives entropy that differs at every call and repeats from run to run.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping

from interlock.errors import EvidenceError
from interlock.evidence.events import Draft, EventDraft, Json


class Journal:
    session = "journal"
    sync_every = False

    def __init__(self) -> None:
        self.events: list[EventDraft] = []
        self.synced = 0
        self.broken = False
        self.on_append: Callable[[EventDraft], None] | None = None

    @property
    def next_seq(self) -> int:
        return len(self.events)

    def append(self, *drafts: Draft) -> int:
        if self.broken:
            raise EvidenceError
        first = len(self.events)
        for event in (draft.placed(seq) for seq, draft in enumerate(drafts, first)):
            if self.on_append is not None:
                self.on_append(event)
            self.events.append(event)
        return first

    async def sync(self) -> None:
        if self.broken:
            raise EvidenceError
        self.synced = len(self.events)

    async def close(self, fields: Mapping[str, Json]) -> None:
        pass

    def of(self, kind: str) -> list[EventDraft]:
        return [event for event in self.events if event.type == kind]

    def everything(self) -> str:
        return repr(self.events)


def seeded(seed: str) -> Callable[[int], bytes]:
    count = itertools.count()
    return lambda n: hashlib.shake_256(f"{seed}{next(count)}".encode()).digest(n)
