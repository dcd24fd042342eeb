"""The demo's own SSH target, as a process, behind the proxy: it must enforce what sshd enforces."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest
import pytest_asyncio

from harness.loopback import free_port
from harness.ssh_bench import SshBench, finish, until
from interlock.approvals.model import VoteVerdict
from interlock.clock import SystemClock, system_entropy
from interlock.ssh.credentials import CertificateCredentials

pytestmark = pytest.mark.interop

SCRIPT = Path(__file__).parents[2] / "deploy" / "demo" / "ssh_target.py"


@dataclass
class DemoTarget:
    home: Path
    port: int
    ca: asyncssh.SSHKey
    operator: asyncssh.SSHKey
    host_key: asyncssh.SSHKey
    account: str = "deploy"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port} {self.host_key.export_public_key().decode()}"


@pytest_asyncio.fixture
async def demo(tmp_path: Path) -> AsyncIterator[DemoTarget]:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(3)]
    target = DemoTarget(tmp_path / "home", free_port(), *keys)
    target.home.mkdir()
    (tmp_path / "host").touch(mode=0o600)
    (tmp_path / "host").write_bytes(target.host_key.export_private_key())
    (tmp_path / "ca.pub").write_bytes(target.ca.export_public_key())
    (tmp_path / "operator.pub").write_bytes(target.operator.export_public_key())
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), "--port", str(target.port), "--host-key", str(tmp_path / "host"), "--account", "deploy",
        "--ca", str(tmp_path / "ca.pub"), "--authorized", str(tmp_path / "operator.pub"), "--directory", str(target.home),
    )  # fmt: skip
    async with asyncio.timeout(45):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            except OSError:
                assert process.returncode is None
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
    yield target
    process.terminate()
    await process.wait()


@pytest_asyncio.fixture
async def demo_bench(tmp_path: Path, demo: DemoTarget) -> AsyncIterator[SshBench]:
    bench = SshBench(tmp_path / "proxy", demo)  # type: ignore[arg-type]  # as much of a target as the bench asks for
    await bench.start()
    yield bench
    await bench.stop()


async def test_commands_run_with_their_outputs_status_and_input(demo_bench: SshBench) -> None:
    done = await demo_bench.ssh("cat; echo err >&2; pwd; exit 4", stdin=b"in\n")
    assert (done.status, done.err) == (4, "err\n")
    assert done.out == f"in\n{demo_bench.target.home}\n".encode()


async def test_a_held_command_runs_after_approval(demo_bench: SshBench) -> None:
    (demo_bench.target.home / "victim").mkdir()
    process = await demo_bench.spawn("rm -rf victim")
    request = await demo_bench.memory.approvals.next_request()
    assert (demo_bench.target.home / "victim").exists()
    demo_bench.memory.approvals.answer(request.id, VoteVerdict.APPROVE)
    assert (await finish(process)).status == 0
    assert not (demo_bench.target.home / "victim").exists()


async def test_a_forced_command_is_forced_here_too(demo: DemoTarget) -> None:
    credentials = CertificateCredentials(demo.ca, pins=True, clock=SystemClock(), entropy=system_entropy)
    proof = await credentials.prove("deploy", "127.0.0.1", b"echo approved")
    connection = await asyncssh.connect(
        "127.0.0.1", demo.port, username="deploy", client_keys=proof.keys, config=None, agent_path=None, known_hosts=None
    )
    async with connection:
        assert (await connection.run("touch other")).stdout == "approved\n"
    assert not (demo.home / "other").exists()


@pytest.mark.parametrize(("account", "source"), [("root", "127.0.0.1"), ("deploy", "192.0.2.1")])
async def test_a_certificate_for_another_account_or_place_does_not_get_in(demo: DemoTarget, account: str, source: str) -> None:
    credentials = CertificateCredentials(demo.ca, pins=True, clock=SystemClock(), entropy=system_entropy)
    proof = await credentials.prove(account, source, None)
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1", demo.port, username="deploy", client_keys=proof.keys, config=None, agent_path=None, known_hosts=None
        )


async def test_a_command_dies_with_its_channel(demo_bench: SshBench) -> None:
    process = await demo_bench.spawn("echo $$ > pid; sleep 300")
    pid = demo_bench.target.home / "pid"
    await until(lambda: pid.exists() and pid.read_text().strip())
    process.kill()
    await process.wait()
    await until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
