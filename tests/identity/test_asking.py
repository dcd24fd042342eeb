"""Questions to an identity provider over real sockets and real TLS: whatever it does, the answer is bounded or there is none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from harness.authority import Authority, Pair
from harness.issuer import FakeIssuer
from interlock.errors import ConfigError
from interlock.identity import asking
from interlock.identity.asking import MAX_BODY, AskingError, HttpAsking

FIRST_BYTES = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Scripted:
    """A server that keeps connections alive and answers what it is told; `heard` are whole requests, head and body."""

    def __init__(self) -> None:
        self.answer = FIRST_BYTES + b"Content-Length: 2\r\n\r\n{}"
        self.heard: list[bytes] = []
        self.connections = 0
        self.open = asyncio.Event()
        self.open.set()
        self.came = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
                self.heard.append(head + await reader.readexactly(size))
                self.came.set()
                await self.open.wait()
                writer.write(self.answer)
                await writer.drain()
        writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[tuple[Scripted, str]]:
    script = Scripted()
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    try:
        yield script, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
    finally:
        script.open.set()
        script.hang_up()
        server.close()
        await server.wait_closed()


@pytest.fixture
async def http() -> AsyncIterator[HttpAsking]:
    made = HttpAsking()
    yield made
    await made.close()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("idp"))


def context(pair: Pair) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pair.certificate, pair.key)
    return made


async def fails(http: HttpAsking, url: str) -> str:
    with pytest.raises(AskingError) as error:
        await http.ask("POST", url, form={"code": "the-code"})
    assert "the-code" not in str(error.value)
    return str(error.value)


async def test_a_form_arrives_as_it_was_meant_and_connections_are_kept(http: HttpAsking) -> None:
    async with scripted() as (script, url):
        for _ in range(3):
            answer = await http.ask("POST", url, form={"code": "a b&c=ü", "x": ""}, headers={"Authorization": "Basic eA=="})
            assert (answer.status, answer.body) == (200, b"{}")
        assert script.connections == 1
        head, _, body = script.heard[0].partition(b"\r\n\r\n")
        assert body == b"code=a+b%26c%3D%C3%BC&x="
        assert b"\r\nauthorization: basic ea==" in head.lower() and b"\r\naccept-encoding: identity" in head.lower()


async def test_an_address_is_asked_as_it_stands(http: HttpAsking) -> None:
    async with scripted() as (script, url):
        await http.ask("GET", url + "/%2e%2E/a%2Fb?tenant=%C3%BC+x")
        assert script.heard[0].startswith(b"GET /token/%2e%2E/a%2Fb?tenant=%C3%BC+x HTTP/1.1\r\n")


async def test_an_idle_connection_that_the_provider_ends_costs_no_login(http: HttpAsking) -> None:
    async with scripted() as (script, url):
        await http.ask("POST", url, form={})
        script.hang_up()
        (kept,) = http._session.connector._conns.values()  # type: ignore[union-attr]
        while kept[0][0].is_connected():  # noqa: ASYNC110  until the loop has heard of it
            await asyncio.sleep(0)
        assert (await http.ask("POST", url, form={})).status == 200
        assert script.connections == 2


async def test_nothing_is_remembered_between_people(http: HttpAsking) -> None:
    async with scripted() as (script, url):
        script.answer = FIRST_BYTES + b"Set-Cookie: session=dora; Path=/\r\nContent-Length: 2\r\n\r\n{}"
        await http.ask("POST", url, form={})
        await http.ask("POST", url, form={})
        assert all(b"dora" not in request for request in script.heard)


async def test_no_setting_of_the_environment_leads_elsewhere(http: HttpAsking, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted() as (script, url), scripted() as (elsewhere, proxy):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        await http.ask("POST", url, form={})
        assert (len(script.heard), elsewhere.heard) == (1, [])


async def test_a_redirect_is_an_answer_and_is_not_followed(http: HttpAsking) -> None:
    async with scripted() as (script, url), scripted() as (elsewhere, there):
        for status in (b"301", b"302", b"303", b"307", b"308"):
            location = b" Moved\r\nLocation: " + there.encode()
            script.answer = b"HTTP/1.1 " + status + location + b"\r\nContent-Length: 0\r\n\r\n"
            assert (await http.ask("POST", url, form={"code": "c"})).status == int(status)
        assert elsewhere.heard == []


@pytest.mark.parametrize("how", ["length", "chunked", "until-closed"])
async def test_an_answer_that_is_too_large_is_cut(http: HttpAsking, how: str) -> None:
    async with scripted() as (script, url):
        size = MAX_BODY + 1
        script.answer = (
            FIRST_BYTES
            + {
                "length": b"Content-Length: %d\r\n\r\n" % size + b"x" * size,
                "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%b\r\n" % (b"x" * 4096) * (size // 4096 + 1),
                "until-closed": b"Connection: close\r\n\r\n" + b"x" * size,
            }[how]
        )
        assert await fails(http, url) == "too large"
        script.answer = FIRST_BYTES + b"Content-Length: 2\r\n\r\n{}"
        assert (await http.ask("POST", url, form={})).body == b"{}"  # what was left of it is no part of the next


async def test_nothing_is_unpacked(http: HttpAsking) -> None:
    packed = gzip.compress(b"{}" + b" " * 100_000_000)
    async with scripted() as (script, url):
        script.answer = FIRST_BYTES + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
        assert await fails(http, url) == "compressed"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        FIRST_BYTES + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", FIRST_BYTES + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        FIRST_BYTES + b"".join(b"X%d: y\r\n" % number for number in range(1000)) + b"\r\n",
        FIRST_BYTES + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["ssh", "no-number", "negative", "two-lengths", "endless-header", "many-headers", "no-chunk"],
)  # fmt: skip
async def test_what_is_no_http_is_no_answer(http: HttpAsking, answer: bytes) -> None:
    async with scripted() as (script, url):
        script.answer = answer
        await fails(http, url)


async def test_an_answer_that_breaks_off_is_none(http: HttpAsking) -> None:
    async with scripted() as (script, url):
        script.answer = FIRST_BYTES + b'Content-Length: 100\r\n\r\n{"id_token"'
        question = asyncio.ensure_future(http.ask("POST", url, form={}))
        await script.came.wait()
        script.hang_up()
        with pytest.raises(AskingError):
            await question


async def test_silence_is_cut_by_time(monkeypatch: pytest.MonkeyPatch, http: HttpAsking) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.05)
    async with scripted() as (script, url):
        script.open.clear()
        assert await fails(http, url) == "TimeoutError"
        assert len(script.heard) == 1  # a code is good for one try: nothing is sent twice


async def test_letters_one_by_one_are_cut_by_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(asking, "MAX_BODY", 1 << 40)
    http = HttpAsking()
    async with FakeIssuer() as issuer:
        issuer.drip = True
        issuer.discovery = {"padding": "x" * 200_000_000}
        with pytest.raises(AskingError, match="TimeoutError"):
            await http.ask("GET", issuer.issuer + "/.well-known/openid-configuration")
    await http.close()


async def test_at_most_so_many_ask_at_once_and_who_leaves_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CONCURRENT", 2)
    http = HttpAsking()
    async with scripted() as (script, url):
        script.open.clear()
        questions = [asyncio.ensure_future(http.ask("POST", url, form={"n": str(n)})) for n in range(6)]
        while len(script.heard) < 2:
            script.came.clear()
            await script.came.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(script.heard) == script.connections == 2
        questions[0].cancel()  # while it is asked
        questions[2].cancel()  # while it waits for its turn
        script.open.set()
        done = await asyncio.gather(*questions, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False, True, False, False, False]
        assert sorted(request[-1:] for request in script.heard) == [b"0", b"1", b"3", b"4", b"5"]
    await http.close()


async def test_only_the_server_of_this_name_is_believed(ca: Authority, tmp_path: Path) -> None:
    http = HttpAsking(ca.file)
    try:
        async with FakeIssuer(context(ca.server("127.0.0.1"))) as issuer:
            assert (await http.ask("GET", issuer.issuer + "/keys")).status == 200
        for pair in (
            ca.server("idp.example"), Authority(tmp_path, "stranger").server("127.0.0.1"),
            ca.server("127.0.0.1", life=-timedelta(hours=1)),
        ):  # fmt: skip
            async with FakeIssuer(context(pair)) as liar:
                with pytest.raises(AskingError):
                    await http.ask("GET", liar.issuer + "/keys")
                assert liar.requests == []
    finally:
        await http.close()


async def test_without_an_authority_the_systems_are_trusted_and_a_file_that_is_not_there_is_said(ca: Authority) -> None:
    http = HttpAsking()
    try:
        async with FakeIssuer(context(ca.server("127.0.0.1"))) as issuer:
            with pytest.raises(AskingError):
                await http.ask("GET", issuer.issuer + "/keys")
    finally:
        await http.close()
    with pytest.raises(ConfigError, match="ca"):
        HttpAsking(ca.file.with_name("missing.pem"))
