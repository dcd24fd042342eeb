"""Rows of posted messages: which message of a channel shows which request. Must not know what is in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, insert, select, update

from interlock.store.database import Database
from interlock.store.schema import messages


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message that was posted once for a request. Primary key: channel, request and conversation.

    `settled` says how the message was left for good: nothing has to be brought up to date there any more.
    """

    channel: str
    request: str
    conversation: str
    message: str
    settled: str = ""


class MessageRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def remember(self, row: MessageRow) -> None:
        """Keep where a card is. Raise StoreError; also when the request already has a message in this conversation."""

        def work(connection: Connection) -> None:
            connection.execute(insert(messages).values(asdict(row)))

        await self._database.run(work)

    async def settle(self, row: MessageRow, how: str) -> None:
        """Note how a message was left for good."""

        def work(connection: Connection) -> None:
            ours = (
                (messages.c.channel == row.channel)
                & (messages.c.request == row.request)
                & (messages.c.conversation == row.conversation)
            )
            connection.execute(update(messages).where(ours).values(settled=how))

        await self._database.run(work)

    async def of(self, channel: str, request: str) -> tuple[MessageRow, ...]:
        """Return every message that shows a request in a channel."""

        def work(connection: Connection) -> tuple[MessageRow, ...]:
            query = select(messages).where(messages.c.channel == channel, messages.c.request == request)
            rows = connection.execute(query.order_by(messages.c.conversation)).mappings()
            return tuple(MessageRow(**row) for row in rows)

        return await self._database.run(work)

    async def unsettled(self, channel: str) -> tuple[str, ...]:
        """Return the requests that have a message which may still show an older state."""

        def work(connection: Connection) -> tuple[str, ...]:
            query = select(messages.c.request).where(messages.c.channel == channel, messages.c.settled == "").distinct()
            return tuple(connection.execute(query.order_by(messages.c.request)).scalars())

        return await self._database.run(work)
