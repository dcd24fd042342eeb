"""A node's Teams channel for tests: the real desk, our fake connector, and the real endpoint between them on loopback.

Everything comes in as a signed activity over HTTP; waiting between tries is a `Pauses`, so no test waits for a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
from fastapi import FastAPI

from harness import bot_connector
from harness.bot_connector import APP_ID, APP_PASSWORD, CONVERSATION, TENANT, BotConnector, deliver
from harness.desk import Desk, open_desk
from harness.requests import draft
from harness.webserver import serving
from interlock.approvals.channels.teams import carriage
from interlock.approvals.channels.teams.channel import TeamsChannel
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import ISSUER, Expected
from interlock.approvals.model import ApprovalRequest, State
from interlock.config import Secret
from interlock.identity.keyset import KeySet
from interlock.web import problems
from interlock.web.teams import teams_router


@dataclass
class Pauses:
    """Stands for sleeping: remembers for how long, and lets others run."""

    asked: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Room:
    """A desk, its Teams channel, the connector beyond it, and the node's URL."""

    desk: Desk
    connector: BotConnector
    channel: TeamsChannel
    url: str
    pauses: Pauses

    async def ask(self, **changes: Any) -> ApprovalRequest:
        place = await self.desk.inbox.submit(draft(principal=self.desk.agent(), **changes))
        return place.request

    async def posted(self, request: ApprovalRequest, conversation: str = "") -> tuple[str, dict[str, Any]]:
        return await self.connector.card(lambda card: request.id in json.dumps(card), conversation)

    async def send(self, activity: dict[str, Any]) -> Any:
        """Deliver a signed activity; return the answer's body, None when it has none."""
        answer = await deliver(self.url, activity, self.connector.token())
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    async def press(
        self, request: ApprovalRequest, verb: str, *, user: str = "29:bob", there: str = "",
        typed: dict[str, Any] | None = None, **changes: Any,
    ) -> dict[str, Any]:  # fmt: skip
        message, card = await self.posted(request, there)
        body = await self.send(self.connector.invoke(card, message, verb, user=user, typed=typed, **changes))
        assert isinstance(body, dict)
        return body

    async def state(self, request: ApprovalRequest) -> State:
        return (await self.desk.inbox.get(request.id)).state


@contextlib.asynccontextmanager
async def open_room(
    directory: Path, transport: Literal["native", "botbuilder"] = "native", *, conversation: str = CONVERSATION, **options: Any
) -> AsyncIterator[Room]:
    """`options` go to the channel: escalation, direct."""
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(directory))
        connector = await stack.enter_async_context(bot_connector.running())
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        carrier = carriage.transport(
            transport,
            connector=Connector(
                app_id=APP_ID, password=Secret(APP_PASSWORD), token_url=f"{connector.url}/token",
                service_url=connector.url, clock=desk.clock, http=http,
            ),
            expected=Expected(APP_ID, frozenset({TENANT}), frozenset(), loopback=True),
            keys=KeySet(ISSUER, jwks_url=f"{connector.url}/keys", clock=desk.clock, client=lambda: http),
            clock=desk.clock,
        )  # fmt: skip
        pauses = Pauses()
        channel = TeamsChannel(
            transport=carrier, inbox=desk.inbox, directory=desk.directory, messages=desk.store.messages,
            conversations=desk.store.conversations, journal=desk.transcripts.journal, clock=desk.clock,
            conversation=conversation, pause=pauses, **options,
        )  # fmt: skip
        await channel.start()
        stack.push_async_callback(channel.close)
        app = FastAPI()
        problems.install(app)
        app.include_router(teams_router(channel, carrier))
        url = await stack.enter_async_context(serving(app))
        yield Room(desk, connector, channel, url, pauses)
