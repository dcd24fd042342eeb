"""Much at once: drivers send megabytes without a Sync, so nothing may wait for one, and values of as many."""

from __future__ import annotations

import struct

import asyncpg
import pytest

from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient

pytestmark = pytest.mark.interop


async def connect(proxy: Proxy) -> asyncpg.Connection:
    return await asyncpg.connect(host="127.0.0.1", port=proxy.port, user="claude", database="orders", password=proxy.password)


async def test_executemany_of_many_rows(proxy: Proxy, server: PostgresServer, table: str) -> None:
    connection = await connect(proxy)
    try:
        await connection.executemany("INSERT INTO bulk VALUES ($1, $2)", [(i, f"row {i}") for i in range(10_000)])
    finally:
        await connection.close()
    assert server.run("SELECT count(*), sum(id) FROM bulk") == f"10000|{sum(range(10_000))}"


def test_a_value_of_many_megabytes_passes_whole_and_is_shown_cut(proxy: Proxy, table: str) -> None:
    value = b"\\x" + b"ab" * 10_000_000
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        client.send(
            WireClient.parse("", "SELECT length($1::bytea)") + WireClient.bind("", "", [value]) + WireClient.execute("")
            + WireClient.SYNC
        )  # fmt: skip
        assert [client.read()[0] for _ in range(2)] == ["1", "2"]
        assert client.read() == ("D", struct.pack("!HI", 1, 8) + b"10000000")
        assert client.until_ready() == ["C", "ZI"]
