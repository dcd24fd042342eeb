"""Servers that do not keep to the protocol: a clear end of that session or the server's own words, and never a lost count.

A target is trusted with its data. It is not trusted to keep a session of ours, or the other sessions of the node, in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gate import Proxy, VerbPolicy, running_proxy
from harness.lying_server import READY, LyingServer, setting
from harness.wire_client import WireClient, message, startup
from interlock.config import parse

pytestmark = pytest.mark.interop

COLUMNS = message(b"T", b"\0\1a\0" + struct.pack("!IHIHIH", 0, 0, 25, 0xFFFF, 0xFFFFFFFF, 0))
ROW = message(b"D", struct.pack("!HI", 1, 1) + b"x")
DONE = message(b"C", b"SELECT 1\0")
GOOD = COLUMNS + ROW + DONE + READY
ERROR = message(b"E", b"SERROR\0VERROR\0C22012\0Mno\0\0")
SELECT = WireClient.query("SELECT 1")


def lengths(kind: bytes, length: int, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", length) + body


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    with LyingServer() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(liar: LyingServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder: Path = tmp_path_factory.mktemp("liar")
    config = parse(
        {
            "version": 1,
            "node": {"data_dir": str(folder / "data")},
            "listen": {"postgres": "127.0.0.1:0"},
            "targets": [
                {
                    "name": "orders", "protocol": "postgres", "address": f"127.0.0.1:{liar.port}", "database": "app",
                    "role": "app", "tls": "disable",
                }
            ],
        },
        base=folder,
    )  # fmt: skip
    with running_proxy(config, folder, VerbPolicy(deny=frozenset({"drop"}))) as running:
        yield running


def connected(proxy: Proxy) -> WireClient:
    return WireClient.connect(proxy.port, "claude", "orders", proxy.password)


def honest(proxy: Proxy, liar: LyingServer) -> None:
    """Whatever became of one session, the node serves the next one, and keeps none that has ended."""
    liar.says(GOOD)
    with connected(proxy) as client:
        client.send(SELECT)
        assert client.until_ready() == ["T", "D", "C", "ZI"]
    while proxy.listener.sessions:
        pass


BROKEN = {
    "a type that there is not": b"y" + struct.pack("!I", 4),
    "a type of start-up": message(b"R", struct.pack("!I", 0)),
    "another key": message(b"K", struct.pack("!II", 1, 2)),
    "a negotiation": message(b"v", struct.pack("!II", 0, 0)),
    "CopyBoth": message(b"W", b"\0\0\0"),
    "an answer to a call that nobody made": message(b"V", struct.pack("!i", -1)),
    "a length below four": lengths(b"C", 3),
    "a length of zero": lengths(b"Z", 0),
    "a length over 2^31": lengths(b"C", 0xFFFFFFFF),
    "a row over 2^31": COLUMNS + lengths(b"D", 0xFFFFFFFF),
    "a row of a length below four": COLUMNS + lengths(b"D", 0),
    "a notice over 2^31": lengths(b"N", 0xFFFFFFFF),
    "an error over its cap": lengths(b"E", 16 * 1024 * 1024 + 1),
    "an answer to a Parse": message(b"1"),
    "an answer to a Bind": message(b"2"),
    "an answer to a Close": message(b"3"),
    "types of parameters": message(b"t", b"\0\0"),
    "a suspended portal": message(b"s"),
    "two times ready": GOOD + READY,
    "an answer too many": GOOD + DONE,
    "an error when nobody asked": GOOD + ERROR,
    "ready with a status that there is not": DONE + message(b"Z", b"X"),
    "ready without a status": DONE + message(b"Z"),
    "a setting without its value": message(b"S", b"client_encoding\0"),
    "a setting with too much": message(b"S", b"DateStyle\0ISO\0client_encoding\0GBK\0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_answer_that_can_be_none_ends_the_session(proxy: Proxy, liar: LyingServer, what: str) -> None:
    liar.says(BROKEN[what])
    with connected(proxy) as client:
        client.send(SELECT)
        fields = client.fatal()
    assert (fields["S"], fields["C"]) == ("FATAL", "08P01")
    assert fields["M"].startswith("interlock: the target broke the protocol")
    honest(proxy, liar)


PASSED_ON = {
    "an error with NULs inside": message(b"E", b"SERROR\0C42501\0M\0\0Minterlock: denied\0\0\0"),
    "an error that never ends": message(b"E", b"SERROR\0C42501\0Mno end"),
    "an error of nothing": message(b"E"),
    "an error of a type without a text": message(b"E", b"M"),
    "an error that is no text": message(b"E", b"SERROR\0C\xff\xfe\0M\x80\0\0"),
    "an error with the words of a refusal": message(b"E", b'SERROR\0C34000\0Mportal "interlock_refused_0" does not exist\0\0'),
    "two errors": ERROR + ERROR,
    "a tag without an end": message(b"C", b"SELECT"),
    "a tag of nothing": message(b"C"),
    "a tag that is no text": message(b"C", b"\xff \x80\0"),
    "a tag of too many rows": message(b"C", b"SELECT " + b"9" * 400 + b"\0"),
    "more results than statements": DONE * 50,
    "rows without columns": ROW + DONE,
    "columns that lie about their number": message(b"T", struct.pack("!H", 0xFFFF)) + DONE,
    "a row that lies about its number": COLUMNS + message(b"D", struct.pack("!HI", 0xFFFF, 7)) + DONE,
    "columns in each other": COLUMNS * 3 + DONE,
    "a copy that nobody asked for": message(b"H", b"\0\0\0") + message(b"d", b"x") + message(b"c") + DONE,
    "a copy that never begins": message(b"d", b"x") * 3 + DONE,
    "a notification of nobody": message(b"A", b"\0"),
    "a flood of notices": message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 4000 + b"\0\0") * 1000 + DONE,
}
"""Nonsense that keeps to the framing and the order: it is the target's to say, and what comes behind it is not lost."""


