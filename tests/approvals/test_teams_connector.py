"""Our client of the Bot Connector against services that answer badly, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from harness.trust import TRUST
from interlock.approvals.channels.teams import connector as client
from interlock.approvals.channels.teams.connector import Connector
from interlock.approvals.channels.teams.transport import TransportError
from interlock.cli import checkup
from interlock.clock import SystemClock
from interlock.config import Secret

DEEP = b"[" * 100_000


@contextlib.asynccontextmanager
async def service(answer: bytes, length: int) -> AsyncIterator[str]:
    """A service that answers this, and then a blank every so often until its length is reached."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % length + answer)
            for _ in range(length - len(answer)):
                await writer.drain()
                await asyncio.sleep(0.05)
                writer.write(b" ")
            await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def of(url: str, http: httpx.AsyncClient) -> Connector:
    return Connector(app_id="a", password=Secret("s"), token_url=f"{url}/token", service_url=url, clock=SystemClock(), http=http)


async def test_a_service_that_drips_holds_nobody_up_longer_than_the_time_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    async with (
        service(b"{", 100) as url,
        httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http,
        asyncio.timeout(30),
    ):
        with pytest.raises(TransportError, match="in time") as refused:
            await of(url, http).bearer()
    assert refused.value.passing


async def test_the_checkup_does_not_wait_for_a_service_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "TIMEOUT_S", 0.3)
    async with (
        service(b"{", 100) as url,
        httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http,
        asyncio.timeout(30),
    ):
        with pytest.raises(httpx.ReadTimeout):
            await checkup._fetch(http, "GET", url)


async def test_an_answer_that_is_nested_too_deep_is_not_json() -> None:
    async with service(DEEP, len(DEEP)) as url, httpx.AsyncClient(trust_env=False, timeout=60, verify=TRUST) as http:
        with pytest.raises(TransportError, match="not JSON"):
            await of(url, http).bearer()
    assert checkup._reason(DEEP) == ""
