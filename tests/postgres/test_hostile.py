"""Bytes that no honest client sends. Each ends in an error that says why, on this connection only, with nothing released."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message, startup
from interlock.clock import system_entropy
from interlock.errors import EvidenceError
from interlock.evidence.events import EventDraft
from interlock.policy.model import Decision, Facts

pytestmark = pytest.mark.interop

SMUGGLED = message(b"Q", b"DELETE FROM t\0")


@pytest.fixture
def wire(proxy: Proxy, table: str) -> Iterator[WireClient]:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        yield client


def lengths(kind: bytes, length: int, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", length) + body


BROKEN: dict[str, bytes] = {
    "length below four": lengths(b"Q", 3) + SMUGGLED,
    "length of zero": lengths(b"S", 0) + SMUGGLED,
    "length over 2^31": lengths(b"Q", 0xFFFFFFFF, b"SELECT 1\0") + SMUGGLED,
    "Query over its cap": lengths(b"Q", 1024 * 1024 + 1, b"SELECT 1\0"),
    "Bind over its cap": lengths(b"B", 64 * 1024 * 1024 + 1),
    "Parse over its cap": lengths(b"P", 1024 * 1024 + 1, b"\0SELECT 1\0"),
    "Describe over its cap": lengths(b"D", 10_001, b"S"),
    "CopyData of four gigabytes": lengths(b"d", 0xFFFFFFFF, b"1\tx\n") + SMUGGLED,
    "CopyData over its cap": lengths(b"d", 0x40000000, b"1\tx\n") + SMUGGLED,
    "CopyData below four": lengths(b"d", 3) + SMUGGLED,
    "CopyDone with a body": message(b"c", b"x") + SMUGGLED,
    "Terminate with a body": message(b"X", SMUGGLED),
    "Sync with a body": lengths(b"S", 8, b"\0\0\0\0") + SMUGGLED,
    "bytes behind the NUL of a Query": message(b"Q", b"SELECT 1\0DELETE FROM t\0"),
    "Query without a NUL": message(b"Q", b"SELECT 1"),
    "unknown type": message(b"y", b"x"),
    "function call over its cap": lengths(b"F", 1024 * 1024 + 1),
    "function call cut short": message(b"F", struct.pack("!IHH", 957, 0, 0)),
    "password when nobody asked": message(b"p", b"secret\0"),
    "Bind with a negative value length": message(b"B", b"\0\0" + struct.pack("!HHiH", 0, 1, -2, 0)),
    "Bind with a value beyond its end": message(b"B", b"\0\0" + struct.pack("!HHiH", 0, 1, 1000, 0)),
    "Bind with more values than bytes": message(b"B", b"\0\0" + struct.pack("!HH", 0, 0xFFFF)),
    "Bind with a value of 2^31 bytes": message(b"B", b"\0\0" + struct.pack("!HHIH", 0, 1, 0x80000000, 0)),
    "Bind with a value of 2^32 bytes less two": message(b"B", b"\0\0" + struct.pack("!HHIH", 0, 1, 0xFFFFFFFE, 0)),
    "Bind with 65535 formats": message(b"B", b"\0\0" + struct.pack("!HHH", 0xFFFF, 0, 0)),
    "Bind with 65535 formats of results": message(b"B", b"\0\0" + struct.pack("!HHH", 0, 0, 0xFFFF)),
    "Bind with bytes behind its end": message(b"B", b"\0\0" + struct.pack("!HHH", 0, 0, 0) + SMUGGLED),
    "Bind with a name that has no end": message(b"B", b"x" * 40),
    "Parse with more types than bytes": message(b"P", b"\0SELECT 1\0" + struct.pack("!H", 0xFFFF)),
    "Parse with a name of 2000 bytes": message(b"P", b"n" * 2000 + b"\0SELECT 1\0" + struct.pack("!H", 0)),
    "CopyFail without a NUL": message(b"f", b"why"),
    "a cancel request inside a session": struct.pack("!IIII", 16, 80877102, 1, 2),
    "a request for TLS inside a session": WireClient.SSL_REQUEST + SMUGGLED,
    "a start-up inside a session": startup({"user": "postgres"}),
    "CopyFail over its cap": message(b"f", b"x" * 10_000 + b"\0"),
    "Close with bytes behind its name": message(b"C", b"S\0x"),
    "replication inside a session": message(b"W", b"\0\0\0"),
    "Parse with bytes behind its end": message(b"P", b"\0SELECT 1\0" + struct.pack("!H", 0) + b"x"),
    "Parse with a NUL in its text": message(b"P", b"\0SELECT 1\0DELETE FROM t\0" + struct.pack("!H", 0)),
    "Describe of a name that has no end": message(b"D", b"Sx"),
    "Execute cut short": message(b"E", b"\0\0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_messages_end_the_connection(wire: WireClient, server: PostgresServer, what: str) -> None:
    wire.send(BROKEN[what])
    fields = wire.fatal()
    assert (fields["S"], fields["C"]) == ("FATAL", "08P01")
    assert server.run("SELECT count(*) FROM t") == "10"


COMMANDS = {
    "Query": WireClient.query("SELECT 1"), "Parse": WireClient.parse("", "SELECT 1"), "Bind": WireClient.bind("", ""),
    "Execute": WireClient.execute(""), "Describe": WireClient.describe("P", ""), "Close": WireClient.close("P", ""),
    "FunctionCall": message(b"F", struct.pack("!IHHH", 957, 0, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_inside_copy_ends_the_connection(wire: WireClient, server: PostgresServer, what: str, extended: bool) -> None:
    text = "COPY bulk FROM STDIN"
    wire.send(WireClient.extended(text) + WireClient.FLUSH if extended else WireClient.query(text))
    while wire.read()[0] != "G":
        pass
    wire.send(message(b"d", b"1\tx\n") + COMMANDS[what])
    assert wire.fatal()["C"] == "08P01"
    assert server.run("SELECT count(*) FROM bulk") == "0"


def test_copy_data_when_nothing_copies_reaches_nobody(wire: WireClient) -> None:
    wire.send(message(b"d", SMUGGLED) + message(b"c") + WireClient.query("SELECT 1"))
    assert wire.until_ready() == ["T", "D", "C", "ZI"]


def test_a_sync_and_a_flush_inside_copy_are_the_servers_to_drop(wire: WireClient, server: PostgresServer) -> None:
    """It drops both, and the Sync behind the end of the copy is the one that it answers."""
    for sent, answers in (
        (WireClient.query("COPY bulk FROM STDIN"), ["C", "ZI"]),
        (WireClient.extended("COPY bulk FROM STDIN") + WireClient.FLUSH, ["C", "ZI"]),
    ):
        wire.send(sent)
        while wire.read()[0] != "G":
            pass
        drops = WireClient.SYNC + WireClient.FLUSH
        ends = b"" if sent[:1] == b"Q" else WireClient.SYNC
        wire.send(drops + message(b"d", b"1\tx\n") + drops + message(b"d") + message(b"c") + ends + WireClient.query("SELECT 1"))
        assert wire.until_ready() == answers
        assert wire.until_ready() == ["T", "D", "C", "ZI"]
    assert server.run("SELECT count(*) FROM bulk") == "2"


def test_a_copy_that_the_client_gives_up_with_many_words(wire: WireClient, server: PostgresServer) -> None:
    words = "x" * 9_990
    wire.send(WireClient.query("COPY bulk FROM STDIN") + message(b"d", b"1\tx\n") + message(b"f", words.encode() + b"\0"))
    assert wire.until_ready() == ["G", "E57014", "ZI"]
    assert words in wire.errors[-1]["M"]
    wire.send(WireClient.query("COPY bulk FROM STDIN") + message(b"f", b"\0") + WireClient.query("SELECT 1"))
    assert wire.until_ready() == ["G", "E57014", "ZI"]
    assert wire.until_ready() == ["T", "D", "C", "ZI"]
    assert server.run("SELECT count(*) FROM bulk") == "0"


MANY = 0xFFFF
HARMLESS = {
    "more values than the statement takes": (
        WireClient.parse("", "SELECT $1::int") + WireClient.bind("", "", [b"1"] * MANY) + WireClient.SYNC, ["1", "E08P01", "ZI"],
    ),
    "as many values as there can be": (
        WireClient.parse("", "SELECT 1") + WireClient.bind("", "", [None] * MANY) + WireClient.SYNC, ["1", "E08P01", "ZI"],
    ),
    "a value in a form that its type does not have": (
        WireClient.parse("", "SELECT $1::int") + WireClient.bind("", "", [b"123"], binary=True) + WireClient.SYNC,
        ["1", "E08P01", "ZI"],
    ),
    "names that nobody gave are closed": (
        WireClient.close("S", "nobody") + WireClient.close("P", "nobody") + WireClient.close("P", "") + WireClient.SYNC,
        ["3", "3", "3", "ZI"],
    ),
    "what comes behind an error": (
        WireClient.parse("", "SELEKT") + WireClient.describe("S", "") + WireClient.close("S", "x") + WireClient.execute("")
        + WireClient.FLUSH + WireClient.describe("P", "") + WireClient.SYNC, ["E42601", "ZI"],
    ),
    "a Query behind an error, without a Sync": (
        WireClient.bind("", "nobody") + WireClient.query("SELECT 1") + WireClient.SYNC, ["E26000", "ZI"],
    ),
    "fewer rows than none": (
        WireClient.parse("", "SELECT 1") + WireClient.bind("", "") + WireClient.execute("", -1) + WireClient.SYNC,
        ["1", "2", "D", "C", "ZI"],
    ),
    "a portal that has ended": (WireClient.extended("SELECT 1") + WireClient.execute("") + WireClient.SYNC,
        ["1", "2", "D", "C", "C", "ZI"],
    ),
    "the same name for both": (
        WireClient.parse("n", "SELECT 1") + WireClient.bind("n", "n") + WireClient.describe("S", "n")
        + WireClient.describe("P", "n") + WireClient.execute("n") + WireClient.close("S", "n")
        + WireClient.close("P", "n") + WireClient.SYNC,
        ["1", "2", "t", "T", "T", "D", "C", "3", "3", "ZI"],
    ),
    "a hundred times nothing": (WireClient.SYNC * 100, ["ZI"]),
    "a type that there is not": (
        message(b"P", b"\0SELECT $1\0" + struct.pack("!HI", 1, 0xFFFFFFFF)) + WireClient.SYNC, ["EXX000", "ZI"],
    ),
}  # fmt: skip
"""Odd, and allowed or the server's to refuse: it answers, in its order, and the session goes on."""


