"""Clients that want to use the proxy up: half-open connections, unfinished key exchanges, questions without listening."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_GLOBAL_REQUEST, MSG_KEXINIT, MSG_REQUEST_FAILURE
from asyncssh.packet import Boolean, SSHPacket, String, UInt32

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, until
from harness.ssh_forger import Forger
from interlock.ssh.connection import ClientConnection
from interlock.ssh.limits import Limits

pytestmark = pytest.mark.interop


async def started(tmp_path: Path, target: OpenSshServer, **settings: Any) -> SshBench:
    bench = SshBench(tmp_path / "proxy", target, **settings)
    await bench.start()
    return bench


def inner(bench: SshBench) -> ClientConnection:
    (connection,) = bench.listener._house.connections
    return connection


# -- before anybody is in -----------------------------------------------------------------------------------------------

KEXINIT_HEAD = (1500).to_bytes(4, "big") + bytes([4, 20])

HALVES = [
    b"", b"SSH-", b"SSH-2.0-slow", b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-OpenSSH_9.6\r\n" + KEXINIT_HEAD,
    b"SSH-2.0-OpenSSH_9.6\r\n" + KEXINIT_HEAD + b"x" * 700,
]  # fmt: skip
"""How far a client that never finishes gets: nothing, a part of its banner, a part of its first packet."""


async def test_two_hundred_half_open_connections_do_not_hinder_a_login(bench: SshBench) -> None:
    halves = []
    for number in range(200):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port)
        writer.write(HALVES[number % len(HALVES)])
        halves.append((reader, writer))
    for reader, _ in halves:  # each has been taken and answered: none waits for another
        assert (await reader.readline()).startswith(b"SSH-2.0-Interlock")
    assert bench.listener.inside == 200
    assert (await bench.ssh("echo in")).out == b"in\n"
    assert bench.listener.inside >= 200, "they are still there"
    for _, writer in halves:
        writer.close()


@pytest.mark.parametrize("half", HALVES[1:])
async def test_whoever_stops_halfway_is_closed_at_the_deadline(tmp_path: Path, target: OpenSshServer, half: bytes) -> None:
    bench = await started(tmp_path, target, limits=Limits(handshake=0.2, login=30))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port)
        writer.write(half)
        async with asyncio.timeout(30):
            try:
                await reader.read()
            except ConnectionResetError:
                pass
        writer.close()
        await until(lambda: bench.listener.inside == 0)
    finally:
        await bench.stop()


async def test_whoever_never_authenticates_is_closed_at_the_deadline(tmp_path: Path, target: OpenSshServer) -> None:
    bench = await started(tmp_path, target, limits=Limits(handshake=300, login=0.3))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port)
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"SSH-2.0-Interlock")
        writer.close()
        await until(lambda: bench.listener.inside == 0)
    finally:
        await bench.stop()


async def test_whoever_only_ever_shows_keys_is_sent_away(tmp_path: Path, target: OpenSshServer) -> None:
    """A key that is known is no failed attempt when it is only shown, so there is a bound of its own."""
    bench = await started(tmp_path, target, limits=Limits(login_offers=5))
    forger = await Forger.connect(bench.listener.port, str(bench.directory / "proxy_known_hosts"))
    try:
        answers = []
        while not answers or answers[-1] == "offered":
            forger.offer(bench.key, "web-1")
            async with asyncio.timeout(30):
                answers.append(await forger.answers.get())
        assert answers == ["offered"] * 5 + ["closed"]
    finally:
        forger.abort()
        await bench.stop()


# -- inside ----------------------------------------------------------------------------------------------------------------


class Stalling(asyncssh.SSHClientConnection):
    """Begins a key exchange when told, and never takes part in one again."""

    stalling = False

    async def _process_some_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if not self.stalling:
            await super()._process_kexinit(pkttype, pktid, packet)

    _packet_handlers = {**asyncssh.SSHClientConnection._packet_handlers, MSG_KEXINIT: _process_some_kexinit}  # noqa: RUF012


async def stalling(bench: SshBench) -> Stalling:
    connection, login = await bench.begun(Stalling)
    await login
    return connection


async def test_output_waits_while_a_key_exchange_is_unfinished_and_the_client_is_sent_away(bench: SshBench) -> None:
    """Whatever is to be sent meanwhile would be kept in memory: all that the target prints, in a window of 2 GB."""
    connection = await stalling(bench)
    server = inner(bench)
    process = await connection.create_process("yes", window=2**31, encoding=None)
    assert await process.stdout.read(4) == b"y\ny\n"
    server._limits = replace(bench.limits, handshake=1)  # not for the first one, under load
    connection.stalling = True
    connection._send_kexinit()
    await until(lambda: "key exchange" in server.clogs)  # without that, a slow target might print too little to be noticed
    waiting = [0]
    async with asyncio.timeout(60):
        while not server.is_closed():
            waiting.append(len(server._deferred_packets))
            await asyncio.sleep(0.01)
    assert max(waiting) < 100
    await until(lambda: bench.listener.inside == 0)
    connection.abort()


async def test_a_key_exchange_in_the_middle_of_output_loses_nothing(bench: SshBench) -> None:
    async with await bench.raw(rekey_bytes=200_000) as connection:
        done = await connection.run("head -c 2000000 /dev/zero", encoding=None)
        assert isinstance(done.stdout, bytes)
        assert done.stdout == bytes(2_000_000)


async def test_a_channel_that_is_opened_while_the_client_does_not_read_prints_nothing_into_our_memory(bench: SshBench) -> None:
    """The socket says once that it is full; what is opened later has to know it too."""
    async with await bench.raw() as connection:
        server = inner(bench)
        assert connection._transport is not None
        process = await connection.create_process("yes", window=2**31, encoding=None)
        assert await process.stdout.read(2) == b"y\n"
        connection._transport.pause_reading()
        await until(lambda: "socket" in server.clogs)
        assert server._transport is not None
        before = server._transport.get_write_buffer_size()
        channel = asyncssh.SSHClientChannel[bytes](connection, asyncio.get_running_loop(), "strict", None, "strict", 2**31, 32768)
        opening = asyncio.ensure_future(channel._open(b"session"))
        await until(lambda: len(server._session_channels()) == 2)
        (second,) = [chan for chan in server._session_channels() if chan.number == 2]
        # The confirmation is not read, so the client has to guess the number of its channel, as a hostile one would.
        channel._send_chan = second._recv_chan
        channel._send_request(b"exec", String("yes"))
        await until(lambda: bench.target.ran().count("yes") == 2)
        await until(lambda: second.outlet is not None and second.outlet.clogged)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert server._transport.get_write_buffer_size() < before + 1024**2
        opening.cancel()
        connection.abort()


async def test_whoever_asks_and_never_listens_is_sent_away(tmp_path: Path, target: OpenSshServer) -> None:
    """Each question has an answer, however short; a client that reads none of them must not make us keep them all."""
    bench = await started(tmp_path, target, limits=Limits(unsent=200_000, asks=1 << 30))
    try:
        async with await bench.raw() as connection:
            server = inner(bench)
            assert connection._transport is not None
            assert server._transport is not None
            server._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection._transport.pause_reading()
            async with asyncio.timeout(60):
                while not server.is_closed():
                    for _ in range(500):
                        connection.send_packet(MSG_GLOBAL_REQUEST, String("keepalive@openssh.com"), Boolean(True))
                    await asyncio.sleep(0)
            assert bench.memory.transcripts.sessions[0].session
            connection.abort()
        await until(lambda: bench.memory.transcripts.sessions[0].closed is not None)
        assert dict(bench.memory.transcripts.sessions[0].closed or {})["reason"] == "limit-reached"
    finally:
        await bench.stop()


async def test_whoever_asks_whether_we_live_all_the_time_is_sent_away(bench: SshBench) -> None:
    """A keepalive costs the client nothing, is refused to nobody and leaves no event: only its number has a bound."""
    connection = await bench.raw()
    for _ in range(bench.limits.asks):
        connection.send_packet(MSG_GLOBAL_REQUEST, String("keepalive@openssh.com"), Boolean(False))
    answer, _ = await connection._make_global_request(b"no-such-thing@example.com")
    assert answer == MSG_REQUEST_FAILURE, "so many at once are no offence"
    for _ in range(10 * bench.limits.asks):
        connection.send_packet(MSG_GLOBAL_REQUEST, String("keepalive@openssh.com"), Boolean(True))
    async with asyncio.timeout(30):
        await connection.wait_closed()
    await until(lambda: bench.memory.transcripts.sessions[0].closed is not None)
    assert dict(bench.memory.transcripts.sessions[0].closed or {})["reason"] == "limit-reached"
    assert (await bench.ssh("echo still", options=["-o", "ServerAliveInterval=1"])).out == b"still\n"


@pytest.mark.parametrize("size", [1, 100, 1023])
async def test_channels_of_tiny_packets_are_refused(bench: SshBench, size: int) -> None:
    """A packet of one byte costs us what a packet of 32 KB costs: one command's output would keep everybody waiting."""
    async with await bench.raw() as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="packets that small"):
            await connection.create_process("yes", max_pktsize=size)
        assert (await connection.run("echo in", max_pktsize=1024)).stdout == "in\n"
    assert bench.target.ran() == ["echo in"]


