"""How old the catalog may be: names that somebody created around the proxy, and texts that nobody could read."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251  seeded
from typing import Any, cast

import pytest

from fuzz.postgres_streams import Rig, opened_session
from harness.gate import Proxy
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient, message
from interlock.commands.model import Analysis, NameAction, Opaque
from interlock.postgres.catalog import CatalogSource
from interlock.postgres.schema import SchemaView
from interlock.postgres.statements import SessionNames

UNKNOWN = Analysis(opaque=(Opaque("unknown-relation", "young"),))


class Source:
    """A catalog source whose reading ends when the test says so."""

    def __init__(self) -> None:
        self.current: object | None = object()
        self.loading = False
        self.asked = 0
        self.idle_limit: float | None = None
        self.due = True
        self.read = asyncio.Event()

    def read_again(self) -> bool:
        self.asked += 1
        return self.due

    async def first_load(self, _timeout: float) -> None:
        await self.read.wait()


def view(source: Source) -> SchemaView:
    return SchemaView(cast("CatalogSource", cast("Any", source)))


async def test_only_an_unknown_name_asks_for_another_reading() -> None:
    source = Source()
    schema = view(source)
    assert not schema.outdated(None)
    assert not schema.outdated(Analysis(opaque=(Opaque("dynamic-sql"),)))
    assert source.asked == 0
    assert schema.outdated(UNKNOWN)
    source.due = False  # read a moment ago: the name means nothing, and the command is decided as it stands
    assert not schema.outdated(UNKNOWN)
    assert source.asked == 2


async def test_a_waiting_text_goes_on_when_the_reading_has_ended() -> None:
    source = Source()
    schema = view(source)
    gone_on = asyncio.Event()
    schema.wait(gone_on.set)
    assert schema.waiting is not None
    source.read.set()
    await gone_on.wait()
    assert schema.waiting is None


@pytest.mark.parametrize("asked", ["a Query", "a Parse", "a Bind"])
async def test_what_is_cancelled_while_the_catalog_is_read_does_not_run(asked: str) -> None:
    """The server has nothing to cancel then, so nobody else would know of it."""
    source = Source()
    source.current = None
    rig = Rig(await opened_session(), random.Random(1), catalog=source)
    text = "SELECT 'cancelled'"
    if asked == "a Bind":
        rig.session.from_client(WireClient.parse("", text))
        assert rig.server.take() == WireClient.parse("", text)
        rig.session.from_server(message(b"1"))
    source.loading = True
    sent = {
        "a Query": WireClient.query,
        "a Parse": lambda text: WireClient.parse("", text),
        "a Bind": lambda _: WireClient.bind("", ""),
    }
    rig.session.from_client(sent[asked](text) + WireClient.SYNC)
    await rig.rest()
    assert rig.server.take() == b""
    await rig.session.cancel()
    source.loading = False
    source.read.set()
    await rig.rest()
    reached = rig.server.take()
    assert b"interlock_refused_" in reached and b"cancelled" not in reached and reached[:1] != b"B"
    code, said = (b"34000" if asked == "a Bind" else b"42601"), reached[5:-5].replace(b"\0", b"")
    failed = b"SERROR\0VERROR\0C" + code + b"\0M" + said + b"\0\0"
    rig.session.from_server(message(b"E", failed) + message(b"Z", b"I"))
    assert b"C57014" in rig.client.take()
    rig.session.from_client(WireClient.query("SELECT 'next'"))
    await rig.rest()
    assert b"next" in rig.server.take()


async def test_a_session_that_ends_meanwhile_is_not_called_back() -> None:
    schema = view(Source())
    called: list[bool] = []
    schema.wait(lambda: called.append(True))
    waiting = schema.waiting
    assert waiting is not None
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not called


def test_temporary_objects_are_ruled_out_only_while_every_text_was_read() -> None:
    """An emptied search_path leaves system relations known; with pg_temp objects they could be somebody else's."""
    names = SessionNames(("public", "pg_temp"), lambda: None)
    names.apply((NameAction("set", "search_path", ""),), text=b"", release=1, stretch=0, idle=True)
    assert names.context().tainted
    assert not names.context().temporary
    before = names.context()
    names.ran_unread_text()
    assert names.context() is not before
    assert names.context().temporary


def test_a_temporary_table_is_remembered() -> None:
    names = SessionNames(("public", "pg_temp"), lambda: None)
    names.apply((NameAction("temp-ddl", "pg_settings"),), text=b"", release=1, stretch=0, idle=True)
    assert names.context().temporary


@pytest.mark.interop
def test_a_table_created_around_the_proxy_is_read_without_a_human(proxy: Proxy, server: PostgresServer) -> None:
    """The snapshot does not hold the table: the catalog is read again before anybody is asked, also for a Bind."""
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        client.send(WireClient.query("SELECT id FROM t LIMIT 0"))
        assert client.until_ready() == ["T", "C", "ZI"]
        server.run("CREATE TABLE young AS SELECT 7 AS id")
        client.send(WireClient.extended("SELECT id FROM young") + WireClient.SYNC)
        assert client.until_ready() == ["1", "2", "D", "C", "ZI"]
        client.send(WireClient.query("SELECT id FROM young"))
        assert client.until_ready() == ["T", "D", "C", "ZI"]
