"""The REST API of interface.md. No GET decides anything."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, Proof, State, VoteVerdict
from interlock.errors import InterlockError, NotFoundError, Reason
from interlock.evidence.archive import Archive
from interlock.identity.authenticate import Authenticator
from interlock.identity.principal import Kind
from interlock.identity.stepup import LIFETIME_S, DecisionSessions
from interlock.web.access import Caller, Doorkeeper, Scope, source_of
from interlock.web.shown import shown

KEEPALIVE_S = 15.0


class DecisionIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    verdict: Literal["approve", "deny"]
    digest: Annotated[str, Field(max_length=200)]
    scope: Literal["once"] = "once"
    reason: Annotated[str, Field(max_length=2000)] = ""


class StepUpIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    handle: Annotated[str, Field(max_length=64)]
    passphrase: Annotated[str, Field(max_length=1024)]


def approvals_router(inbox: Inbox, door: Doorkeeper, stopping: asyncio.Event) -> APIRouter:
    """Reading and answering requests. `stopping` ends the event streams, which nothing else would."""
    routes = APIRouter(prefix="/v1", tags=["approvals"])
    reader = Depends(door.require(Scope.APPROVALS_OWN))
    decider = Depends(door.require(Scope.APPROVALS_DECIDE))

    async def visible(request_id: str, caller: Caller) -> ApprovalRequest:
        """An agent sees its own requests; to it another's do not exist."""
        request = await inbox.get(request_id)
        if Scope.APPROVALS_READ in caller.scopes or request.draft.principal.identity == caller.principal.identity:
            return request
        raise NotFoundError(f"no request {request_id}")

    @routes.get("/approvals")
    async def list_approvals(caller: Caller = reader, state: State | None = None) -> dict[str, Any]:
        requests = await inbox.list(state)
        if Scope.APPROVALS_READ not in caller.scopes:
            requests = [r for r in requests if r.draft.principal.identity == caller.principal.identity]
        return {"approvals": [shown(r) for r in sorted(requests, key=lambda r: r.id, reverse=True)]}

    @routes.get("/approvals/{request_id}")
    async def get_approval(request_id: str, caller: Caller = reader) -> dict[str, Any]:
        return shown(await visible(request_id, caller))

    @routes.post("/approvals/{request_id}/decision")
    async def decide(request_id: str, body: DecisionIn, caller: Caller = decider) -> dict[str, Any]:
        request = await inbox.vote(
            request_id,
            voter=caller.principal.identity,
            channel=caller.channel,
            channel_actor=str(caller.principal.identity),
            verdict=VoteVerdict(body.verdict),
            digest=body.digest,
            scope=body.scope,
            reason=body.reason,
            proof=Proof.NONE,
        )
        return shown(request)

    @routes.get("/events")
    async def events(caller: Caller = Depends(door.require(Scope.APPROVALS_READ))) -> StreamingResponse:
        """Server-sent events: every change of a request, as `GET /v1/approvals/{id}` shows it."""
        return StreamingResponse(_stream(inbox, stopping), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return routes


async def _stream(inbox: Inbox, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Yield changes as they happen. A reader too slow for the bound is cut off rather than buffered for ever."""
    changes: asyncio.Queue[ApprovalRequest | None] = asyncio.Queue(maxsize=1000)

    def push(request: ApprovalRequest | None) -> None:
        if not changes.full():
            changes.put_nowait(request)

    unsubscribe = inbox.subscribe(push)
    end = asyncio.create_task(stopping.wait())
    end.add_done_callback(lambda _: push(None))
    try:
        yield ": interlock\n\n"
        while not changes.full():
            try:
                request = await asyncio.wait_for(changes.get(), KEEPALIVE_S)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if request is None:
                return
            yield f"event: approval\ndata: {json.dumps(shown(request), ensure_ascii=True)}\n\n"
    finally:
        end.cancel()
        unsubscribe()


def stepup_router(authenticator: Authenticator, sessions: DecisionSessions) -> APIRouter:
    """Opening a decision session: five minutes of `approvals:decide` for a person who gives the passphrase now."""
    routes = APIRouter(prefix="/v1", tags=["step-up"])

    @routes.post("/step-up")
    async def step_up(request: Request, body: StepUpIn) -> dict[str, Any]:
        principal = await authenticator.passphrase(body.handle, body.passphrase, source=source_of(request))
        if principal.kind is not Kind.HUMAN:
            raise InterlockError(reason=Reason.NOT_A_PERSON)
        return {"token": sessions.open(principal), "expires_in": LIFETIME_S, "handle": principal.handle}

    return routes


def sessions_router(archive: Archive, door: Doorkeeper) -> APIRouter:
    """Transcripts: list, show, and the bundle an auditor takes away. Reading them needs a scope of its own."""
    routes = APIRouter(prefix="/v1", tags=["sessions"])
    auditor = Depends(door.require(Scope.SESSIONS_READ))

    @routes.get("/sessions")
    def list_sessions(caller: Caller = auditor) -> dict[str, Any]:
        return {"sessions": archive.list()}

    @routes.get("/sessions/{session_id}")
    def show_session(session_id: str, caller: Caller = auditor) -> dict[str, Any]:
        return archive.show(session_id)

    @routes.get("/sessions/{session_id}/events")
    def session_events(session_id: str, caller: Caller = auditor) -> dict[str, Any]:
        return {"events": archive.events(session_id)}

    @routes.get("/sessions/{session_id}/bundle")
    def bundle(session_id: str, caller: Caller = auditor) -> Response:
        packed = io.BytesIO()
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=packed, mode="w:gz") as tar:
            out = Path(scratch) / "bundle"
            archive.export(session_id, out)
            tar.add(out, arcname=session_id)
        return Response(packed.getvalue(), media_type="application/gzip")

    return routes


def person_router(door: Doorkeeper) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["identity"])

    @routes.get("/whoami")
    async def whoami(caller: Caller = Depends(door.require(Scope.APPROVALS_OWN))) -> dict[str, Any]:
        principal = caller.principal
        return {
            "handle": principal.handle,
            "identity": str(principal.identity),
            "kind": str(principal.kind),
            "groups": sorted(principal.groups),
            "owner": principal.owner_handle or None,
            "acting_for": list(principal.acting_for_handles),
            "scopes": sorted(caller.scopes),
        }

    return routes
