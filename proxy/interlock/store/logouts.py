"""Rows of the logouts that identity providers have told. What one ends is `identity.logouts`'."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from interlock.store.database import Database
from interlock.store.schema import logouts


@dataclass(frozen=True, slots=True)
class LogoutRow:
    """`account` or `session` may be empty, not both. Primary key: provider, account, session."""

    provider: str
    account: str
    session: str
    issued: datetime
    until: datetime


class LogoutRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, now: datetime) -> tuple[LogoutRow, ...]:
        """Forget what no token is left for; return the rest. Raise StoreError."""

        def work(connection: Connection) -> tuple[LogoutRow, ...]:
            connection.execute(delete(logouts).where(logouts.c.until <= now))
            return tuple(LogoutRow(**row) for row in connection.execute(select(logouts).order_by(logouts.c.until)).mappings())

        return await self._database.run(work)

    async def put(self, row: LogoutRow, now: datetime) -> None:
        """Write one, in the place of an earlier one of the same. Raise StoreError."""

        def work(connection: Connection) -> None:
            same = (logouts.c.provider == row.provider) & (logouts.c.account == row.account) & (logouts.c.session == row.session)
            connection.execute(delete(logouts).where(same | (logouts.c.until <= now)))
            connection.execute(insert(logouts).values(**asdict(row)))

        await self._database.run(work)
