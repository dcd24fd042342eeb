"""The inbound endpoint of the Slack app in HTTP mode: raw body in, an acknowledgement out within three seconds.

Nothing passes without the strict gate; what a delivery asks for is done after it was acknowledged.
"""

from __future__ import annotations

import json

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from interlock.approvals.channels.slack.channel import SlackChannel
from interlock.approvals.channels.slack.inbound import MAX_BODY, Expected, admit, refuse, stamped
from interlock.clock import Clock
from interlock.config import Secret
from interlock.errors import AuthenticationError

log = structlog.get_logger()


def slack_router(channel: SlackChannel, expected: Expected, signing_secret: Secret, clock: Clock) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    refused = 0

    @routes.post("/slack/interactions")
    async def interactions(request: Request) -> Response:
        nonlocal refused
        try:
            return await _interaction(request)
        except AuthenticationError as error:
            refused += 1
            if refused & (refused - 1) == 0:  # the 1st, 2nd, 4th, 8th …: junk fills no log
                log.warning("slack.delivery_refused", reason=str(error.code), why=str(error), refused=refused)
            raise

    async def _interaction(request: Request) -> Response:
        stamped(request.headers, clock.now())
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                raise refuse("the body is larger than 256 KiB")
        delivery = admit(request.headers, bytes(body), secret=signing_secret, expected=expected, now=clock.now())
        if not await channel.take(delivery):
            raise refuse("it was delivered before")
        answer = channel.begin(delivery)
        if answer is None:
            return Response(status_code=200)
        return Response(json.dumps(answer), media_type="application/json")

    return routes
