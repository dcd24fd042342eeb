"""Tunnels lead to our own front ends and nowhere else: stock `ssh -J`, `-W` and `-L`, and what only a hostile client sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import SSHPacket, String, UInt32

from harness.loopback import free_port
from harness.openssh_server import OpenSshServer
from harness.people import BOB, person
from harness.ssh_bench import Finished, SshBench, finish, until
from interlock.approvals.model import VoteVerdict
from interlock.evidence.events import EventDraft
from interlock.ssh.limits import Limits
from interlock.ssh.tunnel import Destination, Passage, destination, refused

pytestmark = pytest.mark.interop


def configured(bench: SshBench, *, jump: str = "claude-ci", user: str = "web-1") -> list[str]:
    """Write an ssh_config as a user of jump hosts has it, and return the words that use it."""
    file = bench.directory / "ssh_config"
    known = bench.directory / "proxy_known_hosts"
    if "proxy " not in known.read_text():
        known.write_text(f"{known.read_text()}proxy {bench.listener.host_key}\n")
    file.write_text(
        f"Host *\n  IdentityFile {bench.directory / 'agent'}\n  IdentitiesOnly yes\n  IdentityAgent none\n  BatchMode yes\n"
        f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n  HostKeyAlias proxy\n"
        f"Host proxy\n  HostName 127.0.0.1\n  Port {bench.listener.port}\n  User {jump}\n"
        f"Host web-* nowhere closed\n  User {user}\n"
    )
    return ["ssh", "-F", str(file)]


async def jumping(bench: SshBench, *words: str, jump: str = "claude-ci", user: str = "web-1", stdin: bytes = b"") -> Finished:
    process = await spawned(bench, *words, jump=jump, user=user)
    async with asyncio.timeout(60):
        return await finish(process, stdin)


async def spawned(bench: SshBench, *words: str, jump: str = "claude-ci", user: str = "web-1") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *configured(bench, jump=jump, user=user), *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@asynccontextmanager
async def running(tmp_path: Path, target: OpenSshServer, **settings: Any) -> AsyncIterator[SshBench]:
    bench = SshBench(tmp_path / "proxy", target, **settings)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.stop()


async def inside(
    bench: SshBench, outer: asyncssh.SSHClientConnection, *, key: asyncssh.SSHKey | None = None, user: str = "web-1"
) -> asyncssh.SSHClientConnection:
    """Log in through a tunnel of `outer` to web-1, as a client that trusts the proxy's key for it."""
    return await asyncssh.connect(
        "web-1", tunnel=outer, username=user, config=None, agent_path=None, client_keys=[key or bench.key],
        known_hosts=asyncssh.import_known_hosts(f"web-1 {bench.listener.host_key}"),
    )  # fmt: skip


def opened(bench: SshBench) -> list[EventDraft]:
    return bench.memory.transcripts.all("session.open")


def dialled(bench: SshBench) -> int:
    return bench.target.log.count("Connection from")


# -- what works ----------------------------------------------------------------------------------------------------------


async def test_a_stock_jump_runs_a_command_at_the_target_gated_and_recorded(bench: SshBench) -> None:
    done = await jumping(bench, "-J", "proxy", "web-1", "echo $0; echo in")
    assert (done.status, done.out.splitlines()[-1]) == (0, b"in")
    assert bench.target.ran() == ["echo $0; echo in"]
    (session,) = opened(bench)
    assert (session.fields["handle"], session.fields["target"], session.fields["through"]) == ("claude-ci", "web-1", "")
    kinds = [event.type for event in bench.memory.transcripts.sessions[0].events]
    assert kinds.index("command") < kinds.index("decision") < kinds.index("forward") < kinds.index("term.output")
    journal = bench.memory.transcripts.journal
    await until(lambda: journal.of("channel.close"))
    assert [event.fields["tunnel"] for event in journal.of("channel.open")] == ["web-1"]
    assert [event.fields["method"] for event in journal.of("login")] == ["jump"]


