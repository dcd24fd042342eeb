"""Whole messages that ask for what there is not: the server's own error, to the letter, and the session goes on.

Each is sent to a bare server and through the proxy, in every state that a session can be in.
"""

from __future__ import annotations

import random  # noqa: TID251  seeded
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fuzz.postgres_streams import Rig, opened_session
from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message

pytestmark = pytest.mark.interop

FLUSHED, SYNC = WireClient.FLUSH, WireClient.SYNC
PREPARED = WireClient.parse("two", "SELECT $1::text, $2::text")


def bind(codes: tuple[int, ...], values: list[bytes], results: tuple[int, ...] = (), statement: bytes = b"two") -> bytes:
    body = b"\0" + statement + b"\0" + struct.pack(f"!H{len(codes)}h", len(codes), *codes) + struct.pack("!H", len(values))
    body += b"".join(struct.pack("!i", len(value)) + value for value in values)
    return message(b"B", body + struct.pack(f"!H{len(results)}h", len(results), *results))


UNACCEPTABLE = {
    "Bind with a format of 2": bind((2,), [b"a", b"b"]),
    "Bind with a format of 2 for the second value": bind((0, 2), [b"a", b"b"]),
    "Bind with a negative format": bind((-1,), [b"a", b"b"]),
    "Bind with three formats for two values": bind((0, 0, 0), [b"a", b"b"]),
    "Bind with two formats for no value": bind((0, 0), []),
    "Bind with formats that are wrong in number and kind": bind((0, 7, 2), [b"a", b"b"]),
    "Bind of a statement whose name is not UTF-8": bind((), [], statement=b"a\xff"),
    "Describe of neither": message(b"D", b"X\0"),
    "Describe of nothing": message(b"D", b"\0two\0"),
    "Close of neither": message(b"C", b"Xtwo\0"),
    "Describe of a name that is not UTF-8": message(b"D", b"S\xe2\x28\xa1\0"),
    "Close of a name that ends inside a character": message(b"C", b"P\xf0\x9f\0"),
    "Execute of a name that is not UTF-8": message(b"E", b"\xed\xa0\x80\0\0\0\0\0"),
    "Parse of a name that is not UTF-8": message(b"P", b"\xc0\x80\0SELECT 1\0\0\0"),
    "Parse of a name with a byte that no character has": message(b"P", b"a\xffbcd\0SELECT 1\0\0\0"),
    "Parse of a name that begins inside a character": message(b"P", b"\xa1bcd\0SELECT 1\0\0\0"),
}
"""Refused here in the server's words, and not sent."""

THE_SERVERS_OWN = {
    "Bind with one value for two": bind((), [b"a"]),
    "Bind with three values for two": bind((), [b"a"] * 3),
    "Bind with three formats of results for two columns": bind((), [b"a", b"b"], (0, 0, 0)),
    "Bind with a result format of 2": bind((), [b"a", b"b"], (2,)) + WireClient.describe("P", "") + WireClient.execute(""),
    "Bind with a result format of -1 for the second column": bind((), [b"a", b"b"], (0, -1)) + WireClient.execute(""),
    "Bind with two results asked for in one form": bind((), [b"a", b"b"], (1,)) + WireClient.execute(""),
    "Execute of -5 rows": bind((), [b"a", b"b"]) + WireClient.execute("", -5),
    "Execute of a portal that nobody bound": WireClient.execute("nobody"),
}
"""Sent on: the server refuses them, or takes them."""

BULK = WireClient.extended("INSERT INTO bulk VALUES (1, 'x')")
STATES = {
    "alone": ([], SYNC, []),
    "with a Flush": ([], FLUSHED + SYNC, []),
    "inside a pipeline": ([], BULK + SYNC, []),
    "in a transaction": ([WireClient.query("BEGIN; INSERT INTO bulk VALUES (1, 'x')")], SYNC, [WireClient.query("COMMIT")]),
    "before a Query without a Sync": ([], WireClient.query("INSERT INTO bulk VALUES (1, 'x')") + SYNC, []),
}
"""What is sent before and answered, what is sent behind in the same write, and what is sent then."""


