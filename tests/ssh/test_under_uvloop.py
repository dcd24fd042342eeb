"""What must hold on the event loop that the daemon has: order and backpressure come from it, and uvloop's are not asyncio's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh
import pytest
import uvloop

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, until
from interlock.approvals.model import VoteVerdict
from interlock.ssh import dialling as target_leg
from interlock.ssh import visit as client_leg
from interlock.ssh.acks import SMALL, acknowledge
from interlock.ssh.relay import Relay

pytestmark = pytest.mark.interop

Scenario = Callable[[SshBench], Awaitable[None]]


def at_work(tmp_path: Path, scenario: Scenario) -> None:
    async def work() -> None:
        target = OpenSshServer()
        bench = SshBench(tmp_path / "proxy", target)
        await target.start()
        try:
            await bench.start()
            try:
                async with asyncio.timeout(60):
                    await scenario(bench)
            finally:
                await bench.stop()
        finally:
            await target.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def test_the_status_waits_for_all_the_data(tmp_path: Path) -> None:
    """asyncssh reports a status before data that it still buffers (design: the first of its two traps)."""
    received, at_exit = [0], []

    class Client(asyncssh.SSHClientSession[bytes]):
        def data_received(self, data: bytes, datatype: int | None) -> None:
            received[0] += len(data)

        def exit_status_received(self, status: int) -> None:
            at_exit.append((status, received[0]))

        def connection_lost(self, exc: Exception | None) -> None:
            over.set()

    over = asyncio.Event()

    async def scenario(bench: SshBench) -> None:
        async with await bench.raw() as connection:
            await connection.create_session(Client, "head -c 3000000 /dev/zero; exit 3", encoding=None, window=32768)
            await over.wait()
        assert at_exit == [(3, 3_000_000)]

    at_work(tmp_path, scenario)


def test_a_client_that_has_stopped_reading_before_the_target_answers_holds_it_back(tmp_path: Path) -> None:
    async def scenario(bench: SshBench) -> None:
        connection = await bench.raw()
        process = await connection.create_process("read x; head -c 100000000 /dev/zero", encoding=None, window=1)
        process.stdin.write(b"\n")
        recorder = bench.memory.transcripts.sessions[0]
        await until(lambda: recorder.of("term.output"))
        quiet, seen = 0, -1
        while quiet < 3:  # the flow has stopped when the record does not grow any more
            await asyncio.sleep(0.1)
            size = sum(int(str(event.fields["bytes"])) for event in recorder.of("term.output"))
            quiet, seen = (quiet + 1, seen) if size == seen else (0, size)
        assert 0 < seen < 24_000_000
        connection.abort()
        await connection.wait_closed()

    at_work(tmp_path, scenario)


class Clogged:
    """A client's side that takes nothing when the target's channel is made (relay.ClientSide)."""

    clogged = True

    def __init__(self) -> None:
        self.got = 0

    def send(self, data: bytes, stream: int) -> None:
        self.got += len(data)

    def send_eof(self) -> None: ...

    def hold_input(self) -> None: ...

    def let_input(self) -> None: ...

    def widen(self, window: int) -> None: ...

    async def drained(self) -> None: ...

    def finish(self, status: int) -> None: ...

    def finish_by_signal(self, name: str, core: bool, message: str, lang: str) -> None: ...


def test_a_channel_that_is_paused_when_it_is_made_stays_paused(tmp_path: Path) -> None:
    """asyncio keeps a pause from within connection_made, transports of uvloop do not (the second trap)."""

    async def scenario(bench: SshBench) -> None:
        client = Clogged()
        relay = Relay(client, lambda stream, data: None)
        connection = await asyncssh.connect(
            "127.0.0.1", bench.target.port, username=bench.target.account, client_keys=[bench.target.operator], config=None,
            agent_path=None, known_hosts=None,
        )  # fmt: skip
        async with connection:
            await connection.create_session(lambda: relay, "head -c 3000000 /dev/zero", encoding=None, window=65536)
            for word in ("one", "two", "three"):  # whatever the target sent of the first is here before these answers
                assert (await connection.run(f"echo {word}")).stdout == f"{word}\n"
            assert client.got == 0
            relay.let_output()
            ending = await relay.ended
        assert (ending.status, client.got) == (0, 3_000_000)

    at_work(tmp_path, scenario)


def test_what_is_typed_before_the_decision_waits_at_the_client(tmp_path: Path) -> None:
    async def scenario(bench: SshBench) -> None:
        async with await bench.raw() as connection:
            process = await connection.create_process("rm -f x", encoding=None)
            request = await bench.memory.approvals.next_request()
            process.stdin.write(bytes(1_000_000))
            assert (await connection.run("echo meanwhile")).stdout == "meanwhile\n"  # everything before it has arrived
            channels = [channel for client in bench.listener._house.connections for channel in client._session_channels()]
            kept = [sum(len(data) for data, _ in channel._recv_buf) for channel in channels]
            assert 0 < max(kept) <= bench.limits.held_window
            assert process.channel.get_write_buffer_size() >= 1_000_000 - bench.limits.held_window
            bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
            assert (await process.wait()).exit_status == 0
        assert bench.memory.transcripts.all("term.input") == []

    at_work(tmp_path, scenario)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux has it")
def test_small_reads_are_acknowledged_at_once_on_both_legs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: dict[str, list[tuple[int, int]]] = {"client": [], "target": []}

    def watched(leg: str) -> Callable[[asyncio.BaseTransport | None, int], None]:
        def watch(transport: asyncio.BaseTransport | None, read: int) -> None:
            assert transport is not None
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)  # what the kernel does by itself after a while
            acknowledge(transport, read)
            states[leg].append((read, sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK)))

        return watch

    monkeypatch.setattr(client_leg, "acknowledge", watched("client"))
    monkeypatch.setattr(target_leg, "acknowledge", watched("target"))

    async def scenario(bench: SshBench) -> None:
        assert (await bench.ssh("head -c 3000000 /dev/zero")).status == 0

    at_work(tmp_path, scenario)
    for seen in states.values():
        assert len(seen) > 4
        assert all(state == (read <= SMALL) for read, state in seen)
    assert any(read > SMALL for read, _ in states["target"])
