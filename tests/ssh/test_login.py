"""Who gets in: proven keys and tokens only, to targets that an access rule opens, within the listener's bounds."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from harness.openssh_server import OpenSshServer
from harness.people import BOB, agent, person
from harness.ssh_bench import SshBench, until
from harness.ssh_forger import Forger
from interlock.clock import SystemClock, system_entropy
from interlock.errors import ConfigError
from interlock.ssh.connection import ClientConnection
from interlock.ssh.limits import Limits
from interlock.ssh.listener import SshListener

pytestmark = pytest.mark.interop

SECRET = "ilk_secret-of-the-agent"


async def test_a_registered_key_opens_a_session_in_its_owners_name(bench: SshBench) -> None:
    assert (await bench.ssh("echo in")).out == b"in\n"
    (opened,) = bench.memory.transcripts.all("session.open")
    assert opened.fields["handle"] == "claude-ci"
    assert opened.fields["target"] == "web-1"
    assert opened.fields["account"] == bench.target.account
    assert opened.fields["strict_kex"] is True


async def test_an_unknown_key_does_not_get_in_and_the_journal_says_so(bench: SshBench) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1", bench.listener.port, username="web-1", config=None, agent_path=None, client_keys=[stranger],
            known_hosts=str(bench.directory / "proxy_known_hosts"),
        )  # fmt: skip
    assert bench.memory.transcripts.sessions == []
    await until(lambda: bench.memory.transcripts.journal.of("access.refused"))


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
async def test_a_token_gets_in_by_password_and_by_prompt(bench: SshBench, method: str) -> None:
    bench.authenticator.tokens[SECRET] = agent()
    asked = []

    class Typist(asyncssh.SSHClient):
        def kbdint_auth_requested(self) -> str:
            return ""

        def kbdint_challenge_received(
            self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
        ) -> list[str]:
            asked.extend(prompts)
            return [SECRET for _ in prompts]

    connection = await asyncssh.connect(
        "127.0.0.1", bench.listener.port, username="web-1", password=SECRET, client_factory=Typist,
        config=None, agent_path=None, client_keys=None,
        preferred_auth=method, known_hosts=str(bench.directory / "proxy_known_hosts"),
    )  # fmt: skip
    async with connection:
        assert (await connection.run("echo in")).stdout == "in\n"
    assert asked == ([("Token: ", False)] if method == "keyboard-interactive" else [])  # not echoed


async def test_a_wrong_token_does_not_and_is_not_in_any_log(bench: SshBench, capsys: pytest.CaptureFixture[str]) -> None:
    for method in ("password", "keyboard-interactive"):
        with pytest.raises(asyncssh.PermissionDenied):
            await asyncssh.connect(
                "127.0.0.1", bench.listener.port, username="web-1", password="wrong-token", config=None, agent_path=None,
                client_keys=None, preferred_auth=method, known_hosts=str(bench.directory / "proxy_known_hosts"),
            )  # fmt: skip
    assert bench.memory.transcripts.sessions == []
    said = capsys.readouterr()
    assert "ssh.token.refused" in said.out + said.err
    assert "wrong-token" not in said.out + said.err


async def test_no_method_gets_nobody_in(bench: SshBench) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1", bench.listener.port, username="web-1", config=None, agent_path=None, client_keys=None, password=None,
            known_hosts=str(bench.directory / "proxy_known_hosts"),
        )  # fmt: skip


@asynccontextmanager
async def forging(bench: SshBench) -> AsyncIterator[tuple[Forger, asyncssh.SSHKey]]:
    """A hostile client, and the public half of a key that belongs to somebody of more rights."""
    mighty = asyncssh.generate_private_key("ssh-ed25519")
    bench.authenticator.keys[mighty.public_data] = person(BOB)
    forger = await Forger.connect(bench.listener.port, str(bench.directory / "proxy_known_hosts"))
    try:
        yield forger, mighty
    finally:
        forger.abort()
        await forger.wait_closed()


def who(bench: SshBench) -> list[object]:
    return [event.fields["handle"] for event in bench.memory.transcripts.all("session.open")]


async def test_authority_comes_from_the_key_that_signed_not_from_one_that_was_offered(bench: SshBench) -> None:
    """Offer the key of somebody of more rights, then sign with one's own (CVE-2024-45337)."""
    async with forging(bench) as (forger, mighty):
        forger.offer(mighty, "web-1")
        assert await forger.answers.get() == "offered"
        forger.sign(bench.key, "web-1")
        assert await forger.answers.get() == "success"
    assert who(bench) == ["claude-ci"]


