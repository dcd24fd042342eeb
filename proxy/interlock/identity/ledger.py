"""The one way that a change of the directory takes: record, store, swap in, tell.

A change is recorded as `identity.change` in the node's journal and synced, then stored, then swapped in, then told to
subscribers; what takes authority away is swapped in as soon as it is in the journal, so that a failing store prolongs
nobody's access. Knows rows and the journal. Must not know which changes there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from interlock.clock import Clock, Entropy
from interlock.errors import InterlockError, NotFoundError, Reason
from interlock.evidence.events import EventDraft, Json, Recorder
from interlock.identity import registration
from interlock.identity.changes import Amendment, Change, ChangeKind
from interlock.identity.entries import Entry
from interlock.identity.index import Index, indexed
from interlock.identity.lookup import Lookup
from interlock.identity.principal import Identity, Kind
from interlock.identity.subscribers import Subscribers
from interlock.store.principals import PrincipalRow, PrincipalRows, Row


class Ledger(Lookup):
    """The index with the lock that its changes take, one after the other."""

    def __init__(
        self,
        rows: PrincipalRows,
        *,
        clock: Clock,
        entropy: Entropy,
        journal: Recorder,
        salt_secret: bytes | None = None,
        groups_max_age: float = 8 * 3600,
    ) -> None:
        # Without a secret that survives restarts, only the salts of unknown names change at a restart.
        super().__init__(
            clock=clock, salt_secret=salt_secret if salt_secret is not None else entropy(32), groups_max_age=groups_max_age
        )
        self._rows = rows
        self._entropy = entropy
        self._journal = journal
        self._lock = asyncio.Lock()
        self._subscribers: Subscribers[Change] = Subscribers("directory")

    async def load(self) -> None:
        """Read everything from the store. Raise StoreError."""
        async with self._lock:
            self._index = indexed(await self._rows.load_all())

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back after every change, on the loop. Return how to stop."""
        return self._subscribers.add(callback)

    async def amend(self, build: Callable[[Index], Amendment | None], *, by: Identity) -> None:
        """Make a change that somebody else's rules build from the index of this moment: what an identity provider sends."""
        async with self._lock:
            made = build(self._index)
            if made is not None:
                await self._apply(
                    made.change, by, put=made.put, drop=made.drop, fields=made.fields, secret=made.secret, urgent=made.urgent
                )

    async def _apply(
        self,
        change: Change,
        by: Identity,
        *,
        put: Sequence[Row] = (),
        drop: Sequence[Row] = (),
        fields: Mapping[str, Json] | None = None,
        secret: Mapping[str, Json] | None = None,
        urgent: bool = False,
    ) -> None:
        """Record, store, swap in, tell. An `urgent` change takes authority away: neither a full disk nor a store that is
        down keeps it from taking effect here, and the error is raised nevertheless.
        """
        following = self._index.after(put=put, drop=drop)
        told: dict[str, Json] = {"change": str(change.kind), "identity": str(change.identity), "handle": change.handle}
        try:
            self._journal.append(EventDraft("identity.change", {**told, "by": str(by), **(fields or {})}, secret or {}))
        finally:
            if urgent:
                self._swap(following, change)
        await self._journal.sync()
        try:
            await self._rows.change(put=put, drop=drop)
        except InterlockError as error:
            self._journal.append(EventDraft("identity.change", {**told, "failed": str(error.code)}))
            raise
        if not urgent:
            self._swap(following, change)

    def _swap(self, following: Index, change: Change) -> None:
        self._index = following
        self._subscribers.tell(change)

    async def _revoke(self, kind: ChangeKind, entry: Entry, drop: Sequence[Row], ident: str, by: Identity) -> None:
        if not drop:
            raise NotFoundError(f"{entry.handle} has no such credential")
        change = Change(kind, entry.identity, entry.handle, credentials=frozenset({ident}))
        await self._apply(change, by, drop=drop, fields={"credential": ident}, urgent=True)

    # -- rows of the index --------------------------------------------------------------------------------------------

    def _entry(self, handle: str) -> Entry:
        entry = self.by_handle(handle)
        if entry is None:
            raise NotFoundError(f"nobody is registered as {handle!r}")
        return entry

    def _active(self, handle: str) -> Entry:
        entry = self._entry(handle)
        if entry.disabled:
            raise InterlockError(f"{handle} is disabled, or its owner is", reason=Reason.DISABLED_PRINCIPAL)
        return entry

    def row(self, entry: Entry) -> PrincipalRow:
        row = self._index.rows.principal(entry.identity)
        assert row is not None
        return row

    def gained(self, row: PrincipalRow, by: Identity) -> PrincipalRow:
        """Return the row after a gain of authority: what was confirmed before says nothing about it."""
        now = self._clock.now()
        return replace(row, changed=now, changed_by=registration.changers(row, by), confirmed=None, confirmed_by="")

    def with_agents(self, entry: Entry) -> frozenset[Identity]:
        owned = (self._index.by_identity[one] for one in self._index.rows.owned(entry.identity))
        return frozenset({entry.identity, *(e.identity for e in owned if e.kind is Kind.AGENT)})
