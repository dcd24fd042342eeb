"""A target that goes away: what it says last reaches the client as it was said, and the transcript tells how it ended."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer, running_server
from harness.wire_client import WireClient
from interlock.approvals.model import Presence, State

pytestmark = pytest.mark.interop


def terminate(server: PostgresServer, process: int) -> None:
    server.run(f"SELECT pg_terminate_backend({process})", user="postgres")


@pytest.fixture
def wire(proxy: Proxy, table: str) -> Iterator[WireClient]:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        yield client


def closes(proxy: Proxy, reason: str) -> int:
    return sum(event["reason"] == reason for event in proxy.of("session.close"))


def until_closed(proxy: Proxy) -> None:
    """Wait until no session is left, transcripts included."""
    while proxy.listener.sessions or proxy.gate.live:
        proxy.run(asyncio.sleep(0.01))


@pytest.mark.parametrize("state", ["idle", "in a transaction", "suspended portal"])
def test_an_administrators_kill_is_passed_on(proxy: Proxy, wire: WireClient, server: PostgresServer, state: str) -> None:
    if state != "idle":
        wire.send(WireClient.query("BEGIN"))
        wire.until_ready()
    if state == "suspended portal":
        wire.send(
            WireClient.parse("", "SELECT id FROM t") + WireClient.bind("p", "") + WireClient.execute("p", 2) + WireClient.FLUSH
        )
        while wire.read()[0] != "s":
            pass
    terminate(server, wire.process)
    fields = wire.fatal()
    assert (fields["S"], fields["C"], fields["R"]) == ("FATAL", "57P01", "ProcessInterrupts")
    until_closed(proxy)
    assert closes(proxy, "target-left")


def test_what_ran_when_the_target_went_is_recorded_as_unknown(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    wire.send(WireClient.extended("SELECT pg_sleep(60), 'gone'") + WireClient.SYNC)
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {wire.process} AND wait_event = 'PgSleep'"
    while server.run(waiting, user="postgres") != "1":
        pass
    terminate(server, wire.process)
    assert wire.fatal()["C"] == "57P01"
    until_closed(proxy)
    [session] = {e["session"] for e in proxy.of("pg.bind") if "'gone'" in e["disclosed"]["text"]}
    assert [e.get("sqlstate") for e in proxy.of("pg.result") if e["session"] == session] == ["unknown"]


def test_a_target_that_dies_while_a_command_is_held_hands_it_back(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    wire.send(WireClient.query("DELETE FROM t WHERE id = 8"))
    request = proxy.pending()
    terminate(server, wire.process)
    assert wire.fatal()["C"] == "57P01"
    returned = proxy.wait_for(lambda r: r.id == request.id and r.presence is Presence.RETURNED)
    assert returned.state is State.PENDING
    assert server.run("SELECT count(*) FROM t") == "10"


def test_after_a_restart_new_sessions_come_and_old_ones_are_told(folder: Path) -> None:
    with running_server() as own, running_proxy(configuration(own, folder), folder, VerbPolicy()) as proxy:
        connection: psycopg.Connection[Any] = psycopg.connect(proxy.dsn(), autocommit=True)
        with connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
            restart(own)
            with pytest.raises((errors.AdminShutdown, psycopg.OperationalError)):
                connection.execute("SELECT 1")
        with psycopg.connect(proxy.dsn()) as again:
            assert again.execute("SELECT 2").fetchone() == (2,)
        until_closed(proxy)
        assert sorted(event["reason"] for event in proxy.of("session.close")) == ["client-terminated", "target-left"]


def restart(server: PostgresServer) -> None:
    from harness.postgres_server import _unprivileged

    subprocess.run(
        [*_unprivileged(server.folder), str(server.binaries / "pg_ctl"), "-D", str(server.folder / "data"), "-m", "fast", "-w",
         "-l", str(server.folder / "log"), "restart"],
        check=True, capture_output=True, timeout=60, cwd=server.folder,
    )  # fmt: skip
