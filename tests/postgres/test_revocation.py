"""Somebody's access is taken back while a session of theirs is open: it ends, whatever it did, and nothing of it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message
from interlock.approvals.model import Presence

pytestmark = pytest.mark.interop


@pytest.fixture
def wire(proxy: Proxy, table: str) -> Iterator[WireClient]:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        yield client


def revoke(proxy: Proxy) -> None:
    async def now() -> None:
        proxy.gate.revoke(frozenset({proxy.desk.entry("claude").identity}), frozenset())

    proxy.run(now())


def idle(_wire: WireClient, _server: PostgresServer) -> None: ...


def in_a_transaction(wire: WireClient, _server: PostgresServer) -> None:
    wire.send(WireClient.query("BEGIN") + WireClient.query("INSERT INTO t VALUES (200, 'open')"))
    assert [wire.until_ready() for _ in range(2)] == [["C", "ZT"], ["C", "ZT"]]


def listening(wire: WireClient, _server: PostgresServer) -> None:
    wire.send(WireClient.query("LISTEN news"))
    assert wire.until_ready() == ["C", "ZI"]


def with_a_suspended_portal(wire: WireClient, _server: PostgresServer) -> None:
    wire.send(WireClient.query("BEGIN") + WireClient.parse("", "SELECT id FROM t") + WireClient.bind("p", ""))
    wire.send(WireClient.execute("p", 2) + WireClient.FLUSH)
    while wire.read()[0] != "s":
        pass


def running(wire: WireClient, server: PostgresServer) -> None:
    wire.send(WireClient.query("SELECT pg_sleep(600)"))
    asleep = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {wire.process} AND wait_event = 'PgSleep'"
    while server.run(asleep, user="postgres") != "1":
        pass


def copying_in(wire: WireClient, _server: PostgresServer) -> None:
    wire.send(WireClient.query("COPY bulk FROM STDIN"))
    assert wire.read()[0] == "G"
    wire.send(message(b"d", b"1\tbefore\n"))


def reading_a_large_result(wire: WireClient, _server: PostgresServer) -> None:
    wire.send(WireClient.query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
    while wire.read()[0] != "D":
        pass


@pytest.mark.parametrize(
    "doing", [idle, in_a_transaction, listening, with_a_suspended_portal, running, copying_in, reading_a_large_result]
)
def test_a_session_whose_access_was_taken_back_ends(
    proxy: Proxy, wire: WireClient, server: PostgresServer, doing: Callable[[WireClient, PostgresServer], None]
) -> None:
    doing(wire, server)
    revoke(proxy)
    fields = wire.fatal()
    # Where it stopped inside a row, no message of ours fits in: the connection just ends.
    assert doing is reading_a_large_result or (fields["S"], fields["C"]) == ("FATAL", "28000")
    while server.run(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {wire.process}", user="postgres") != "0":
        pass
    assert server.run("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk)") == "10|0"


def test_what_is_held_is_not_released_any_more(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    wire.send(WireClient.query("DELETE FROM t"))
    request = proxy.pending()
    revoke(proxy)
    assert wire.fatal()["C"] == "28000"
    returned = proxy.wait_for(lambda r: r.id == request.id and r.presence is Presence.RETURNED)
    proxy.approve(returned)
    assert server.run("SELECT count(*) FROM t") == "10"


def test_what_follows_in_the_same_packet_goes_nowhere(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    copying_in(wire, server)
    revoke(proxy)
    try:
        for number in range(1000):
            wire.send(message(b"d", b"%d\tafter\n" % number))
        wire.send(message(b"c") + WireClient.query("INSERT INTO t VALUES (300, 'after')"))
    except OSError:
        pass  # it is closed already
    assert wire.fatal().get("C", "28000") == "28000"
    while server.run(f"SELECT count(*) FROM pg_stat_activity WHERE pid = {wire.process}", user="postgres") != "0":
        pass
    assert server.run("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk)") == "10|0"
