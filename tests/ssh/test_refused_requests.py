"""Every row of the request table against the listener: with the stock client where it can ask, else with asyncssh."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from harness.loopback import free_port
from harness.people import ALICE, person
from harness.ssh_bench import SshBench, finish, until
from interlock.approvals.model import VoteVerdict
from interlock.evidence.events import EventDraft
from interlock.ssh.requests import TABLE, Row, Scope, Told, find

pytestmark = pytest.mark.interop


def refused(bench: SshBench, request: str) -> list[EventDraft]:
    return [event for event in bench.memory.transcripts.all("channel.refuse") if event.fields["request"] == request]


def untouched(bench: SshBench) -> None:
    """Nobody has even connected to the target: its own log says so."""
    assert bench.target.log.count("Connection from") == 0
    assert bench.target.ran() == []


# -- with stock clients ------------------------------------------------------------------------------------------------


async def test_a_terminal_is_refused_with_what_to_do_instead(bench: SshBench) -> None:
    done = await bench.ssh("touch made", options=["-tt"])
    assert done.status == 126
    assert bench.target.ran() == []
    assert "interlock: no terminal and no shell are offered here; run single commands: ssh TARGET 'command' (drop -t)" in done.err
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


async def test_a_person_at_a_terminal_is_told_what_works(bench: SshBench) -> None:
    """`ssh web-1` as people type it: pty-req, then shell."""
    bench.authenticator.keys[bench.key.public_data] = person(ALICE)
    done = await bench.ssh(options=["-tt"])
    assert done.status == 126
    assert "no terminal and no shell are offered here; run single commands: ssh TARGET 'command'" in done.err
    assert "or use sftp or scp" in done.err
    untouched(bench)


async def test_agent_forwarding_is_refused_and_the_command_runs(bench: SshBench, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = bench.directory / "agent.sock"
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(socket), stdout=asyncio.subprocess.PIPE)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    words = [word for word in bench.argv("echo ran [$SSH_AUTH_SOCK]", options=["-A"]) if word != "IdentityAgent=none"]
    del words[words.index("-o", words.index("IdentitiesOnly=yes"))]
    try:
        await until(socket.exists)
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        done = await finish(process, None)
    finally:
        agent.terminate()
        await agent.communicate()
    assert done.out == b"ran []\n"
    assert "interlock: agent forwarding is not offered here (drop -A)" in done.err
    assert len(refused(bench, "auth-agent-req@openssh.com")) == 1


async def test_x11_forwarding_is_refused_and_the_command_runs(bench: SshBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", "127.0.0.1:77")
    done = await bench.ssh("echo ran [$DISPLAY]", options=["-Y", "-o", "XAuthLocation=/nonexistent"])
    assert done.out == b"ran []\n"
    assert "interlock: X11 forwarding is not offered here (drop -X)" in done.err
    assert len(refused(bench, "x11-req")) == 1


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
    untouched(bench)


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
    untouched(bench)


@pytest.mark.parametrize("row", [row for row in TABLE if row.scope is Scope.GLOBAL], ids=lambda row: row.name)
async def test_each_global_request(bench: SshBench, row: Row) -> None:
    name = "made-up@example.com" if row.name == "*" else row.name
    connection = await bench.raw()
    async with connection:
        answer, _ = await connection._make_global_request(name.encode(), String("127.0.0.1"), UInt32(0))
        assert answer == 82  # SSH_MSG_REQUEST_FAILURE
    assert len(refused(bench, name)) == (1 if row.refused else 0)
    untouched(bench)


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


async def opened(connection: asyncssh.SSHClientConnection) -> asyncssh.SSHClientChannel[bytes]:
    """Open a session channel on which nothing was asked for yet."""
    channel = asyncssh.SSHClientChannel[bytes](connection, asyncio.get_running_loop(), "strict", None, "strict", 65536, 32768)
    await channel._open(b"session")
    channel._session = asyncssh.SSHClientSession()
    channel._recv_paused = False
    return channel


ONE_OF = {
    "exec": (String("echo two"),), "shell": (), "subsystem": (String("sftp"),), "pty-req": BODIES["pty-req"],
}  # fmt: skip


@pytest.mark.parametrize("second", ONE_OF)
@pytest.mark.parametrize("first", ["exec", "subsystem"])
async def test_one_exec_shell_or_subsystem_a_channel(bench: SshBench, first: str, second: str) -> None:
    async with await bench.raw() as connection:
        channel = await opened(connection)
        assert await channel._make_request(first.encode(), *(ONE_OF[first] if first != "exec" else (String("cat"),))) is True
        assert await channel._make_request(second.encode(), *ONE_OF[second]) is False
        if first == "exec":
            await until(lambda: bench.target.ran() == ["cat"])
        channel.abort()
    assert "echo two" not in bench.target.ran()
    assert [event.fields["request"] for event in bench.memory.transcripts.all("channel.refuse")]


RESIZED = (UInt32(132), UInt32(43), UInt32(0), UInt32(0))


@pytest.mark.parametrize(
    ("name", "body"),
    [("window-change", RESIZED), ("break", (UInt32(500),)), ("signal", (String("TERM"),))],
    ids=lambda x: str(x)[:13],
)
async def test_requests_about_what_runs_fail_before_while_held_and_after(
    bench: SshBench, name: str, body: tuple[bytes, ...]
) -> None:
    async with await bench.raw() as connection:
        channel = await opened(connection)
        assert await channel._make_request(name.encode(), *body) is False  # before
        assert await channel._make_request(b"exec", String("rm -f x")) is True
        request = await bench.memory.approvals.next_request()
        assert await channel._make_request(name.encode(), *body) is False  # held
        untouched(bench)
        bench.memory.approvals.answer(request.id, VoteVerdict.DENY)
        channel._send_request(name.encode(), *body)  # after, or as good as: the client has not heard of the end
        async with asyncio.timeout(30):
            await channel.wait_closed()
        assert (await connection.run("echo still")).stdout == "still\n"
    assert len(refused(bench, name)) >= 2


async def test_a_window_change_and_a_break_fail_while_a_command_runs_and_a_signal_passes(ordinary_bench: SshBench) -> None:
    async with await ordinary_bench.raw() as connection:
        process = await connection.create_process("cat")
        process.stdin.write("x\n")
        assert await process.stdout.readline() == "x\n"
        assert await process.channel._make_request(b"window-change", *RESIZED) is False
        assert await process.channel._make_request(b"break", UInt32(500)) is False
        assert await process.channel._make_request(b"signal", String("WINCH; rm")) is False
        assert await process.channel._make_request(b"signal", String("TERM")) is True
        assert (await process.wait()).exit_signal is not None


@pytest.mark.parametrize(
    "text", [b"", b" ", b"\n", b"\0", b"echo a\0", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"echo \x1b[2J", b"\r"]
)
async def test_an_exec_that_nobody_could_be_shown_runs_nothing(bench: SshBench, text: bytes) -> None:
    async with await bench.raw() as connection:
        channel = await opened(connection)
        assert await channel._make_request(b"exec", String(text)) is True
        async with asyncio.timeout(30):
            await channel.wait_closed()
        assert channel.get_exit_status() == 126
    untouched(bench)
    assert [event.fields["ended"] for event in bench.memory.transcripts.all("channel.close")] == ["refused"]


@pytest.mark.parametrize("name", ["keepalive@openssh.com", "eow@openssh.com"])
async def test_what_is_only_noted_is_no_refusal_and_no_success(bench: SshBench, name: str) -> None:
    async with await bench.raw() as connection:
        process = await connection.create_process("cat")
        assert await process.channel._make_request(name.encode()) is False
        process.stdin.write("x")
        process.stdin.write_eof()
        assert (await process.wait()).stdout == "x"
    assert refused(bench, name) == []


async def test_a_global_request_that_wants_no_answer_gets_none(bench: SshBench) -> None:
    async with await bench.raw() as connection:
        connection._send_global_request(b"tcpip-forward", String("0.0.0.0"), UInt32(0), want_reply=False)
        assert (await connection.run("echo in")).stdout == "in\n"  # an answer too many would have ended the connection
    assert len(refused(bench, "tcpip-forward")) == 1


async def test_sixty_four_channels_carry_data_both_ways_while_one_of_them_is_held(bench: SshBench) -> None:
    """Parallel channels have deadlocked elsewhere, where one reader waited for another's window."""
    data = bytes(range(256)) * 800
    async with await bench.raw() as connection:
        held = await connection.create_process("rm -f x", encoding=None)
        request = await bench.memory.approvals.next_request()
        others = [await connection.create_process("cat", encoding=None) for _ in range(bench.limits.channels - 1)]
        for process in others:  # all of it before anybody reads
            process.stdin.write(data)
            process.stdin.write_eof()
        async with asyncio.timeout(60):
            for process in reversed(others):
                assert (await process.wait()).stdout == data
        assert bench.target.ran() == ["cat"] * len(others)
        bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
        assert (await held.wait()).exit_status == 0


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
