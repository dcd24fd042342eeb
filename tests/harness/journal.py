"""A journal in memory that can be made to fail: the Recorder of unit tests."""

from __future__ import annotations

from collections.abc import Mapping

from interlock.errors import EvidenceError
from interlock.evidence.events import Draft, EventDraft, Json


class MemoryRecorder:
    """Keeps what was appended. `fail_append` and `fail_sync` break it for good, like a full disk does."""

    def __init__(self, session: str = "journal", *, sync_every: bool = False) -> None:
        self.session = session
        self.sync_every = sync_every
        self.events: list[EventDraft] = []
        self.synced = 0
        self.fail_append = False
        self.fail_sync = False
        self.closed: Mapping[str, Json] | None = None

    @property
    def next_seq(self) -> int:
        return len(self.events)

    def append(self, *drafts: Draft) -> int:
        if self.fail_append:
            raise EvidenceError
        first = len(self.events)
        self.events.extend(draft.placed(seq) for seq, draft in enumerate(drafts, first))
        return first

    async def sync(self) -> None:
        if self.fail_append or self.fail_sync:
            self.fail_append = True
            raise EvidenceError
        self.synced = len(self.events)

    async def close(self, fields: Mapping[str, Json]) -> None:
        self.closed = fields

    def of(self, kind: str) -> list[EventDraft]:
        return [event for event in self.events if event.type == kind]
