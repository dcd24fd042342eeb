"""Rows of what the desk watches: requesters that are locked, and approvals that broke the glass until somebody looked at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from interlock.approvals.fatigue import Lock
from interlock.errors import NotFoundError, Reason, VoteError
from interlock.identity.principal import Identity
from interlock.store.database import Database
from interlock.store.schema import glass, locks


@dataclass(frozen=True, slots=True)
class GlassRow:
    """An approval that one person gave alone. `reviewer` is who looked at it afterwards, with their note."""

    request: str
    broken: datetime
    reviewed: datetime | None = None
    reviewer: str = ""
    note: str = ""


class VigilanceRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def locks(self) -> Sequence[Lock]:
        def read(connection: Connection) -> Sequence[Lock]:
            return [Lock(Identity(r.issuer, r.subject), r.since, r.until) for r in connection.execute(select(locks))]

        return await self._database.run(read)

    async def lock(self, lock: Lock) -> None:
        """Keep a lock in place of an older one of the same requester."""

        def write(connection: Connection) -> None:
            _unlock(connection, lock.requester)
            who = lock.requester
            connection.execute(insert(locks).values(issuer=who.issuer, subject=who.subject, since=lock.since, until=lock.until))

        await self._database.run(write)

    async def unlock(self, requester: Identity) -> None:
        await self._database.run(lambda connection: _unlock(connection, requester))

    async def broken(self, *, waiting: bool, limit: int) -> Sequence[GlassRow]:
        """Return the newest approvals that broke the glass; with `waiting` only those that nobody looked at yet."""

        def read(connection: Connection) -> Sequence[GlassRow]:
            query = select(glass).order_by(glass.c.broken.desc(), glass.c.request.desc()).limit(limit)
            query = query.where(glass.c.reviewed.is_(None)) if waiting else query
            return [GlassRow(**row) for row in connection.execute(query).mappings()]

        return await self._database.run(read)

    async def reviewed(self, row: GlassRow) -> None:
        """Keep who looked at it. Raise VoteError when somebody did already, NotFoundError when no glass was broken."""

        def write(connection: Connection) -> None:
            named = glass.c.request == row.request
            if connection.execute(select(glass.c.request).where(named)).first() is None:
                raise NotFoundError(f"{row.request} broke no glass")
            values = {"reviewed": row.reviewed, "reviewer": row.reviewer, "note": row.note}
            if connection.execute(update(glass).where(named, glass.c.reviewed.is_(None)).values(values)).rowcount != 1:
                raise VoteError(f"{row.request} was reviewed already", reason=Reason.ALREADY_DECIDED)

        await self._database.run(write)


def broke(connection: Connection, request: str, at: datetime) -> None:
    """Write down that an approval broke the glass."""
    connection.execute(insert(glass).values(request=request, broken=at))


def _unlock(connection: Connection, who: Identity) -> None:
    connection.execute(delete(locks).where(locks.c.issuer == who.issuer, locks.c.subject == who.subject))
