"""Rows of what was revoked. What a revocation means is `identity.revocation`'s."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from interlock.store.database import Database
from interlock.store.schema import revocations


@dataclass(frozen=True, slots=True)
class RevocationRow:
    """Primary key: id."""

    id: str
    kind: str
    value: str
    at: datetime
    by: str
    why: str


class RevocationRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[RevocationRow]:
        """Return all, oldest first. Raise StoreError."""

        def work(connection: Connection) -> list[RevocationRow]:
            found = connection.execute(select(revocations).order_by(revocations.c.at, revocations.c.id))
            return [RevocationRow(**row) for row in found.mappings()]

        return await self._database.run(work)

    async def put(self, row: RevocationRow) -> None:
        """Raise StoreError."""
        await self._database.run(lambda connection: connection.execute(insert(revocations).values(**asdict(row))))

    async def drop(self, ident: str) -> None:
        """Raise StoreError."""
        await self._database.run(lambda connection: connection.execute(delete(revocations).where(revocations.c.id == ident)))
