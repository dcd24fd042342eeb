"""Many rows in one pipeline: drivers send megabytes without a Sync, so nothing may wait for one."""

from __future__ import annotations

import asyncpg
import pytest

from harness.gate import Proxy
from harness.postgres_server import PostgresServer

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