async def test_an_offer_after_the_proof_was_sent_changes_nothing(bench: SshBench) -> None:
    async with forging(bench) as (forger, mighty):
        forger.sign(bench.key, "web-1")
        forger.offer(mighty, "web-1")
        forger.sign(mighty, "web-1", by=bench.key)
        await forger.answers.get()
    assert who(bench) in (["claude-ci"], [])


async def test_a_signature_of_another_key_proves_nothing(bench: SshBench) -> None:
    async with forging(bench) as (forger, mighty):
        forger.sign(mighty, "web-1", by=bench.key)
        assert await forger.answers.get() == "failure"
    assert who(bench) == []


async def test_a_signature_for_another_user_name_proves_nothing(bench: SshBench) -> None:
    async with forging(bench) as (forger, _):
        forger.sign(bench.key, "root@web-1", for_user="web-1")
        assert await forger.answers.get() == "failure"
    assert who(bench) == []


async def test_without_a_proof_a_success_is_a_failure(bench: SshBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if every check before it were wrong: no session is opened for a method that left no proof behind."""
    monkeypatch.setattr(ClientConnection, "_prove", lambda *_: None)
    assert (await bench.ssh("echo in")).status == 255
    assert who(bench) == []


async def test_nothing_is_served_before_the_authentication_is_complete(bench: SshBench) -> None:
    """Requests before authentication (CVE-2018-7749), with a key offered and none proven."""
    async with forging(bench) as (forger, _):
        forger.offer(bench.key, "web-1")
        assert await forger.answers.get() == "offered"
        forger.open_early()
        assert await forger.answers.get() == "closed"
    assert who(bench) == []


async def test_a_key_that_signs_with_sha1_does_not_get_in(bench: SshBench) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    bench.authenticator.keys[key.public_data] = agent()
    common = {"config": None, "agent_path": None, "known_hosts": str(bench.directory / "proxy_known_hosts"), "client_keys": [key]}
    with pytest.raises((asyncssh.PermissionDenied, asyncssh.DisconnectError)):
        await asyncssh.connect("127.0.0.1", bench.listener.port, username="web-1", signature_algs=["ssh-rsa"], **common)
    async with await asyncssh.connect("127.0.0.1", bench.listener.port, username="web-1", **common) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"


@pytest.mark.parametrize("user", ["nowhere", "nobody@web-1", "closed", "a b@web-1", "Web-1"])
async def test_what_no_rule_opens_is_a_sentence_and_255(tmp_path: Path, target: OpenSshServer, user: str) -> None:
    bench = SshBench(tmp_path / "proxy", target, more_targets=[{"name": "closed"}])
    await bench.start()
    try:
        done = await bench.ssh("echo in", user=user)
        assert done.status == 255
        assert "interlock: " in done.err
        assert "no-access" in done.err
        assert bench.target.log.count("Connection from") == 0
        assert bench.memory.transcripts.sessions == []
        assert bench.memory.transcripts.journal.of("access.refused")
    finally:
        await bench.stop()


async def test_another_account_is_named_in_the_user_name(bench: SshBench) -> None:
    done = await bench.ssh("echo in", user=f"{bench.target.account}@web-1")
    assert done.out == b"in\n"
    done = await bench.ssh("echo in", user="no-such-account@web-1")
    assert done.status == 255
    assert "did not accept our credential for no-such-account" in done.err


async def test_both_families_reach_a_listener_on_every_address(bench: SshBench) -> None:
    config = bench.config.model_copy(update={"listen": bench.config.listen.model_copy(update={"ssh": "[::]:0"})})
    everywhere = SshListener(config, bench.memory.gate, bench.authenticator, clock=SystemClock(), entropy=system_entropy)
    await everywhere.start()
    try:
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, everywhere.port)
            assert (await reader.readline()).startswith(b"SSH-2.0-Interlock")
            writer.close()
    finally:
        await everywhere.close()


async def test_the_host_key_is_ours_private_and_stays(bench: SshBench) -> None:
    path = bench.directory / "data" / "ssh_host_ed25519_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = bench.listener.host_key
    again = SshListener(bench.config, bench.memory.gate, bench.authenticator, clock=SystemClock(), entropy=system_entropy)
    await again.start()
    assert again.host_key == first
    await again.close()


async def test_a_key_for_a_target_that_can_not_be_read_stops_the_start(bench: SshBench) -> None:
    (bench.directory / "targets_ca").write_text("no key")
    with pytest.raises(ConfigError, match=r"targets_ca\.key") as refused:
        SshListener(bench.config, bench.memory.gate, bench.authenticator, clock=SystemClock(), entropy=system_entropy)
    assert "no key" not in str(refused.value)


async def test_an_ssh_target_without_a_credential_stops_the_start(tmp_path: Path, target: OpenSshServer) -> None:
    bench = SshBench(tmp_path / "proxy", target, credentials={"kind": "none"})
    with pytest.raises(ConfigError, match="ssh-ca, key or agent"):
        await bench.start()


# -- bounds and bad input ----------------------------------------------------------------------------------------------


async def silent(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def test_two_hundred_silent_connections_do_not_hinder_the_others(bench: SshBench) -> None:
    mute = [await silent(bench.listener.port) for _ in range(200)]
    assert (await bench.ssh("echo in")).out == b"in\n"
    for _, writer in mute:
        writer.close()


async def test_a_connection_that_never_speaks_is_closed_at_the_deadline(tmp_path: Path, target: OpenSshServer) -> None:
    bench = SshBench(tmp_path / "proxy", target, limits=Limits(handshake=0.2, login=0.5))
    await bench.start()
    try:
        reader, writer = await silent(bench.listener.port)
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"SSH-2.0-")  # its banner, and then the end
        writer.close()
    finally:
        await bench.stop()


async def test_one_source_too_many_is_closed_at_once(tmp_path: Path, target: OpenSshServer) -> None:
    bench = SshBench(tmp_path / "proxy", target, limits=Limits(strangers_per_source=3))
    await bench.start()
    try:
        mute = [await silent(bench.listener.port) for _ in range(3)]
        for reader, _ in mute:
            assert (await reader.readline()).startswith(b"SSH-2.0-")
        reader, writer = await silent(bench.listener.port)
        async with asyncio.timeout(30):
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
        writer.close()
        for _, writer in mute:
            writer.close()
        await until(lambda: bench.listener.inside == 0)
        assert (await bench.ssh("echo in")).out == b"in\n"
    finally:
        await bench.stop()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"SSH-1.5-old\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 64, b"\0" * 9000, b"SSH-2.0-" + b"A" * 9000,
     b"SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x32" + b"no packet.", b"SSH-2.0-\xff\xfe\r\n"],
)  # fmt: skip
async def test_garbage_before_authentication_ends_that_connection_alone(bench: SshBench, garbage: bytes) -> None:
    reader, writer = await silent(bench.listener.port)
    writer.write(garbage)
    try:
        async with asyncio.timeout(30):
            await reader.read()
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    assert (await bench.ssh("echo in")).out == b"in\n"
    assert bench.memory.transcripts.journal.of("access.refused") == []


async def test_a_client_without_strict_key_exchange_is_refused_in_words(bench: SshBench) -> None:
    class Old(asyncssh.SSHClientConnection):
        def _get_extra_kex_algs(self) -> list[bytes]:
            return [b"ext-info-c"]

    _, login = await bench.begun(Old)
    with pytest.raises(asyncssh.DisconnectError, match="strict key exchange"):
        await login


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes128-cbc"])
async def test_old_and_fragile_ciphers_are_not_offered(bench: SshBench, cipher: str) -> None:
    done = await bench.ssh("echo in", options=["-c", cipher])
    assert done.status == 255
    assert "no matching cipher" in done.err


async def test_gcm_is_what_a_stock_client_gets(bench: SshBench) -> None:
    await bench.ssh("echo in")
    (opened,) = bench.memory.transcripts.all("session.open")
    assert str(opened.fields["cipher"]).endswith("-gcm@openssh.com")


async def test_too_many_failures_end_the_connection(tmp_path: Path, target: OpenSshServer) -> None:
    bench = SshBench(tmp_path / "proxy", target, limits=Limits(login_failures=3))
    await bench.start()
    try:
        keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(8)]
        with pytest.raises(asyncssh.DisconnectError, match="too many"):
            await asyncssh.connect(
                "127.0.0.1", bench.listener.port, username="web-1", config=None, agent_path=None, client_keys=[*keys, bench.key],
                known_hosts=str(bench.directory / "proxy_known_hosts"),
            )  # fmt: skip
    finally:
        await bench.stop()


async def test_closing_hands_held_requests_back_and_seals(bench: SshBench) -> None:
    process = await bench.spawn("rm -rf x")
    request = await bench.memory.approvals.next_request()
    await bench.listener.close()
    _, err = await process.communicate()
    assert process.returncode == 255
    assert b"shutting-down" in err
    assert bench.memory.approvals.returned == [request.id]
    assert all(session.closed is not None for session in bench.memory.transcripts.sessions)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await silent(bench.listener.port)
