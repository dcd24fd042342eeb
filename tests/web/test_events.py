"""Server-sent events over real HTTP: who sees what, coming back, and readers that do not read."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from harness.house import House, open_house
from harness.requests import draft
from interlock.approvals.model import ApprovalRequest
from interlock.web import events
from interlock.web.feed import Feed


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as made:
        yield made


class Reader:
    """Reads a stream, event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last = ""

    async def next(self) -> tuple[str, Any]:
        """Return kind and data of the next event, ("", None) for a sign of life."""
        kind, data = "", None
        async with asyncio.timeout(45):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    self.last = value
                elif name == "data":
                    data = json.loads(value)
                elif not line:
                    return kind, data
        return "end", None


async def ask(house: House, n: int, **changes: Any) -> ApprovalRequest:
    return await house.ask(command=replace(draft().command, text=b"rm -rf /srv/%d" % n), **changes)


async def test_a_reader_that_comes_back_gets_what_it_missed(house: House) -> None:
    async with house.client(await house.token("bob")) as http:
        async with http.stream("GET", "/v1/events") as stream:
            reader = Reader(stream)
            assert await reader.next() == ("", None)
            first = await ask(house, 1)
            assert (await reader.next())[1]["id"] == first.id
        missed = [await ask(house, n) for n in (2, 3)]
        async with http.stream("GET", "/v1/events", headers={"Last-Event-ID": reader.last}) as stream:
            again = Reader(stream)
            assert await again.next() == ("", None)
            assert [(await again.next())[1]["id"] for _ in missed] == [r.id for r in missed]


@pytest.mark.parametrize("last", ["0123456789abcdef-5", "nonsense", "0" * 64])
async def test_what_can_not_be_resumed_is_said(house: House, last: str) -> None:
    async with (
        house.client(await house.token("bob")) as http,
        http.stream("GET", "/v1/events", headers={"Last-Event-ID": last}) as stream,
    ):
        reader = Reader(stream)
        assert await reader.next() == ("", None)
        assert (await reader.next())[0] == "resync"
        request = await ask(house, 1)
        assert (await reader.next())[1]["id"] == request.id


async def test_an_agent_sees_its_own_requests_only(house: House) -> None:
    other = replace(house.desk.agent(), identity=house.desk.entry("erin").identity, handle="other", owner=None)
    async with house.client(await house.token("claude")) as http, http.stream("GET", "/v1/events") as stream:
        reader = Reader(stream)
        await reader.next()
        await house.desk.inbox.submit(draft(principal=other))
        mine = await ask(house, 1)
        kind, row = await reader.next()
        assert (kind, row["id"]) == ("approval", mine.id)
        assert "nonce" not in row


async def test_whoever_lost_access_sees_nothing_more(house: House) -> None:
    async with house.client(await house.token("bob")) as http, http.stream("GET", "/v1/events") as stream:
        reader = Reader(stream)
        await reader.next()
        await house.desk.directory.set_disabled("bob", True)
        await ask(house, 1)
        assert await reader.next() == ("end", None)


async def test_a_reader_that_does_not_read_is_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SLOW_S", 0.2)
    feeds: list[Feed] = []
    made = Feed.__init__

    def remember(self: Feed, *args: Any, **more: Any) -> None:
        made(self, *args, **more)
        feeds.append(self)

    monkeypatch.setattr(Feed, "__init__", remember)
    from harness.webnode import open_web

    async with open_web(house.desk, local=False, gate=house.gate) as url:
        (feed,) = feeds
        token = await house.token("bob")
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(deaf.connect, (urlsplit(url).hostname, urlsplit(url).port))
        deaf.send(f"GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            while feed.readers == 0:  # noqa: ASYNC110  the server says it in no other way
                await asyncio.sleep(0.01)
            big = replace(await ask(house, 1), draft=draft(command=replace(draft().command, text=b"echo " + b"x" * 200_000)))
            while feed.readers:
                for callback in tuple(house.desk.inbox._register._subscribers):
                    callback(big)
                await asyncio.sleep(0.01)
        deaf.close()


async def test_a_place_that_is_not_kept_any_more_ends_the_stream(house: House) -> None:
    feed = Feed(house.desk.inbox, kept=3)
    start, complete = feed.place(None)
    assert (start, complete) == (0, True)
    stream = feed.after(start, 5, lambda: False)
    first = await ask(house, 0)
    item = await anext(stream)
    assert item is not None and item.request.id == first.id
    for n in range(1, 5):
        await ask(house, n)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert feed.place(feed.ident(1)) == (5, False)
    assert feed.place(feed.ident(2)) == (2, True)
    assert feed.place(feed.ident(6)) == (5, False), "a number of the future is not ours"
