"""pgbench through Interlock, through pgbouncer, and directly: A B C A B C in one run.

Classification, policy and transcript are on. CPU is the middle process's own, from /proc/PID/stat.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.table import Row, cpu_seconds
from harness.node import Node
from harness.postgres_server import PostgresServer, free_port

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
DONE = re.compile(r"number of transactions actually processed: (\d+)")
SELECT = "SELECT abalance FROM pgbench_accounts WHERE aid = "
"""What `pgbench -S` sends, up to the value or its parameter."""
LATENCY = re.compile(r"latency average = ([\d.]+) ms")


@dataclass(frozen=True)
class Way:
    """One way to the same database. `pid` is the process in the middle, None where there is none."""

    name: str
    port: int
    user: str
    database: str
    password: str
    pid: int | None


@dataclass(frozen=True)
class Load:
    name: str
    mode: str
    clients: int


LOADS = (
    Load("prepared select, 8 clients", "prepared", 8),
    Load("extended select, 8 clients", "extended", 8),
    Load("simple select, new literals, 8 clients", "simple", 8),
    Load("prepared select, 1 client", "prepared", 1),
)


def run(way: Way, load: Load, pgbench: Path) -> tuple[int, float, float | None]:
    """Return (statements, milliseconds a statement, CPU microseconds a statement of the process in the middle)."""
    before = cpu_seconds(way.pid) if way.pid else None
    done = subprocess.run(
        [pgbench, "-n", "-S", "-M", load.mode, "-c", str(load.clients), "-j", "1", "-T", str(SECONDS), "-h", "127.0.0.1",
         "-p", str(way.port), "-U", way.user, way.database],
        env={**os.environ, "PGPASSWORD": way.password}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    count, latency = DONE.search(done.stdout), LATENCY.search(done.stdout)
    if done.returncode != 0 or count is None or latency is None:
        raise SystemExit(f"pgbench through {way.name} failed:\n{done.stdout}\n{done.stderr}")
    statements = int(count[1])
    cpu = None if before is None or way.pid is None else (cpu_seconds(way.pid) - before) / statements * 1e6
    return statements, float(latency[1]), cpu


def measure(ways: list[Way], pgbench: Path) -> tuple[list[Row], dict[str, int]]:
    """Interleave the ways; return the rows and how many statements each way was sent."""
    rows: list[Row] = []
    sent = dict.fromkeys((way.name for way in ways), 0)
    for load in LOADS:
        latency: dict[str, list[float]] = {way.name: [] for way in ways}
        cpu: dict[str, list[float]] = {way.name: [] for way in ways}
        for _ in range(ROUNDS):
            for way in ways:
                statements, milliseconds, used = run(way, load, pgbench)
                sent[way.name] += statements
                latency[way.name].append(milliseconds * 1000)
                if used is not None:
                    cpu[way.name].append(used)
        rows.append(Row(load.name, "µs a statement", "interlock", "direct", latency["interlock"], latency["direct"]))
        if "pgbouncer" in latency:
            rows.append(Row(load.name, "µs a statement", "interlock", "pgbouncer", latency["interlock"], latency["pgbouncer"]))
            rows.append(Row(load.name, "CPU µs a statement", "interlock", "pgbouncer", cpu["interlock"], cpu["pgbouncer"]))
    return rows, sent


@contextmanager
def pgbouncer(server: PostgresServer, directory: Path) -> Iterator[Way | None]:
    """Session pooling, SCRAM on both sides, like Interlock. None where it is not installed."""
    binary = shutil.which("pgbouncer", path="/usr/sbin:" + os.environ.get("PATH", ""))
    if binary is None:
        print("pgbouncer is not installed: `make setup-test` installs it; its rows are left out")
        yield None
        return
    port = free_port()
    directory.mkdir()
    (directory / "users").write_text(f'"app" "{server.password}"\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\napp = host=127.0.0.1 port={server.port} dbname=app\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
        f"listen_port={port}\nunix_socket_dir=\nauth_type=scram-sha-256\nauth_file={directory}/users\npool_mode=session\n"
        f"default_pool_size=50\nmax_client_conn=200\nlogfile={directory}/log\npidfile={directory}/pid\n"
        "ignore_startup_parameters=extra_float_digits\n"
    )
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    if user:
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, user)
    child = subprocess.Popen([binary, "-q", str(directory / "pgbouncer.ini")], user=user, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, child)
        yield Way("pgbouncer", port, "app", "app", server.password, child.pid)
    finally:
        child.terminate()
        child.wait()


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    """Return once the port is taken. Raise SystemExit when the child ended instead."""
    while child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"pgbouncer exited {child.returncode}")


def interlock_way(node: Node, password: str) -> Way:
    assert node.process is not None
    return Way("interlock", node.port("postgres"), "claude", "orders", password, node.process.pid)
