"""Rows of logins and of what was issued to them. What they are worth is `identity.logins`'.

A row that is gone is a login that has ended: nothing has to be remembered about it for it to stay so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

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


class LoginRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, now: datetime) -> tuple[tuple[LoginRow, ...], tuple[DerivedRow, ...]]:
        """Forget what has expired; return the rest. Raise StoreError."""

        def work(connection: Connection) -> tuple[tuple[LoginRow, ...], tuple[DerivedRow, ...]]:
            connection.execute(delete(derived).where(derived.c.expires <= now))
            connection.execute(delete(logins).where(logins.c.expires <= now))
            kept = tuple(LoginRow(**row) for row in connection.execute(select(logins).order_by(logins.c.id)).mappings())
            made = tuple(DerivedRow(**row) for row in connection.execute(select(derived).order_by(derived.c.id)).mappings())
            return kept, made

        return await self._database.run(work)

    async def add(self, *rows: LoginRow | DerivedRow) -> None:
        """Write all rows, or none. Raise StoreError."""

        def work(connection: Connection) -> None:
            for row in rows:
                connection.execute(insert(logins if isinstance(row, LoginRow) else derived).values(**asdict(row)))

        await self._database.run(work)

    async def drop(self, *, login: Collection[str] = (), credential: Collection[str] = ()) -> None:
        """Forget logins and credentials. Raise StoreError."""

        def work(connection: Connection) -> None:
            connection.execute(delete(derived).where(derived.c.id.in_(list(credential))))
            connection.execute(delete(logins).where(logins.c.id.in_(list(login))))

        await self._database.run(work)
