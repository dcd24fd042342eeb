"""Requests over HTTP: reading, answering, editing, withdrawing. No GET decides anything.

A thin client of the desk. It knows who calls and what they may see; what an answer is worth, and whether it counts, the desk
says. Deciding needs a decision session, whoever calls and from wherever (identity.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, State, VoteVerdict
from interlock.approvals.proof import signed_from_json
from interlock.errors import InterlockError, NotFoundError, Reason, VoteError
from interlock.gate import Gate
from interlock.web.access import Caller, Doorkeeper, Scope
from interlock.web.bodies import Body, Moment, StrictRoute, moment
from interlock.web.events import may_see
from interlock.web.shown import Shown

MAX_TEXT = 256 * 1024
PAGE = 50
MOST = 200

Digest = Annotated[str, Field(max_length=200)]
Words = Annotated[str, Field(max_length=2000)]
Key = Annotated[str | None, Header(max_length=200, pattern=r"^[\x21-\x7e]+$")]
"""An idempotency key: the same one with the same answer counts once, and is answered alike."""


class DecisionIn(Body):
    verdict: Literal["approve", "deny"]
    digest: Digest
    scope: Literal["once", "exact", "rule_in_session"] = "once"
    valid_until: Moment | None = None
    reason: Words = ""
    proof: dict[str, str] | None = None
    break_glass: bool = False


class EditIn(Body):
    """A request never changes, so without a digest it is the one that its id names."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    digest: Digest | None = None
    reason: Words = ""


class WhyIn(Body):
    reason: Words = ""


class NoteIn(Body):
    note: Words


def approvals_router(inbox: Inbox, gate: Gate, shown: Shown, door: Doorkeeper) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["approvals"], route_class=StrictRoute)
    _serve_reading(routes, inbox, shown, door)
    _serve_answers(routes, inbox, gate, shown, door)
    _serve_ends(routes, inbox, shown, door)
    return routes


def _serve_reading(routes: APIRouter, inbox: Inbox, shown: Shown, door: Doorkeeper) -> None:
    reader = Depends(door.require(Scope.APPROVALS_OWN))

    @routes.get("/approvals")
    async def list_approvals(
        caller: Caller = reader,
        state: State | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = PAGE,
        before: Annotated[str, Query(max_length=64)] = "",
    ) -> dict[str, Any]:
        """Newest first. `next` is the `before` of the next page, null on the last one."""
        if Scope.APPROVALS_READ in caller.scopes:
            found = await inbox.page(state, limit=limit + 1, before=before)
        else:
            # An agent's own are few among many: they are picked out of what is open and what ended lately.
            mine = (r for r in await inbox.list(state) if may_see(caller, r) and (not before or r.id < before))
            found = sorted(mine, key=lambda r: r.id, reverse=True)[: limit + 1]
        page = found[:limit]
        return {"approvals": [shown.row(r) for r in page], "next": page[-1].id if len(found) > limit else None}

    @routes.get("/approvals/{request_id}")
    async def get_approval(request_id: str, caller: Caller = reader) -> dict[str, Any]:
        """The nonce, which a personal signature is over, is shown to whoever may decide just now."""
        request = await _visible(inbox, request_id, caller)
        whole = shown.whole(request)
        return {**whole, "nonce": request.nonce} if Scope.APPROVALS_DECIDE in caller.scopes else whole


def _serve_answers(routes: APIRouter, inbox: Inbox, gate: Gate, shown: Shown, door: Doorkeeper) -> None:
    decider = Depends(door.require(Scope.APPROVALS_DECIDE))

    @routes.post("/approvals/{request_id}/decision")
    async def decide(request_id: str, body: DecisionIn, caller: Caller = decider, idempotency_key: Key = None) -> Response:
        request = await inbox.vote(
            request_id,
            voter=caller.principal.identity,
            channel=caller.channel,
            channel_actor=str(caller.principal.identity),
            verdict=VoteVerdict(body.verdict),
            digest=body.digest,
            scope=body.scope,
            valid_until=None if body.valid_until is None else moment(body.valid_until),
            reason=body.reason,
            signed=None if body.proof is None else signed_from_json(body.proof),
            break_glass=body.break_glass,
            event="" if idempotency_key is None else f"{caller.channel}/{idempotency_key}",
        )
        # Plain data: what FastAPI would look through once more takes time from the release that was just allowed.
        return JSONResponse(shown.whole(request))

    @routes.post("/approvals/{request_id}/edit")
    async def edit(request_id: str, body: EditIn, caller: Caller = decider) -> dict[str, Any]:
        """Propose another text in this one's place; somebody else than its author must approve it."""
        request = await inbox.get(request_id)
        draft = await gate.reconsider(request.draft, body.text.encode())
        edited = await inbox.edit(
            request_id,
            editor=caller.principal.identity,
            channel=caller.channel,
            channel_actor=str(caller.principal.identity),
            digest=body.digest if body.digest is not None else request.digest,
            draft=draft,
            reason=body.reason,
        )
        return shown.whole(edited)

    @routes.post("/approvals/{request_id}/reviewed")
    async def reviewed(request_id: str, body: NoteIn, caller: Caller = decider) -> dict[str, Any]:
        """Say that you looked at an approval that broke the glass: for administrators and auditors."""
        if Scope.SESSIONS_READ not in caller.scopes:
            raise InterlockError("looking at a broken glass is for administrators and auditors", reason=Reason.MISSING_SCOPE)
        await inbox.reviewed(request_id, reviewer=caller.principal.identity, note=body.note)
        return shown.whole(await inbox.get(request_id))


def _serve_ends(routes: APIRouter, inbox: Inbox, shown: Shown, door: Doorkeeper) -> None:
    reader = Depends(door.require(Scope.APPROVALS_OWN))
    admin = Depends(door.require(Scope.ADMIN))

    @routes.post("/approvals/{request_id}/withdraw")
    async def withdraw(request_id: str, body: WhyIn, caller: Caller = reader) -> dict[str, Any]:
        """End what is open: for whoever asked or is behind the one who asked, and for administrators."""
        request = await _visible(inbox, request_id, caller)
        me = caller.principal
        behind = {me.identity, *me.linked} & request.draft.principal.excluded()
        if not behind and Scope.ADMIN not in caller.scopes:
            raise InterlockError("only its requester or an administrator withdraws a request", reason=Reason.MISSING_SCOPE)
        return shown.whole(await inbox.withdraw_request(request_id, by=me.identity, why=body.reason or "withdrawn"))

    @routes.post("/approvals/{request_id}/revoke")
    async def revoke(request_id: str, body: WhyIn, caller: Caller = admin) -> dict[str, Any]:
        """Take an approval back that was not used yet. A reviewer does that by denying."""
        request = await inbox.get(request_id)
        if request.state is not State.APPROVED:
            raise VoteError(f"{request.id} is {request.state}, not approved", reason=Reason.ALREADY_DECIDED)
        return shown.whole(await inbox.revoke(request_id, body.reason or "revoked", by=caller.principal.identity))


async def _visible(inbox: Inbox, request_id: str, caller: Caller) -> ApprovalRequest:
    """An agent sees its own requests; to it another's do not exist."""
    request = await inbox.get(request_id)
    if may_see(caller, request):
        return request
    raise NotFoundError(f"there is no request {request.id}")
