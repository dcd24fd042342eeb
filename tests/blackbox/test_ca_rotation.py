"""The login authority gets a new key under running clients: by the command line, with stock ssh and what ssh-keygen reads."""

from __future__ import annotations

import asyncio
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from blackbox.conftest import World, make_key
from interlock.cli.client import Client
from interlock.control import SOCKET

pytestmark = [pytest.mark.blackbox, pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]


class Machine:
    """An agent's, with one key and a certificate for each time that it asked."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.key = make_key(folder / "id")
        with closing(Client(str(world.node.data_dir / SOCKET))) as daemon:
            self.token = daemon.post("/v1/principals/claude/tokens")["token"]

    def certificate(self, name: str) -> Path:
        with closing(Client(str(self.world.node.data_dir / SOCKET), token=self.token)) as daemon:
            row = daemon.post("/v1/certificate", {"public_key": self.key.with_suffix(".pub").read_text().strip()})
        file = self.key.with_name(f"{name}-cert.pub")
        file.write_text(row["certificate"] + "\n")
        return file

    def argv(self, certificate: Path, command: str) -> list[str]:
        return [
            "ssh", "-F", "none", "-i", str(self.key), "-o", f"CertificateFile={certificate}", "-o", "IdentitiesOnly=yes",
            "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o",
            f"UserKnownHostsFile={self.world.known_hosts}", "-p", str(self.world.node.port("ssh")), "web-1@127.0.0.1", command,
        ]  # fmt: skip

    def enters(self, certificate: Path) -> bool:
        done = subprocess.run(self.argv(certificate, "echo in"), capture_output=True, timeout=60, check=False)
        assert done.stdout in (b"in\n", b""), done
        return done.stdout == b"in\n"


def authority(certificate: Path) -> str:
    """The fingerprint of the key that signed it, as ssh-keygen reads it."""
    told = subprocess.run(["ssh-keygen", "-L", "-f", str(certificate)], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Signing CA: \S+ (SHA256:\S+)", told)
    assert found is not None, told
    return found[1]


async def test_certificates_of_the_old_key_count_until_they_end_or_until_all_end_now(world: World, tmp_path: Path) -> None:
    node, machine = world.node, await asyncio.to_thread(Machine, world, tmp_path)
    old = await asyncio.to_thread(machine.certificate, "old")
    first = await asyncio.to_thread(node.json, "ca", "show")
    assert authority(old) == first["fingerprint"] and await asyncio.to_thread(machine.enters, old)

    rotated = await asyncio.to_thread(node.json, "ca", "rotate")
    new = await asyncio.to_thread(machine.certificate, "new")
    assert authority(new) == rotated["fingerprint"] != first["fingerprint"]
    assert [row["key"] for row in rotated["previous"]] == [first["key"]] and rotated["ended"] == 0
    for certificate in (old, new):
        assert await asyncio.to_thread(machine.enters, certificate)

    # Killed in the overlap: who the earlier authority is, and until when, is on disk.
    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)
    world.trust_host()
    kept = (await asyncio.to_thread(node.json, "ca", "show"))["previous"]
    assert [row["key"] for row in kept] == [first["key"]] and kept[0]["until"] <= rotated["previous"][0]["until"]
    for certificate in (old, new):
        assert await asyncio.to_thread(machine.enters, certificate)

    running = await asyncio.create_subprocess_exec(
        *machine.argv(new, "echo in; sleep 600"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    async with asyncio.timeout(60):
        assert await running.stdout.readline() == b"in\n"
    ended = await asyncio.to_thread(node.json, "ca", "rotate", "--now")
    async with asyncio.timeout(60):
        _, said = await running.communicate()
    assert running.returncode == 255, said
    assert ended["previous"] == [] and ended["ended"] == 2
    for certificate in (old, new):
        assert not await asyncio.to_thread(machine.enters, certificate)
    assert await asyncio.to_thread(machine.enters, await asyncio.to_thread(machine.certificate, "newest"))
