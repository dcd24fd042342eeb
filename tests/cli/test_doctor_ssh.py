"""`interlock doctor TARGET` for SSH: what it says where each step fails, against a real sshd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from typer.testing import CliRunner

from harness.loopback import free_port
from harness.openssh_server import OpenSshServer
from interlock.cli.main import build
from interlock.cli.sshcheck import STEPS

pytestmark = pytest.mark.interop


class Setup:
    """A configuration with one target that works, in which each test changes one thing, here or at the target."""

    def __init__(self, folder: Path, sshd: OpenSshServer) -> None:
        self.folder, self.sshd = folder, sshd
        for name, key in (("targets_ca", sshd.ca), ("operator", sshd.operator)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_bytes(key.export_private_key())
        (folder / "known_hosts").write_text(sshd.known_hosts)
        self.target: dict[str, Any] = {
            "name": "web-1", "protocol": "ssh", "address": sshd.address, "account": sshd.account, "host_keys": "known_hosts",
            "credentials": {"kind": "ssh-ca"}, "shell": "bash",
        }  # fmt: skip

    async def doctor(self) -> dict[str, dict[str, str]]:
        """Run it while the target runs, and return its lines by step."""
        file = self.folder / "interlock.yaml"
        config = {"version": 1, "node": {"data_dir": "data"}, "targets_ca": {"key": "file:targets_ca"}, "targets": [self.target]}
        file.write_text(json.dumps(config))  # JSON is YAML
        await self.sshd.start()
        try:
            words = ["doctor", "web-1", "--config", str(file), "--output", "json"]
            result = await asyncio.to_thread(CliRunner().invoke, build(["doctor"]), words)
            self.ran = self.sshd.ran()
        finally:
            await self.sshd.stop()
        checks = json.loads(result.stdout)["checks"]
        if checks[0]["status"] == "ok" or len(checks) == len(STEPS):
            assert [check["check"] for check in checks] == list(STEPS)
        assert result.exit_code == (0 if all(check["status"] == "ok" for check in checks) else 1)
        return {check["check"]: check for check in checks}

    async def fails(self, step: str, says: str, advice: str) -> None:
        checks = await self.doctor()
        if len(checks) < len(STEPS):  # nobody knows the protocol of what does not load
            checks = {step: checks[step]} | {name: {"status": "skipped"} for name in STEPS[1:]}
        at = STEPS.index(step)
        statuses = [check["status"] for check in checks.values()]
        assert statuses == ["ok"] * at + ["failed"] + ["skipped"] * (len(STEPS) - at - 1), checks
        assert says in checks[step]["detail"]
        assert advice in checks[step]["fix"]


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, OpenSshServer())


async def test_everything_there(setup: Setup) -> None:
    checks = await setup.doctor()
    assert {check["status"] for check in checks.values()} == {"ok"}, checks
    assert checks["answer"]["detail"].startswith("OpenSSH_")
    assert "gcm" in checks["algorithms"]["detail"]
    assert checks["host key"]["detail"].startswith(setup.sshd.host_key.get_fingerprint())
    assert "serial" in checks["credential"]["detail"]
    assert checks["sessions"]["detail"] == "8 at once on one connection"
    assert set(setup.ran) == {"echo interlock", "read x", "printenv LC_ALL"}


def another_ca(setup: Setup) -> None:
    (setup.folder / "targets_ca").write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())


def another_host_key(setup: Setup) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    (setup.folder / "known_hosts").write_text(f"[127.0.0.1]:{setup.sshd.port} {key}")


def changed(**target: Any) -> Callable[[Setup], None]:
    return lambda setup: setup.target.update(target)


def at_sshd(line: str) -> Callable[[Setup], None]:
    def change(setup: Setup) -> None:
        setup.sshd.extra += line + "\n"

    return change


@pytest.mark.parametrize(
    ("change", "step", "says", "advice"),
    [
        (changed(host_keys="nowhere"), "configuration", "can't be read", "nothing was sent"),
        (changed(address=f"127.0.0.1:{free_port()}"), "answer", "does not answer", "start sshd there"),
        (changed(address=f"{'x' * 64}.invalid:22"), "address", "not known here", "correct address:"),
        (at_sshd("KexAlgorithms diffie-hellman-group14-sha256"), "algorithms", "share no algorithms", "its address"),
        (another_host_key, "host key", "not in its host_keys file", "add it to host_keys"),
        (another_ca, "credential", "did not accept our credential", "TrustedUserCAKeys"),
        (changed(account="no-such-account"), "credential", "did not accept our credential", "the account must exist"),
        (at_sshd("ForceCommand echo other"), "command", "did not print its word", "ForceCommand"),
        (at_sshd("MaxSessions 3"), "sessions", "opens 3 sessions", "reuse: {sessions: 3}"),
    ],
)
async def test_each_step_says_what_is_wrong_and_what_to_do(
    setup: Setup, change: Callable[[Setup], None], step: str, says: str, advice: str
) -> None:
    change(setup)
    await setup.fails(step, says, advice)


async def test_a_configuration_that_does_not_load(setup: Setup) -> None:
    setup.target["account"] = ""
    await setup.fails("configuration", "needs account:", "interlock check")


async def test_what_is_no_failure_is_a_hint(setup: Setup) -> None:
    setup.target["shell"] = "unknown"
    setup.sshd.start_up = "unset LC_ALL\n"
    checks = await setup.doctor()
    assert {check["status"] for check in checks.values()} == {"ok"}, checks
    assert "AcceptEnv" in checks["environment"]["detail"]


async def test_a_key_file_and_its_rc_file(setup: Setup) -> None:
    setup.target["credentials"] = {"kind": "key", "key": "file:operator"}
    checks = await setup.doctor()
    assert checks["forced command"]["status"] == "ok"
    assert "does not enforce" in checks["forced command"]["detail"]
    assert checks["start-up"]["detail"] == "no ~/.ssh/rc"


async def test_an_rc_file_that_runs_before_every_command(setup: Setup) -> None:
    setup.target["credentials"] = {"kind": "key", "key": "file:operator"}
    setup.sshd.start_up = "mkdir -p .ssh; touch .ssh/rc\n"
    await setup.fails("start-up", "runs before every command", "PermitUserRC no")


@pytest.mark.parametrize(
    ("start_up", "says", "advice"),
    [
        ("getent() { echo 'ACCOUNT:x:0:0::/:/bin/csh'; }", "the configuration says bash: read as csh", "correct shell:"),
        ("locale() { echo BIG5; }", "nothing is allowed automatically", "UTF-8 locale"),
    ],
)
async def test_an_account_that_is_not_what_was_thought(setup: Setup, start_up: str, says: str, advice: str) -> None:
    setup.sshd.start_up = start_up.replace("ACCOUNT", setup.sshd.account) + "\n"
    await setup.fails("account", says, advice)
