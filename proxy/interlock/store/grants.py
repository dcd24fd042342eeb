"""Rows of grants. What a grant covers is `approvals.grants`'; whether it still stands is asked in the transaction that uses it.

A grant is written in the transaction that approves its request and ends in the one that revokes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from interlock.approvals.grants import Grant, GrantState
from interlock.approvals.portable import FormError, grant_form, read_grant
from interlock.errors import NotFoundError, Reason, VoteError
from interlock.store.database import Database
from interlock.store.schema import grants


class GrantRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self) -> Sequence[Grant]:
        """Return the grants that nobody revoked, also those that are over by now. Raise StoreError."""

        def read(connection: Connection) -> Sequence[Grant]:
            query = select(grants).where(grants.c.state == str(GrantState.ACTIVE)).order_by(grants.c.id)
            return [_read(row.id, row.valid_until, row.form) for row in connection.execute(query)]

        return await self._database.run(read)

    async def end(self, grant: Grant, state: GrantState) -> Grant:
        """Expire or revoke a grant. Raise VoteError when it has ended already, StoreError."""

        def write(connection: Connection) -> None:
            if _end(connection, grant.id, state) != 1:
                raise VoteError(f"{grant.id} has ended already", reason=Reason.ALREADY_DECIDED)

        await self._database.run(write)
        return replace(grant, state=state)


def keep(connection: Connection, grant: Grant) -> None:
    """Write a new grant."""
    connection.execute(
        insert(grants).values(
            id=grant.id, request=grant.request, state=str(grant.state), issuer=grant.requester.issuer,
            subject=grant.requester.subject, created=grant.created, valid_until=grant.valid_until, form=grant_form(grant),
        )
    )  # fmt: skip


def revoke_of(connection: Connection, request: str) -> None:
    """Revoke what a request left behind, if it is still active: its approval was taken back."""
    active = grants.c.state == str(GrantState.ACTIVE)
    connection.execute(update(grants).where(grants.c.request == request, active).values(state=str(GrantState.REVOKED)))


def demand(connection: Connection, grant_id: str, now: datetime) -> None:
    """Raise VoteError unless the grant is active now, and keep it so until the transaction ends."""
    row = connection.execute(
        select(grants.c.state, grants.c.valid_until).where(grants.c.id == grant_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no grant {grant_id}")
    if row.state != GrantState.ACTIVE or row.valid_until <= now:
        raise VoteError(f"{grant_id} has ended", reason=Reason.APPROVAL_REVOKED)


def _end(connection: Connection, grant_id: str, state: GrantState) -> int:
    named = (grants.c.id == grant_id) & (grants.c.state == str(GrantState.ACTIVE))
    return connection.execute(update(grants).where(named).values(state=str(state))).rowcount


def _read(ident: str, valid_until: datetime, form: bytes) -> Grant:
    grant = read_grant(form)
    if (grant.id, grant.valid_until) != (ident, valid_until):
        raise FormError(f"the row of {ident} was changed from outside")
    return grant