@pytest.mark.parametrize("what", HARMLESS)
def test_oddities_are_answered_as_by_the_server_itself(wire: WireClient, server: PostgresServer, what: str) -> None:
    sent, answers = HARMLESS[what]
    syncs = 100 if what == "a hundred times nothing" else 1
    with WireClient.connect(server.port, "app", "app", server.password) as bare:
        for client in (bare, wire):
            client.send(sent)
            assert [client.until_ready() for _ in range(syncs)] == [answers] * syncs
            client.send(WireClient.query("SELECT 1"))
            assert client.until_ready() == ["T", "D", "C", "ZI"]


def test_a_client_that_leaves_without_reading_leaves_nothing_running(proxy: Proxy, server: PostgresServer) -> None:
    """100 MB are on their way when it says goodbye: the server must not be kept waiting for somebody to take them."""
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as leaving:
        leaving.send(WireClient.query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"))
        assert leaving.read()[0] == "T"
        leaving.send(message(b"X"))
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as watching:
            there = "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            while watching.execute(there, (leaving.process,)).fetchone() is not None:
                pass


def carrier(passenger: bytes) -> tuple[bytes, int]:
    """Return harmless messages that carry `passenger` in a value, and how many bytes come before it."""
    head = WireClient.parse("", "SELECT $1::bytea")
    whole = head + WireClient.bind("", "", [passenger], binary=True) + WireClient.SYNC
    return whole, whole.index(passenger)


def test_a_copy_that_fails_inside_a_message_smuggles_nothing(wire: WireClient, server: PostgresServer) -> None:
    """The attack: begin a CopyData, let the COPY fail, end it. Were the end dropped because nothing copies any more, the
    server would take the next bytes for it, and find a DELETE in the middle of a value."""
    harmless, before = carrier(SMUGGLED)
    wire.send(WireClient.query("COPY bulk FROM STDIN"))
    assert wire.read()[0] == "G"
    wire.send(message(b"d", b"no number\tx\n") + lengths(b"d", 4 + 10 + before, b"1\tbegun..."[:10]))
    assert wire.until_ready() == ["E22P02", "ZI"]
    wire.send(b"x" * before + harmless)
    assert wire.until_ready() == ["1", "2", "ZI"]
    assert server.run("SELECT count(*) FROM t") == "10"


def test_a_message_that_the_server_skips_inside_smuggles_nothing(wire: WireClient, server: PostgresServer) -> None:
    """The same by an error in the extended protocol, which comes while the CopyData is on its way."""
    harmless, before = carrier(SMUGGLED)
    wire.send(WireClient.bind("", "nobody") + WireClient.query("COPY bulk FROM STDIN") + lengths(b"d", 4 + before))
    assert wire.read()[0] == "E"
    wire.send(b"x" * before + message(b"c") + WireClient.SYNC)
    assert wire.until_ready() == ["ZI"]
    wire.send(harmless)
    assert wire.until_ready() == ["1", "2", "ZI"]
    assert server.run("SELECT count(*) FROM t") == "10"


def test_a_message_in_single_bytes_is_the_same_message(wire: WireClient) -> None:
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in WireClient.extended("SELECT 1") + WireClient.SYNC:
        wire.send(bytes([byte]))
    assert wire.until_ready() == ["1", "2", "D", "C", "ZI"]


OPENINGS: dict[str, bytes] = {
    "garbage": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "length below eight": struct.pack("!I", 7) + b"abc",
    "start-up over 64 KiB": struct.pack("!II", 64 * 1024 + 1, 0x00030000),
    "length over 2^31": struct.pack("!II", 0xFFFFFFFF, 0x00030000),
    "protocol 2": struct.pack("!II", 8, 0x00020000),
    "parameters without a value": struct.pack("!II", 14, 0x00030000) + b"user\0\0",
    "parameters without an end": struct.pack("!II", 13, 0x00030000) + b"user\0",
    "the user twice": startup({"user": "claude"})[:-1] + b"user\0bob\0\0",
    "plain text behind an SSLRequest": struct.pack("!II", 8, 80877103) + startup({"user": "claude"}),
    "plain text behind a GSSENCRequest": struct.pack("!II", 8, 80877104) + startup({"user": "claude"}),
    "an SSLRequest of nine bytes": struct.pack("!II", 9, 80877103) + b"x",
    "a password before it was asked for": startup({"user": "claude", "database": "orders"}) + message(b"p", b"x"),
    "a Query before authentication": startup({"user": "claude", "database": "orders"}) + SMUGGLED,
}


@pytest.mark.parametrize("what", OPENINGS)
def test_broken_openings_end_the_connection(proxy: Proxy, what: str) -> None:
    data = OPENINGS[what]
    if what == "the user twice":
        data = struct.pack("!I", len(data)) + data[4:]
    with WireClient(proxy.port) as client:
        client.send(data)
        # The proxy may close while a byte is still under way, so that a reset comes in place of the error.
        assert client.fatal().get("C", "08P01") == "08P01"


def test_an_answer_of_another_type_during_authentication(proxy: Proxy, server: PostgresServer, table: str) -> None:
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "orders"}))
        client.read()
        client.send(SMUGGLED)
        assert client.fatal()["C"] == "08P01"
    assert server.run("SELECT count(*) FROM t") == "10"


