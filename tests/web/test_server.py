"""The HTTP server and clients that do not speak, or not to the end."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI, Request

from interlock.web import server
from interlock.web.server import HttpServer


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEADLINE", 0.2)


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_client_that_does_not_finish_a_request_is_let_go(said: bytes) -> None:
    http = HttpServer("http", FastAPI(), "127.0.0.1:0")
    port = await http.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await http.close()


async def test_an_answer_may_take_longer_than_the_question() -> None:
    app = FastAPI()
    asked, answer = asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        asked.set()
        await answer.wait()
        return "done"

    http = HttpServer("http", app, "127.0.0.1:0")
    port = await http.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        await asked.wait()
        loop = asyncio.get_running_loop()
        loop.call_later(3 * 0.2, answer.set)
        assert b"done" in await reader.read(4096)
    writer.close()
    await http.close()


async def test_nobody_on_this_host_chooses_the_address_they_come_from() -> None:
    """Attack: a local process guesses under a new X-Forwarded-For each time."""
    app = FastAPI()

    @app.get("/")
    async def who(request: Request) -> str:
        assert request.client is not None
        return f"{request.client.host} {request.url.scheme}"

    http = HttpServer("http", app, "127.0.0.1:0")
    port = await http.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n")
    async with asyncio.timeout(5):
        assert b'"127.0.0.1 http"' in await reader.read(4096)
    writer.close()
    await http.close()
