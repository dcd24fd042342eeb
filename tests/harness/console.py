"""The console of a desk, served on loopback, and somebody who uses it without a browser."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from harness.desk import PASSPHRASE, Desk, open_desk
from harness.requests import draft
from harness.trust import TRUST
from harness.webnode import gate_over, parts_over
from harness.webserver import serving
from interlock.approvals.channels.slack.linking import LinkCodes
from interlock.approvals.model import ApprovalRequest, State, VoteVerdict
from interlock.clock import system_entropy
from interlock.gate import Gate
from interlock.policy import packs
from interlock.policy.source import LivePolicy
from interlock.ports import Classifier
from interlock.web.app import SlackParts, create_app
from interlock.web.console.sessions import ConsoleSessions


@dataclass
class House:
    desk: Desk
    url: str
    gate: Gate
    app: Any
    consoles: ConsoleSessions
    stopping: asyncio.Event
    codes: LinkCodes

    async def ask(self, **changes: Any) -> ApprovalRequest:
        return (await self.desk.inbox.submit(draft(principal=self.desk.agent(), **changes))).request

    async def state(self, request: ApprovalRequest) -> State:
        return (await self.desk.inbox.get(request.id)).state

    async def vote(self, request: ApprovalRequest, verdict: str = "approve", who: str = "bob", **more: Any) -> ApprovalRequest:
        return await self.desk.inbox.vote(
            request.id, voter=self.desk.entry(who).identity, channel="api", channel_actor=who, verdict=VoteVerdict(verdict),
            digest=request.digest, **more,
        )  # fmt: skip


OPENED = """
version: 1
access: [{who: {groups: [agents]}, targets: "*", accounts: ["*"], roles: ["*"]}]
default: {review: {groups: [sre]}}
"""


@functools.cache
def _opened(policies: tuple[Path, ...]) -> LivePolicy:
    """Read once: nothing here reloads them."""
    with tempfile.TemporaryDirectory() as directory:
        own = Path(directory) / "own.yaml"
        own.write_text(OPENED)
        return LivePolicy([packs.shipped(), own, *policies])


@contextlib.asynccontextmanager
async def open_house(
    directory: Path,
    classifier: Classifier | None = None,
    *,
    policies: Sequence[Path] = (),
    public_url: str = "",
    **settings: Any,
) -> AsyncIterator[House]:
    """With the shipped packs, every target open to agents, and more policies where a test wants them. `settings` are the
    inbox's own."""
    live = _opened(tuple(policies))
    async with open_desk(directory, public_url=public_url, **settings) as desk:
        gate = gate_over(desk, classifier, live)
        # Slack in socket mode: no address that Slack could post to, and the page that links accounts.
        codes = LinkCodes(desk.clock, system_entropy)
        slack = SlackParts(None, None, codes, None)  # type: ignore[arg-type]  # the console asks for the codes alone
        parts = parts_over(desk, local=False, gate=gate, policies=live, public_url=public_url, slack=slack)
        app = create_app(parts)
        async with serving(app, urlsplit(public_url).port or 0) as url:
            yield House(desk, public_url or url, gate, app, parts.consoles, parts.stopping, codes)


@dataclass
class Visitor:
    """A logged-in client and its CSRF token."""

    http: httpx.AsyncClient
    csrf: str

    async def post(self, path: str, **data: str) -> httpx.Response:
        return await self.http.post(path, data={"csrf": self.csrf, **data})


@contextlib.asynccontextmanager
async def visiting(house: House, handle: str = "bob") -> AsyncIterator[Visitor]:
    async with httpx.AsyncClient(
        base_url=house.url, headers={"Origin": house.url}, trust_env=False, timeout=60, verify=TRUST
    ) as http:
        answer = await http.post("/console/login", data={"handle": handle, "passphrase": PASSPHRASE})
        assert answer.status_code == 303, answer.text
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', (await http.get("/console")).text)
        assert found
        yield Visitor(http, found[1])
