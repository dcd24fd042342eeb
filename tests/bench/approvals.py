"""From a reviewer's accepted click to the first byte at the target, and what an inbox of ten thousand costs.

The click is an HTTP request to the daemon; the byte is seen by a tap between the daemon and its PostgreSQL. Both are timed
in this process, so the figure holds everything in between: authentication, the journal and its sync, the store twice, the
waiting session's second decision, its transcript and its sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles

import httpx

from blackbox.conftest import World, open_world
from harness.inbox import Desk
from harness.people import BOB
from harness.postgres_server import PostgresServer
from harness.requests import SHELL, draft
from interlock.approvals import authority, desk
from interlock.approvals.model import State, Vote, VoteVerdict
from interlock.identity.principal import Kind

APPROVALS = int(os.environ.get("BENCH_APPROVALS", "1000"))
PENDING = int(os.environ.get("BENCH_PENDING", "10000"))
CLICK_P50_MS, CLICK_P99_MS = 5.0, 20.0
INBOX_MS, DECISION_MS = 100.0, 1.0


@dataclass
class Tap:
    """Relays to a server and notes when bytes with the wanted words pass on their way there."""

    wanted: bytes = b""
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    at: float = 0.0

    def expect(self, words: bytes) -> None:
        self.wanted, self.at = words, 0.0
        self.seen.clear()

    def watch(self, data: bytes) -> None:
        # The planner is asked about the statement before a person is: that is not its release.
        if not self.at and self.wanted and self.wanted in data and b"EXPLAIN" not in data:
            self.at = time.perf_counter()
            self.seen.set()


@contextlib.asynccontextmanager
async def tapped(port: int) -> AsyncIterator[tuple[Tap, int]]:
    tap = Tap()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if watched:
                    tap.watch(data)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, up_writer, watched=True), pump(up_reader, writer, watched=False))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield tap, server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def measure(directory: Path, server: PostgresServer) -> None:
    """Print the figures, and whether each keeps its budget. A slow machine fails nothing."""
    async with tapped(server.port) as (tap, port):

        def through_tap(config: dict[str, list[dict[str, str]]]) -> None:
            for target in config["targets"]:
                if target["name"] == "orders":
                    target["address"] = f"127.0.0.1:{port}"

        async with open_world(directory, server, adjust=through_tap) as world:
            clicks = await _clicks(world, tap)
    p50, p99 = median(clicks), quantiles(clicks, n=100)[98]
    print(f"click to first byte, {len(clicks)} approvals: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(clicks):.2f} ms")
    inbox_ms, decision_ms = await _large_inbox()
    print(f"{PENDING} pending: a page of the inbox {inbox_ms:.2f} ms, a decision of the desk {decision_ms:.3f} ms")
    budgets = (
        ("click to first byte, p50", p50, CLICK_P50_MS), ("click to first byte, p99", p99, CLICK_P99_MS),
        ("a page of a large inbox", inbox_ms, INBOX_MS), ("a decision of the desk", decision_ms, DECISION_MS),
    )  # fmt: skip
    for what, took, budget in budgets:
        print(f"{what}: {took:.2f} ms, budget {budget:g} ms: {'kept' if took <= budget else 'MISSED'}")


async def _clicks(world: World, tap: Tap) -> list[float]:
    token = str((await asyncio.to_thread(world.node.json, "principals", "token", "issue", "bob"))["token"])
    passphrase = (world.node.directory / "bob.passphrase").read_text()
    connection = await world.asyncpg()
    took: list[float] = []
    async with httpx.AsyncClient(base_url=world.node.url, timeout=30, trust_env=False) as http:
        opened = (await http.post("/v1/step-up", json={"handle": "bob", "passphrase": passphrase})).json()
        reader, writer = await asyncio.open_connection("127.0.0.1", world.node.port("http"))
        async with http.stream("GET", "/v1/events", headers={"Authorization": f"Bearer {token}"}) as events:
            lines = events.aiter_lines()
            for number in range(APPROVALS):
                text = f"DELETE FROM t WHERE id = -{number + 1}"
                tap.expect(text.encode())
                running = asyncio.create_task(connection.execute(text))
                request = await _pending(lines, text)
                click = click_of(request, opened["token"])
                clicked = time.perf_counter()
                writer.write(click)
                await tap.seen.wait()
                took.append((tap.at - clicked) * 1000)
                await answered(reader)
                await running
        writer.close()
    await connection.close()
    return took


def click_of(request: dict[str, str], token: str) -> bytes:
    """Return the whole request of a click. Ready before the clock starts: what the browser does is not what is timed."""
    body = json.dumps({"verdict": "approve", "digest": request["digest"]}).encode()
    head = (
        f"POST /v1/approvals/{request['id']}/decision HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}",
        "Content-Type: application/json", f"Content-Length: {len(body)}", "", "",
    )  # fmt: skip
    return "\r\n".join(head).encode() + body


async def answered(reader: asyncio.StreamReader) -> None:
    """Read one answer to its end; anything but 200 ends the bench."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length:"))
    body = await reader.readexactly(length)
    if not head.startswith("HTTP/1.1 200 "):
        raise SystemExit(f"a click was refused: {head.splitlines()[0]} {body.decode()}")


async def _pending(lines: AsyncIterator[str], text: str) -> dict[str, str]:
    async for line in lines:
        if line.startswith("data: "):
            request: dict[str, str] = json.loads(line.removeprefix("data: "))
            if request.get("state") == "pending" and request.get("text") == text:
                return request
    raise SystemExit("the event stream ended")


async def _large_inbox() -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="interlock-inbox-") as scratch:
        big = Desk(Path(scratch))
        await big.open()
        for number in range(PENDING):
            await big.inbox.submit(draft(replace(SHELL, text=b"rm -rf /srv/%d" % number)))
        pages, decisions = [], []
        for _ in range(20):
            begun = time.perf_counter()
            found = await big.inbox.page(State.PENDING, limit=50)
            pages.append((time.perf_counter() - begun) * 1000)
        voter = authority.Voter(BOB, "bob", Kind.HUMAN, frozenset(("sre",)))
        for request in found:
            ballot = Vote(BOB, "bob", "api", "bob", VoteVerdict.APPROVE, request.digest, big.clock.now())
            begun = time.perf_counter()
            desk.vote(request, ballot, voter, now=big.clock.now(), house=authority.House())
            decisions.append((time.perf_counter() - begun) * 1000)
        await big.close()
        return median(pages), median(decisions)
