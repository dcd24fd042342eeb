"""What stands beside requests: grants in force, requesters that are locked, and glass that was broken."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from interlock.approvals.fatigue import Lock
from interlock.approvals.grants import Grant
from interlock.approvals.inbox import Inbox
from interlock.clock import rfc3339
from interlock.errors import InterlockError, NotFoundError, Reason
from interlock.identity.directory import Directory
from interlock.identity.principal import Identity, Principal
from interlock.store.vigilance import GlassRow
from interlock.web.access import Caller, Doorkeeper, Scope


def grants_router(inbox: Inbox, directory: Directory, door: Doorkeeper) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["grants"])
    anybody = Depends(door.require(Scope.APPROVALS_OWN))
    reader = Depends(door.require(Scope.APPROVALS_READ))
    giver = Depends(door.require_given(Scope.ADMIN))

    @routes.get("/grants")
    async def list_grants(caller: Caller = anybody) -> dict[str, Any]:
        """What is in force: everything for people, its own for an agent."""
        return {"grants": [shown(grant) for grant in inbox.grants() if _may_see(caller, grant)]}

    @routes.delete("/grants/{grant_id}")
    async def revoke_grant(grant_id: str, caller: Caller = anybody) -> dict[str, Any]:
        """End a grant now: for whoever has it, whoever gave it, and administrators."""
        grant = next((g for g in inbox.grants() if g.id == grant_id and _may_see(caller, g)), None)
        if grant is None:
            raise NotFoundError("there is no such grant in force")
        me = {caller.principal.identity, *caller.principal.linked}
        if Scope.ADMIN not in caller.scopes and not me & _parties(grant):
            raise InterlockError("only its requester, its approvers or an administrator end a grant", reason=Reason.MISSING_SCOPE)
        return shown(await inbox.revoke_grant(grant_id, by=caller.principal.identity))

    @routes.get("/locks")
    async def list_locks(caller: Caller = reader) -> dict[str, Any]:
        """Requesters for whom nothing is asked at the moment."""
        return {"locks": [_lock(lock, directory) for lock in inbox.locks()]}

    @routes.delete("/locks/{identity:path}", status_code=204)
    async def unlock(identity: str, admin: Principal = giver) -> None:
        """Lift a lock, named by identity or handle: it lets somebody ask again, so a login token alone is not enough."""
        entry = directory.by_handle(identity)
        wanted = str(entry.identity) if entry is not None else identity
        lock = next((lock for lock in inbox.locks() if str(lock.requester) == wanted), None)
        if lock is None:
            raise NotFoundError("nobody of that name is locked")
        await inbox.unlock(lock.requester, by=admin.identity)

    @routes.get("/glass")
    async def list_glass(caller: Caller = reader, every: bool = False) -> dict[str, Any]:
        """Approvals that one person gave alone and nobody else has looked at yet; with `every` the reviewed ones too."""
        return {"glass": [_glass(row) for row in await inbox.broken_glass(waiting=not every)]}

    return routes


def shown(grant: Grant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "state": str(grant.state),
        "request": grant.request,
        "scope": str(grant.scope),
        "words": grant.words,
        "principal": grant.handle,
        "identity": str(grant.requester),
        "target": grant.target.name,
        "account": grant.target.account or grant.target.role,
        "rule": grant.rule,
        "session": grant.session or None,
        "approved_by": [vote.reviewer_handle for vote in grant.votes],
        "created": rfc3339(grant.created),
        "valid_until": rfc3339(grant.valid_until),
    }


def _may_see(caller: Caller, grant: Grant) -> bool:
    me = caller.principal
    return Scope.APPROVALS_READ in caller.scopes or (grant.requester, grant.chain) == (me.identity, me.acting_for)


def _parties(grant: Grant) -> set[Identity]:
    owner = set() if grant.owner is None else {grant.owner}
    return {grant.requester, *grant.chain, *owner, *(vote.reviewer for vote in grant.votes)}


def _lock(lock: Lock, directory: Directory) -> dict[str, Any]:
    entry = directory.get(lock.requester)
    return {
        "identity": str(lock.requester), "handle": entry.handle if entry is not None else None,
        "since": rfc3339(lock.since), "until": rfc3339(lock.until),
    }  # fmt: skip


def _glass(row: GlassRow) -> dict[str, Any]:
    return {
        "request": row.request, "broken": rfc3339(row.broken),
        "reviewed": None if row.reviewed is None else rfc3339(row.reviewed),
        "reviewer": row.reviewer or None, "note": row.note or None,
    }  # fmt: skip
