"""A target that goes away: what it says last reaches the client as it was said, and the transcript tells how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer, running_server
from harness.wire_client import WireClient, startup
from interlock.approvals.model import Presence, State
from interlock.postgres import upstream

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


def test_a_server_that_crashes_ends_every_session_and_the_next_ones_come(folder: Path) -> None:
    """kill -9 of one backend: the server throws all sessions out and recovers. Each was doing something else."""
    with running_server() as own, running_proxy(configuration(own, folder), folder, VerbPolicy()) as proxy:
        own.run("CREATE TABLE t (id int)")
        killed, inside, copying, running = (
            WireClient.connect(proxy.port, "claude", "orders", proxy.password) for _ in range(4)
        )  # fmt: skip
        inside.send(WireClient.query("BEGIN") + WireClient.query("INSERT INTO t VALUES (1)"))
        assert [inside.until_ready() for _ in range(2)] == [["C", "ZT"], ["C", "ZT"]]
        copying.send(WireClient.query("COPY t FROM STDIN"))
        assert copying.read()[0] == "G"
        running.send(WireClient.extended("SELECT pg_sleep(600), 'crashed'") + WireClient.SYNC)
        until(own, f"SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {running.process}")
        os.kill(killed.process, signal.SIGKILL)
        for client in (killed, inside, copying, running):
            with client:
                client.fatal()  # returns when the connection has ended
        until_closed(proxy)
        assert [event["reason"] for event in proxy.of("session.close")] == ["target-left"] * 4
        [session] = {e["session"] for e in proxy.of("pg.bind") if "'crashed'" in e["disclosed"]["text"]}
        assert [e.get("sqlstate") for e in proxy.of("pg.result") if e["session"] == session] == ["unknown"]
        with again(proxy) as client:
            client.send(WireClient.query("SELECT id FROM t"))
            assert client.until_ready() == ["T", "C", "ZI"]


def test_a_postmaster_that_is_killed_is_gone_until_it_is_back(folder: Path) -> None:
    """kill -9, inside a transaction and while a command is held: each client is told, and so is who comes then."""
    policy = VerbPolicy(review=frozenset({"delete"}))
    with running_server() as own, running_proxy(configuration(own, folder), folder, policy) as proxy:
        own.run("CREATE TABLE t (id int)")
        inside, asking = (WireClient.connect(proxy.port, "claude", "orders", proxy.password) for _ in range(2))
        inside.send(WireClient.query("BEGIN") + WireClient.query("INSERT INTO t VALUES (1)"))
        assert [inside.until_ready() for _ in range(2)] == [["C", "ZT"], ["C", "ZT"]]
        asking.send(WireClient.query("DELETE FROM t"))
        request = proxy.pending()
        os.kill(int((own.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        for client in (inside, asking):
            with client:
                assert client.fatal().get("C", "57P01") == "57P01"
        assert proxy.wait_for(lambda r: r.id == request.id and r.presence is Presence.RETURNED).state is State.PENDING
        with WireClient(proxy.port) as refused:
            refused.send(startup({"user": "claude", "database": "orders"}))
            refused.authenticate(proxy.password)
            fields = refused.fatal()
        assert (fields["S"], fields["C"]) == ("FATAL", "08001")
        assert "target-unreachable" in fields["D"]
        start(own)
        with again(proxy) as client:
            client.send(WireClient.query("SELECT id FROM t"))
            assert client.until_ready() == ["T", "C", "ZI"]


def test_a_target_that_takes_a_connection_and_says_nothing(
    server: PostgresServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = configuration(server, folder)
        target = config.targets[0].model_copy(update={"address": f"127.0.0.1:{silent.getsockname()[1]}"})
        with running_proxy(config.model_copy(update={"targets": [target]}), folder, VerbPolicy()) as proxy:
            with WireClient(proxy.port) as client:
                client.send(startup({"user": "claude", "database": "orders"}))
                client.authenticate(proxy.password)
                fields = client.fatal()
            assert (fields["C"], "does not answer in time" in fields["M"]) == ("08001", True)
            until_closed(proxy)
            assert [e["reason"] for e in proxy.of("session.close")] == ["target-unreachable"]


def test_a_server_without_room_is_quoted(proxy: Proxy, server: PostgresServer) -> None:
    server.run("ALTER ROLE app CONNECTION LIMIT 0", user="postgres")
    try:
        with WireClient(proxy.port) as client:
            client.send(startup({"user": "claude", "database": "orders"}))
            client.authenticate(proxy.password)
            fields = client.fatal()
    finally:
        server.run("ALTER ROLE app CONNECTION LIMIT -1", user="postgres")
    assert (fields["S"], fields["C"]) == ("FATAL", "53300")
    assert "too many connections for role" in fields["M"]


def test_a_backend_that_stands_still_holds_up_nobody_else(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    os.kill(wire.process, signal.SIGSTOP)
    try:
        wire.send(WireClient.query("SELECT 1") * 3)
        with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as other:
            other.send(WireClient.query("SELECT 2"))
            assert other.until_ready() == ["T", "D", "C", "ZI"]
    finally:
        os.kill(wire.process, signal.SIGCONT)
    assert [wire.until_ready() for _ in range(3)] == [["T", "D", "C", "ZI"]] * 3


def until(server: PostgresServer, question: str) -> None:
    while server.run(question, user="postgres") != "t":
        pass


def again(proxy: Proxy) -> WireClient:
    """Connect once the server has recovered: until then it says that it is starting up, or nothing."""
    for _ in range(600):
        client = WireClient(proxy.port)
        client.send(startup({"user": "claude", "database": "orders"}))
        client.authenticate(proxy.password)
        try:
            client.until_ready()
        except EOFError:
            assert client.errors[-1]["C"] in ("57P03", "57P02", "08001"), client.errors
            client.socket.close()
            continue
        return client
    raise AssertionError("the server did not recover")


def start(server: PostgresServer) -> None:
    """Start a server whose postmaster was killed: not before that is buried and the last of its children has left."""
    for _ in range(100):
        try:
            return control(server, "start")
        except subprocess.CalledProcessError:
            assert "pre-existing shared memory block" in server.log or 'lock file "postmaster.pid" already exists' in server.log
    raise AssertionError("the killed postmaster, or a child of it, stays")


def restart(server: PostgresServer) -> None:
    control(server, "-m", "fast", "restart")


def control(server: PostgresServer, *words: str) -> None:
    from harness.postgres_server import _unprivileged

    subprocess.run(
        [*_unprivileged(server.folder), str(server.binaries / "pg_ctl"), "-D", str(server.folder / "data"), "-w",
         "-l", str(server.folder / "log"), *words],
        check=True, capture_output=True, timeout=60, cwd=server.folder,
    )  # fmt: skip
