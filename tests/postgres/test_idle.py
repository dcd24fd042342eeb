"""A command that waits inside a transaction is idle time to the server: the wait ends before the server ends the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient
from interlock.approvals.model import Presence, State
from interlock.commands.model import NameAction
from interlock.postgres.idle import SETTING, IdleLimit, seconds

HELD = WireClient.query("BEGIN") + WireClient.query("DELETE FROM t") + WireClient.query("ROLLBACK")
"""Sent at once, so that the only idle time is the wait."""
HANDED_BACK = [["C", "ZT"], ["E55P03", "ZE"], ["C", "ZI"]]


@pytest.fixture(scope="module")
def waiting(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy whose own bounds are far beyond the server's, and a database `limited` that ends idle transactions after 2 s."""
    server.run("CREATE DATABASE limited OWNER app", user="postgres", database="postgres")
    server.run(f"ALTER DATABASE limited SET {SETTING} = '2s'", user="postgres", database="postgres")
    server.run("CREATE TABLE t (id int)", database="limited")
    folder: Path = tmp_path_factory.mktemp("waiting")
    policy = VerbPolicy(review=frozenset({"delete"}), hold=600)
    config = configuration(server, folder, approvals={"max_hold_in_transaction": "300s"})
    with running_proxy(config, folder, policy) as running:
        yield running


def answers(wire: WireClient, sent: bytes) -> list[list[str]]:
    wire.send(sent)
    return [wire.until_ready() for _ in range(3)]


@pytest.mark.interop
def test_a_hold_in_a_transaction_ends_before_the_limit_of_the_database(waiting: Proxy) -> None:
    with WireClient.connect(waiting.port, "claude", "orders/limited", waiting.password) as wire:
        assert answers(wire, HELD) == HANDED_BACK
        assert any("keeps its locks, so this waits 1s at most" in text for text in wire.notices)
    request = waiting.wait_for(lambda r: r.draft.target.database == "limited")
    assert (request.state, request.presence) == (State.PENDING, Presence.RETURNED)


@pytest.mark.interop
@pytest.mark.parametrize("way", ["at start-up", "by options", "by SET"])
def test_a_hold_in_a_transaction_ends_before_the_limit_of_the_session(waiting: Proxy, table: str, way: str) -> None:
    asked = {"at start-up": {SETTING: "2s"}, "by options": {"options": f"-c {SETTING}=2000"}}.get(way, {})
    with WireClient.connect(waiting.port, "claude", "orders", waiting.password, **asked) as wire:
        if way == "by SET":
            wire.send(WireClient.query(f"SET {SETTING} = '2s'"))
            assert wire.until_ready() == ["C", "ZI"]
        assert answers(wire, HELD) == HANDED_BACK


@pytest.mark.interop
def test_a_server_that_ends_idle_sessions_lets_one_wait(waiting: Proxy, server: PostgresServer, table: str) -> None:
    """Outside a transaction nothing is locked, and the client is not idle: the server's clock of idle time must not run."""
    with WireClient.connect(waiting.port, "claude", "orders", waiting.password) as wire:
        wire.send(WireClient.query("SET idle_session_timeout = '1s'") + WireClient.query("DELETE FROM t WHERE id = 3"))
        assert wire.until_ready() == ["C", "ZI"]
        request = waiting.pending()
        passed = f"SELECT clock_timestamp() - state_change > '1500ms' FROM pg_stat_activity WHERE pid = {wire.process}"
        while server.run(passed, user="postgres") == "f":
            pass
        waiting.approve(request)
        assert wire.until_ready() == ["C", "ZI"]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("5000", 5.0), ("5s", 5.0), (" 1 min ", 60.0), ("2h", 7200.0), ("1.5s", 1.5), ("250000us", 0.25), ("1d", 86400.0),
        ("0", 0.0), ("", None), ("soon", None), ("5 S", None), ("-1", None), ("1s1s", None), ("9" * 40, None),
    ],
)  # fmt: skip
def test_values_are_read_as_the_server_reads_them(value: str, read: float | None) -> None:
    assert seconds(value) == read


def test_the_shortest_limit_that_may_be_in_force_counts() -> None:
    limit = IdleLimit("", lambda: 60.0)
    assert limit.seconds == 60.0
    limit.follow([NameAction("set", SETTING, "20s")], lasting=True)
    assert limit.seconds == 20.0
    limit.follow([NameAction("begin"), NameAction("set", SETTING.upper(), "0")], lasting=False)
    assert limit.seconds == 20.0  # a ROLLBACK would bring it back
    limit.follow([NameAction("set", SETTING, "5s")], lasting=False)
    assert limit.seconds == 5.0
    limit.follow([NameAction("reset", "all")], lasting=False)
    assert limit.seconds == 5.0
    limit.follow([NameAction("discard", "all")], lasting=True)
    assert limit.seconds == 60.0
    limit.follow([NameAction("set", SETTING, "0")], lasting=True)
    assert limit.seconds is None


def test_what_the_start_up_packet_asked_for_goes_before_the_servers_own() -> None:
    assert IdleLimit("3s", lambda: 60.0).seconds == 3.0
    assert IdleLimit("0", lambda: 60.0).seconds is None
    assert IdleLimit("soon", lambda: 60.0).seconds == 60.0
    assert IdleLimit().seconds is None
