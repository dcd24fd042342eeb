"""Stock clients through the proxy to a real server: what is allowed, held, denied, streamed and cancelled."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import errors

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient
from interlock.approvals.model import State
from interlock.errors import Reason

pytestmark = pytest.mark.interop


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def connection(proxy: Proxy, table: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(proxy.dsn(), autocommit=True) as opened:
        yield opened


def psql(proxy: Proxy, *commands: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    words = [word for command in commands for word in ("-c", command)]
    return subprocess.run(
        ["psql", "-XAtq", "-d", proxy.dsn(**more), *words], capture_output=True, text=True, timeout=30, check=False, input=stdin
    )


def rows(server: PostgresServer) -> int:
    return int(server.run("SELECT count(*) FROM t"))


async def connect(proxy: Proxy, **more: Any) -> asyncpg.Connection:
    return await asyncpg.connect(
        host="127.0.0.1", port=proxy.port, user="claude", database="orders", password=proxy.password, **more
    )


# -- allowed -----------------------------------------------------------------------------------------------------------


def test_psql_reads_and_writes_untouched(proxy: Proxy, server: PostgresServer, table: str) -> None:
    done = psql(proxy, "INSERT INTO t VALUES (11, 'é')", "SELECT count(*) FROM t", "SELECT v FROM t WHERE id = 11", "\\d t")
    assert done.stderr == ""
    assert done.stdout.splitlines()[:2] == ["11", "é"]
    assert "INSERT INTO t VALUES (11, 'é')" in server.log


def test_the_server_sees_who_asked_and_the_pinned_settings(connection: psycopg.Connection[Any]) -> None:
    name, path, user = connection.execute(
        "SELECT current_setting('application_name'), current_setting('search_path'), current_user"
    ).fetchone() or ("", "", "")
    assert name.startswith("interlock:claude")
    assert path.replace('"', "") == "public, pg_temp"
    assert user == "app"


@pytest.mark.parametrize("undo", ["RESET ALL", "DISCARD ALL"])
def test_reset_goes_back_to_our_settings(connection: psycopg.Connection[Any], undo: str) -> None:
    connection.execute("SET statement_timeout = '7s'")
    connection.execute(undo)
    shown = connection.execute("SELECT current_setting('search_path'), current_setting('standard_conforming_strings')").fetchone()
    assert shown == ('"public", "pg_temp"', "on")
    assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


async def test_asyncpg_prepares_introspects_and_reads(proxy: Proxy, table: str) -> None:
    connection = await connect(proxy)
    try:
        assert await connection.fetchval("SELECT count(*) FROM t WHERE id > $1", 3) == 7
        statement = await connection.prepare("SELECT id, v FROM t WHERE id = ANY($1::int[]) ORDER BY id")
        assert [r["id"] for r in await statement.fetch([1, 2])] == [1, 2]
        async with connection.transaction():
            found = [r["id"] async for r in connection.cursor("SELECT id FROM t ORDER BY id", prefetch=3)]
        assert found == list(range(1, 11))
    finally:
        await connection.close()


async def test_a_large_result_arrives_whole_and_slow_readers_hold_the_server_back(proxy: Proxy, table: str) -> None:
    connection = await connect(proxy)
    try:
        async with connection.transaction():
            seen = 0
            async for row in connection.cursor("SELECT i, repeat('x', 100) FROM generate_series(1, 200000) i", prefetch=20_000):
                seen += 1
                assert row[0] == seen
        assert seen == 200_000
        assert len(await connection.fetch("SELECT i FROM generate_series(1, 200000) i")) == 200_000
    finally:
        await connection.close()


async def test_a_thousand_statements_each_recorded_once(proxy: Proxy, server: PostgresServer, table: str) -> None:
    connection = await connect(proxy)
    try:
        for i in range(1000):
            assert await connection.fetchval(f"SELECT {i} AS counted") == i
    finally:
        await connection.close()
    texts = [e["disclosed"]["text"] for e in proxy.of("pg.bind") if "AS counted" in e["disclosed"]["text"]]
    assert sorted(texts) == sorted(f"SELECT {i} AS counted" for i in range(1000))


def test_copy_both_ways_is_streamed_and_counted(proxy: Proxy, connection: psycopg.Connection[Any], table: str) -> None:
    lines = b"".join(b"%d\tcopied\n" % i for i in range(100_000))
    with connection.cursor().copy("COPY bulk FROM STDIN") as copy:
        for at in range(0, len(lines), 50_000):
            copy.write(lines[at : at + 50_000])
    with connection.cursor().copy("COPY bulk TO STDOUT") as copy:
        assert b"".join(bytes(part) for part in copy) == lines
    connection.close()
    counted = [(e["direction"], e["bytes"]) for e in proxy.of("pg.copy")]
    assert counted[-2:] == [("in", len(lines)), ("out", len(lines))]


def test_psql_copies_from_its_input(proxy: Proxy, server: PostgresServer, table: str) -> None:
    done = psql(proxy, stdin="COPY bulk FROM STDIN;\n1\tone\n2\ttwo\n\\.\nSELECT count(*) FROM bulk;\n")
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_failed_copy_leaves_the_connection_usable(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.InvalidTextRepresentation), connection.cursor().copy("COPY bulk FROM STDIN") as copy:
        copy.write(b"not a number\tx\n")
    with pytest.raises(errors.QueryCanceled), connection.cursor().copy("COPY bulk FROM STDIN"):
        raise errors.QueryCanceled
    assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_notifications_pass(proxy: Proxy, table: str) -> None:
    connection = await connect(proxy)
    got: asyncio.Queue[str] = asyncio.Queue()
    try:
        await connection.add_listener("news", lambda *seen: got.put_nowait(seen[3]))
        await connection.execute("NOTIFY news, 'hello'")
        assert await asyncio.wait_for(got.get(), 5) == "hello"
    finally:
        await connection.close()


def test_notifications_arrive_while_a_command_is_held(proxy: Proxy, server: PostgresServer, table: str) -> None:
    """To the server the session is idle, so it tells what happens elsewhere at once; in a transaction it waits for its end."""
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        client.send(WireClient.query("LISTEN news"))
        assert client.until_ready() == ["C", "ZI"]
        client.send(WireClient.query("DELETE FROM t WHERE id = 8"))
        request = proxy.pending()
        assert client.read()[0] == "N"
        server.run("NOTIFY news, 'meanwhile'")
        kind, body = client.read()
        assert (kind, body[4:]) == ("A", b"news\0meanwhile\0")
        assert rows(server) == 10
        proxy.approve(request)
        assert client.until_ready() == ["C", "ZI"]
        client.send(WireClient.query("BEGIN"))
        assert client.until_ready() == ["C", "ZT"]
        client.send(WireClient.query("DELETE FROM t WHERE id = 9"))
        request = proxy.pending()
        assert client.read()[0] == "N"
        server.run("NOTIFY news, 'later'")
        proxy.deny(request)
        assert client.until_ready() == ["E42501", "ZE"]
        client.send(WireClient.query("ROLLBACK"))
        seen = [client.read() for _ in range(3)]
        assert [kind for kind, _ in seen] == ["C", "A", "Z"]
        assert seen[1][1][4:] == b"news\0later\0"


def test_cancelling_a_running_query(proxy: Proxy, connection: psycopg.Connection[Any], server: PostgresServer) -> None:
    pid = connection.info.backend_pid
    running = threading.Thread(
        target=lambda: server.run(
            f"DO $$ BEGIN WHILE NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'"
            " AND query LIKE '%pg_sleep%') LOOP PERFORM pg_sleep(0.01); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$",
            user="postgres",
        )
    )
    running.start()

    def cancel() -> None:
        running.join()
        connection.cancel_safe()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(30)")
    canceller.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)


# -- denied ------------------------------------------------------------------------------------------------------------


def test_a_denied_statement_is_an_ordinary_error(connection: psycopg.Connection[Any], server: PostgresServer) -> None:
    with pytest.raises(errors.InsufficientPrivilege) as caught:
        connection.execute("DROP TABLE t")
    diag = caught.value.diag
    assert diag.severity == "ERROR"
    assert diag.message_primary == "interlock: this is never done here"
    assert diag.message_hint == "Ask Bob."
    detail = json.loads(diag.message_detail or "")
    assert (detail["v"], detail["reason_code"], detail["rule"]) == (1, str(Reason.DENIED_BY_POLICY), "test/denied")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)
    assert "DROP TABLE t" not in server.log


def test_a_syntax_error_is_one(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(errors.SyntaxError):
        connection.execute("SELEKT 1")
    with pytest.raises(errors.SyntaxError):
        connection.execute("SELECT 1; SELECT 2", (), prepare=True, binary=True)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_string_of_statements_is_one_unit(connection: psycopg.Connection[Any], server: PostgresServer) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute("INSERT INTO t VALUES (99, 'first'); DROP TABLE t")
    assert server.run("SELECT count(*) FROM t WHERE id = 99") == "0"


def test_an_unknown_statement_and_portal_fail_as_at_the_server(connection: psycopg.Connection[Any]) -> None:
    result = connection.pgconn.exec_prepared(b"nobody", [])
    assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000"
    assert connection.execute("SELECT 1").fetchone() == (1,)


# -- held --------------------------------------------------------------------------------------------------------------


def test_held_delete_inside_begin_denied_then_rolled_back(
    proxy: Proxy, connection: psycopg.Connection[Any], server: PostgresServer, pool: ThreadPoolExecutor
) -> None:
    notices: list[str] = []
    connection.add_notice_handler(lambda diag: notices.append(f"{diag.sqlstate} {diag.message_primary}"))
    connection.execute("BEGIN")
    held = pool.submit(connection.execute, "DELETE FROM t")
    request = proxy.pending()
    assert rows(server) == 10
    proxy.deny(request, "wrong table")
    with pytest.raises(errors.InsufficientPrivilege, match="denied by bob: wrong table"):
        held.result(10)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    with pytest.raises(errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)
    assert len(notices) == 1
    assert notices[0].startswith(f"01000 interlock: held for approval {request.id} (rule test/reviewed); reviewers: sre;")
    assert "keeps its locks" in notices[0]
    sent = server.log.split("BEGIN\n")[-1]  # the client's own, not the one around the planner's estimate
    assert "DELETE FROM t" not in sent.replace("EXPLAIN (FORMAT JSON) DELETE FROM t", "")


@pytest.mark.parametrize("parameters", [None, (3,)], ids=["simple", "extended"])
def test_rows_change_only_after_the_approval(
    proxy: Proxy, connection: psycopg.Connection[Any], server: PostgresServer, pool: ThreadPoolExecutor, parameters: Any
) -> None:
    text = "DELETE FROM t WHERE id > %s" if parameters else "DELETE FROM t WHERE id > 3"
    held: Future[Any] = pool.submit(connection.execute, text, parameters)
    request = proxy.pending()
    assert rows(server) == 10
    if parameters:
        assert [value.shown for value in request.draft.command.binds] == ["3"]
    proxy.approve(request)
    assert held.result(10).rowcount == 7
    assert rows(server) == 3
    assert proxy.wait_for(lambda r: r.id == request.id).state is State.CONSUMED


def test_a_prepared_delete_is_asked_for_each_time_with_its_values(
    proxy: Proxy, connection: psycopg.Connection[Any], server: PostgresServer, pool: ThreadPoolExecutor
) -> None:
    for number in (1, 2):
        held = pool.submit(connection.execute, "DELETE FROM t WHERE id = %s", (number,), prepare=True)
        request = proxy.pending()
        assert [value.shown for value in request.draft.command.binds] == [str(number)]
        proxy.approve(request)
        assert held.result(10).rowcount == 1
    assert rows(server) == 8


def test_sql_prepare_does_not_hide_what_execute_runs(
    proxy: Proxy, connection: psycopg.Connection[Any], server: PostgresServer, pool: ThreadPoolExecutor
) -> None:
    preparing = pool.submit(connection.execute, "PREPARE quiet AS DELETE FROM t")
    proxy.approve()
    preparing.result(10)
    assert rows(server) == 10
    held = pool.submit(connection.execute, "EXECUTE quiet")
    proxy.deny()
    with pytest.raises(errors.InsufficientPrivilege):
        held.result(10)
    by_protocol = pool.submit(connection.pgconn.exec_prepared, b"quiet", [])
    request = proxy.pending()
    assert request.draft.command.text == b"PREPARE quiet AS DELETE FROM t"
    proxy.deny(request)
    assert by_protocol.result(10).error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"42501"
    assert rows(server) == 10


def test_a_failed_transaction_asks_nobody(proxy: Proxy, connection: psycopg.Connection[Any]) -> None:
    before = len(proxy.requests())
    connection.execute("BEGIN")
    with pytest.raises(errors.DivisionByZero):
        connection.execute("SELECT 1/0")
    with pytest.raises(errors.InFailedSqlTransaction):
        connection.execute("DELETE FROM t")
    connection.execute("ROLLBACK")
    assert len(proxy.requests()) == before


def test_cancelling_while_held_hands_the_request_back(
    proxy: Proxy, connection: psycopg.Connection[Any], server: PostgresServer, pool: ThreadPoolExecutor
) -> None:
    told = threading.Event()
    connection.add_notice_handler(lambda _diag: told.set())
    held = pool.submit(connection.execute, "DELETE FROM t WHERE id = 4")
    request = proxy.pending()
    assert told.wait(10)
    connection.cancel_safe()
    with pytest.raises(errors.QueryCanceled, match=request.id):
        held.result(10)
    returned = proxy.wait_for(lambda r: r.id == request.id and r.presence == "returned")
    assert returned.state is State.PENDING
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)
    proxy.approve(returned)
    assert connection.execute("DELETE FROM t WHERE id = 4").rowcount == 1
    assert rows(server) == 9


def test_a_client_that_dies_while_held_leaves_nothing_behind(proxy: Proxy, server: PostgresServer, table: str) -> None:
    client = subprocess.Popen(
        ["psql", "-XAtq", "-d", proxy.dsn(), "-c", "DELETE FROM t WHERE id = 5"], stderr=subprocess.PIPE, text=True
    )
    assert client.stderr is not None
    request = proxy.pending()
    assert request.id in client.stderr.readline()
    client.kill()
    client.wait()
    client.stderr.close()
    returned = proxy.wait_for(lambda r: r.id == request.id and r.presence == "returned")
    assert returned.state is State.PENDING
    assert rows(server) == 10


def test_a_client_that_sent_much_and_dies_while_held_is_seen_to_leave(proxy: Proxy, server: PostgresServer, table: str) -> None:
    """Its bytes are beyond the bound, so it is not read; that it hung up must be noticed all the same."""
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**21)
        client.send(WireClient.query("DELETE FROM t WHERE id = 6") + WireClient.query("SELECT '" + "x" * 400_000 + "'"))
        request = proxy.pending()
        assert client.read()[0] == "N"
    returned = proxy.wait_for(lambda r: r.id == request.id and r.presence == "returned")
    assert returned.state is State.PENDING
    assert rows(server) == 10


def test_shutting_down_hands_back_what_is_held(server: PostgresServer, table: str, folder: Path) -> None:
    config = configuration(server, folder)
    with running_proxy(config, folder, VerbPolicy(review=frozenset({"delete"}))) as own:
        client = WireClient.connect(own.port, "claude", "orders", own.password)
        client.send(WireClient.query("DELETE FROM t"))
        request = own.pending()
        own.run(own.listener.close())
        assert client.fatal()["C"] == "57P01"
        client.socket.close()
        assert own.wait_for(lambda r: r.id == request.id).presence == "returned"
        assert own.listener.sessions == 0
        assert [e["reason"] for e in own.of("session.close")] == ["shutting-down"]
    assert rows(server) == 10


def test_a_pipeline_longer_than_what_may_be_in_flight(proxy: Proxy, table: str) -> None:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        client.send(WireClient.parse("p", "SELECT 1") + WireClient.SYNC)
        client.until_ready()
        client.send((WireClient.bind("", "p") + WireClient.execute("")) * 10_000 + WireClient.SYNC)
        assert client.until_ready().count("C") == 10_000


def test_ddl_makes_the_catalog_new_before_the_next_statement_is_read(proxy: Proxy, connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE TABLE fresh (id int)")
    assert connection.execute("SELECT count(*) FROM fresh").fetchone() == (0,)
    connection.execute("ALTER TABLE fresh RENAME TO stale")
    assert connection.execute("SELECT count(*) FROM stale").fetchone() == (0,)


def test_an_allowed_statement_through_the_slow_classifier(proxy: Proxy, connection: psycopg.Connection[Any]) -> None:
    proxy.classifier.slow.add(b"SELECT 'slow'")
    assert connection.execute("SELECT 'slow'").fetchone() == ("slow",)


def test_results_are_recorded_with_the_decision_they_answer(proxy: Proxy, table: str) -> None:
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        connection.execute("UPDATE t SET v = 'recorded' WHERE id < 4")
        with pytest.raises(errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES (1, 'twice')")
    session: list[Any] = []
    while not session or session[-1]["type"] != "session.close":  # it is written when the session has gone, not before
        events = proxy.events()
        at = next(i for i, e in enumerate(events) if e.get("disclosed", {}).get("text", "").startswith("UPDATE t SET v = 'rec"))
        session = [e for e in events if e["session"] == events[at]["session"]]
    decision = next(e for e in session if e["type"] == "decision" and e["ref"] == events[at]["seq"])
    results = {e["ref"]: e for e in session if e["type"] == "pg.result"}
    assert results[decision["seq"]]["tag"] == "UPDATE 3"
    assert results[decision["seq"]]["rows"] == 3
    assert any(e.get("sqlstate") == "23505" for e in results.values())
