"""The rows of SSH: a stock client directly, through ProxyJump (a second sshd) and through Interlock, interleaved in one run.

`web-1` keeps its connections, as targets do; `web-cold` is the same sshd and closes each with its last command, so that
every login there is a whole one. All ways use the cipher that Interlock offers (AES-GCM).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh

from bench.results import resident
from bench.table import Figure, Row, cpu_seconds
from blackbox.conftest import World
from harness.openssh_server import OpenSshServer

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3")) * 3
BULK = int(os.environ.get("BENCH_BULK", str(64 * 1024 * 1024)))
BULK_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
IDLE = int(os.environ.get("BENCH_SSH_IDLE", "500"))
GCM = ["-c", "aes128-gcm@openssh.com"]


def cold_target(config: dict[str, Any]) -> None:
    """Add `web-cold` to a node's configuration."""
    web = next(target for target in config["targets"] if target["name"] == "web-1")
    config["targets"].append({**web, "name": "web-cold", "reuse": {"idle": "0s"}})


async def measure(world: World, *, only_bulk: bool = False) -> tuple[list[Row], list[Figure]]:
    jump = OpenSshServer()
    await jump.start()
    try:
        ways = Ways(world, jump)
        if only_bulk:
            return await asyncio.to_thread(_bulk, ways), []
        idle = await _idle(world)  # first: later there is memory that the daemon has freed and kept
        rows = await asyncio.to_thread(_latencies, ways)
        rows += await asyncio.to_thread(_bulk, ways)
        return rows, [idle]
    finally:
        await jump.stop()


class Ways:
    """The command lines of each way; `…` is what runs there."""

    def __init__(self, world: World, jump: OpenSshServer) -> None:
        node, sshd = world.node, world.sshd
        self.directory = node.directory
        self.pid = node.process.pid if node.process is not None else 0
        self.home = sshd.home
        key = _key(self.directory / "operator_key", sshd)
        known = self.directory / "known_all"
        ours = (node.data_dir / "ssh_host_ed25519_key.pub").read_text().split()[:2]
        known.write_text(f"{sshd.known_hosts}\n{jump.known_hosts}\n[127.0.0.1]:{node.port('ssh')} {' '.join(ours)}\n")
        over = ["ssh", *_options(_key(self.directory / "jump_key", jump), known)]
        leap = " ".join([*over, "-p", str(jump.port), "-W", "%h:%p", f"{jump.account}@127.0.0.1"])
        direct = ["ssh", *_options(key, known), *GCM, "-p", str(sshd.port)]
        here = f"{sshd.account}@127.0.0.1"
        through = ["ssh", *_options(world.key, known), "-p", str(node.port("ssh"))]
        self.direct = [*direct, here]
        self.proxyjump = [*direct, "-o", f"ProxyCommand={leap}", here]
        self.reused = [*through, "web-1@127.0.0.1"]
        self.cold = [*through, "web-cold@127.0.0.1"]

    @contextmanager
    def opened(self, *ways: list[str]) -> Iterator[list[list[str]]]:
        """The same over connections that are there already (ControlMaster)."""
        masters: list[subprocess.Popen[bytes]] = []
        argvs = []
        try:
            for number, argv in enumerate(ways):
                socket = self.directory / f"{number}.ctl"
                control = ["-o", f"ControlPath={socket}"]
                masters.append(subprocess.Popen([*argv[:-1], *control, "-M", "-N", argv[-1]], stdin=subprocess.DEVNULL))
                argvs.append([*argv[:-1], *control, argv[-1]])
                while not socket.exists():
                    assert masters[-1].poll() is None
            yield argvs
        finally:
            for master in masters:
                master.terminate()
                master.wait()


def _latencies(ways: Ways) -> list[Row]:
    with ways.opened(ways.reused, ways.direct) as (open_ours, open_direct):
        lines = {
            "direct": ways.direct, "proxyjump": ways.proxyjump, "cold": ways.cold, "reused": ways.reused,
            "open": open_ours, "open direct": open_direct,
        }  # fmt: skip
        took: dict[str, list[float]] = {name: [] for name in lines}
        timed([*ways.reused, "true"])  # there is a line to the target from here on
        for _ in range(ROUNDS):
            for name, argv in lines.items():
                took[name].append(timed([*argv, "true"]))
    unit = "ms"
    return [
        Row("ssh host true, the target's connection reused", unit, "interlock", "proxyjump", took["reused"], took["proxyjump"]),
        Row("ssh host true, the target's connection reused", unit, "interlock", "direct", took["reused"], took["direct"]),
        Row("ssh host true, cold", unit, "interlock", "proxyjump", took["cold"], took["proxyjump"]),
        Row("ssh host true, cold", unit, "interlock", "direct", took["cold"], took["direct"]),
        Row("exec on an open connection", unit, "interlock", "direct", took["open"], took["open direct"]),
    ]


def _bulk(ways: Ways) -> list[Row]:
    """A file read by `cat`, in MB a second; of Interlock also in MB a second of its own CPU."""
    (ways.home / "bulk").write_bytes(os.urandom(1024 * 1024) * (BULK // 1024 // 1024))
    lines = {"direct": ways.direct, "proxyjump": ways.proxyjump, "interlock": ways.reused}
    speed: dict[str, list[float]] = {name: [] for name in lines}
    spent = cpu_seconds(ways.pid)
    for _ in range(BULK_ROUNDS):
        for name, argv in lines.items():
            speed[name].append(BULK / 1e3 / timed([*argv, "cat bulk"], size=BULK))
    spent = cpu_seconds(ways.pid) - spent
    print(f"ssh bulk: {BULK * BULK_ROUNDS / 1e6 / max(spent, 0.01):.0f} MB a CPU second of Interlock")
    unit = "MB a second"
    return [
        Row("ssh bulk, AES-GCM", unit, "interlock", peer, speed["interlock"], speed[peer]) for peer in ("proxyjump", "direct")
    ]


async def _idle(world: World) -> Figure:
    """Open IDLE sessions that have each run a command, and say what each holds of the daemon's memory."""
    assert world.node.process is not None
    pid, key = world.node.process.pid, asyncssh.read_private_key(world.key)

    async def session() -> asyncssh.SSHClientConnection:
        connection = await asyncssh.connect(
            "127.0.0.1", world.node.port("ssh"), username="web-1", client_keys=[key], known_hosts=str(world.known_hosts),
            config=None, agent_path=None,
        )  # fmt: skip
        assert (await connection.run("true")).exit_status == 0
        return connection

    warm = [await session() for _ in range(20)]  # what the first ones allocate for all
    before = resident(pid)
    opened = [await session() for _ in range(IDLE)]
    held = (resident(pid) - before) / IDLE
    for connection in (*warm, *opened):
        connection.close()
    return Figure(f"{IDLE} idle ssh sessions", "KB each", [held], at_most=64)


def timed(argv: list[str], size: int | None = None) -> float:
    """Return milliseconds. The command must succeed, and give so many bytes: a refused one would be quick."""
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    took = (time.perf_counter() - start) * 1000
    if done.returncode != 0 or (size is not None and len(done.stdout) != size):
        raise SystemExit(f"{' '.join(argv)} exited {done.returncode} after {len(done.stdout)} bytes: {done.stderr.decode()}")
    return took


def _key(path: Path, server: OpenSshServer) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(server.operator.export_private_key())
    return path


def _options(key: Path, known_hosts: Path) -> list[str]:
    return [
        "-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", "IdentityAgent=none",
    ]  # fmt: skip
