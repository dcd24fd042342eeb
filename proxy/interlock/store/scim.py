"""Rows of the groups that an identity provider keeps here by SCIM. Who is in them is in the directory's own rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from interlock.store.database import Database
from interlock.store.schema import scim_groups


@dataclass(frozen=True, slots=True)
class ScimGroupRow:
    """Primary key: id; `display` is unique."""

    id: str
    display: str
    external_id: str
    created: datetime
    changed: datetime


class ScimGroupRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[ScimGroupRow]:
        """Return all, oldest first. Raise StoreError."""

        def work(connection: Connection) -> list[ScimGroupRow]:
            found = connection.execute(select(scim_groups).order_by(scim_groups.c.created, scim_groups.c.id))
            return [ScimGroupRow(**row) for row in found.mappings()]

        return await self._database.run(work)

    async def put(self, row: ScimGroupRow) -> None:
        """Insert or replace. Raise StoreError, also when another group has this name."""

        def work(connection: Connection) -> None:
            values = asdict(row)
            insert = sqlite.insert(scim_groups) if self._database.dialect == "sqlite" else postgresql.insert(scim_groups)
            connection.execute(insert.values(**values).on_conflict_do_update(index_elements=["id"], set_=values))

        await self._database.run(work)

    async def drop(self, ident: str) -> None:
        """Raise StoreError."""
        await self._database.run(lambda connection: connection.execute(delete(scim_groups).where(scim_groups.c.id == ident)))
