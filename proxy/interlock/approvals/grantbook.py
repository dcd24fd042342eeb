"""The grants that are in force, in memory over their rows. What one covers is `approvals.grants`'.

A grant comes and goes with its request's own transactions; here they are found quickly, listed and revoked. That a grant
still stands is asked once more in the transaction that uses it: this memory only says which one to try.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from interlock.approvals import desk, grants
from interlock.approvals.authority import House
from interlock.approvals.grants import Grant, GrantState
from interlock.approvals.model import ApprovalRequest, RequestDraft, State
from interlock.errors import NotFoundError, VoteError
from interlock.store.grants import GrantRows


class Grantbook:
    def __init__(self, rows: GrantRows, house: House) -> None:
        self._rows = rows
        self._house = house
        self._active: dict[str, Grant] = {}

    async def open(self, now: datetime, *, restored: bool) -> Sequence[Grant]:
        """Read what is active. What is over by now ends; with `restored` everything does. Return what was revoked."""
        revoked: list[Grant] = []
        for grant in await self._rows.active():
            if restored:
                revoked.append(await self._rows.end(grant, GrantState.REVOKED))
            elif not grant.active(now):
                await self._rows.end(grant, GrantState.EXPIRED)
            else:
                self._active[grant.id] = grant
        return revoked

    def in_force(self, now: datetime) -> list[Grant]:
        """Return what is in force now, oldest first."""
        return [grant for grant in self._active.values() if grant.active(now)]

    def covering(self, draft: RequestDraft, match: str, now: datetime) -> Grant | None:
        """Return a grant that answers this request before anybody is asked, or None."""
        return next((grant for grant in self._active.values() if grants.covers(grant, draft, match, now)), None)

    def follow(self, request: ApprovalRequest) -> None:
        """Learn what a stored change of a request did to its grant."""
        if request.state is State.REVOKED:
            self._active.pop(grants.ident(request.id), None)
        elif request.state is State.APPROVED and (grant := left_by(request, self._house)) is not None:
            self._active[grant.id] = grant

    async def revoke(self, grant_id: str) -> Grant:
        """Raise NotFoundError, StoreError, or VoteError when it has ended already."""
        grant = self._active.get(grant_id)
        if grant is None:
            raise NotFoundError(f"no grant {grant_id[:40]!r} is in force")
        # Out of memory first: whatever the store says next, nothing new is born under it.
        del self._active[grant_id]
        return await self._rows.end(grant, GrantState.REVOKED)

    async def tidy(self, now: datetime) -> None:
        """Write down which ones time has ended."""
        for grant in [grant for grant in self._active.values() if not grant.active(now)]:
            del self._active[grant.id]
            try:
                await self._rows.end(grant, GrantState.EXPIRED)
            except VoteError:
                continue  # revoked at the same moment


def left_by(request: ApprovalRequest, house: House) -> Grant | None:
    """Return the grant that an approval leaves behind, or None when it is for once."""
    if request.decided_at is None:
        return None
    wider = desk.scope_of(request, request.decided_at, house)
    return None if wider is None else grants.made(request, *wider, house.longest_grant)
