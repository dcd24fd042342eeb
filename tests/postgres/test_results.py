"""How many rows a statement changed or gave is on record, from the server's own command tag, whatever kind it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message
from interlock.postgres.wire.answers import rows_of

BEFORE = {
    "FETCH": "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t", "FETCH to its end": "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t",
    "MOVE": "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t", "CLOSE": "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t",
    "EXECUTE": "PREPARE p AS UPDATE t SET v = 'p' WHERE id < 4",
}  # fmt: skip
RESULTS: dict[str, tuple[str, list[tuple[str, int | None]]]] = {
    "SELECT": ("SELECT * FROM t", [("SELECT 10", 10)]),
    "no row": ("SELECT * FROM t WHERE id > 99", [("SELECT 0", 0)]),
    "VALUES": ("VALUES (1), (2)", [("SELECT 2", 2)]),
    "TABLE": ("TABLE t", [("SELECT 10", 10)]),
    "INSERT": ("INSERT INTO bulk SELECT i, 'x' FROM generate_series(1, 7) i", [("INSERT 0 7", 7)]),
    "INSERT of nothing": ("INSERT INTO t VALUES (1, 'x') ON CONFLICT DO NOTHING", [("INSERT 0 0", 0)]),
    "UPDATE": ("UPDATE t SET v = 'y' WHERE id < 4", [("UPDATE 3", 3)]),
    "DELETE with RETURNING": ("DELETE FROM t WHERE id < 3 RETURNING id", [("DELETE 2", 2)]),
    "MERGE": (
        "MERGE INTO t USING (VALUES (1), (200)) s (i) ON id = i WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (i)",
        [("MERGE 2", 2)],
    ),
    "CREATE TABLE AS": ("CREATE TEMP TABLE made AS SELECT * FROM t", [("SELECT 10", 10)]),
    "SELECT INTO": ("SELECT * INTO TEMP taken FROM t", [("SELECT 10", 10)]),
    "FETCH": ("FETCH 4 FROM c", [("FETCH 4", 4)]),
    "FETCH to its end": ("FETCH ALL FROM c", [("FETCH 10", 10)]),
    "MOVE": ("MOVE 6 FROM c", [("MOVE 6", 6)]),
    "CLOSE": ("CLOSE c", [("CLOSE CURSOR", None)]),
    "EXECUTE": ("EXECUTE p", [("UPDATE 3", 3)]),
    "EXPLAIN": ("EXPLAIN SELECT 1", [("EXPLAIN", None)]),
    "a setting": ("SET statement_timeout = 0", [("SET", None)]),
    "a definition": ("CREATE TEMP TABLE empty (id int)", [("CREATE TABLE", None)]),
    "nothing": ("", [("", None)]),
    "several": (
        "INSERT INTO t VALUES (101), (102); SELECT * FROM t WHERE id > 100; SET jit = on; DELETE FROM t WHERE id > 101",
        [("INSERT 0 2", 2), ("SELECT 2", 2), ("SET", None), ("DELETE 1", 1)],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def free(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("free")
    with running_proxy(configuration(server, folder), folder, VerbPolicy()) as running:
        yield running


def recorded(proxy: Proxy, kind: str, text: str) -> list[tuple[str, int | None]]:
    """Return (tag, rows) of each result that refers to the one command with this text."""
    events = proxy.events()
    command = [e for e in events if e["type"] == kind and e["disclosed"]["text"] == text][-1]
    session = [e for e in events if e["session"] == command["session"]]
    decision = next(e for e in session if e["type"] == "decision" and e["ref"] == command["seq"])
    return [(e["tag"], e["rows"]) for e in session if e["type"] == "pg.result" and e["ref"] == decision["seq"] and "tag" in e]


@pytest.mark.interop
@pytest.mark.parametrize("what", RESULTS)
def test_a_query_is_recorded_with_its_counts(free: Proxy, table: str, what: str) -> None:
    text, expected = RESULTS[what]
    with WireClient.connect(free.port, "claude", "orders", free.password) as wire:
        if what in BEFORE:
            wire.send(WireClient.query(BEFORE[what]))
            wire.until_ready()
        wire.send(WireClient.query(text))
        assert not [word for word in wire.until_ready() if word.startswith("E")], wire.errors
    assert recorded(free, "pg.query", text) == expected


@pytest.mark.interop
@pytest.mark.parametrize("what", [what for what, (_, results) in RESULTS.items() if len(results) == 1 if what not in BEFORE])
def test_a_bind_is_recorded_with_its_counts(free: Proxy, table: str, what: str) -> None:
    text, expected = RESULTS[what]
    with WireClient.connect(free.port, "claude", "orders", free.password) as wire:
        wire.send(WireClient.extended(text) + WireClient.SYNC)
        assert not [word for word in wire.until_ready() if word.startswith("E")], wire.errors
    assert recorded(free, "pg.bind", text) == expected


@pytest.mark.interop
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_a_copy_is_recorded_with_its_counts(free: Proxy, table: str, extended: bool) -> None:
    came, went = "COPY bulk FROM STDIN", "COPY t TO STDOUT"
    with WireClient.connect(free.port, "claude", "orders", free.password) as wire:
        for text, data in ((came, message(b"d", b"1\tone\n2\ttwo\n") + message(b"c")), (went, b"")):
            wire.send((WireClient.extended(text) + data + WireClient.SYNC) if extended else WireClient.query(text) + data)
            assert wire.until_ready()[-1] == "ZI"
    kind = "pg.bind" if extended else "pg.query"
    assert (recorded(free, kind, came), recorded(free, kind, went)) == ([("COPY 2", 2)], [("COPY 10", 10)])


@pytest.mark.parametrize(
    ("tag", "rows"),
    [
        (b"INSERT 0 5", 5), (b"SELECT 0", 0), (b"MERGE 3", 3), (b"COPY 12", 12), (b"BEGIN", None), (b"", None),
        (b"SELECT ", None),
        (b"SELECT -1", None), (b"SELECT 1.5", None), (b"SELECT \xb2", None), (b"SELECT " + b"9" * 15, 10**15 - 1),
        (b"SELECT " + b"9" * 16, None), (b"SELECT " + b"9" * 5000, None),
    ],
)  # fmt: skip
def test_a_tag_of_any_shape_is_a_number_of_rows_or_none(tag: bytes, rows: int | None) -> None:
    """A broken server must not end what reads it: Python refuses a number of 5,000 digits."""
    assert rows_of(tag) == rows
