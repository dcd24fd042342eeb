"""A node's Teams channel for tests: the real desk, our fake connector, and the real endpoint between them on loopback.

Everything comes in as a signed activity over HTTP; waiting between tries is a `Pauses`, so no test waits for a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
from fastapi import FastAPI

from harness import bot_connector
from harness.bot_connector import APP_ID, APP_PASSWORD, CONVERSATION, TENANT, BotConnector, deliver
from harness.desk import Desk, open_desk
from harness.requests import draft
from harness.trust import TRUST
from harness.webserver import serving
from interlock.approvals.channels.teams import carriage
from interlock.approvals.channels.teams.channel import TeamsChannel
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.inbound import ISSUER, Expected
from interlock.approvals.channels.teams.transport import Delivery
from interlock.approvals.model import ApprovalRequest, State
from interlock.clock import SystemClock
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


class LaterClock(SystemClock):
    """The machine's clock, set forward by as many seconds as a test says."""

    ahead = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic_us(self) -> int:
        return super().monotonic_us() + int(self.ahead * 1_000_000)

    def wall_ns(self) -> int:  # type: ignore[override]  # the machine's is a builtin
        return SystemClock.wall_ns() + int(self.ahead * 1_000_000_000)

    def monotonic_ns(self) -> int:  # type: ignore[override]
        return SystemClock.monotonic_ns() + int(self.ahead * 1_000_000_000)


@dataclass
class Room:
    """A desk, its Teams channel, the connector beyond it, and the node's URL."""

    desk: Desk
    connector: BotConnector
    clock: LaterClock
    pauses: Pauses
    make: Callable[[], TeamsChannel]
    channel: TeamsChannel
    url: str = ""

    async def receive(self, delivery: Delivery) -> dict[str, Any] | None:
        """What the endpoint asks: whichever channel is there now."""
        return await self.channel.receive(delivery)

    async def restart(self) -> None:
        """A new channel over the same store; call `close` before, and change what you like between."""
        self.channel = self.make()
        await self.channel.start()

    async def until(self, condition: Callable[[], Awaitable[object]]) -> None:
        """Wait for something that tells nobody when it happens: a row, a line in a file, a task that ended."""
        async with asyncio.timeout(45):
            while not await condition():  # noqa: ASYNC110  there is no event
                await asyncio.sleep(0)

    async def idle(self) -> None:
        """Wait until everything that was delivered has been taken in."""

        async def done() -> bool:
            return not self.channel._tasks

        await self.until(done)

    async def later(self, seconds: float) -> None:
        """Let that much time pass, and let the desk look at the clock."""
        self.clock.ahead += seconds
        await self.desk.inbox.tick()

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
    directory: Path, transport: Literal["native", "botbuilder"] = "native", *, conversation: str = CONVERSATION,
    inbox: Mapping[str, Any] | None = None, **options: Any,
) -> AsyncIterator[Room]:  # fmt: skip
    """`inbox` are settings of the desk's inbox, `options` go to the channel: escalation, direct."""
    async with contextlib.AsyncExitStack() as stack:
        clock = LaterClock()
        desk = await stack.enter_async_context(open_desk(directory, clock=clock, **(inbox or {})))
        connector = await stack.enter_async_context(bot_connector.running())
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST))
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

        def make() -> TeamsChannel:
            return TeamsChannel(
                transport=carrier, inbox=desk.inbox, directory=desk.directory, messages=desk.store.messages,
                conversations=desk.store.conversations, journal=desk.transcripts.journal, clock=clock,
                conversation=conversation, pause=pauses, **options,
            )  # fmt: skip

        room = Room(desk, connector, clock, pauses, make, make())
        await room.channel.start()

        async def close() -> None:
            await room.channel.close()  # whichever channel is there then

        stack.push_async_callback(close)
        app = FastAPI()
        problems.install(app)
        app.include_router(teams_router(room, carrier))  # type: ignore[arg-type]  # whichever channel is there now
        room.url = await stack.enter_async_context(serving(app))
        yield room
