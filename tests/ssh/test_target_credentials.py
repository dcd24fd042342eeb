"""What a real sshd takes from us and from others: only what its own CA signed, for this account, from here, now, unrevoked."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, until
from interlock.approvals.model import VoteVerdict
from interlock.clock import SystemClock, system_entropy
from interlock.config import Credentials, parse
from interlock.errors import ConfigError
from interlock.ssh.credentials import CertificateCredentials

pytestmark = pytest.mark.interop


def certifying(ca: asyncssh.SSHKey, entropy: Any = system_entropy) -> CertificateCredentials:
    return CertificateCredentials(ca, pins=True, clock=SystemClock(), entropy=entropy)


async def login(target: OpenSshServer, keys: Any, account: str = "") -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", target.port, username=account or target.account, client_keys=keys, config=None, agent_path=None,
        known_hosts=None,
    )  # fmt: skip


async def refused(target: OpenSshServer, keys: Any, account: str = "") -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        await login(target, keys, account)
    assert target.log.count("Accepted publickey") == 0


# -- certificates that are not ours, or not for this -------------------------------------------------------------------


async def test_a_certificate_of_the_login_ca_is_worth_nothing_directly_at_the_target(target: OpenSshServer) -> None:
    """What `interlock login` gives (principals `interlock:…`), and the same with the account's own name in it."""
    login_ca, key = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    for principals in (["interlock:claude"], [target.account], [target.account, "interlock:claude"]):
        certificate = login_ca.generate_user_certificate(key, "login", principals=principals)
        await refused(target, [(key, certificate)])
    # Our own CA with the principal that logins have: a key that signs both by mistake opens no account either.
    certificate = target.ca.generate_user_certificate(key, "login", principals=["interlock:claude"])
    await refused(target, [(key, certificate)])


async def test_a_certificate_for_another_account_does_not_open_this_one(target: OpenSshServer) -> None:
    await refused(target, (await certifying(target.ca).prove("another", "127.0.0.1", None)).keys)


async def test_a_host_certificate_of_the_same_ca_is_no_user_certificate(target: OpenSshServer) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    certificate = target.ca.generate_host_certificate(key, "host", principals=[target.account])
    await refused(target, [(key, certificate)])


async def test_a_certificate_with_another_key_than_its_own_is_refused(target: OpenSshServer) -> None:
    """Mixed: a good certificate, seen on the way, and the key of whoever saw it."""
    ours = (await certifying(target.ca).prove(target.account, "127.0.0.1", None)).keys[0]
    assert isinstance(ours, tuple)
    mine = asyncssh.generate_private_key("ssh-ed25519")
    pair = asyncssh.load_keypairs([(ours[0], ours[1])])[0]
    pair.sign = lambda data: mine.sign(data, b"ssh-ed25519")  # type: ignore[method-assign]
    await refused(target, [pair])


async def test_a_certificate_with_a_broken_signature_is_refused(target: OpenSshServer) -> None:
    ours = (await certifying(target.ca).prove(target.account, "127.0.0.1", None)).keys[0]
    assert isinstance(ours, tuple)
    key, certificate = ours
    certificate.public_data = certificate.public_data[:-1] + bytes([certificate.public_data[-1] ^ 1])
    await refused(target, [(key, certificate)])


async def test_a_revoked_serial_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    """What an operator does with the `serial` of a transcript: a KRL at the target (ssh-keygen(1), KEY REVOCATION LISTS)."""
    target = OpenSshServer()
    target.extra = f"RevokedKeys {target.directory}/revoked\n"
    (tmp_path / "ca.pub").write_bytes(target.ca.export_public_key())
    (tmp_path / "list").write_text(f"serial: {0x0707070707070707}\n")
    subprocess.run(
        ["ssh-keygen", "-k", "-f", target.directory / "revoked", "-s", tmp_path / "ca.pub", tmp_path / "list"],
        check=True, capture_output=True,
    )  # fmt: skip
    await target.start()
    try:
        proof = await certifying(target.ca, lambda size: b"\x07" * size).prove(target.account, "127.0.0.1", None)
        assert proof.about["serial"] == "07" * 8
        await refused(target, proof.keys)
        proof = await certifying(target.ca, lambda size: b"\x08" * size).prove(target.account, "127.0.0.1", None)
        async with await login(target, proof.keys) as connection:
            assert (await connection.run("echo in")).stdout == "in\n"
    finally:
        await target.stop()


