"""The connection to the store: transactions that a cancelled caller can't tear, and foreign errors mapped to ours.

Theory of operation: a unit of work is a plain function over a SQLAlchemy connection, and it runs whole in one transaction. For
SQLite all units run one after another on one thread that owns the one connection: a transaction costs one hop off the event
loop, not one a statement, and SQLite has one writer anyway. For PostgreSQL they run through asyncpg in SQLAlchemy's greenlets.
Either way a cancelled caller (its client left) leaves the transaction whole; it only does not learn how it ended.

Must not know tables. A unit of work must not touch what only the event loop may touch.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import asyncpg  # type: ignore[import-untyped]  # ships no types
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from interlock.errors import StoreError

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_TIMEOUT_MS = 5_000


class Backend(Protocol):
    """One engine: runs a unit of work in a transaction that is committed when it returns."""

    async def run(self, work: Work[T]) -> T: ...

    async def close(self) -> None: ...


class Database:
    """Runs units of work on whichever engine the URL names."""

    def __init__(self, url: URL) -> None:
        self.dialect = url.get_backend_name()  # sqlite | postgresql
        self._backend: Backend = SqliteBackend(url) if self.dialect == "sqlite" else PostgresBackend(url)
        self._closed = False
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, work: Work[T]) -> T:
        """Run `work` in one transaction and commit. Raise StoreError; then nothing of it was written."""
        if self._closed:
            raise StoreError("the store is closed")
        task = asyncio.ensure_future(self._transaction(work))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _transaction(self, work: Work[T]) -> T:
        try:
            return await self._backend.run(work)
        except (exc.SQLAlchemyError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            # The class alone: a driver's message may quote values.
            raise StoreError(f"the store failed ({_root(error)}), so nothing was changed") from error

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieved here as well, for the caller may have left; whoever still waits gets it through the shield.
            task.exception()

    async def close(self) -> None:
        """Let running transactions end, then close every connection. Idempotent; later calls raise StoreError."""
        if self._closed:
            return
        self._closed = True
        if self._running:
            await asyncio.wait(set(self._running))
        await self._backend.close()


class SqliteBackend:
    """One connection on one thread."""

    def __init__(self, url: URL) -> None:
        # hide_parameters: an error text never carries a command, a hash or a key. Every unit ends its own transaction, so
        # the pool need not roll back once more.
        self._engine: Engine = create_engine(url, hide_parameters=True, pool_size=1, max_overflow=0, pool_reset_on_return=None)
        event.listen(self._engine, "connect", _configure_sqlite)
        event.listen(self._engine, "begin", _begin_immediate)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(self, work: Work[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._unit, work)

    def _unit(self, work: Work[T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=False)


class PostgresBackend:
    """A pool of asyncpg connections."""

    def __init__(self, url: URL) -> None:
        self._engine: AsyncEngine = create_async_engine(url, hide_parameters=True, pool_pre_ping=True)

    async def run(self, work: Work[T]) -> T:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


def _root(error: BaseException) -> str:
    origin = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    return type(origin).__name__


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own transaction control is off, so that BEGIN IMMEDIATE below is the only one: a deferred
    # transaction that reads and then writes can fail in the middle (sqlite.org/lang_transaction.html §2.2).
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
