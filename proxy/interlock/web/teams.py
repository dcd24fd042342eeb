"""The one inbound endpoint of the Teams bot: raw body in, invoke response out. Nothing passes without the strict gate."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from fastapi.responses import Response

from interlock.approvals.channels.teams.channel import TeamsChannel
from interlock.approvals.channels.teams.inbound import MAX_BODY, refuse
from interlock.approvals.channels.teams.transport import Transport


def teams_router(channel: TeamsChannel, transport: Transport) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.post("/api/messages")
    async def messages(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                raise refuse("the body is larger than 256 KiB")
        answer = await transport.receive(request.headers.get("authorization", ""), body, channel.receive)
        if answer is None:
            return Response(status_code=200)
        return Response(json.dumps(answer), media_type="application/json")

    return routes
