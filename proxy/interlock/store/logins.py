"""Rows of logins and of what was made from them. What they are worth is `identity.logins`' and `identity.derived`'s to say.

A row that is gone is a login that has ended: nothing has to be remembered about it for it to stay so.

Who logs in while a transaction is under way waits for the next one, and all who waited share it: a transaction costs about as
much with thirty rows as with one, and most of that is waiting for the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from interlock.errors import InterlockError
from interlock.store.database import Database
from interlock.store.schema import derived, logins


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A login of `issuer`, `subject` (the entry's identity) as `account` of `provider`. Primary key: id."""

    id: str
    issuer: str
    subject: str
    hash: bytes = field(repr=False)
    provider: str
    account: str
    session: str
    groups: str
    assurance: str
    created: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class DerivedRow:
    """A certificate (`kind` certificate, id = serial) or Postgres password that ends with its `parent`. Primary key: id."""

    id: str
    issuer: str
    subject: str
    kind: str
    parent: str
    key: str
    groups: str
    expires: datetime
    origins: str = "[]"


Row = LoginRow | DerivedRow

MAX_TOGETHER = 100
"""Of those who wait, so many share a transaction: others write to the store, too."""


class LoginRows:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[tuple[Row, ...], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def load(self, now: datetime) -> tuple[tuple[LoginRow, ...], tuple[DerivedRow, ...]]:
        """Forget what has expired; return the rest. Raise StoreError."""

        def work(connection: Connection) -> tuple[tuple[LoginRow, ...], tuple[DerivedRow, ...]]:
            connection.execute(delete(derived).where(derived.c.expires <= now))
            connection.execute(delete(logins).where(logins.c.expires <= now))
            kept = tuple(LoginRow(**row) for row in connection.execute(select(logins).order_by(logins.c.id)).mappings())
            made = tuple(DerivedRow(**row) for row in connection.execute(select(derived).order_by(derived.c.id)).mappings())
            return kept, made

        return await self._database.run(work)

    async def add(self, *rows: Row) -> None:
        """Write all rows, or none. Raise StoreError."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.add_done_callback(_seen)
        self._waiting.append((rows, written))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())
        await asyncio.shield(written)  # a caller who leaves tears nobody's transaction

    async def _write(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting[:MAX_TOGETHER], self._waiting[MAX_TOGETHER:]
                if not await self._written(together) and len(together) > 1:
                    for one in together:  # whose row it was fails alone
                        await self._written([one])
        finally:
            self._writing = None

    async def _written(self, together: list[tuple[tuple[Row, ...], asyncio.Future[None]]]) -> bool:
        """Write in one transaction and tell those who wait; of a failure only who was alone is told."""
        rows = [row for some, _ in together for row in some]
        batches = [(logins, [_values(row) for row in rows if isinstance(row, LoginRow)]),
                   (derived, [_values(row) for row in rows if isinstance(row, DerivedRow)])]  # fmt: skip

        def work(connection: Connection) -> None:
            for table, values in batches:
                if values:
                    connection.execute(insert(table), values)

        try:
            await self._database.run(work)
        except InterlockError as error:
            if len(together) == 1:
                together[0][1].set_exception(error)
            return False
        for _, written in together:
            written.set_result(None)
        return True

    async def drop(self, *, login: Collection[str] = (), credential: Collection[str] = ()) -> None:
        """Forget logins and credentials. Raise StoreError."""

        def work(connection: Connection) -> None:
            connection.execute(delete(derived).where(derived.c.id.in_(list(credential))))
            connection.execute(delete(logins).where(logins.c.id.in_(list(login))))

        await self._database.run(work)


def _values(row: Row) -> dict[str, object]:
    return {column.name: getattr(row, column.name) for column in fields(row)}


def _seen(written: asyncio.Future[None]) -> None:
    """Whoever waited may have left: an error that nobody reads is no defect here."""
    if not written.cancelled():
        written.exception()
