"""The one inbound endpoint of the Teams bot: raw body in, invoke response out. Nothing passes without the strict gate."""

from __future__ import annotations

import json

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from interlock.approvals.channels.teams import inbound
from interlock.approvals.channels.teams.channel import TeamsChannel
from interlock.approvals.channels.teams.inbound import MAX_BODY, refuse
from interlock.approvals.channels.teams.transport import Transport
from interlock.errors import AuthenticationError

log = structlog.get_logger()


def teams_router(channel: TeamsChannel, transport: Transport) -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    refused = 0

    @routes.post("/api/messages")
    async def messages(request: Request) -> Response:
        nonlocal refused
        try:
            answer = await transport.receive(*await _read(request), channel.receive)
        except AuthenticationError as error:
            refused += 1
            if refused & (refused - 1) == 0:  # the 1st, 2nd, 4th, 8th …: junk fills no log
                log.warning("teams.delivery_refused", why=str(error), refused=refused)
            raise
        if answer is None:
            return Response(status_code=200)
        return Response(json.dumps(answer), media_type="application/json")

    return routes


async def _read(request: Request) -> tuple[str, bytes]:
    """Return the Authorization header and the body. What carries no token is refused before its body is read."""
    given = request.headers.getlist("authorization")
    if len(given) != 1:
        raise refuse("it must carry one Authorization header")
    inbound.bearer(given[0])
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise refuse("the body is larger than 256 KiB")
    return given[0], bytes(body)
