"""Every row of the request table against the listener: with the stock client where it can ask, else with asyncssh."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from harness.loopback import free_port
from harness.ssh_bench import SshBench, until
from interlock.evidence.events import EventDraft
from interlock.ssh.requests import TABLE, Row, Scope, Told, find

pytestmark = pytest.mark.interop


def refused(bench: SshBench, request: str) -> list[EventDraft]:
    return [event for event in bench.memory.transcripts.all("channel.refuse") if event.fields["request"] == request]


# -- with stock clients ------------------------------------------------------------------------------------------------


async def test_a_terminal_is_refused_with_what_to_do_instead(bench: SshBench) -> None:
    done = await bench.ssh("touch made", options=["-tt"])
    assert done.status == 126
    assert bench.target.ran() == []
    assert (
        "interlock: no terminal and no interactive shell are offered here; run single commands: ssh TARGET 'command' (drop -t)"
        in done.err
    )
    assert len(refused(bench, "pty-req")) == 1


async def test_another_subsystem_is_refused(bench: SshBench) -> None:
    done = await bench.ssh("netconf", options=["-s"])
    assert done.status == 126
    assert "interlock: this subsystem is not offered here" in done.err
    assert refused(bench, "subsystem")[0].secret["detail"] == "netconf"


@pytest.mark.parametrize("command", ["mosh-server new", "/usr/lib/openssh/sftp-server"])
async def test_servers_of_other_protocols_are_refused_in_words(bench: SshBench, command: str) -> None:
    done = await bench.ssh(command)
    assert done.status == 126
    assert "not offered here" in done.err
    assert bench.target.ran() == []


async def test_agent_and_x11_forwarding_are_refused(bench: SshBench) -> None:
    done = await bench.ssh("echo ran", options=["-A", "-X"], user="web-1")
    assert done.out == b"ran\n"


async def test_a_remote_forward_is_refused_and_said_on_the_next_channel(bench: SshBench) -> None:
    done = await bench.ssh("echo ran", options=["-R", f"{free_port()}:127.0.0.1:1"])
    assert done.out == b"ran\n"
    assert "interlock: port and socket forwarding is not offered here (-R)" in done.err
    assert len(refused(bench, "tcpip-forward")) == 1


async def test_a_direct_connection_is_refused(bench: SshBench) -> None:
    done = await bench.ssh(options=["-W", bench.target.address])
    assert done.status != 0
    assert "interlock: a tunnel leads to a target of this proxy, by its name, and nowhere else" in done.err
    (event,) = refused(bench, "direct-tcpip")
    assert "127.0.0.1" in str(event.secret["detail"])


async def test_a_local_forward_reaches_nothing(bench: SshBench) -> None:
    port = free_port()
    process = await bench.spawn(
        "read line", options=["-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:{bench.target.address}"]
    )

    async def through() -> bytes | None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return None
        try:
            return await reader.read()
        finally:
            writer.close()

    answer = None
    async with asyncio.timeout(30):
        while answer is None:
            answer = await through()
    assert answer == b""
    assert len(refused(bench, "direct-tcpip")) == 1
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await process.communicate()


# -- with asyncssh, for what ssh won't send or hides -------------------------------------------------------------------


async def session_request(bench: SshBench, name: str, *body: bytes) -> tuple[bool | None, bytes]:
    """Open a session channel, make one request, and return its answer and what stderr said."""
    heard = bytearray()

    class Listener(asyncssh.SSHClientSession[bytes]):
        def data_received(self, data: bytes, datatype: int | None) -> None:
            heard.extend(data)

    connection = await bench.raw()
    async with connection:
        channel = asyncssh.SSHClientChannel[bytes](connection, asyncio.get_running_loop(), "strict", None, "strict", 65536, 32768)
        await channel._open(b"session")
        channel._session = Listener()
        channel._recv_paused = False
        answer = await channel._make_request(name.encode(), *body)
        if find(Scope.SESSION, name).told in (Told.STDERR, Told.EXIT):
            await until(lambda: b"\n" in heard)
        channel.abort()
        return answer, bytes(heard)


BODIES: dict[str, tuple[bytes, ...]] = {
    "pty-req": (String("xterm"), UInt32(80), UInt32(24), UInt32(0), UInt32(0), String(b"\0")),
    "x11-req": (Boolean(False), String("MIT-MAGIC-COOKIE-1"), String("00"), UInt32(0)),
    "subsystem": (String("made-up"),),
    "window-change": (UInt32(80), UInt32(24), UInt32(0), UInt32(0)),
    "break": (UInt32(100),),
    "*": (),
}


@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.scope is Scope.SESSION and row.refused and ":" not in row.name], ids=lambda row: row.name
)
async def test_each_refused_session_request(bench: SshBench, row: Row) -> None:
    name = "made-up@example.com" if row.name == "*" else row.name
    answer, heard = await session_request(bench, name, *BODIES.get(row.name, ()))
    assert answer is (row.told is Told.EXIT)
    if row.told in (Told.STDERR, Told.EXIT):
        assert heard.startswith(f"interlock: {row.sentence}"[:80].encode())
    assert len(refused(bench, name)) == 1
    assert bench.target.ran() == []
    assert bench.target.log.count("Connection from") == 0  # nothing was opened at the target for it


@pytest.mark.parametrize("row", [row for row in TABLE if row.scope is Scope.OPEN and row.refused], ids=lambda row: row.name)
async def test_each_refused_channel(bench: SshBench, row: Row) -> None:
    name = "made-up@example.com" if row.name == "*" else row.name
    connection = await bench.raw()
    async with connection:
        channel = asyncssh.SSHClientChannel[bytes](connection, asyncio.get_running_loop(), "strict", None, "strict", 65536, 32768)
        with pytest.raises(asyncssh.ChannelOpenError) as failed:
            await channel._open(name.encode(), String("127.0.0.1"), UInt32(22), String("127.0.0.1"), UInt32(1))
        assert failed.value.reason == f"interlock: {row.sentence}"
    assert len(refused(bench, name)) == 1


@pytest.mark.parametrize("row", [row for row in TABLE if row.scope is Scope.GLOBAL], ids=lambda row: row.name)
async def test_each_global_request(bench: SshBench, row: Row) -> None:
    name = "made-up@example.com" if row.name == "*" else row.name
    connection = await bench.raw()
    async with connection:
        answer, _ = await connection._make_global_request(name.encode(), String("127.0.0.1"), UInt32(0))
        assert answer == 82  # SSH_MSG_REQUEST_FAILURE
    assert len(refused(bench, name)) == (1 if row.refused else 0)


async def test_after_no_more_sessions_there_is_none(bench: SshBench) -> None:
    connection = await bench.raw()
    process = await connection.create_process("cat")
    connection._send_global_request(b"no-more-sessions@openssh.com")
    with pytest.raises((asyncssh.ChannelOpenError, asyncssh.ConnectionLost, asyncssh.ProtocolError)):
        await connection.create_process("echo second")
    async with asyncio.timeout(30):
        await connection.wait_closed()
    assert bench.target.ran() in ([], ["cat"])
    process.close()


async def test_an_ordinary_connection_has_nothing_refused(bench: SshBench) -> None:
    await bench.ssh("echo hi")
    assert bench.memory.transcripts.all("channel.refuse") == []


async def test_one_exec_a_channel(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        process = await connection.create_process("echo one; cat")
        assert await process.channel._make_request(b"exec", String("echo two")) is False
        assert await process.channel._make_request(b"shell") is False
        assert await process.channel._make_request(b"subsystem", String("sftp")) is False
        process.stdin.write_eof()
        done = await process.wait()
        assert done.stdout == "one\n"
    assert bench.target.ran() == ["echo one; cat"]


async def test_a_signal_to_a_held_command_is_refused(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        process = await connection.create_process("rm -rf x")
        await bench.memory.approvals.next_request()
        assert await process.channel._make_request(b"signal", String("KILL")) is False
        assert len(refused(bench, "signal")) == 1
        process.channel.abort()
    await until(lambda: bench.memory.approvals.returned)


async def test_environment_after_the_exec_is_refused(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        process = await connection.create_process("cat")
        assert await process.channel._make_request(b"env", String("LANG"), String("C")) is False
        process.stdin.write_eof()
        await process.wait()


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_too_many_channels_are_refused_and_the_others_work(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        limit = bench.limits.channels
        processes = [await connection.create_process("cat") for _ in range(limit)]
        with pytest.raises(asyncssh.ChannelOpenError, match="too many channels"):
            await connection.create_process("cat")
        for process in processes:
            process.stdin.write_eof()
        assert {(await process.wait()).exit_status for process in processes} == {0}


async def test_a_flood_of_refused_requests_ends_the_connection(bench: SshBench) -> None:
    connection = await bench.raw()
    for _ in range(bench.limits.refusals + 1):
        connection._send_global_request(b"tcpip-forward", String("0.0.0.0"), UInt32(1), want_reply=False)
    async with asyncio.timeout(30):
        await connection.wait_closed()
    assert len(bench.memory.transcripts.all("channel.refuse")) <= bench.limits.refusals
    assert (await bench.ssh("echo still")).out == b"still\n"


async def test_a_flood_of_requests_on_one_channel_is_cut(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        channel = asyncssh.SSHClientChannel[bytes](connection, asyncio.get_running_loop(), "strict", None, "strict", 65536, 32768)
        await channel._open(b"session")
        answers = [
            await channel._make_request(b"env", String("LANG"), String("C")) for _ in range(bench.limits.channel_requests + 1)
        ]
        assert answers.count(True) == bench.limits.env_count
        assert answers[-1] is False
        assert any(event.fields["reason"] == "limit-reached" for event in bench.memory.transcripts.all("channel.refuse"))


async def test_a_malformed_request_ends_the_connection_and_nothing_else(bench: SshBench) -> None:
    connection = await bench.raw()
    channel = asyncssh.SSHClientChannel[bytes](connection, asyncio.get_running_loop(), "strict", None, "strict", 65536, 32768)
    await channel._open(b"session")
    channel._send_request(b"exec", UInt32(1 << 30), want_reply=True)
    async with asyncio.timeout(30):
        await connection.wait_closed()
    assert (await bench.ssh("echo still")).out == b"still\n"


async def test_a_command_larger_than_the_bound_is_refused(bench: SshBench) -> None:
    connection = await bench.raw(window=65536)
    async with connection:
        with pytest.raises((asyncssh.Error, OSError)):
            done = await connection.run("echo " + "x" * 600_000)
            if done.exit_status:
                raise OSError
    assert bench.target.ran() == []