async def test_more_than_the_window_ends_the_connection(bench: SshBench) -> None:
    async with await bench.raw() as connection:
        process = await connection.create_process("rm x", encoding=None)
        await bench.memory.approvals.next_request()
        process.channel._send_window = 2**31  # never granted
        process.stdin.write(bytes(bench.limits.held_window + 1))
        async with asyncio.timeout(30):
            await connection.wait_closed()
    await until(lambda: bench.memory.approvals.returned)
    assert bench.target.log.count("Connection from") == 0


async def test_an_answer_that_nobody_asked_for_ends_the_connection_and_nothing_else(bench: SshBench) -> None:
    """Unsolicited replies have deadlocked and leaked elsewhere (CVE-2026-39830)."""
    async with await bench.raw() as connection:
        connection.send_packet(MSG_REQUEST_FAILURE)
        async with asyncio.timeout(30):
            await connection.wait_closed()
    assert (await bench.ssh("echo still")).out == b"still\n"


async def test_refused_channels_leave_nothing_behind(bench: SshBench) -> None:
    """Rejected channels have leaked memory elsewhere (CVE-2026-39827)."""
    async with await bench.raw() as connection:
        server = inner(bench)
        for number in range(100):
            with pytest.raises(asyncssh.ChannelOpenError):
                channel = asyncssh.SSHClientChannel[bytes](
                    connection, asyncio.get_running_loop(), "strict", None, "strict", 65536, 32768
                )
                await channel._open(b"x11", String("127.0.0.1"), UInt32(number))
        assert server._channels == {}
        assert (await connection.run("echo in")).stdout == "in\n"