async def test_a_risky_command_is_held_inside_a_tunnel_as_outside(bench: SshBench) -> None:
    victim = bench.target.home / "victim"
    victim.touch()
    process = await spawned(bench, "-J", "proxy", "web-1", "rm victim")
    request = await bench.memory.approvals.next_request()
    assert victim.exists()
    assert dialled(bench) == 0
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    done = await finish(process)
    assert (done.status, victim.exists()) == (0, False)
    assert "held for approval" in done.err
    assert bench.target.forced() == 1


async def test_what_policy_denies_is_denied_inside_a_tunnel(bench: SshBench) -> None:
    done = await jumping(bench, "-J", "proxy", "web-1", "shutdown --help")
    assert done.status == 126
    assert "hosts are not shut down from here" in done.err
    assert dialled(bench) == 0


async def test_a_session_at_a_target_may_jump_as_well_and_the_inner_one_names_it(bench: SshBench) -> None:
    done = await jumping(bench, "-J", "proxy", "web-1", "echo in", jump="web-1")
    assert done.out == b"in\n"
    outer, inner = opened(bench)
    assert inner.fields["through"] == bench.memory.transcripts.sessions[0].session
    assert "through" not in outer.fields
    assert [event.fields.get("tunnel") for event in bench.memory.transcripts.sessions[0].of("channel.open")] == ["web-1"]


async def test_a_user_name_inside_is_an_account_of_the_target(bench: SshBench) -> None:
    done = await jumping(bench, "-J", "proxy", "web-1", "echo in", user=bench.target.account)
    assert done.out == b"in\n"
    assert opened(bench)[0].fields["account"] == bench.target.account
    done = await jumping(bench, "-J", "proxy", "web-1", "echo in", user="nobody")
    assert done.status == 255
    assert "no-access" in done.err


async def test_through_dash_w_the_server_speaks_first_and_it_is_ours(bench: SshBench) -> None:
    """A fresh forward on which nobody has sent anything: the banner comes all the same (a hang of Warpgate's)."""
    process = await spawned(bench, "-W", "web-1:22", "proxy")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).startswith(b"SSH-2.0-Interlock")
    assert dialled(bench) == 0
    process.terminate()
    await process.communicate()


async def test_sftp_goes_through_a_tunnel(bench: SshBench) -> None:
    (bench.target.home / "notes").write_text("hello\n")
    async with (
        await bench.raw(user="claude-ci") as outer,
        await inside(bench, outer) as inner,
        inner.start_sftp_client() as sftp,
        sftp.open(str(bench.target.home / "notes"), "rb") as file,
    ):
        assert await file.read() == b"hello\n"


async def test_the_port_may_be_the_targets_own_and_still_nothing_is_dialled(bench: SshBench) -> None:
    async with await bench.raw(user="claude-ci") as outer:
        reader, _ = await outer.open_connection("web-1", bench.target.port)
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"SSH-2.0-Interlock")
    assert dialled(bench) == 0


# -- what does not ---------------------------------------------------------------------------------------------------------


ELSEWHERE = [
    "127.0.0.1:22", "localhost:22", "[::1]:22", "169.254.169.254:80", "10.0.0.5:22", "0.0.0.0:22", "2130706433:22", "127.1:22",
    "0x7f.1:22", "nowhere:22", "closed:22", "web-1.example.com:22", "web-1:80", "metadata.google.internal:80",
]  # fmt: skip


async def test_any_other_place_is_refused_in_words_and_nothing_is_dialled(tmp_path: Path, target: OpenSshServer) -> None:
    async with running(tmp_path, target, more_targets=[{"name": "closed"}]) as bench:
        async with await bench.raw() as connection:
            for where in ELSEWHERE:
                host, _, port = where.rpartition(":")
                with pytest.raises(asyncssh.ChannelOpenError, match="interlock: ") as failed:
                    await connection.open_connection(host.strip("[]"), int(port))
                assert failed.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
                assert "HANDLE@PROXY TARGET" in failed.value.reason or "ask for web-1:22" in failed.value.reason
        events = bench.memory.transcripts.all("channel.refuse")
        assert {event.fields["request"] for event in events} == {"direct-tcpip"}
        assert [event.secret["detail"] for event in events] == [where.replace("[", "").replace("]", "") for where in ELSEWHERE]
        assert dialled(bench) == 0


