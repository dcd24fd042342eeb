"""The inbox: what waits for an answer, and how an open page learns that something changed.

Events carry ids, states and counts, nothing of a request: whoever may see more asks for the page.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse

from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, State
from interlock.errors import InterlockError, Reason
from interlock.web.access import Scope
from interlock.web.console.guard import Guard, Person
from interlock.web.console.pages import HEADERS, Pages
from interlock.web.console.rows import row

PAGE = 50
APPROVED = 20
KEEPALIVE_S = 15.0
MAX_STREAMS = 256
MAX_BEHIND = 1000


def add(routes: APIRouter, pages: Pages, guard: Guard, inbox: Inbox, stopping: asyncio.Event) -> None:
    streams: set[object] = set()
    reader = Depends(guard.reads(Scope.APPROVALS_READ))

    @routes.get("/console")
    async def inbox_page(request: Request, before: str = "", person: Person = reader) -> Response:
        found = await inbox.page(State.PENDING, limit=PAGE + 1, before=before)
        approved = await inbox.page(State.APPROVED, limit=APPROVED)
        return pages.page(
            "inbox.html",
            request,
            rows=[row(r, person) for r in found[:PAGE]],
            approved=[] if before else [row(r, person) for r in approved],
            before=before,
            older=found[PAGE - 1].id if len(found) > PAGE else "",
            mark=await newest(),
        )

    async def newest() -> str:
        """Return what stands for the newest requests and how they stand: ids and states, nothing else."""
        found = [*await inbox.page(State.PENDING, limit=PAGE), *await inbox.page(State.APPROVED, limit=APPROVED)]
        text = f"{inbox.pending_count()} " + " ".join(json.dumps(_change(r)) for r in found)
        return sha256(text.encode()).hexdigest()

    @routes.get("/console/fingerprint")
    async def fingerprint(request: str = "", person: Person = reader) -> Response:
        """What a page compares with its own when it gets no events."""
        if not request:
            return Response(await newest(), media_type="text/plain", headers=HEADERS)
        found = await inbox.get(request)
        return Response(f"{found.state} {len(found.votes)}", media_type="text/plain", headers=HEADERS)

    @routes.get("/console/events")
    async def events(request: Request, person: Person = reader) -> Response:
        if len(streams) >= MAX_STREAMS:
            raise InterlockError(reason=Reason.LIMIT_REACHED)
        token = object()
        streams.add(token)

        async def stream() -> AsyncIterator[str]:
            try:
                async for change in _changes(inbox, stopping):
                    if guard.find(request) is None:
                        return  # logged out or disabled meanwhile
                    yield change
            finally:
                streams.discard(token)

        return StreamingResponse(stream(), media_type="text/event-stream", headers=HEADERS)


async def _changes(inbox: Inbox, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Yield changes as they happen. A reader too slow for the bound is cut off rather than buffered for ever."""
    changes: asyncio.Queue[ApprovalRequest | None] = asyncio.Queue(maxsize=MAX_BEHIND)

    def push(request: ApprovalRequest | None) -> None:
        if not changes.full():
            changes.put_nowait(request)

    unsubscribe = inbox.subscribe(push)
    end = asyncio.create_task(stopping.wait())
    end.add_done_callback(lambda _: push(None))
    try:
        yield "retry: 3000\n\n"
        while not changes.full():
            try:
                request = await asyncio.wait_for(changes.get(), KEEPALIVE_S)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if request is None:
                return
            yield f"event: change\ndata: {json.dumps(_change(request))}\n\n"
    finally:
        end.cancel()
        unsubscribe()


def _change(request: ApprovalRequest) -> dict[str, str | int | bool]:
    return {
        "id": request.id,
        "state": str(request.state),
        "presence": str(request.presence),
        "answers": len(request.votes),
        "escalated": request.escalated_at is not None,
    }
