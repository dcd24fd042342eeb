"""Rows of credentials that were given in exchange for others. What they are worth is `identity.exchanged`'s.

A row that is gone is a credential that has ended.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from interlock.store.database import Database
from interlock.store.schema import exchanged


@dataclass(frozen=True, slots=True)
class ExchangedRow:
    """A token has a `key` alone, a password everything but that. Primary key: id."""

    id: str
    holder: str
    facts: str
    parents: str
    key: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    salt: bytes
    iterations: int
    expires: datetime


class ExchangedRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, now: datetime) -> tuple[ExchangedRow, ...]:
        """Forget what has expired; return the rest, oldest first. Raise StoreError."""

        def work(connection: Connection) -> tuple[ExchangedRow, ...]:
            connection.execute(delete(exchanged).where(exchanged.c.expires <= now))
            found = connection.execute(select(exchanged).order_by(exchanged.c.expires, exchanged.c.id))
            return tuple(ExchangedRow(**row) for row in found.mappings())

        return await self._database.run(work)

    async def add(self, row: ExchangedRow, now: datetime) -> None:
        """Write one, and forget what has expired. Raise StoreError."""

        def work(connection: Connection) -> None:
            connection.execute(delete(exchanged).where(exchanged.c.expires <= now))
            connection.execute(insert(exchanged).values(**asdict(row)))

        await self._database.run(work)

    async def drop(self, idents: Collection[str]) -> None:
        """Raise StoreError."""
        gone = list(idents)
        await self._database.run(lambda connection: connection.execute(delete(exchanged).where(exchanged.c.id.in_(gone))))
