"""Pipelines with a refusal inside, in every state that a session can be in: the client's transaction state and the server's own
never differ, and what ran is what a server would have run had the refused statement failed there."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors

from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message

pytestmark = pytest.mark.interop


@pytest.fixture
def wire(proxy: Proxy, table: str) -> Iterator[WireClient]:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        yield client


def run(text: str) -> bytes:
    """Parse, Bind and Execute of one text, without Sync."""
    return WireClient.extended(text)


SYNC = WireClient.SYNC
DENIED = "DROP TABLE t"
ADDED = "INSERT INTO t VALUES (100, 'added')"

CALL = message(b"F", struct.pack("!IHHiiH", 957, 0, 1, 4, 0x20000, 0))
"""A FunctionCall: lo_creat(131072), which would leave a large object behind."""

STATES: dict[str, tuple[list[bytes], bytes, list[str], str]] = {
    # what comes before, the pipeline, the answers' types with SQLSTATE, the transaction status at the end
    "idle": ([], run(DENIED) + SYNC, ["E42501", "ZI"], "I"),
    "in transaction": ([b"BEGIN"], run(DENIED) + SYNC, ["E42501", "ZE"], "E"),
    "failed": ([b"BEGIN", b"SELECT 1/0"], run(DENIED) + SYNC, ["E42501", "ZE"], "E"),
    "implicit transaction": ([], run(ADDED) + run(DENIED) + run(ADDED) + SYNC, ["1", "2", "C", "E42501", "ZI"], "I"),
    "begin inside the pipeline": (
        [], run("BEGIN") + run(ADDED) + run(DENIED) + SYNC, ["1", "2", "C", "1", "2", "C", "E42501", "ZE"], "E",
    ),
    "after a savepoint": (
        [b"BEGIN", ADDED.encode(), b"SAVEPOINT s"], run(DENIED) + SYNC + run("ROLLBACK TO s") + SYNC,
        ["E42501", "ZE", "1", "2", "C", "ZT"], "T",
    ),
    "extended followed by Query": ([], run(ADDED) + WireClient.query(DENIED), ["1", "2", "C", "E42501", "ZI"], "I"),
    "two refusals before one Sync": ([], run(DENIED) + run(DENIED) + SYNC, ["E42501", "ZI"], "I"),
    "a Query, idle": ([], WireClient.query(DENIED), ["E42501", "ZI"], "I"),
    "a Query in a transaction": ([b"BEGIN"], WireClient.query(DENIED), ["E42501", "ZE"], "E"),
    "a Query in a failed one": ([b"BEGIN", b"SELECT 1/0"], WireClient.query(DENIED), ["E42501", "ZE"], "E"),
    "a Query after a savepoint": (
        [b"BEGIN", ADDED.encode(), b"SAVEPOINT s"], WireClient.query(DENIED) + WireClient.query("ROLLBACK TO s"),
        ["E42501", "ZE", "C", "ZT"], "T",
    ),
    "a batch in autocommit": ([], WireClient.query(f"{ADDED}; {DENIED}; {ADDED}"), ["E42501", "ZI"], "I"),
    "a batch that begins": ([], WireClient.query(f"BEGIN; {ADDED}; {DENIED}"), ["E42501", "ZI"], "I"),
    "after COPY": (
        [], WireClient.query("COPY bulk FROM STDIN") + message(b"d", b"1\tx\n") + message(b"c") + WireClient.query(DENIED)
        + run(DENIED) + SYNC, ["G", "C", "ZI", "E42501", "ZI", "E42501", "ZI"], "I",
    ),
    "after a COPY that failed": (
        [], WireClient.query("COPY bulk FROM STDIN") + message(b"d", b"x\n") + message(b"c") + run(DENIED) + SYNC,
        ["G", "E22P02", "ZI", "E42501", "ZI"], "I",
    ),
    "a new Parse of the unnamed statement": (
        [], WireClient.parse("", ADDED) + SYNC + WireClient.parse("", DENIED) + SYNC + WireClient.bind("", "") + SYNC,
        ["1", "ZI", "E42501", "ZI", "E26000", "ZI"], "I",
    ),
    "the unnamed statement behind a refused Query": (
        [], WireClient.parse("", ADDED) + SYNC + WireClient.query(DENIED) + WireClient.bind("", "") + SYNC,
        ["1", "ZI", "E42501", "ZI", "E26000", "ZI"], "I",
    ),
    "a Parse of a name that is taken": (
        [], WireClient.parse("a", "SELECT 1") + WireClient.parse("a", DENIED) + SYNC + WireClient.bind("", "a") + SYNC,
        ["1", "E42501", "ZI", "2", "ZI"], "I",
    ),
    "a Query behind an error and another Query": (
        [], run("SELECT 1/0") + WireClient.query("SELECT 1") + WireClient.query(DENIED) + run("SELECT 1") + SYNC,
        ["1", "E22012", "ZI"], "I",
    ),
    "an earlier error clears the refusal": ([], run("SELECT 1/0") + run(DENIED) + SYNC, ["1", "E22012", "ZI"], "I"),
    "a function call, idle": ([], CALL, ["E0A000", "ZI"], "I"),
    "a function call in a transaction": ([b"BEGIN"], CALL, ["E0A000", "ZE"], "E"),
    "a function call in a failed one": ([b"BEGIN", b"SELECT 1/0"], CALL, ["E25P02", "ZE"], "E"),
    "a function call after a savepoint": (
        [b"BEGIN", b"SAVEPOINT s"], CALL + WireClient.query("ROLLBACK TO s"), ["E0A000", "ZE", "C", "ZT"], "T",
    ),
    "a function call in an implicit transaction": ([], run(ADDED) + CALL, ["1", "2", "C", "E0A000", "ZI"], "I"),
    "a function call behind an error": ([], run("SELECT 1/0") + CALL + SYNC, ["1", "E22012", "ZI"], "I"),
    "a function call and the unnamed statement": (
        [], WireClient.parse("", "SELECT 1") + SYNC + CALL + WireClient.bind("", "") + SYNC,
        ["1", "ZI", "E0A000", "ZI", "2", "ZI"], "I",
    ),
    "two function calls, and a statement": (
        [], CALL + CALL + WireClient.query("SELECT 1"), ["E0A000", "ZI", "E0A000", "ZI", "C", "ZI"], "I",
    ),
    "a refused Query behind an error": ([], run("SELECT 1/0") + WireClient.query(DENIED) + SYNC, ["1", "E22012", "ZI"], "I"),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_a_refusal_has_the_effect_of_a_failing_statement(wire: WireClient, server: PostgresServer, state: str) -> None:
    before, pipeline, expected, status = STATES[state]
    for text in before:
        wire.send(WireClient.query(text.decode()))
        wire.until_ready()
    wire.send(pipeline)
    answers: list[str] = []
    for _ in range(sum(word.startswith("Z") for word in expected)):
        answers += [word for word in wire.until_ready() if not word.startswith(("T", "n", "D"))]
    assert answers == expected
    server_says = server.run(f"SELECT state FROM pg_stat_activity WHERE pid = {wire.process}", user="postgres")
    assert server_says == {"I": "idle", "T": "idle in transaction", "E": "idle in transaction (aborted)"}[status]
    wire.send(WireClient.query("ROLLBACK"))
    assert wire.until_ready()[-1] == "ZI"
    assert server.run("SELECT count(*) FROM t") == "10"


def test_drivers_pipeline_with_a_denial_in_the_middle(proxy: Proxy, server: PostgresServer, table: str) -> None:
    with psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            first = connection.execute("INSERT INTO t VALUES (101, 'one')")
            pipeline.sync()
            refused = connection.execute("DROP TABLE t")
            skipped = connection.execute("INSERT INTO t VALUES (102, 'two')")
            with pytest.raises(errors.InsufficientPrivilege):
                pipeline.sync()
            last = connection.execute("INSERT INTO t VALUES (103, 'three')")
        assert (first.rowcount, last.rowcount) == (1, 1)
        assert refused.rowcount == skipped.rowcount == -1
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert server.run("SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE id > 100") == "101,103"


def test_what_came_before_a_held_message_runs_and_what_comes_after_waits(
    proxy: Proxy, server: PostgresServer, table: str
) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        WireClient.connect(proxy.port, "claude", "orders", proxy.password) as wire,
    ):
        wire.send(run("INSERT INTO t VALUES (201, 'before')") + SYNC + run("DELETE FROM t WHERE id = 1") + SYNC
                  + run("INSERT INTO t VALUES (202, 'after')") + SYNC)  # fmt: skip
        assert wire.until_ready()[-1] == "ZI"
        rest = pool.submit(lambda: [wire.until_ready(), wire.until_ready()])
        request = proxy.pending()
        assert server.run("SELECT count(*) FROM t WHERE id IN (201, 202)") == "1"
        proxy.approve(request)
        assert [answer[-1] for answer in rest.result(10)] == ["ZI", "ZI"]
    assert server.run("SELECT count(*) FROM t WHERE id IN (1, 201, 202)") == "2"


def test_an_error_before_a_review_asks_nobody(proxy: Proxy, wire: WireClient) -> None:
    before = len(proxy.requests())
    wire.send(run("SELECT 1/0") + run("DELETE FROM t") + SYNC)
    assert [w for w in wire.until_ready() if w[0] in "EZ"] == ["E22012", "ZI"]
    assert len(proxy.requests()) == before


def test_a_name_keeps_its_old_meaning_when_its_parse_fails(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    """The attack: prepare a DELETE, then in one go try to give its name to a SELECT (fails) and run the name."""
    wire.send(WireClient.parse("a", "DELETE FROM t") + SYNC)
    assert wire.until_ready() == ["1", "ZI"]
    wire.send(WireClient.parse("a", "SELECT 1") + SYNC + WireClient.bind("", "a") + WireClient.execute("") + SYNC)
    assert wire.until_ready() == ["E42P05", "ZI"]
    request = proxy.pending()
    assert request.draft.command.text == b"DELETE FROM t"
    proxy.deny(request)
    assert [w for w in wire.until_ready() if w[0] in "EZ"] == ["E42501", "ZI"]
    assert server.run("SELECT count(*) FROM t") == "10"


def test_a_skipped_parse_of_the_unnamed_statement_changes_nothing(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    wire.send(WireClient.parse("", "DELETE FROM t WHERE id > 0") + SYNC)
    wire.until_ready()
    wire.send(
        WireClient.bind("", "nobody") + WireClient.parse("", "SELECT 1") + SYNC
        + WireClient.bind("", "") + WireClient.execute("") + SYNC
    )  # fmt: skip
    assert wire.until_ready() == ["E26000", "ZI"]
    proxy.deny()
    assert [w for w in wire.until_ready() if w[0] in "EZ"] == ["E42501", "ZI"]
    assert server.run("SELECT count(*) FROM t") == "10"


def test_portals_are_resumed_and_end_with_their_transaction(wire: WireClient) -> None:
    wire.send(WireClient.query("BEGIN"))
    wire.until_ready()
    wire.send(WireClient.parse("rows", "SELECT id FROM t ORDER BY id") + WireClient.bind("p", "rows"))
    wire.send(WireClient.execute("p", 4) + WireClient.execute("p", 4) + WireClient.execute("p", 4) + SYNC)
    answers = wire.until_ready()
    assert [w for w in answers if w[0] != "D"] == ["1", "2", "s", "s", "C", "ZT"]
    assert sum(w == "D" for w in answers) == 10
    wire.send(WireClient.query("COMMIT") + WireClient.execute("p") + SYNC)
    wire.until_ready()
    assert wire.until_ready() == ["E34000", "ZI"]


def test_reserved_portal_names_are_refused(wire: WireClient) -> None:
    wire.send(WireClient.parse("", "SELECT 1") + WireClient.bind("interlock_refused_x", "") + SYNC)
    assert wire.until_ready() == ["1", "E42939", "ZI"]


def test_close_and_describe_work_through_the_tables(wire: WireClient) -> None:
    wire.send(WireClient.parse("s", "SELECT $1::int") + WireClient.describe("S", "s") + SYNC)
    assert wire.until_ready() == ["1", "t", "T", "ZI"]
    wire.send(WireClient.bind("", "s", [struct.pack("!i", 7)], binary=True) + WireClient.execute("") + SYNC)
    assert wire.until_ready() == ["2", "D", "C", "ZI"]
    wire.send(WireClient.close("S", "s") + SYNC)
    assert wire.until_ready() == ["3", "ZI"]
    wire.send(WireClient.bind("", "s") + SYNC)
    assert wire.until_ready() == ["E26000", "ZI"]


@pytest.mark.parametrize("text", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_what_drops_every_statement_spares_the_unnamed_one(wire: WireClient, text: str) -> None:
    wire.send(WireClient.parse("", "SELECT 7") + WireClient.parse("s", text) + SYNC)
    wire.send(WireClient.bind("", "s") + WireClient.execute("") + SYNC + WireClient.bind("", "") + WireClient.execute("") + SYNC)
    assert [wire.until_ready()[-1] for _ in range(2)] == ["ZI", "ZI"]
    assert wire.until_ready() == ["2", "D", "C", "ZI"]


def test_closing_all_portals_spares_the_one_that_does_it(wire: WireClient) -> None:
    wire.send(WireClient.extended("CLOSE ALL") + WireClient.execute("") + SYNC)
    assert wire.until_ready() == ["1", "2", "C", "E55000", "ZI"]


def test_a_held_cursor_outlives_its_transaction(wire: WireClient) -> None:
    wire.send(WireClient.query("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id; COMMIT"))
    assert wire.until_ready()[-1] == "ZI"
    wire.send(WireClient.execute("c", 2) + SYNC + WireClient.query("FETCH 1 FROM c") + WireClient.query("CLOSE c"))
    assert wire.until_ready() == ["D", "D", "s", "ZI"]
    assert wire.until_ready() == ["T", "D", "C", "ZI"]
    assert wire.until_ready() == ["C", "ZI"]


def test_a_string_that_first_leaves_a_failed_transaction_is_asked_about(
    proxy: Proxy, wire: WireClient, server: PostgresServer
) -> None:
    wire.send(
        WireClient.query("BEGIN") + WireClient.query("SELECT 1/0") + WireClient.query("ROLLBACK; DELETE FROM t WHERE id = 1")
    )
    assert [wire.until_ready()[-1] for _ in range(2)] == ["ZT", "ZE"]
    proxy.approve()
    assert wire.until_ready() == ["C", "C", "ZI"]
    assert server.run("SELECT count(*) FROM t") == "9"


def test_pgbench_runs_in_every_query_mode(proxy: Proxy, server: PostgresServer, table: str) -> None:
    script = "SELECT v FROM t WHERE id = 3;\nUPDATE t SET v = 'y' WHERE id = 4;\n"
    for mode in ("simple", "extended", "prepared"):
        done: subprocess.CompletedProcess[Any] = subprocess.run(
            [server.binaries / "pgbench", "-n", "-M", mode, "-t", "20", "-c", "2", "-f", "/dev/stdin", proxy.dsn()],
            input=script, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "number of transactions actually processed: 40/40" in done.stdout, done.stderr


def test_no_function_runs_while_a_bind_waits(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    """Planning runs IMMUTABLE and STABLE functions. This one writes, so a Bind that was sent before the answer would show."""
    insert = "INSERT INTO bulk VALUES ($1, 'planned');"
    body = "LANGUAGE plpgsql AS $$ BEGIN {} RETURN 1; END $$"
    server.run(
        f"CREATE FUNCTION writes(int) RETURNS int {body.format(insert)};"
        f"CREATE FUNCTION planted(int) RETURNS int IMMUTABLE {body.format('PERFORM writes($1);')}"
    )
    try:
        wire.send(WireClient.parse("", "DELETE FROM t WHERE id = planted(7)") + WireClient.bind("", "") + SYNC)
        proxy.deny()
        assert wire.until_ready() == ["1", "E42501", "ZI"]
        assert server.run("SELECT count(*) FROM bulk") == "0"
        wire.send(WireClient.parse("", "DELETE FROM t WHERE id = planted(8)") + WireClient.bind("", "") + SYNC)
        proxy.approve()
        assert wire.until_ready() == ["1", "2", "ZI"]
        assert server.run("SELECT count(*) FROM bulk") == "1"  # the danger is real: nothing was executed
    finally:
        server.run("DROP FUNCTION planted, writes")


def test_a_portal_of_before_runs_no_more_while_the_node_drains(proxy: Proxy, wire: WireClient, server: PostgresServer) -> None:
    """What was bound (and approved) while the session was good must not wait there for the time after."""
    wire.send(WireClient.query("BEGIN"))
    wire.until_ready()
    wire.send(WireClient.parse("", "SELECT id FROM t ORDER BY id") + WireClient.bind("p", "") + WireClient.execute("p", 1) + SYNC)
    assert "D" in wire.until_ready()

    async def drain(begun: bool) -> None:
        proxy.gate.draining = begun

    proxy.run(drain(True))
    try:
        wire.send(WireClient.execute("p", 1) + SYNC)
        assert wire.until_ready() == ["E57P01", "ZE"]
    finally:
        proxy.run(drain(False))
