"""GET /v1/events: changes of requests as server-sent events (WHATWG HTML §9.2).

People see every request, an agent its own, for as long as their credential holds. A reader gives the last id that it has as
`Last-Event-ID` and gets what came after it, or `resync` when that is not known any more: then `GET /v1/approvals` tells how
things are. A reader that does not read is cut off.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from interlock.approvals.model import ApprovalRequest
from interlock.errors import AuthenticationError
from interlock.web.access import Caller, Doorkeeper, Scope
from interlock.web.feed import Feed
from interlock.web.shown import Shown

KEEPALIVE_S = 15.0
SLOW_S = 30.0
"""Seconds in which a reader must take a piece."""


def events_router(feed: Feed, shown: Shown, door: Doorkeeper, stopping: asyncio.Event) -> APIRouter:
    """`stopping` ends the streams, which nothing else would."""
    routes = APIRouter(prefix="/v1", tags=["approvals"])

    @routes.get("/events", response_class=StreamingResponse)
    async def events(
        request: Request,
        caller: Caller = Depends(door.require(Scope.APPROVALS_OWN)),
        last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    ) -> StreamingResponse:
        """Every change of a request, as `GET /v1/approvals/{id}` shows it."""
        return Stream(
            _stream(feed, shown, lambda: door.caller(request), stopping, last_event_id),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return routes


class Stream(StreamingResponse):
    """A stream that gives up on whoever does not read."""

    async def stream_response(self, send: Send) -> None:
        async def prompt(message: Message) -> None:
            async with asyncio.timeout(SLOW_S):
                await send(message)

        try:
            await super().stream_response(prompt)
        except TimeoutError:
            return  # without an end: the server then closes the connection


async def _stream(
    feed: Feed, shown: Shown, who: Callable[[], Awaitable[Caller]], stopping: asyncio.Event, last_event_id: str | None
) -> AsyncIterator[str]:
    """`who` authenticates the reader anew before each piece: whoever lost access since sees nothing more."""
    number, complete = feed.place(last_event_id)
    # From here on the id is known, so that a reader that is cut off before the first event can come back to here.
    yield f": interlock\nid: {feed.ident(number)}\n\n"
    if not complete:
        yield f'event: resync\nid: {feed.ident(number)}\ndata: {{"reason": "what came after that id is not known here"}}\n\n'
    ending = asyncio.ensure_future(stopping.wait())
    ending.add_done_callback(lambda _: feed.wake())
    try:
        async for item in feed.after(number, KEEPALIVE_S, stopping.is_set):
            caller = await who()
            if item is None:
                yield ": still here\n\n"
            elif may_see(caller, item.request):
                item.text = item.text or json.dumps(shown.whole(item.request), ensure_ascii=True)
                yield f"event: approval\nid: {feed.ident(item.number)}\ndata: {item.text}\n\n"
    except AuthenticationError:
        return
    finally:
        ending.cancel()


def may_see(caller: Caller, request: ApprovalRequest) -> bool:
    """Whether a request exists for a caller: everything for people, its own for an agent or a service.

    The same workload acting for somebody else is somebody else.
    """
    asked, me = request.draft.principal, caller.principal
    return Scope.APPROVALS_READ in caller.scopes or (asked.identity, asked.acting_for) == (me.identity, me.acting_for)
