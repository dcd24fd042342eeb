"""The first bytes of a connection: TLS asked for, TLS at once, what may stand before it, and how many may begin together."""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import OperationalError

from harness.authority import Authority, Pair
from harness.clock import ManualClock
from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, startup
from interlock.clock import system_entropy
from interlock.postgres.arrivals import Arrivals, origin
from interlock.postgres.cancel import _MAX_SOURCES, BURST, CancelKeys

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(server: PostgresServer, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    pair: Pair = authority.server("localhost", "127.0.0.1")
    config = configuration(server, folder, tls={"certificate": str(pair.certificate), "key": str(pair.key)})
    with running_proxy(config, folder, VerbPolicy()) as running:
        yield running


def context(authority: Authority, *protocols: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(authority.file))
    if protocols:
        made.set_alpn_protocols(list(protocols))
    return made


def opens(client: WireClient, proxy: Proxy) -> bool:
    client.send(startup({"user": "claude", "database": "orders"}))
    client.authenticate(proxy.password)
    return client.until_ready() == ["ZI"]


# -- direct TLS --------------------------------------------------------------------------------------------------------


def test_libpq_18_speaks_tls_from_the_first_byte(tls: Proxy, authority: Authority) -> None:
    dsn = tls.dsn(sslmode="verify-full", sslrootcert=str(authority.file), sslnegotiation="direct", channel_binding="require")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.cancel_safe(timeout=30)  # its cancel request comes by direct TLS too


@pytest.mark.parametrize("protocols", [(), ("h2", "http/1.1"), ("postgres",)], ids=["none", "a browser's", "a near name"])
def test_direct_tls_without_our_name_is_not_answered(tls: Proxy, authority: Authority, protocols: tuple[str, ...]) -> None:
    with WireClient(tls.port) as client:
        client.to_tls(context(authority, *protocols), direct=True)
        try:
            client.send(startup({"user": "claude", "database": "orders"}))
            assert client.socket.recv(1) == b""
        except ConnectionError:
            pass  # it was closed even sooner


def test_direct_tls_whose_hello_comes_byte_by_byte(tls: Proxy, authority: Authority) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context(authority, "h2", "postgresql").wrap_bio(incoming, outgoing, server_hostname="localhost")
    with WireClient(tls.port) as client:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    client.send(bytes([byte]))
                incoming.write(client.socket.recv(65536))
        assert session.selected_alpn_protocol() == "postgresql"


def test_no_second_tls_inside_tls(tls: Proxy, authority: Authority) -> None:
    for request in (WireClient.SSL_REQUEST, WireClient.GSS_REQUEST):
        with WireClient(tls.port) as client:
            client.to_tls(context(authority, "postgresql"), direct=True)
            client.send(request)
            assert client.fatal()["C"] == "08P01"


def test_direct_tls_where_there_is_none(proxy: Proxy, authority: Authority) -> None:
    with WireClient(proxy.port) as client, pytest.raises((ssl.SSLError, ConnectionError)):
        client.to_tls(context(authority, "postgresql"), direct=True)


# -- TLS that is asked for ---------------------------------------------------------------------------------------------


def test_gss_then_tls_then_start_up(tls: Proxy, authority: Authority) -> None:
    with WireClient(tls.port) as client:
        client.send(WireClient.GSS_REQUEST)
        assert client.exactly(1) == b"N"
        client.to_tls(context(authority))  # without ALPN, as clients older than 17 do
        assert opens(client, tls)


@pytest.mark.parametrize("smuggled", [startup({"user": "claude", "database": "orders"}), b"\0", WireClient.GSS_REQUEST])
def test_bytes_that_came_before_tls_end_the_connection(tls: Proxy, smuggled: bytes) -> None:
    """CVE-2021-23214: what came in clear must not be read as if it had come inside TLS."""
    with WireClient(tls.port) as client:
        client.send(WireClient.SSL_REQUEST + smuggled)
        answer = b""
        try:
            while more := client.socket.recv(4096):
                answer += more
        except ConnectionError:
            pass
        assert not answer.startswith(b"S")


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told", "key"), [(0, None, 4), (2, None, 32), (1, 0, 4), (3, 2, 32), (9999, 2, 32)],
    ids=["3.0", "3.2", "3.1", "3.3", "3.9999"],
)  # fmt: skip
def test_the_version_that_is_spoken(proxy: Proxy, asked: int, told: int | None, key: int) -> None:
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "orders"}, version=0x00030000 + asked))
        if told is not None:
            assert client.read() == ("v", struct.pack("!HHI", 3, told, 0))
        client.authenticate(proxy.password)
        assert client.until_ready() == ["ZI"]
        assert len(client.secret) == key


