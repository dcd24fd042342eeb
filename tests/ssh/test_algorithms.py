"""What both legs offer, read off the wire: nothing that an auditor would mark, and strict key exchange always.

The lists here are written out and not imported: a change of ours has to be made in two places.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import SSHPacket

from harness.openssh_server import OpenSshServer
from harness.ssh_bench import SshBench, until

pytestmark = pytest.mark.interop

KEX = ["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "diffie-hellman-group16-sha512"]
GCM = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
CTR = ["aes256-ctr", "aes128-ctr"]
MACS = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"]

NAMES = ("kex", "host_key", "cipher_out", "cipher_in", "mac_out", "mac_in", "compression_out", "compression_in")
NOTICES = {"ext-info-s", "ext-info-c", "kex-strict-s-v00@openssh.com", "kex-strict-c-v00@openssh.com"}


async def offered(reader: asyncio.StreamReader) -> dict[str, list[str]]:
    """Read the other side's banner and its KEXINIT (RFC 4253 §4.2, §6, §7.1)."""
    async with asyncio.timeout(30):
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        size = int.from_bytes(await reader.readexactly(4), "big")
        body = await reader.readexactly(size)
    packet = SSHPacket(body[1 : size - body[0]])
    assert packet.get_byte() == 20
    packet.get_bytes(16)
    return {name: [algorithm.decode() for algorithm in packet.get_namelist()] for name in NAMES}


async def at_the_door(bench: SshBench, banner: bytes) -> dict[str, list[str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.listener.port)
    writer.write(banner + b"\r\n")
    try:
        return await offered(reader)
    finally:
        writer.close()


def check(lists: dict[str, list[str]], ciphers: list[str], strict: str) -> None:
    assert [name for name in lists["kex"] if name not in NOTICES] == [name for name in KEX if name in lists["kex"]]
    assert "curve25519-sha256" in lists["kex"]
    assert strict in lists["kex"]
    for way in ("out", "in"):
        assert lists[f"cipher_{way}"] == ciphers
        assert lists[f"mac_{way}"] == MACS
        assert lists[f"compression_{way}"] == ["none"]


async def test_a_client_is_offered_what_an_auditor_likes(bench: SshBench) -> None:
    lists = await at_the_door(bench, b"SSH-2.0-Other_1.0")
    check(lists, GCM + CTR, "kex-strict-s-v00@openssh.com")
    assert lists["host_key"] == ["ssh-ed25519"]


async def test_openssh_is_offered_gcm_alone(bench: SshBench) -> None:
    """Its own order prefers chacha20 and CTR, and the client's order decides."""
    check(await at_the_door(bench, b"SSH-2.0-OpenSSH_9.2p1"), GCM, "kex-strict-s-v00@openssh.com")


async def test_a_target_is_offered_the_same(tmp_path: Path) -> None:
    target = OpenSshServer()  # only its keys and its address: somebody else listens there
    heard: asyncio.Future[dict[str, list[str]]] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-Listener\r\n")
        heard.set_result(await offered(reader))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", target.port)
    bench = SshBench(tmp_path / "proxy", target)
    await bench.start()
    try:
        done = await bench.ssh("echo in")
        assert done.status == 255
        lists = await heard
        check(lists, GCM + CTR, "kex-strict-c-v00@openssh.com")
        assert "ssh-ed25519" in lists["host_key"]
        assert not {"ssh-rsa", "ssh-dss", "ssh-rsa-cert-v01@openssh.com"} & set(lists["host_key"])
    finally:
        await bench.stop()
        server.close()
        await server.wait_closed()
        await target.stop()


async def test_ssh_audit_finds_no_failure(bench: SshBench) -> None:
    """And no warning but that older key exchanges do not stand up to quantum computers: clients without mlkem need one."""
    audit = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ssh_audit.ssh_audit", "--skip-rate-test", "-j", f"127.0.0.1:{bench.listener.port}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, _ = await audit.communicate()
    report = json.loads(out)
    assert [row["algorithm"] for row in report["enc"]] == GCM  # it says that it is OpenSSH
    assert report["cves"] == []
    marked = [
        (row["algorithm"], level, note)
        for kind in ("kex", "key", "enc", "mac")
        for row in report[kind]
        for level in ("fail", "warn")
        for note in row["notes"].get(level, ())
    ]
    expected = [(name, "warn", "does not provide protection against post-quantum attacks") for name in KEX if "mlkem" not in name]
    assert marked == expected


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("KexAlgorithms=diffie-hellman-group14-sha1", "no matching key exchange"),
        ("KexAlgorithms=diffie-hellman-group1-sha1", "no matching key exchange"),
        ("KexAlgorithms=diffie-hellman-group-exchange-sha1", "no matching key exchange"),
        ("KexAlgorithms=ecdh-sha2-nistp256", "no matching key exchange"),
        ("HostKeyAlgorithms=ssh-rsa", "no matching host key"),
        ("Ciphers=aes256-cbc", "no matching cipher"),
        ("Ciphers=3des-cbc", "no matching cipher"),
    ],
)
async def test_a_client_that_has_only_old_algorithms_gets_no_further(bench: SshBench, option: str, said: str) -> None:
    done = await bench.ssh("echo in", options=["-o", option])
    assert done.status == 255
    assert said in done.err
    assert bench.memory.transcripts.sessions == []


async def test_a_client_with_old_macs_gets_no_further(bench: SshBench) -> None:
    with pytest.raises(asyncssh.KeyExchangeFailed):
        await bench.raw(encryption_algs=["aes128-ctr"], mac_algs=["hmac-sha1"])
    assert bench.memory.transcripts.sessions == []


@pytest.mark.parametrize(
    "settings",
    ["KexAlgorithms diffie-hellman-group14-sha1", "KexAlgorithms ecdh-sha2-nistp256", "Ciphers aes128-cbc",
     "Ciphers aes128-ctr\nMACs hmac-sha1"],
)  # fmt: skip
async def test_a_target_that_has_only_old_algorithms_gets_no_command(tmp_path: Path, settings: str) -> None:
    target = OpenSshServer(extra=f"{settings}\n")
    await target.start()
    bench = SshBench(tmp_path / "proxy", target)
    await bench.start()
    try:
        done = await bench.ssh("echo in")
        assert done.status == 255
        await until(lambda: "no matching" in target.log)  # whichever side says it first
        assert target.ran() == []
    finally:
        await bench.stop()
        await target.stop()


class OldServer(asyncssh.SSHServerConnection):
    """A target from before strict key exchange."""

    logins = 0

    def _get_extra_kex_algs(self) -> list[bytes]:
        return [b"ext-info-s"]

    def begin_auth(self, username: str) -> bool:
        OldServer.logins += 1
        return True


async def test_a_target_without_strict_key_exchange_gets_no_login(tmp_path: Path) -> None:
    target = OpenSshServer()  # only its keys and its address
    options = asyncssh.SSHServerConnectionOptions(
        server_factory=asyncssh.SSHServer, server_host_keys=[target.host_key], config=None
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: OldServer(loop, options), "127.0.0.1", target.port)
    bench = SshBench(tmp_path / "proxy", target)
    await bench.start()
    try:
        done = await bench.ssh("echo in")
        assert done.status == 255
        assert "strict key exchange (kex-strict-*-v00@openssh.com, CVE-2023-48795) is required" in done.err
        assert OldServer.logins == 0
    finally:
        await bench.stop()
        server.close()
        await server.wait_closed()
        await target.stop()
