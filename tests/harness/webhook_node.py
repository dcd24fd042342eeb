"""A desk with its webhook, for tests in this process and, run as a module, in a child that is killed."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from harness import stores
from harness.clock import ManualClock
from harness.inbox import people
from harness.journal import MemoryRecorder
from harness.people import BOB, agent
from harness.requests import draft
from interlock.approvals.channels.webhook.address import Guarded, Resolve, look_up
from interlock.approvals.channels.webhook.sender import WebhookChannel
from interlock.approvals.inbox import Inbox
from interlock.approvals.model import ApprovalRequest, VoteVerdict
from interlock.store.engine import Store

KEY = bytes(range(32))


@dataclass
class Node:
    path: Path
    url: str
    clock: ManualClock = field(default_factory=ManualClock)
    journal: MemoryRecorder = field(default_factory=MemoryRecorder)
    events: frozenset[str] = frozenset()
    room: int = 10_000
    loopback: bool = True
    resolve: Resolve = look_up
    tls: ssl.SSLContext | None = None
    store: Store = field(init=False)
    inbox: Inbox = field(init=False)
    channel: WebhookChannel | None = None

    async def open(self) -> Node:
        self.store = await stores.opened(self.path)
        self.inbox = Inbox(
            self.store, people(), clock=self.clock, entropy=secrets.token_bytes, journal=self.journal,
            public_url="https://proxy/",
        )  # fmt: skip
        await self.inbox.start()
        return self

    async def tell(self) -> WebhookChannel:
        """Start the channel."""
        inner = httpx.AsyncHTTPTransport(verify=self.tls or True)
        self.channel = WebhookChannel(
            url=self.url, key=KEY, events=self.events, inbox=self.inbox, rows=self.store.outbox, journal=self.journal,
            clock=self.clock, entropy=secrets.token_bytes, room=self.room,
            transport=Guarded(inner, loopback=self.loopback, resolve=self.resolve),
        )  # fmt: skip
        await self.channel.start()
        return self.channel

    async def hush(self) -> None:
        """Stop the channel; the desk goes on."""
        if self.channel is not None:
            await self.channel.close()
            self.channel = None

    async def close(self) -> None:
        await self.hush()
        await self.inbox.close()
        await self.store.close()

    async def ask(self, **changes: Any) -> ApprovalRequest:
        return (await self.inbox.submit(draft(principal=agent(), **changes))).request

    async def answer(self, request: ApprovalRequest, verdict: str = "deny", **more: Any) -> ApprovalRequest:
        return await self.inbox.vote(
            request.id, voter=BOB, channel="console", channel_actor="bob", verdict=VoteVerdict(verdict), digest=request.digest,
            **more,
        )  # fmt: skip

    def later(self, seconds: float) -> None:
        """Let time pass, and let the channel see it."""
        self.clock.advance(seconds)
        assert self.channel is not None
        self.channel.tick()


async def _ask_and_wait(path: Path, url: str) -> None:
    node = await Node(path, url).open()
    await node.tell()
    await node.ask()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_ask_and_wait(Path(sys.argv[1]), sys.argv[2]))
