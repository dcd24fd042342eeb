"""Rows of messages that still have to leave, and the marks of those that were ever written down.

Knows columns and transactions. Must not know what a message says or when it is tried again. A message and its mark are
written in one transaction, and the mark outlives the message: the same one is never written down twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from interlock.store.database import Database
from interlock.store.schema import deliveries, outbox


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """`id` is the idempotency key: the same over all attempts."""

    id: str
    channel: str
    payload: bytes
    attempts: int
    due: datetime
    created: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of rows that should be kept: `new` ones are in, `left_out` ones had no room."""

    new: tuple[OutboxRow, ...]
    left_out: int


class OutboxRows:
    """Each method is one transaction; each raises StoreError, and then nothing was written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, rows: Sequence[OutboxRow], *, room: int) -> Kept:
        """Write down what was never written down, in its order, as long as the channel has fewer than `room` waiting."""

        def work(connection: Connection) -> Kept:
            new: list[OutboxRow] = []
            left_out = 0
            for channel in sorted({row.channel for row in rows}):
                mine = [row for row in rows if row.channel == channel]
                marks = select(deliveries.c.ident).where(
                    deliveries.c.channel == channel, deliveries.c.ident.in_([row.id for row in mine])
                )
                known = set(connection.execute(marks).scalars())
                waiting = connection.execute(select(func.count()).select_from(outbox).where(outbox.c.channel == channel))
                space = max(0, room - waiting.scalar_one())
                fresh = [row for row in mine if row.id not in known]
                new += fresh[:space]
                left_out += len(fresh[space:])
            for row in new:
                connection.execute(
                    insert(outbox).values(
                        id=row.id, channel=row.channel, payload=row.payload, attempts=row.attempts, due=row.due,
                        created=row.created,
                    )
                )  # fmt: skip
                connection.execute(insert(deliveries).values(channel=row.channel, ident=row.id, seen=row.created))
            return Kept(tuple(new), left_out)

        return await self._database.run(work)

    async def mark(self, channel: str, idents: Sequence[str], seen: datetime) -> None:
        """Take these as told, without a message."""

        def work(connection: Connection) -> None:
            for ident in idents:
                connection.execute(insert(deliveries).values(channel=channel, ident=ident, seen=seen))

        await self._database.run(work)

    async def waiting(self, channel: str) -> tuple[OutboxRow, ...]:
        """Return what waits, in its order, without the payloads."""

        def work(connection: Connection) -> tuple[OutboxRow, ...]:
            columns = [column for column in outbox.c if column.name != "payload"]
            query = select(*columns).where(outbox.c.channel == channel).order_by(outbox.c.created, outbox.c.id)
            return tuple(OutboxRow(**row, payload=b"") for row in connection.execute(query).mappings())

        return await self._database.run(work)

    async def payload(self, ident: str) -> bytes | None:
        def work(connection: Connection) -> bytes | None:
            return connection.execute(select(outbox.c.payload).where(outbox.c.id == ident)).scalar_one_or_none()

        return await self._database.run(work)

    async def postpone(self, ident: str, attempts: int, due: datetime) -> None:
        def work(connection: Connection) -> None:
            connection.execute(update(outbox).where(outbox.c.id == ident).values(attempts=attempts, due=due))

        await self._database.run(work)

    async def remove(self, ident: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(delete(outbox).where(outbox.c.id == ident))

        await self._database.run(work)

    async def begun(self, channel: str) -> bool:
        """Whether anything was ever written down for the channel."""

        def work(connection: Connection) -> bool:
            query = select(deliveries.c.ident).where(deliveries.c.channel == channel).limit(1)
            return connection.execute(query).first() is not None

        return await self._database.run(work)

    async def forget(self, channel: str, before: datetime) -> None:
        """Drop marks that are older; whoever asks for such a message again would get it again."""

        def work(connection: Connection) -> None:
            connection.execute(delete(deliveries).where(deliveries.c.channel == channel, deliveries.c.seen < before))

        await self._database.run(work)