async def test_a_target_that_is_called_like_an_address_is_not_reached_by_a_tunnel(tmp_path: Path, target: OpenSshServer) -> None:
    async with running(tmp_path, target, more_targets=[{"name": "127.0.0.1"}]) as bench, await bench.raw() as connection:
        with pytest.raises(asyncssh.ChannelOpenError, match="by its name"):
            await connection.open_connection("127.0.0.1", 22)


async def test_what_is_not_open_and_what_does_not_exist_are_told_alike(tmp_path: Path, target: OpenSshServer) -> None:
    async with running(tmp_path, target, more_targets=[{"name": "closed"}]) as bench, await bench.raw() as connection:
        said = []
        for name in ("closed", "absent"):
            with pytest.raises(asyncssh.ChannelOpenError) as failed:
                await connection.open_connection(name, 22)
            said.append(failed.value.reason.replace(name, "NAME"))
        assert said[0] == said[1]


async def test_the_stock_client_says_why(bench: SshBench) -> None:
    done = await jumping(bench, "-W", bench.target.address, "proxy")
    assert done.status != 0
    assert "a tunnel leads to a target of this proxy, by its name" in done.err
    assert dialled(bench) == 0


async def test_a_tunnel_inside_a_tunnel_is_refused(bench: SshBench) -> None:
    async with await bench.raw(user="claude-ci") as outer:
        inner = await inside(bench, outer)
        async with inner:
            with pytest.raises(asyncssh.ChannelOpenError, match="a tunnel inside a tunnel"):
                await inner.open_connection("web-1", 22)
            assert (await inner.run("echo in")).stdout == "in\n"


async def test_inside_one_must_be_who_opened_it(bench: SshBench) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    bench.authenticator.keys[other.public_data] = person(BOB)
    async with await bench.raw(user="claude-ci") as outer:
        with pytest.raises((asyncssh.DisconnectError, asyncssh.ConnectionLost), match="somebody else opened this tunnel"):
            await inside(bench, outer, key=other)
    assert opened(bench) == []
    assert bench.memory.transcripts.journal.of("access.refused")


async def test_inside_nobody_is_let_in_without_a_proof_of_their_own(bench: SshBench) -> None:
    async with await bench.raw(user="claude-ci") as outer:
        with pytest.raises(asyncssh.PermissionDenied):
            await inside(bench, outer, key=asyncssh.generate_private_key("ssh-ed25519"))
    assert opened(bench) == []


async def test_without_a_target_there_are_tunnels_and_nothing_else(bench: SshBench) -> None:
    done = await bench.ssh("touch made", user="claude-ci")
    assert done.status == 255
    assert "this connection names no target" in done.err
    journal = bench.memory.transcripts.journal
    assert [event.fields["request"] for event in journal.of("channel.refuse")] == ["session"]
    assert opened(bench) == []
    assert dialled(bench) == 0


async def test_the_handle_of_somebody_else_opens_nothing(bench: SshBench) -> None:
    done = await jumping(bench, "-J", "proxy", "web-1", "echo in", jump="alice")
    assert done.status == 255
    assert opened(bench) == []


async def test_a_target_with_the_name_of_a_handle_is_the_target(tmp_path: Path, target: OpenSshServer) -> None:
    async with running(tmp_path, target, more_targets=[{"name": "claude-ci"}]) as bench:
        assert (await bench.ssh("echo in", user="claude-ci")).out == b"in\n"
        assert opened(bench)[0].fields["target"] == "claude-ci"


async def test_when_the_outer_connection_ends_so_does_what_is_inside(bench: SshBench) -> None:
    outer = await bench.raw(user="claude-ci")
    inner = await inside(bench, outer)
    process = await inner.create_process("cat")
    process.stdin.write("x\n")
    assert await process.stdout.readline() == "x\n"
    outer.abort()
    await until(lambda: bench.listener.inside == 0)
    assert [session.closed is not None for session in bench.memory.transcripts.sessions] == [True]