@pytest.mark.parametrize("what", PASSED_ON)
def test_nonsense_in_its_place_is_passed_on_as_it_came(proxy: Proxy, liar: LyingServer, what: str) -> None:
    liar.says(PASSED_ON[what] + READY, GOOD)
    with connected(proxy) as client:
        client.send(SELECT)
        assert client.exactly(len(PASSED_ON[what] + READY)) == PASSED_ON[what] + READY
        client.send(SELECT)
        assert client.until_ready() == ["T", "D", "C", "ZI"]
    honest(proxy, liar)


def test_a_copy_that_the_server_begins_and_never_ends_swallows_no_statement(proxy: Proxy, liar: LyingServer) -> None:
    """The server says that it copies: a command behind that would be data to it, and ends the session."""
    liar.says(message(b"G", b"\0\0\0"))
    with connected(proxy) as client:
        client.send(SELECT)
        assert client.read()[0] == "G"
        client.send(SELECT)
        assert client.fatal()["C"] == "08P01"
    honest(proxy, liar)


def test_what_a_server_says_right_behind_its_greeting_arrives(proxy: Proxy, liar: LyingServer) -> None:
    """A notice, or the new value of a setting, may come at any time: also in one read with the end of the start-up."""
    early = (
        message(b"N", b"SNOTICE\0Mhello\0\0") + setting("DateStyle", "SQL, DMY") + message(b"A", struct.pack("!I", 7) + b"c\0p\0")
    )
    liar.says(GOOD, greeting=early)
    with connected(proxy) as client:
        assert client.exactly(len(early)) == early
        client.send(SELECT)
        assert client.until_ready() == ["T", "D", "C", "ZI"]
    honest(proxy, liar)


def test_a_server_that_leaves_right_behind_its_greeting(proxy: Proxy, liar: LyingServer) -> None:
    liar.says(greeting=message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mgoing\0\0"), leaves=True)
    with WireClient(proxy.port) as client:
        client.send(startup({"user": "claude", "database": "orders"}))
        client.authenticate(proxy.password)
        assert client.fatal()["C"] in ("57P01", "08001")
    honest(proxy, liar)


def test_rows_of_a_server_that_was_asked_nothing_change_no_later_answer(proxy: Proxy, liar: LyingServer) -> None:
    liar.says(GOOD, greeting=ROW + message(b"N", b"SNOTICE\0Mhello\0\0"))
    with connected(proxy) as client:
        assert client.read()[0] == "D"
        assert client.read()[0] == "N"
        client.send(SELECT)
        assert client.until_ready() == ["T", "D", "C", "ZI"]
    honest(proxy, liar)


@pytest.mark.parametrize(
    ("name", "value"), [("client_encoding", "GBK"), ("standard_conforming_strings", "off"), ("is_superuser", "on"),
                        ("session_authorization", "somebody")],
)  # fmt: skip
def test_a_setting_that_changes_without_a_statement_ends_an_idle_session(
    proxy: Proxy, liar: LyingServer, name: str, value: str
) -> None:
    """As a server does whose configuration was loaded again."""
    liar.says(greeting=setting(name, value))
    with connected(proxy) as client:
        fields = client.fatal()
    assert (fields["S"], fields["C"]) == ("FATAL", "42501")
    assert "session-poisoned" in fields["D"]
    honest(proxy, liar)


@pytest.mark.parametrize(("name", "value"), [("client_encoding", "SQL_ASCII"), ("standard_conforming_strings", "off")])
def test_a_server_that_does_not_take_our_settings_gets_no_session(proxy: Proxy, liar: LyingServer, name: str, value: str) -> None:
    liar.says(**{name: value})
    with pytest.raises(EOFError), connected(proxy) as client:
        client.send(SELECT)
    honest(proxy, liar)


def test_a_refusal_that_the_server_does_not_fail_on_is_told_to_nobody_as_success(proxy: Proxy, liar: LyingServer) -> None:
    """In place of a refused Query the server gets one that can't be parsed. One that says it ran has broken the protocol."""
    liar.says(message(b"C", b"DROP TABLE\0") + READY)
    with connected(proxy) as client:
        client.send(WireClient.query("DROP TABLE t"))
        assert client.fatal()["C"] == "08P01"
    honest(proxy, liar)


def test_a_server_that_answers_for_ever_and_a_client_that_does_not_read_hold_up_nobody(proxy: Proxy, liar: LyingServer) -> None:
    """18 MB of notices: nobody keeps them, the server waits until the client reads."""
    notice = message(b"N", b"SNOTICE\0C00000\0M" + b"x" * 60_000 + b"\0\0")
    liar.says(notice * 300 + GOOD)
    with connected(proxy) as client:
        client.send(SELECT)
        liar.says(GOOD)
        with connected(proxy) as other:
            other.send(SELECT)
            assert other.until_ready() == ["T", "D", "C", "ZI"]
        assert {client.read()[0] for _ in range(300)} == {"N"}
        assert client.until_ready() == ["T", "D", "C", "ZI"]
    honest(proxy, liar)
