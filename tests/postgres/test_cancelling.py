"""A cancel hits the statement that it was meant for, or nothing: late ones, early ones, storms of one's own.

What runs is a wait for an advisory lock, so a statement ends when the test says so and not when a clock does.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.gate import Proxy, VerbPolicy, configuration, running_proxy
from harness.overtaking import OvertakingWay
from harness.postgres_server import PostgresServer
from harness.wire_client import WireClient
from interlock.commands.model import Analysis, Command
from interlock.postgres.cancelling import Cancelling
from interlock.postgres.wire.pipeline import Asked, Pipeline, Step

ONE, TWO = (f"SELECT pg_advisory_lock({n})" for n in (71, 72))


@pytest.fixture
def way(server: PostgresServer) -> Iterator[OvertakingWay]:
    with OvertakingWay(server.port) as made:
        yield made


@pytest.fixture
def late(server: PostgresServer, way: OvertakingWay, tmp_path: Path) -> Iterator[Proxy]:
    """A proxy whose cancels arrive at the server when the test says so."""
    config = configuration(server, tmp_path)
    target = config.targets[0].model_copy(update={"address": f"127.0.0.1:{way.port}"})
    with running_proxy(config.model_copy(update={"targets": (target,)}), tmp_path, VerbPolicy()) as running:
        yield running


class Locks:
    """The locks that statements wait for, held by somebody else until they are let go."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._connection.execute(f"{ONE}; {TWO}")

    def wait_until_wanted(self, number: int) -> None:
        """Return once the server itself says that somebody waits for a lock."""
        waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        while self._connection.execute(waits, (number,)).fetchone() is None:
            pass

    def let_go(self, number: int) -> None:
        self._connection.execute("SELECT pg_advisory_unlock(%s)", (number,))


@pytest.fixture
def locks(server: PostgresServer) -> Iterator[Locks]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        yield Locks(connection)


def cancel(port: int, client: WireClient) -> WireClient:
    """Send a cancel request and do not wait for its end, as some drivers don't."""
    stranger = WireClient(port)
    stranger.send(struct.pack("!III", 12 + len(client.secret), 80877102, client.process) + client.secret)
    return stranger


@contextmanager
def session(proxy: Proxy) -> Iterator[WireClient]:
    with WireClient.connect(proxy.port, "claude", "orders", proxy.password) as client:
        yield client


def everything_was_read(proxy: Proxy, pinging: WireClient) -> None:
    """What was sent to the proxy before has been read and handled by the time that this one is answered."""
    for _ in range(3):
        pinging.send(WireClient.query("SELECT 'ping'"))
        assert pinging.until_ready() == ["T", "D", "C", "ZI"]


@pytest.mark.interop
@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_a_cancel_that_is_late_never_hits_the_next_statement(
    late: Proxy, way: OvertakingWay, locks: Locks, protocol: str
) -> None:
    asked: Callable[[str], bytes] = (
        WireClient.query if protocol == "simple" else lambda text: WireClient.extended(text) + WireClient.SYNC
    )
    answer = ["T", "D", "C", "ZI"] if protocol == "simple" else ["1", "2", "D", "C", "ZI"]
    with session(late) as client, session(late) as pinging:
        client.send(asked(ONE))
        locks.wait_until_wanted(71)
        with cancel(late.port, client) as cancelling:
            way.wait_for_cancels(1)
            locks.let_go(71)
            assert client.until_ready() == answer
            client.send(asked(TWO))
            everything_was_read(late, pinging)
            way.catch_up()
            assert TWO.encode() not in way.passed
            way.let_cancels_go()
            assert cancelling.fatal() == {}
        way.wait_until_passed(TWO.encode())
        locks.wait_until_wanted(72)
        locks.let_go(72)
        assert client.until_ready() == answer


@pytest.mark.interop
@pytest.mark.parametrize("asked", [WireClient.query("SELECT 'known'"), WireClient.extended("SELECT 'known'") + WireClient.SYNC],
                         ids=["simple", "extended"])  # fmt: skip
