"""The way to the target: certificates that sshd enforces, host keys that are verified, failures in words."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from harness.clock import ManualClock
from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, finish, open_bench
from interlock.approvals.model import VoteVerdict
from interlock.clock import SystemClock, system_entropy
from interlock.errors import ConfigError, Reason, TargetError
from interlock.ssh.credentials import CertificateCredentials, forcible
from interlock.ssh.limits import Limits
from interlock.ssh.listener import SshListener

pytestmark = pytest.mark.interop


async def approved(bench: SshBench, command: str) -> Any:
    process = await bench.spawn(command)
    request = await bench.memory.approvals.next_request()
    bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    return await finish(process)


def credentials(target: OpenSshServer, clock: Any = None) -> CertificateCredentials:
    return CertificateCredentials(target.ca, pins=True, clock=clock or SystemClock(), entropy=system_entropy)


async def login(target: OpenSshServer, proof: Any) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", target.port, username=target.account, client_keys=proof.keys, config=None, agent_path=None, known_hosts=None
    )


# -- certificates ------------------------------------------------------------------------------------------------------


async def test_a_pinned_certificate_runs_its_command_whatever_is_asked(target: OpenSshServer) -> None:
    """Why such a connection carries one channel: a second exec silently runs the first command again."""
    connection = await login(target, await credentials(target).prove(target.account, "127.0.0.1", b"echo approved"))
    async with connection:
        assert (await connection.run("touch other")).stdout == "approved\n"
        assert (await connection.run("touch other")).stdout == "approved\n"
    assert not (target.home / "other").exists()
    assert target.ran() == ["echo approved"] * 2


async def test_a_certificate_gives_a_session_and_nothing_else(target: OpenSshServer) -> None:
    connection = await login(target, await credentials(target).prove(target.account, "127.0.0.1", None))
    async with connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("true", term_type="xterm", request_pty="force")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", target.port)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("", 0, "127.0.0.1", 1)


async def test_a_certificate_is_worth_nothing_from_elsewhere_or_later(target: OpenSshServer) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await login(target, await credentials(target).prove(target.account, "192.0.2.1", None))
    late = ManualClock(datetime.now(UTC) - timedelta(seconds=301))  # noqa: TID251  sshd reads the machine's clock
    with pytest.raises(asyncssh.PermissionDenied):
        await login(target, await credentials(target, late).prove(target.account, "127.0.0.1", None))


async def test_what_a_certificate_says(tmp_path: Path) -> None:
    ca = asyncssh.generate_private_key("ssh-ed25519")
    clock = ManualClock()
    proof = await CertificateCredentials(ca, pins=True, clock=clock, entropy=lambda size: b"\x07" * size).prove(
        "deploy", "10.0.0.1", b"id"
    )
    entry = proof.keys[0]
    assert isinstance(entry, tuple)
    path = tmp_path / "c.pub"
    path.write_bytes(entry[1].export_certificate())
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", path], env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=True
    ).stdout
    assert "Principals: deploy Critical Options: force-command id source-address 10.0.0.1/32 Extensions: (none)" in " ".join(
        shown.split()
    )
    assert "Valid: from 2026-01-02T02:12:00 to 2026-01-02T02:17:00" in shown
    assert proof.about["serial"] == "07" * 8
    assert f"Serial: {0x0707070707070707}" in shown


@pytest.mark.parametrize("account", ["root,deploy", "a b", "", "x\n", "ä", "-o", "a" * 33])
async def test_no_certificate_for_an_account_that_is_more_than_a_name(account: str) -> None:
    ca = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(TargetError):
        await CertificateCredentials(ca, pins=True, clock=ManualClock(), entropy=os.urandom).prove(account, "127.0.0.1", None)


@pytest.mark.parametrize(
    "text", [b"internal-sftp", b"internal-sftp -R", b"internal-sftpx; rm", b"x" * (100 * 1024 + 1), b"", b" ", b"a\0", b"\xff"]
)
def test_what_sshd_would_not_run_as_given_can_not_be_pinned(text: bytes) -> None:
    with pytest.raises(TargetError) as refused:
        forcible(text)
    assert refused.value.code is Reason.CANNOT_BE_PINNED


# -- approved and allowed commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["rm -f 'ü→'; echo 'ü→'", "rm -f a <<'X'\nline one\nline two\nX\necho done", 'rm -f "$HOME"/x; echo \\\\']
)
async def test_approved_text_arrives_byte_for_byte_and_forced(bench: SshBench, text: str) -> None:
    done = await approved(bench, text)
    assert done.status == 0
    assert bench.target.ran() == [text]
    assert bench.target.forced() == 1
    routed = [event for event in bench.memory.transcripts.all("channel.open") if event.fields["side"] == "target"]
    assert [(event.fields["pinned"], event.fields["forced"]) for event in routed] == [(True, True)]
    (serial,) = re.findall(r"Accepted publickey .*\(serial (\d+)\)", bench.target.log)
    assert routed[0].fields["serial"] == f"{int(serial):016x}"  # the target's log and our record name the same certificate


async def test_allowed_commands_share_a_connection_and_a_reviewed_one_has_its_own(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        for word in ("one", "two", "three"):
            assert (await connection.run(f"echo {word}")).stdout == f"{word}\n"
        assert bench.target.log.count("Accepted publickey") == 1
        process = await connection.create_process("rm -f x")
        request = await bench.memory.approvals.next_request()
        bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
        await process.wait()
        assert (await connection.run("echo four")).stdout == "four\n"
    assert bench.target.log.count("Accepted publickey") == 2
    assert bench.target.ran() == ["echo one", "echo two", "echo three", "rm -f x", "echo four"]
    assert bench.target.forced() == 1


async def test_a_reviewed_text_that_can_not_be_pinned_is_refused_before_anybody_is_asked(bench: SshBench) -> None:
    connection = await bench.raw()
    async with connection:
        done = await connection.run("rm -f " + "x" * 110_000)
    assert done.exit_status == 126
    assert "cannot-be-pinned" in str(done.stderr)
    assert bench.memory.approvals.requests == {}
    assert bench.target.ran() == []


async def test_with_a_key_file_nothing_is_forced_and_nothing_is_said_to_be(tmp_path: Path, target: OpenSshServer) -> None:
    async with open_bench(tmp_path / "proxy", target, credentials={"kind": "key", "key": "file:operator"}) as bench:
        assert (await bench.ssh("echo in")).out == b"in\n"
        assert (await approved(bench, "rm -f x")).status == 0
        assert target.forced() == 0
        routed = [event for event in bench.memory.transcripts.all("channel.open") if event.fields["side"] == "target"]
        assert {event.fields["forced"] for event in routed} == {False}


# -- host keys ---------------------------------------------------------------------------------------------------------


def _another_key(target: OpenSshServer) -> str:
    return f"[127.0.0.1]:{target.port} {asyncssh.generate_private_key('ssh-ed25519').export_public_key().decode()}"


def _revoked(target: OpenSshServer) -> str:
    return f"{target.known_hosts}@revoked * {target.host_key.export_public_key().decode()}"


@pytest.mark.parametrize("contents", [_another_key, _revoked, lambda _: "", lambda t: t.known_hosts.replace(str(t.port), "1")])
async def test_a_target_that_is_not_the_configured_one_gets_nothing(
    tmp_path: Path, target: OpenSshServer, contents: Callable[[OpenSshServer], str]
) -> None:
    async with open_bench(tmp_path / "proxy", target) as bench:
        (bench.directory / "known_hosts").write_text(contents(target))
        done = await bench.ssh("echo in")
        assert done.status == 255
        assert "target-identity" in done.err
        assert "host_keys" in done.err
        assert target.log.count("Accepted") == 0
        assert target.ran() == []


async def test_hashed_names_are_understood(tmp_path: Path, target: OpenSshServer) -> None:
    async with open_bench(tmp_path / "proxy", target) as bench:
        known = bench.directory / "known_hosts"
        hashing = await asyncio.create_subprocess_exec(
            "ssh-keygen", "-q", "-H", "-f", str(known), stderr=asyncio.subprocess.DEVNULL
        )
        assert await hashing.wait() == 0
        assert known.read_text().startswith("|1|")
        assert (await bench.ssh("echo in")).out == b"in\n"


async def test_a_host_authority_is_believed_for_the_names_it_signed(tmp_path: Path) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    target = OpenSshServer(extra="")
    certificate = authority.generate_host_certificate(target.host_key, "host", principals=["127.0.0.1"])
    path = target.directory / "host-cert.pub"
    path.write_bytes(certificate.export_certificate())
    target.extra = f"HostCertificate {path}\n"
    await target.start()
    try:
        async with open_bench(tmp_path / "proxy", target) as bench:
            known = bench.directory / "known_hosts"
            known.write_text(f"@cert-authority [127.0.0.1]:{target.port} {authority.export_public_key().decode()}")
            assert (await bench.ssh("echo in")).out == b"in\n"
            other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
            known.write_text(f"@cert-authority [127.0.0.1]:{target.port} {other}")
            assert "target-identity" in (await bench.ssh("echo in")).err
    finally:
        await target.stop()


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_a_target_that_is_down_is_a_sentence_and_255(bench: SshBench) -> None:
    await bench.target.stop()
    done = await bench.ssh("echo in")
    assert done.status == 255
    assert "the target web-1 can't be reached" in done.err
    assert "target-unreachable" in done.err


async def test_a_target_that_never_answers_is_given_up(tmp_path: Path, target: OpenSshServer) -> None:
    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.append(writer)

    gone: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    dead = {"name": "dead", "address": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}
    async with open_bench(tmp_path / "proxy", target, limits=Limits(connect=0.3), more_targets=[dead]) as bench:
        done = await bench.ssh("echo in", user="dead")
        assert done.status == 255
        assert "did not answer within 0.3 s" in done.err
    for writer in gone:
        writer.close()
    server.close()


async def test_a_target_that_does_not_trust_our_ca_is_a_sentence_and_255(bench: SshBench) -> None:
    (bench.target.directory / "ca.pub").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_public_key())
    done = await bench.ssh("echo in")
    assert done.status == 255
    assert "target-credential" in done.err


async def test_a_connection_that_is_lost_says_that_the_outcome_is_unknown(bench: SshBench) -> None:
    process = await bench.spawn("echo before; read line; kill -9 $PPID; sleep 5")
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"before\n"
    process.stdin.write(b"\n")
    done = await finish(process, None)
    assert done.status == 255
    assert "outcome is unknown" in done.err
    assert (await bench.ssh("echo again")).out == b"again\n"


async def test_input_that_never_ends_is_refused(tmp_path: Path, target: OpenSshServer) -> None:
    async with open_bench(tmp_path / "proxy", target, limits=Limits(stdin_idle=0.2)) as bench:
        process = await bench.spawn("tee file")
        done = await finish(process, None)
        assert done.status == 126
        assert "stdin-without-eof" in done.err
        assert bench.memory.approvals.requests == {}
        assert target.ran() == []


async def test_input_that_is_too_large_is_refused(bench: SshBench) -> None:
    done = await bench.ssh("tee file", stdin=b"x" * (300 * 1024))
    assert done.status == 126
    assert "stdin-too-large" in done.err
    assert bench.target.ran() == []


async def test_no_configuration_of_the_user_who_runs_the_proxy_is_read(
    tmp_path: Path, target: OpenSshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  User mallory\n  SendEnv *\n  ProxyCommand touch /nonexistent\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
    async with open_bench(tmp_path / "proxy", target) as bench:
        assert (await bench.ssh("echo in")).out == b"in\n"


async def test_a_target_with_less_room_for_sessions_gets_more_connections(tmp_path: Path) -> None:
    target = OpenSshServer(extra="MaxSessions 2\n")
    await target.start()
    try:
        async with open_bench(tmp_path / "proxy", target) as bench:
            connection = await bench.raw()
            async with connection:
                answers = await asyncio.gather(*(connection.run(f"sleep 0.3; exit {n}") for n in range(1, 9)))
                assert [answer.exit_status for answer in answers] == list(range(1, 9))
            assert sorted(target.ran()) == sorted(f"sleep 0.3; exit {n}" for n in range(1, 9))
    finally:
        await target.stop()


@pytest.mark.parametrize("contents", [None, "one-word\n", b"\xff\xfe"])
async def test_host_keys_that_can_not_be_read_stop_the_start(
    tmp_path: Path, target: OpenSshServer, contents: str | bytes | None
) -> None:
    async with open_bench(tmp_path / "proxy", target) as bench:
        path = bench.directory / "known_hosts"
        path.unlink()
        if contents is not None:
            path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        again = SshListener(bench.config, bench.memory.gate, bench.authenticator, clock=SystemClock(), entropy=system_entropy)
        with pytest.raises(ConfigError, match="known_hosts of web-1 can't be read"):
            await again.start()
        done = await bench.ssh("echo in")  # the one that runs refuses too
        assert done.status == 255
        assert "target-identity" in done.err
