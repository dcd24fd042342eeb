"""What a session may rely on of its target's catalog, and when a command waits for it to be read anew.

Knows: the catalog source, which released texts change what names mean.
Must not know: messages, sockets, what is decided.

Two things make the snapshot too old for this session: text of its own that changed the schema (until its transaction has
ended and the catalog was read again, nothing is known), and a name that somebody created around the proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from interlock.commands.model import Analysis
from interlock.commands.sql.catalog import Catalog
from interlock.postgres.catalog import CatalogSource, SchemaChange, schema_change

PATIENCE = 3.0
"""Seconds a command waits for the catalog to be read, before it is read without one."""


class SchemaView:
    """The catalog as one session sees it; `source` None: text is read without one."""

    def __init__(self, source: CatalogSource | None) -> None:
        self._source = source
        self._changed = SchemaChange.NONE
        self._patience_spent = False
        self.waiting: asyncio.Task[None] | None = None

    def known(self) -> Catalog | None:
        """The snapshot, but not the one from before the session's own DDL."""
        return None if self._source is None or self._changed is SchemaChange.CERTAIN else self._source.current

    @property
    def awaited(self) -> bool:
        """Whether the next command should `wait`: the catalog is being read after DDL."""
        return (
            self._source is not None
            and self._source.loading
            and not self._patience_spent
            and self._changed is not SchemaChange.CERTAIN
        )

    def outdated(self, analysis: Analysis | None) -> bool:
        """Whether the text should `wait` and be read again: it names a relation that may be younger than the snapshot."""
        if analysis is None or self._changed is SchemaChange.CERTAIN or self._source is None or self._source.current is None:
            return False
        return any(part.reason == "unknown-relation" for part in analysis.opaque) and self._source.read_again()

    def wait(self, then: Callable[[], None]) -> None:
        """Call `then` once the catalog has been read, or soon. Not when the session ends before."""
        if self._source is None:
            then()
            return
        self.waiting = asyncio.get_running_loop().create_task(self._source.first_load(PATIENCE))
        self.waiting.add_done_callback(partial(self._waited, self._source, then))

    def _waited(self, source: CatalogSource, then: Callable[[], None], task: asyncio.Task[None]) -> None:
        self.waiting = None
        if not task.cancelled():
            self._patience_spent = source.loading
            then()

    def released(self, analysis: Analysis) -> None:
        """Note what a released text may do to the schema."""
        self._changed = max(self._changed, schema_change(analysis))

    def settled(self) -> None:
        """The transaction has ended: what it did to the schema can be read now."""
        self._patience_spent = False
        if self._changed is not SchemaChange.NONE and self._source is not None:
            self._source.refresh(certain=self._changed is SchemaChange.CERTAIN)
            self._changed = SchemaChange.NONE
