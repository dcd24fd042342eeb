"""Rows of posted messages: which message of a channel shows which request. Must not know what is in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select

from interlock.store.database import Database
from interlock.store.schema import messages


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message that was posted once for a request. Primary key: channel and request."""

    channel: str
    request: str
    conversation: str
    message: str


class MessageRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def remember(self, row: MessageRow) -> None:
        """Keep where a card is. Raise StoreError; also when the request already has a message in this channel."""

        def work(connection: Connection) -> None:
            connection.execute(insert(messages).values(asdict(row)))

        await self._database.run(work)

    async def find(self, channel: str, request: str) -> MessageRow | None:
        def work(connection: Connection) -> MessageRow | None:
            found = (
                connection.execute(
                    select(messages.c.conversation, messages.c.message).where(
                        messages.c.channel == channel, messages.c.request == request
                    )
                )
            ).first()
            return None if found is None else MessageRow(channel, request, found.conversation, found.message)

        return await self._database.run(work)
