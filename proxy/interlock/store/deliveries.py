"""Rows of what was delivered already: a signed message is taken once, in this process and after it.

Knows channels' names and idents, as hashes. Must not know what was delivered.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql, sqlite

from interlock.store.database import Database
from interlock.store.schema import deliveries

KEPT = timedelta(days=1)
"""Far longer than any channel still accepts a delivery of its own: Slack's signatures are good for five minutes."""


class DeliveryRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, channel: str, *idents: str, now: datetime) -> bool:
        """Take a delivery under all its `idents`; False when any of them was taken before. Raise StoreError.

        One transaction: of two that arrive at once, on one node or on two, exactly one is told True.
        """
        keys = [sha256(ident.encode()).hexdigest() for ident in idents]

        def work(connection: Connection) -> bool:
            connection.execute(delete(deliveries).where(deliveries.c.channel == channel, deliveries.c.seen < now - KEPT))
            insert = sqlite.insert(deliveries) if self._database.dialect == "sqlite" else postgresql.insert(deliveries)
            new = 0
            for key in sorted(set(keys)):  # in one order on every node, so that two of them never wait for each other
                row = {"channel": channel, "ident": key, "seen": now}
                new += connection.execute(insert.values(row).on_conflict_do_nothing()).rowcount
            return new == len(set(keys))

        return await self._database.run(work)