def test_a_statement_that_takes_the_short_way_waits_for_the_cancel_too(
    late: Proxy, way: OvertakingWay, locks: Locks, asked: bytes
) -> None:
    with session(late) as client, session(late) as pinging:
        for _ in range(4):
            client.send(asked)
            assert client.until_ready()[-1] == "ZI"
        before = way.passed.count(b"known")
        client.send(WireClient.query(ONE))
        locks.wait_until_wanted(71)
        with cancel(late.port, client) as cancelling:
            way.wait_for_cancels(1)
            locks.let_go(71)
            assert client.until_ready()[-1] == "ZI"
            client.send(asked)
            everything_was_read(late, pinging)
            assert way.passed.count(b"known") == before
            way.let_cancels_go()
            assert cancelling.fatal() == {}
        assert client.until_ready()[-2:] == ["C", "ZI"]


@pytest.mark.interop
def test_what_was_decided_meanwhile_waits_for_the_cancel_too(
    late: Proxy, way: OvertakingWay, locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second statement is being read when the cancel of the first one leaves."""
    reads, may_go_on = threading.Event(), asyncio.Event()
    classify = late.classifier.classify

    async def slowly(command: Command) -> Analysis:
        reads.set()
        await may_go_on.wait()
        return await classify(command)

    monkeypatch.setattr(late.classifier, "classify", slowly)
    late.classifier.slow.add(TWO.encode())
    with session(late) as client, session(late) as pinging:
        client.send(WireClient.query(ONE) + WireClient.query(TWO))
        locks.wait_until_wanted(71)
        assert reads.wait(30)
        with cancel(late.port, client) as cancelling:
            way.wait_for_cancels(1)
            locks.let_go(71)
            assert client.until_ready() == ["T", "D", "C", "ZI"]
            late.loop.call_soon_threadsafe(may_go_on.set)
            everything_was_read(late, pinging)
            way.catch_up()
            assert TWO.encode() not in way.passed
            way.let_cancels_go()
            assert cancelling.fatal() == {}
        locks.wait_until_wanted(72)
        locks.let_go(72)
        assert client.until_ready() == ["T", "D", "C", "ZI"]


@pytest.mark.interop
def test_a_server_forgets_a_cancel_that_overtakes_its_statement(server: PostgresServer, way: OvertakingWay, locks: Locks) -> None:
    """Without a proxy: this is the server's own race, which no client and no pooler can see."""
    way.let_cancels_go()
    with WireClient.connect(way.port, "app", "app", server.password) as client:
        way.keep_statements()
        client.send(WireClient.query(ONE))
        with cancel(way.port, client) as cancelling:
            assert cancelling.fatal() == {}
        way.let_statements_go()
        locks.wait_until_wanted(71)
        locks.let_go(71)
        assert client.until_ready() == ["T", "D", "C", "ZI"]


@pytest.mark.interop
@pytest.mark.parametrize("through", [False, True], ids=["directly", "through"])
def test_a_cancel_that_was_sent_before_its_statement_hits_nothing(
    late: Proxy, way: OvertakingWay, server: PostgresServer, locks: Locks, through: bool
) -> None:
    """Some drivers' own race. Nobody can tell it from one that comes late for the statement before: that one must hit nothing."""
    way.let_cancels_go()
    connecting = (late.port, "claude", "orders", late.password) if through else (server.port, "app", "app", server.password)
    with WireClient.connect(*connecting) as client:
        with cancel(connecting[0], client) as cancelling:
            assert cancelling.fatal() == {}
        client.send(WireClient.query(ONE))
        locks.wait_until_wanted(71)
        locks.let_go(71)
        assert client.until_ready() == ["T", "D", "C", "ZI"]


@pytest.mark.interop
def test_a_cancel_that_overtakes_its_statement_behind_us_is_sent_again(late: Proxy, way: OvertakingWay, locks: Locks) -> None:
    way.let_cancels_go()
    with session(late) as client, session(late) as pinging:
        way.keep_statements()
        client.send(WireClient.query(ONE))
        with cancel(late.port, client) as cancelling:
            assert cancelling.fatal() == {}
        assert ONE.encode() not in way.passed
        way.let_statements_go()
        assert "E57014" in client.until_ready()
        everything_was_read(late, pinging)
        client.send(WireClient.query("SELECT 'next'"))
        assert client.until_ready() == ["T", "D", "C", "ZI"]


@pytest.mark.interop
def test_a_client_that_leaves_while_its_cancel_is_under_way_is_gone(late: Proxy, way: OvertakingWay, locks: Locks) -> None:
    with session(late) as client:
        client.send(WireClient.query(ONE))
        locks.wait_until_wanted(71)
        cancelling = cancel(late.port, client)
        way.wait_for_cancels(1)
        client.send(WireClient.query(TWO))
    # The end of the session sends a cancel of its own: nothing runs on for somebody who is gone.
    way.wait_for_cancels(2)
    way.let_cancels_go()
    assert cancelling.fatal() == {}
    cancelling.socket.close()
    while late.listener.sessions:
        pass
    assert TWO.encode() not in way.passed


# -- the rule alone ------------------------------------------------------------------------------------------------------


class Server:
    """Counts the cancels that were sent, and takes them when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.sent = 0
        self.takes = asyncio.Event()
        self.takes.set()

    async def __call__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        self.asked += 1
        await self.takes.wait()
        self.sent += wanted()


def flying(*steps: Step) -> Pipeline:
    pipeline = Pipeline()
    for step in steps:
        pipeline.ask(Asked(step))
    return pipeline


async def again(pipeline: Pipeline, server: Server) -> Cancelling:
    """Cancel once; return when nothing is to be sent again."""
    cancelling = Cancelling(pipeline, server, lambda: None, again_after=(0, 0))
    await cancelling.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    return cancelling


@pytest.mark.parametrize(
    "steps",
    [(Step.QUERY,), (Step.PARSE, Step.BIND, Step.EXECUTE, Step.SYNC), (Step.EXECUTE,), (Step.PARSE, Step.BIND, Step.QUERY)],
    ids=lambda steps: "-".join(step.name for step in steps),
)
async def test_what_runs_alone_is_cancelled_again(steps: tuple[Step, ...]) -> None:
    server = Server()
    await again(flying(*steps), server)
    assert server.sent == 3


@pytest.mark.parametrize(
    "steps",
    [
        (Step.QUERY, Step.QUERY), (Step.EXECUTE, Step.SYNC, Step.EXECUTE, Step.SYNC), (Step.QUERY, Step.BIND, Step.EXECUTE),
        (Step.SYNC,),
    ],
    ids=lambda steps: "-".join(step.name for step in steps),
)  # fmt: skip
async def test_what_has_something_behind_it_is_cancelled_once(steps: tuple[Step, ...]) -> None:
    """The first cancel may have hit: the second would hit what stands behind."""
    server = Server()
    await again(flying(*steps), server)
    assert server.sent == 1


async def test_what_has_failed_or_has_been_followed_is_not_cancelled_again() -> None:
    for then in ("fails", "ends", "is followed"):
        pipeline, server = flying(Step.QUERY), Server()
        cancelling = Cancelling(pipeline, server, lambda: None, again_after=(0,))
        await cancelling.cancel()
        if then == "fails":
            pipeline.answer(ord("E"))
        elif then == "ends":
            pipeline.answer(ord("C"))
            pipeline.answer(ord("Z"))
        else:
            pipeline.ask(Asked(Step.QUERY))
        for _ in range(10):
            await asyncio.sleep(0)
        assert server.asked == server.sent == 1, then


async def test_a_cancel_for_what_has_ended_is_not_sent() -> None:
    pipeline, server, gone_on = flying(Step.QUERY), Server(), []
    server.takes.clear()
    cancelling = Cancelling(pipeline, server, lambda: gone_on.append(True))
    task = asyncio.create_task(cancelling.cancel())
    await asyncio.sleep(0)
    assert cancelling.under_way
    cancelling.afterwards(lambda: gone_on.append(False))
    pipeline.answer(ord("C"))
    pipeline.answer(ord("Z"))
    assert not gone_on
    server.takes.set()
    await task
    assert server.sent == 0
    assert gone_on == [False, True]


async def test_of_several_cancels_the_last_one_lets_go_on() -> None:
    pipeline, server, gone_on = flying(Step.QUERY), Server(), []
    server.takes.clear()
    cancelling = Cancelling(pipeline, server, lambda: gone_on.append(cancelling.under_way), again_after=())
    tasks = [asyncio.ensure_future(cancelling.cancel()) for _ in range(3)]
    await asyncio.sleep(0)
    server.takes.set()
    await asyncio.gather(*tasks)
    assert gone_on == [False]
    assert server.sent == 3
