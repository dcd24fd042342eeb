"""The SSH front end between a stock OpenSSH client and a real sshd, with whatever gate a test composes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from harness.openssh_server import OpenSshServer
from harness.people import agent
from harness.ports import MemoryAuthenticator, MemoryGate
from interlock.clock import Clock, SystemClock, system_entropy
from interlock.config import Config, parse
from interlock.ssh.limits import Limits
from interlock.ssh.listener import SshListener

QUIET = ("-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "LogLevel=INFO")


_Client = TypeVar("_Client", bound=asyncssh.SSHClientConnection)


@dataclass(frozen=True)
class Finished:
    status: int
    out: bytes
    err: str


@dataclass
class SshBench:
    """One proxy before one target. `directory` is scratch."""

    directory: Path
    target: OpenSshServer
    memory: MemoryGate = field(default_factory=lambda: MemoryGate(clock=SystemClock()))
    authenticator: Any = field(default_factory=MemoryAuthenticator)  # or the real one; then `key` is to be registered by hand
    credentials: dict[str, Any] = field(default_factory=lambda: {"kind": "ssh-ca", "pin": "reviewed"})
    limits: Limits = field(default_factory=Limits)
    more_targets: list[dict[str, Any]] = field(default_factory=list)
    gate: Any = None
    shell: str = "bash"
    clock: Clock = field(default_factory=SystemClock)
    signin: Any = None

    async def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "data").mkdir(mode=0o700)
        self._key("targets_ca", self.target.ca)
        self._key("operator", self.target.operator)
        (self.directory / "known_hosts").write_text(self.target.known_hosts)
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self._key("agent", self.key)
        if isinstance(self.authenticator, MemoryAuthenticator):
            self.authenticator.keys[self.key.public_data] = agent()
        self.config = self._config()
        self.listener = SshListener(
            self.config, self.gate or self.memory.gate, self.authenticator, clock=self.clock, entropy=system_entropy,
            limits=self.limits, signin=self.signin,
        )  # fmt: skip
        await self.listener.start()
        (self.directory / "proxy_known_hosts").write_text(f"[127.0.0.1]:{self.listener.port} {self.listener.host_key}\n")

    async def stop(self) -> None:
        await self.listener.close()

    def argv(self, *words: str, user: str = "web-1", options: Sequence[str] = (), identity: str = "agent") -> list[str]:
        return [
            "ssh", *QUIET, "-o", f"UserKnownHostsFile={self.directory / 'proxy_known_hosts'}",
            "-i", str(self.directory / identity), "-p", str(self.listener.port), *options, f"{user}@127.0.0.1", *words,
        ]  # fmt: skip

    async def spawn(self, *words: str, **kwargs: Any) -> asyncio.subprocess.Process:
        """Start a stock ssh and leave it running; its three streams are pipes."""
        return await asyncio.create_subprocess_exec(
            *self.argv(*words, **kwargs), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def ssh(self, *words: str, stdin: bytes | None = b"", timeout: float = 60, **kwargs: Any) -> Finished:
        """Run a stock ssh to its end. `stdin=None` leaves its input open."""
        process = await self.spawn(*words, **kwargs)
        async with asyncio.timeout(timeout):
            return await finish(process, stdin)

    async def raw(self, user: str = "web-1", key: asyncssh.SSHKey | None = None, **options: Any) -> asyncssh.SSHClientConnection:
        """Connect with asyncssh, for what ssh won't send."""
        return await asyncssh.connect(
            "127.0.0.1", self.listener.port, username=user, config=None, agent_path=None,
            known_hosts=str(self.directory / "proxy_known_hosts"), client_keys=[key or self.key], **options,
        )  # fmt: skip

    async def begun(self, kind: type[_Client]) -> tuple[_Client, asyncio.Future[None]]:
        """Connect with a client of a test's own; the future tells how its login ends."""
        options = await asyncssh.SSHClientConnectionOptions.construct(
            None, config=None, username="web-1", client_keys=[self.key], agent_path=None, gss_host=None, host="127.0.0.1",
            port=self.listener.port, known_hosts=str(self.directory / "proxy_known_hosts"),
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        options.waiter = loop.create_future()
        connection = kind(loop, options, wait="auth")
        await loop.create_connection(lambda: connection, "127.0.0.1", self.listener.port)
        return connection, options.waiter

    def _key(self, name: str, key: asyncssh.SSHKey) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_bytes(key.export_private_key())

    def _config(self) -> Config:
        web = {
            "name": "web-1", "protocol": "ssh", "address": self.target.address, "account": self.target.account,
            "labels": {"env": "prod"}, "credentials": self.credentials, "host_keys": "known_hosts", "shell": self.shell,
        }  # fmt: skip
        more = [{**web, **target} for target in self.more_targets]
        data = {
            "version": 1, "node": {"name": "test", "data_dir": "data"}, "listen": {"ssh": "127.0.0.1:0"},
            "targets_ca": {"key": "file:targets_ca"}, "targets": [web, *more],
        }  # fmt: skip
        return parse(data, base=self.directory)


@contextlib.asynccontextmanager
async def open_bench(directory: Path, target: OpenSshServer, **parts: Any) -> AsyncIterator[SshBench]:
    bench = SshBench(directory, target, **parts)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.stop()


async def finish(process: asyncio.subprocess.Process, stdin: bytes | None = b"") -> Finished:
    """Feed a started ssh and collect what it said."""
    if stdin is None:
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait()
    else:
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Finished(process.returncode, out, err.decode(errors="replace"))


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something that another process does and no event tells of. Fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  the condition is a file or a process outside of this loop
            await asyncio.sleep(0.01)