async def test_a_listener_that_closes_ends_what_is_inside_tunnels_and_seals_it(bench: SshBench) -> None:
    outer = await bench.raw(user="web-1")
    inner = await inside(bench, outer)
    process = await inner.create_process("rm -f x")
    request = await bench.memory.approvals.next_request()
    async with asyncio.timeout(30):
        await bench.listener.close()
    assert bench.memory.approvals.returned == [request.id]
    assert [session.closed is not None for session in bench.memory.transcripts.sessions] == [True, True]
    assert dialled(bench) == 0
    process.close()
    outer.abort()


async def test_tunnels_count_as_connections(tmp_path: Path, target: OpenSshServer) -> None:
    async with running(tmp_path, target, limits=Limits(connections_per_source=3)) as bench:
        async with await bench.raw(user="claude-ci") as outer:
            for _ in range(2):
                reader, _ = await outer.open_connection("web-1", 22)
                assert (await reader.readline()).startswith(b"SSH-2.0-")
            with pytest.raises(asyncssh.ChannelOpenError, match="too many connections"):
                await outer.open_connection("web-1", 22)
        await until(lambda: bench.listener.inside == 0)


async def test_sixty_four_tunnels_of_one_connection_do_not_hinder_each_other(bench: SshBench) -> None:
    async with await bench.raw(user="claude-ci") as outer:
        readers = [(await outer.open_connection("web-1", 22))[0] for _ in range(bench.limits.channels)]
        async with asyncio.timeout(60):
            assert all([(await reader.readline()).startswith(b"SSH-2.0-") for reader in reversed(readers)])
        with pytest.raises(asyncssh.ChannelOpenError, match="too many channels"):
            await outer.open_connection("web-1", 22)


async def test_much_output_through_a_tunnel_arrives_whole(bench: SshBench) -> None:
    async with await bench.raw(user="claude-ci") as outer, await inside(bench, outer) as inner:
        done = await inner.run("head -c 3000000 /dev/zero", encoding=None)
        assert isinstance(done.stdout, bytes)
        assert len(done.stdout) == 3_000_000


async def test_a_local_forward_reaches_the_front_end_and_not_the_target(bench: SshBench) -> None:
    port = free_port()
    process = await spawned(bench, "-N", "-L", f"127.0.0.1:{port}:web-1:22", "proxy")

    async def banner() -> bytes:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return b""
        try:
            return await reader.readline()
        finally:
            writer.close()

    said = b""
    async with asyncio.timeout(30):
        while not said:
            said = await banner()
    assert said.startswith(b"SSH-2.0-Interlock")
    assert dialled(bench) == 0
    process.terminate()
    await process.communicate()


# -- the pure part -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["web-1", "db.prod", "a", "10x", "7f000001.example"])
def test_names_can_be_targets(host: str) -> None:
    assert Destination(host, 22).named


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "x.localhost", "127.0.0.1", "127.1", "017700000001", "2130706433", "0x7f.1", "::1", "fe80::1%eth0",
     "Web-1", "web-1\n", "web 1", "web-1/", "-oProxyCommand=x", "web-1\x00", "\u0131"],
)  # fmt: skip
def test_addresses_and_what_is_no_name_can_not(host: str) -> None:
    assert not Destination(host, 22).named
    assert refused(Destination(host, 22), None, nested=False, postgres=True)


def test_what_a_client_claims_of_its_own_place_is_read_over() -> None:
    packet = SSHPacket(String("web-1") + UInt32(22) + String("203.0.113.9") + UInt32(65535))
    assert destination(packet) == Destination("web-1", 22)


def test_a_passage_never_leads_to_another_target_than_it_names() -> None:
    passage = Passage("web-1", BOB, "", "192.0.2.1")
    for user in ("web-1", "web-2", "root", "root@web-1", "root@web-2", "a@b@web-1", "x y", "", "@web-1", "a,b"):
        found = passage.address(user)
        assert found is None or found.target == "web-1"