def test_truncated_and_silent_clients_leave_at_the_deadline(server: PostgresServer, folder: Path) -> None:
    with running_proxy(configuration(server, folder), folder, VerbPolicy(), startup_deadline=0.5) as proxy:
        silent = [WireClient(proxy.port) for _ in range(200)]
        for client in silent[:100]:
            client.send(startup({"user": "claude", "database": "orders"})[:-5])
        began = time.monotonic()
        with psycopg.connect(proxy.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert time.monotonic() - began < 5
        for client in silent:
            with client:
                client.fatal()  # returns when the proxy has closed


def test_more_than_one_statement_in_a_parse_is_an_ordinary_error(wire: WireClient, server: PostgresServer) -> None:
    wire.send(WireClient.extended("SELECT 1; DELETE FROM t") + WireClient.SYNC + WireClient.query("SELECT 1"))
    assert wire.until_ready() == ["E42601", "ZI"]
    assert wire.until_ready() == ["T", "D", "C", "ZI"]
    assert server.run("SELECT count(*) FROM t") == "10"


CALLS = {
    "as it should be": struct.pack("!IHHiiH", 957, 0, 1, 4, 0x20000, 0),
    "more formats than bytes": struct.pack("!IHHH", 957, 0xFFFF, 0, 0),
    "more arguments than bytes": struct.pack("!IHHH", 957, 0, 0xFFFF, 0),
    "an argument of a negative length": struct.pack("!IHHiiH", 957, 0, 1, -2, 0, 0),
    "an argument that holds a Query": struct.pack("!IHHi", 957, 0, 1, len(SMUGGLED)) + SMUGGLED + b"\0\0",
    "an argument that ends in a Query": struct.pack("!IHHi", 957, 0, 1, 0) + b"\0\0" + SMUGGLED,
}  # fmt: skip


@pytest.mark.parametrize("what", CALLS)
def test_a_function_call_is_refused_whatever_it_says_and_the_session_goes_on(
    proxy: Proxy, wire: WireClient, server: PostgresServer, what: str
) -> None:
    """lo_creat by its OID: no text names it, so nothing of it may reach the server."""
    before = server.run("SELECT count(*) FROM pg_largeobject_metadata", user="postgres")
    wire.send(message(b"F", CALLS[what]) + WireClient.query("SELECT 1"))
    assert wire.until_ready() == ["E0A000", "ZI"]
    assert "request-not-offered" in wire.errors[-1]["D"]
    assert proxy.of("channel.refuse")[-1]["function"] == 957
    assert wire.until_ready() == ["T", "D", "C", "ZI"]
    assert server.run("SELECT count(*) FROM pg_largeobject_metadata", user="postgres") == before
    assert server.run("SELECT count(*) FROM t") == "10"


def test_psql_says_why_it_can_not_import_a_large_object(proxy: Proxy, table: str, folder: Path) -> None:
    (folder / "file").write_text("large")
    done = subprocess.run(
        ["psql", "-XAtq", "-d", proxy.dsn(), "-c", f"\\lo_import {folder / 'file'}", "-c", "SELECT 'goes on'"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "functions are not called by message here" in done.stderr
    assert done.stdout == "goes on\n"


def test_a_refusals_portal_can_be_named_by_nobody(wire: WireClient, proxy: Proxy, server: PostgresServer) -> None:
    """The attack: find the name that a refusal stands under, declare a cursor of it, and have the next refusal run that."""
    wire.send(WireClient.query("BEGIN") + WireClient.query("SAVEPOINT s") + WireClient.query("DROP TABLE t"))
    assert [wire.until_ready()[-1] for _ in range(3)] == ["ZT", "ZT", "ZE"]
    seen = server.run(f"SELECT query FROM pg_stat_activity WHERE pid = {wire.process}", user="postgres")
    assert seen.startswith("interlock_refused_")
    wire.send(WireClient.query("ROLLBACK TO s") + WireClient.query(f"DECLARE {seen} CURSOR FOR SELECT 'mine'"))
    assert [wire.until_ready()[-1] for _ in range(2)] == ["ZT", "ZT"]
    wire.send(WireClient.bind("", "nobody") + WireClient.SYNC)
    assert wire.until_ready() == ["E26000", "ZE"]


def test_a_storm_of_cancel_requests_stops_nobody(proxy: Proxy, table: str) -> None:
    """Guesses of a key beyond the limit are not even looked up; the sessions that they aim at go on, and so does the listener."""
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as mine:
        mine.send(WireClient.query("SELECT count(*) FROM generate_series(1, 3000000)"))
        for guess in range(150):
            with WireClient(proxy.port) as stranger:
                stranger.send(struct.pack("!IIi", 16, 80877102, mine.process) + struct.pack("!I", guess))
                assert stranger.fatal() == {}
        assert mine.until_ready() == ["T", "D", "C", "ZI"]
        mine.send(WireClient.query("SELECT 1"))
        assert mine.until_ready() == ["T", "D", "C", "ZI"]


@pytest.mark.parametrize("size", [4, 16, 12 + 4, 12 + 256, 12 + 257, 11])
def test_cancel_requests_of_any_size_are_answered_by_closing(proxy: Proxy, size: int) -> None:
    with WireClient(proxy.port) as client:
        client.send(struct.pack("!II", max(size, 8), 80877102) + bytes(max(size - 8, 0)))
        assert client.fatal().get("C", "08P01") == "08P01"
    with psycopg.connect(proxy.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_cancel_keys_open_nothing_but_their_own_session(proxy: Proxy, table: str) -> None:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as mine:
        other = bytes(b ^ 0xFF for b in mine.secret)
        running = threading.Event()
        mine.send(WireClient.query("SELECT 'begun'") + WireClient.query("SELECT pg_sleep(0.3)"))
        running.set()
        with WireClient(proxy.port) as stranger:
            stranger.send(struct.pack("!IIi", 16, 80877102, mine.process) + other)
            assert stranger.fatal() == {}
        assert mine.until_ready()[-1] == "ZI"
        assert "E57014" not in mine.until_ready()


def test_guesses_of_cancel_keys_are_limited() -> None:
    import asyncio

    from harness.clock import ManualClock
    from interlock.postgres.cancel import BURST, CancelKeys

    clock, cancelled = ManualClock(), []
    keys = CancelKeys(clock=clock, entropy=system_entropy)

    async def cancel() -> None:
        cancelled.append(True)

    async def attack() -> None:
        secret = keys.issue(7, cancel)
        for _ in range(BURST):
            assert not await keys.cancel(7, b"\0\0\0\0" if secret != b"\0\0\0\0" else b"\1\0\0\0", "10.0.0.1")
        assert not await keys.cancel(7, secret, "10.0.0.1")
        assert await keys.cancel(7, secret, "10.0.0.2")
        clock.advance(1)
        assert await keys.cancel(7, secret, "10.0.0.1")
        keys.withdraw(7, secret)
        assert not await keys.cancel(7, secret, "10.0.0.2")

    asyncio.run(attack())
    assert cancelled == [True, True]


def test_cancelling_ones_own_is_no_guess() -> None:
    """A pool behind one address cancels many statements at once. Each of them must reach its session."""
    import asyncio

    from harness.clock import ManualClock
    from interlock.postgres.cancel import BURST, CancelKeys

    keys, cancelled = CancelKeys(clock=ManualClock(), entropy=system_entropy), []

    async def cancel() -> None:
        cancelled.append(True)

    async def pool() -> None:
        secrets = [keys.issue(process, cancel) for process in range(10 * BURST)]
        for process, secret in enumerate(secrets):
            assert await keys.cancel(process, secret, "10.0.0.1")
        for _ in range(BURST):
            assert not await keys.cancel(0, b"guess", "10.0.0.1")
        assert not await keys.cancel(0, secrets[0], "10.0.0.1")

    asyncio.run(pool())
    assert len(cancelled) == 10 * BURST


def test_a_cancel_that_comes_when_its_session_is_gone_is_no_guess() -> None:
    """lib/pq cancels what it has just closed. When that cost guesses, the next cancels in time were lost in silence."""
    import asyncio

    from harness.clock import ManualClock
    from interlock.postgres.cancel import _MAX_ENDED, BURST, CancelKeys

    keys, cancelled = CancelKeys(clock=ManualClock(), entropy=system_entropy), []

    async def cancel() -> None:
        cancelled.append(True)

    async def late() -> None:
        secret = keys.issue(7, cancel)
        keys.withdraw(7, secret)
        for _ in range(10 * BURST):
            assert not await keys.cancel(7, secret, "10.0.0.1")
        alive = keys.issue(8, cancel)
        assert await keys.cancel(8, alive, "10.0.0.1")
        for process in range(2 * _MAX_ENDED):
            keys.withdraw(process, keys.issue(process, cancel))
        for _ in range(BURST):  # the first one is forgotten by now, and costs
            assert not await keys.cancel(7, secret, "10.0.0.1")
        assert not await keys.cancel(8, keys.issue(8, cancel), "10.0.0.1")

    asyncio.run(late())
    assert cancelled == [True]
    assert len(keys._ended) == _MAX_ENDED


POISONS = {
    "GBK": "SET client_encoding = 'GBK'", "SJIS by NAMES": "SET NAMES 'SJIS'", "LATIN1": "SET client_encoding = 'LATIN1'",
    "strings": "SET standard_conforming_strings = off", "GBK by a function": "SELECT set_config('client_encoding', 'GBK', false)",
    "GBK by a block": "DO $$ BEGIN PERFORM set_config('client_encoding', 'GBK', false); END $$",
    "strings by a view": "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'",
}  # fmt: skip
ANOTHER_USER = {
    "another session user": "SET SESSION AUTHORIZATION app", "another role": "SET ROLE app",
    "by a function": "SELECT set_config('role', 'app', false)",
}  # fmt: skip
DISGUISED = {"GBK": "SELECT E'中\\' ; DELETE FROM t --'", "strings": "SELECT '\\'' ; DELETE FROM t; --'"}
"""One SELECT to us, and a DELETE behind it to a server under that setting."""


@pytest.fixture(scope="module")
def permissive(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A policy that allows everything but DELETE, also what can't be read."""
    folder = tmp_path_factory.mktemp("permissive")

    class Permissive(VerbPolicy):
        def decide(self, facts: Facts) -> Decision:
            return super().decide(replace(facts, analysis=replace(facts.analysis, opaque=())))

    with running_proxy(configuration(server, folder), folder, Permissive(deny=frozenset({"delete"}))) as running:
        yield running


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("what", POISONS)
def test_a_setting_that_makes_text_ambiguous_ends_the_session(
    permissive: Proxy, server: PostgresServer, table: str, what: str, extended: bool
) -> None:
    text = POISONS[what]
    with WireClient.connect(permissive.port, "claude", "orders", permissive.password) as wire:
        wire.send(WireClient.extended(text) + WireClient.SYNC if extended else WireClient.query(text))
        fields = wire.fatal()
    assert (fields["S"], fields["C"]) == ("FATAL", "42501")
    assert "session-poisoned" in fields["D"]


@pytest.mark.parametrize("what", ANOTHER_USER)
def test_a_session_that_becomes_another_user_ends(permissive: Proxy, table: str, what: str) -> None:
    """Even where policy lets it: who runs the next statement is no longer who was decided about."""
    with WireClient.connect(permissive.port, "postgres@claude", "orders", permissive.password) as wire:
        wire.send(WireClient.query(ANOTHER_USER[what]))
        fields = wire.fatal()
    assert (fields["S"], fields["C"]) == ("FATAL", "42501")
    assert "session-poisoned" in fields["D"]


@pytest.mark.parametrize("way", ["simple", "extended", "without a Sync", "a Query without a Sync"])
@pytest.mark.parametrize("what", DISGUISED)
def test_nothing_that_was_sent_behind_such_a_setting_is_read_by_its_rules(
    permissive: Proxy, server: PostgresServer, table: str, what: str, way: str
) -> None:
    """The attack: setting and disguised text in one packet, so that the text is decided before the server has reported."""
    setting, disguised = POISONS[what], DISGUISED[what]
    sent = {
        "simple": WireClient.query(setting) + WireClient.query(disguised),
        "extended": WireClient.extended(setting) + WireClient.SYNC + WireClient.query(disguised),
        "without a Sync": WireClient.extended(setting) + WireClient.extended(disguised) + WireClient.SYNC,
        "a Query without a Sync": WireClient.extended(setting) + WireClient.query(disguised),
    }[way]
    with WireClient.connect(permissive.port, "claude", "orders", permissive.password) as wire:
        wire.send(sent)
        assert "session-poisoned" in wire.fatal()["D"]
    assert server.run("SELECT count(*) FROM t") == "10"
    assert "DELETE FROM t" not in server.log.split("SET ")[-1]


def test_a_setting_that_stays_as_it_is_ends_nothing(permissive: Proxy, table: str) -> None:
    with WireClient.connect(permissive.port, "claude", "orders", permissive.password) as wire:
        wire.send(WireClient.extended("SET client_encoding = 'UTF8'") + WireClient.extended("SELECT 1") + WireClient.SYNC)
        assert wire.until_ready() == ["1", "2", "C", "1", "2", "D", "C", "ZI"]


def test_a_broken_transcript_releases_nothing_and_ends_the_session(
    proxy: Proxy, wire: WireClient, server: PostgresServer
) -> None:
    session = next(iter(proxy.gate._live))

    def broken(*_drafts: EventDraft) -> int:
        raise EvidenceError

    session.recorder.append = broken  # type: ignore[method-assign]  # a full disk
    wire.send(WireClient.query("INSERT INTO t VALUES (500, 'unrecorded')"))
    assert "E58030" in wire.until_ready()
    assert server.run("SELECT count(*) FROM t WHERE id = 500") == "0"