@pytest.fixture
def both(proxy: Proxy, server: PostgresServer, table: str) -> Iterator[tuple[WireClient, WireClient]]:
    with ExitStack() as opened:
        bare = opened.enter_context(WireClient.connect(server.port, "app", "app", server.password))
        wire = opened.enter_context(WireClient.connect(proxy.port, "claude", "orders", proxy.password))
        for client in (bare, wire):
            client.send(PREPARED + SYNC)
            assert client.until_ready() == ["1", "ZI"]
        yield bare, wire


def said(client: WireClient, *sends: bytes) -> tuple[list[list[str]], list[tuple[str, ...]]]:
    """Return the types of all answers, and what each error says."""
    client.errors.clear()
    answers = []
    for data in sends:
        client.send(data)
        answers.append(client.until_ready())
    return answers, [(fields["S"], fields["C"], fields["M"]) for fields in client.errors]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", [*UNACCEPTABLE, *THE_SERVERS_OWN])
def test_the_answer_is_the_servers_and_the_session_goes_on(
    both: tuple[WireClient, WireClient], server: PostgresServer, what: str, state: str
) -> None:
    before, behind, after = STATES[state]
    sent = {**UNACCEPTABLE, **THE_SERVERS_OWN}[what]
    use = bind((0, 1), [b"a", b"b"]) + WireClient.execute("") + SYNC
    bare, through = (
        said(client, *before, (BULK if "pipeline" in state else b"") + sent + behind, *after, use, WireClient.query("SELECT 1"))
        for client in both
    )
    assert through == bare
    if what in UNACCEPTABLE:
        assert len(bare[1]) == 1
        assert server.run("SELECT count(*) FROM bulk") == "0"


@pytest.mark.parametrize("what", UNACCEPTABLE)
def test_behind_an_error_it_is_skipped_unread(both: tuple[WireClient, WireClient], what: str) -> None:
    bare, through = (said(client, WireClient.bind("", "nobody") + UNACCEPTABLE[what] + SYNC) for client in both)
    assert through == bare == ([["E26000", "ZI"]], [("ERROR", "26000", 'prepared statement "nobody" does not exist')])


@pytest.mark.parametrize("what", UNACCEPTABLE)
def test_in_a_failed_transaction_it_is_an_error_as_well(both: tuple[WireClient, WireClient], what: str) -> None:
    """A server looks at format codes after the state of the transaction. Either way it stays failed, and can be ended."""
    bare, through = (
        said(client, WireClient.query("BEGIN; SELECT 1/0"), UNACCEPTABLE[what] + SYNC, WireClient.query("ROLLBACK"))
        for client in both
    )
    assert [[answer[:1] for answer in answers] for answers in through[0]] == [[a[:1] for a in answers] for answers in bare[0]]
    if bare[1][1][1] != "25P02":
        assert through == bare


@pytest.mark.parametrize("what", UNACCEPTABLE)
def test_inside_copy_it_ends_the_session_as_any_command_does(
    both: tuple[WireClient, WireClient], server: PostgresServer, what: str
) -> None:
    for client in both:
        client.send(WireClient.query("COPY bulk FROM STDIN") + message(b"d", b"1\tx\n") + UNACCEPTABLE[what])
        assert client.fatal()["C"] == "08P01"
    assert server.run("SELECT count(*) FROM bulk") == "0"


@pytest.mark.parametrize("what", UNACCEPTABLE)
async def test_nothing_of_it_reaches_the_server(what: str) -> None:
    """Were it sent on for the server to refuse, the input functions of the values before its fault would run undecided."""
    rig = Rig(await opened_session(), random.Random(1))
    before = len(rig.server.take())
    rig.session.from_client(UNACCEPTABLE[what] + SYNC)
    sent = rig.server.take()
    assert not before
    assert sent[:1] == b"E"
    assert sent[5:].startswith(b"interlock_refused_")
    assert sent[1 + struct.unpack_from("!I", sent, 1)[0] :] == SYNC
