"""Rows of conversations that a channel can write to without having been written to. Must not know who is behind a key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from interlock.store.database import Database
from interlock.store.schema import conversations


class ConversationRows:
    """A key names one conversation; remembering it anew replaces it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remember(self, channel: str, key: str, conversation: str, now: datetime) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(conversations).where(conversations.c.channel == channel, conversations.c.key == key))
            row = {"channel": channel, "key": key, "conversation": conversation, "created": now}
            connection.execute(insert(conversations).values(row))

        await self._database.run(work)

    async def forget(self, channel: str, key: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(conversations).where(conversations.c.channel == channel, conversations.c.key == key))

        await self._database.run(work)

    async def of(self, channel: str) -> dict[str, str]:
        """Return every conversation of a channel by its key, the oldest first."""

        def work(connection: Connection) -> dict[str, str]:
            query = select(conversations.c.key, conversations.c.conversation).where(conversations.c.channel == channel)
            rows = connection.execute(query.order_by(conversations.c.created, conversations.c.key))
            return {row.key: row.conversation for row in rows}

        return await self._database.run(work)