async def test_a_second_exec_through_the_proxy_never_meets_a_pinned_connection(bench: SshBench) -> None:
    """The proxy gives a pinned connection back to nobody: what comes after the approved command is decided and sent anew."""
    async with await bench.raw() as connection:
        held = await connection.create_process("rm -f approved")
        request = await bench.memory.approvals.next_request()
        later = await connection.run("echo allowed")
        assert later.stdout == "allowed\n"
        bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
        assert (await held.wait()).exit_status == 0
        assert (await connection.run("echo after")).stdout == "after\n"
    assert bench.target.ran() == ["echo allowed", "rm -f approved", "echo after"]
    assert bench.target.forced() == 1


# -- an ssh-agent ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def agent(path: Path, *keys: asyncssh.SSHKey) -> AsyncIterator[None]:
    """Run a real ssh-agent that holds these keys."""
    process = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(path), stdout=asyncio.subprocess.DEVNULL)
    try:
        await until(path.exists)
        for number, key in enumerate(keys):
            file = path.with_name(f"key{number}")
            file.touch(mode=0o600)
            file.write_bytes(key.export_private_key("openssh"))
            adding = await asyncio.create_subprocess_exec(
                "ssh-add", "-q", str(file), env={**os.environ, "SSH_AUTH_SOCK": str(path)}
            )
            assert await adding.wait() == 0
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_of_an_agent_the_one_configured_key_is_used_and_no_other(tmp_path: Path, target: OpenSshServer) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    socket = target.directory / "agent"
    (tmp_path / "operator.pub").write_bytes(target.operator.export_public_key())
    (tmp_path / "other.pub").write_bytes(other.export_public_key())
    (tmp_path / "absent.pub").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_public_key())
    targets = [
        {"name": name, "credentials": {"kind": "agent", "agent": str(socket), "public_key": str(tmp_path / f"{name}.pub")}}
        for name in ("operator", "other", "absent")
    ]
    bench = SshBench(tmp_path / "proxy", target, more_targets=targets)
    await bench.start()
    try:
        async with agent(socket, target.operator, other):
            done = await bench.ssh("echo in", user="operator")
            assert (done.out, done.err) == (b"in\n", "")
            (routed,) = [e for e in bench.memory.transcripts.all("channel.open") if e.fields["side"] == "target"]
            assert (routed.fields["credential"], routed.fields["forced"]) == ("agent", False)
            assert routed.fields["key"] == target.operator.get_fingerprint()
            done = await bench.ssh("echo in", user="other")
            assert done.status == 255
            assert "did not accept our credential" in done.err
            done = await bench.ssh("echo in", user="absent")
            assert done.status == 255
            assert "does not have the key" in done.err
        bench.listener.reload()
        done = await bench.ssh("echo in", user="operator")
        assert "can't be asked" in done.err
        assert target.ran() == ["echo in"]
    finally:
        await bench.stop()


@pytest.mark.parametrize(
    "given", [{"kind": "agent"}, {"kind": "agent", "agent": "/run/a"}, {"kind": "key", "agent": "/run/a", "public_key": "k.pub"}]
)
def test_an_agent_is_named_whole_or_not_at_all(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="kind: agent"):
        Credentials.model_validate(given)


def test_a_database_takes_no_ssh_agent(tmp_path: Path) -> None:
    orders = {
        "name": "orders", "protocol": "postgres", "address": "127.0.0.1:5432", "database": "app", "role": "app", "tls": "disable",
        "credentials": {"kind": "agent", "agent": "/run/a", "public_key": "k.pub"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="ssh targets"):
        parse({"version": 1, "node": {"name": "n", "data_dir": "d"}, "targets": [orders]}, base=tmp_path)