def test_libpq_18_cancels_with_a_long_key(proxy: Proxy, server: PostgresServer) -> None:
    with psycopg.connect(proxy.dsn(min_protocol_version="3.2", max_protocol_version="3.2")) as connection:
        assert connection.pgconn.full_protocol_version == 30002
        canceller = threading.Thread(target=_cancel_when_it_runs, args=(connection, server))
        canceller.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")
        canceller.join(30)


def _cancel_when_it_runs(connection: psycopg.Connection[Any], server: PostgresServer) -> None:
    running = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {connection.info.backend_pid} AND wait_event = 'PgSleep'"
    while server.run(running, user="postgres") != "1":
        pass
    connection.cancel_safe(timeout=30)


# -- how many at once --------------------------------------------------------------------------------------------------


def test_one_source_that_says_nothing_keeps_no_other_out(server: PostgresServer, tmp_path: Path) -> None:
    config = configuration(server, tmp_path)
    with running_proxy(config, tmp_path, VerbPolicy(), arrivals=Arrivals(from_one=5), startup_deadline=60) as proxy:
        silent = [WireClient(proxy.port, source="127.0.0.2") for _ in range(5)]
        with WireClient(proxy.port, source="127.0.0.2") as sixth:
            assert sixth.fatal()["C"] == "53300"
        with psycopg.connect(proxy.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        for client in silent:
            client.socket.close()


def test_a_hello_that_never_ends_leaves_at_the_deadline(server: PostgresServer, authority: Authority, tmp_path: Path) -> None:
    pair = authority.server("localhost", "127.0.0.1")
    config = configuration(server, tmp_path, tls={"certificate": str(pair.certificate), "key": str(pair.key)})
    with running_proxy(config, tmp_path, VerbPolicy(), startup_deadline=0.5) as proxy:
        openings = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", WireClient.SSL_REQUEST]
        clients = [WireClient(proxy.port) for _ in openings]
        for client, data in zip(clients, openings, strict=True):
            client.send(data)
        for client in clients:
            with client:
                _read_to_the_end(client)


def _read_to_the_end(client: WireClient) -> None:
    """Return when the proxy has closed, whatever it said before."""
    try:
        while client.socket.recv(4096):
            pass
    except ConnectionError:
        pass


def test_what_counts_as_one_source() -> None:
    assert origin("10.0.0.1") != origin("10.0.0.2")
    assert origin("2001:db8:1:2::1") == origin("2001:db8:1:2:ffff::9") != origin("2001:db8:1:3::1")
    assert origin("::ffff:10.0.0.1") == origin("10.0.0.1")
    assert origin("fe80::1%eth0") == origin("fe80::2%eth1")
    assert origin("") == ""


def test_places_are_given_back() -> None:
    arrivals = Arrivals(together=4, starting=3, from_one=2)
    assert [arrivals.admit("a", sessions=0) for _ in range(3)] == [True, True, False]
    assert arrivals.admit("b", sessions=0) and not arrivals.admit("c", sessions=0)
    arrivals.leave("a")
    assert not arrivals.admit("c", sessions=2)
    assert arrivals.admit("c", sessions=1)


async def test_many_sources_do_not_make_anybodys_guesses_forgotten() -> None:
    keys = CancelKeys(clock=ManualClock(), entropy=system_entropy)
    called = asyncio.Event()

    async def cancel() -> None:
        called.set()

    secret = keys.issue(7, cancel, minor=2)
    assert len(secret) == 32
    for _ in range(BURST):
        assert not await keys.cancel(7, bytes(32), "10.0.0.1")
        for other in range(_MAX_SOURCES // BURST - 1):  # as many as the table holds, but not more
            await keys.cancel(7, bytes(32), f"10.1.{other >> 8}.{other & 255}")
    assert not await keys.cancel(7, secret, "10.0.0.1")
    assert not await keys.cancel(7, secret[:4], "10.0.0.3")
    assert await keys.cancel(7, secret, "10.0.0.2") and called.is_set()


def test_a_client_that_trusts_another_authority_leaves(tls: Proxy, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with pytest.raises(OperationalError, match="certificate verify failed"):
        psycopg.connect(tls.dsn(sslmode="verify-full", sslrootcert=str(other.file)))
