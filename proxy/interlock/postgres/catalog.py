"""The snapshot of a target's catalog that SQL is read against, loaded in the background.

Knows: how to connect as the target's own role, the queries that `commands.sql.catalog` asks for.
Must not know: who is connected, what is decided.

It never blocks a session: as long as there is no snapshot (never loaded, or the last load failed) there is None, and then
every relation is unknown, so nothing that names one is allowed without a human. Each load is in the node's journal.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import structlog

from interlock.clock import Clock
from interlock.commands.model import Analysis
from interlock.commands.sql.analysis import may_change_catalog
from interlock.commands.sql.catalog import CATALOG_QUERIES, Catalog
from interlock.config import TargetConfig
from interlock.errors import EvidenceError, InterlockError
from interlock.evidence.events import EventDraft, Recorder
from interlock.postgres import idle
from interlock.postgres.reading import Value, fetch
from interlock.postgres.settings import pinned
from interlock.postgres.upstream import Connector
from interlock.postgres.wire.requests import TERMINATE

log = structlog.get_logger()

TTL = 300.0
"""Seconds until a snapshot is loaded anew."""
RETRY = 15.0
"""Seconds after a failed load."""
REREAD = 5
"""Seconds between two loads because of names that are not known."""
TIMEOUT = 20.0
"""Seconds a load may take."""


class SchemaChange(IntEnum):
    """What a released text may have done to what names mean."""

    NONE = 0
    POSSIBLE = 1  # a function of a user ran: read again, and go on with what is known meanwhile
    CERTAIN = 2  # DDL, or text that nobody could read: nothing is known until it is read again


_DDL = frozenset(("create", "alter", "drop", "do", "call"))


def schema_change(analysis: Analysis) -> SchemaChange:
    """Return what running an analysed text may change in the catalog."""
    if not may_change_catalog(analysis):
        return SchemaChange.NONE
    certain = bool(analysis.opaque) or any(effect.verb in _DDL for effect in analysis.effects)
    return SchemaChange.CERTAIN if certain else SchemaChange.POSSIBLE


class CatalogSource:
    """Keeps one database of one target. `current` is the snapshot or None; `refresh` asks for a new one."""

    def __init__(
        self,
        connector: Connector,
        *,
        role: str,
        database: str,
        clock: Clock,
        journal: Callable[[], Recorder],
        ttl: float = TTL,
    ) -> None:
        self._connector = connector
        self._target: TargetConfig = connector.target
        self._role = role
        self._database = database
        self._clock = clock
        self._journal = journal
        self._ttl = ttl
        self.idle_limit: float | None = None
        """Seconds after which the server ends sessions of this role whose transaction is idle; 0 for never, None not known."""
        self._current: Catalog | None = None
        self._wanted = asyncio.Event()
        self._loaded = asyncio.Event()
        self._failed = False
        self._reread_us: int | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def current(self) -> Catalog | None:
        return self._current

    def start(self) -> None:
        """Begin to load. Idempotent."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    @property
    def loading(self) -> bool:
        """Nothing is known, and a load is due or under way; False after one that failed."""
        return self._current is None and not self._failed

    def refresh(self, *, certain: bool) -> None:
        """Released text has changed the schema, or may have. When it is certain, what is known is forgotten at once."""
        if certain:
            self._current = None
            self._failed = False
            self._loaded.clear()
        self._wanted.set()

    def read_again(self) -> bool:
        """Somebody names what the snapshot does not know, and it may be younger: read again, once in `REREAD` seconds.

        What is known stays known meanwhile. Return whether a reading is due or under way: `first_load` waits for its end.
        """
        now = self._clock.monotonic_us()
        if self._reread_us is None or now - self._reread_us >= REREAD * 1_000_000:
            self._reread_us = now
            self._loaded.clear()
            self._wanted.set()
        return not self._loaded.is_set()

    async def first_load(self, timeout: float) -> None:
        """Wait until a load has come to its end, at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._loaded.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep(self) -> None:
        while True:
            self._wanted.clear()
            loaded = await self._load()
            if self._wanted.is_set():
                continue  # something changed while it was read
            self._current, self._failed = loaded, loaded is None
            self._loaded.set()
            try:
                async with asyncio.timeout(self._ttl if loaded is not None else RETRY):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _load(self) -> Catalog | None:
        started = self._clock.monotonic_us()
        try:
            async with asyncio.timeout(TIMEOUT):
                rows = await self._read()
            catalog = await asyncio.to_thread(Catalog.from_rows, rows)
        except (OSError, InterlockError, ValueError) as error:
            said = str(error) if isinstance(error, InterlockError) else error.__class__.__name__
            log.warning("catalog not loaded", target=self._target.name, error=said, hint="try interlock doctor TARGET")
            self._record({"loaded": False, "error": error.__class__.__name__})
            return None
        took = (self._clock.monotonic_us() - started) // 1000
        self._record({"loaded": True, "version": catalog.version, "took_ms": took})
        return catalog

    async def _read(self) -> dict[str, list[tuple[Value, ...]]]:
        upstream = await self._connector.connect(
            {
                "user": self._role,
                "database": self._database,
                "application_name": "interlock:catalog",
                "default_transaction_read_only": "on",
                **dict(pinned(self._target)),
            }
        )
        try:
            await fetch(upstream, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            rows = {name: await fetch(upstream, sql) for name, sql in CATALOG_QUERIES.items()}
            self.idle_limit = _seconds(await fetch(upstream, idle.QUERY))
            await fetch(upstream, "COMMIT")
            upstream.dialogue.write(TERMINATE)
        finally:
            upstream.dialogue.close()
        return rows

    def _record(self, fields: dict[str, Any]) -> None:
        queries = hashlib.sha256("\n".join((*CATALOG_QUERIES.values(), idle.QUERY)).encode()).hexdigest()
        draft = EventDraft(
            "catalog",
            {"target": self._target.name, "database": self._database, "role": self._role, "queries": queries, **fields},
        )
        try:
            self._journal().append(draft)
        except EvidenceError as error:
            log.error("journal broken", reason=str(error.code))


def _seconds(rows: list[tuple[Value, ...]]) -> float | None:
    """Read the answer to `idle.QUERY`; a server that does not have the setting (before 9.6) gives no row."""
    found = rows[0][0] if rows and rows[0] else None
    return found / 1000 if isinstance(found, int) else None
