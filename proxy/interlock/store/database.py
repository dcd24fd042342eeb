"""The connection to the store: transactions that a cancelled caller can't tear, and foreign errors mapped to ours.

Knows SQLAlchemy's engine. Must not know tables. Both engines: SQLite (WAL, synchronous FULL) and PostgreSQL (asyncpg).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import URL, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from interlock.errors import StoreError

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

BUSY_TIMEOUT_MS = 5_000


class Database:
    """Runs units of work, each in one transaction.

    A unit runs in a task of its own: when the caller is cancelled (its client left), the transaction still ends whole,
    and only the caller does not learn how.
    """

    def __init__(self, url: URL) -> None:
        self._sqlite = url.get_backend_name() == "sqlite"
        # hide_parameters: an error text never carries a command, a hash or a key.
        # One connection for SQLite: it has one writer anyway, and a queue is fairer than SQLITE_BUSY.
        pool: dict[str, Any] = {"pool_size": 1, "max_overflow": 0} if self._sqlite else {"pool_pre_ping": True}
        self._engine: AsyncEngine = create_async_engine(url, hide_parameters=True, **pool)
        self._closed = False
        self._running: set[asyncio.Future[Any]] = set()
        if self._sqlite:
            event.listen(self._engine.sync_engine, "connect", _configure_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_immediate)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

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
            async with self._engine.begin() as connection:
                return await work(connection)
        except (exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
            # The class alone: a driver's message may quote values.
            raise StoreError(f"the store failed ({_root(error)}), so nothing was changed") from error

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieved here as well, for the caller may have left; whoever still waits gets it through the shield.
            task.exception()

    async def close(self) -> None:
        """Let running transactions end, then close every connection. Idempotent; later calls raise StoreError."""
        self._closed = True
        if self._running:
            await asyncio.wait(set(self._running))
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


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
