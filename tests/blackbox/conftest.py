"""The daemon as a process between real servers: PostgreSQL and sshd beyond it, stock clients before it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from harness.node import Node
from harness.openssh_server import OpenSshServer
from harness.postgres_server import PostgresServer, running_server

OURS = """\
version: 1
packs: [linux, linux-deny, postgres, postgres-deny]
default: {review: {groups: [sre]}}
access:
  - {who: {groups: [agents]}, targets: {env: prod}, accounts: ["*"], roles: ["*"]}
  - {who: {groups: [agents]}, targets: {env: dev}, accounts: ["*"], roles: ["*"]}
"""


TABLES = """\
CREATE TABLE t (id int);
CREATE TABLE bulk (id int, note text);
CREATE TABLE described (id int PRIMARY KEY, note text);
CREATE TABLE customers (id int, email text);
CREATE TABLE ledger (id int);
INSERT INTO ledger VALUES (1);
CREATE TYPE mood AS ENUM ('ok', 'bad');
CREATE TABLE moods (id int, m mood, ms mood[]);
INSERT INTO moods VALUES (1, 'ok', '{bad}');
"""


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with running_server() as running:
        running.run(TABLES)  # before any node reads the catalog
        yield running


@dataclass
class World:
    """One node, its two targets, and an agent's credentials."""

    node: Node
    postgres: PostgresServer
    sshd: OpenSshServer
    key: Path
    known_hosts: Path
    password: str = ""

    def trust_host(self) -> None:
        """Tell ssh which key the node has at the port that it listens on now."""
        host_key = (self.node.data_dir / "ssh_host_ed25519_key.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.node.port('ssh')} {' '.join(host_key)}\n")

    # -- the agent's stock clients ------------------------------------------------------------------------------------

    def ssh_argv(self, command: str, *options: str) -> list[str]:
        return [
            "ssh", "-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-p", str(self.node.port("ssh")), *options,
            "web-1@127.0.0.1", command,
        ]  # fmt: skip

    def ssh(self, command: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.ssh_argv(command), capture_output=True, text=True, timeout=60, check=False,
            **{"stdin": subprocess.DEVNULL, **kwargs},
        )  # fmt: skip

    def start_ssh(self, command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(self.ssh_argv(command), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def dsn(self, target: str = "orders") -> str:
        return f"host=127.0.0.1 port={self.node.port('postgres')} user=claude dbname={target} password={self.password}"

    def psql(self, script: str, target: str = "orders") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["psql", "-XAt", "-d", self.dsn(target)], input=script, capture_output=True, text=True, timeout=60, check=False
        )

    def start_psql(self, script: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            ["psql", "-XAt", "-d", self.dsn()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdin is not None
        child.stdin.write(script)
        child.stdin.close()
        child.stdin = None
        return child

    async def asyncpg(self, target: str = "orders") -> asyncpg.Connection:
        return await asyncpg.connect(
            host="127.0.0.1", port=self.node.port("postgres"), user="claude", database=target, password=self.password, ssl=False
        )

    def wait_pending(self, child: subprocess.Popen[str] | None = None) -> dict[str, Any]:
        """Wait until the daemon holds a request, by its own event stream of changes."""
        for _ in range(400):
            if rows := self.node.pending():
                return rows[0]
            if child is not None and child.poll() is not None:
                out, err = child.communicate()
                raise AssertionError(f"the client ended before anything was held:\n{out}\n{err}")
        raise AssertionError("nothing was held")

    def bundles(self) -> list[Path]:
        return sorted((self.node.data_dir / "sessions").iterdir())

    def verify(self, *bundles: Path, status: int = 0) -> str:
        done = self.node.run("verify", *map(str, bundles), "--trust", str(self.node.data_dir / "trust"), status=status)
        return done.stdout + done.stderr


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def config_for(directory: Path, postgres: PostgresServer, sshd: OpenSshServer, **changes: Any) -> dict[str, Any]:
    (directory / "policies").mkdir(exist_ok=True)
    (directory / "policies/ours.yaml").write_text(OURS)
    (directory / "app_password").write_text(postgres.password)
    (directory / "known_hosts_targets").write_text(sshd.known_hosts)
    (directory / "targets_ca").touch(mode=0o600)
    (directory / "targets_ca").write_bytes(sshd.ca.export_private_key())
    database = {
        "protocol": "postgres", "address": f"127.0.0.1:{postgres.port}", "database": "app", "role": "app", "tls": "disable",
        "credentials": {"kind": "password", "from": "file:app_password"},
    }  # fmt: skip
    return {
        "listen": {"ssh": "127.0.0.1:0", "postgres": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "targets_ca": {"key": "file:targets_ca"},
        "targets": [
            {
                "name": "web-1", "protocol": "ssh", "address": sshd.address, "account": sshd.account, "labels": {"env": "prod"},
                "credentials": {"kind": "ssh-ca", "pin": "reviewed"}, "host_keys": "known_hosts_targets", "shell": "bash",
            },
            {"name": "orders", "labels": {"env": "prod"}, **database},
            {"name": "scratch", "labels": {"env": "dev"}, **database},
        ],
        "policies": ["policies"],
        "approvals": {"hold": "60s", "expires": "15m"},
        **changes,
    }  # fmt: skip


@contextlib.asynccontextmanager
async def running_sshd() -> AsyncIterator[OpenSshServer]:
    sshd = OpenSshServer()
    await sshd.start()
    try:
        yield sshd
    finally:
        await sshd.stop()


@contextlib.asynccontextmanager
async def open_world(
    tmp_path: Path, server: PostgresServer, *, adjust: Callable[[dict[str, Any]], None] | None = None, **changes: Any
) -> AsyncIterator[World]:
    """Yield a running node between real servers. `changes` replace keys of its configuration, `adjust` may edit it."""
    directory = tmp_path / "node"
    directory.mkdir(mode=0o700, exist_ok=True)
    async with running_sshd() as sshd:
        config = config_for(directory, server, sshd, **changes)
        if adjust is not None:
            adjust(config)
        node = Node(directory, config)
        try:
            await asyncio.to_thread(node.start)
            key = make_key(directory / "agent_key")
            await asyncio.to_thread(node.add_people)
            await asyncio.to_thread(node.add_agent, key=key.with_suffix(".pub"))
            opened = World(node, server, sshd, key, directory / "known_hosts", await asyncio.to_thread(node.password))
            opened.trust_host()
            yield opened
        finally:
            await asyncio.to_thread(node.stop)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, server: PostgresServer) -> AsyncIterator[World]:
    async with open_world(tmp_path_factory.mktemp("world"), server) as opened:
        yield opened
