"""The HTTP server and clients that do not speak, or not to the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from interlock.web import problems, server
from interlock.web.server import HttpServer


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DEADLINE", 0.2)
    monkeypatch.setattr(server, "BODY_DEADLINE", 0.4)


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_client_that_does_not_finish_a_request_is_let_go(said: bytes) -> None:
    http = HttpServer("http", FastAPI(), "127.0.0.1:0")
    port = await http.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    async with asyncio.timeout(30):
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
    async with asyncio.timeout(30):
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
    async with asyncio.timeout(30):
        assert b'"127.0.0.1 http"' in await reader.read(4096)
    writer.close()
    await http.close()


POST = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """`/take` reads all of a body, `/hasty` answers without reading any, `/stream` talks for longer than all deadlines."""
    app = FastAPI()
    problems.install(app)

    @app.post("/take")
    async def take(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    @app.post("/hasty")
    async def hasty() -> str:
        return "no"

    @app.post("/stream")
    async def stream(request: Request) -> StreamingResponse:
        body = await request.body()

        async def events() -> AsyncIterator[bytes]:
            for number in range(12):
                yield b"data: %d %d\n\n" % (len(body), number)
                await asyncio.sleep(0.1)

        return StreamingResponse(events(), media_type="text/event-stream")

    http = HttpServer("http", app, "127.0.0.1:0")
    try:
        yield await http.start()
    finally:
        await http.close()


async def drip(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("head", [POST, POST.replace(b"Content-Length: 200000", b"Transfer-Encoding: chunked")])
async def test_a_body_that_stops_half_way_is_let_go_without_a_word_in_the_log(
    head: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + (b"a" * 100_000 if head is POST else b"5\r\naaaaa\r\n"))
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "unexpected" not in capsys.readouterr().out


@pytest.mark.parametrize("path", [b"/take", b"/hasty", b"/nowhere"])
async def test_a_body_letter_by_letter_is_let_go_all_the_same(path: bytes) -> None:
    """Progress buys no time, and an answer that came early buys none either."""
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST.replace(b"/take", path))
        dripping = asyncio.create_task(drip(writer))
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        dripping.cancel()
        writer.close()


async def test_a_second_body_in_one_connection_has_a_deadline_too() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        first = b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
        writer.write(first + POST)
        async with asyncio.timeout(30):
            assert (await reader.read()).count(b"HTTP/1.1") == 1
        writer.close()


async def test_a_stream_of_events_is_not_cut_by_any_deadline() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        await asyncio.sleep(0.1)
        writer.write(b"cd")
        async with asyncio.timeout(30):
            assert b"data: 4 11" in await reader.readuntil(b"data: 4 11")
        writer.close()


async def test_there_is_an_end_to_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    async with serving() as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /hasty HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        async with asyncio.timeout(30):
            assert b" 503 " in await reader.readline()
        for _, other in [*idle, (reader, writer)]:
            other.close()
